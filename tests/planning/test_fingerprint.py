"""Fingerprints of cases: what they hold, and that nothing is read twice."""

from __future__ import annotations

import json
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
import phantoms
import pytest

from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.pixels import Pixels
from medimg3d.errors import DataError
from medimg3d.planning import fingerprint as module
from medimg3d.planning.data_facts import gather_facts
from medimg3d.planning.fingerprint import fingerprint_cases


@pytest.fixture
def study(tmp_path):
    return load_datalist(phantoms.write_decathlon(tmp_path / "study", 3) / "dataset.json")


def test_facts_of_three_phantoms(study, tmp_path):
    facts = gather_facts(fingerprint_cases(study, tmp_path / "cache", workers=1), study)
    assert facts.num_cases == facts.num_labelled == 3
    assert facts.median_shape == (30, 42, 28)
    assert facts.spacings_mm == ((1, 1, 1),) * 3
    assert facts.label_voxels[1] == 10 * 12 * 8
    assert facts.channels[0].inside["mean"] == pytest.approx(200, abs=3)  # 100 + (80 + 120) / 2
    assert facts.channels[0].inside_is_labelled


def test_a_second_time_no_image_is_read(study, tmp_path, monkeypatch):
    first = fingerprint_cases(study, tmp_path / "cache", workers=1)
    monkeypatch.setattr(module, "read_pixels", None)
    assert fingerprint_cases(study, tmp_path / "cache", workers=1) == first


def test_axes_are_counted_in_ras_order(tmp_path):
    turned = np.zeros((4, 4))
    turned[0, 2], turned[1, 0], turned[2, 1], turned[3, 3] = 3.0, 1.0, 2.0, 1.0  # array axes run A, S, R
    image = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    phantoms.write_nifti(tmp_path / "image.nii.gz", image, turned)
    (tmp_path / "list.json").write_text('{"training": [{"image": "image.nii.gz"}]}')
    one = fingerprint_cases(load_datalist(tmp_path / "list.json"), tmp_path / "cache", workers=1)[0]
    assert one.images["image"].shape == (7, 5, 6)
    assert one.images["image"].spacing_mm == pytest.approx((3.0, 1.0, 2.0))


def test_a_missing_file_is_a_problem_of_its_case(tmp_path):
    (tmp_path / "list.json").write_text('{"training": [{"image": "absent.nii.gz"}]}')
    one = fingerprint_cases(load_datalist(tmp_path / "list.json"), tmp_path / "cache", workers=1)[0]
    assert "cannot be read" in one.problem


def test_the_box_of_what_is_labelled_is_counted_in_ras_order_without_ignored_voxels(tmp_path):
    turned = np.zeros((4, 4))
    turned[0, 2], turned[1, 0], turned[2, 1], turned[3, 3] = 3.0, 1.0, 2.0, 1.0  # array axes run A, S, R
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:3, 4, 2:6] = 1
    label[0, 0, 0] = 255
    for name, array in (("image", np.ones((5, 6, 7), np.float32)), ("label", label), ("empty", 0 * label)):
        phantoms.write_nifti(tmp_path / f"{name}.nii.gz", array, turned)
    cases = ", ".join(
        f'{{"id": "{name}", "image": "image.nii.gz", "label": "{name}.nii.gz"}}'
        for name in ("label", "empty")
    )
    (tmp_path / "list.json").write_text(f'{{"labels": {{"0": "b", "1": "x"}}, "training": [{cases}]}}')
    found = fingerprint_cases(
        load_datalist(tmp_path / "list.json"), tmp_path / "cache", workers=1, ignore_label=255
    )
    assert [one.box for one in found] == [((2, 6), (1, 3), (4, 5)), ()]


def listed(folder, *cases, **more):
    """A datalist of images, each an array, an array and its affine, or several of them by name."""

    def written(name, image):
        array, matrix = image if isinstance(image, tuple) else (image, None)
        return phantoms.write_nifti(folder / f"{name}.nii.gz", array.astype(np.float32), matrix).name

    training = []
    for n, images in enumerate(cases):
        if isinstance(images, dict):
            own = {"images": {word: written(f"{word}_{n}", image) for word, image in images.items()}}
        else:
            own = {"image": written(f"image_{n}", images)}
        training.append({"id": f"case_{n}", **own})
    (folder / "list.json").write_text(json.dumps({"training": training, **more}))
    return load_datalist(folder / "list.json")


def in_channels(count):
    """A volume of 3 x 4 x 5 voxels whose channel n holds 10 n to 10 n + 1 (4D for more than one)."""
    ramp = np.linspace(0, 1, 60).reshape(3, 4, 5)
    return np.stack([ramp + 10 * n for n in range(count)], axis=-1)


def test_each_entry_of_the_fourth_axis_is_a_channel_called_by_the_modality(tmp_path):
    datalist = listed(tmp_path, in_channels(2), in_channels(2), modality={"0": "T2", "1": "ADC"})
    facts = gather_facts(fingerprint_cases(datalist, tmp_path / "cache", workers=1), datalist)
    assert [channel.name for channel in facts.channels] == ["T2", "ADC"]
    assert [channel.modality for channel in facts.channels] == ["T2", "ADC"]
    assert [channel.percentiles[2] for channel in facts.channels] == pytest.approx([0.5, 10.5])
    assert facts.shapes == ((3, 4, 5),) * 2
    assert not facts.named


def test_channels_of_one_file_that_have_no_names_are_numbered(tmp_path):
    (one,) = fingerprint_cases(listed(tmp_path, in_channels(3)), tmp_path / "cache", workers=1)
    assert list(one.images) == ["image 1", "image 2", "image 3"]


def test_channels_that_are_called_otherwise_are_not_read_again(tmp_path, monkeypatch):
    datalist = listed(tmp_path, in_channels(2))
    (first,) = fingerprint_cases(datalist, tmp_path / "cache", workers=1)
    monkeypatch.setattr(module, "read_pixels", None)
    renamed = replace(datalist, modality={"0": "T2", "1": "ADC"})
    (second,) = fingerprint_cases(renamed, tmp_path / "cache", workers=1)
    assert second.images == {"T2": first.images["image 1"], "ADC": first.images["image 2"]}


def test_what_was_kept_in_another_form_is_read_anew(tmp_path, monkeypatch):
    datalist = listed(tmp_path, in_channels(1)[..., 0])
    monkeypatch.setattr(module, "FORMAT", module.FORMAT - 1)
    fingerprint_cases(datalist, tmp_path / "cache", workers=1)
    monkeypatch.undo()
    fingerprint_cases(datalist, tmp_path / "cache", workers=1)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_file_with_fewer_channels_than_the_others_is_refused_by_name(tmp_path):
    datalist = listed(tmp_path, in_channels(4), in_channels(3), in_channels(4))
    prints = fingerprint_cases(datalist, tmp_path / "cache", workers=1)
    found = (
        r"Case case_1 has 3 channels \(image 1, image 2, image 3\); expected 4 channels .* as 2 others have"
    )
    with pytest.raises(DataError, match=found):
        gather_facts(prints, datalist)


def test_several_channels_in_a_named_file_are_a_problem_of_the_case(tmp_path):
    datalist = listed(tmp_path, {"ct": in_channels(2), "pet": in_channels(2)})
    (one,) = fingerprint_cases(datalist, tmp_path / "cache", workers=1)
    assert one.problem.startswith(
        "ct is 4D (3 x 4 x 5 x 2) among several or named files; expected one volume"
    )


def test_channels_whose_affines_differ_are_refused_with_file_and_cure(tmp_path):
    image = in_channels(1)[..., 0]
    shifted = phantoms.affine(origin_mm=(0, 0.05, 0))
    datalist = listed(tmp_path, {"ct": image, "pet": image}, {"ct": image, "pet": (image, shifted)})
    prints = fingerprint_cases(datalist, tmp_path / "cache", workers=1)
    with pytest.raises(DataError, match=r"case_1 lie on different grids: pet \(.*pet_1.nii.gz\)") as caught:
        gather_facts(prints, datalist)
    assert "differs by up to 0.05 mm from that of ct; expected one grid. Resample pet onto ct" in str(
        caught.value
    )


def test_a_named_image_that_one_case_lacks_is_refused_and_their_order_is_free(tmp_path):
    image = in_channels(1)[..., 0]
    both, turned = {"ct": image, "pet": image}, {"pet": image, "ct": image}
    datalist = listed(tmp_path, both, turned)
    facts = gather_facts(fingerprint_cases(datalist, tmp_path / "cache", workers=1), datalist)
    assert [channel.name for channel in facts.channels] == ["ct", "pet"]
    datalist = listed(tmp_path, both, turned, {"ct": image})
    prints = fingerprint_cases(datalist, tmp_path / "cache", workers=1)
    with pytest.raises(DataError, match=r"Case case_2 has 1 channel \(ct\); expected 2 channels \(ct, pet\)"):
        gather_facts(prints, datalist)


def test_orientation_and_volumes_are_those_of_the_files(study, tmp_path):
    facts = gather_facts(fingerprint_cases(study, tmp_path / "cache", workers=1), study)
    assert facts.orientations == ("RAS",) * 3
    assert facts.label_ml[1] == pytest.approx(0.96)  # 10 x 12 x 8 voxels of 1 mm^3
    turned = np.zeros((4, 4))
    turned[0, 2], turned[1, 0], turned[2, 1], turned[3, 3] = 3.0, 1.0, 2.0, 1.0  # array axes run A, S, R
    datalist = listed(tmp_path, (in_channels(1)[..., 0], turned))
    (one,) = fingerprint_cases(datalist, tmp_path / "cache", workers=1)
    assert one.images["image"].orientation == "ASR"
    assert one.images["image"].voxel_ml == pytest.approx(0.006)


def test_where_the_voxel_size_is_unknown_there_is_no_volume(study, tmp_path):
    unknown = replace(study, extra={"voxel_size": "unknown"})
    facts = gather_facts(fingerprint_cases(unknown, tmp_path / "cache", workers=1), unknown)
    assert facts.label_ml == {}


def test_a_file_that_states_no_grid_has_neither_orientation_nor_volume(tmp_path):
    phantoms.write_nifti_of_unknown_size(tmp_path / "image.nii.gz", np.ones((3, 4, 5), np.float32))
    (tmp_path / "list.json").write_text('{"training": [{"image": "image.nii.gz"}]}')
    (one,) = fingerprint_cases(load_datalist(tmp_path / "list.json"), tmp_path / "cache", workers=1)
    assert (one.images["image"].orientation, one.images["image"].voxel_ml) == ("", None)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int64", "bool"])
def test_a_label_map_is_not_copied(kind):
    array = np.asfortranarray(np.arange(24).reshape(2, 3, 4) % 2).astype(kind)
    labels = module._as_labels(Pixels(array, None, None))
    assert np.shares_memory(labels, array)
    assert module._counts(labels) == {"0": 12, "1": 12}


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([0.0, 2.0, 255.0], "uint16", {"0": 1, "2": 1, "255": 1}),
        ([0.0, 70_000.0, 70_000.0], "int64", {"0": 1, "70000": 2}),
    ],
)
def test_whole_numbers_in_floats_are_labels(values, kind, expected):
    labels = module._as_labels(Pixels(np.array([values]), None, None))
    assert labels.dtype == kind
    assert module._counts(labels) == expected


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
def test_what_is_no_label_is_refused(value):
    with pytest.raises(DataError, match="holds fractions or values below 0"):
        module._as_labels(Pixels(np.array([[0.0, value]]), None, None))
    with pytest.raises(DataError, match="holds fractions or values below 0"):
        module._as_labels(Pixels(np.array([[0, -1]], np.int8), None, None))


def test_voxels_are_counted_part_by_part(monkeypatch):
    monkeypatch.setattr(module, "PART", 5)
    label = np.random.default_rng(0).integers(0, 4, (3, 4, 6)).astype(np.uint8)
    assert module._counts(label) == {str(value): int((label == value).sum()) for value in range(4)}


def test_the_order_in_memory_changes_no_fingerprint(tmp_path):
    rng = np.random.default_rng(0)
    label = np.asfortranarray(rng.integers(0, 3, (9, 10, 11)).astype(np.uint8))
    pixels = Pixels(np.asfortranarray(rng.normal(size=(9, 10, 11))), None, None)
    rows = replace(pixels, array=np.ascontiguousarray(pixels.array))
    prints = [
        module._image_print(one, tmp_path, own, 2)
        for one, own in ((pixels, label), (rows, np.ascontiguousarray(label)))
    ]
    assert prints[0] == prints[1]


class _EndedPool:
    """A pool whose first process was ended by the system."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def submit(self, *_):
        future = Future()
        future.set_exception(BrokenProcessPool("A process in the process pool was terminated abruptly."))
        return future


def test_a_process_that_the_system_ended_is_told_of_with_the_cure(study, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ProcessPoolExecutor", _EndedPool)
    with pytest.raises(DataError, match=r"ended from outside after 0 of 3, .* --workers 1\."):
        fingerprint_cases(study, tmp_path / "cache", workers=2)


def test_a_case_that_does_not_fit_into_memory_is_a_problem_of_its_own(study, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(module, "read_pixels", fail)
    one = fingerprint_cases(study, tmp_path / "cache", workers=1)[0]
    assert one.problem == "it needs more memory than is free; --workers 1 reads one case at once"


def test_a_cache_that_cannot_be_written_is_no_problem_of_a_case(study, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        fingerprint_cases(study, tmp_path / "cache", workers=1)
