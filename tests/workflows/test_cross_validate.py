"""Cross-validation on disk: what it keeps, and that it goes on where it was stopped."""

import json
import shutil

import cross_validations
import nibabel
import numpy as np
import phantoms
import pytest
from cross_validations import train_nothing, write_recipe

from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import DataError, UsageError
from medimg3d.workflows import cross_validate as module
from medimg3d.workflows import held_out_softmax
from medimg3d.workflows.cross_validate import cross_validate
from medimg3d.workflows.cross_validation_folder import STATE
from medimg3d.workflows.held_out_softmax import read_softmax


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    return phantoms.write_specked_study(tmp_path_factory.mktemp("study"), num_cases=4)


@pytest.fixture(scope="module")
def uninterrupted(datalist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "cv"
    return cross_validations.cross_validated(folder, datalist, pytest.MonkeyPatch())


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", train_nothing)
    return write_recipe(tmp_path / "recipe")


def run(bundle, datalist, tmp_path, **options):
    return cross_validate(bundle, out=tmp_path / "cv", folds=[0, 1], datalist=datalist, **options)


def content(folder):
    """Every file but those that tell the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json" and ".finished" not in path.parts
    }


def test_every_fold_keeps_the_label_maps_and_probabilities_of_what_it_held_out(uninterrupted):
    for fold, names in ((0, {"case_0", "case_2"}), (1, {"case_1", "case_3"})):
        held_out = uninterrupted / f"fold_{fold}" / "held_out"
        assert {p.name for p in (held_out / "softmax").iterdir()} == {f"{name}.npz" for name in names}
        maps = {p.name for p in (held_out / "predictions").glob("*.nii.gz")}
        assert maps == {f"{name}_seg.nii.gz" for name in names}
    assert "| pooled | 4 |" in (uninterrupted / "cross_validation.md").read_text()


def test_probabilities_are_small_and_their_argmax_is_the_label_map(uninterrupted):
    import nibabel

    held_out = uninterrupted / "fold_0" / "held_out"
    with np.load(held_out / "softmax" / "case_0.npz") as stored:
        assert stored["softmax"].dtype == np.float16
    probabilities = read_softmax(held_out / "softmax" / "case_0.npz")
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=2e-3)
    labels = np.asanyarray(nibabel.load(held_out / "predictions" / "case_0_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(probabilities.argmax(0), labels)


class StopError(Exception):
    pass


def stop_at(monkeypatch, owner, name, call):
    """Let a function fail in its n-th call, as a kill would."""
    real, calls = getattr(owner, name), []

    def stopping(*args, **options):
        calls.append(1)
        if len(calls) == call:
            raise StopError
        return real(*args, **options)

    monkeypatch.setattr(owner, name, stopping)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (module, "train", 2),
        (module, "predict", 1),
        (module, "evaluate", 2),
        (held_out_softmax, "member_probabilities", 3),
        (module, "_pool", 1),
    ],
)
def test_stopped_anywhere_it_goes_on_to_the_same_files(
    owner, name, call, bundle, datalist, uninterrupted, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_at(patch, owner, name, call)
        with pytest.raises(StopError):
            run(bundle, datalist, tmp_path, softmax=True)
    result = run(bundle, datalist, tmp_path, softmax=True)
    assert result.table == (uninterrupted / "cross_validation.md").read_text()
    ours, expected = content(tmp_path / "cv"), content(uninterrupted)
    assert ours.keys() == expected.keys()
    changed = [
        file for file in ours if ours[file] != expected[file] and file.endswith((".nii.gz", ".npz", ".csv"))
    ]
    assert changed == []


def test_a_finished_fold_is_not_trained_again(bundle, datalist, tmp_path, monkeypatch):
    run(bundle, datalist, tmp_path)
    monkeypatch.setattr(module, "train", pytest.fail)
    run(bundle, datalist, tmp_path, softmax=True)  # only the probabilities were missing


def test_another_recipe_datalist_or_seed_is_refused(bundle, datalist, tmp_path):
    run(bundle, datalist, tmp_path, seed=1)
    with pytest.raises(UsageError, match="was begun with another training"):
        run(bundle, datalist, tmp_path, seed=2)
    other = phantoms.write_specked_study(tmp_path / "other", num_cases=6)
    with pytest.raises(UsageError, match="was begun with another datalist_sha256"):
        run(bundle, other, tmp_path, seed=1)
    (bundle / "configs" / "train.json").write_text(json.dumps({"num_folds": 2, "fold_seed": 1}))
    with pytest.raises(UsageError, match="was begun with another configs_sha256"):
        run(bundle, datalist, tmp_path, seed=1)


def test_the_first_folds_epochs_hold_for_all_where_a_time_was_given(bundle, datalist, tmp_path, monkeypatch):
    seen = []

    def training(bundle, *, out, **options):
        seen.append((options.get("epochs"), options.get("max_minutes")))
        (out / "training").mkdir(parents=True)
        (out / "training" / "settings.json").write_text('{"epochs": 7}')
        return cross_validations.train_nothing(bundle, out=out, **options)

    monkeypatch.setattr(module, "train", training)
    run(bundle, datalist, tmp_path, max_minutes=3)
    assert seen == [(None, 3), (7, None)]


def test_no_fold_is_refused(bundle, datalist, tmp_path):
    with pytest.raises(UsageError, match="No fold was asked for"):
        cross_validate(bundle, out=tmp_path / "cv", folds=[], datalist=datalist)


def with_split(datalist, num_folds, folds):
    """The study's datalist with other folds; None for a case that carries none."""
    content = json.loads(datalist.read_text())
    for case, fold in zip(content["training"], folds, strict=True):
        del case["fold"]
        case |= {} if fold is None else {"fold": fold}
    content |= {"split": {"num_folds": num_folds, "seed": 0}}
    file = datalist.with_name(f"{num_folds}_folds_{'_'.join(map(str, folds))}.json")
    file.write_text(json.dumps(content))
    return file


def training_with(num_folds):
    """Stands in for a training, whose copy has the folds of the datalist as :func:`prepare_copy` writes them."""

    def train(bundle, *, out, **options):
        result = train_nothing(bundle, out=out, **options)
        (out / "configs" / "train.json").write_text(json.dumps({"num_folds": num_folds, "fold_seed": 0}))
        return result

    return train


def no_training(*_, **__):
    pytest.fail("A fold was trained.")


@pytest.mark.parametrize(
    ("num_folds", "carried", "expected"),
    [
        (4, (None,) * 4, [0, 1, 2, 3]),  # the recipe has two
        (3, (0, 1, 2, 0), [0, 1, 2]),
        (5, (0, 1, 2, 4), [0, 1, 2, 4]),  # no case is in fold 3: nothing to hold out
    ],
)
def test_all_folds_of_the_datalist_are_run_where_none_is_named(
    num_folds, carried, expected, bundle, datalist, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "train", training_with(num_folds))
    listed = with_split(datalist, num_folds, carried)
    result = cross_validate(bundle, out=tmp_path / "cv", datalist=listed)
    assert (list(result.folds), result.pooled["num_scored"]) == (expected, 4)


def test_a_number_of_folds_set_for_the_training_counts(bundle, datalist, tmp_path):
    listed = with_split(datalist, 2, (None,) * 4)
    source = module.BundleFolder(bundle)
    assert module.folds_with_cases(source, listed) == [0, 1]
    assert module.folds_with_cases(source, listed, overrides={"num_folds": 4}) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("folds", "match"),
    [
        (
            [0, 3],
            r"^3_folds_0_1_2_0.json has no case in fold 3; expected folds among 0, 1, 2. Ask for those, or",
        ),
        ([-1], "has no case in fold -1; expected"),
        ([0, 1, 1], r"^Fold 1 was asked for 2 times; expected once"),
    ],
)
def test_a_fold_that_is_not_there_is_refused_before_any_training(
    folds, match, bundle, datalist, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "train", no_training)
    listed = with_split(datalist, 3, (0, 1, 2, 0))
    with pytest.raises(UsageError, match=match):
        cross_validate(bundle, out=tmp_path / "cv", folds=folds, datalist=listed)
    assert not (tmp_path / "cv" / STATE).exists()


def test_more_folds_than_cases_are_refused_before_any_training(bundle, datalist, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", no_training)
    listed = with_split(datalist, 10, (None,) * 4)
    with pytest.raises(DataError, match=r"10 folds need at least that many.*--num-folds"):
        cross_validate(bundle, out=tmp_path / "cv", datalist=listed)


def test_the_usual_precision_named_or_not_is_the_same_training(bundle, datalist, tmp_path):
    run(bundle, datalist, tmp_path, precision="auto")  # as train --fold all
    run(bundle, datalist, tmp_path, softmax=True)  # as cross-validate --softmax
    state = tmp_path / "cv" / STATE
    begun = json.loads(state.read_text())
    assert begun["training"] == {}
    state.write_text(json.dumps(begun | {"training": {"precision": "auto"}}))  # of an earlier version
    run(bundle, datalist, tmp_path)
    with pytest.raises(UsageError, match="was begun with another training"):
        run(bundle, datalist, tmp_path, precision="bfloat16")


def trained_alone(bundle, datalist, folder, **settings):
    """A fold that another command trained, before the cross-validation was begun."""
    train_nothing(bundle, out=folder, fold=settings["fold"], datalist=datalist)
    (folder / "training").mkdir()
    (folder / "training" / "settings.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"fold": 1}, {}, r"fold_0 was trained with fold 1, not 0; expected the same in all folds"),
        ({"fold": 0, "epochs": 3}, {"epochs": 5}, "was trained with epochs 3, not 5"),
        ({"fold": 0, "epochs": 3}, {}, "was trained with epochs 3, not 1"),
        ({"fold": 0, "seed": 1}, {"seed": 2}, "was trained with seed 1, not 2"),
        ({"fold": 0}, {"overrides": {"fold_seed": 3}}, "was begun with fold_seed 0"),
    ],
)
def test_a_fold_that_another_command_trained_must_be_the_one_asked_for(
    settings, options, message, bundle, datalist, tmp_path
):
    trained_alone(bundle, datalist, tmp_path / "cv" / "fold_0", **settings)
    with pytest.raises(UsageError, match=message):
        run(bundle, datalist, tmp_path, **options)
    assert not (tmp_path / "cv" / STATE).exists()  # the right options may follow


def test_a_fold_trained_on_what_is_held_out_now_is_refused(bundle, datalist, tmp_path):
    trained_alone(bundle, datalist, tmp_path / "cv" / "fold_0", fold=0)
    content = json.loads(datalist.read_text())
    for case in content["training"]:
        case["fold"] = 1 - case["fold"]
    other = datalist.with_name("other_folds.json")
    other.write_text(json.dumps(content))
    with pytest.raises(
        UsageError, match=r"was trained on other cases than fold 0 .* \(4 differ, the first: case_0\)"
    ):
        run(bundle, other, tmp_path)


def test_where_a_time_was_given_its_epochs_hold_without_it(bundle, datalist, tmp_path, monkeypatch):
    seen = []

    def training(bundle, *, out, **options):
        seen.append((options.get("epochs"), options.get("max_minutes")))
        if len(seen) == 2:
            raise StopError
        (out / "training").mkdir(parents=True)
        (out / "training" / "settings.json").write_text('{"epochs": 7, "fold": 0}')
        return cross_validations.train_nothing(bundle, out=out, **options)

    monkeypatch.setattr(module, "train", training)
    with pytest.raises(StopError):
        run(bundle, datalist, tmp_path, max_minutes=3)
    assert [
        job.arguments["training"]["epochs"]
        for job in module.begin_folds(bundle, out=tmp_path / "cv", folds=[0, 1], list_file=datalist).jobs()
    ] == [7]
    run(bundle, datalist, tmp_path)
    assert seen == [(None, 3), (7, None), (7, None)]


def test_a_label_that_was_mended_is_scored_anew(bundle, datalist, tmp_path):
    before = run(bundle, datalist, tmp_path)
    label = datalist.parent / "labels" / "case_0.nii.gz"
    kept = label.read_bytes()
    shutil.copy2(datalist.parent / "labels" / "case_1.nii.gz", label)
    try:
        after = run(bundle, datalist, tmp_path)
    finally:
        label.write_bytes(kept)
    first, second = (one.folds[0]["metrics"]["dice"]["grey"]["mean"] for one in (before, after))
    assert first != second
    assert before.folds[1] == after.folds[1]


def test_a_label_on_another_grid_is_named(bundle, datalist, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(datalist.parent, study)
    path = study / "labels" / "case_0.nii.gz"
    image = nibabel.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 1
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), moved), path)
    result = run(bundle, study / datalist.name, tmp_path, check=None)
    assert list(result.rejected) == ["case_0"]
    assert "place their corners 1 mm apart" in result.rejected["case_0"]


def test_cases_that_were_trained_on_are_told_beside_the_table(bundle, datalist, tmp_path, monkeypatch):
    def training(bundle, *, out, **options):
        trained = train_nothing(bundle, out=out, **options)
        record = json.loads((out / "models" / "training_cases.json").read_text())
        for case in record["cases"]:  # the content of a held-out image under another name
            case["image_sha256"] = content_sha256(datalist.parent / "images" / "case_0.nii.gz")
        (out / "models" / "training_cases.json").write_text(json.dumps(record))
        return trained

    monkeypatch.setattr(module, "train", training)
    result = run(bundle, datalist, tmp_path)
    assert "**1 held-out cases have an image that their fold was trained on** (case_0)" in result.table


def test_predictions_begun_on_another_device_are_made_anew(bundle, datalist, tmp_path, monkeypatch):
    seen = []

    def predicting(*args, resume, **options):
        seen.append(resume)
        if resume:
            raise UsageError("was begun with device cuda and is resumed with cpu")
        return real(*args, resume=resume, **options)

    real = module.predict
    monkeypatch.setattr(module, "predict", predicting)
    run(bundle, datalist, tmp_path)
    assert seen == [True, False, True, False]


def test_another_overlay_under_the_same_name_is_refused(bundle, datalist, tmp_path):
    overlay = bundle / "configs" / "big.json"
    overlay.write_text("{}")
    run(bundle, datalist, tmp_path, overlay="big")
    overlay.write_text('{"fold_seed": 0}')
    with pytest.raises(UsageError, match="was begun with another overlay_sha256"):
        run(bundle, datalist, tmp_path, overlay="big")


def test_an_ensemble_is_not_trained(bundle, datalist, tmp_path):
    path = bundle / "configs" / "inference.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"member_networks": {}}))
    with pytest.raises(
        UsageError, match="is an ensemble of several networks; expected a bundle of one to train"
    ):
        run(bundle, datalist, tmp_path)
