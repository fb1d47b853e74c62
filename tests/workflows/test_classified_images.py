"""Images go through a classifier in batches; whatever happens to one, the others keep their order and answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer
from PIL import Image
from torch import nn

from medimg3d.bundle.classifier import Classifier
from medimg3d.bundle.inference import BundleFacts
from medimg3d.data.film_reader import read_film
from medimg3d.data.inputs import find_inputs
from medimg3d.errors import DataError
from medimg3d.inference.decision import Decision
from medimg3d.workflows.classified_images import classified

GREYS = (10, 20, 30, 40, 50)


class MeanGrey(nn.Module):
    """Scores (0, mean grey / 10); stumbles over a batch with a film of mean grey 30."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(films))
        means = films.mean(dim=(1, 2, 3))
        if (means.round() == 30).any():
            raise RuntimeError("thirty")
        return torch.stack([torch.zeros_like(means), means / 10], dim=1)


def model(network: nn.Module, batch_size: int) -> Classifier:
    return Classifier(
        facts=BundleFacts("grey", "1.0", {0: "dark", 1: "bright"}, 1, Path("model.pt"), "0" * 64),
        device=torch.device("cpu"),
        preprocessing=lambda item: {"image": torch.from_numpy(read_film(item["image"]).pixels)[None]},
        network=network.eval(),
        inferer=SimpleInferer(),
        decision=Decision.plain(["dark", "bright"]),
        num_spatial_dims=2,
        batch_size=batch_size,
    )


@pytest.fixture
def films(tmp_path):
    """Films of mean grey 10 to 50, each with one brighter and one darker pixel."""
    for grey in GREYS:
        pixels = np.full((12, 8), grey, np.uint8)
        pixels[0, 0], pixels[0, 1] = grey - 5, grey + 5
        Image.fromarray(pixels).save(tmp_path / f"film_{grey}.png")
    return tmp_path


def test_only_the_image_that_the_network_stumbles_over_fails(films):
    network = MeanGrey()
    found = list(classified(find_inputs([films], films=True).images, model(network, batch_size=4)))
    assert [image.case for image, _ in found] == [f"film_{grey}" for grey in GREYS]
    assert network.batches == [4, 1, 1, 1, 1, 1]  # the first four together, then each alone; then the last
    assert str(found[2][1]) == "thirty"
    for grey, (_, outcome) in zip(GREYS, found, strict=True):
        if grey != 30:
            expected = 1 / (1 + np.exp(-grey / 10))
            assert outcome.probabilities[1] == pytest.approx(expected, abs=1e-6)


def test_a_broken_film_does_not_reach_the_network_and_is_refused_in_the_readers_words(films):
    (films / "film_15.png").write_bytes((films / "film_10.png").read_bytes()[:60])
    Image.fromarray(np.full((12, 8), 9, np.uint8)).save(films / "film_45.png")
    network = MeanGrey()
    found = dict(classified(find_inputs([films], films=True).images, model(network, batch_size=9)))
    failed = {image.case: str(outcome) for image, outcome in found.items() if isinstance(outcome, DataError)}
    assert set(failed) == {"film_15", "film_45"}
    assert "may be damaged" in failed["film_15"]
    assert "has the same value in every pixel" in failed["film_45"]
    assert network.batches[0] == 5
