import gzip
from collections import Counter

import numpy as np
import pytest
from phantoms import affine, two_part_phantom, write_decathlon, write_dicom_series, write_nifti, write_picture

from medimg3d.data import facts_worker, image_facts
from medimg3d.data.checks import CheckReport, check_datalist, keep_accepted
from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.image_facts import corner_distance_mm, read_facts
from medimg3d.errors import DataError

LABELS = {0: "background", 1: "front", 2: "rear"}


def pair(folder, name, *, image=None, label=None, image_matrix=None, label_matrix=None, seed=0):
    """One case on disk; parts not given come from the phantom."""
    default_image, default_label = two_part_phantom(seed)
    return Case(
        image=write_nifti(folder / f"{name}.nii.gz", default_image if image is None else image, image_matrix),
        label=write_nifti(
            folder / f"{name}_seg.nii.gz", default_label if label is None else label, label_matrix
        ),
        id=name,
    )


def check(*cases, labels=LABELS, **options):
    return check_datalist(Datalist(training=cases, labels=labels), **options)


def reason(report, name="case"):
    assert list(report.rejected) == [name]
    return report.rejected[name]


def test_good_cases_are_accepted_with_their_label_values(tmp_path):
    datalist = load_datalist(write_decathlon(tmp_path, num_cases=3) / "dataset.json")
    report = check_datalist(datalist)
    assert report == CheckReport(["phantom_000", "phantom_001", "phantom_002"], {}, {}, (0, 1, 2))


def test_every_case_ends_accepted_or_rejected(tmp_path):
    good, bad = pair(tmp_path, "good"), pair(tmp_path, "bad", seed=1)
    bad.label.unlink()
    report = check(good, bad)
    assert set(report.accepted) | set(report.rejected) == {"good", "bad"}
    assert report.accepted == ["good"]


def test_a_missing_image_is_named(tmp_path):
    case = pair(tmp_path, "case")
    case.image.unlink()
    assert reason(check(case)).startswith("image is missing")


def test_a_truncated_file_is_named_and_the_rest_goes_on(tmp_path):
    case, good = pair(tmp_path, "case"), pair(tmp_path, "good", seed=1)
    case.image.write_bytes(case.image.read_bytes()[:2000])
    report = check(case, good)
    assert "image cannot be read" in reason(report)
    assert report.accepted == ["good"]


def test_a_file_that_is_no_nifti_is_named_without_its_path(tmp_path):
    case = pair(tmp_path, "case")
    case.image.write_bytes(gzip.compress(b"no image at all"))
    assert "cannot be read" in reason(check(case))
    assert str(tmp_path) not in reason(check(case))


def test_an_empty_file_cannot_be_read(tmp_path):
    case = pair(tmp_path, "case")
    case.image.write_bytes(b"")
    assert "image cannot be read" in reason(check(case))


def test_an_unknown_ending_is_named(tmp_path):
    path = tmp_path / "case.txt"
    path.write_text("x")
    assert "image is of an unknown kind (.txt)" in reason(check(Case(image=path)))


def test_image_and_label_of_different_shape(tmp_path):
    case = pair(tmp_path, "case", label=np.zeros((30, 42, 27), np.uint8))
    assert "differ in shape (30x42x28 and 30x42x27)" in reason(check(case))


def test_a_label_shifted_by_half_a_mm_is_refused_unless_allowed(tmp_path):
    case = pair(tmp_path, "case", label_matrix=affine(origin_mm=(0.5, 0, 0)))
    assert "lie up to 0.5 mm apart (allowed 0.1 mm)" in reason(check(case))
    assert check(case, tolerance_mm=0.6).accepted == ["case"]


def test_a_spacing_wrong_by_a_tenth_moves_the_far_corner_by_5_mm(tmp_path):
    # shape 31, 41, 1: last voxels at 30 and 40 steps; 0.1 mm a step is (3, 4, 0) mm, 5 mm by Pythagoras
    array = np.ones((31, 41, 1), np.uint8)
    first = read_facts(write_nifti(tmp_path / "a.nii", array))
    second = read_facts(write_nifti(tmp_path / "b.nii", array, affine(spacing_mm=(1.1, 1.1, 1.0))))
    assert corner_distance_mm(first, second) == pytest.approx(5.0, abs=1e-5)


def test_a_flipped_label_of_the_same_shape_is_refused(tmp_path):
    flipped = affine()
    flipped[0] = [-1, 0, 0, 29]
    case = pair(tmp_path, "case", label_matrix=flipped)
    assert "lie up to 29 mm apart" in reason(check(case))


def test_a_label_value_that_no_structure_has(tmp_path):
    label = two_part_phantom(0)[1]
    label[0, 0, 0] = 7
    found = reason(check(pair(tmp_path, "case", label=label)))
    assert "label holds the value 7; expected one of [0, 1, 2]. Correct the label map" in found
    assert "gets the next number, in every label map" in found  # a name for 7 alone would leave a gap


def test_unnamed_labels_may_hold_any_whole_number(tmp_path):
    label = np.full((30, 42, 28), 255, np.uint8)
    assert check(pair(tmp_path, "case", label=label), labels={}).label_values == (255,)


def test_a_negative_label_is_refused(tmp_path):
    label = two_part_phantom(0)[1].astype(np.int16) - 1
    assert "label holds the value -1; expected values from 0" in reason(
        check(pair(tmp_path, "case", label=label), labels={})
    )


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5"), (np.nan, "nan"), (np.inf, "inf")])
def test_a_label_value_that_is_no_whole_number(tmp_path, value, shown):
    label = two_part_phantom(0)[1].astype(np.float32)
    label[3, 3, 3] = value
    case = pair(tmp_path, "case", label=label)
    assert f"label holds the value {shown}; expected whole numbers" in reason(check(case))


def test_whole_numbers_stored_as_float_are_fine(tmp_path):
    assert check(pair(tmp_path, "case", label=two_part_phantom(0)[1].astype(np.float32))).accepted == ["case"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_in_an_image(tmp_path, value):
    image = two_part_phantom(0)[0]
    image[1, 1, 1] = value
    assert "image holds NaN or infinity" in reason(check(pair(tmp_path, "case", image=image)))


def test_an_empty_label_is_a_warning(tmp_path):
    report = check(pair(tmp_path, "case", label=np.zeros((30, 42, 28), np.uint8)))
    assert report.accepted == ["case"]
    assert report.warnings["case"].startswith("label is empty (background only); expected a structure")


def test_image_and_label_must_be_two_files(tmp_path):
    case = pair(tmp_path, "case")
    report = check(Case(image=case.image, label=case.image, id="case"))
    assert reason(report).startswith("image and label are the same file")


def test_the_same_content_under_another_name_is_refused_even_recompressed(tmp_path):
    first = pair(tmp_path, "first")
    second = Case(image=write_nifti(tmp_path / "second.nii", two_part_phantom(0)[0]), label=first.label)
    assert "same content as another: already there as first, which stays" in reason(
        check(first, second), "second"
    )


def test_the_same_image_listed_twice(tmp_path):
    case = pair(tmp_path, "case")
    again = Case(image=case.image, label=case.label, id="again")
    assert "listed twice: already there as case" in reason(check(case, again), "again")


def test_the_same_id_twice(tmp_path):
    report = check(pair(tmp_path / "a", "case"), pair(tmp_path / "b", "case", seed=1))
    text = 'the name case is used twice; expected a name of its own. Give each case its own "id".'
    assert reason(report, "case #2") == text
    assert report.accepted == ["case"]


def test_a_case_in_training_and_test_stays_in_the_test_list(tmp_path):
    case = pair(tmp_path, "case")
    datalist = Datalist(training=(case,), test=(case,), labels=LABELS)
    report = check_datalist(datalist)
    assert "already there as case in the test list" in reason(report, "case #2")
    kept = keep_accepted(datalist, report)
    assert (len(kept.training), len(kept.test)) == (0, 1)


def test_a_rejected_case_does_not_push_out_its_twin(tmp_path):
    bad = pair(tmp_path, "bad", label=np.full((30, 42, 28), 9, np.uint8))
    good = pair(tmp_path, "good")  # the same image, a good label
    assert check(bad, good).accepted == ["good"]


def test_a_patient_in_training_and_test_stays_in_the_test_list_and_is_not_named(tmp_path):
    train = Case(image=write_picture(tmp_path / "train.png", 1), patient="Secret")
    test = Case(image=write_picture(tmp_path / "test.png", 2), patient="Secret")
    report = check_datalist(Datalist(training=(train,), test=(test,)))
    assert "its patient is also in the test list" in reason(report, "train")
    assert "Secret" not in repr(report)


def test_a_4d_image_among_3d_ones_is_refused(tmp_path):
    cases = [pair(tmp_path, f"c{n}", seed=n) for n in range(2)]
    odd = Case(image=write_nifti(tmp_path / "odd.nii.gz", np.ones((4, 5, 6, 7), np.float32)))
    assert reason(check(*cases, odd), "odd").startswith("image is 4D (4x5x6x7); expected 3D, as the 2 others")


def test_a_colour_picture_among_grey_ones_is_a_warning(tmp_path):
    from PIL import Image

    grey = [Case(image=write_picture(tmp_path / f"{n}.png", n)) for n in range(2)]
    Image.new("RGB", (12, 8), (1, 2, 3)).save(tmp_path / "colour.png")
    report = check(*grey, Case(image=tmp_path / "colour.png"))
    assert list(report.warnings) == ["colour"]
    assert report.warnings["colour"].startswith("image has 3 channels; expected 1, as most have")


def test_a_colour_label_is_refused(tmp_path):
    from PIL import Image

    Image.new("RGB", (12, 8)).save(tmp_path / "seg.png")
    case = Case(image=write_picture(tmp_path / "case.png"), label=tmp_path / "seg.png")
    assert "label has 3 colour channels" in reason(check(case))


def test_channels_on_different_grids_are_refused_and_named_images_warned_of(tmp_path):
    image = two_part_phantom(0)[0]
    ct = write_nifti(tmp_path / "ct.nii", image)
    pet = write_nifti(tmp_path / "pet.nii", image[:-1])
    assert "channels differ in shape" in reason(check(Case(image=(ct, pet), id="case")))
    report = check(Case(images={"ct": ct, "pet": pet}, id="case"))
    assert "Resample them before stacking" in report.warnings["case"]


def test_a_missing_named_image_is_called_by_its_name(tmp_path):
    ct = write_nifti(tmp_path / "ct.nii", two_part_phantom(0)[0])
    report = check(Case(images={"ct": ct, "pet": tmp_path / "pet.nii"}, id="case"))
    assert reason(report).startswith("image pet is missing")


def test_nrrd_and_nifti_of_one_grid_agree(tmp_path):
    import SimpleITK

    image, label = two_part_phantom(0)
    matrix = affine(spacing_mm=(0.7, 0.8, 2.5), origin_mm=(-10, 20, 30))
    case = pair(tmp_path, "case", image=image, label=label, image_matrix=matrix, label_matrix=matrix)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(case.label)), str(tmp_path / "seg.nrrd"), True)
    assert check(Case(image=case.image, label=tmp_path / "seg.nrrd", id="case")).accepted == ["case"]


def test_a_dicom_folder_is_an_image(tmp_path):
    facts = read_facts(write_dicom_series(tmp_path / "ct"))
    assert (facts.shape, facts.channels) == ((6, 5, 3), 1)
    # LPS to RAS: I and J run to negative x and y; K runs up by the distance of the positions
    np.testing.assert_allclose(facts.affine, np.diag([-0.5, -0.5, 2.0, 1.0]), atol=1e-6)


@pytest.mark.parametrize(
    ("positions_mm", "gaps"), [((0.0, 2.0, 6.0, 8.0), "2.00 to 4.00"), ((0.0, 2.0, 2.0, 4.0), "0.00 to 2.00")]
)
def test_a_missing_or_doubled_slice_is_refused(tmp_path, positions_mm, gaps):
    case = Case(image=write_dicom_series(tmp_path / "case", positions_mm))
    assert f"image has slice gaps from {gaps} mm" in reason(check(case))


def test_two_series_in_a_folder_are_refused(tmp_path):
    write_dicom_series(tmp_path / "other", (0.0, 1.0))
    folder = write_dicom_series(tmp_path / "case")
    for file in (tmp_path / "other").iterdir():
        file.rename(folder / f"other_{file.name}")
    assert "a folder with 2 DICOM series; expected exactly one" in reason(check(Case(image=folder)))


def test_no_file_is_read_twice(tmp_path, monkeypatch):
    read = Counter()

    def counting(path, **options):
        read[path] += 1
        return image_facts.read_facts(path, **options)

    monkeypatch.setattr(facts_worker, "read_facts", counting)
    first = pair(tmp_path, "first")
    second = Case(image=write_nifti(tmp_path / "b.nii", two_part_phantom(1)[0]), label=first.label, id="b")
    check(first, second, Case(image=first.image, id="again"))
    assert set(read.values()) == {1}
    assert len(read) == 3


def test_all_that_is_wrong_with_a_case_is_named(tmp_path):
    image, label = two_part_phantom(0)
    image[0, 0, 0], label[0, 0, 0] = np.nan, 7
    found = reason(check(pair(tmp_path, "case", image=image, label=label)))
    assert "NaN" in found
    assert "the value 7" in found


def test_a_known_defect_is_a_warning_and_anything_else_is_no_known_defect(tmp_path):
    first, second = pair(tmp_path, "first"), pair(tmp_path, "second")  # of one content
    datalist = Datalist(training=(first, second), labels=LABELS, extra={"known_defects": ["duplicate"]})
    report = check_datalist(datalist)
    assert report.accepted == ["first", "second"]
    assert "same content as another" in report.warnings["second"]
    with pytest.raises(DataError, match="expected a list of some of duplicate"):
        check_datalist(Datalist(training=(first,), extra={"known_defects": ["unreadable"]}))


def test_the_ignored_value_of_a_datalist_is_no_wrong_label(tmp_path):
    label = two_part_phantom(0)[1]
    label[0, 0, 0] = 255
    case = pair(tmp_path, "case", label=label)
    datalist = Datalist(training=(case,), labels=LABELS, extra={"ignore_label": 255})
    assert check_datalist(datalist).accepted == ["case"]


def test_a_label_beside_the_picture_is_refused(tmp_path):
    image, label = np.full((30, 42, 28), -1024, np.int16), np.zeros((30, 42, 28), np.uint8)
    image[2:10, 5:20, 5:20] = 40
    label[10:14, 5:9, 5:9] = 1  # begins where the picture ends
    found = reason(check(pair(tmp_path, "case", image=image, label=label)))
    assert "the label's foreground lies where the image holds nothing but its background value" in found
    label[9] = label[10]  # one slice inside
    assert check(pair(tmp_path, "case", image=image, label=label)).accepted == ["case"]


def test_a_label_far_from_the_image_is_said_to_lie_outside(tmp_path):
    near, far = affine(origin_mm=(0, 5, 0)), affine(origin_mm=(0, 500, 0))
    outside = "the label's foreground lies wholly outside the image"
    assert outside in reason(check(pair(tmp_path, "case", label_matrix=far)))
    assert outside not in reason(check(pair(tmp_path, "case", label_matrix=near)))


def test_an_image_of_one_value_is_a_warning(tmp_path):
    report = check(pair(tmp_path, "case", image=np.full((30, 42, 28), 3, np.int16)))
    assert report.warnings["case"].startswith("image holds one value only")


def test_two_components_of_a_vector_image_are_two_channels(tmp_path):
    image = two_part_phantom(0)[0]
    path = write_nifti(tmp_path / "case.nii.gz", np.stack([image, image], axis=-1)[..., None, :])
    facts = read_facts(path)
    assert (facts.shape, facts.channels) == ((30, 42, 28), 2)


def test_progress_counts_every_case(tmp_path):
    seen = []
    cases = [Case(image=write_picture(tmp_path / f"{n}.png", n)) for n in range(3)]
    check(*cases, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_report_cannot_both_accept_and_reject():
    with pytest.raises(ValueError, match="both accepted and rejected: a"):
        CheckReport(accepted=["a"], rejected={"a": "bad"})


@pytest.mark.realdata
def test_all_220_hippocampus_pairs_are_good(hippocampus):
    report = check_datalist(load_datalist(hippocampus / "dataset.json"))
    assert (len(report.accepted), report.rejected, report.warnings) == (220, {}, {})
    assert report.label_values == (0, 1, 2)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rgb24_10x10x4", "colour image"),
        ("rgba32_cit168", "colour image"),
        ("int32_tiny_slope_inter_half", ""),
        ("pcasl_4d_float32", ""),
    ],
)
def test_odd_nifti_files_are_read_or_named(data_root, name, message):
    report = check(Case(image=data_root / "nifti_oddities" / f"{name}.nii.gz"))
    assert message in report.rejected.get(name, "")
    assert bool(message) == (name in report.rejected)


@pytest.mark.realdata
def test_a_half_step_in_a_label_is_found_in_a_real_file(data_root):
    """Its values are about 0.5 and 1 after scaling: no label map."""
    path = data_root / "nifti_oddities" / "int32_tiny_slope_inter_half.nii.gz"
    values = read_facts(path, as_label=True).label_values
    assert any(value != int(value) for value in values)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("folder", "message"),
    [("notavolume", "slice gaps"), ("sliceincrement", "slice gaps"), ("gantrytilting", "gantry tilt")],
)
def test_broken_dicom_series_are_refused(data_root, folder, message):
    report = check(Case(image=data_root / "dicom_series" / "failing" / folder / "001", id="case"))
    assert message in reason(report)
