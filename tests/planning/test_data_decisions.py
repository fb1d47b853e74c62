"""Decisions that follow from the data, each on facts whose answer is known."""

from __future__ import annotations

import pytest
from facts import channel, facts, of_classes

from medimg3d.errors import DataError, UsageError
from medimg3d.planning.data_decisions import (
    decide_folds,
    decide_intensities,
    decide_mirroring,
    decide_modalities,
    decide_slices,
    decide_spacing,
    decide_task,
)
from medimg3d.planning.label_scheme import LabelScheme
from medimg3d.planning.settings import PlanSettings

OPEN = PlanSettings()


def test_label_maps_make_a_segmentation_and_classes_a_classification():
    assert decide_task(facts(), OPEN).value == "segmentation"
    assert decide_task(of_classes(), OPEN).value == "classification"


def test_a_training_case_without_label_map_is_refused():
    with pytest.raises(DataError, match="1 of 10 training cases have no label maps"):
        decide_task(facts(num_labelled=9), OPEN)


def test_data_with_neither_labels_nor_classes_are_refused():
    with pytest.raises(DataError, match="No training case has a label map or a class"):
        decide_task(facts(num_labelled=0), OPEN)


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        ({"modality": "CT"}, "ct"),
        ({"modality": "T1-weighted MRI"}, "mri"),
        ({"name": "pet_suv"}, "pet"),
        ({"percentiles": (-990.0, -900.0, 20.0, 100.0, 400.0)}, "ct"),
        ({"is_picture": True}, "film"),
        ({}, "mri"),
    ],
)
def test_modality_comes_from_the_datalist_then_the_name_then_the_values(known, kind):
    assert decide_modalities(facts(channels=(channel(**known),)), OPEN).value == [kind]


def test_one_modality_for_two_channels_counts_for_both_and_three_are_refused():
    two = facts(channels=(channel("a"), channel("b")))
    assert decide_modalities(two, PlanSettings(modality="ct")).value == ["ct", "ct"]
    with pytest.raises(UsageError, match="3 modalities were given"):
        decide_modalities(two, PlanSettings(modality=("ct", "ct", "ct")))


def test_voxel_size_is_the_median():
    known = facts(spacings_mm=((1.0, 1.0, 2.0),) * 4 + ((1.0, 1.0, 1.0),) * 6)
    assert decide_spacing(known, OPEN).value == [1.0, 1.0, 1.0]


def test_on_a_thick_axis_the_voxel_size_is_the_tenth_percentile():
    sizes = tuple((1.0, 1.0, 5.0 + n) for n in range(11))  # 10th percentile of 5 … 15 is 6
    known = facts(shapes=((200, 200, 20),) * 11, spacings_mm=sizes, num_cases=11)
    decision = decide_spacing(known, OPEN)
    assert decision.value == [1.0, 1.0, 6.0]
    assert "10th percentile" in decision.reason


def test_unknown_voxel_size_keeps_the_voxels():
    decision = decide_spacing(facts(spacings_mm=(None,) * 10), OPEN)
    assert decision.value is None
    assert "No voxel size is known" in decision.reason


def test_some_unknown_voxel_sizes_are_told_of():
    decision = decide_spacing(facts(spacings_mm=(None,) + ((1.0, 1.0, 2.0),) * 9), OPEN)
    assert decision.value == [1.0, 1.0, 2.0]
    assert "1 cases state no voxel size" in decision.reason or "nothing is resampled" in decision.reason


def test_spacing_of_two_numbers_for_volumes_is_refused():
    with pytest.raises(UsageError, match="--spacing has 2 numbers; expected 3"):
        decide_spacing(facts(), PlanSettings(spacing_mm=(1, 1)))


def test_four_slices_are_taken_one_by_one_across_the_thick_axis():
    thick = facts(shapes=((4, 100, 100),) * 10, spacings_mm=((8.0, 1.0, 1.0),) * 10)
    assert decide_slices(thick, (8.0, 1.0, 1.0), OPEN, 1)[1] == 0


def test_ten_slices_stay_3d_for_a_network_that_spares_short_axes_and_not_for_one_that_divides_by_32():
    heart = facts(shapes=((100, 100, 10),) * 10, spacings_mm=((1.5, 1.5, 8.0),) * 10)
    assert decide_slices(heart, None, OPEN, 1)[1] is None
    decision, axis = decide_slices(heart, None, OPEN, 32)
    assert axis == 2
    assert "multiples of 32" in decision.reason


def test_ct_is_clipped_where_its_structures_end():
    scheme = decide_intensities(facts(), ["ct"]).value[0]
    assert scheme == {"scheme": "fixed", "low": 10.0, "high": 90.0, "mean": 50.0, "std": 20.0}


def test_mri_with_much_black_counts_its_other_values_only():
    assert decide_intensities(facts(channels=(channel(zero_share=0.6),)), ["mri"]).value[0]["nonzero"] is True
    assert decide_intensities(facts(), ["mri"]).value[0]["nonzero"] is False


def test_channels_have_schemes_of_their_own():
    three = facts(channels=(channel("ct"), channel("pet"), channel("mr")))
    schemes = decide_intensities(three, ["ct", "pet", "mri"]).value
    assert [scheme["scheme"] for scheme in schemes] == ["fixed", "fixed", "own"]


def test_only_left_and_right_are_mirrored_and_not_where_a_structure_names_a_side():
    liver = LabelScheme({0: "background", 1: "liver"})
    kidneys = LabelScheme({0: "background", 1: "left_kidney", 2: "right_kidney"})
    assert decide_mirroring(facts(), liver, OPEN).value == [0]
    assert decide_mirroring(facts(), kidneys, OPEN).value == []
    assert decide_mirroring(facts(), kidneys, PlanSettings(mirror_axes=(0, 1))).value == [0, 1]


def test_folds_of_the_datalist_are_kept():
    decision = decide_folds(facts(folds=(0, 1, 2)), OPEN)
    assert decision.value["num_folds"] == 3
    assert "which is kept" in decision.reason


def test_folds_by_case_are_warned_of():
    decision = decide_folds(facts(num_patients=None), OPEN)
    assert decision.value == {"num_folds": 5, "fold_seed": 0, "by": "case"}
    assert "may lie on both sides" in decision.reason


def test_one_patient_cannot_be_split():
    with pytest.raises(DataError, match="Found 1 patients"):
        decide_folds(facts(num_patients=1), OPEN)
