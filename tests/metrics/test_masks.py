import numpy as np

from medimg3d.metrics.masks import class_masks, labels_in, union_box


def test_union_box_holds_both_masks():
    first, second = np.zeros((2, 6, 7), bool)
    first[1, 2], second[3, 5] = True, True
    assert union_box(first, second) == (slice(1, 4), slice(2, 6))
    assert union_box(first & second, first & second) is None


def test_class_masks_are_cropped_to_both_maps_and_empty_for_an_absent_class():
    pred, truth = np.zeros((2, 8, 8, 8), np.uint8)
    pred[2:4, 2:4, 2:4] = 1
    truth[3:5, 2:4, 2:4] = 1
    truth[6, 6, 6] = 3
    masks = {label: (found, expected) for label, found, expected in class_masks(pred, truth, [1, 2, 3])}
    assert masks[1][0].shape == masks[1][1].shape == (3, 2, 2)
    assert (masks[1][0].sum(), masks[1][1].sum()) == (8, 8)
    assert masks[2][0].size == 0
    assert (masks[3][0].sum(), masks[3][1].sum()) == (0, 1)


def test_labels_in_leaves_out_the_background():
    labels = np.zeros((3, 3, 3), np.uint16)
    labels[0, 0, 0], labels[2, 2, 2] = 300, 2
    assert labels_in(labels) == [2, 300]
    assert labels_in(labels * 0) == []
