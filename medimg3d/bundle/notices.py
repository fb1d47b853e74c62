"""Notices of libraries that tell the user nothing, or the wrong thing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_DICOM_PLUGIN = "monai.data.nvimgcodec_pydicom_plugin"
# They repeat the progress line, and name a "best" epoch where none is chosen.
_TRAINING = ("monai.bundle.workflows", "train", "validation", "ignite.engine.engine")


@contextmanager
def quiet_dicom_plugin() -> Iterator[None]:
    """Hush what LoadImage says, for any image, where NVIDIA's optional DICOM decoder is not installed."""
    with _at_level(logging.ERROR, [_DICOM_PLUGIN]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        yield


@contextmanager
def quiet_training() -> Iterator[None]:
    """Hush MONAI's log of epochs, which the progress bar and the history say better; errors still show."""
    with _at_level(logging.ERROR, _TRAINING), quiet_dicom_plugin():
        yield


@contextmanager
def _at_level(level: int, names: list[str] | tuple[str, ...]) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)
