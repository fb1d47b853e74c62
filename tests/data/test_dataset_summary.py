import numpy as np
from phantoms import affine, two_boxes, write_nifti, write_picture

from medimg3d.data.case_facts import named_images, read_case_facts
from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.dataset_summary import (
    count_classes,
    count_folds,
    count_values,
    images_summary,
    patients_summary,
    scales_differ,
    structures_summary,
)


def read(datalist):
    return [read_case_facts(*one, datalist) for one in reversed(datalist.named_cases())]


def film(tmp_path, name, **case):
    return Case(image=write_picture(tmp_path / f"{name}.png", 10, size=case.pop("size", (12, 8))), **case)


def test_classes_by_name_and_by_index_in_the_order_of_the_datalist(tmp_path):
    datalist = Datalist(
        classes=("well", "ill", "unseen"),
        training=(film(tmp_path, "a", class_label="ill"), film(tmp_path, "b", class_label=0)),
        test=(film(tmp_path, "c", class_label=1), film(tmp_path, "d")),
    )
    assert count_classes(read(datalist), datalist) == {
        "training": {"well": 1, "ill": 1, "unseen": 0, "(none)": 0},
        "test": {"well": 0, "ill": 1, "unseen": 0, "(none)": 1},
    }


def test_values_folds_and_patients(tmp_path):
    cases = [
        film(tmp_path, str(n), fold=n % 2, patient=f"p{n // 2}", values={"sex": "fm"[n % 2], "name": str(n)})
        for n in range(14)
    ]
    facts = read(Datalist(training=tuple(cases[:13]), test=(cases[13],)))
    assert count_values(facts) == {"sex": {"training": {"f": 7, "m": 6}, "test": {"f": 0, "m": 1}}}
    assert count_folds(facts) == {"0": 7, "1": 6}
    patients = patients_summary(facts)
    assert (patients["count"], patients["cases_with_patient"]) == (7, 14)
    assert patients["in_several_sections"] == [
        {"patient": "p6", "cases": {"training": ["12"], "test": ["13"]}}
    ]


def test_sizes_and_intensities_of_pictures(tmp_path):
    sizes = [(12, 8), (12, 8), (20, 10)]
    cases = tuple(film(tmp_path, str(n), size=size, class_label="a") for n, size in enumerate(sizes))
    images = images_summary(read(Datalist(training=cases)))["image"]
    assert images["sizes"] == [{"value": [12, 8], "n": 2}, {"value": [20, 10], "n": 1}]
    assert images["size"] == {"min": [12, 8], "median": [12, 8], "max": [20, 10]}
    assert (images["spacing_unknown"], images["spacing_mm"]) == (3, None)
    assert images["intensity_by_class"]["a"]["percentiles"]["50"] == 10


def test_volumes_with_named_images_and_a_structure_that_one_lacks(tmp_path):
    grid, box = affine((1, 1, 2)), two_boxes()
    ct = write_nifti(tmp_path / "ct.nii.gz", box, grid)
    label = write_nifti(tmp_path / "l.nii.gz", (box > 0).astype(np.uint8), grid)
    empty = write_nifti(tmp_path / "e.nii.gz", np.zeros(box.shape, np.uint8), grid)
    cases = (
        Case(images={"ct": ct, "pet": ct}, label=label, id="a"),
        Case(images={"ct": ct}, label=empty, id="b"),
    )
    datalist = Datalist(labels={0: "background", 1: "boxes", 2: "never"}, training=cases)
    facts = read(datalist)
    assert {word: images["read"] for word, images in images_summary(facts).items()} == {"ct": 2, "pet": 1}
    structures = structures_summary(facts, datalist.labels)
    boxes = structures["boxes"]
    assert (boxes["cases"], boxes["of_cases"], boxes["volume_ml"]["median"]) == (1, 2, 147 * 2 / 1000)
    assert boxes["percentiles"]["50"] == 100
    assert structures["never"] | {"label": 2} == structures["never"]
    assert (structures["never"]["cases"], structures["never"]["volume_ml"]) == (0, None)


def test_ranges_three_times_as_wide_have_no_common_scale():
    assert not scales_differ([(0.0, 10.0), (0.0, 30.0), (5.0, 5.0)])
    assert scales_differ([(0.0, 10.0), (0.0, 31.0)])
    assert not scales_differ([])


def test_channels_are_named_by_their_modality(tmp_path):
    files = tuple(tmp_path / name for name in ("a.nii", "b.nii", "c.nii"))
    datalist = Datalist(modality={"0": "T1", "1": "T2"})
    assert list(named_images(Case(image=files), datalist)) == ["T1", "T2", "image 3"]
    assert list(named_images(Case(image=files[:2]), Datalist(modality={"0": "x", "1": "x"}))) == [
        "x 1",
        "x 2",
    ]


def test_what_cannot_be_used_becomes_the_problem_of_the_case_and_the_rest_is_kept(tmp_path):
    ct = write_nifti(tmp_path / "ct.nii.gz", two_boxes())
    small = write_nifti(tmp_path / "l.nii.gz", np.zeros((2, 2, 2), np.uint8))
    case = Case(images={"ct": ct, "pet": tmp_path / "none.nii"}, label=small)
    facts = read_case_facts("a", "training", case, Datalist())
    assert list(facts.images) == ["ct"]
    assert facts.problem == (
        "pet is missing; expected a file or a DICOM folder at the path in the datalist; "
        "label has the shape 2 × 2 × 2, its image 16 × 18 × 14"
    )
