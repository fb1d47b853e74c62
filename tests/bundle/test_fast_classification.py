"""The overlay inference_fast.json gives the probabilities of the plain inference.json, by stock MONAI's own command."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import phantoms
import pytest
from PIL import Image
from stock_monai import run
from tiny_networks import needs_installed

from medimg3d.bundle.classifier import load_classifier
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.run_images import with_image_backend
from medimg3d.errors import UsageError
from medimg3d.workflows.predict_classification import predict_classification

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
FILMS, ADRENAL = "xray_pneumonia_densenet", "ct_adrenal_densenet"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """By bundle: more images than a batch holds, of several sizes and formats, in subfolders too."""
    films, volumes = tmp_path_factory.mktemp("films"), tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = _blob(rng, (150 + 10 * number, 200 - 7 * number), 0.2 + 0.05 * number)
        ending = ("png", "jpeg", "bmp")[number % 3]
        (films / "clinic").mkdir(exist_ok=True)
        picture = Image.fromarray((255 * pixels).astype(np.uint8))
        picture.convert("RGB" if number == 4 else "L").save(
            films / ("clinic" if number > 5 else ".") / f"film_{number}.{ending}"
        )
    phantoms.write_dicom_film(films / "film_8.dcm", (4000 * _blob(rng, (160, 140), 0.3)).astype(np.uint16))
    for number, size in enumerate((64, 64, 40, 48, 70)):
        mask = (_blob(rng, (size,) * 3, 0.25 + 0.05 * number) > 0.6).astype(np.uint8)
        ending = "nii" if number == 1 else "nii.gz"
        phantoms.write_nifti(volumes / f"gland_{number}.{ending}", mask, phantoms.affine((0.8, 0.8, 1.0)))
    return {FILMS: films, ADRENAL: volumes}


def _blob(rng: np.random.Generator, shape: tuple[int, ...], radius: float) -> np.ndarray:
    """A soft ball off the middle, with noise, 0 to 1."""
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    distance = np.sqrt(
        sum((axis - off) ** 2 for axis, off in zip(axes, rng.uniform(-0.3, 0.3, len(axes)), strict=True))
    )
    return np.clip(1 / (1 + np.exp((distance - radius) * 12)) + rng.normal(0, 0.05, shape), 0, 1)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def assert_same_answer(found: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    assert [row["file"] for row in found] == [row["file"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            if name.startswith("probability"):
                assert float(one[name]) == pytest.approx(float(other[name]), abs=TOLERANCE)
            else:
                assert one[name] == other[name]


@pytest.mark.parametrize("name", [FILMS, ADRENAL])
def test_monais_own_command_gives_stocks_table_with_the_overlay(name, folders, tmp_path):
    configs = BUNDLES / name / "configs"
    for kind, files in (
        ("stock", str(configs / "inference.json")),
        ("fast", f"['{configs / 'inference.json'}','{configs / 'inference_fast.json'}']"),
    ):
        options = ["--config_file", files, "--bundle_root", BUNDLES / name, "--dataset_dir", folders[name]]
        command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *map(str, options)]
        run([*command, "--output_dir", str(tmp_path / kind)], cwd=tmp_path)
    stock, fast = (table(tmp_path / kind / "predictions.csv") for kind in ("stock", "fast"))
    assert len(stock) == sum(path.is_file() for path in folders[name].rglob("*"))
    assert len({row["probability"] for row in stock}) > 2  # a network that says one thing would pass the rest
    assert_same_answer(fast, stock)


@pytest.mark.parametrize("name", [FILMS, ADRENAL])
def test_predict_gives_the_same_fast_and_plain_in_the_order_of_the_inputs(name, folders, tmp_path):
    fast = predict_classification(BUNDLES / name, [folders[name]], tmp_path / "fast")
    plain = predict_classification(BUNDLES / name, [folders[name]], tmp_path / "plain", fast=False)
    assert_same_answer([image.row for image in fast.images], [image.row for image in plain.images])
    assert [image.path for image in fast.images] == sorted(image.path for image in fast.images)
    assert len(fast.images) == sum(path.is_file() for path in folders[name].rglob("*"))
    records = [json.loads((tmp_path / kind / "run.json").read_text()) for kind in ("fast", "plain")]
    assert set(records[0]["settings"]["configs_sha256"]) == {"inference", "inference_fast"}
    assert set(records[1]["settings"]["configs_sha256"]) == {"inference"}
    assert records[0]["settings"]["backend"] == "torch"
    assert [case["case"] for case in records[0]["cases"]] == [image.case for image in fast.images]


def test_the_fast_film_loader_reads_a_film_once_and_the_plain_one_is_checked_beforehand():
    assert load_classifier(BundleFolder(BUNDLES / FILMS), fast=True).refuses_bad_films
    assert not load_classifier(BundleFolder(BUNDLES / FILMS)).refuses_bad_films


@pytest.mark.parametrize("fast", [True, False])
def test_broken_films_among_good_ones_are_passed_over(folders, tmp_path, fast):
    good = sorted(folders[FILMS].glob("film_*.png"))
    broken = tmp_path / "films" / "broken.jpeg"
    broken.parent.mkdir()
    broken.write_bytes((folders[FILMS] / "film_1.jpeg").read_bytes()[:300])
    pages = [Image.fromarray(np.full((9, 9), grey, np.uint8)) for grey in (1, 2)]
    pages[0].save(tmp_path / "films" / "pages.tif", save_all=True, append_images=pages[1:])
    phantoms.write_picture(tmp_path / "films" / "white.png", grey=255)
    result = predict_classification(BUNDLES / FILMS, [*good, tmp_path / "films"], tmp_path / "out", fast=fast)
    assert {image.path for image in result.images} == set(good)
    reasons = {Path(file).name: reason for file, reason in result.rejected.items()}
    assert "may be damaged" in reasons.pop("broken.jpeg")
    assert "holds 2 pictures" in reasons.pop("pages.tif")
    assert "value" in reasons.pop("white.png")
    assert not reasons
    assert len(table(tmp_path / "out" / "predictions.csv")) == len(good)


@pytest.mark.parametrize(
    ("name", "backend", "packages"),
    [(FILMS, "openvino-f32", ["openvino"]), (ADRENAL, "onnxruntime", ["onnxruntime", "onnx"])],
)
def test_another_backend_gives_the_same_answer_and_is_on_record(
    name, backend, packages, folders, tmp_path, monkeypatch
):
    needs_installed(*packages)
    monkeypatch.setenv("MEDIMG3D_CACHE", str(tmp_path / "cache"))
    plain = predict_classification(BUNDLES / name, [folders[name]], tmp_path / "plain", fast=False)
    for kind in ("fresh", "cached"):
        found = predict_classification(BUNDLES / name, [folders[name]], tmp_path / kind, backend=backend)
        assert_same_answer([image.row for image in found.images], [image.row for image in plain.images])
        settings = json.loads((tmp_path / kind / "run.json").read_text())["settings"]
        assert settings["backend"] == backend
    assert len(list((tmp_path / "cache" / "converted").iterdir())) == 1


def test_a_backend_refuses_an_image_of_another_size_and_takes_the_rest(folders, tmp_path, monkeypatch):
    from dataclasses import replace

    from medimg3d.data.inputs import find_inputs
    from medimg3d.workflows.classified_images import classified

    model = load_classifier(BundleFolder(BUNDLES / ADRENAL), fast=True)
    model = with_image_backend(model, "torch-channels-last")
    assert model.backend == "torch-channels-last"
    first, whole = folders[ADRENAL] / "gland_0.nii.gz", model.preprocessing
    cut = replace(
        model,
        preprocessing=lambda item: {
            "image": whole(item)["image"][:, : 40 if item["image"] == str(first) else 48]
        },
    )
    found = [outcome for _, outcome in classified(find_inputs([folders[ADRENAL]]).images, cut)]
    assert str(found[0]).startswith(
        "is (40, 48, 48) after preprocessing, and torch-channels-last takes (48, 48, 48)"
    )
    assert not any(isinstance(outcome, Exception) for outcome in found[1:])


def test_a_backend_for_images_of_no_fixed_size_and_one_that_dice_accepts_are_refused():
    from dataclasses import replace

    model = replace(load_classifier(BundleFolder(BUNDLES / ADRENAL)), image_shape=None)
    with pytest.raises(UsageError, match="--backend onnxruntime needs images of a fixed size"):
        with_image_backend(model, "onnxruntime")
    with pytest.raises(UsageError, match="openvino-int8 is for bundles that segment"):
        with_image_backend(model, "openvino-int8")


def test_the_command_refuses_a_memory_cap_and_resume_for_classifiers(folders, tmp_path):
    import typer
    from typer.testing import CliRunner

    from medimg3d.cli import predict as command

    app = typer.Typer()
    command.register(app)
    for option in (
        ["--memory-gb", "2"],
        ["--resume"],
        ["--uncertainty"],
        ["--region-masks"],
        ["--section", "test"],
    ):
        arguments = [BUNDLES / FILMS, folders[FILMS], "--out", tmp_path / "out", *option]
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert isinstance(result.exception, UsageError)
        assert str(result.exception).endswith("are for bundles that segment.")
        assert option[0] in str(result.exception)
