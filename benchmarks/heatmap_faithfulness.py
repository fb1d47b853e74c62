"""Do the heat maps of a chest film classifier lie on the lungs and opacities, and do they need its weights?

31 films with lungs and opacities drawn by radiologists (set ``cxr_segmentation``; most are COVID-19 and
Pneumocystis pneumonia of adults, whatever the classifier was trained on). One JSON line for each method:

- ``heat_in_lungs``: share of the heat inside the lungs, against the lungs' share of the film.
- ``hottest_point_on_opacity``: pointing game on the drawn opacities, against their share of the film, and
  against their share of the lungs (a map that knows lungs and nothing more).
- ``randomised_weights``: rank correlation and SSIM of the maps before and after all weights are randomised;
  near 0 is good, a map that survives does not show what was learned.

Intervals are 95 %: by bootstrap over patients, for the hits by Wilson. The class explained is ``--class``
(pneumonia) in every film. Occlusion hides one of 8 x 8 patches without overlap here, 64 answers a film where
``medimg3d explain`` takes 225 for a smoother map, so that the films take minutes without a GPU: --patches and
--overlap change it.

Usage: python benchmarks/heatmap_faithfulness.py [BUNDLE] [--method gradcampp|occlusion|both] [--patches 8]
       [--overlap 0] [--films N] [--randomised-films 5]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medimg3d.bundle.classifier import Classifier, load_classifier
from medimg3d.bundle.folder import BundleFolder
from medimg3d.errors import Medimg3dError
from medimg3d.explain.faithfulness import AgainstChance, pointing_game, share_inside
from medimg3d.explain.heatmaps import gradcampp, occlusion
from medimg3d.explain.input_grid import on_input_grid
from medimg3d.explain.randomization import RandomizationStep, randomization_check
from medimg3d.stats.bootstrap import bootstrap_mean
from medimg3d.stats.proportion import wilson_interval

BUNDLE = Path(__file__).parents[1] / "bundles" / "xray_pneumonia_densenet"
METHODS = ("gradcampp", "occlusion")
LUNGS = ("left_lung", "right_lung")
OPACITIES = ("ground_glass", "consolidation")


@dataclass
class Film:
    """A film with what the radiologists drew; both lungs are needed for the share inside them."""

    path: Path
    patient: str
    masks: dict[str, np.ndarray]

    def union(self, kinds: Iterable[str]) -> np.ndarray:
        """Where any of the kinds is, shape (rows, columns)."""
        return np.any([self.masks[kind] for kind in kinds if kind in self.masks], axis=0)


@dataclass
class Figures:
    """What was measured with one method, a value a film."""

    patients: list[str] = field(default_factory=list)
    in_lungs: list[AgainstChance | None] = field(default_factory=list)
    pointing: list[AgainstChance] = field(default_factory=list)
    pointing_in_lungs: list[float] = field(default_factory=list)
    checks: list[tuple[str, tuple[RandomizationStep, ...]]] = field(default_factory=list)


def read_films(folder: Path) -> list[Film]:
    """The films of ``index.csv`` with their masks."""
    films = []
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path = folder / row["image"]
            masks = {
                kind: np.asarray(Image.open(folder / "masks" / f"{path.stem}__{kind}.png")) > 0
                for kind in row["masks"].split()
            }
            films.append(Film(path, row["patient"], masks))
    return films


def measure(classifier: Classifier, films: Sequence[Film], method: str, given: argparse.Namespace) -> Figures:
    """Explain each film, and on the first ones check what random weights do to the map."""
    index = classifier.decision.classes.index(given.class_name)
    stages = given.stages or (5 if method == "gradcampp" else 1)
    draw = partial(gradcampp, layer=given.layer) if method == "gradcampp" else _occlusion(given)
    figures = Figures()
    for number, film in enumerate(films):
        image = classifier.image(film.path)
        batch = image[None].as_tensor().float().to(classifier.device)
        heat = draw(classifier.network, batch, index)
        own = on_input_grid(heat, image, classifier.preprocessing)
        lungs, opacity = film.union(LUNGS), film.union(OPACITIES)
        has_both = all(kind in film.masks for kind in LUNGS)
        figures.patients.append(film.patient)
        figures.in_lungs.append(share_inside(own, lungs) if has_both else None)
        figures.pointing.append(pointing_game(own, opacity, given.tolerance))
        figures.pointing_in_lungs.append(float(opacity[lungs].mean()))
        if number < given.randomised_films:

            def explain(network: Any, batch: Any) -> np.ndarray:
                return draw(network, batch, index)

            steps = randomization_check(classifier.network, batch, explain, stages=stages, seed=number)
            figures.checks.append((film.patient, steps))
    return figures


def _occlusion(given: argparse.Namespace) -> Callable[[Any, Any, int], np.ndarray]:
    """Occlusion with so many patches a side, laid with the overlap asked for."""

    def draw(network: Any, image: Any, class_index: int) -> np.ndarray:
        patch = tuple(max(1, -(-side // given.patches)) for side in image.shape[2:])
        return occlusion(network, image, class_index, patch=patch, overlap=given.overlap, batch_size=32)

    return draw


def with_interval(values: Sequence[float | None], patients: Sequence[str]) -> dict[str, Any]:
    """Mean and interval of what is defined."""
    kept = [(value, patient) for value, patient in zip(values, patients, strict=True) if value is not None]
    interval = bootstrap_mean([value for value, _ in kept], groups=[patient for _, patient in kept])
    ends = [None if end is None else round(end, 4) for end in (interval.low, interval.high)]
    mean = round(interval.mean, 4) if kept else None
    return {"mean": mean, "interval": ends, "n": interval.n, "undefined": len(values) - len(kept)}


def against_chance(found: Sequence[AgainstChance | None], patients: Sequence[str]) -> dict[str, Any]:
    """Figure, chance, and the difference, which is what must lie above 0."""
    kept = [(one, patient) for one, patient in zip(found, patients, strict=True) if one is not None]
    groups = [patient for _, patient in kept]
    values = [one.value for one, _ in kept]
    gains = [None if one.value is None else one.value - one.chance for one, _ in kept]
    return with_interval(values, groups) | {
        "chance": round(float(np.mean([one.chance for one, _ in kept])), 4),
        "above_chance": with_interval(gains, groups),
    }


def report(figures: Figures) -> dict[str, Any]:
    """The figures of one method as plain values."""
    checked = [patient for patient, _ in figures.checks]
    last = [steps[-1] for _, steps in figures.checks]
    hits = [one.value for one in figures.pointing if one.value is not None]
    hit_rate = wilson_interval(round(sum(hits)), len(hits)) if hits else None
    stages = [
        [one.rank_correlation for one in stage if one.rank_correlation is not None]
        for stage in zip(*(steps for _, steps in figures.checks), strict=True)
    ]
    return {
        "heat_in_lungs": against_chance(figures.in_lungs, figures.patients),
        "hottest_point_on_opacity": {
            "hits": round(sum(hits)),
            "n": len(hits),
            "rate": round(sum(hits) / len(hits), 4) if hits else None,
            "interval": hit_rate and [round(end, 4) for end in hit_rate],
            "chance": round(float(np.mean([one.chance for one in figures.pointing])), 4),
            "chance_inside_lungs": round(float(np.mean(figures.pointing_in_lungs)), 4),
        },
        "randomised_weights": {
            "rank_correlation": with_interval([step.rank_correlation for step in last], checked),
            "ssim": with_interval([step.ssim for step in last], checked),
            "rank_correlation_by_stage": [round(float(np.mean(v)), 4) if v else None for v in stages],
        },
    }


def main() -> None:
    """Read the arguments; without data or weights say so in one line."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("bundle", type=Path, nargs="?", default=BUNDLE)
    arguments.add_argument("--checkpoint", type=Path)
    arguments.add_argument("--class", dest="class_name", default="pneumonia")
    arguments.add_argument("--method", choices=[*METHODS, "both"], default="both")
    arguments.add_argument("--layer", help="of Grad-CAM++, e.g. features.denseblock3")
    arguments.add_argument("--patches", type=int, default=8, help="of occlusion, along each side")
    arguments.add_argument("--overlap", type=float, default=0.0, help="of occlusion, share of a patch")
    arguments.add_argument("--films", type=int, help="only the first ones")
    arguments.add_argument("--randomised-films", type=int, default=5)
    arguments.add_argument("--stages", type=int, help="of the randomisation; by default 5, for occlusion 1")
    arguments.add_argument("--tolerance", type=float, default=0.0, help="of the pointing game, in pixels")
    given = arguments.parse_args()
    name = {"benchmark": "heatmap_faithfulness", "bundle": given.bundle.name}
    folder = Path(os.environ.get("MEDIMG3D_DATA", "")) / "cxr_segmentation"
    if not (folder / "index.csv").is_file():
        print(json.dumps(name | {"skipped": "no data: set MEDIMG3D_DATA"}))
        return
    warnings.filterwarnings("ignore")  # notices of libraries; errors still show
    try:
        classifier = load_classifier(BundleFolder(given.bundle), checkpoint=given.checkpoint)
    except Medimg3dError as err:
        print(json.dumps(name | {"skipped": str(err)}))
        return
    if given.class_name not in classifier.decision.classes:
        arguments.error(f"--class must be one of {', '.join(classifier.decision.classes)}")
    films = read_films(folder)[: given.films]
    for method in METHODS if given.method == "both" else [given.method]:
        figures = measure(classifier, films, method, given)
        what = {
            "method": method,
            "layer": given.layer,
            "patches": given.patches if method == "occlusion" else None,
            "overlap": given.overlap if method == "occlusion" else None,
            "class": given.class_name,
            "weights": classifier.facts.weights_sha256[:12],
        }
        print(json.dumps(name | what | report(figures)), flush=True)


if __name__ == "__main__":
    main()
