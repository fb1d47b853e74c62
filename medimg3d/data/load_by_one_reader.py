"""MONAI's LoadImaged without its second thoughts: a file that the reader refuses is refused.

``LoadImaged`` asks every other reader that it knows when the named one fails. A film that is refused with good reason
(two pictures in one file) is then read by Pillow, and nobody hears of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import ImageReader
from monai.transforms import LoadImaged


class LoadByOneReaderd(LoadImaged):
    """``LoadImaged`` that asks the named reader only and hands on what it says.

    Args:
        keys: As for ``LoadImaged``.
        reader: As for ``LoadImaged``, but one, and not None.
        **kwargs: As for ``LoadImaged``.
    """

    def __init__(self, keys: KeysCollection, reader: Any, **kwargs: Any) -> None:
        super().__init__(keys, reader, **kwargs)
        self.reader = self._loader.readers[-1]  # the named one is registered last

    def __call__(
        self, data: Mapping[Hashable, Any], reader: ImageReader | None = None
    ) -> dict[Hashable, Any]:
        """Load; raises what the reader raises."""
        loaded: dict[Hashable, Any] = super().__call__(data, reader or self.reader)
        return loaded
