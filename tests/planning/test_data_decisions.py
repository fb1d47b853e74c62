"""Decisions that follow from the data, each on facts whose answer is known."""

from __future__ import annotations

import pytest
from facts import channel, facts, of_classes

from medimg3d.data.datalist import Datalist
from medimg3d.errors import DataError, UsageError
from medimg3d.planning.data_decisions import (
    decide_folds,
    decide_intensities,
    decide_mirroring,
    decide_modalities,
    decide_slices,
    decide_spacing,
    decide_task,
    fold_seed_of,
)
from medimg3d.planning.label_scheme import LabelScheme
from medimg3d.planning.planner import draft_plan
from medimg3d.planning.preprocessing import intensity_blocks
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
    assert "No voxel size is stated in 1 of 10 cases" in decision.reason
    assert "nothing is resampled" not in decision.reason


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


HOUNSFIELD = (-1000.0, -950.0, 40.0, 300.0, 1400.0)


def test_structures_of_one_value_leave_the_window_to_the_whole_image():
    metal = {"low": 3071.0, "high": 3071.0, "mean": 3071.0, "std": 0.0}
    decision = decide_intensities(facts(channels=(channel(inside=metal, percentiles=HOUNSFIELD),)), ["ct"])
    (scheme,) = decision.value
    assert (scheme["low"], scheme["high"], scheme["mean"]) == (-1000.0, 1400.0, 200.0)
    assert scheme["std"] == pytest.approx(692.8203, abs=1e-3)  # 2400 / sqrt(12)
    assert "the labelled structures have one value, 3071 … 3071" in decision.reason


def test_narrow_structures_keep_their_window_where_the_images_are_narrow_too():
    inside = {"low": 0.4, "high": 0.6, "mean": 0.5, "std": 0.05}  # Hounsfield units scaled to 0 … 1
    scaled = channel(inside=inside, percentiles=(0.0, 0.1, 0.5, 0.6, 1.0))
    assert decide_intensities(facts(channels=(scaled,)), ["ct"]).value == [{"scheme": "fixed", **inside}]
    brain = channel(inside=inside, percentiles=(0.0, 0.0, 0.2, 1.0, 1.5))
    assert decide_intensities(facts(channels=(brain,)), ["pet"]).value == [{"scheme": "fixed", **inside}]


def test_mri_with_much_black_counts_its_other_values_only():
    assert decide_intensities(facts(channels=(channel(zero_share=0.6),)), ["mri"]).value[0]["nonzero"] is True
    assert decide_intensities(facts(), ["mri"]).value[0]["nonzero"] is False


def test_ct_is_clipped_to_the_window_that_is_asked_for_and_keeps_the_mean_of_its_structures():
    decision = decide_intensities(facts(), ["ct"], PlanSettings(window=(-100, 400)))
    assert decision.value == [{"scheme": "fixed", "low": -100.0, "high": 400.0, "mean": 50.0, "std": 20.0}]
    assert "clipped to -100 … 400 as asked for" in decision.reason
    assert "labelled structures of all cases: 10 … 90" in decision.reason
    assert "the mean and deviation in the labelled structures" in decision.reason


@pytest.mark.parametrize(
    ("window", "mean", "std"),
    [
        ((100, 220), 160.0, 34.641),  # beside the mean of 50; 120 / sqrt(12)
        ((45, 57), 51.0, 3.4641),  # narrower than one deviation of 20
        ((-1000, 1400), 200.0, 692.8203),  # wider than a hundred of them
    ],
)
def test_a_window_that_the_mean_and_deviation_do_not_fit_is_scaled_by_itself(window, mean, std):
    decision = decide_intensities(facts(), ["ct"], PlanSettings(window=window))
    assert decision.value[0]["mean"] == mean
    assert decision.value[0]["std"] == pytest.approx(std, abs=1e-3)
    assert "do not fit it" in decision.reason


def test_a_window_is_for_the_channels_with_units():
    three = facts(channels=(channel("ct"), channel("pet"), channel("mr")))
    schemes = decide_intensities(three, ["ct", "pet", "mri"], PlanSettings(window=(0, 80))).value
    assert [scheme.get("high") for scheme in schemes] == [80.0, 80.0, None]


def test_a_window_without_a_channel_with_units_is_refused():
    with pytest.raises(UsageError, match="the modality is mri; expected a channel that is ct or pet"):
        decide_intensities(facts(), ["mri"], PlanSettings(window=(0, 80)))


def test_a_plan_takes_the_window_that_is_asked_for():
    plan = draft_plan(facts(), Datalist(), PlanSettings(modality="ct", window=(-100, 400)))
    assert (plan.intensities[0]["low"], plan.intensities[0]["high"]) == (-100.0, 400.0)
    assert intensity_blocks(plan)[0]["a_min"] == -100.0


def blocks_of_mri(*zero_shares):
    channels = tuple(channel(f"t{n}", zero_share=share) for n, share in enumerate(zero_shares))
    return intensity_blocks(draft_plan(facts(channels=channels), Datalist(), PlanSettings(modality="mri")))


def test_mri_with_much_black_is_clipped_and_scored_where_it_is_not_0():
    clip, score = blocks_of_mri(0.85)
    name = "PACKAGE.nonzero_clip.ClipNonzeroPercentilesd"
    assert clip == {"_target_": name, "keys": "image", "lower": 0.5, "upper": 99.5}
    assert score == {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True}


def test_two_mri_with_much_black_are_clipped_and_scored_by_channel():
    clip, score = blocks_of_mri(0.85, 0.7)
    assert "channel_wise" not in clip  # it never does otherwise
    assert score["channel_wise"] is True


def test_of_two_mri_only_the_one_with_much_black_counts_its_other_values_only():
    (block,) = blocks_of_mri(0.85, 0.0)
    names = [[step["_target_"] for step in own["transforms"]] for own in block["transforms"]]
    assert names == [
        ["PACKAGE.nonzero_clip.ClipNonzeroPercentiles", "NormalizeIntensity"],
        ["ClipIntensityPercentiles", "NormalizeIntensity"],
    ]


def test_mri_with_little_black_is_clipped_by_monai():
    assert blocks_of_mri(0.0) == [
        {"_target_": "ClipIntensityPercentilesd", "keys": "image", "lower": 0.5, "upper": 99.5},
        {"_target_": "NormalizeIntensityd", "keys": "image"},
    ]


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


def test_films_are_not_mirrored_whether_or_not_they_have_label_maps():
    lung = LabelScheme({0: "background", 1: "lung"})
    films = facts(num_axes=2, channels=(channel(is_picture=True),), shapes=((100, 80),) * 10)
    assert decide_mirroring(films, lung, OPEN).value == []
    assert decide_mirroring(of_classes(), None, OPEN).value == []
    assert decide_mirroring(films, lung, PlanSettings(mirror_axes=(0,))).value == [0]


def test_across_the_slices_nothing_is_mirrored_even_when_asked():
    thick = facts(shapes=((4, 100, 100),) * 10, spacings_mm=((8.0, 1.0, 1.0),) * 10)
    for settings, expected in ((OPEN, []), (PlanSettings(mirror_axes=(0, 1)), [1])):
        plan = draft_plan(thick, Datalist(), settings)
        decision = next(one for one in plan.decisions if one.name == "mirroring")
        assert plan.slice_axis == 0
        assert (list(plan.mirror_axes), decision.value) == (expected, expected)
        assert "Slices are cut across the axis from left to right" in decision.reason
        assert ("Axis 0 was asked for, too" in decision.reason) == bool(settings.mirror_axes)
    assert draft_plan(thick, Datalist(), PlanSettings(dimension="3d")).mirror_axes == (0,)


def test_folds_of_the_datalist_are_kept():
    decision = decide_folds(facts(folds=(0, 1, 2)), OPEN)
    assert decision.value == {"num_folds": 3, "by": "patient"}
    assert "which is kept" in decision.reason
    assert "--folds" not in decision.change


def test_another_seed_than_that_of_the_folds_of_the_datalist_is_refused():
    given = facts(folds=(0, 1, 2), split={"seed": 4})
    assert fold_seed_of(given, PlanSettings(fold_seed=4)) == 4
    with pytest.raises(UsageError, match="fold_seed is 5, but the datalist gives each case its fold"):
        decide_folds(given, PlanSettings(fold_seed=5))


def test_folds_by_case_are_warned_of():
    decision = decide_folds(facts(num_patients=None), OPEN)
    assert decision.value == {"num_folds": 5, "fold_seed": 0, "by": "case"}
    assert "may lie on both sides" in decision.reason


def test_one_patient_cannot_be_split():
    with pytest.raises(DataError, match="Found 1 patients"):
        decide_folds(facts(num_patients=1), OPEN)


def test_folds_that_are_asked_for_may_be_those_of_the_datalist():
    assert decide_folds(facts(folds=(0, 1, 2)), PlanSettings(num_folds=3)).value["num_folds"] == 3
    assert decide_folds(facts(split={"num_folds": 4}), PlanSettings(num_folds=4)).value["num_folds"] == 4


@pytest.mark.parametrize("known", [{"folds": (0, 1, 2)}, {"split": {"num_folds": 3}}])
def test_another_number_of_folds_than_the_datalist_has_is_refused(known):
    with pytest.raises(UsageError, match=r"--folds is 5, but the datalist has 3 folds; .* --num-folds 5"):
        decide_folds(facts(**known), PlanSettings(num_folds=5))


def test_folds_that_are_asked_for_are_dealt_where_the_datalist_has_none():
    assert decide_folds(facts(), PlanSettings(num_folds=10)).value["num_folds"] == 10


def test_more_folds_than_patients_are_refused():
    with pytest.raises(DataError, match=r"Found 3 patients in training, for 5 folds; .* Give --folds 3"):
        decide_folds(facts(num_patients=3), PlanSettings(num_folds=5))
    with pytest.raises(DataError, match="Found 10 cases in training, for 12 folds"):
        decide_folds(facts(num_patients=None), PlanSettings(num_folds=12))


def test_a_datalist_that_says_more_folds_than_patients_is_to_be_made_anew():
    with pytest.raises(DataError, match=r"Make the datalist anew: .* --num-folds 3"):
        decide_folds(facts(num_patients=3, split={"num_folds": 5}), OPEN)


def test_a_fold_of_the_datalist_without_usable_cases_is_no_hindrance():
    assert decide_folds(facts(num_patients=4, folds=(0, 1, 2, 4)), OPEN).value["num_folds"] == 5


def test_one_fold_cannot_hold_any_out():
    with pytest.raises(DataError, match="for 1 folds; expected at least 2 of each"):
        decide_folds(facts(folds=(0,) * 10), OPEN)
