"""Checks across cases, on facts written by hand: no file is read."""

from pathlib import Path

import numpy as np
import pytest
from phantoms import affine

from medimg3d.data import set_checks
from medimg3d.data.case_checks import ReadCase
from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.image_facts import ImageFacts
from medimg3d.errors import DataError


def facts(*, shape=(10, 10, 10), channels=1, matrix="default", digest="") -> ImageFacts:
    matrix = affine() if isinstance(matrix, str) else matrix
    return ImageFacts(shape, channels, matrix, digest, finite=True)


def read(name, *images, section="training", label=None, **case):
    files = tuple(Path(f"{name}_{n}.nii") for n in range(max(len(images), 1)))
    if "images" not in case:
        case["image"] = files[0] if len(files) == 1 else files
    images = images or (facts(digest=name),)
    return ReadCase(name, section, Case(id=name, **case), images, label)


def short(findings):
    return [(one.case, one.defect, one.severe) for one in findings]


def test_a_list_of_two_among_lists_of_three_is_refused():
    cases = [read(name, *[facts()] * count) for name, count in (("a", 3), ("b", 3), ("c", 2))]
    (finding,) = set_checks.check_channels(cases, Datalist(), None)
    assert finding.sentence.startswith("image has 2 channels; expected 3, as most have.")
    assert (finding.case, finding.severe) == ("c", True)


def test_the_networks_channels_count_more_than_what_most_have():
    cases = [read(name, *[facts()] * count) for name, count in (("a", 3), ("b", 3), ("c", 2))]
    findings = set_checks.check_channels(cases, Datalist(), 2)
    assert short(findings) == [("a", "channels", True), ("b", "channels", True)]
    assert "as the bundle's network takes" in findings[0].expected


def test_on_a_tie_the_modalities_of_the_datalist_count():
    cases = [read("a", *[facts()] * 2), read("b", *[facts()] * 3)]
    datalist = Datalist(modality={"0": "T1", "1": "T2"})
    assert short(set_checks.check_channels(cases, datalist, None)) == [("b", "channels", True)]


def test_a_fourth_axis_counts_as_channels_where_the_network_takes_them():
    cases = [read("a", facts(shape=(9, 9, 9, 4))), read("b", facts(shape=(9, 9, 9, 3)))]
    (finding,) = set_checks.check_channels(cases, Datalist(), 4)
    assert (finding.case, finding.severe) == ("b", True)
    assert finding.found == "image has 3 channels along its fourth axis (9x9x9x3)"
    assert finding.cure.startswith("Write the same channels into every file")


def test_a_time_series_for_a_network_of_one_channel_is_refused_even_if_all_are_so():
    (finding,) = set_checks.check_channels([read("a", facts(shape=(9, 9, 9, 4)))], Datalist(), 1)
    assert finding.sentence.startswith("image is 4D (9x9x9x4); expected 3D with 1 channel")


def test_a_lacking_named_image_is_a_remark():
    cases = [
        read("both", facts(), facts(), images={"ct": Path("a"), "pet": Path("b")}),
        read("one", facts(), images={"ct": Path("c")}),
    ]
    (finding,) = set_checks.check_named_images(cases)
    assert (finding.case, finding.found, finding.severe) == ("one", "the case has no image pet", False)


STACKED = Datalist(extra={set_checks.STACKED: ["ct", "pet"]})


def named(name, **images):
    return read(name, *images.values(), images={word: Path(f"{word}.nii") for word in images})


def test_a_lacking_image_that_the_network_takes_with_another_is_refused():
    cases = [named("both", ct=facts(), pet=facts()), named("one", ct=facts(), mr=facts())]
    (finding,) = set_checks.check_channels(cases, STACKED, None)
    assert (finding.case, finding.severe) == ("one", True)
    assert finding.sentence.startswith("the case has no image pet; expected each of ct, pet")


@pytest.mark.parametrize(
    ("pet", "found"),
    [
        (facts(matrix=affine(origin_mm=(0, 3, 0))), "image ct and image pet lie up to 3 mm apart"),
        (facts(matrix=affine(origin_mm=(0, 0.05, 0))), "image ct and image pet lie up to 0.05 mm apart"),
        (facts(shape=(10, 10, 9)), "image ct and image pet differ in shape (10x10x10 and 10x10x9)"),
    ],
)
def test_named_images_that_cannot_be_stacked_are_refused_with_the_file(pet, found):
    (finding,) = set_checks.check_channels([named("a", ct=facts(), pet=pet)], STACKED, None)
    assert (finding.found, finding.severe, finding.file) == (found, True, Path("pet.nii"))
    assert finding.cure.startswith("Resample image pet onto image ct")


def test_an_image_that_the_network_does_not_take_may_lie_anywhere():
    other = facts(matrix=affine(origin_mm=(0, 3, 0)))
    assert set_checks.check_channels([named("a", mr=other, ct=facts(), pet=facts())], STACKED, 2) == []


def test_named_images_of_which_nothing_is_said_may_lie_anywhere_and_are_remarked_on():
    cases = [named("a", ct=facts(), pet=facts(matrix=affine(origin_mm=(0, 3, 0))))]
    assert set_checks.check_channels(cases, Datalist(), None) == []
    (finding,) = set_checks.check_named_images(cases)
    assert (finding.defect, finding.severe, finding.file) == ("grid", False, Path("pet.nii"))


def test_a_list_whose_affines_differ_is_refused_for_a_network_of_several_channels():
    cases = [read("a", facts(), facts(matrix=affine(origin_mm=(0, 0.05, 0))))]
    assert short(set_checks.check_channels(cases, Datalist(), 2)) == [("a", "grid", True)]


def test_names_of_stacked_images_that_are_no_list_are_refused():
    with pytest.raises(DataError, match="\"stacked_images\" is 'ct'; expected names of"):
        set_checks.check_channels([read("a")], Datalist(extra={set_checks.STACKED: "ct"}), None)


def test_another_orientation_than_most_is_a_remark():
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0])
    cases = [read("a"), read("b"), read("c", facts(matrix=flipped))]
    (finding,) = set_checks.check_orientations(cases)
    assert (finding.case, finding.severe) == ("c", False)
    assert (finding.found, finding.expected) == ("the axes of the image run to LPS", "RAS, as most do")


@pytest.mark.parametrize(
    ("spacing_mm", "expected"),
    [
        ((1, 1, 1.5), []),  # the factor that is still allowed
        ((1, 1, 1.6), [("odd", "spacing", False)]),
        ((0.6, 0.6, 5), [("odd", "spacing", False)]),
        ((0.1, 0.1, 0.1), [("odd", "spacing", True)]),  # cm for mm
        ((0.001, 0.001, 0.001), [("odd", "spacing", True)]),  # m for mm
    ],
)
def test_another_voxel_size_is_a_remark_and_another_unit_is_refused(spacing_mm, expected):
    cases = [read("a"), read("b"), read("odd", facts(matrix=affine(spacing_mm)))]
    assert short(set_checks.check_spacings(cases)) == expected


def test_a_rotated_grid_of_the_same_size_is_no_other_voxel_size():
    turned = np.zeros((4, 4))
    turned[1, 0], turned[0, 1], turned[2, 2], turned[3, 3] = 3, 1, 1, 1  # I runs forward with 3 mm
    cases = [read("a", facts(matrix=affine((1, 3, 1)))), read("b", facts(matrix=turned))]
    assert set_checks.check_spacings(cases) == []


def test_ct_and_pet_are_compared_each_with_their_own():
    ct, pet = facts(), facts(matrix=affine((4, 4, 4)))
    cases = [read(name, ct, pet, images={"ct": Path("c"), "pet": Path("p")}) for name in ("a", "b")]
    assert set_checks.check_spacings(cases) == []


def test_a_patient_in_two_folds_stays_where_most_of_the_cases_are():
    cases = [read(f"c{n}", patient="p", fold=fold) for n, fold in enumerate((2, 1, 1))]
    (finding,) = set_checks.check_folds(cases, Datalist())
    assert (finding.case, finding.cure[:21]) == ("c0", 'Set its "fold" to 1, ')


def test_a_fold_that_there_is_not_is_refused():
    cases = [read("a", fold=5), read("b", fold=4)]
    (finding,) = set_checks.check_folds(cases, Datalist(split={"num_folds": 5}))
    assert (finding.case, finding.found, finding.expected) == ("a", "the case carries fold 5", "0 to 4")


def test_a_patient_in_training_and_validation_stays_in_validation():
    cases = [read("v", section="validation", patient="p"), read("t", patient="p"), read("u", patient="q")]
    (finding,) = set_checks.check_patients(cases)
    assert (finding.case, finding.found) == ("t", "its patient is also in the validation list")


def test_a_case_without_patient_among_others_with_is_a_remark():
    assert short(set_checks.check_patients([read("a", patient="p"), read("b")])) == [
        ("b", "patient not given", False)
    ]
    assert set_checks.check_patients([read("a"), read("b")]) == []


def test_one_label_under_two_images_is_a_remark_but_not_an_empty_one():
    def label(box):
        return ImageFacts((9, 9, 9), 1, affine(), "same", True, (0.0, 1.0), box)

    box = ((0, 1),) * 3
    assert short(
        set_checks.check_labels_twice([read("a", label=label(box)), read("b", label=label(box))])
    ) == [("b", "duplicate", False)]
    assert set_checks.check_labels_twice([read("a", label=label(None)), read("b", label=label(None))]) == []


def test_a_structure_that_no_label_map_holds_is_a_remark_on_the_set():
    label = ImageFacts((9, 9, 9), 1, affine(), "x", True, (0.0, 1.0), ((0, 1),) * 3)
    datalist = Datalist(labels={0: "background", 1: "front", 2: "rear"})
    (finding,) = set_checks.check_unused_labels([read("a", label=label)], datalist)
    assert finding.line().startswith("data set: the label 2 (rear) occurs in no label map")
