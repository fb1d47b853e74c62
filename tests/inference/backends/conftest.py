"""No test of the backends may load OpenVINO's reporting package: it would tell a server of the run."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def nothing_is_reported():
    """Fail the test that loads it (plain ``import openvino`` does, ``pytest.importorskip`` too)."""
    before = "openvino_telemetry" in sys.modules
    yield
    assert before or "openvino_telemetry" not in sys.modules
