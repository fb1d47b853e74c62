"""How far float32 backends are from float64: torch and OpenVINO on one window, untrained networks.

Two windows: noise, and a body in air, whose air is one value. Prints one JSON line a network and window: the deviation
of the outputs in float64, and for each backend the largest and the mean error, and the share of voxels whose class is
another than in float64.

Usage: python benchmarks/backend_precision.py [--networks unet,dynunet,swinunetr] [--size 64]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from prediction_speed import NETWORKS, print_line

from medimg3d.inference.backends.backend import FirstHead, WindowBatch
from medimg3d.inference.backends.openvino_backend import openvino_core, openvino_model

CLASSES = 15


def main() -> None:
    """Every network on both windows."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--networks", default="unet,dynunet,swinunetr")
    arguments.add_argument("--size", type=int, default=64, help="voxels of a window along each axis")
    given = arguments.parse_args()
    for name in given.networks.split(","):
        network = FirstHead(build(name)).eval()
        compiled = compiled_openvino(network, given.size)
        for kind, window in windows(given.size).items():
            print_line("backend_precision", network=name, window=kind, size=given.size,
                       **compared(network, compiled, window))  # fmt: skip


def build(name: str) -> torch.nn.Module:
    """A network of the speed benchmark with random weights of a fixed seed."""
    from monai.bundle import ConfigParser

    torch.manual_seed(0)
    parser = ConfigParser({"network": NETWORKS[name], "num_classes": CLASSES})
    return parser.get_parsed_content("network")


def windows(size: int) -> dict[str, torch.Tensor]:
    """Noise, and a cylinder of noise in air."""
    generator = torch.Generator().manual_seed(1)
    axis = torch.linspace(-1, 1, size)
    across = torch.meshgrid(axis, axis, axis, indexing="ij")
    body = ((across[1] ** 2 + across[2] ** 2) < 0.6).float()
    noise = torch.randn(size, size, size, generator=generator)
    return {"noise": noise[None, None], "body": (body * (1 + 0.2 * noise) - 0.5)[None, None]}


def compiled_openvino(network: torch.nn.Module, size: int) -> Any:
    """The network in OpenVINO, float32."""
    model = openvino_model(network, WindowBatch(shape=(size,) * 3, channels=1, batch=1))
    return openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def compared(network: torch.nn.Module, compiled: Any, window: torch.Tensor) -> dict[str, Any]:
    """Errors of both against float64."""
    with torch.inference_mode():
        single = network(window)
        exact = network.double()(window.double())
        network.float()
    converted = torch.from_numpy(compiled(window.numpy())[compiled.outputs[0]])
    found: dict[str, Any] = {"deviation": exact.std().item()}
    for name, output in (("torch", single), ("openvino-f32", converted)):
        error = (output - exact).abs()
        other = (output.argmax(1) != exact.argmax(1)).float().mean()
        found[name] = {
            "largest_error": f"{error.max():.1e}",
            "mean_error": f"{error.mean():.1e}",
            "other_class": f"{other:.1e}",
        }
    return found


if __name__ == "__main__":
    main()
