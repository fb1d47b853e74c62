"""The classification bundles as they are shipped: files for sharing, exports, and what their weights do."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from PIL import Image
from stock_monai import monai_bundle

from medimg3d.bundle.classifier import load_classifier
from medimg3d.bundle.folder import BundleFolder
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.film_reader import read_film
from medimg3d.workflows.predict_classification import predict_classification

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
FILMS = BUNDLES / "xray_pneumonia_densenet"
ADRENAL = BUNDLES / "ct_adrenal_densenet"
both = pytest.mark.parametrize("bundle", [FILMS, ADRENAL], ids=lambda path: path.name)


def auc(scores: list[float], is_positive: list[bool]) -> float:
    """Share of the pairs of a positive and a negative case that are in the right order."""
    positives = [s for s, p in zip(scores, is_positive, strict=True) if p]
    negatives = [s for s, p in zip(scores, is_positive, strict=True) if not p]
    return float(np.mean([(p > n) + 0.5 * (p == n) for p in positives for n in negatives]))


def probabilities(bundle: Path, files: list[Path], out: Path) -> list[float]:
    rows = predict_classification(bundle, files, out).images
    assert [row.path.name for row in rows] == [file.name for file in files]
    return [float(row.row["probability"]) for row in rows]


def unseen(bundle: Path, cases: list[dict], number: int) -> list[dict]:
    """The first cases of each class that the weights were not trained on."""
    record = json.loads((bundle / "models" / "training_cases.json").read_text())
    hashes = {case["image_sha256"] for case in record["cases"]}
    found: list[dict] = []
    for label in sorted({str(case["class_label"]) for case in cases}):
        own = (case for case in cases if str(case["class_label"]) == label)
        new = (case for case in own if content_sha256(Path(case["image"])) not in hashes)
        found += [case for case, _ in zip(new, range(number), strict=False)]
    assert len(found) == 2 * number
    return found


@both
def test_files_for_sharing_are_there_and_small(bundle):
    for name in (
        "LICENSE",
        "docs/README.md",
        "docs/data_license.txt",
        "models/model.pt",
        "models/decision.json",
    ):
        assert (bundle / name).is_file(), name
    assert all(path.stat().st_size < 25_000_000 for path in bundle.rglob("*") if path.is_file())


@both
def test_the_weights_are_those_of_the_records(bundle):
    found = content_sha256(bundle / "models" / "model.pt")
    for name in ("training_cases", "decision"):
        assert json.loads((bundle / "models" / f"{name}.json").read_text())["weights_sha256"] == found


@both
def test_metadata_fits_our_schema(bundle, tmp_path):
    from importlib.resources import as_file, files

    with as_file(files("medimg3d.bundle") / "metadata_schema.json") as schema:
        shutil.copy(schema, tmp_path / "schema.json")
    output = monai_bundle(
        "verify_metadata",
        cwd=tmp_path,
        meta_file=bundle / "configs" / "metadata.json",
        filepath=tmp_path / "schema.json",
    )
    assert "metadata is verified with no error" in output


@both
def test_network_takes_and_gives_what_the_metadata_says(bundle, tmp_path):
    output = monai_bundle(
        "verify_net_in_out",
        "network_def",
        cwd=tmp_path,
        config_file=bundle / "configs" / "inference.json",
        meta_file=bundle / "configs" / "metadata.json",
    )
    assert "data shape of network is verified with no error" in output


@both
@pytest.mark.parametrize("command", ["ckpt_export", "onnx_export"])
def test_exports_give_the_networks_output(bundle, tmp_path, command):
    exported = tmp_path / ("model.ts" if command == "ckpt_export" else "model.onnx")
    model = load_classifier(BundleFolder(bundle))
    size = json.loads((bundle / "configs" / "inference.json").read_text())["image_size"]
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    monai_bundle(
        command,
        "network_def",
        cwd=tmp_path,
        filepath=exported,
        ckpt_file=bundle / "models" / "model.pt",
        key_in_ckpt="model",
        config_file=bundle / "configs" / "inference.json",
        meta_file=bundle / "configs" / "metadata.json",
        input_shape=str(list(image.shape)).replace(" ", ""),
        **({"use_trace": "true"} if command == "ckpt_export" else {}),
    )
    if command == "ckpt_export":
        given = torch.jit.load(exported)(image).detach()
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(exported)
        given = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])
    torch.testing.assert_close(given, model.logits(image), atol=1e-3, rtol=1e-3)


@pytest.mark.realdata
def test_shipped_weights_tell_films_apart_that_they_have_not_seen(data_root, tmp_path):
    root = data_root / "chest_xray"
    with open(root / "labels.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    cases = [{"image": root / row["file"], "class_label": row["label"]} for row in rows]
    chosen = unseen(FILMS, cases, 25)
    scores = probabilities(FILMS, [case["image"] for case in chosen], tmp_path)
    assert auc(scores, [case["class_label"] == "PNEUMONIA" for case in chosen]) > 0.95


@pytest.mark.realdata
def test_one_film_in_any_format_gets_one_probability(data_root, tmp_path):
    """JPEG, PNG, 8-bit RGB, 16-bit PNG, DICOM MONOCHROME1 and 2 within 0.01, whatever the film."""
    folder = data_root / "chest_xray" / "train"
    films = sorted((folder / "NORMAL").glob("*.jpeg"))[:4] + sorted((folder / "PNEUMONIA").glob("*.jpeg"))[:4]
    decisive = 0
    for number, jpeg in enumerate(films):
        pixels = read_film(jpeg).pixels.astype(np.uint16)
        own = tmp_path / str(number)
        own.mkdir()
        grey = Image.fromarray(pixels.astype(np.uint8))
        files = [
            own / f"{name}" for name in ("a.png", "b_colour.png", "c_deep.png", "d.dcm", "e_inverse.dcm")
        ]
        grey.save(files[0])
        grey.convert("RGB").save(files[1])
        Image.fromarray(pixels * 256).save(files[2])
        phantoms.write_dicom_film(files[3], pixels * 16)
        phantoms.write_dicom_film(files[4], 4095 - pixels * 16, photometric="MONOCHROME1")
        found = probabilities(FILMS, files, own / "out") + probabilities(FILMS, [jpeg], own / "jpeg")
        assert max(found) - min(found) < 0.01
        decisive += 0.02 < found[0] < 0.98
    assert decisive > 0  # a network that says 0 or 1 whatever it sees would pass the rest


@pytest.mark.realdata
def test_shipped_weights_tell_adrenal_glands_apart_that_they_have_not_seen(data_root, tmp_path):
    from medimg3d.data.medmnist import unpack_medmnist

    npz = tmp_path / "few.npz"
    full = np.load(data_root / "adrenalmnist3d" / "adrenalmnist3d_64.npz")
    first = {
        f"{part}_{what}": full[f"{part}_{what}"][:5]
        for part in ("train", "test")
        for what in ("images", "labels")
    }
    np.savez(npz, **first, val_images=full["val_images"], val_labels=full["val_labels"])
    unpack_medmnist(npz, tmp_path / "set")
    content = json.loads((tmp_path / "set" / "dataset.json").read_text())
    cases = [
        case | {"image": tmp_path / "set" / case["image"]}
        for case in content["training"]
        if case["fold"] == 0
    ]
    assert len(cases) == 98
    scores = probabilities(ADRENAL, [case["image"] for case in cases], tmp_path / "out")
    assert auc(scores, [case["class_label"] == content["classes"][1] for case in cases]) > 0.8
