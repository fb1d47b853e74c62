import csv
import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK
from corner_network import CLASSES, write_corner_bundle
from phantoms import affine, oblique_affine, write_dicom_film, write_nifti
from PIL import Image

from medimg3d.bundle.classifier import load_classifier
from medimg3d.bundle.folder import BundleFolder
from medimg3d.errors import BundleError, UsageError
from medimg3d.explain.faithfulness import share_inside
from medimg3d.workflows.explain import explain, explain_case

FILM = (16, 12)  # rows and columns that the network sees
VOLUME = (16, 12, 8)


@pytest.fixture(scope="module")
def film_bundle(tmp_path_factory):
    return write_corner_bundle(tmp_path_factory.mktemp("bundles") / "film_corners", FILM)


@pytest.fixture(scope="module")
def volume_bundle(tmp_path_factory):
    return write_corner_bundle(tmp_path_factory.mktemp("bundles") / "volume_corners", VOLUME)


def write_film(path, *, rows=40, columns=60):
    """Bright in its upper left quarter, dark elsewhere."""
    pixels = np.zeros((rows, columns), np.uint8)
    pixels[: rows // 2, : columns // 2] = 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def first_octant(shape=(20, 24, 16)) -> np.ndarray:
    image = np.zeros(shape, np.float32)
    image[tuple(slice(0, size // 2) for size in shape)] = 100
    return image


def test_a_films_heat_lies_where_the_film_is_bright_on_its_own_pixels(film_bundle, tmp_path):
    film = write_film(tmp_path / "film.png")
    result = explain(film_bundle, [film], tmp_path / "out")
    (case,) = result.cases
    assert (case.decision, case.class_name) == ("first", "first")
    # Logits are 1/4 and 0: a quarter of the film is 1.
    assert case.probability == pytest.approx(1 / (1 + np.exp(-1 / 4)), abs=1e-3)
    heat = nibabel.load(tmp_path / "out" / "film_heat.nii.gz")
    assert heat.shape == (60, 40, 1)  # columns, rows
    assert heat.get_data_dtype() == np.float32
    values = heat.get_fdata()[..., 0]
    assert values[:28, :18].min() == pytest.approx(1.0, abs=1e-3)
    assert values[32:, :].max() == values[:, 22:].max() == 0
    np.testing.assert_array_equal(case.maps[0].values, values.T)
    assert (tmp_path / "out" / "overlays" / "film_heat.png").is_file()


def test_itk_lays_the_heat_over_the_picture_it_reads_itself(film_bundle, tmp_path):
    film = write_film(tmp_path / "film.png")
    explain(film_bundle, [film], tmp_path / "out", overlays=False)
    picture = SimpleITK.ReadImage(str(film))
    heat = SimpleITK.ReadImage(str(tmp_path / "out" / "film_heat.nii.gz"))[:, :, 0]
    assert heat.GetSize() == picture.GetSize()
    for part in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(heat, part)(), getattr(picture, part)(), atol=1e-6)
    warm = SimpleITK.GetArrayFromImage(heat) > 0.9
    assert (SimpleITK.GetArrayFromImage(picture)[warm] == 200).all()


@pytest.mark.parametrize(
    "grid", [affine((1.0, 2.0, 3.0)), oblique_affine(), oblique_affine() @ np.diag([-1.0, 1, 1, 1])]
)
def test_a_volumes_heat_has_the_grid_of_the_volume(volume_bundle, tmp_path, grid):
    image = write_nifti(tmp_path / "case.nii.gz", first_octant(), grid)
    explain(volume_bundle, [image], tmp_path / "out", overlays=False, methods=("gradcampp", "occlusion"))
    for name in ("case_heat", "case_occlusion"):
        heat = nibabel.load(tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_allclose(heat.affine, grid, atol=1e-5)
        values = heat.get_fdata()
        assert values.shape == (20, 24, 16)
        bright = first_octant() > 0
        assert values[bright].mean() > 5 * np.abs(values[~bright]).mean()


def test_a_volume_that_is_not_nifti_is_read_too(volume_bundle, tmp_path):
    image = write_nifti(tmp_path / "a.nii.gz", first_octant(), oblique_affine())
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(image)), str(tmp_path / "b.mha"))
    explain(volume_bundle, [tmp_path], tmp_path / "out", overlays=False)
    one, other = (nibabel.load(tmp_path / "out" / f"{case}_heat.nii.gz") for case in "ab")
    np.testing.assert_allclose(one.get_fdata(), other.get_fdata(), atol=1e-5)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-3)


def test_another_class_than_the_decided_one_can_be_explained(film_bundle, tmp_path):
    film = write_film(tmp_path / "film.png")
    result = explain(film_bundle, [film], tmp_path / "out", class_name="last", overlays=False)
    (case,) = result.cases
    assert (case.decision, case.class_name) == ("first", "last")
    assert case.probability == pytest.approx(1 / (1 + np.exp(1 / 4)), abs=1e-3)
    assert not case.maps[0].values.any()  # nothing speaks for it


def test_both_methods_write_a_map_a_picture_and_a_row_each(film_bundle, tmp_path):
    write_film(tmp_path / "in" / "film.png")
    result = explain(film_bundle, [tmp_path / "in"], tmp_path / "out", methods=("gradcampp", "occlusion"))
    written = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")
    )
    assert written == [
        "film_heat.nii.gz",
        "film_occlusion.nii.gz",
        "heat_maps.csv",
        "overlays/film_heat.png",
        "overlays/film_occlusion.png",
        "run.json",
    ]
    with (tmp_path / "out" / "heat_maps.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["layer"], row["heat_map"]) for row in rows] == [
        ("gradcampp", "relu", "film_heat.nii.gz"),
        ("occlusion", "", "film_occlusion.nii.gz"),
    ]
    assert json.loads(json.dumps(result.summary()))["cases"][0]["maps"][1]["layer"] is None


def test_bad_files_are_rejected_with_a_reason_and_the_good_go_on(film_bundle, tmp_path):
    folder = tmp_path / "in"
    write_film(folder / "good.png")
    (folder / "bad.png").write_text("hello")
    Image.new("L", (40, 30), 7).save(folder / "flat.png")
    (folder / "notes.txt").write_text("hello")
    (folder / "odd.xyz").write_text("hello")
    write_nifti(folder / "volume.nii.gz", first_octant())
    result = explain(film_bundle, [folder], tmp_path / "out", overlays=False)
    assert [case.case for case in result.cases] == ["good"]
    reasons = {key.rsplit("/", 1)[1]: reason for key, reason in result.rejected.items()}
    assert sorted(reasons) == ["bad.png", "flat.png", "odd.xyz", "volume.nii.gz"]
    assert reasons["flat.png"] == "has the same value in every pixel; expected an image"
    assert "cannot be decoded as a picture" in reasons["bad.png"]
    assert reasons["volume.nii.gz"] == "is a volume; expected a 2D film"
    assert len(result.ignored) == 1
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {case["input"]: case["status"] for case in record["cases"]} == {
        "good.png": "done",
        "bad.png": "rejected",
        "flat.png": "rejected",
        "odd.xyz": "rejected",
        "volume.nii.gz": "rejected",
    }
    assert all(len(case["input_sha256"]) == 64 for case in record["cases"])
    assert str(tmp_path) not in (tmp_path / "out" / "run.json").read_text()


def test_a_dicom_film_keeps_its_spacing_also_where_dark_is_dense(film_bundle, tmp_path):
    """MONOCHROME1: the corner that is stored dark is the bright one."""
    stored = np.full((40, 60), 1000, np.uint16)
    stored[:20, :30] = 0
    film = write_dicom_film(tmp_path / "film", stored, photometric="MONOCHROME1", spacing_mm=(0.2, 0.1))
    (case,) = explain(film_bundle, [film], tmp_path / "out").cases
    assert case.decision == "first"
    heat = nibabel.load(tmp_path / "out" / "film_heat.nii.gz")
    np.testing.assert_allclose(heat.affine, np.diag([-0.1, -0.2, 1, 1]), atol=1e-6)
    assert heat.header.get_xyzt_units()[0] == "mm"
    assert heat.get_fdata()[:28, :18].min() == pytest.approx(1.0, abs=1e-3)


def test_a_map_that_would_replace_an_input_is_refused(volume_bundle, tmp_path):
    write_nifti(tmp_path / "a.nii.gz", first_octant())
    heat = write_nifti(tmp_path / "a_heat.nii.gz", first_octant())
    with pytest.raises(UsageError, match=r"a_heat.nii.gz would replace an input"):
        explain(volume_bundle, [tmp_path / "a.nii.gz", heat], tmp_path)


def test_films_of_one_name_get_cases_apart(film_bundle, tmp_path):
    for folder in ("monday", "friday"):
        write_film(tmp_path / "in" / folder / "film.png")
    result = explain(film_bundle, [tmp_path / "in"], tmp_path / "out", overlays=False)
    assert sorted(case.case for case in result.cases) == ["friday_film", "monday_film"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_name": "pneumonia"}, f"no class 'pneumonia'; expected one of {', '.join(CLASSES)}"),
        ({"layer": "relu5"}, "no layer 'relu5'; expected one such as relu"),
        ({"methods": ("lime",)}, r"Found the methods \['lime'\]"),
        ({"layer": "out"}, r"Layer out gives \(1, 2\)"),
    ],
)
def test_unknown_classes_layers_and_methods_stop_at_once(film_bundle, tmp_path, options, message):
    film = write_film(tmp_path / "film.png")
    with pytest.raises(UsageError, match=message):
        explain(film_bundle, [film], tmp_path / "out", **options)


def test_the_output_folder_must_not_be_an_input_folder(film_bundle, tmp_path):
    write_film(tmp_path / "film.png")
    with pytest.raises(UsageError, match="--out is the input folder"):
        explain(film_bundle, [tmp_path], tmp_path)


def test_a_bundle_that_segments_is_refused(film_bundle, tmp_path):
    bundle = shutil.copytree(film_bundle, tmp_path / "segments")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["outputs"]["pred"]["type"] = "image"
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    film = write_film(tmp_path / "film.png")
    with pytest.raises(BundleError, match="expected a classifier"):
        explain(bundle, [film], tmp_path / "out")


@pytest.mark.realdata
def test_heat_of_a_real_film_lies_on_the_grid_of_its_drawn_lungs(film_bundle, data_root, tmp_path):
    folder = data_root / "cxr_segmentation"
    stem = "covid-19-pneumonia-30-PA"
    (case,) = explain(film_bundle, [folder / "images" / f"{stem}.png"], tmp_path, class_name="first").cases
    lung = np.asarray(Image.open(folder / "masks" / f"{stem}__right_lung.png")) > 0
    share = share_inside(case.maps[0].values, lung)
    assert lung[:, : lung.shape[1] // 2].sum() > 0.95 * lung.sum()  # the patient's right is on the left
    assert share.value is not None
    assert share.value > share.chance


def test_one_case_alone_with_a_loaded_classifier(film_bundle, tmp_path):
    classifier = load_classifier(BundleFolder(film_bundle))
    case = explain_case(classifier, write_film(tmp_path / "film.png"), tmp_path / "out", overlays=False)
    assert case.case == "film"
    assert case.overlay is None
    assert case.maps[0].file == tmp_path / "out" / "film_heat.nii.gz"
