"""A prediction of twenty images that is killed, stopped or half written ends as one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from phantoms import two_boxes, two_part_phantom, write_nifti, write_threshold_bundle

from medimg3d.errors import UsageError
from medimg3d.workflows.predict import predict

DEADLINE_S = 600
# A shell that starts the tests in the background has them ignore Ctrl-C, and their children with them.
_HEEDING_CTRL_C = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from medimg3d.cli.main import run
run()
"""
COMMAND = [sys.executable, "-c", _HEEDING_CTRL_C, "predict"]
PLAIN = {"overlays": False, "reports": False}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twenty files: one broken, and two of one name in two folders."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(17):
        write_nifti(folder / f"case_{number:02d}.nii.gz", two_part_phantom(number)[0])
    for number, visit in enumerate(("visit1", "visit2")):
        write_nifti(folder / visit / "t1.nii.gz", two_part_phantom(100 + number)[0])
    broken = folder / "case_03_broken.nii.gz"
    broken.write_bytes((folder / "case_03.nii.gz").read_bytes()[:5000])
    return folder


def start(bundle: Path, images: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    arguments = [
        str(bundle),
        str(images),
        "--out",
        str(out),
        "--no-overlays",
        "--no-reports",
        "--device",
        "cpu",
    ]
    return subprocess.Popen(
        [*COMMAND, *arguments, *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 3, output  # done, and one was rejected
    return output


def wait_for_label_maps(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Until so many are there; fails if the process ends before."""
    deadline = time.monotonic() + DEADLINE_S
    while len(label_maps(out)) < count:
        assert time.monotonic() < deadline, f"{len(label_maps(out))} of {count} label maps in {DEADLINE_S} s"
        try:
            process.wait(timeout=0.01)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"ended with {process.returncode}: {process.communicate()[0]}")


def label_maps(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("[!.]*_seg.nii.gz"))}


def cases_of(out: Path) -> list[dict]:
    return json.loads((out / "run.json").read_text())["cases"]


def assert_same_end(out: Path, whole: Path) -> None:
    """The same bytes in every label map, and every case once in the record, in the same order."""
    assert label_maps(out) == label_maps(whole)
    keys = ("case", "input", "input_sha256", "status", "output")
    assert [[case[key] for key in keys] for case in cases_of(out)] == [
        [case[key] for key in keys] for case in cases_of(whole)
    ]
    assert (out / "measurements.csv").read_text() == (whole / "measurements.csv").read_text()
    assert not list(out.rglob(".partial-*"))


@pytest.fixture(scope="module")
def whole(bundle_root, images, tmp_path_factory):
    """What a run that nobody stops leaves."""
    out = tmp_path_factory.mktemp("whole")
    finish(start(bundle_root, images, out))
    return out


@pytest.mark.slow
def test_twenty_files_are_nineteen_label_maps_and_a_reject_each_listed_once(whole):
    cases = cases_of(whole)
    assert Counter(case["status"] for case in cases) == {"done": 19, "rejected": 1}
    assert len({case["case"] for case in cases if case["status"] == "done"}) == 19
    assert {"visit1_t1", "visit2_t1"} <= {case["case"] for case in cases}
    (rejected,) = (case for case in cases if case["status"] == "rejected")
    assert rejected["input"] == "case_03_broken.nii.gz"
    assert "truncated" in rejected["reason"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(bundle_root, images, whole, tmp_path):
    process = start(bundle_root, images, tmp_path / "out")
    wait_for_label_maps(process, tmp_path / "out", 5)
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    killed = label_maps(tmp_path / "out")
    assert 5 <= len(killed) < 19
    assert killed.items() <= label_maps(whole).items()  # what is there is whole
    assert not (tmp_path / "out" / "run.json").exists()
    kept = {
        path.name: path.stat().st_mtime_ns
        for path in (tmp_path / "out" / ".finished").glob("[!.]*.case.json")
    }
    finish(start(bundle_root, images, tmp_path / "out", "--resume"))
    assert_same_end(tmp_path / "out", whole)
    for name, written in kept.items():
        assert (tmp_path / "out" / ".finished" / name).stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_ctrl_c_ends_with_130_and_lists_what_is_finished(bundle_root, images, whole, tmp_path):
    process = start(bundle_root, images, tmp_path / "out")
    wait_for_label_maps(process, tmp_path / "out", 3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, output
    assert "Stopped. What was finished is kept." in output
    assert "Traceback" not in output
    done = [case["output"] for case in cases_of(tmp_path / "out") if case["status"] == "done"]
    assert sorted(done) == list(label_maps(tmp_path / "out"))
    assert 3 <= len(done) < 19
    finish(start(bundle_root, images, tmp_path / "out", "--resume"))
    assert_same_end(tmp_path / "out", whole)


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory):
    return write_threshold_bundle(tmp_path_factory.mktemp("bundles") / "thresholds")


@pytest.fixture
def begun(thresholds, tmp_path):
    """A folder of three predicted cases, and its images."""
    for name in "abc":
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", two_boxes())
    predict(thresholds, [tmp_path / "in"], tmp_path / "out", **PLAIN)
    return tmp_path / "in", tmp_path / "out"


def test_half_written_files_of_a_killed_run_are_removed(thresholds, begun):
    images, out = begun
    for place in (out / ".partial-1-b_seg.nii.gz", out / ".finished" / ".partial-1-b.case.json"):
        place.write_bytes(b"half")
    before = label_maps(out)
    predict(thresholds, [images], out, resume=True, **PLAIN)
    assert label_maps(out) == before
    assert not list(out.rglob(".partial-*"))


@pytest.mark.parametrize("left", [None, "", '{"case": "b"', "[]"])
def test_a_label_map_whose_record_is_missing_or_half_is_made_again(thresholds, begun, left):
    images, out = begun
    record = out / ".finished" / "b.case.json"
    record.unlink() if left is None else record.write_text(left)
    (out / "b_seg.nii.gz").write_bytes(b"of another run")
    result = predict(thresholds, [images], out, resume=True, **PLAIN)
    assert [case.case for case in result.cases] == ["a", "b", "c"]
    assert [case["case"] for case in cases_of(out)] == ["a", "b", "c"]
    assert np.asanyarray(nibabel.load(out / "b_seg.nii.gz").dataobj).any()


def test_a_case_that_was_rejected_is_tried_again_and_listed_once(thresholds, begun):
    images, out = begun
    whole = (images / "b.nii.gz").read_bytes()
    (images / "b.nii.gz").write_bytes(whole[:100])
    assert len(predict(thresholds, [images], out, resume=True, **PLAIN).rejected) == 1
    assert [case["status"] for case in cases_of(out)] == ["done", "done", "rejected"]
    (images / "b.nii.gz").write_bytes(whole)
    assert not predict(thresholds, [images], out, resume=True, **PLAIN).rejected
    assert [(case["case"], case["status"]) for case in cases_of(out)] == [(name, "done") for name in "abc"]


def test_the_second_of_one_name_is_told_apart_and_both_are_listed_once(thresholds, tmp_path):
    for visit in ("visit1", "visit2"):
        write_nifti(tmp_path / "in" / visit / "t1.nii.gz", two_boxes())
    for resume in (False, True):
        predict(thresholds, [tmp_path / "in"], tmp_path / "out", resume=resume, **PLAIN)
        assert [case["case"] for case in cases_of(tmp_path / "out")] == ["visit1_t1", "visit2_t1"]


def test_a_run_goes_on_with_its_backend_and_configs_and_with_no_other(bundle_root, tmp_path):
    write_nifti(tmp_path / "in" / "a.nii.gz", two_part_phantom(0)[0])
    run = {
        "bundle": bundle_root,
        "inputs": [tmp_path / "in"],
        "out": tmp_path / "out",
        "device": "cpu",
        **PLAIN,
    }
    predict(**run, backend="torch-channels-last")
    assert predict(**run, resume=True).settings["backend"] == "torch-channels-last"
    with pytest.raises(
        UsageError, match="was begun with backend torch-channels-last and is resumed with torch"
    ):
        predict(**run, backend="torch", resume=True)
    predict(**run)
    with pytest.raises(UsageError, match="was begun with configs_sha256"):
        predict(**run, fast=False, resume=True)
