"""MetaImage, NRRD and DICOM: what reads them, and where inference looks for them."""

from __future__ import annotations

import pytest
from facts import channel, facts, of_classes

from medimg3d.data.datalist import Datalist
from medimg3d.errors import DataError
from medimg3d.planning import file_readers as module
from medimg3d.planning.classification_configs import classification_configs
from medimg3d.planning.metadata import metadata
from medimg3d.planning.planner import draft_plan, finish_plan
from medimg3d.planning.segmentation_configs import segmentation_configs
from medimg3d.planning.settings import PlanSettings
from medimg3d.planning.template import read_template


def planned(data):
    return finish_plan(draft_plan(data, Datalist(), PlanSettings()))


def installed(monkeypatch, *packages):
    monkeypatch.setattr(module, "find_spec", lambda name: name if name in packages else None)


def test_nifti_needs_nothing_more_and_is_looked_for_as_in_the_template():
    plan = planned(facts(image_endings=(".nii", ".nii.gz"), label_endings=(".nii.gz",)))
    assert "itk" not in metadata(plan)["required_packages_version"]
    template = read_template("segmentation", "inference")["datalist"]
    assert segmentation_configs(plan)["inference"]["datalist"] == template


def test_metaimages_need_itk_and_are_looked_for():
    plan = planned(facts(image_endings=(".mha", ".nii.gz"), label_endings=(".nrrd",)))
    assert metadata(plan)["required_packages_version"]["itk"] != "0.0.0"  # that of itk-io
    assert "for e in ('nii', 'nii.gz', 'mha') for" in segmentation_configs(plan)["inference"]["datalist"]


def test_a_classifier_looks_for_them_in_all_folders():
    volumes = {"num_axes": 3, "channels": (channel(),), "shapes": ((64, 64, 64),) * 12}
    plan = planned(of_classes(**volumes, spacings_mm=((1.0, 1.0, 1.0),) * 12, image_endings=(".nrrd",)))
    assert classification_configs(plan)["inference"]["datalist"] == (
        "$sorted(p for e in ('nii', 'nii.gz', 'nrrd') for p in "
        "glob.glob(os.path.join(@dataset_dir, '**', '*.' + e), recursive=True))"
    )


def test_folders_of_dicom_files_are_looked_for_beside_files():
    inference = segmentation_configs(planned(facts(image_endings=("", ".nii.gz"))))["inference"]
    assert inference["datalist"].endswith(
        "glob.glob(os.path.join(@dataset_dir, '*.' + e))) + "
        "sorted(p for p in glob.glob(os.path.join(@dataset_dir, '*')) if os.path.isdir(p))"
    )


def test_without_a_reader_folders_of_dicom_files_are_refused(monkeypatch):
    installed(monkeypatch, "nrrd")
    with pytest.raises(
        DataError, match=r"are folders of DICOM files, which MONAI reads with pydicom; it is not inst"
    ):
        planned(facts(image_endings=("",)))


@pytest.mark.parametrize("where", ["image_endings", "label_endings"])
def test_without_a_reader_the_plan_is_refused(monkeypatch, where):
    installed(monkeypatch, "pydicom")
    with pytest.raises(DataError, match=r"end in \.mha, .* it is not installed\. .*`pip install itk-io`"):
        planned(facts(**{where: (".mha",)}))
    assert planned(facts(**{where: (".nii.gz",)}))
    assert planned(facts(**{where: (".dcm",)}))


def test_pynrrd_reads_nrrd_and_nothing_else(monkeypatch):
    installed(monkeypatch, "nrrd")
    assert planned(facts(image_endings=(".nrrd",)))
    with pytest.raises(DataError, match=r"end in \.nhdr"):
        planned(facts(image_endings=(".nhdr",)))
