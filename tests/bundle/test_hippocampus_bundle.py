"""The shipped bundle under stock MONAI: every config runs, from another folder, without medimg3d."""

import json
import shutil

import nibabel
import numpy as np
import phantoms
import pytest
import torch
from stock_monai import monai_bundle

from medimg3d.bundle.carried_code import check_carried_code

SMALL = {
    "train#trainer#max_epochs": 2,
    "iterations_per_epoch": 2,
    "batch_size": 2,
    "val_interval": 2,
    "num_workers": 0,
    "patch_size": "[16,24,16]",
}


def config(bundle_root, name):
    return json.loads((bundle_root / "configs" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def decathlon(tmp_path_factory):
    return phantoms.write_decathlon(tmp_path_factory.mktemp("phantoms"), num_cases=5)


def test_preprocessing_network_and_inferer_are_the_same_in_every_config(bundle_root):
    reference = config(bundle_root, "train")
    for name in ("inference", "evaluate"):
        other = config(bundle_root, name)
        for block in ("preprocessing", "network_def", "inferer", "num_classes"):
            assert other[block] == reference[block], f"{block} in {name}.json"


def test_labels_are_brought_to_the_grid_of_the_images(bundle_root):
    train = config(bundle_root, "train")
    image, label = (
        {t["_target_"]: t for t in train[block]["transforms"]}
        for block in ("preprocessing", "label_preprocessing")
    )
    assert image["Orientationd"]["axcodes"] == label["Orientationd"]["axcodes"]
    assert image["Spacingd"]["pixdim"] == label["Spacingd"]["pixdim"]
    assert label["Spacingd"]["mode"] == "nearest"


def test_carried_code_equals_its_source(bundle_root):
    check_carried_code(bundle_root)


def test_files_for_sharing_are_there_and_small(bundle_root):
    for name in (
        "LICENSE",
        "docs/README.md",
        "docs/data_license.txt",
        "models/model.pt",
        "configs/metadata.json",
    ):
        assert (bundle_root / name).is_file(), name
    assert all(p.stat().st_size < 25_000_000 for p in bundle_root.rglob("*") if p.is_file())


def test_weights_are_those_that_the_record_of_training_names(bundle_root):
    import hashlib

    record = json.loads((bundle_root / "models" / "training_cases.json").read_text())
    weights = (bundle_root / "models" / "model.pt").read_bytes()
    assert record["weights_sha256"] == hashlib.sha256(weights).hexdigest()


def test_metadata_fits_our_schema(bundle_root, tmp_path):
    from importlib.resources import as_file, files

    with as_file(files("medimg3d.bundle") / "metadata_schema.json") as schema:
        shutil.copy(schema, tmp_path / "schema.json")
    output = monai_bundle(
        "verify_metadata",
        cwd=tmp_path,
        meta_file=bundle_root / "configs" / "metadata.json",
        filepath=tmp_path / "schema.json",
    )
    assert "metadata is verified with no error" in output


def test_metadata_without_a_task_does_not_fit_our_schema(bundle_root):
    from importlib.resources import files

    import jsonschema

    schema = json.loads((files("medimg3d.bundle") / "metadata_schema.json").read_text())
    metadata = config(bundle_root, "metadata")
    del metadata["task"]
    with pytest.raises(jsonschema.ValidationError, match="'task' is a required property"):
        jsonschema.validate(metadata, schema)


def test_network_takes_and_gives_what_the_metadata_says(bundle_root, tmp_path):
    configs = bundle_root / "configs"
    output = monai_bundle(
        "verify_net_in_out",
        "network_def",
        cwd=tmp_path,
        config_file=configs / "inference.json",
        meta_file=configs / "metadata.json",
    )
    assert "data shape of network is verified with no error" in output


@pytest.mark.parametrize("command", ["ckpt_export", "onnx_export"])
def test_exports_give_the_networks_output(bundle_root, tmp_path, command):
    from monai.networks.nets import DynUNet

    configs = bundle_root / "configs"
    exported = tmp_path / ("model.ts" if command == "ckpt_export" else "model.onnx")
    options = {
        "filepath": exported,
        "ckpt_file": bundle_root / "models" / "model.pt",
        "config_file": configs / "inference.json",
        "meta_file": configs / "metadata.json",
        "input_shape": "[1,1,40,56,40]",
    }
    if command == "ckpt_export":
        options["use_trace"] = "true"
    monai_bundle(command, "network_def", cwd=tmp_path, **options)

    definition = {k: v for k, v in config(bundle_root, "inference")["network_def"].items() if k != "_target_"}
    network = DynUNet(**(definition | {"out_channels": 3})).eval()
    network.load_state_dict(torch.load(options["ckpt_file"], weights_only=True))
    image = torch.rand(1, 1, 40, 56, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image)
        if command == "ckpt_export":
            given = torch.jit.load(exported)(image)
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(exported)
            given = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])
    assert torch.allclose(given, expected, atol=1e-3)


def test_inference_writes_a_label_map_per_image_on_its_own_grid(bundle_root, decathlon, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    image, _ = phantoms.two_part_phantom(3)
    matrix = phantoms.affine((1.0, 1.0, 1.25), (-10, 5, 7)) @ np.diag(
        [-1.0, 1, 1, 1]
    )  # flipped, other spacing
    phantoms.write_nifti(images / "flipped.nii.gz", image, matrix)
    phantoms.write_nifti(images / "plain.nii", image)
    monai_bundle(
        "run",
        cwd=tmp_path,
        config_file=bundle_root / "configs" / "inference.json",
        bundle_root=bundle_root,
        dataset_dir=images,
        output_dir=out,
    )
    assert sorted(p.name for p in out.iterdir()) == ["flipped_seg.nii.gz", "plain_seg.nii.gz"]
    written = nibabel.load(out / "flipped_seg.nii.gz")
    assert written.shape == image.shape
    assert np.allclose(written.affine, matrix, atol=1e-3)
    assert set(np.unique(written.dataobj)) <= {0, 1, 2}


def test_train_and_evaluate_run_and_leave_the_bundle_as_it_is(bundle_root, decathlon, tmp_path):
    before = (bundle_root / "models" / "model.pt").read_bytes()
    common = {"bundle_root": bundle_root, "dataset_dir": decathlon}
    monai_bundle(
        "run",
        cwd=tmp_path,
        config_file=bundle_root / "configs" / "train.json",
        output_dir=tmp_path / "training",
        **common,
        **SMALL,
    )
    weights = tmp_path / "training" / "models" / "model.pt"
    assert weights.is_file()
    monai_bundle(
        "run",
        cwd=tmp_path,
        config_file=bundle_root / "configs" / "evaluate.json",
        output_dir=tmp_path / "evaluation",
        checkpoint=weights,
        **common,
    )
    details = (tmp_path / "evaluation" / "val_mean_dice_raw.csv").read_text()
    assert "phantom" in details
    assert (bundle_root / "models" / "model.pt").read_bytes() == before
    assert not (bundle_root / "training").exists()
    assert not (bundle_root / "evaluation").exists()


@pytest.mark.realdata
def test_shipped_weights_find_the_hippocampus_in_cases_they_have_not_seen(bundle_root, hippocampus, tmp_path):
    from medimg3d.data.folds import case_name

    record = json.loads((bundle_root / "models" / "training_cases.json").read_text())
    seen = {case["name"] for case in record["cases"]}
    cases = json.loads((hippocampus / "dataset.json").read_text())["training"]
    unseen = [case for case in cases if case_name(case) not in seen][:6]
    assert len(unseen) == 6
    images = tmp_path / "images"
    images.mkdir()
    for case in unseen:
        shutil.copy(hippocampus / case["image"], images)
    monai_bundle(
        "run",
        cwd=tmp_path,
        config_file=bundle_root / "configs" / "inference.json",
        bundle_root=bundle_root,
        dataset_dir=images,
        output_dir=tmp_path / "out",
    )
    scores = []
    for case in unseen:
        truth = np.asarray(nibabel.load(hippocampus / case["label"]).dataobj)
        found = np.asarray(nibabel.load(tmp_path / "out" / f"{case_name(case)}_seg.nii.gz").dataobj)
        scores += [
            2 * ((truth == c) & (found == c)).sum() / ((truth == c).sum() + (found == c).sum())
            for c in (1, 2)
        ]
    assert np.mean(scores) > 0.85
