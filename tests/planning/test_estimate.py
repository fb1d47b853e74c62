"""What a whole image needs, by hand."""

from __future__ import annotations

import pytest

from medimg3d.planning.estimate import BASE_GB, whole_image_gb


@pytest.mark.parametrize(("mirrored", "volumes"), [(False, 2 * 8 + 1 + 1), (True, 3 * 8 + 1 + 1)])
def test_a_whole_image_needs_two_or_three_copies_of_all_classes(mirrored, volumes):
    needed = whole_image_gb(1_000_000, channels=1, num_classes=8, mirrored=mirrored)
    assert needed == pytest.approx(BASE_GB + volumes * 0.004)
