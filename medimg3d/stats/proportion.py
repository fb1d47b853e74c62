"""Interval of a proportion, from counts alone."""

from __future__ import annotations

import math


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float] | None:
    """Wilson's interval: about the stated confidence on average, also near 0 and 1 and for few cases.

    Args:
        successes: Number of cases with the property, 0 to n.
        n: Number of independent cases.
        level: Confidence, between 0 and 1.

    Returns:
        Lower and upper end, 0 to 1; None without cases.

    Raises:
        ValueError: A number is out of range.

    Source: Wilson 1927, doi:10.2307/2276774.
    """
    from scipy.stats import norm

    _check(successes, n, level)
    if n == 0:
        return None
    z = float(norm.ppf((1 + level) / 2))
    share, squared = successes / n, z * z / n
    middle = (share + squared / 2) / (1 + squared)
    half = z / (1 + squared) * math.sqrt(share * (1 - share) / n + squared / (4 * n))
    return (
        0.0 if successes == 0 else max(0.0, middle - half),
        1.0 if successes == n else min(1.0, middle + half),
    )


def clopper_pearson_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float] | None:
    """The exact interval: never below the stated confidence, so somewhat wide.

    Args:
        successes: Number of cases with the property, 0 to n.
        n: Number of independent cases.
        level: Confidence, between 0 and 1.

    Returns:
        Lower and upper end, 0 to 1; None without cases.

    Raises:
        ValueError: A number is out of range.

    Source: Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    from scipy.stats import beta

    _check(successes, n, level)
    if n == 0:
        return None
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def _check(successes: int, n: int, level: float) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"Found {successes} successes of {n}; expected 0 to n.")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
