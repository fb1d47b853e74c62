import re

import pytest

from medimg3d.report.explore_figures import count_bars
from medimg3d.report.explore_page import count_tables, explore_page

NASTY = "<script>alert('x')</script>"


def separation(name):
    return {"feature": name, "first": name, "second": "b", "auc": 0.2, "low": 0.1, "high": 0.3}


def summary(name="a") -> dict:
    spread = {"min": 1.0, "median": 2.0, "max": 31234.0}
    axes = {"min": [10.0, 10.0], "median": [10.0, 10.0], "max": [20.0, 10.0]}
    intensity = {"images": 3, "percentiles": {"50": 1.5}, "mean": spread, "border_share": spread}
    image = {
        "read": 3,
        "dimensions": [2],
        "sizes": [{"value": [10, 10], "n": 2}],
        "num_sizes": 2,
        "size": axes,
        "spacing_mm": axes,
        "num_spacings": 2,
        "spacing_unknown": 1,
        "intensity": intensity,
        "intensity_by_class": {name: intensity},
    }
    case = {"case": name, "section": "training", "class": name}
    group = {
        "cases": [case, case | {"section": "test", "class": "b"}],
        "same_bytes": False,
        "crosses_sections": True,
        "contradicts_itself": True,
    }
    entry = {"first": name, "second": "b", "features": [separation(name)]}
    example = {"n": 3, "right": 3, "low": 0.4, "high": 1.0}
    structure = {"cases": 1, "of_cases": 2, "volume_ml": spread, "percentiles": {"50": 3.0}}
    return {
        "name": name,
        "layout": name,
        "sections": {"training": 3, "test": 1},
        "classes": {"training": {name: 2, "b": 1}, "test": {name: 1, "b": 0}},
        "values": {name: {"training": {"x": 3}, "test": {"x": 1}}},
        "folds": {"0": 2, "1": 1},
        "patients": {
            "count": 2,
            "in_several_sections": [{"patient": name, "cases": {"training": [name], "test": [name]}}],
        },
        "images": {name: image},
        "structures": {name: structure},
        "evidence": [
            {"part": "test"} | example,
            {"part": "fold", "class_name": name}
            | example
            | {f"class_{key}": value for key, value in example.items()},
        ],
        "duplicates": {"num_groups": 70, "num_cases": 140, "groups": [group] * 70},
        "shortcuts": {
            "classes": [entry | {"section": "training", "joint": separation(name)}],
            "sections": [entry | {"class_name": name}],
        },
        "advice": [{"level": "warning", "text": name}, {"level": "note", "text": name}],
        "unreadable": {f"{name}{n}": name for n in range(120)},
        "not_in_a_case": {name: name},
        "left_out": {name: name},
        "not_drawn": {name: name},
    }


@pytest.fixture
def page(tmp_path):
    picture = count_bars({"training": {"a": 1}}, tmp_path / "p.png")

    def write(content):
        figures = dict.fromkeys(("counts:class", "samples", "features", "intensity:a", "volumes"), picture)
        return explore_page(content, figures, tmp_path / "explore.html").read_text(encoding="utf-8")

    return write


def test_the_page_is_one_file_with_pictures_inside_and_without_addresses(page):
    html = page(summary())
    assert html.count("data:image/png;base64,") == 5
    assert not re.search(r"(src|href)=\"(?!data:)", html)


def test_every_text_is_escaped(page):
    html = page(summary(NASTY))
    assert NASTY not in html
    assert html.count("&lt;script&gt;") > 30


def test_an_auc_below_one_half_is_turned_round(page):
    html = page(summary())
    assert re.search(
        r"<td>0\.80</td>\s*<td class=\"interval\">0\.70 to 0\.90</td>\s*<td class=\"text\">b<", html
    )


def test_contradicting_duplicates_are_called_out_and_long_lists_are_cut(page):
    html = page(summary())
    assert "contradicting: a, b" in html
    assert "And 10 more; explore.json has them all" in html
    assert "The first 100 of 120" in html


def test_a_set_of_which_little_is_known(page):
    content = summary()
    content |= {"classes": {}, "values": {}, "folds": {}, "structures": {}, "evidence": [], "advice": []}
    content |= {"shortcuts": {"classes": [], "sections": []}, "duplicates": {"groups": []}}
    content |= {"unreadable": {}, "not_in_a_case": {}, "not_drawn": {}, "left_out": {}}
    content["patients"] = {"count": 0, "in_several_sections": []}
    html = page(content)
    for text in (
        "patients not known",
        "No picture occurs twice",
        "Nothing stood out",
        "None: all 4 cases were read",
    ):
        assert text in html
    assert "Can a model cheat" not in html
    assert "Patients in more than one part" not in html  # not known is not none


def test_that_no_patient_is_in_two_parts_is_said(page):
    html = page(summary() | {"patients": {"count": 2, "in_several_sections": []}})
    assert "None, by the datalist's patients" in html


def test_counts_with_shares_of_each_part():
    tables = count_tables(summary())
    assert tables[0] == {
        "title": "class",
        "columns": ["class", "training", "test"],
        "rows": [["a", "2 (67 %)", "1 (100 %)"], ["b", "1 (33 %)", "0 (0 %)"], ["all", "3", "1"]],
    }
    assert count_tables(summary() | {"classes": {}})[0]["rows"] == [["training", "3"], ["test", "1"]]
