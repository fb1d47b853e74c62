import json
import re

import pytest
from phantoms import two_part_phantom, write_decathlon, write_dicom_series, write_nifti, write_picture

from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.folders import read_folder, read_folders
from medimg3d.errors import DataError, UsageError
from medimg3d.planning.label_scheme import read_label_scheme
from medimg3d.workflows.ingest import make_datalist


def touch(root, *names):
    """Empty files: folders are recognised by names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(scan, section="training"):
    return [case.name for case in scan.datalist.section(section)]


def test_a_decathlon_root_goes_by_its_dataset_json(tmp_path):
    scan = read_folder(write_decathlon(tmp_path, num_cases=2))
    assert (names(scan), scan.rejected) == (["phantom_000", "phantom_001"], {})
    assert scan.datalist.labels[2] == "rear"


def test_files_that_dataset_json_does_not_list_are_rejected(tmp_path):
    touch(write_decathlon(tmp_path, num_cases=2), "imagesTr/more.nii.gz")
    assert read_folder(tmp_path).rejected == {"imagesTr/more.nii.gz": "not listed in dataset.json"}


def test_a_decathlon_root_without_dataset_json(tmp_path):
    write_decathlon(tmp_path, num_cases=2)
    (tmp_path / "dataset.json").unlink()
    touch(tmp_path, "imagesTs/new.nii.gz")
    scan = read_folder(tmp_path)
    assert (names(scan), names(scan, "test")) == (["phantom_000", "phantom_001"], ["new"])


def test_a_broken_dataset_json_is_an_error_not_a_guess(tmp_path):
    (write_decathlon(tmp_path, num_cases=1) / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json is broken.*move it away"):
        read_folder(tmp_path)


def test_images_and_labels_of_the_same_name_belong_together(tmp_path):
    touch(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "images/b.png", "labels/b_seg.png", "README.md")
    scan = read_folder(tmp_path)
    pairs = {case.name: case.label.name for case in scan.datalist.training}
    assert pairs == {"a": "a.nii.gz", "b": "b_seg.png"}
    assert scan.rejected == {}


def test_what_has_no_partner_is_rejected_by_name(tmp_path):
    touch(tmp_path, "images/a.nii.gz", "labels/b.nii.gz", "images/c.nii.gz", "labels/c.nii.gz")
    scan = read_folder(tmp_path)
    assert names(scan) == ["c"]
    assert scan.rejected == {
        "images/a.nii.gz": "image without a label",
        "labels/b.nii.gz": "label without an image",
    }


def test_other_files_among_the_images_are_rejected_and_hidden_ones_passed_over(tmp_path):
    touch(
        tmp_path,
        "images/a.nii.gz",
        "labels/a.nii.gz",
        "images/notes.txt",
        "images/._a.nii.gz",
        "labels/.DS_Store",
    )
    scan = read_folder(tmp_path)
    assert list(scan.rejected) == ["images/notes.txt"]
    assert scan.rejected["images/notes.txt"].startswith("not an image that can be read")


def test_two_images_of_one_name_and_other_endings(tmp_path):
    touch(tmp_path, "images/a.mha", "images/a.nii.gz", "labels/a.nii.gz")
    assert read_folder(tmp_path).rejected == {
        "images/a.nii.gz": "has the same name as a.mha; expected one image of a name"
    }


def test_a_dicom_folder_is_one_image_with_its_full_name(tmp_path):
    write_dicom_series(tmp_path / "images" / "1.2.840.1")
    write_nifti(tmp_path / "labels" / "1.2.840.1.nii.gz", two_part_phantom(0)[1])
    scan = read_folder(tmp_path)
    assert (names(scan), scan.rejected) == (["1.2.840.1"], {})


def nnunet(root, *, properties=True, **changes):
    touch(root, *(f"imagesTr/{case}_{channel:04d}.nii.gz" for case in "ab" for channel in (0, 1)))
    touch(root, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "imagesTs/t_0000.nii.gz", "imagesTs/t_0001.nii.gz")
    if properties:
        content = {
            "channel_names": {"0": "T1", "1": "FLAIR"},
            "labels": {"background": 0, "tumour": 1},
            "numTraining": 2,
            "file_ending": ".nii.gz",
        }
        (root / "dataset.json").write_text(json.dumps(content | changes))
    return root


@pytest.mark.parametrize("properties", [True, False])
def test_nnunet_channels_become_one_case(tmp_path, properties):
    scan = read_folder(nnunet(tmp_path, properties=properties))
    assert (names(scan), names(scan, "test"), scan.rejected) == (["a", "b"], ["t"], {})
    assert [file.name for file in scan.datalist.training[0].files] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert scan.datalist.training[0].label.name == "a.nii.gz"


def test_nnunet_names_are_turned_into_ours(tmp_path):
    datalist = read_folder(nnunet(tmp_path)).datalist
    assert datalist.modality == {"0": "T1", "1": "FLAIR"}
    assert datalist.labels == {0: "background", 1: "tumour"}


def scheme_of(root):
    """What a plan makes of the labels of a folder, by the datalist on disk."""
    path = root.with_suffix(".json")
    make_datalist([root], path, num_folds=2, check=False)
    datalist = load_datalist(path)
    return read_label_scheme(datalist, datalist.labels)


TUMOUR = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing": 3}
TUMOUR_REGIONS = {"whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing": (3,)}


def test_regions_of_nnunet_reach_the_plan(tmp_path):
    scheme = scheme_of(nnunet(tmp_path / "brain", labels=TUMOUR, regions_class_order=[1, 2, 3]))
    assert scheme.regions == TUMOUR_REGIONS
    assert scheme.labels == {0: "background", 1: "label 1", 2: "label 2", 3: "enhancing"}
    assert scheme.map_names == {0: "background", 1: "whole tumor", 2: "tumor core", 3: "enhancing"}


def test_regions_of_one_size_follow_the_class_order_of_nnunet(tmp_path):
    labels = {"background": 0, "both": [1, 2], "left": 1, "right": [2]}
    scheme = scheme_of(nnunet(tmp_path / "lungs", labels=labels, regions_class_order=[1, 3, 2]))
    assert scheme.map_names == {0: "background", 1: "both", 2: "right", 3: "left"}
    assert scheme.labels == {0: "background", 1: "left", 2: "right"}


def test_the_ignored_label_of_nnunet_is_no_region(tmp_path):
    labels = {**TUMOUR, "ignore": 4}
    scheme = scheme_of(nnunet(tmp_path / "brain", labels=labels, regions_class_order=[1, 2, 3]))
    assert (scheme.ignore_label, scheme.regions) == (4, TUMOUR_REGIONS)
    assert list(scheme.labels) == [0, 1, 2, 3]


@pytest.mark.parametrize("order", [{}, {"regions_class_order": [1]}])
def test_a_set_of_nnunet_without_regions_has_plain_classes(tmp_path, order):
    scheme = scheme_of(
        nnunet(tmp_path / "plain", labels={"background": 0, "tumour": 1, "ignore": 2}, **order)
    )
    assert scheme.regions == {}
    assert scheme.output_names == ["background", "tumour"]
    assert scheme.ignore_label == 2


def test_regions_count_where_the_images_have_no_channel_numbers(tmp_path):
    touch(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": TUMOUR}))
    assert read_folder(tmp_path).datalist.extra["regions"]["tumor core"] == [2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"whole": [1, "x"]}, r'has \[1, "x"\] for whole; expected a whole number.*Correct this entry'),
        ({"whole": [0, 1]}, r"has \[0, 1\] for whole; expected a whole number from 0, or a list .* from 1"),
        ({"whole": []}, r"has \[\] for whole; expected"),
        ({"whole": None}, "has null for whole; expected"),
        ({"whole": 1.5}, r"has 1\.5 for whole; expected"),
        ({"whole": True}, "has true for whole; expected"),
        ({"whole": {"a": 1}}, r'has \{"a": 1\} for whole; expected'),
        ({"whole": [1, 2], "ignore": [3, 4]}, r"has \[3, 4\] for ignore; expected one whole number"),
        (
            {"whole": [1, 2], "ignore": 2},
            "has the ignored value 2 in whole; expected .* Take it out of whole",
        ),
    ],
)
def test_labels_that_are_no_values_are_refused_with_the_entry(tmp_path, changes, message):
    nnunet(tmp_path, labels={"background": 0, **changes})
    with pytest.raises(DataError, match=rf'dataset\.json: "labels" {message}'):
        read_folder(tmp_path)


@pytest.mark.parametrize("order", [[1, 2], [1, 2, "3"], 3])
def test_a_class_order_that_does_not_fit_the_regions_is_refused(tmp_path, order):
    nnunet(tmp_path, labels=TUMOUR, regions_class_order=order)
    with pytest.raises(DataError, match=r"expected 3 whole numbers, one for each of whole tumor, tumor core"):
        read_folder(tmp_path)


def test_merged_folders_keep_their_regions(tmp_path):
    roots = [nnunet(tmp_path / site, labels=TUMOUR) for site in ("north", "south")]
    assert read_folders(roots).datalist.extra["regions"]["whole tumor"] == [1, 2, 3]


def test_folders_that_disagree_on_regions_are_not_merged(tmp_path):
    first = nnunet(tmp_path / "north", labels={"background": 0, "a": 1, "b": 2, "both": [1, 2]})
    second = nnunet(tmp_path / "south", labels={"background": 0, "a": 1, "b": 2})
    with pytest.raises(UsageError, match=r"regions are none in south and \{'both'.*one datalist for each"):
        read_folders([first, second])


def test_an_nnunet_case_without_all_channels_is_rejected(tmp_path):
    (nnunet(tmp_path) / "imagesTr" / "b_0001.nii.gz").unlink()
    scan = read_folder(tmp_path)
    assert names(scan) == ["a"]
    assert scan.rejected == {
        "imagesTr/b_0000.nii.gz": "the case has 1 of 2 channels",
        "labelsTr/b.nii.gz": "label without an image",
    }


def test_one_channel_nnunet_gives_single_images(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    case = read_folder(tmp_path).datalist.training[0]
    assert (case.name, case.image.name) == ("a", "a_0000.nii.gz")


def test_a_folder_a_class(tmp_path):
    touch(tmp_path, "PNEUMONIA/x.png", "NORMAL/y.jpeg", "NORMAL/z.png", "labels.csv")
    scan = read_folder(tmp_path)
    assert {case.name: case.class_label for case in scan.datalist.training} == {
        "x": "PNEUMONIA",
        "y": "NORMAL",
        "z": "NORMAL",
    }
    assert scan.datalist.classes == ("NORMAL", "PNEUMONIA")


def test_classes_below_train_val_and_test(tmp_path):
    touch(
        tmp_path, *(f"{part}/{kind}/{part}_{kind}.png" for part in ("train", "val", "test") for kind in "AB")
    )
    scan = read_folder(tmp_path)
    assert [names(scan, part) for part in ("training", "validation", "test")] == [
        ["train_A", "train_B"],
        ["val_A", "val_B"],
        ["test_A", "test_B"],
    ]
    assert scan.datalist.classes == ("A", "B")


def test_pairs_below_train_and_test(tmp_path):
    touch(
        tmp_path,
        *(f"{part}/{kind}/{part}.nii" for part in ("train", "test") for kind in ("images", "labels")),
    )
    scan = read_folder(tmp_path)
    assert (names(scan), names(scan, "test")) == (["train"], ["test"])


def test_a_name_in_two_class_folders_gets_the_folders_in_front(tmp_path):
    touch(tmp_path, "train/A/1.png", "train/B/1.png", "train/B/2.png")
    assert names(read_folder(tmp_path)) == ["train_A_1", "train_B_1", "2"]


def test_the_patient_is_the_first_group_of_the_pattern(tmp_path):
    touch(
        tmp_path, *(f"{kind}/p{n}_f{f}.nii" for kind in ("images", "labels") for n in (1, 2) for f in (1, 2))
    )
    scan = read_folders([tmp_path], patient_pattern=r"(p\d)_")
    assert [case.patient for case in scan.datalist.training] == ["p1", "p1", "p2", "p2"]


def test_a_pattern_without_a_group_gives_the_whole_match(tmp_path):
    touch(tmp_path, "images/p1_x.nii", "labels/p1_x.nii")
    assert read_folders([tmp_path], patient_pattern=r"p\d").datalist.training[0].patient == "p1"


def test_a_case_that_the_pattern_does_not_fit_is_rejected(tmp_path):
    touch(tmp_path, *(f"{kind}/{name}.nii" for kind in ("images", "labels") for name in ("p1", "other")))
    scan = read_folders([tmp_path], patient_pattern=r"p\d")
    assert names(scan) == ["p1"]
    assert scan.rejected == {"other": "the patient pattern does not fit its name; widen the pattern"}


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "no regular expression"), (r"nobody\d", "fits no file name")]
)
def test_a_useless_pattern_is_bad_usage(tmp_path, pattern, message):
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    with pytest.raises(UsageError, match=message):
        read_folders([tmp_path], patient_pattern=pattern)


def test_merged_folders_put_their_name_before_names_that_collide(tmp_path):
    for site, own in (("north", "x"), ("south", "y")):
        touch(
            tmp_path / site, *(f"{kind}/{name}.nii" for kind in ("images", "labels") for name in ("1", own))
        )
    scan = read_folders([tmp_path / "north", tmp_path / "south"])
    assert names(scan) == ["north_1", "x", "south_1", "y"]
    assert scan.datalist.name == "north + south"


def test_folders_of_the_same_name_are_told_apart_by_their_parents(tmp_path):
    for site in ("north", "south"):
        touch(tmp_path / site / "data", "images/1.nii", "labels/1.nii", "images/lone.nii")
    scan = read_folders([tmp_path / "north" / "data", tmp_path / "south" / "data"])
    assert names(scan) == ["north_data_1", "south_data_1"]
    assert list(scan.rejected) == ["north_data/images/lone.nii", "south_data/images/lone.nii"]


def test_folders_that_disagree_on_labels_are_not_merged(tmp_path):
    first, second = (write_decathlon(tmp_path / name, num_cases=1) for name in "ab")
    path = second / "dataset.json"
    path.write_text(path.read_text().replace('"front"', '"back"'))
    with pytest.raises(UsageError, match="Label 1 is 'back' in b and 'front' in another folder"):
        read_folders([first, second])


def test_class_indices_become_names_when_folders_merge(tmp_path):
    for site, classes in (("a", ["ill", "well"]), ("b", ["well", "ill"])):
        content = {"training": [{"image": f"{site}.png", "label": 0}], "classes": classes}
        touch(tmp_path / site, f"{site}.png")
        (tmp_path / site / "dataset.json").write_text(json.dumps(content))
    datalist = read_folders([tmp_path / "a", tmp_path / "b"]).datalist
    assert [case.class_label for case in datalist.training] == ["ill", "well"]
    assert datalist.classes == ("ill", "well")


def test_one_folder_given_twice_is_bad_usage(tmp_path):
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    with pytest.raises(UsageError, match="given twice"):
        read_folders([tmp_path, tmp_path])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none", "No folder .*none; expected"),
        (lambda path: path, "is empty; expected one of"),
        (lambda path: touch(path, "a/readme.txt"), "has no known layout; expected one of"),
    ],
)
def test_folders_that_cannot_be_read_are_bad_usage(tmp_path, make, message):
    with pytest.raises(UsageError, match=message):
        read_folder(make(tmp_path))


def test_no_folder_is_bad_usage():
    with pytest.raises(UsageError, match="No folder was given"):
        read_folders([])


def test_class_folders_need_two_classes_with_images(tmp_path):
    write_picture(tmp_path / "only" / "a.png")
    with pytest.raises(UsageError, match="no known layout"):
        read_folder(tmp_path)


@pytest.mark.realdata
def test_the_bad_hippocampus_files_are_all_named(data_root):
    scan = read_folder(data_root / "hippocampus_bad")
    assert scan.rejected == {
        "images/hippocampus_118.nii.gz": "image without a label",
        "labels/hippocampus_010.nii.gz": "label without an image",
        "labels/hippocampus_281.nii.gz": "label without an image",
    }
    assert scan.datalist.cases() == ()


@pytest.mark.realdata
def test_acdc_has_two_volumes_of_each_of_40_patients(data_root):
    scan = read_folders([data_root / "acdc_half"], patient_pattern=r"(patient\d+)")
    patients = [case.patient for case in scan.datalist.training]
    assert (len(patients), len(set(patients)), scan.rejected) == (80, 40, {})


@pytest.mark.realdata
def test_chest_films_keep_their_official_parts_and_classes(data_root):
    scan = read_folder(data_root / "chest_xray")
    sizes = [len(scan.datalist.section(part)) for part in ("training", "validation", "test")]
    assert (sizes, scan.datalist.classes) == ([5216, 16, 312], ("NORMAL", "PNEUMONIA"))


@pytest.mark.realdata
def test_hippocampus_without_dataset_json_gives_the_same_cases(hippocampus, tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).symlink_to(hippocampus / folder)
    with_json = {case.name for case in read_folder(hippocampus).datalist.training}
    assert set(names(read_folder(tmp_path))) == with_json
    assert all(re.fullmatch(r"hippocampus_\d{3}", name) for name in with_json)


def test_folders_of_other_names_are_named_by_the_user(tmp_path):
    touch(tmp_path, "ct/a.nii.gz", "ct/b.nii.gz", "tumour/a.nii.gz")
    scan = read_folders([tmp_path], pair=("ct", "tumour"))
    assert names(scan) == ["a"]
    assert scan.rejected == {"ct/b.nii.gz": "image without a label"}
    assert scan.layouts == ("ct + tumour",)
    with pytest.raises(UsageError, match=r"No folder mr in .*; there is ct, tumour"):
        read_folders([tmp_path], pair=("mr", "tumour"))
