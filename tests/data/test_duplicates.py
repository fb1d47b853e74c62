import pytest

from medimg3d.data.duplicates import DuplicateGroup, Occurrence, find_duplicates


def image(case, pixels, *, file=None, section="training", name="ill"):
    return Occurrence(case, section, name, file or case, pixels)


def test_the_same_pixels_in_two_cases_are_a_group():
    (group,) = find_duplicates([image("a", "x"), image("b", "y"), image("c", "x")])
    assert [one.case for one in group.occurrences] == ["a", "c"]
    assert (group.same_bytes, group.crosses_sections, group.contradicts_itself) == (False,) * 3


def test_the_same_bytes_another_section_and_another_class_are_said():
    (group,) = find_duplicates(
        [image("a", "x", file="f"), image("b", "x", file="f", section="test", name="well")]
    )
    assert group.same_bytes
    assert (group.sections, group.classes) == (("training", "test"), ("ill", "well"))
    assert group.crosses_sections
    assert group.contradicts_itself


def test_a_case_without_a_class_contradicts_nothing():
    (group,) = find_duplicates([image("a", "x"), image("b", "x", name=None)])
    assert not group.contradicts_itself


def test_two_images_of_one_case_are_no_duplicates():
    assert find_duplicates([image("a", "x"), image("a", "x")]) == []


def test_one_image_is_no_group():
    with pytest.raises(ValueError, match="expected two or more"):
        DuplicateGroup((image("a", "x"),))
