import pytest
from phantoms import write_class_predictions

from medimg3d.data.class_predictions import is_classification, read_class_predictions
from medimg3d.errors import DataError, UsageError


def write(tmp_path, text):
    (tmp_path / "predictions.csv").write_text(text)
    return tmp_path


def test_reads_what_predict_writes(tmp_path):
    write_class_predictions(tmp_path, {"a/x.png": 0.8, "a/y.png": 0.45}, unsure=(0.4, 0.6))
    found = read_class_predictions(tmp_path)
    assert (found.classes, found.positive) == (("normal", "pneumonia"), "pneumonia")
    first, second = found.rows
    assert (first.file, first.case, first.decision) == ("a/x.png", "x", "pneumonia")
    assert first.probabilities == pytest.approx((0.2, 0.8))
    assert (first.unsure, second.unsure) == (False, True)
    assert read_class_predictions(tmp_path / "predictions.csv").rows == found.rows


def test_two_classes_need_only_the_probability_of_the_positive_one(tmp_path):
    write(tmp_path, "file,probability,decision\nx.png,0.8,sick\ny.png,0.1,well\n")
    found = read_class_predictions(tmp_path, classes=["well", "sick"], positive="sick")
    assert [row.probabilities for row in found.rows] == [pytest.approx((0.2, 0.8)), pytest.approx((0.9, 0.1))]
    with pytest.raises(DataError, match="has no columns probability_<class>"):
        read_class_predictions(tmp_path)


def test_bad_rows_are_rejected_with_their_reason_and_the_others_stay(tmp_path):
    head = "file,decision,probability_a,probability_b\n"
    rows = ["w.png,a,0.9,0.1", "x.png,c,0.5,0.5", "y.png,a,nan,0.1", "z.png,a,0.9,0.9", ",a,0.9,0.1"]
    found = read_class_predictions(write(tmp_path, head + "\n".join(rows)))
    assert [row.file for row in found.rows] == ["w.png"]
    assert found.rejected == {
        "x.png": "its decision is 'c'; expected one of a, b",
        "y.png": "a probability is 'nan'; expected a number from 0 to 1",
        "z.png": "its probabilities sum to 1.8; expected 1",
        "line 6": "its row names no file",
    }


def test_other_classes_than_the_bundles_are_refused(tmp_path):
    write_class_predictions(tmp_path, {"x.png": 0.8})
    with pytest.raises(DataError, match="has the classes normal, pneumonia; expected normal, nodule"):
        read_class_predictions(tmp_path, classes=["normal", "nodule"])
    with pytest.raises(DataError, match="expected the positive one, nodule"):
        read_class_predictions(tmp_path, positive="nodule")


def test_missing_files_and_columns_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"There is no .*predictions\.csv"):
        read_class_predictions(tmp_path)
    with pytest.raises(DataError, match="has no column 'decision'; found file"):
        read_class_predictions(write(tmp_path, "file\nx.png\n"))
    with pytest.raises(DataError, match="found no row at all"):
        read_class_predictions(write(tmp_path, "file,decision\n"))


def test_a_table_without_label_maps_is_a_classifiers(tmp_path):
    assert not is_classification(tmp_path)
    write_class_predictions(tmp_path, {"x.png": 0.8})
    assert is_classification(tmp_path)
    assert is_classification(tmp_path / "predictions.csv")
    (tmp_path / "x_seg.nii.gz").touch()
    assert not is_classification(tmp_path)
