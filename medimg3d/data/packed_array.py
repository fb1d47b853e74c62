"""Arrays in compressed files, to the bit: two thirds of an image in half precision stay, a hundredth of a label map."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.data.fast_gzip import compress, decompress
from medimg3d.errors import DataError


def write_packed(file: Path, array: np.ndarray) -> dict[str, Any]:
    """Write an array of numbers.

    First bytes of all numbers stand together, then the second ones, and so on, since neighbours share their upper
    bytes; of a list of whole numbers the steps from one to the next are kept, since positions rise.

    Args:
        file: To write.
        array: Any shape; numbers or truth values.

    Returns:
        What ``read_packed`` needs beside the file, for JSON.
    """
    values = np.asarray(array, order="C")
    steps = values.ndim == 1 and values.dtype == np.int64 and values.size > 0
    stored = np.diff(values, prepend=values.dtype.type(0)) if steps else values
    planes = stored.reshape(-1).view(np.uint8).reshape(stored.size, stored.itemsize).T
    file.write_bytes(compress(np.ascontiguousarray(planes).tobytes()))
    return {"dtype": values.dtype.str, "shape": list(values.shape), "steps": steps}


def read_packed(file: Path, described: dict[str, Any]) -> np.ndarray:
    """Read what ``write_packed`` wrote.

    Args:
        file: To read.
        described: What writing it returned.

    Returns:
        The array, in memory of its own.

    Raises:
        DataError: The file is damaged.
    """
    dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
    try:
        planes = np.frombuffer(decompress(file.read_bytes()), np.uint8).reshape(dtype.itemsize, -1)
        values = np.array(planes.T, order="C").view(dtype).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{file} is damaged ({error}); expected a compressed array of shape {shape}. Remove it."
        ) from error
    return np.cumsum(values, dtype=dtype) if described["steps"] else values
