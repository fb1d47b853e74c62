import torch
from monai.networks.nets import DynUNet
from tiny_networks import tiny_dynunet, tiny_unet
from torch import nn

from medimg3d.inference.backends.backend import WindowBatch
from medimg3d.inference.backends.model_key import key_digest, model_key, network_sha256, versions

WINDOWS = WindowBatch((8, 8, 8))


def digest(network=None, windows=WINDOWS, weights="a" * 64, form="openvino", packages=()):
    network = tiny_unet() if network is None else network
    return key_digest(model_key(form, network, windows, weights_sha256=weights, packages=packages))


def test_the_same_network_gives_the_same_key_whatever_its_mode_and_numbers():
    assert digest(tiny_unet(seed=0).train()) == digest(tiny_unet(seed=1).eval())


def test_weights_network_window_batch_channels_form_and_versions_each_change_the_key():
    keys = [
        digest(),
        digest(weights="b" * 64),
        digest(tiny_unet(classes=4)),
        digest(tiny_dynunet()),
        digest(windows=WindowBatch((8, 8, 16))),
        digest(windows=WindowBatch((8, 8, 8), batch=2)),
        digest(windows=WindowBatch((8, 8, 8), channels=2)),
        digest(form="onnx"),
        digest(packages=("numpy",)),
    ]
    assert len(set(keys)) == len(keys)


def test_a_setting_without_weights_changes_the_hash():
    assert network_sha256(nn.LeakyReLU(0.1)) != network_sha256(nn.LeakyReLU(0.2))


def test_a_plain_attribute_changes_the_hash():
    one, two = tiny_dynunet(), tiny_dynunet()
    assert isinstance(two, DynUNet)
    two.heads_in_use = 2
    assert network_sha256(one) != network_sha256(two)


def test_the_code_of_a_class_changes_the_hash(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    hashes = []
    for step in ("+ 1", "+ 2"):
        name = f"network_{'one' if step == '+ 1' else 'two'}"
        (tmp_path / f"{name}.py").write_text(
            f"from torch import nn\n\nclass Net(nn.Module):\n    def forward(self, x):\n        return x {step}\n"
        )
        kind = __import__(name).Net
        kind.__module__ = name
        hashes.append(network_sha256(_renamed(kind)()))
    assert hashes[0] != hashes[1]


def _renamed(kind):
    """Let both classes go by one name, so that only their code tells them apart."""
    kind.__qualname__ = "Net"
    return kind


def test_versions_name_what_is_installed_only():
    assert versions(["numpy", "no-such-package"]).keys() == {"torch", "monai", "numpy"}
    assert versions([])["torch"] == torch.__version__
