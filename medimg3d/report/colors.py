"""Colours that stay apart for colour-blind readers and in grey print."""

from __future__ import annotations

# Okabe and Ito 2008, without black and the yellow that vanishes on white.
CLASS_COLORS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def class_color(position: int) -> str:
    """Colour of the class at a position, from 0; the colours repeat after six."""
    return CLASS_COLORS[position % len(CLASS_COLORS)]
