import pytest
from scipy.stats import binomtest

from medimg3d.data.dataset_advice import advise, evidence


def summary(**changes) -> dict:
    """A data set of which nothing is to be said, with the given parts in place of its own."""
    quiet = {
        "sections": {"training": 1000},
        "classes": {},
        "patients": {"cases_with_patient": 1000, "count": 1000, "in_several_sections": []},
        "images": {},
        "structures": {},
        "evidence": [],
        "duplicates": {"groups": []},
        "shortcuts": {"classes": [], "sections": []},
        "unreadable": {},
        "not_in_a_case": {},
    }
    return quiet | changes


def image(**changes) -> dict:
    size = {"min": [10.0, 10.0], "median": [10.0, 10.0], "max": [10.0, 10.0]}
    quiet = {
        "read": 5,
        "dimensions": [2],
        "sizes": [],
        "num_sizes": 1,
        "size": size,
        "size_by_section": {"training": size},
        "spacings_mm": [],
        "spacing_mm": None,
        "spacing_unknown": 0,
        "range": {"min": 1.0, "median": 1.0, "max": 1.0},
        "scales_differ": False,
        "constant": [],
        "not_finite": [],
    }
    return quiet | changes


def texts(**changes):
    return [advice.text for advice in advise(summary(**changes))]


def classes(**counts) -> dict:
    sections = {name: sum(own.values()) for name, own in counts.items()}
    patients = {"cases_with_patient": sum(sections.values()), "count": 1, "in_several_sections": []}
    rows = evidence(sections, counts, {})
    return {"sections": sections, "classes": counts, "evidence": rows, "patients": patients}


def test_nothing_to_say():
    assert advise(summary()) == []


def test_sixteen_validation_films_are_too_few_by_the_interval_of_wilson():
    found = advise(
        summary(
            **classes(training={"a": 500, "b": 500}, validation={"a": 8, "b": 8}, test={"a": 1000, "b": 1000})
        )
    )
    interval = binomtest(14, 16).proportion_ci(method="wilson")
    assert (round(100 * interval.low), round(100 * interval.high)) == (64, 97)
    assert [advice.level for advice in found] == ["warning"]
    assert found[0].text.startswith(
        "The validation part has 16 cases: too few to decide anything. 14 of 16 right (88 %) has a 95 % interval "
        "from 64 to 97 % (Wilson); 8 of them are a, where 7 of 8 right (88 %) means 53 to 98 %. Do not choose a "
        "threshold"
    )


def test_a_large_part_with_a_small_class_is_a_note():
    found = advise(summary(**classes(training={"a": 500, "b": 500}, test={"a": 50, "b": 2000})))
    assert [advice.level for advice in found] == ["warning", "note"]  # the mix differs, too
    assert "50 of them are a, where 45 of 50 right (90 %) means 79 to 96 %" in found[1].text


def test_folds_are_parts_that_are_scored():
    rows = evidence(
        {"training": 100}, {"training": {"a": 80, "b": 20}}, {"0": 20, "1": 20, "2": 20, "3": 20, "4": 20}
    )
    assert [(row["part"], row["n"], row["class_name"], row["class_n"]) for row in rows] == [
        ("one fold", 20, "b", 4)
    ]


def test_classes_out_of_balance():
    (text,) = texts(**classes(training={"a": 300, "b": 100}))
    assert text.startswith("The classes are unbalanced: a 300, b 100. Always saying a is right in 75 %")
    assert texts(**classes(training={"a": 140, "b": 100})) == []


def test_parts_mixed_in_another_way():
    found = texts(**classes(training={"a": 500, "b": 500}, test={"a": 350, "b": 650}))
    assert found[0].startswith("a is 50 % of training and 35 % of test (chi-square p = ")
    assert texts(**classes(training={"a": 500, "b": 500}, test={"a": 480, "b": 520})) == []


def test_duplicates_by_what_they_spoil():
    cases = [{"case": name, "section": "training", "class": None} for name in "ab"]
    kinds = [(True, False), (False, True), (False, False), (False, False)]
    groups = [{"cases": cases, "contradicts_itself": a, "crosses_sections": b} for a, b in kinds]
    found = advise(summary(duplicates={"groups": groups}))
    assert [advice.level for advice in found] == ["warning", "warning", "note"]
    assert "1 group (2 cases) with contradicting classes" in found[0].text
    assert "1 group (2 cases) in more than one of training, validation and test" in found[1].text
    assert "2 groups (4 cases) within one part" in found[2].text


def test_patients_in_two_parts_and_not_known():
    shared = [{"patient": "p", "cases": {"training": ["a"], "test": ["b"]}}]
    found = texts(patients={"cases_with_patient": 900, "count": 800, "in_several_sections": shared})
    assert found[0].startswith("1 patient in more than one of training, validation and test")
    assert found[1].startswith("The patient is known of 900 of 1,000 cases")


def separation(feature, auc, half=0.02):
    return {"feature": feature, "auc": auc, "low": auc - half, "high": auc + half}


def test_a_shortcut_is_named_in_its_better_direction_and_a_weak_one_is_not():
    features = [separation("dark border share", 0.2), separation("mean brightness", 0.61)]
    entry = {"section": "training", "first": "ill", "second": "well", "features": features}
    joint = {"auc": 0.85, "low": 0.8, "high": 0.9}
    (text,) = texts(shortcuts={"classes": [entry | {"joint": joint}], "sections": []})
    assert "tell ill from well (AUC): dark border share 0.80." in text
    assert "All of them together reach 0.85 (95 % interval 0.80 to 0.90)" in text
    assert "mean brightness" not in text


def test_parts_that_were_made_in_other_ways():
    entry = {
        "class_name": None,
        "first": "test",
        "second": "training",
        "features": [separation("file size", 0.9)],
    }
    (text,) = texts(shortcuts={"classes": [], "sections": [entry]})
    assert text.startswith("Test and training differ in how the images were made (AUC): file size 0.90.")


def test_mixed_and_long_spacings_and_unknown_ones():
    spread = {"min": [1.0, 1.0, 1.0], "median": [1.0, 1.0, 4.0], "max": [1.0, 1.0, 5.0]}
    found = texts(images={"image": image(dimensions=[3], spacing_mm=spread, spacing_unknown=2)})
    assert found[0].startswith("Images have mixed spacings (K 1 to 5 mm)")
    assert found[1].startswith("Images: only 3 of 5 files states a spacing")
    assert found[2].startswith("Images have long voxels (median 1 × 1 × 4 mm)")


def test_sizes_are_said_once_for_images_that_agree():
    size = {"min": [10.0, 10.0], "median": [10.0, 10.0], "max": [20.0, 10.0]}
    one = image(num_sizes=2, size=size, sizes=[{"value": [10, 10], "n": 4}])
    assert len(texts(images={"ct": one, "pet": dict(one)})) == 1
    assert texts(images={"ct": one, "pet": image()})[0].startswith("ct: images have 2 sizes")


def test_a_part_of_other_sizes():
    large = {"min": [30.0, 30.0], "median": [30.0, 30.0], "max": [30.0, 30.0]}
    (text,) = texts(images={"image": image(size_by_section=image()["size_by_section"] | {"test": large})})
    assert text.startswith(
        "Images of test have another size than those of training (median 30 × 30 and 10 × 10)"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"not_finite": ["a"]}, "1 image hold NaN or infinity, such as a"),
        ({"constant": ["a", "b"]}, "2 images show one value nearly everywhere, such as a"),
        (
            {"scales_differ": True, "range": {"min": 10.0, "median": 1.0, "max": 2500.0}},
            "is 10 to 2,500 wide",
        ),
        ({"dimensions": [2, 3]}, "Images are mixed 2D and 3D"),
    ],
)
def test_what_single_images_are(changes, expected):
    assert expected in texts(images={"image": image(**changes)})[0]


def test_a_structure_that_some_cases_lack_and_a_small_part():
    structures = {
        "liver": {"label": 1, "cases": 7, "of_cases": 9},
        "background": {"label": 0, "cases": 9, "of_cases": 9},
    }
    found = texts(sections={"training": 995, "test": 5}, structures=structures)
    assert found[0].startswith("The test part has 5 cases")
    assert found[1].startswith("liver is marked in 7 of 9 label maps")


def test_broken_files_come_first():
    found = advise(summary(unreadable={"a": "is broken"}, not_in_a_case={"b": "x", "c": "y"}))
    assert [advice.text.split(";")[0] for advice in found] == [
        "1 case cannot be used",
        "2 files of the folder in no case",
    ]
