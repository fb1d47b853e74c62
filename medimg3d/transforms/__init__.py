"""Transforms that MONAI lacks, each as an array and a dictionary version, one idea a file."""
