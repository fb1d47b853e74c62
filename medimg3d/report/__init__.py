"""Figures, overlays and pages made from results."""
