"""Hospitals apart: who trains and who is tested, and the paired drop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import site_transfer

from medimg3d.data.datalist import Case, Datalist


def _list(*places):
    return Datalist(
        training=tuple(
            Case(image=Path(f"/data/{number}.nii.gz"), label=Path(f"/data/{number}_label.nii.gz"), id=f"case_{number}",
                 values={"hospital": place})
            for number, place in enumerate(places)
        )
    )  # fmt: skip


def test_each_hospital_is_tested_by_what_the_others_teach():
    datalist = _list("south", "north", "south")
    assert site_transfer.sites(datalist, "hospital") == ["north", "south"]
    trained, tested = site_transfer.apart(datalist, "hospital", "south")
    assert [case.name for case in trained.training] == ["case_1"]
    assert [case.name for case in tested.training] == ["case_0", "case_2"]


def test_a_case_without_a_hospital_is_named():
    with pytest.raises(SystemExit, match=r"1 cases have no hospital \(first: case_1\)"):
        site_transfer.sites(_list("south", None), "hospital")


def test_one_hospital_alone_is_refused():
    with pytest.raises(SystemExit, match="expected at least two values"):
        site_transfer.sites(_list("south", "south"), "hospital")


def test_the_drop_is_paired_over_the_foreign_cases_alone():
    seen = {"a": 0.9, "b": 0.7, "elsewhere": 0.1}
    found = site_transfer.compare(seen, {"a": 0.8, "b": 0.6}, {"a": "p", "b": "q"})
    assert (found["cases"], found["patients"], found["seen"], found["foreign"]) == (2, 2, 0.8, 0.7)
    assert (found["drop"], found["drop_interval"]) == (-0.1, [-0.1, -0.1])


def test_a_case_that_the_cross_validation_lacks_is_named():
    with pytest.raises(SystemExit, match=r"1 cases are not in the cross-validation \(first: b\)"):
        site_transfer.compare({"a": 0.9}, {"a": 0.8, "b": 0.6}, {"a": "p", "b": "q"})


def test_the_scores_of_a_case_are_averaged_over_its_structures(tmp_path):
    folder = tmp_path / "cross_validation"
    folder.mkdir()
    (folder / "cases.csv").write_text(
        "case,class,found_in,dice\na,front,both,0.8\na,rear,reference only,0\nb,front,neither,nan\nb,rear,both,0.6\n"
    )
    assert site_transfer.cross_validated(tmp_path) == {"a": 0.4, "b": 0.6}
