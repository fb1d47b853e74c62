import subprocess
import sys

import pytest
from tiny_networks import needs_installed

from medimg3d.errors import MissingExtraError, UsageError
from medimg3d.inference.backends import kinds
from medimg3d.inference.backends.kinds import BackendError, available_backends, candidates, problem


def test_every_backend_is_listed_with_none_or_the_reason():
    found = available_backends("cpu")
    assert list(found) == list(kinds.KINDS)
    assert found["torch"] is None
    assert found["torch-bf16"] is None


def test_without_a_gpu_tensorrt_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(kinds, "_has_cuda", lambda: False)
    assert "needs an NVIDIA GPU" in available_backends("cpu")["tensorrt"]
    assert "needs an NVIDIA GPU" in available_backends("cuda")["tensorrt"]


def test_with_a_gpu_tensorrt_is_refused_on_the_cpu_and_named_with_its_extra_on_the_gpu(monkeypatch):
    monkeypatch.setattr(kinds, "_has_cuda", lambda: True)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "runs on cuda, not on cpu" in str(problem("tensorrt", "cpu"))
    assert 'pip install "medimg3d[tensorrt]"' in str(problem("tensorrt", "cuda:0"))


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("openvino-f32", "openvino", "fast"),
        ("openvino-bf16", "openvino", "fast"),
        ("openvino-int8", "openvino", "int8"),
        ("onnxruntime", "onnxruntime", "onnx"),
        ("onnxruntime", "onnx", "onnx"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(name, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    found = problem(name)
    assert isinstance(found, MissingExtraError)
    assert str(found) == f'{package} is not installed; install it with: pip install "medimg3d[{extra}]"'


def test_openvino_is_for_the_processor():
    assert "openvino-f32 runs on cpu, not on cuda" in available_backends("cuda")["openvino-f32"]


def test_compile_names_the_compiler_it_misses(monkeypatch):
    monkeypatch.setattr(kinds.shutil, "which", lambda name: None)
    assert isinstance(problem("compile"), BackendError)
    assert "needs a C++ compiler" in str(problem("compile"))


def test_bfloat16_is_not_offered_on_a_processor_without_it(monkeypatch):
    needs_installed("openvino")
    monkeypatch.setattr("medimg3d.inference.backends.openvino_backend.has_bfloat16", lambda: False)
    assert "needs a processor with bfloat16" in available_backends("cpu")["openvino-bf16"]


def test_an_unknown_backend_is_a_usage_error():
    with pytest.raises(UsageError, match="Unknown backend 'tensorflow'; expected one of torch"):
        problem("tensorflow")


def test_reduced_precision_is_a_candidate_only_where_it_is_allowed():
    for device in ("cpu", "cuda:0"):
        assert not any(kinds.KINDS[name].reduced for name in candidates(device))
        assert any(kinds.KINDS[name].reduced for name in candidates(device, allow_reduced=True))


def test_the_names_load_no_torch():
    code = "import sys, medimg3d.inference.backends.kinds; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
