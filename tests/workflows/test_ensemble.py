"""From cross-validations to one bundle, on phantoms whose answer is known."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel
import numpy as np
import phantoms
import pytest
import torch
from cross_validations import cross_validated
from stock_monai import monai_bundle
from tiny_networks import tiny_unet

from medimg3d.bundle.label_rules import LabelRule
from medimg3d.errors import DataError, UsageError
from medimg3d.workflows import ensemble as module
from medimg3d.workflows import ensemble_export, ensemble_scores
from medimg3d.workflows.cross_validated import CrossValidated, combinable, read_cross_validations
from medimg3d.workflows.ensemble import ensemble
from medimg3d.workflows.ensemble_export import export_ensemble
from medimg3d.workflows.predict import predict

PLAIN = {"overlays": False, "reports": False}
NUM_CASES = 12


def voxels(path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return phantoms.write_specked_study(tmp_path_factory.mktemp("study"), num_cases=NUM_CASES)


@pytest.fixture(scope="module")
def cv(study, tmp_path_factory):
    return cross_validated(tmp_path_factory.mktemp("runs") / "thresholds", study, pytest.MonkeyPatch())


@pytest.fixture(scope="module")
def made(cv, tmp_path_factory):
    return ensemble([cv], tmp_path_factory.mktemp("made") / "ensemble")


def test_the_specks_are_removed_because_that_helps(made):
    """Five voxels of 2 beside a box of 27: Dice 54/59 before, 1 after."""
    assert made.summary["choice"]["candidate"] == "thresholds"
    assert made.summary["choice"]["rules"] == [{"kind": "min_volume", "label": 2, "min_volume": 10.0}]
    classes = made.summary["candidates"]["thresholds"]["classes"]
    assert classes["white"]["mean"] == pytest.approx(54 / 59, abs=0.01)
    assert classes["grey"]["mean"] == pytest.approx(1)
    assert made.summary["nested"]["mean_dice"]["mean"] == pytest.approx(1)
    assert made.summary["nested"]["gain"]["low"] > 0


def test_every_fold_is_answered_by_what_the_others_chose(cv, tmp_path, monkeypatch):
    asked = []
    real = module.choose

    def recording(scores, *args, **options):
        asked.append({score.fold for score in scores})
        return real(scores, *args, **options)

    monkeypatch.setattr(module, "choose", recording)
    ensemble([cv], tmp_path / "out")
    assert asked == [{0, 1}, {1}, {0}]


def test_stock_monai_gives_the_same_label_maps(made, study, tmp_path):
    ours = predict(made.bundle, [study.parent / "images"], tmp_path / "ours", **PLAIN)
    cleaned = voxels(ours.cases[0].label_map)
    np.testing.assert_array_equal(cleaned, voxels(study.parent / "labels" / "case_0.nii.gz"))
    # the phantom bundle has no engine of its own: the parts are run as one would
    runner = textwrap.dedent(
        """
        import sys
        sys.modules["medimg3d"] = None
        sys.path.insert(0, sys.argv[1])
        import torch
        from monai.bundle import ConfigParser
        from monai.engines import SupervisedEvaluator
        from monai.data import DataLoader, Dataset
        from monai.handlers import CheckpointLoader
        parser = ConfigParser()
        parser.read_config(sys.argv[1] + "/configs/inference.json")
        parser["bundle_root"], parser["output_dir"] = sys.argv[1], sys.argv[3]
        network = parser.get_parsed_content("network")
        data = Dataset([{"image": path} for path in sys.argv[4:]], parser.get_parsed_content("preprocessing"))
        SupervisedEvaluator(
            device=torch.device("cpu"), val_data_loader=DataLoader(data), network=network,
            inferer=parser.get_parsed_content("inferer"),
            postprocessing=parser.get_parsed_content("postprocessing"),
            val_handlers=[CheckpointLoader(sys.argv[2], {"model": network})],
        ).run()
        """
    )
    images = sorted(str(path) for path in (study.parent / "images").iterdir())[:2]
    command = [sys.executable, "-W", "ignore", "-c", runner, str(made.bundle)]
    command += [str(made.bundle / "models" / "model.pt"), str(tmp_path / "stock"), *images]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for case in ours.cases[:2]:
        np.testing.assert_array_equal(
            voxels(tmp_path / "stock" / case.label_map.name), voxels(case.label_map)
        )


def test_the_bundle_names_its_members_and_what_they_have_seen(made):
    content = json.loads((made.bundle / "models" / "ensemble.json").read_text())
    assert [(one["file"], one["fold"]) for one in content["members"]] == [("model.pt", 0), ("fold_1.pt", 1)]
    assert content["chosen_on"] == "12 held-out cases of 2 folds"
    seen = json.loads((made.bundle / "models" / "training_cases.json").read_text())
    assert [case["name"] for case in seen["cases"]] == sorted(f"case_{n}" for n in range(NUM_CASES))
    assert not (made.bundle / ".ensemble").exists()
    assert "remove components below 10 mm³" in (made.bundle / "docs" / "README.md").read_text()


def test_the_page_tells_what_was_chosen_and_how_it_was_judged(made):
    page = made.page.read_text()
    assert "by nested cross-validation" in page
    assert "white: remove components below 10 mm³" in page


def test_where_no_voxel_size_is_known_nothing_is_said_in_mm(study, tmp_path, monkeypatch):
    unknown = study.with_name("unknown_size.json")
    unknown.write_text(json.dumps(json.loads(study.read_text()) | {"voxel_size": "unknown"}))
    made = ensemble([cross_validated(tmp_path / "cv", unknown, monkeypatch)], tmp_path / "made")
    left_out = made.summary["nested"]["metrics"]["hd95_mm"]["white"]["left_out"]
    assert left_out == {"voxel size unknown": NUM_CASES}
    assert "which is not the true one" in made.summary["choice"]["in_words"][0]


def test_a_second_run_gives_the_same_at_once(made, cv, monkeypatch):
    monkeypatch.setattr(module, "choose", pytest.fail)
    assert ensemble([cv], made.bundle).summary == made.summary


class StopError(Exception):
    pass


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (ensemble_scores, "check_same_grid", 3),
        (module, "choose", 2),
        (module, "write_label_nifti", 3),
        (module, "evaluate", 1),
        (ensemble_export, "_write_weights", 2),
        (ensemble_export, "_put_in_place", 1),
        (ensemble_export.os, "replace", 30),
        (module, "ensemble_page", 1),
        (module.shutil, "rmtree", 2),
    ],
)
def test_stopped_anywhere_it_goes_on_to_the_same_bundle(owner, name, call, cv, made, tmp_path, monkeypatch):
    out = tmp_path / "ensemble"  # the name goes into the metadata
    calls = []
    real = getattr(owner, name)

    def stopping(*args, **options):
        calls.append(1)
        if len(calls) == call:
            raise StopError
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopping)
        with pytest.raises(StopError):
            ensemble([cv], out)
    assert ensemble([cv], out).summary == made.summary
    for file in sorted(path for path in made.bundle.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        assert (out / file.relative_to(made.bundle)).read_bytes() == file.read_bytes(), file.name
    assert not (out / ".ensemble").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from medimg3d.workflows import ensemble as module

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

module.export_ensemble = die
module.ensemble([Path(sys.argv[1])], Path(sys.argv[2]))
"""


def test_a_killed_run_keeps_the_scores_and_is_no_bundle(cv, made, tmp_path, monkeypatch):
    out = tmp_path / "ensemble"
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(cv), str(out)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (out / "configs").exists()
    monkeypatch.setattr(ensemble_scores, "check_same_grid", pytest.fail)  # every case is scored
    assert ensemble([cv], out).summary == made.summary


def test_configurations_that_err_apart_are_combined(cv, study, tmp_path):
    """One sees every second case's grey box as background, the other the remaining ones': the mean sees all."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, parity in ((one, 0), (other, 1)):
        shutil.copytree(cv, folder)
        for fold in (0, 1):
            held_out = folder / f"fold_{fold}" / "held_out"
            for number in range(NUM_CASES):
                file = held_out / "softmax" / f"case_{number}.npz"
                if not file.is_file():
                    continue
                truth = voxels(study.parent / "labels" / f"case_{number}.nii.gz")
                missed = (truth == 1) & ((number // 2) % 2 == parity)
                p = np.where(truth == np.arange(3)[:, None, None, None], 0.9, 0.05)
                p[:, missed] = np.array([0.5, 0.45, 0.05])[:, None]
                np.savez_compressed(file, softmax=p.astype(np.float16))
                made = held_out / "predictions" / f"case_{number}_seg.nii.gz"
                phantoms.write_nifti(made, p.argmax(0).astype(np.uint8))
    result = ensemble([one, other], tmp_path / "out")
    assert result.summary["choice"]["candidate"] == "one+other"
    assert result.summary["candidates"]["one"]["classes"]["grey"]["mean"] == pytest.approx(0.5)
    assert result.summary["nested"]["mean_dice"]["mean"] == pytest.approx(1)
    files = {path.name for path in (tmp_path / "out" / "models").glob("*.pt")}
    assert files == {"model.pt", "fold_1.pt", "other_fold_0.pt", "other_fold_1.pt"}
    image = study.parent / "images" / "case_0.nii.gz"
    assert not predict(tmp_path / "out", [image], tmp_path / "p", **PLAIN).rejected


def flat_folds(folder: Path, seeds, **changes) -> CrossValidated:
    """Folds of the 2D bundle with a fast configuration, each with weights of its own."""
    for fold, seed in enumerate(seeds):
        bundle = phantoms.write_flat_bundle(folder / f"fold_{fold}")
        torch.save(tiny_unet(2, seed=seed).state_dict(), bundle / "models" / "model.pt")
        path = bundle / "configs" / "inference.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return CrossValidated(folder.name, folder, tuple(range(len(seeds))), {})


@pytest.fixture
def picture(tmp_path):
    pixels = phantoms.two_part_phantom(0)[0][:, :, 10]
    return phantoms.write_nifti(tmp_path / "in" / "a.nii.gz", pixels, phantoms.affine())


RULES = (LabelRule("min_volume", 1, 30.0), LabelRule("largest", 2), LabelRule("fill", 2))


def test_the_fast_configuration_gives_the_plain_ones_labels(picture, tmp_path):
    part = flat_folds(tmp_path / "unet", (0, 1, 2))
    out = export_ensemble([part], RULES, {}, tmp_path / "out", work=tmp_path / "work")
    assert (out / "configs" / "inference_fast.json").is_file()
    fast = predict(out, [picture], tmp_path / "fast", **PLAIN)
    plain = predict(out, [picture], tmp_path / "plain", fast=False, **PLAIN)
    raw = export_ensemble([part], (), {}, tmp_path / "raw", work=tmp_path / "work")
    uncleaned = predict(raw, [picture], tmp_path / "uncleaned", **PLAIN)
    np.testing.assert_array_equal(voxels(fast.cases[0].label_map), voxels(plain.cases[0].label_map))
    assert (voxels(fast.cases[0].label_map) != voxels(uncleaned.cases[0].label_map)).any()


def test_configurations_that_differ_in_weights_alone_keep_the_fast_one(picture, tmp_path):
    parts = [flat_folds(tmp_path / "a", (0, 1)), flat_folds(tmp_path / "b", (2, 3))]
    out = export_ensemble(parts, (), {}, tmp_path / "out", work=tmp_path / "work")
    fast = predict(out, [picture], tmp_path / "fast", **PLAIN)
    plain = predict(out, [picture], tmp_path / "plain", fast=False, **PLAIN)
    assert len(fast.settings["further_weights_sha256"]) == 3
    np.testing.assert_array_equal(voxels(fast.cases[0].label_map), voxels(plain.cases[0].label_map))


def test_other_windows_and_names_are_taken_over_beside_the_first_ones(picture, tmp_path):
    window = {
        "_target_": "SlidingWindowInferer",
        "roi_size": "@size",
        "sw_batch_size": 4,
        "overlap": "@share",
        "mode": "constant",
    }
    parts = [
        flat_folds(tmp_path / "a", (0, 1), size=[16, 16], share=0.5, inferer=window),
        flat_folds(tmp_path / "b", (2, 3), size=[8, 8], share=0.5, inferer=window),
    ]
    out = export_ensemble(parts, (), {}, tmp_path / "out", work=tmp_path / "work")
    config = json.loads((out / "configs" / "inference.json").read_text())
    assert config["inferer_1"]["roi_size"] == "@size_1"
    assert (config["size"], config["size_1"], config["inferer_1"]["overlap"]) == ([16, 16], [8, 8], "@share")
    assert not (out / "configs" / "inference_fast.json").exists()
    assert not predict(out, [picture], tmp_path / "p", **PLAIN).rejected


def test_a_weight_file_too_large_is_halved(tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble_export, "MOST_BYTES", 5_000)
    part = flat_folds(tmp_path / "unet", (0, 1))
    source = part.bundle(0).root / "models" / "model.pt"
    assert source.stat().st_size > 5_000
    monkeypatch.setattr(ensemble_export, "MOST_BYTES", source.stat().st_size)
    out = export_ensemble([part], (), {}, tmp_path / "out", work=tmp_path / "work")
    state = torch.load(out / "models" / "fold_1.pt", weights_only=True)["model"]
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}


def test_folders_that_do_not_fit_are_refused(cv, study, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="No cross-validation"):
        ensemble([], tmp_path / "out")
    with pytest.raises(UsageError, match="0 folds"):
        ensemble([study.parent], tmp_path / "out")
    half = tmp_path / "half"
    shutil.copytree(cv, half)
    (half / "fold_1" / "held_out" / "summary.json").unlink()
    with pytest.raises(UsageError, match=r"Fold 1 of .* is not finished"):
        ensemble([half], tmp_path / "out")
    swapped = tmp_path / "swapped"
    shutil.copytree(cv, swapped)
    (swapped / "fold_0").rename(swapped / "fold_2")
    with pytest.raises(UsageError, match="on other cases or folds"):
        ensemble([cv, swapped], tmp_path / "out")


def test_a_folder_with_something_else_is_refused(cv, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("")
    with pytest.raises(UsageError, match="is not empty"):
        ensemble([cv], tmp_path / "out")


def test_stock_monai_runs_the_exported_hippocampus_bundle(bundle_root, tmp_path):
    """The shipped bundle twice, its weights a little changed: flips, averaging and saving by monai.bundle run."""
    for fold in (0, 1):
        folder = tmp_path / "cv" / f"fold_{fold}"
        shutil.copytree(bundle_root, folder, ignore=shutil.ignore_patterns("__pycache__"))
        state = torch.load(folder / "models" / "model.pt", weights_only=True)
        for name, value in state.get("model", state).items():
            if name.endswith("weight") and value.is_floating_point():
                value.mul_(1 + 0.05 * fold)
        torch.save(state, folder / "models" / "model.pt")
    part = CrossValidated("dynunet", tmp_path / "cv", (0, 1), {})
    out = export_ensemble([part], (LabelRule("largest", 1),), {}, tmp_path / "out", work=tmp_path / "work")
    image = phantoms.write_nifti(tmp_path / "in" / "a.nii.gz", phantoms.two_part_phantom(1)[0])
    monai_bundle(
        "run",
        cwd=tmp_path,
        config_file=out / "configs" / "inference.json",
        bundle_root=out,
        dataset_dir=image.parent,
        output_dir=tmp_path / "stock",
    )
    fast = predict(out, [image], tmp_path / "fast", **PLAIN)
    np.testing.assert_array_equal(
        voxels(fast.cases[0].label_map), voxels(tmp_path / "stock" / "a_seg.nii.gz")
    )


TOGETHER = {"_target_": "medimg3d.transforms.small_components.KeepLargestTogetherd", "keys": "pred"}


def with_cleaning(part: CrossValidated, *steps) -> CrossValidated:
    """The same folds, whose inference does something to the label map before it is saved."""
    for fold in part.folds:
        for name in ("inference", "inference_fast"):
            path = part.bundle(fold).root / "configs" / f"{name}.json"
            config = json.loads(path.read_text())
            last = config["postprocessing"]
            *before, save = last.get("transforms", [last])
            config["postprocessing"] = {"_target_": "Compose", "transforms": [*before, *steps, save]}
            path.write_text(json.dumps(config))
    return part


def names_of(out: Path, config: str) -> list[str]:
    content = json.loads((out / "configs" / f"{config}.json").read_text())
    return [step["_target_"].rpartition(".")[2] for step in content["postprocessing"]["transforms"]]


def test_rules_come_after_the_bundles_own_cleaning_as_they_were_judged(tmp_path):
    part = with_cleaning(flat_folds(tmp_path / "unet", (0, 1)), TOGETHER)
    out = export_ensemble([part], RULES[1:2], {}, tmp_path / "out", work=tmp_path / "work")
    for name in ("inference", "inference_fast"):
        last = names_of(out, name)[-3:]
        assert last == ["KeepLargestTogetherd", "KeepLargestConnectedComponentd", "SaveImaged"], name


def test_a_mean_of_configurations_leaves_their_own_cleaning_away(tmp_path):
    parts = [
        with_cleaning(flat_folds(tmp_path / "a", (0, 1)), TOGETHER),
        with_cleaning(flat_folds(tmp_path / "b", (2, 3)), TOGETHER),
    ]
    out = export_ensemble(parts, RULES[1:2], {}, tmp_path / "out", work=tmp_path / "work")
    for name in ("inference", "inference_fast"):
        assert "KeepLargestTogetherd" not in names_of(out, name)
        assert names_of(out, name)[-2:] == ["KeepLargestConnectedComponentd", "SaveImaged"]


def test_label_maps_that_are_changed_otherwise_are_not_averaged(cv, tmp_path):
    for name in ("one", "other"):
        shutil.copytree(cv, tmp_path / name)
        for fold in (0, 1):
            path = tmp_path / name / f"fold_{fold}" / "configs" / "inference.json"
            config = json.loads(path.read_text())
            config["postprocessing"]["transforms"][-1:-1] = [{"_target_": "MapLabelValued", "keys": "pred"}]
            path.write_text(json.dumps(config))
    found = read_cross_validations([tmp_path / "one", tmp_path / "other"])
    assert combinable(found, 2) == []


def test_folds_that_are_missing_are_told(cv, study, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(cv, half)
    record = half / "fold_0" / "models" / "training_cases.json"
    content = json.loads(record.read_text())
    content["cases"].append({"name": "case_99", "image_sha256": "0"})
    record.write_text(json.dumps(content))
    warnings = ensemble([half], tmp_path / "out").summary["warnings"]
    assert any("1 cases of the trainings were held out by none of the folds 0, 1 (the first: case_99)" in one
               for one in warnings)  # fmt: skip


def test_mended_references_are_another_ensemble(cv, study, tmp_path):
    mended = tmp_path / "study"
    shutil.copytree(study.parent, mended)
    folder = tmp_path / "cv"
    shutil.copytree(cv, folder)
    for fold in (0, 1):
        path = folder / f"fold_{fold}" / "held_out" / "datalist.json"
        path.write_text(path.read_text().replace(str(study.parent), str(mended)))
    ensemble([folder], tmp_path / "out")
    shutil.copy2(mended / "labels" / "case_1.nii.gz", mended / "labels" / "case_0.nii.gz")
    with pytest.raises(UsageError, match="holds another ensemble"):
        ensemble([folder], tmp_path / "out")


def test_a_case_that_cannot_be_scored_is_named(cv, study, tmp_path):
    folder = tmp_path / "cv"
    shutil.copytree(cv, folder)
    made = next((folder / "fold_0" / "held_out" / "predictions").glob("case_0_seg.nii.gz"))
    phantoms.write_nifti(made, np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(DataError, match="case_0 cannot be scored: Prediction has shape"):
        ensemble([folder], tmp_path / "out")


def test_weights_too_large_to_share_are_kept_and_told(cv, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble_export, "MOST_BYTES", 10)
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    result = ensemble([cv], tmp_path / "out")
    assert any(one.startswith("2 files of weights have") for one in result.summary["warnings"])
    kept = torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True)
    first = torch.load(cv / "fold_0" / "models" / "model.pt", weights_only=True)
    torch.testing.assert_close(kept, first, rtol=0, atol=0)
