"""The check before a training: ten defects, each named with file and cure, before anything is trained."""

import json

import phantoms
import pytest
from typer.testing import CliRunner

from medimg3d.bundle.folder import BundleFolder
from medimg3d.data.datalist_file import load_datalist
from medimg3d.workflows.data_check import DataCheck, RefusedDataError, check_list, shown_findings

# defect of the issue → file that is named, words of what was found, words of the cure
SEVERE = {
    "wrong channel count": (
        "imagesTr/channels.nii.gz",
        "image has 2 channels",
        "same images in the same order",
    ),
    "shifted affine": ("labelsTr/shifted.nii.gz", "lie up to 3 mm apart", "drawn on this image"),
    "label 7 of 3": ("labelsTr/label_7.nii.gz", "holds the value 7", "Correct the label map"),
    "NaN": ("imagesTr/nan.nii.gz", "holds NaN or infinity", "set it to the background's value"),
    "duplicate case": (
        "imagesTr/duplicate.nii",
        "same content as another: already there as good_0",
        "Take one",
    ),
    "4D file": ("imagesTr/four_d.nii.gz", "image is 4D (30x42x28x3)", "save one volume a file"),
    "unreadable file": ("imagesTr/unreadable.nii.gz", "cannot be read", "Restore or repair the file"),
    "patient in two folds": ("imagesTr/two_folds_b.nii.gz", "the case is in fold 1", 'Set its "fold" to 0'),
}
MILD = {
    "empty label": ("labelsTr/empty.nii.gz", "label is empty", "restore the lost label"),
    "mixed spacings": ("imagesTr/spacing.nii.gz", "voxels of 1 x 1 x 3 mm", "where the recipe resamples"),
}
GOOD = ["good_0", "good_1", "good_2", "good_3", "good_4", "empty", "spacing", "two_folds_a"]


@pytest.fixture(scope="module")
def defects(tmp_path_factory):
    return phantoms.write_defects(tmp_path_factory.mktemp("defects"))


@pytest.fixture(scope="module")
def refused(defects, bundle_root, tmp_path_factory):
    with pytest.raises(RefusedDataError) as caught:
        check_list(defects, tmp_path_factory.mktemp("check"), bundle=BundleFolder(bundle_root))
    return caught.value


@pytest.mark.parametrize("defect", [*SEVERE, *MILD])
def test_each_of_ten_defects_is_named_with_file_and_cure_in_one_line(defects, refused, defect):
    file, found, cure = (SEVERE | MILD)[defect]
    (finding,) = [one for one in refused.checked.report.findings if one.place(defects.parent) == file]
    line = finding.line(defects.parent)
    assert "\n" not in line
    assert found in finding.found
    assert cure in finding.cure
    assert "; expected " in line
    assert finding.severe == (defect in SEVERE)


def test_nothing_else_is_found_and_the_good_cases_are_accepted(refused):
    report = refused.checked.report
    assert len(report.findings) == 10
    assert report.accepted == GOOD
    assert [one.severe for one in report.findings] == [True] * 8 + [False] * 2


def test_the_refusal_is_one_line_with_the_first_finding_and_the_way_out(refused):
    assert "\n" not in str(refused)
    assert "8 of 16 training cases cannot be used. First: labelsTr/shifted.nii.gz" in str(refused)
    assert "leave them out with --drop-rejected" in str(refused)


def test_dropping_keeps_the_good_cases_where_they_are_and_loses_none(defects, tmp_path):
    checked = check_list(defects, tmp_path / "out", DataCheck(drop_rejected=True))
    left = load_datalist(checked.list_file)
    assert checked.list_file == tmp_path / "out" / "checked_datalist.json"
    assert [case.name for case in left.training] == GOOD
    assert left.training[0].files[0] == defects.parent / "imagesTr" / "good_0.nii.gz"
    assert left.labels == {0: "background", 1: "front", 2: "rear"}
    written = json.loads((tmp_path / "out" / "data_check.json").read_text())
    assert set(written["rejected"]) | set(GOOD) == {case.name for case in load_datalist(defects).training}


def test_a_good_list_is_left_as_it_is(tmp_path):
    root = phantoms.write_decathlon(tmp_path / "data", num_cases=3)
    checked = check_list(root / "dataset.json", tmp_path / "out", DataCheck(drop_rejected=True))
    assert checked.list_file == root / "dataset.json"
    assert checked.report.findings == ()


def test_a_bad_test_case_refuses_no_training(tmp_path):
    root = phantoms.write_decathlon(tmp_path / "data", num_cases=3)
    content = json.loads((root / "dataset.json").read_text()) | {"test": ["imagesTs/gone.nii.gz"]}
    (root / "dataset.json").write_text(json.dumps(content))
    report = check_list(root / "dataset.json", tmp_path / "out").report
    assert report.rejected["gone"].startswith("image is missing")
    assert len(report.accepted) == 3


def test_with_no_case_left_dropping_is_refused(tmp_path):
    root = phantoms.write_decathlon(tmp_path / "data", num_cases=1)
    (root / "imagesTr" / "phantom_000.nii.gz").unlink()
    with pytest.raises(RefusedDataError, match="No case is left: mend them"):
        check_list(root / "dataset.json", tmp_path / "out", DataCheck(drop_rejected=True))


def test_a_second_check_reads_no_file_again(tmp_path, monkeypatch):
    from medimg3d.data import facts_reader

    root = phantoms.write_decathlon(tmp_path / "data", num_cases=3)
    first = check_list(root / "dataset.json", tmp_path / "out")
    monkeypatch.setattr(facts_reader, "facts_or_problem", lambda path, **_: pytest.fail(f"read {path}"))
    assert check_list(root / "dataset.json", tmp_path / "out") == first


def test_many_findings_of_one_kind_are_counted_after_the_fifth(tmp_path):
    root = phantoms.write_decathlon(tmp_path / "data", num_cases=8)
    for n in range(7):
        (root / "labelsTr" / f"phantom_{n:03d}.nii.gz").unlink()
    report = check_list(root / "dataset.json", tmp_path, DataCheck(drop_rejected=True)).report
    findings, rest = shown_findings(report.findings)
    assert (len(findings), rest) == (5, ["unreadable: 2 more"])


@pytest.fixture
def command(bundle_root):
    """Runs ``medimg3d train`` on the shipped bundle, as the application would."""
    from medimg3d.cli.main import app

    return lambda *arguments: CliRunner().invoke(app, ["train", str(bundle_root), *map(str, arguments)])


def test_train_names_the_defects_and_ends_before_training(command, defects, tmp_path):
    out = tmp_path / "run"
    result = command("--datalist", defects, "--out", out, "--epochs", 1)
    assert isinstance(result.exception, RefusedDataError)
    assert result.exception.exit_code == 1
    for file, found, cure in (SEVERE | MILD).values():
        (line,) = [line for line in result.stderr.splitlines() if f": {file}: " in line]
        assert found in line
        assert cure in line
    assert "Cases rejected: 8; accepted, but to look at: 2." in result.stderr
    assert not (out / "training" / "settings.json").exists()  # not even the precision was tried
    assert not (out / "models" / "model.pt").exists()


def test_train_refuses_with_json_on_standard_output(command, defects, tmp_path):
    result = command("--datalist", defects, "--out", tmp_path / "run", "--json")
    answer = json.loads(result.stdout)
    assert answer["refused"]
    assert len(answer["rejected"]) == 8
    assert {one["file"] for one in answer["findings"]} >= {"imagesTr/nan.nii.gz", "labelsTr/empty.nii.gz"}
    assert all(one["cure"] for one in answer["findings"])


def test_cross_validation_refuses_before_the_first_fold(bundle_root, defects, tmp_path):
    from medimg3d.workflows.cross_validate import cross_validate

    with pytest.raises(RefusedDataError, match="8 of 16 training cases cannot be used"):
        cross_validate(bundle_root, out=tmp_path / "cv", folds=[0], datalist=defects)
    assert not (tmp_path / "cv" / "fold_0").exists()


@pytest.mark.slow
def test_train_drops_the_rejected_and_ends_with_3(command, defects, tmp_path):
    out = tmp_path / "run"
    small = ("iterations_per_epoch=1", "batch_size=1", "val_interval=1", "patch_size=[16,24,16]")
    settings = [part for value in small for part in ("--set", value)]
    options = ("--epochs", 1, "--workers", 0, "--precision", "float32", "--drop-rejected", "--json")
    result = command("--datalist", defects, "--out", out, *options, *settings)
    assert result.exit_code == 3, result.output
    (answer,) = json.loads(result.stdout)
    assert len(answer["rejected"]) == 8
    assert answer["training_cases"] + answer["validation_cases"] == len(GOOD)
    trained = json.loads((out / "models" / "training_cases.json").read_text())["cases"]
    assert {case["name"] for case in trained} < set(GOOD)


@pytest.fixture
def two_channels(tmp_path):
    """A bundle of ct and pet, and a datalist of three cases: good, without pet, with a shifted pet."""
    bundle = BundleFolder(phantoms.write_two_channel_bundle(tmp_path / "two"))
    training = []
    for number, name in enumerate(("good", "lacking", "shifted")):
        image, label = phantoms.two_part_phantom(number)
        matrix = phantoms.affine(origin_mm=(0, 0.05, 0)) if name == "shifted" else None
        phantoms.write_nifti(tmp_path / name / "ct.nii.gz", image)
        phantoms.write_nifti(tmp_path / name / "pet.nii.gz", 2 * image, matrix)
        phantoms.write_nifti(tmp_path / name / "label.nii.gz", label)
        words = ("ct",) if name == "lacking" else ("ct", "pet")
        images = {word: f"{name}/{word}.nii.gz" for word in words}
        training.append({"id": name, "images": images, "label": f"{name}/label.nii.gz"})
    file = tmp_path / "list.json"
    file.write_text(json.dumps({"labels": {"0": "background", "1": "one", "2": "two"}, "training": training}))
    return bundle, file


def severe_lines(report, base):
    return [finding.line(base) for finding in report.findings if finding.severe]


@pytest.mark.parametrize("has_network", [True, False])
def test_named_channels_that_are_lacking_or_on_another_grid_are_severe(two_channels, tmp_path, has_network):
    """With a bundle of several channels, and before a plan, which makes channels of all."""
    bundle, file = two_channels
    check = DataCheck(drop_rejected=True)
    report = check_list(file, tmp_path / "out", check, bundle=bundle if has_network else None).report
    lacking, shifted = severe_lines(report, tmp_path)
    assert lacking.startswith("lacking/ct.nii.gz: the case has no image pet; expected each of ct, pet")
    assert shifted.startswith("shifted/pet.nii.gz: image ct and image pet lie up to 0.05 mm apart; expected")
    assert report.accepted == ["good"]


def test_named_images_are_no_channels_of_a_network_of_one(two_channels, bundle_root, tmp_path):
    _, file = two_channels
    report = check_list(file, tmp_path / "out", bundle=BundleFolder(bundle_root)).report
    assert severe_lines(report, tmp_path) == []
    assert "the case has no image pet" in report.warnings["lacking"]


def test_a_bundle_that_calls_its_channels_otherwise_finds_its_images_by_itself(two_channels, tmp_path):
    bundle, file = two_channels
    path = bundle.root / "configs" / "metadata.json"
    path.write_text(path.read_text().replace('"pet"', '"uptake"').replace('"ct"', '"density"'))
    report = check_list(file, tmp_path / "out", bundle=BundleFolder(bundle.root)).report
    assert severe_lines(report, tmp_path) == []
