import numpy as np
import pytest

from medimg3d.bundle.label_rules import ALL_LABELS, LabelRule, apply_rules, in_order, tried_rules


def ring_and_islands() -> np.ndarray:
    """Label 1: a hollow cube of 3³ voxels and one voxel apart; label 2: a voxel inside another hollow cube of 1."""
    labels = np.zeros((12, 12, 5), np.uint8)
    labels[1:4, 1:4, 1:4] = 1
    labels[2, 2, 2] = 0
    labels[10, 10, 3] = 1
    return labels


def test_the_largest_component_stays():
    cleaned = apply_rules(ring_and_islands(), [LabelRule("largest", 1)])
    assert (cleaned == 1).sum() == 26
    assert cleaned[10, 10, 3] == 0


def test_of_all_labels_as_one_the_largest_component_stays():
    labels = ring_and_islands()
    labels[2, 2, 2] = 2  # inside the largest component of 1
    labels[9, 9:11, 3] = 2  # one component with the lone voxel of 1, and as large in itself as the other
    cleaned = apply_rules(labels, [LabelRule("together", ALL_LABELS)])
    assert ((cleaned == 1).sum(), (cleaned == 2).sum(), cleaned[2, 2, 2]) == (26, 1, 2)
    alone = apply_rules(labels, [LabelRule("largest", 2)])
    assert alone[2, 2, 2] == 0
    assert (alone == 2).sum() == 2


def test_one_label_is_not_tried_as_all_of_them():
    assert ALL_LABELS not in {rule.label for rule in tried_rules([1])}


def test_a_hole_is_filled():
    cleaned = apply_rules(ring_and_islands(), [LabelRule("fill", 1)])
    assert cleaned[2, 2, 2] == 1
    assert (cleaned == 1).sum() == 28


def test_filling_takes_an_enclosed_label_too():
    labels = ring_and_islands()
    labels[2, 2, 2] = 2
    assert not (apply_rules(labels, [LabelRule("fill", 1)]) == 2).any()


def test_what_is_open_to_the_border_is_no_hole():
    labels = ring_and_islands()[1:, 1:4, 1:4]  # the cube lies at the border
    labels[0, 1, 1] = 0  # a channel from the hole to it
    np.testing.assert_array_equal(apply_rules(labels, [LabelRule("fill", 1)]), labels)


def test_a_least_volume_counts_mm3_or_voxels():
    rule = LabelRule("min_volume", 1, 20.0)
    assert (apply_rules(ring_and_islands(), [rule]) == 1).sum() == 26
    assert (apply_rules(ring_and_islands(), [rule], spacing_mm=(3, 3, 3)) == 1).sum() == 27
    assert (apply_rules(ring_and_islands(), [rule], spacing_mm=(0.9, 0.9, 0.9)) == 1).sum() == 0


def test_components_are_removed_before_holes_are_filled():
    rules = [LabelRule("fill", 1), LabelRule("largest", 2), LabelRule("min_volume", 1, 10.0)]
    assert [rule.kind for rule in in_order(rules)] == ["min_volume", "largest", "fill"]


def test_the_map_given_and_its_type_stay():
    labels = ring_and_islands().astype(np.uint16)
    before = labels.copy()
    assert apply_rules(labels, tried_rules([1])).dtype == np.uint16
    np.testing.assert_array_equal(labels, before)
    assert not apply_rules(np.zeros((3, 3, 3), np.uint8), tried_rules([1])).any()


def test_a_rule_survives_json_and_has_a_key_of_its_own():
    rules = tried_rules([1, 2])
    assert [LabelRule.from_json(rule.as_json()) for rule in rules] == rules
    assert len({rule.key for rule in rules}) == len(rules) == 17


def test_a_rule_says_what_it_does():
    words = LabelRule("min_volume", 2, 30.0).describe({2: "rear"})
    assert words == "rear: remove components below 30 mm³"


@pytest.mark.parametrize(
    "rule", [("largest", 0, None), ("fill", 1, 3.0), ("min_volume", 1, None), ("together", 1, None)]
)
def test_rules_that_make_no_sense_are_refused(rule):
    with pytest.raises(ValueError, match="expected one of"):
        LabelRule(*rule)
