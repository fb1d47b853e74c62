import pytest

from medimg3d.report.figures import box_plot
from medimg3d.report.page import case_page, evaluation_page, summary_rows

NASTY = "<script>alert('x')</script>"


@pytest.fixture
def picture(tmp_path):
    return box_plot({"a": [1.0, 2.0]}, tmp_path / "picture.png", axis_label="Dice")


def summary(name="front") -> dict:
    dice = {"mean": 0.81234, "low": 0.7, "high": 0.9, "n": 3, "left_out": {"class in neither": 1}}
    distance = {"mean": 12.345, "low": None, "high": None, "n": 1, "left_out": {}}
    return {
        "num_cases": 5,
        "num_scored": 4,
        "classes": {"1": name},
        "metrics": {"dice": {name: dice}, "hd95_mm": {name: distance}},
        "worst": [{"case": "b", "mean_dice": 0.1, "dice": {name: None}}],
        "warnings": [f"Trained on {name}"],
        "seen_in_training": {"checked": True, "why_not": "", "cases": {}},
        "rejected": {"e": f"unreadable {name}"},
        "not_drawn": {},
        "bundle": {},
        "settings": {"level": 0.95, "tolerance_mm": 1.0},
        "versions": {"medimg3d": "1"},
    }


def test_rows_say_mean_interval_n_and_who_is_left_out():
    assert [list(row.values()) for row in summary_rows(summary())] == [
        ["Dice", "front", "0.812", "0.700 to 0.900", "3", "1 class in neither"],
        ["HD95 (mm)", "front", "12.35", "", "1", ""],
    ]


def test_the_evaluation_page_is_one_file_with_everything_in_it(tmp_path, picture):
    page = evaluation_page(summary(), {"dice": picture, "overlay:b": picture}, tmp_path / "page.html")
    text = page.read_text()
    for part in ("4 of 5 cases scored, 1 rejected", "0.700 to 0.900", "Trained on front", "unreadable front"):
        assert part in text
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in text
    assert "Research use only, not for diagnosis" in text


def test_everything_from_outside_is_escaped(tmp_path, picture):
    page = evaluation_page(summary(NASTY), {"dice": picture}, tmp_path / "page.html")
    assert "<script>" not in page.read_text()
    page = case_page(
        case=NASTY,
        volumes_ml={NASTY: 1.0},
        overlay=picture,
        bundle={"name": NASTY},
        out=tmp_path / "case.html",
    )
    assert "<script>" not in page.read_text()
    assert "&lt;script&gt;" in page.read_text()


def test_the_case_page_names_volumes_bundle_and_purpose(tmp_path, picture):
    bundle = {"name": "unet", "version": "1.2.0", "weights_sha256": "abc"}
    volumes = {"front": 1.2345, "rear": 123.456}
    text = case_page(
        case="a", volumes_ml=volumes, overlay=picture, bundle=bundle, out=tmp_path / "a.html"
    ).read_text()
    for part in ("unet, version 1.2.0", "1.234", "123.5", "abc", "Research use only, not for diagnosis"):
        assert part in text


def test_the_case_page_needs_no_volume_and_no_bundle_name(tmp_path, picture):
    text = case_page(case="a", volumes_ml={}, overlay=picture, bundle={}, out=tmp_path / "a.html").read_text()
    assert "the voxel size is not known" in text
    assert "an unnamed bundle" in text
