import csv
import hashlib
import json
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from phantoms import affine, oblique_affine, two_boxes, two_part_phantom, write_nifti, write_threshold_bundle

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import load_inference, read_facts
from medimg3d.errors import BundleError, UsageError
from medimg3d.workflows.predict import predict

FLIPPED = np.diag([-1.0, 1.0, -1.0, 1.0]) @ affine((1.0, 1.0, 1.0), (-5.0, 6.0, -7.0))
TURNED = np.array([[0, 0, 1.0, 3], [-1, 0, 0, 40], [0, 1, 0, -9], [0, 0, 0, 1]])
GRIDS = {
    "1_mm": affine(),
    "2_mm": affine((2.0, 2.0, 2.0), (10.5, -20.25, 3.0)),
    "flipped": FLIPPED,
    "axes_swapped": TURNED,
    "oblique": oblique_affine(),
    "oblique_2_mm_flipped": oblique_affine((2.0, 2.0, 2.0)) @ np.diag([-1.0, 1.0, 1.0, 1.0]),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_threshold_bundle(tmp_path_factory.mktemp("bundles") / "thresholds")


def _plain(bundle, inputs, out, **options):
    return predict(bundle, inputs, out, overlays=False, reports=False, **options)


def _voxels(path):
    return np.asanyarray(nibabel.load(path).dataobj)


def _expected(grid):
    """The thresholds of the image itself, but for eight voxels where the 1 mm grid falls between the voxels.

    MONAI centres that grid on an oblique image: its points lie a quarter of a 2 mm voxel off. Along an axis,
    a border voxel then comes back as (1 + 0.75) / 2 = 0.875 of itself: a corner of the white box as
    0.875 ** 3 * 200 = 134, which is grey; its edges as 0.875 ** 2 * 200 = 153, still white.
    """
    expected = (two_boxes() > 50).astype(np.uint8) + (two_boxes() > 150)
    if grid == "oblique_2_mm_flipped":
        expected[np.ix_([9, 11], [10, 12], [5, 7])] = 1
    return expected


@pytest.mark.parametrize("grid", GRIDS)
def test_labels_come_back_onto_the_images_own_voxels(bundle, tmp_path, grid):
    image = write_nifti(tmp_path / "case.nii.gz", two_boxes(), GRIDS[grid])
    _plain(bundle, [image], tmp_path / "out")
    written = tmp_path / "out" / "case_seg.nii.gz"
    np.testing.assert_array_equal(_voxels(written), _expected(grid))
    np.testing.assert_allclose(nibabel.load(written).affine, GRIDS[grid], atol=1e-3)
    one, other = SimpleITK.ReadImage(str(image)), SimpleITK.ReadImage(str(written))
    for part in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
        np.testing.assert_allclose(getattr(other, part)(), getattr(one, part)(), atol=1e-3)
    assert other.GetPixelID() == SimpleITK.sitkUInt8


def test_nrrd_gives_the_label_map_of_nifti(bundle, tmp_path):
    image = write_nifti(tmp_path / "a.nii.gz", two_boxes(), oblique_affine((1.0, 1.0, 2.0)))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(image)), str(tmp_path / "b.nrrd"))
    _plain(bundle, [tmp_path], tmp_path / "out")
    one, other = (tmp_path / "out" / f"{case}_seg.nii.gz" for case in "ab")
    np.testing.assert_array_equal(_voxels(one), _voxels(other))
    np.testing.assert_allclose(nibabel.load(one).affine, nibabel.load(other).affine, atol=1e-3)


def _rows(out):
    with (out / "measurements.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_120_voxels_of_8_cubic_mm_are_0_96_ml(bundle, tmp_path):
    image = write_nifti(tmp_path / "case.nii.gz", two_boxes(), affine((2.0, 2.0, 2.0)))
    result = _plain(bundle, [image], tmp_path / "out")
    assert result.measurements[0].ml == pytest.approx({"grey": 0.96, "white": 0.216})
    assert _rows(tmp_path / "out") == [
        {
            "case": "case",
            "grey_ml": "0.96",
            "white_ml": "0.216",
            "grey_voxels": "120",
            "white_voxels": "27",
            "spacing_i_mm": "2",
            "spacing_j_mm": "2",
            "spacing_k_mm": "2",
        }
    ]


def test_volumes_are_blank_where_the_file_states_no_voxel_size(bundle, tmp_path):
    nibabel.save(nibabel.Nifti1Image(two_boxes(), None), tmp_path / "case.nii.gz")
    result = predict(bundle, [tmp_path / "case.nii.gz"], tmp_path / "out")
    assert result.measurements[0].ml == {"grey": None, "white": None}
    assert "no voxel size" in result.cases[0].note
    row = _rows(tmp_path / "out")[0]
    assert (row["grey_ml"], row["spacing_i_mm"], row["grey_voxels"]) == ("", "", "120")
    header = nibabel.load(tmp_path / "out" / "case_seg.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)


def test_a_bad_file_is_rejected_with_its_reason_and_the_rest_goes_on(bundle, tmp_path):
    folder = tmp_path / "in"
    for name in ("a", "z"):
        write_nifti(folder / f"{name}.nii.gz", two_boxes())
    (folder / "broken.nii.gz").write_text("hello")
    (folder / "notes.txt").write_text("hello")
    write_nifti(folder / "flat.nii.gz", np.ones((5, 5, 5), np.float32))
    result = predict(bundle, [folder], tmp_path / "out")
    assert [case.case for case in result.cases] == ["a", "z"]
    assert set(result.rejected) == {str(folder / "broken.nii.gz"), str(folder / "flat.nii.gz")}
    assert list(result.ignored) == [str(folder / "notes.txt")]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "broken.nii.gz" in page
    assert 'href="reports/a.html"' in page
    assert (tmp_path / "out" / "overlays" / "z.png").is_file()
    assert '<img src="data:image/png;base64,' in (tmp_path / "out" / "reports" / "z.html").read_text()


def test_an_image_that_the_model_fails_on_is_rejected(bundle, tmp_path, monkeypatch):
    for name in "ab":
        write_nifti(tmp_path / f"{name}.nii.gz", two_boxes())

    def fail_on_a(self, image, truly=load_inference.__globals__["Inference"].prepare):
        if image.name == "a.nii.gz":
            raise RuntimeError(f"cannot handle {image}")
        return truly(self, image)

    monkeypatch.setattr("medimg3d.bundle.inference.Inference.prepare", fail_on_a)
    result = _plain(bundle, [tmp_path], tmp_path / "out")
    assert [case.case for case in result.cases] == ["b"]
    assert result.rejected[str(tmp_path / "a.nii.gz")].startswith("the model failed on it (RuntimeError)")


def test_the_record_names_files_hashes_and_weights_but_no_folder(bundle, tmp_path):
    image = write_nifti(tmp_path / "secret_folder" / "case.nii.gz", two_boxes())
    (tmp_path / "secret_folder" / "bad.nii").write_text("x")
    copy = tmp_path / "thresholds"
    shutil.copytree(bundle, copy)
    (copy / "models" / "training_cases.json").write_text(
        '{"cases": [{"name": "seen", "image_sha256": "00"}]}'
    )
    _plain(copy, [tmp_path / "secret_folder"], tmp_path / "out")
    text = (tmp_path / "out" / "run.json").read_text()
    run = json.loads(text)
    weights = hashlib.sha256((bundle / "models" / "model.pt").read_bytes()).hexdigest()
    assert run["bundle"] == {"name": "thresholds", "version": "1.2.3", "weights_sha256": weights}
    assert run["training_cases"] == [{"name": "seen", "image_sha256": "00"}]
    done, rejected = run["cases"]
    assert set(done.pop("seconds")) == {"load", "predict"}
    assert run["settings"]["backend"] == "torch"
    assert run["peak_memory_gb"] > 0.05
    assert done == {
        "case": "case",
        "input": "case.nii.gz",
        "input_sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
        "status": "done",
        "output": "case_seg.nii.gz",
    }
    assert (rejected["status"], rejected["input"], rejected["output"]) == ("rejected", "bad.nii", None)
    assert set(run["versions"]) == {"medimg3d", "monai", "torch"}
    assert "secret_folder" not in text


def test_a_user_who_stops_keeps_the_finished_cases(bundle, tmp_path):
    for name in "abc":
        write_nifti(tmp_path / f"{name}.nii.gz", two_boxes())

    def stop_before_the_second(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _plain(bundle, [tmp_path], tmp_path / "out", progress=stop_before_the_second)
    written = sorted(
        file.name.removesuffix("_seg.nii.gz") for file in (tmp_path / "out").glob("*_seg.nii.gz")
    )
    assert "a" in written
    assert "c" not in written  # the second may have been under way, and is then whole
    assert [row["case"] for row in _rows(tmp_path / "out")] == written
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_resumed_run_keeps_what_is_finished_and_ends_as_an_uninterrupted_one(bundle, tmp_path, monkeypatch):
    for name in "abc":
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", two_boxes())
    whole = _plain(bundle, [tmp_path / "in"], tmp_path / "whole")

    def stop_before_the_second(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _plain(bundle, [tmp_path / "in"], tmp_path / "out", progress=stop_before_the_second)
    predicted = []
    prepare = load_inference.__globals__["Inference"].prepare
    monkeypatch.setattr(
        "medimg3d.bundle.inference.Inference.prepare",
        lambda self, image: (predicted.append(image.name), prepare(self, image))[1],
    )
    result = _plain(bundle, [tmp_path / "in"], tmp_path / "out", resume=True)
    assert "a.nii.gz" not in predicted
    assert "c.nii.gz" in predicted
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [case["case"] for case in run["cases"]] == ["a", "b", "c"]
    for one, other in zip(whole.cases, result.cases, strict=True):
        assert one.label_map.read_bytes() == other.label_map.read_bytes()
        assert one.volumes == other.volumes


def test_a_changed_image_or_a_damaged_label_map_is_predicted_again(bundle, tmp_path):
    for name in "abc":
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", two_boxes())
    first = _plain(bundle, [tmp_path / "in"], tmp_path / "out")
    write_nifti(tmp_path / "in" / "b.nii.gz", two_boxes()[::-1].copy())
    first.cases[2].label_map.write_bytes(b"damaged")
    before = {case.case: case.label_map.stat().st_mtime_ns for case in first.cases}
    again = _plain(bundle, [tmp_path / "in"], tmp_path / "out", resume=True)
    kept = {case.case for case in again.cases if case.label_map.stat().st_mtime_ns == before[case.case]}
    assert kept == {"a"}
    assert _voxels(again.cases[2].label_map).any()


def test_a_run_is_not_resumed_with_other_weights(bundle, tmp_path):
    write_nifti(tmp_path / "in" / "a.nii.gz", two_boxes())
    _plain(bundle, [tmp_path / "in"], tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    weights = torch.load(other / "models" / "model.pt", weights_only=True)
    torch.save({"model": weights.get("model", weights)}, other / "models" / "model.pt")
    with pytest.raises(UsageError, match="was begun with weights_sha256"):
        _plain(other, [tmp_path / "in"], tmp_path / "out", resume=True)


@pytest.mark.parametrize("workers", [0, 3])
def test_label_maps_do_not_depend_on_the_number_of_workers(bundle, tmp_path, workers):
    for number in range(4):
        image, _ = two_part_phantom(number)
        write_nifti(tmp_path / "in" / f"{number}.nii.gz", image)
    one = _plain(bundle, [tmp_path / "in"], tmp_path / "one")
    other = _plain(bundle, [tmp_path / "in"], tmp_path / "other", workers=workers)
    assert [case.case for case in other.cases] == ["0", "1", "2", "3"]
    for first, second in zip(one.cases, other.cases, strict=True):
        assert first.label_map.read_bytes() == second.label_map.read_bytes()


def test_progress_counts_images(bundle, tmp_path):
    for name in "ab":
        write_nifti(tmp_path / f"{name}.nii.gz", two_boxes())
    seen = []
    _plain(bundle, [tmp_path], tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_the_input_folder_as_output_is_bad_usage(bundle, tmp_path):
    write_nifti(tmp_path / "a.nii.gz", two_boxes())
    with pytest.raises(UsageError, match="is the input folder"):
        _plain(bundle, [tmp_path], tmp_path)


def test_a_prediction_never_replaces_an_input(bundle, tmp_path):
    files = [write_nifti(tmp_path / f"{name}.nii.gz", two_boxes()) for name in ("a", "a_seg")]
    with pytest.raises(UsageError, match="would replace the input"):
        _plain(bundle, files, tmp_path)


def test_weights_of_another_network_are_refused(bundle, tmp_path):
    image = write_nifti(tmp_path / "a.nii.gz", two_boxes())
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(BundleError, match=r"other\.pt does not fit the network"):
        _plain(bundle, [image], tmp_path / "out", checkpoint=tmp_path / "other.pt")


def test_other_weights_give_other_labels(bundle, tmp_path):
    image = write_nifti(tmp_path / "a.nii.gz", two_boxes())
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    state["bias"] = torch.tensor([0.0, -150.0, -900.0])  # grey above 150, white nowhere
    torch.save({"model": state}, tmp_path / "strict.pt")
    result = _plain(bundle, [image], tmp_path / "out", checkpoint=tmp_path / "strict.pt")
    assert result.measurements[0].voxels == {"grey": 27, "white": 0}


def test_a_file_of_weights_that_runs_code_is_refused(bundle, tmp_path):
    image = write_nifti(tmp_path / "a.nii.gz", two_boxes())
    torch.save(pytest.fail, tmp_path / "evil.pt")
    with pytest.raises(BundleError, match="does not fit the network"):
        _plain(bundle, [image], tmp_path / "out", checkpoint=tmp_path / "evil.pt")


def test_a_bundle_without_weights_says_so(bundle, tmp_path):
    shutil.copytree(bundle / "configs", tmp_path / "b" / "configs")
    with pytest.raises(BundleError, match="has no weights"):
        _plain(tmp_path / "b", [write_nifti(tmp_path / "a.nii.gz", two_boxes())], tmp_path / "out")


def test_an_unknown_device_is_bad_usage(bundle, tmp_path):
    image = write_nifti(tmp_path / "a.nii.gz", two_boxes())
    with pytest.raises(UsageError, match="Unknown device 'abacus'"):
        _plain(bundle, [image], tmp_path / "out", device="abacus")


def test_a_label_without_a_name_is_refused(bundle, tmp_path):
    copy = tmp_path / "b"
    shutil.copytree(bundle, copy)
    metadata = json.loads((copy / "configs" / "metadata.json").read_text())
    del metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["2"]
    (copy / "configs" / "metadata.json").write_text(json.dumps(metadata))
    image = write_nifti(tmp_path / "a.nii.gz", two_boxes())
    result = _plain(copy, [image], tmp_path / "out")
    assert "does not name" in result.rejected[str(image)]


def test_two_copies_of_a_bundle_run_their_own_code(tmp_path):
    for name in ("one", "two"):
        package = tmp_path / name / "medimg3d_test_package"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"NAME = {name!r}\n")
    seen = []
    for name in ("one", "two"):
        with bundle_code(tmp_path / name):
            import medimg3d_test_package

            seen.append(sys.modules["medimg3d_test_package"].NAME)
    assert seen == ["one", "two"]
    assert not [path for path in sys.path if path.startswith(str(tmp_path))]
    del sys.modules["medimg3d_test_package"], medimg3d_test_package


@pytest.fixture(scope="module")
def random_bundle(bundle_root, tmp_path_factory):
    """The shipped bundle with weights drawn by lot: its label maps are noise, so that any slip shows."""
    copy = tmp_path_factory.mktemp("random") / "mri_hippocampus_unet"
    shutil.copytree(bundle_root, copy, ignore=shutil.ignore_patterns("__pycache__", "model*"))
    _draw_weights(copy)
    return copy


def _draw_weights(copy):
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(copy / "configs" / "inference.json"))
    torch.manual_seed(0)
    state = parser.get_parsed_content("network_def").state_dict()
    (copy / "models").mkdir(exist_ok=True)
    torch.save(state, copy / "models" / "model.pt")


@pytest.mark.slow
def test_label_maps_are_those_of_monai_bundle_run(random_bundle, tmp_path):
    images = tmp_path / "imagesTs"
    write_nifti(images / "a.nii.gz", two_part_phantom(1)[0], oblique_affine((1.0, 0.8, 1.2)))
    write_nifti(images / "b.nii.gz", two_part_phantom(2)[0], FLIPPED)
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    options = ["--bundle_root", ".", "--dataset_dir", str(images), "--output_dir", str(tmp_path / "stock")]
    options += ["--device", "$torch.device('cpu')"]
    done = subprocess.run(command + options, cwd=random_bundle, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    _plain(random_bundle, [images], tmp_path / "out", device="cpu")
    for case in "ab":
        stock, ours = (tmp_path / folder / f"{case}_seg.nii.gz" for folder in ("stock", "out"))
        assert len(np.unique(_voxels(ours))) == 3
        np.testing.assert_array_equal(_voxels(ours), _voxels(stock))
        np.testing.assert_allclose(nibabel.load(ours).affine, nibabel.load(stock).affine, atol=1e-3)


def test_facts_of_the_shipped_bundle(random_bundle):
    facts = read_facts(BundleFolder(random_bundle))
    assert facts.name == "mri_hippocampus_unet"
    assert facts.class_names == {1: "anterior hippocampus", 2: "posterior hippocampus"}
    assert facts.num_channels == 1


@pytest.mark.realdata
def test_real_oddities_end_accepted_or_rejected_with_a_reason(bundle, data_root, tmp_path):
    folder = data_root / "nifti_oddities"
    if not folder.is_dir():
        pytest.skip("the set nifti_oddities is not there")
    result = _plain(bundle, [folder], tmp_path / "out")
    refused = {key.rsplit("/", 1)[1]: reason for key, reason in result.rejected.items()}
    assert set(refused) == {"pcasl_4d_float32.nii.gz", "rgb24_10x10x4.nii.gz", "rgba32_cit168.nii.gz"}
    for case in result.cases:
        image, labels = (SimpleITK.ReadImage(str(path)) for path in (case.image, case.label_map))
        np.testing.assert_allclose(labels.GetOrigin(), image.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(labels.GetDirection(), image.GetDirection(), atol=1e-3)
        np.testing.assert_allclose(labels.GetSpacing(), image.GetSpacing(), atol=1e-3)
        np.testing.assert_allclose(
            nibabel.load(case.label_map).affine, nibabel.load(case.image).affine, atol=1e-3
        )


@pytest.mark.realdata
def test_a_real_hippocampus_has_a_label_map_on_its_grid(random_bundle, hippocampus, tmp_path):
    image = sorted((hippocampus / "imagesTr").glob("*.nii.gz"))[0]
    result = predict(random_bundle, [image], tmp_path / "out")
    assert not result.rejected
    labels = nibabel.load(result.cases[0].label_map)
    assert labels.shape == nibabel.load(image).shape
    np.testing.assert_allclose(labels.affine, nibabel.load(image).affine, atol=1e-3)
    assert sum(result.measurements[0].ml.values()) < np.prod(labels.shape) / 1000
