import math
from collections import Counter

import pytest

from medimg3d.data.folds import assign_folds, case_name, select_fold, select_part, split_unit


def cases_of(num_cases, patients=None):
    cases = [{"image": f"/images/case_{n:03d}.nii.gz"} for n in range(num_cases)]
    return (
        cases
        if patients is None
        else [case | {"patient": p} for case, p in zip(cases, patients, strict=True)]
    )


def test_folds_do_not_depend_on_the_order_of_the_list():
    cases = cases_of(23)
    forwards = dict(zip(map(case_name, cases), assign_folds(cases), strict=True))
    cases.reverse()
    assert dict(zip(map(case_name, cases), assign_folds(cases), strict=True)) == forwards


def test_folds_are_the_same_on_every_machine():
    # The rule, written out: patients in the order of sha256("seed:name"), dealt out in turn.
    import hashlib

    order = sorted(range(6), key=lambda n: hashlib.sha256(f"0:case_{n:03d}".encode()).hexdigest())
    assert [assign_folds(cases_of(6), num_folds=3)[n] for n in order] == [0, 1, 2, 0, 1, 2]


def test_cases_of_a_patient_share_a_fold():
    cases = cases_of(40, [f"p{n // 4}" for n in range(40)])
    folds = assign_folds(cases)
    assert len({(case["patient"], fold) for case, fold in zip(cases, folds, strict=True)}) == 10


def test_23_cases_make_folds_of_4_and_5():
    assert sorted(Counter(assign_folds(cases_of(23))).values()) == [4, 4, 5, 5, 5]


def test_another_seed_gives_another_split():
    assert assign_folds(cases_of(30), seed=0) != assign_folds(cases_of(30), seed=1)


def test_a_case_keeps_its_own_fold():
    cases = [case | {"fold": 4} if n < 2 else case for n, case in enumerate(cases_of(12))]
    assert assign_folds(cases)[:2] == [4, 4]


def test_a_patient_with_one_fixed_case_is_fixed_as_a_whole():
    cases = cases_of(10, ["a", "a", *"bcdefghi"])
    cases[1]["fold"] = 3
    assert assign_folds(cases)[:2] == [3, 3]


@pytest.mark.parametrize(
    ("cases", "num_folds", "message"),
    [
        (cases_of(3), 5, "Found 3 patients or cases; 5 folds"),
        (cases_of(6, list("aaabbb")), 3, "Found 2 patients or cases"),
        (cases_of(3), 1, "at least 2, got 1"),
        ([{"image": "a.nii", "fold": 7}], 5, "fold 7; expected 0 to 4"),
    ],
)
def test_impossible_splits_are_refused(cases, num_folds, message):
    with pytest.raises(ValueError, match=message):
        assign_folds(cases, num_folds=num_folds)


def test_validation_parts_cover_each_case_once_and_training_is_the_rest():
    cases = cases_of(11)
    seen = []
    for fold in range(5):
        validation = {case_name(case) for case in select_fold(cases, fold=fold, part="validation")}
        training = {case_name(case) for case in select_fold(cases, fold=fold, part="training")}
        assert validation | training == set(map(case_name, cases))
        assert not validation & training
        seen += validation
    assert sorted(seen) == sorted(map(case_name, cases))


def test_fold_minus_one_trains_on_all():
    assert len(select_fold(cases_of(10), fold=-1, part="training")) == 10


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match='"training" or "validation", got \'test\''):
        select_fold(cases_of(10), fold=0, part="test")


def test_split_is_by_patient_only_if_all_are_known():
    known = cases_of(2, ["a", "b"])
    assert split_unit(known) == "patient"
    assert split_unit([*known, {"image": "c.nii"}]) == "case"


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ({"image": "/a/b.nii.gz"}, "b"),
        ({"image": ["/a/b_0000.mha", "/a/b_0001.mha"]}, "b_0000"),
        ({"images": {"ct": "/a/ct.nrrd"}, "id": "x"}, "x"),
    ],
)
def test_name_of_a_case(case, name):
    assert case_name(case) == name


def test_gaps_in_a_table_can_be_put_into_batches():
    """MONAI cannot put None into a batch."""
    ages = (None, 61, 44.5, None)
    cases = [
        {"id": str(n), "image": f"{n}.nii", "fold": n % 2, "values": {"age": age, "stage": None, "sex": "f"}}
        for n, age in enumerate(ages)
    ]
    found = [
        *select_fold(cases, fold=0, part="validation", num_folds=2),
        *select_part(cases, section="test", fold=0),
    ]
    assert all(case["values"]["stage"] == "" and case["values"]["sex"] == "f" for case in found)
    assert [math.isnan(case["values"]["age"]) for case in found] == [True, False, True, False, False, True]
    assert cases[0]["values"]["age"] is None
