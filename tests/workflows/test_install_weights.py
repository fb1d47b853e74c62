from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import BundleError
from medimg3d.workflows.install_weights import install_weights


@pytest.fixture
def trained(tmp_path) -> Path:
    folder = tmp_path / "trained"
    for name in ("models", "training"):
        (folder / name).mkdir(parents=True)
    torch.manual_seed(0)
    state = {"layer.weight": torch.randn(20, 30), "norm.num_batches_tracked": torch.tensor(7)}
    torch.save({"model": state}, folder / "models" / "model.pt")
    (folder / "models" / "training_cases.json").write_text(json.dumps({"format": 1, "cases": []}))
    (folder / "models" / "decision.json").write_text(json.dumps({"format": 1, "weights_sha256": "old"}))
    for name in ("settings.json", "history.csv", "history.png"):
        (folder / "training" / name).write_text(name)
    return folder


@pytest.fixture
def bundle(tmp_path) -> Path:
    (tmp_path / "bundle" / "docs").mkdir(parents=True)
    return tmp_path / "bundle"


def test_weights_arrive_with_their_records(trained, bundle):
    install_weights(trained, bundle)
    digest = content_sha256(bundle / "models" / "model.pt")
    assert digest == content_sha256(trained / "models" / "model.pt")
    for name in ("training_cases.json", "decision.json"):
        assert json.loads((bundle / "models" / name).read_text())["weights_sha256"] == digest
    assert {path.name for path in (bundle / "docs").iterdir()} == {
        "settings.json", "history.csv", "history.png",
    }  # fmt: skip


def test_half_precision_rounds_the_weights_and_keeps_the_counters(trained, bundle):
    install_weights(trained, bundle, half=True)
    full = torch.load(trained / "models" / "model.pt", weights_only=True)["model"]
    half = torch.load(bundle / "models" / "model.pt", weights_only=True)["model"]
    assert half["layer.weight"].dtype == torch.float16
    torch.testing.assert_close(half["layer.weight"].float(), full["layer.weight"], rtol=1e-3, atol=1e-4)
    assert int(half["norm.num_batches_tracked"]) == 7
    digest = content_sha256(bundle / "models" / "model.pt")
    assert json.loads((bundle / "models" / "decision.json").read_text())["weights_sha256"] == digest


def test_weights_too_large_for_a_zoo_are_refused_and_the_old_ones_stay(trained, bundle):
    install_weights(trained, bundle)
    before = content_sha256(bundle / "models" / "model.pt")
    torch.save({"model": {"w": torch.zeros(7_000_000)}}, trained / "models" / "model.pt")
    with pytest.raises(BundleError, match=r"have 28.0 MB; expected up to 25 MB: store them with half=True"):
        install_weights(trained, bundle)
    assert content_sha256(bundle / "models" / "model.pt") == before
    install_weights(trained, bundle, half=True)


def test_a_training_without_weights_is_named(trained, bundle):
    (trained / "models" / "model.pt").unlink()
    with pytest.raises(BundleError, match="expected a finished training"):
        install_weights(trained, bundle)
