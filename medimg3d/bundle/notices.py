"""Notices of libraries that tell the user nothing, or the wrong thing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_DICOM_PLUGIN = "monai.data.nvimgcodec_pydicom_plugin"
# They repeat the progress line, and name a "best" epoch where none is chosen.
_TRAINING = ("monai.bundle.workflows", "train", "validation")
# Ignite logs an error and MONAI's StatsHandler its traceback, before it is raised and told by who catches it.
_ENGINE = "ignite.engine.engine"
_STATS = ("train", "validation")


@contextmanager
def quiet_dicom_plugin() -> Iterator[None]:
    """Hush what LoadImage says, for any image, where NVIDIA's optional DICOM decoder is not installed."""
    with _at_level(logging.ERROR, [_DICOM_PLUGIN]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        yield


@contextmanager
def quiet_training() -> Iterator[None]:
    """Hush MONAI's log of epochs, which the progress bar and the history say better; errors are raised alone."""
    engine = _at_level(logging.CRITICAL, [_ENGINE])
    with _at_level(logging.ERROR, _TRAINING), engine, _without_output(_STATS), quiet_dicom_plugin():
        yield


@contextmanager
def _without_output(names: tuple[str, ...]) -> Iterator[None]:
    """MONAI sets the level of these loggers anew; without a handler, Python would print errors to standard error."""
    silent = logging.NullHandler()
    for name in names:
        logging.getLogger(name).addHandler(silent)
    try:
        yield
    finally:
        for name in names:
            logging.getLogger(name).removeHandler(silent)


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
