"""Fixtures and the rule for tests on real data: skip loudly without it, fail where it is required."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")
sys.path.insert(0, str(Path(__file__).parent))  # tests import phantoms.py by name

REPOSITORY = Path(__file__).resolve().parents[1]


def _data_root() -> Path | None:
    root = os.environ.get("MEDIMG3D_DATA")
    return Path(root) if root and (Path(root) / "hippocampus" / "dataset.json").is_file() else None


def pytest_collection_modifyitems(config, items):
    if _data_root() is not None or os.environ.get("MEDIMG3D_REQUIRE_DATA") == "1":
        return
    for item in items:
        if "realdata" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=_NO_DATA))


_NO_DATA = "real data not found: set MEDIMG3D_DATA to run this test"


def pytest_terminal_summary(terminalreporter):
    """Say it once, loudly; counted from the reports, since under pytest-xdist only the workers collect."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(_NO_DATA in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(
            f"NOT TESTED ON REAL DATA: {count} tests skipped. "
            "Set MEDIMG3D_DATA to a folder with the data sets.",
            yellow=True,
            bold=True,
        )


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets; fails where MEDIMG3D_REQUIRE_DATA=1 and they are absent."""
    root = _data_root()
    if root is None:
        pytest.fail("MEDIMG3D_REQUIRE_DATA=1 but MEDIMG3D_DATA names no folder with hippocampus/dataset.json")
    return root


@pytest.fixture(scope="session")
def hippocampus(data_root: Path) -> Path:
    """Decathlon root of the hippocampus set."""
    return data_root / "hippocampus"


@pytest.fixture(scope="session")
def bundle_root() -> Path:
    """The shipped hippocampus bundle."""
    return REPOSITORY / "bundles" / "mri_hippocampus_unet"


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads of torch for one test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _common_settings_are_left_alone() -> Iterator[None]:
    """What every later test depends on: the threads of torch, and what is logged."""
    before = _common_settings()
    yield
    after = _common_settings()
    if before["threads"] is None:  # torch was first imported by this test
        after["threads"] = None
    assert after == before, "the test (or the code under test) changed a setting of the whole process"


def _common_settings() -> dict[str, int | None]:
    torch = sys.modules.get("torch")
    return {
        "threads": torch.get_num_threads() if torch is not None else None,
        "log level": logging.getLogger().level,
        "least logged": logging.root.manager.disable,
    }
