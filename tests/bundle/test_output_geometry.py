"""The label map lies where its image lies, whichever program reads the two."""

from __future__ import annotations

import json
import shutil
import warnings
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import LoadImage
from phantoms import (
    affine,
    oblique_affine,
    two_boxes,
    two_part_phantom,
    write_flat_bundle,
    write_nifti,
    write_threshold_bundle,
)
from tiny_networks import tiny_unet

from medimg3d.workflows.predict import predict

ORIGIN_MM = (-13.5, 21.25, 7.0)
ANISOTROPIC_MM = (0.8, 1.1, 2.5)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def turned(order, signs, spacing_mm=(1.0, 1.0, 1.0)) -> np.ndarray:
    """RAS affine whose voxel axes run along the patient's axes in any order and direction."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3)[:, list(order)] * np.array(signs) * np.array(spacing_mm)
    matrix[:3, 3] = ORIGIN_MM
    return matrix


TURNED = {
    "".join(
        "LPSRAI"[axis + (3 if (sign > 0) == (axis < 2) else 0)] for axis, sign in zip(o, s, strict=True)
    ): (turned(o, s))
    for o in permutations(range(3))
    for s in product((1, -1), repeat=3)
}
GRIDS = TURNED | {
    "anisotropic": affine(ANISOTROPIC_MM, ORIGIN_MM),
    "anisotropic_lps": LPS @ affine(ANISOTROPIC_MM, ORIGIN_MM),
    "anisotropic_coronal": turned((0, 2, 1), (1, -1, 1), ANISOTROPIC_MM),
    "oblique": oblique_affine(),
    "oblique_anisotropic": oblique_affine(ANISOTROPIC_MM),
    "oblique_flipped": oblique_affine(ANISOTROPIC_MM) @ np.diag([-1.0, 1.0, -1.0, 1.0]),
    "oblique_lps": LPS @ oblique_affine((2.0, 1.0, 1.0), degrees=-35),
}
FLAT_GRIDS = {
    "axial": affine((0.7, 1.3, 5.0), ORIGIN_MM),
    "axial_lps": LPS @ affine((0.7, 1.3, 5.0), ORIGIN_MM),
    "axial_transposed": turned((1, 0, 2), (1, -1, 1), (0.7, 1.3, 5.0)),
    "coronal": turned((0, 2, 1), (-1, 1, 1), (0.7, 1.3, 5.0)),
    "sagittal": turned((1, 2, 0), (1, -1, 1), (0.7, 1.3, 5.0)),
    "oblique": oblique_affine((0.7, 1.3, 5.0)),
}


def as_simpleitk(path: Path) -> list[np.ndarray]:
    image = SimpleITK.ReadImage(str(path))
    return [
        np.array(part)
        for part in (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    ]


def as_nibabel(path: Path) -> list[np.ndarray]:
    image = nibabel.load(path)
    forms = [image.header.get_sform(), image.header.get_qform(), image.affine]
    codes = [int(image.header[name]) for name in ("sform_code", "qform_code")]
    return [np.array(part) for part in (image.shape, image.header.get_zooms(), *forms, codes)]


def as_monai(path: Path, reader: str) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an error inside itk's compiled modules ends the process
        image = LoadImage(reader=reader, image_only=True)(path)
    return [np.array(image.shape), image.affine.numpy(), np.array(image.meta["original_affine"])]


READERS = {
    "SimpleITK": as_simpleitk,
    "nibabel": as_nibabel,
    "MONAI NibabelReader": lambda path: as_monai(path, "NibabelReader"),
    "MONAI ITKReader": lambda path: as_monai(path, "ITKReader"),
}


def assert_same_place(image: Path, labels: Path, program: str) -> None:
    """To the bit: the label map has the geometry fields of its image's header."""
    for one, other in zip(READERS[program](image), READERS[program](labels), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=image.name)


def run(bundle: Path, images: Path, out: Path, **options) -> Path:
    result = predict(bundle, [images], out, overlays=False, reports=False, **options)
    assert not result.rejected
    return out


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, matrix in GRIDS.items():
        write_nifti(folder / f"{name}.nii.gz", two_boxes(), matrix)
    return folder


@pytest.fixture(scope="module", params=["plain", "fast"])
def label_maps(request, images, tmp_path_factory):
    """Of every grid, by the bundle of thresholds as it is, and with the streaming inferer."""
    bundle = write_threshold_bundle(tmp_path_factory.mktemp("bundles") / "thresholds")
    if request.param == "fast":
        fast = {
            "inferer": {
                "_target_": "medimg3d.inference.label_map_inferer.LabelMapInferer",
                "roi_size": [8, 8, 8],
            },
            "preprocessing#transforms#3#_target_": "medimg3d.transforms.separable_spacing.SeparableSpacingd",
            "postprocessing": {"_target_": "SaveImaged", "keys": "pred"},
        }
        (bundle / "configs" / "inference_fast.json").write_text(json.dumps(fast))
    return run(bundle, images, tmp_path_factory.mktemp("out"))


def test_there_are_48_ways_to_turn_axes():
    assert len(TURNED) == 48
    for codes, matrix in TURNED.items():
        assert "".join(nibabel.aff2axcodes(matrix)) == codes


@pytest.mark.parametrize("program", READERS)
def test_a_label_map_lies_where_its_image_lies(images, label_maps, program):
    for grid in GRIDS:
        assert_same_place(images / f"{grid}.nii.gz", label_maps / f"{grid}_seg.nii.gz", program)


def test_labels_are_on_the_right_voxels_however_the_axes_run(label_maps):
    expected = (two_boxes() > 50).astype(np.uint8) + (two_boxes() > 150)
    for grid in TURNED:
        np.testing.assert_array_equal(voxels(label_maps / f"{grid}_seg.nii.gz"), expected, err_msg=grid)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_label_map_lies_where_an_image_of_another_format_lies(tmp_path, ending):
    image = SimpleITK.ReadImage(str(write_nifti(tmp_path / "a.nii", two_boxes(), GRIDS["oblique_flipped"])))
    (tmp_path / "in").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "in" / f"a{ending}"))
    out = run(write_threshold_bundle(tmp_path / "b"), tmp_path / "in", tmp_path / "out")
    for one, other in zip(
        as_simpleitk(tmp_path / "in" / f"a{ending}"), as_simpleitk(out / "a_seg.nii.gz"), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.fixture(scope="module")
def flat_bundle(tmp_path_factory):
    return write_flat_bundle(tmp_path_factory.mktemp("bundles") / "flat")


def flat_pixels(seed=0) -> np.ndarray:
    return two_part_phantom(seed)[0][:, :, 10]


@pytest.fixture(scope="module")
def flat_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flat_images")
    for name, matrix in FLAT_GRIDS.items():
        write_nifti(folder / f"{name}_2_axes.nii.gz", flat_pixels(), matrix)
        write_nifti(folder / f"{name}_3_axes.nii.gz", flat_pixels()[..., None], matrix)
    return folder


@pytest.fixture(scope="module", params=["plain", "fast"])
def flat_label_maps(request, flat_bundle, flat_images, tmp_path_factory):
    return run(flat_bundle, flat_images, tmp_path_factory.mktemp("out"), fast=request.param == "fast")


@pytest.mark.parametrize("program", READERS)
def test_a_flat_label_map_lies_where_its_image_lies(flat_images, flat_label_maps, program):
    for grid in FLAT_GRIDS:
        for axes in ("2_axes", "3_axes"):
            if "ITK" in program and axes == "2_axes" and grid in ("coronal", "sagittal"):
                continue  # ITK keeps the first two axes of a direction, which is singular then, and reads neither
            name = f"{grid}_{axes}"
            assert_same_place(flat_images / f"{name}.nii.gz", flat_label_maps / f"{name}_seg.nii.gz", program)


def test_fast_and_plain_give_the_same_flat_labels_for_two_axes_and_three(flat_bundle, flat_images, tmp_path):
    plain = run(flat_bundle, flat_images, tmp_path / "plain", fast=False)
    fast = run(flat_bundle, flat_images, tmp_path / "fast")
    for grid in FLAT_GRIDS:
        two, three = (voxels(fast / f"{grid}_{axes}_seg.nii.gz") for axes in ("2_axes", "3_axes"))
        assert len(np.unique(two)) == 3
        np.testing.assert_array_equal(two, voxels(plain / f"{grid}_2_axes_seg.nii.gz"))
        np.testing.assert_array_equal(two[..., None], three)


def test_flat_labels_are_those_of_the_network_on_the_pixels(flat_bundle, tmp_path):
    image = write_nifti(tmp_path / "in" / "a.nii.gz", flat_pixels(), affine())
    out = run(flat_bundle, image.parent, tmp_path / "out")
    pixels = torch.from_numpy((flat_pixels() - flat_pixels().mean()) / flat_pixels().std())
    with torch.no_grad():
        inferer = SlidingWindowInferer((16, 16), overlap=0.5, mode="gaussian")
        expected = inferer(pixels[None, None], tiny_unet(2))[0].argmax(0)
    np.testing.assert_array_equal(voxels(out / "a_seg.nii.gz"), expected)


def test_a_flat_image_of_another_format_keeps_its_place(flat_bundle, tmp_path):
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(flat_pixels().T))
    image.SetSpacing((0.5, 2.0))
    image.SetOrigin((3.0, -4.0))
    image.SetDirection((0.0, 1.0, -1.0, 0.0))
    (tmp_path / "in").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "in" / "a.mha"))
    out = run(flat_bundle, tmp_path / "in", tmp_path / "out")
    for one, other in zip(
        as_simpleitk(tmp_path / "in" / "a.mha"), as_simpleitk(out / "a_seg.nii.gz"), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_flat_case_has_one_picture_a_page_and_no_volume(flat_bundle, tmp_path):
    image = write_nifti(tmp_path / "a.nii.gz", flat_pixels(), FLAT_GRIDS["axial"])
    case = predict(flat_bundle, [image], tmp_path / "out").cases[0]
    assert case.overlay.is_file()
    assert case.report.is_file()
    assert set(case.volumes.ml.values()) == {None}
    assert sum(case.volumes.voxels.values()) > 0
    assert case.note == "a 2D image has no volume: volumes left blank"


@pytest.mark.parametrize("shape", [(9, 10, 11), (1, 10, 11), (10, 11, 1, 2)])
def test_a_bundle_of_flat_images_refuses_what_is_none(flat_bundle, tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    image = write_nifti(tmp_path / "a.nii.gz", array)
    result = predict(flat_bundle, [image], tmp_path / "out", overlays=False, reports=False)
    assert "this bundle takes 2D images, (I, J) or (I, J, 1)" in result.rejected[str(image)]


@pytest.mark.parametrize("fast", [True, False])
def test_a_flat_network_goes_through_a_volume_slice_by_slice(flat_bundle, tmp_path, fast):
    bundle = tmp_path / "slices"
    shutil.copytree(flat_bundle, bundle)
    window = {"roi_size": [16, 16], "overlap": 0.5, "mode": "gaussian"}
    volume_steps = {
        "preprocessing#transforms#2#axcodes": "RAS",
        "preprocessing#transforms#3#pixdim": [1.0, 1.0, 4.0],
    }
    _change(
        bundle,
        "inference",
        volume_steps | {"inferer": {"_target_": "SliceInferer", "spatial_dim": 2, **window}},
    )
    _change(bundle, "inference_fast", {"inferer": {**_fast_inferer(bundle), **window, "slice_axis": 2}})
    image = write_nifti(
        tmp_path / "in" / "a.nii.gz", two_part_phantom(3)[0][..., :6], affine((0.9, 0.9, 4.0))
    )
    out = run(bundle, image.parent, tmp_path / "out", fast=fast)
    assert_same_place(image, out / "a_seg.nii.gz", "nibabel")
    other = run(bundle, image.parent, tmp_path / "other", fast=not fast)
    np.testing.assert_array_equal(voxels(out / "a_seg.nii.gz"), voxels(other / "a_seg.nii.gz"))


def _fast_inferer(bundle: Path) -> dict:
    return json.loads((bundle / "configs" / "inference_fast.json").read_text())["inferer"]


def _change(bundle: Path, config: str, values: dict) -> None:
    """Set values of a config by their ids."""
    path = bundle / "configs" / f"{config}.json"
    content = json.loads(path.read_text())
    for name, value in values.items():
        *parents, last = name.split("#")
        at = content
        for parent in parents:
            at = at[int(parent) if isinstance(at, list) else parent]
        at[last] = value
    path.write_text(json.dumps(content))
