"""Segmentation metrics, one idea a file."""
