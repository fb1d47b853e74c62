"""Planning from a datalist to a bundle: its files, what a second plan keeps, and that stock MONAI runs it."""

from __future__ import annotations

import json
import warnings

import nibabel
import numpy as np
import phantoms
import pytest
from stock_monai import train_evaluate_infer

from medimg3d.bundle.carried_code import check_carried_code
from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.parser import parse_config
from medimg3d.errors import DataError, UsageError
from medimg3d.planning.label_scheme import LabelGapError
from medimg3d.planning.trial import Measured, measure
from medimg3d.workflows import plan as module
from medimg3d.workflows.data_check import RefusedDataError
from medimg3d.workflows.plan import plan_bundle

QUICK = {"trial": False}
FILES = (
    "LICENSE",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/inference_fast.json",
    "configs/logging.conf",
    "configs/metadata.json",
    "configs/multi_gpu_evaluate.json",
    "configs/multi_gpu_train.json",
    "configs/train.json",
    "configs/train_fast.json",
    "docs/README.md",
    "docs/data_license.txt",
    "docs/plan.json",
    "docs/plan.md",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return phantoms.write_decathlon(tmp_path_factory.mktemp("study"), num_cases=6)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return phantoms.write_films(tmp_path_factory.mktemp("films"), num_films=20, size=48)


def plan(folder, out, settings=None, **options):
    return plan_bundle(folder / "dataset.json", out, QUICK | (settings or {}), workers=1, **options)


def config(bundle, name):
    return json.loads((bundle / "configs" / f"{name}.json").read_text())


def with_extra(study, folder, extra, alter=None):
    """The study with further keys in its datalist and, where asked, other label maps."""
    content = json.loads((study / "dataset.json").read_text()) | extra
    for number, case in enumerate(content["training"]):
        label = phantoms.two_part_phantom(number)[1]
        written = phantoms.write_nifti(folder / f"label_{number}.nii.gz", alter(label) if alter else label)
        case["image"], case["label"] = str(study / case["image"]), str(written)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_a_planned_bundle_has_every_file_and_its_own_code(study, tmp_path):
    result = plan(study, tmp_path / "phantoms")
    for name in FILES:
        assert (result.bundle / name).is_file(), name
    check_carried_code(result.bundle)
    assert BundleFolder(result.bundle).class_names == {0: "background", 1: "front", 2: "rear"}
    assert "PACKAGE" not in (result.bundle / "configs" / "train.json").read_text()


def test_no_value_of_a_template_is_left_open(study, films, tmp_path):
    for number, folder in enumerate((study, films)):
        bundle = plan(folder, tmp_path / f"plan_{number}").bundle
        for name in ("train", "evaluate", "inference"):
            content = config(bundle, name)
            allowed = {"pretrained", "pretrained_sha256"}
            assert [key for key, value in content.items() if value is None and key not in allowed] == []


def test_train_evaluate_and_inference_share_preprocessing_and_network(study, tmp_path):
    bundle = plan(study, tmp_path / "phantoms").bundle
    train, evaluate, inference = (config(bundle, name) for name in ("train", "evaluate", "inference"))
    for block in ("preprocessing", "network_def", "inferer", "window_size"):
        assert train[block] == evaluate[block] == inference[block]


def test_stored_integers_are_kept_only_where_resampling_makes_fractions_of_them(study, tmp_path):
    """What is not resampled is clipped and scaled at once, which integers would round."""
    unknown = with_extra(study, tmp_path, {"voxel_size": "unknown"})
    planned = {
        "resampled": plan(study, tmp_path / "resampled"),
        "field of view": plan(unknown, tmp_path / "field"),
        "as it is": plan(unknown, tmp_path / "own", {"field_of_view": "own"}),
    }
    overlays = {name: config(one.bundle, "inference_fast") for name, one in planned.items()}
    assert [name for name, overlay in overlays.items() if "SeparableSpacingd" in str(overlay)] == [
        "resampled"
    ]
    kept = [
        name for name, overlay in overlays.items() if any("keep_small_integers" in key for key in overlay)
    ]
    assert kept == ["resampled", "field of view"]


def test_where_no_voxel_size_is_known_no_length_is_in_mm(study, tmp_path):
    unknown = with_extra(study, tmp_path, {"voxel_size": "unknown"})
    for folder, is_known in ((study, True), (unknown, False)):
        page = (plan(folder, tmp_path / f"known_{is_known}").bundle / "docs" / "plan.md").read_text()
        assert ("as long in mm along every axis" in page) is is_known


def test_a_largest_image_above_the_figure_is_warned_of(study, tmp_path, monkeypatch):
    page = (plan(study, tmp_path / "small").bundle / "docs" / "plan.md").read_text()
    assert "hold whole images with all classes: about 0.5 GB" in page
    assert "while it is validated" not in page
    monkeypatch.setattr("medimg3d.planning.plan.whole_image_gb", lambda *_, **__: 99.0)
    page = (plan(study, tmp_path / "large").bundle / "docs" / "plan.md").read_text()
    assert "will take about 99 GB while it is validated" in page


def test_metadata_fit_our_schema(study, films, tmp_path):
    from importlib.resources import files

    import jsonschema

    schema = json.loads((files("medimg3d.bundle") / "metadata_schema.json").read_text())
    for number, folder in enumerate((study, films)):
        found = config(plan(folder, tmp_path / f"plan_{number}").bundle, "metadata")
        jsonschema.validate(found, schema)
        assert "+" not in found["pytorch_version"]  # the build is that of the planning machine alone


def test_a_plan_without_a_trial_is_measured_when_it_is_planned_again(study, tmp_path, monkeypatch):
    out = tmp_path / "phantoms"
    plan(study, out, {"width": 4})
    measured = []
    monkeypatch.setattr(
        module, "measure", lambda *_, **__: measured.append(1) or Measured(0.6, 0.5, validate_gb=0.5)
    )
    plan_bundle(study / "dataset.json", out, {"epochs": 7}, workers=1, resume=True)
    assert measured == [1]


def test_the_advice_for_large_weights_is_what_a_plan_takes(study, films, tmp_path):
    drafted = [plan(folder, tmp_path / folder.name).plan for folder in (study, films)]
    of_maps, of_films = (module._large_weights(one, 60.0) for one in drafted)
    assert "--set width=N" in of_maps
    assert "max_poolings" in of_maps
    assert "width" not in of_films
    assert "half precision" in of_films


def test_a_second_plan_changes_what_is_asked_and_keeps_the_rest(study, tmp_path):
    out = tmp_path / "phantoms"
    first = plan(study, out, {"batch_size": 3})
    second = plan(study, out, {"epochs": 7}, resume=True)
    assert (first.plan.batch_size, second.plan.batch_size, second.plan.epochs) == (3, 3, 7)
    assert second.plan.patch_size == first.plan.patch_size
    kept = json.loads((out / "docs" / "plan.json").read_text())
    assert kept["given"] == {"trial": False, "batch_size": 3, "epochs": 7}


def test_another_voxel_size_decides_the_patch_anew(study, tmp_path):
    out = tmp_path / "phantoms"
    first = plan(study, out)
    second = plan(study, out, {"spacing_mm": (2.0, 2.0, 2.0)}, resume=True)
    assert np.prod(second.plan.patch_size) < np.prod(first.plan.patch_size)


def test_a_decision_that_stayed_keeps_its_reason(study, tmp_path):
    out = tmp_path / "phantoms"
    first = {one.name: one.reason for one in plan(study, out).plan.decisions}
    second = {one.name: one.reason for one in plan(study, out, {"epochs": 7}, resume=True).plan.decisions}
    assert second["voxel size"] == first["voxel size"]
    assert second["mirroring"] == first["mirroring"]


def test_without_a_word_it_is_planned_for_the_gpu_that_is_there_and_kept_on_another_machine(
    study, tmp_path, monkeypatch
):
    out = tmp_path / "phantoms"
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        first = plan(study, out, {"memory_gb": 20.0}).plan
    assert (first.settings.device, first.width >= 32) == ("cuda", True)
    second = plan(study, out, {"epochs": 7}, resume=True).plan
    assert (second.settings.device, second.width) == ("cuda", first.width)
    assert plan(study, tmp_path / "here").plan.settings.device == "cpu"


@pytest.mark.parametrize("more", [{}, {"memory_gb": 20.0, "trial": True}])
def test_a_gpu_that_is_not_there_is_planned_for_without_measuring_only(study, tmp_path, more):
    with pytest.raises(UsageError, match="--memory-gb N --no-trial"):
        plan(study, tmp_path / "phantoms", {"device": "cuda", **more})


def test_other_data_decide_anew_what_was_not_asked_for(study, tmp_path):
    out, said = tmp_path / "phantoms", []
    first = plan(study, out, {"epochs": 7})
    content = json.loads((study / "dataset.json").read_text())
    for case in content["training"]:
        case |= {key: str(study / case[key]) for key in ("image", "label")}
    content["training"] = content["training"][:5]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    second = plan(tmp_path, out, resume=True, say=said.append)
    assert [line for line in said if "not those of the earlier plan" in line]
    assert second.plan.epochs == 7
    reasons = [
        next(one.reason for one in made.plan.decisions if one.name == "task") for made in (first, second)
    ]
    assert ("All 6" in reasons[0], "All 5" in reasons[1]) == (True, True)


@pytest.mark.parametrize(
    ("folder", "command"), [("study", "medimg3d ensemble CV"), ("films", "medimg3d evaluate")]
)
def test_the_page_and_the_card_name_commands_that_fit_the_task(folder, command, tmp_path, request):
    bundle = plan(request.getfixturevalue(folder), tmp_path / "planned").bundle
    for name in ("plan.md", "README.md"):
        text = (bundle / "docs" / name).read_text()
        assert command in text
        assert ("--fold all" in text) == (folder == "study")


def test_a_folder_that_holds_a_bundle_is_refused_without_resume(study, tmp_path):
    plan(study, tmp_path / "phantoms")
    with pytest.raises(UsageError, match="Add --resume"):
        plan(study, tmp_path / "phantoms")


def test_a_folder_with_weights_is_refused(study, tmp_path):
    (tmp_path / "phantoms" / "models").mkdir(parents=True)
    (tmp_path / "phantoms" / "models" / "model.pt").touch()
    with pytest.raises(UsageError, match="holds weights"):
        plan(study, tmp_path / "phantoms")


def test_a_name_that_python_cannot_import_is_refused(study, tmp_path):
    with pytest.raises(UsageError, match="letters, digits and _"):
        plan(study, tmp_path / "my-plan")


def test_a_bad_case_refuses_the_plan_before_anything_is_decided(study, tmp_path):
    folder = with_extra(study, tmp_path, {}, alter=lambda label: label + (label == 2) * np.uint8(5))
    with pytest.raises(RefusedDataError, match="6 of 6 training cases cannot be used"):
        plan(folder, tmp_path / "phantoms")
    assert not (tmp_path / "phantoms" / "configs").exists()


def test_channels_on_different_grids_are_refused(study, tmp_path):
    other = phantoms.write_nifti(tmp_path / "small.nii.gz", np.ones((5, 6, 7), np.float32))
    case = {
        "id": "a",
        "image": [str(study / "imagesTr" / "phantom_000.nii.gz"), str(other)],
        "label": str(other),
    }
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "b", "1": "x"}, "training": [case]}))
    with pytest.raises(DataError, match=r"different grids|another shape"):
        plan(tmp_path, tmp_path / "phantoms", check=None)


NUMBERED = {"0": "background", "1": "label 1", "2": "label 2", "7": "label 7"}
"""As ``medimg3d datalist`` names the values that it finds."""


@pytest.mark.parametrize("labels", [{}, NUMBERED])
def test_a_stray_label_value_is_refused_with_the_case_that_holds_it(study, tmp_path, labels):
    folder = with_extra(study, tmp_path, {"labels": labels})
    label = phantoms.two_part_phantom(2)[1]
    label[0, 0, 0] = 7
    phantoms.write_nifti(folder / "label_2.nii.gz", label)
    with pytest.raises(LabelGapError, match=r"\[0, 1, 2, 7\]; .* 7 is in 1 case \(phantom_002\)"):
        plan(folder, tmp_path / "phantoms")


def test_once_the_label_map_is_corrected_its_name_in_the_datalist_is_what_is_left(study, tmp_path):
    folder = with_extra(study, tmp_path, {"labels": NUMBERED})
    with pytest.raises(LabelGapError, match='7 is named in "labels" and in no training case'):
        plan(folder, tmp_path / "phantoms")


def test_a_datalist_without_names_for_its_labels_is_refused_with_the_line_to_write(study, tmp_path):
    folder = with_extra(study, tmp_path, {"labels": {}})
    with pytest.raises(
        DataError, match=r'Write "labels": \{"0": "background", "1": "label 1", "2": "label 2"\}'
    ):
        plan(folder, tmp_path / "phantoms")


def test_classes_under_label_are_refused_as_training_looks_for_them_elsewhere(films, tmp_path):
    content = json.loads((films / "dataset.json").read_text())
    for case in content["training"]:
        case |= {"image": str(films / case["image"]), "label": int(case.pop("class_label") == "pneumonia")}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = r'20 of 20 training cases have their class under "label" .*`medimg3d datalist .*dataset.json --out FILE`'
    with pytest.raises(DataError, match=found):
        plan(tmp_path, tmp_path / "films")


def test_labels_in_another_form_than_training_reads_are_refused(study, tmp_path):
    folder = with_extra(study, tmp_path, {"labels": {"background": 0, "front": 1, "rear": 2}})
    with pytest.raises(
        DataError, match=r"A training would refuse this datalist: .*`medimg3d datalist .* --out FILE`"
    ):
        plan(folder, tmp_path / "phantoms")


def test_what_an_earlier_plan_of_films_decided_is_no_setting_of_another_task(films, tmp_path):
    out = tmp_path / "films"
    plan(films, out)
    kept = json.loads((out / "docs" / "plan.json").read_text())["decided"]
    assert {"width", "windows_per_batch"} <= set(kept)
    assert plan(films, out, {"epochs": 7}, resume=True).plan.epochs == 7


def test_a_setting_that_was_kept_and_has_no_place_is_named_with_the_way_to_drop_it(study, tmp_path):
    out = tmp_path / "phantoms"
    plan(study, out)
    content = json.loads((out / "docs" / "plan.json").read_text())
    content["given"]["image_size"] = [64, 64, 64]
    (out / "docs" / "plan.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"--image-size is for classification, .* --set image_size=null"):
        plan(study, out, resume=True)
    assert plan(study, out, {"image_size": None}, resume=True).plan.task == "segmentation"


def test_slices_across_the_first_axis_are_no_longer_mirrored_when_the_dimension_changes(study, tmp_path):
    grid = phantoms.affine((8.0, 1.0, 1.0))
    for number in range(6):
        for kind, array in zip(("image", "label"), phantoms.two_part_phantom(number), strict=True):
            phantoms.write_nifti(tmp_path / f"{kind}_{number}.nii.gz", array, grid)
    content = json.loads((study / "dataset.json").read_text())
    for number, case in enumerate(content["training"]):
        case |= {"image": f"image_{number}.nii.gz", "label": f"label_{number}.nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    first = plan(tmp_path, tmp_path / "thick").plan
    second = plan(tmp_path, tmp_path / "thick", {"dimension": "2d"}, resume=True).plan
    assert (first.slice_axis, first.mirror_axes) == (None, (0,))
    assert (second.slice_axis, second.mirror_axes) == (0, ())


def test_evaluation_compares_a_flat_image_and_its_label_in_two_axes(study, tmp_path):
    content = json.loads((study / "dataset.json").read_text())
    for number, case in enumerate(content["training"]):
        for kind, array in zip(("image", "label"), phantoms.two_part_phantom(number), strict=True):
            phantoms.write_nifti(tmp_path / f"{kind}_{number}.nii.gz", array[:, :, 12:13])
            case[kind] = f"{kind}_{number}.nii.gz"
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    folder = BundleFolder(plan(tmp_path, tmp_path / "flat").bundle)
    with bundle_code(folder.root):
        transforms = parse_config(folder, ["evaluate"]).get_parsed_content("transforms")
        item = transforms({key: str(tmp_path / f"{key}_0.nii.gz") for key in ("image", "label")})
    assert item["image"].shape == item["label"].shape == (1, 30, 42)


def test_a_plan_of_metaimages_reads_them_and_looks_for_them(study, tmp_path):
    import SimpleITK

    content = json.loads((study / "dataset.json").read_text())
    for number, case in enumerate(content["training"]):
        for kind, array in zip(("image", "label"), phantoms.two_part_phantom(number), strict=True):
            case[kind] = f"{kind}_{number}.mha"
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.T), str(tmp_path / case[kind]))
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    folder = BundleFolder(plan(tmp_path, tmp_path / "mha").bundle)
    assert "itk" in folder.metadata["required_packages_version"]
    with bundle_code(folder.root), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an error inside itk's compiled modules ends the process
        parser = parse_config(folder, ["inference"])
        parser["dataset_dir"] = str(tmp_path)
        found = parser.get_parsed_content("datalist")
        image = parser.get_parsed_content("preprocessing")({"image": found[0]})["image"]
    assert len(found) == 12
    assert image.shape == (1, 30, 42, 28)


def test_the_page_tells_orientation_anisotropy_and_volumes(study, tmp_path):
    unknown = with_extra(study, tmp_path, {"voxel_size": "unknown"})
    known = (plan(study, tmp_path / "known").bundle / "docs" / "plan.md").read_text()
    assert "| orientation of the files | RAS in 6 |" in known
    assert "| anisotropy (longest to shortest voxel edge) | 1 |" in known
    assert "| label 1: front | in 6 cases, 960 voxels, 0.96 mL (median) |" in known
    page = (plan(unknown, tmp_path / "unknown").bundle / "docs" / "plan.md").read_text()
    assert "anisotropy" not in page
    assert "| label 1: front | in 6 cases, 960 voxels (median) |" in page


@pytest.mark.slow
def test_stock_monai_trains_evaluates_and_infers_a_planned_segmentation(study, tmp_path):
    bundle = plan(study, tmp_path / "phantoms", {"width": 4}).bundle
    out = train_evaluate_infer(bundle, study, tmp_path)
    written = nibabel.load(out / "phantom_000_seg.nii.gz")
    assert written.shape == (30, 42, 28)
    assert set(np.unique(written.dataobj)) <= {0, 1, 2}
    assert "phantom" in (tmp_path / "evaluation" / "val_mean_dice_raw.csv").read_text()


@pytest.mark.slow
def test_stock_monai_runs_a_plan_by_slices_with_regions_and_ignored_voxels(study, tmp_path):
    def sparse(label):
        kept = label.copy()
        kept[:, :, 1::2] = 255
        return kept

    extra = {"regions": {"whole": [1, 2], "rear": [2]}, "ignore_label": 255}
    folder = with_extra(study, tmp_path, extra, alter=sparse)
    result = plan(folder, tmp_path / "phantoms", {"width": 4, "dimension": "2d"})
    assert result.plan.slice_axis == 2
    (folder / "imagesTr").symlink_to(study / "imagesTr")
    out = train_evaluate_infer(result.bundle, folder, tmp_path)
    assert set(np.unique(nibabel.load(out / "phantom_000_seg.nii.gz").dataobj)) <= {0, 1, 2}


@pytest.mark.slow
def test_stock_monai_runs_a_plan_of_films(films, tmp_path):
    bundle = plan(films, tmp_path / "films", {"image_size": (32, 32)}).bundle
    out = train_evaluate_infer(bundle, films, tmp_path)
    assert (out / "predictions.csv").read_text().startswith("file,probability,decision")


@pytest.mark.slow
def test_stock_monai_runs_a_plan_of_named_channels(study, tmp_path):
    content = json.loads((study / "dataset.json").read_text())
    for number, case in enumerate(content["training"]):
        image = str(study / case.pop("image"))
        case |= {
            "id": f"case_{number}",
            "images": {"ct": image, "mr": image},
            "label": str(study / case["label"]),
        }
    content["test"] = [{"id": "t", "images": content["training"][0]["images"]}]
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"modality": {"0": "CT", "1": "MRI"}}))
    result = plan(tmp_path, tmp_path / "two", {"width": 4}, check=None)
    out = train_evaluate_infer(result.bundle, tmp_path, tmp_path)
    assert len(list(out.rglob("*_seg.nii.gz"))) == 1


@pytest.mark.slow
def test_stock_monai_runs_a_plan_of_dicom_series(tmp_path):
    training = []
    for number in range(5):
        image, label = phantoms.two_part_phantom(number)
        series = phantoms.write_dicom_series(
            tmp_path / "imagesTr" / f"p{number}",
            range(0, 2 * image.shape[2], 2),
            image.shape[:2],
            image.clip(0),
        )
        on_series = np.diag([-0.5, -0.5, 2.0, 1.0])
        mask = phantoms.write_nifti(tmp_path / "labelsTr" / f"p{number}.nii.gz", label, on_series)
        training.append({"image": str(series), "label": str(mask)})
    content = {
        "name": "series",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "front", "2": "rear"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"training": training}))
    result = plan(tmp_path, tmp_path / "planned", {"width": 4})
    out = train_evaluate_infer(result.bundle, tmp_path, tmp_path)
    label_map = nibabel.load(out / "p0_seg.nii.gz")
    assert label_map.shape == image.shape
    np.testing.assert_allclose(label_map.affine, on_series, atol=1e-4)
    assert len(list(out.glob("*_seg.nii.gz"))) == 5


@pytest.mark.slow
def test_a_trial_measures_what_the_planned_bundle_needs(study, tmp_path):
    result = plan(study, tmp_path / "phantoms", {"width": 4, "batch_size": 2, "trial": True})
    measured = result.plan.measured[-1]
    assert 0.2 < measured["base_gb"] < measured["train_gb"] < 3
    assert measured["base_gb"] < measured["validate_gb"] < 3
    assert "| planned |" in (result.bundle / "docs" / "plan.md").read_text()


@pytest.mark.slow
def test_a_trial_that_fails_for_another_reason_than_memory_says_so(study, tmp_path):
    bundle = plan(study, tmp_path / "phantoms", {"width": 4, "batch_size": 2}).bundle
    recipe = bundle / "configs" / "train.json"
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"learning_rate": "abc"}))
    with pytest.raises(DataError, match=r"The trial of the planned network failed \(TypeError: "):
        measure(bundle, device="cpu")


@pytest.mark.slow
def test_medimg3d_trains_a_planned_bundle(study, tmp_path):
    from medimg3d.workflows.train import train

    bundle = plan(
        study, tmp_path / "phantoms", {"width": 4, "batch_size": 2, "iterations_per_epoch": 1}
    ).bundle
    result = train(
        bundle,
        out=tmp_path / "trained",
        dataset_dir=study,
        epochs=1,
        precision="float32",
        num_workers=0,
        progress=False,
    )
    assert (result.bundle / "models" / "model.pt").is_file()
