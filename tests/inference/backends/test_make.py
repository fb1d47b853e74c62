import importlib.util
import json
import logging
import sys

import pytest
import torch
from tiny_networks import Scaled, tiny_dynunet, tiny_unet
from torch import nn

from medimg3d.errors import MissingExtraError, UsageError
from medimg3d.inference.backends import make
from medimg3d.inference.backends.kinds import BackendError, problem
from medimg3d.inference.backends.make import make_backend

NETWORKS = {
    "2D UNet": (lambda: tiny_unet(2, channels=2), (16, 16), 2, 2),
    "3D UNet": (tiny_unet, (16, 16, 16), 1, 1),
    "3D DynUNet with deep supervision": (tiny_dynunet, (16, 16, 16), 1, 1),
}
CONVERTED = ["openvino-f32", "onnxruntime"]


def needs(name):
    """Skip where the backend's package is not installed."""
    found = problem(name)
    if found is not None:
        pytest.skip(str(found))


def made(name, network, cache, *, shape=(16, 16, 16), channels=1, batch=1, weights="a" * 64):
    return make_backend(
        name,
        network,
        window_shape=shape,
        in_channels=channels,
        batch=batch,
        weights_sha256=weights,
        cache_dir=cache,
    )


def windows_like(count, channels, shape):
    return torch.randn((count, channels, *shape), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", ["torch", "torch-channels-last", *CONVERTED])
def test_a_float32_backend_gives_torchs_outputs(name, kind, tmp_path):
    needs(name)
    build, shape, channels, batch = NETWORKS[kind]
    network = build()
    windows = windows_like(batch + 1, channels, shape)
    with torch.no_grad():
        expected = network(windows)
    with made(name, network, tmp_path, shape=shape, channels=channels, batch=batch) as backend:
        assert backend.precision == "float32"
        assert backend.device == torch.device("cpu")
        output = backend(windows)
    assert output.dtype == torch.float32
    assert float((output - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.slow
def test_openvino_gives_the_outputs_of_a_swin_unetr(tmp_path):
    needs("openvino-f32")
    from monai.networks.nets import SwinUNETR

    torch.manual_seed(0)
    network = SwinUNETR(1, 2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)).eval()
    windows = windows_like(1, 1, (64, 64, 64))
    with torch.no_grad():
        expected = network(windows)
    output = made("openvino-f32", network, tmp_path, shape=(64, 64, 64))(windows)
    assert float((output - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize("name", ["torch-bf16", "openvino-bf16"])
def test_a_bfloat16_backend_gives_nearly_torchs_outputs_in_float32(name, tmp_path):
    needs(name)
    network, windows = tiny_dynunet(), windows_like(1, 1, (16, 16, 16))
    with torch.no_grad():
        expected = network(windows)
    output = made(name, network, tmp_path)(windows)
    apart = float((output - expected).abs().max() / expected.abs().max())
    assert output.dtype == torch.float32
    assert 1e-4 < apart < 0.05  # rounded, and not wrong


def test_torch_runs_the_first_of_several_heads(tmp_path):
    class Heads(nn.Module):
        def forward(self, windows):
            return [windows + 1, windows + 2]

    windows = torch.zeros(1, 1, 4, 4)
    for name in ("torch", "torch-channels-last"):
        assert made(name, Heads(), tmp_path, shape=(4, 4))(windows).unique().tolist() == [1.0]


@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_network_gives_the_first_of_several_heads(name, tmp_path):
    needs(name)

    class Heads(nn.Module):
        def forward(self, windows):
            return {"b": windows + 2, "a": windows + 1}

    assert made(name, Heads(), tmp_path, shape=(4, 4))(torch.zeros(1, 1, 4, 4)).unique().tolist() == [1.0]


@pytest.mark.parametrize("name", ["torch", "torch-channels-last", *CONVERTED])
def test_dropout_is_off(name, tmp_path):
    needs(name)
    network = nn.Sequential(Scaled(), nn.Dropout(0.9)).train()
    output = made(name, network, tmp_path, shape=(4, 4))(torch.ones(1, 1, 4, 4))
    assert output[0, :, 0, 0].tolist() == [1.0, 2.0, -1.0]


def test_channels_last_leaves_the_network_as_it_was(tmp_path):
    network = tiny_unet()
    strides = [value.stride() for value in network.parameters()]
    made("torch-channels-last", network, tmp_path)
    assert [value.stride() for value in network.parameters()] == strides


def test_outputs_are_the_callers_own(tmp_path):
    needs("openvino-f32")
    backend = made("openvino-f32", Scaled(), tmp_path, shape=(4, 4))
    first = backend(torch.ones(1, 1, 4, 4))
    backend(torch.zeros(1, 1, 4, 4))
    assert first[0, :, 0, 0].tolist() == [1.0, 2.0, -1.0]


@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_network_is_found_again_and_never_used_for_other_weights(name, tmp_path):
    needs(name)
    ones = torch.ones(1, 1, 4, 4)
    made(name, Scaled((1.0, 2.0)), tmp_path, shape=(4, 4), weights="a" * 64)
    # Under the old hash the old numbers come back: the hash is what the cache goes by.
    again = made(name, Scaled((5.0, 6.0)), tmp_path, shape=(4, 4), weights="a" * 64)
    assert again(ones)[0, :, 0, 0].tolist() == [1.0, 2.0]
    changed = made(name, Scaled((5.0, 6.0)), tmp_path, shape=(4, 4), weights="b" * 64)
    assert changed(ones)[0, :, 0, 0].tolist() == [5.0, 6.0]


def test_the_cache_states_the_agreement_and_the_time_of_the_conversion(tmp_path):
    needs("openvino-bf16")
    made("openvino-bf16", tiny_unet(), tmp_path)
    (folder,) = (tmp_path / "converted").iterdir()
    facts = json.loads((folder / "entry.json").read_text())
    assert facts["agreement"]["relative"] < 1e-4
    assert facts["agreement"]["probability"] < 1e-4
    assert facts["seconds"] >= 0
    assert facts["key"]["weights_sha256"] == "a" * 64
    note = json.loads((folder / "agreement-openvino-bf16.json").read_text())
    assert facts["agreement"]["relative"] < note["relative"] < 0.1


def test_both_precisions_of_openvino_share_one_conversion(tmp_path, monkeypatch):
    needs("openvino-bf16")
    made("openvino-f32", tiny_unet(), tmp_path)

    def not_again(*given):
        raise AssertionError("converted twice")

    monkeypatch.setattr(make, "_FORMS", {**make._FORMS, "openvino-bf16": _with_convert(not_again)})
    made("openvino-bf16", tiny_unet(), tmp_path)


def _with_convert(convert):
    from dataclasses import replace

    return replace(make._OPENVINO, convert=convert)


def test_a_conversion_that_gives_other_outputs_is_refused_and_not_kept(tmp_path, monkeypatch):
    needs("openvino-f32")

    def wrong(network, windows, folder):
        make.convert_to_openvino(Scaled((1.0, 2.0, -1.01)), windows, folder)

    monkeypatch.setattr(make, "_FORMS", {"openvino-f32": _with_convert(wrong)})
    with pytest.raises(
        BackendError, match=r"openvino-f32 differs from torch by 0\.005 of the largest output"
    ):
        made("openvino-f32", Scaled(), tmp_path, shape=(4, 4))
    assert list((tmp_path / "converted").iterdir()) == []


class Refusing(nn.Module):
    """Runs once in torch, and refuses to be traced."""

    def forward(self, windows):
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            raise RuntimeError("cannot be traced")
        return windows


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("openvino-f32", "OpenVINO cannot convert Refusing .*; choose another backend"),
        ("onnxruntime", "Refusing cannot be exported to ONNX .*; choose another backend"),
    ],
)
def test_a_network_that_cannot_be_converted_is_named_with_the_reason(name, reason, tmp_path):
    needs(name)
    with pytest.raises(BackendError, match=reason) as caught:
        made(name, Refusing(), tmp_path, shape=(4, 4))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "converted").iterdir()) == []


def test_a_failed_conversion_leaves_the_log_as_it_was(tmp_path):
    needs("openvino-f32")
    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    with pytest.raises(BackendError, match="OpenVINO cannot convert"):
        made("openvino-f32", Refusing(), tmp_path, shape=(4, 4))
    assert (root.level, list(root.filters), list(root.handlers)) == before


@pytest.mark.parametrize(
    ("name", "package"),
    [("openvino-f32", "openvino"), ("onnxruntime", "onnxruntime"), ("onnxruntime", "onnx")],
)
def test_without_its_package_a_backend_names_the_extra(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"{package} is not installed"):
        made(name, Scaled(), tmp_path, shape=(4, 4))


def test_torch_needs_none_of_the_packages(tmp_path, monkeypatch):
    for package in ("openvino", "nncf", "onnx", "onnxruntime", "onnxscript", "tensorrt"):
        monkeypatch.setitem(sys.modules, package, None)
    output = made("torch", Scaled(), tmp_path, shape=(4, 4))(torch.ones(1, 1, 4, 4))
    assert output[0, :, 0, 0].tolist() == [1.0, 2.0, -1.0]


def test_an_unknown_name_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="Unknown backend 'onnx'"):
        made("onnx", Scaled(), tmp_path, shape=(4, 4))


@pytest.mark.slow
def test_a_compiled_network_gives_torchs_outputs(tmp_path, monkeypatch):
    needs("compile")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    network, windows = tiny_unet(2), windows_like(3, 1, (16, 16))
    with torch.no_grad():
        expected = network(windows)
    output = made("compile", network, tmp_path, shape=(16, 16), batch=2)(windows)
    assert torch.allclose(output, expected, atol=1e-4)


def test_openvino_reports_nothing(tmp_path):
    """A process with its own home folder: the reporting package is never loaded and writes no file there."""
    needs("openvino-f32")
    import os
    import subprocess

    assert importlib.util.find_spec("openvino") is not None
    code = (
        "import sys; from pathlib import Path; from tiny_networks import Scaled; "
        "from medimg3d.inference.backends.make import make_backend; "
        "make_backend('openvino-f32', Scaled(), window_shape=(4, 4), weights_sha256='a' * 64, "
        f"cache_dir=Path({str(tmp_path / 'cache')!r})); "
        "assert 'openvino_telemetry' not in sys.modules"
    )
    home = tmp_path / "home"
    home.mkdir()
    here = os.pathsep.join([path for path in sys.path if path])
    quiet = {
        name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")
    }
    subprocess.run(
        [sys.executable, "-c", code],
        env={**quiet, "HOME": str(home), "PYTHONPATH": here},
        check=True,
        timeout=120,
    )
    assert not (home / "intel").exists()


def test_what_openvino_compiled_is_kept_and_made_anew_where_it_is_damaged(tmp_path):
    needs("openvino-f32")
    network, windows = tiny_unet(), windows_like(1, 1, (16, 16, 16))
    with made("openvino-f32", network, tmp_path) as backend:
        first = backend(windows).clone()
    (kept,) = tmp_path.rglob("compiled/*.blob")
    whole = kept.stat().st_size
    kept.chmod(0o600)
    kept.write_bytes(kept.read_bytes()[: whole // 2])
    with made("openvino-f32", network, tmp_path) as backend:
        assert torch.equal(backend(windows), first)
    assert [path.stat().st_size for path in tmp_path.rglob("compiled/*.blob")] == [whole]
