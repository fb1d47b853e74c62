import os
import sys

import numpy as np
import pytest
from phantoms import affine, two_part_phantom, write_nifti

from medimg3d.data import facts_reader
from medimg3d.data.facts_reader import FactsReader
from medimg3d.data.image_facts import ImageFacts, read_facts


@pytest.fixture
def files(tmp_path):
    return [write_nifti(tmp_path / f"{n}.nii.gz", two_part_phantom(n)[1]) for n in range(4)]


def same(one: ImageFacts, other: ImageFacts) -> bool:
    return one.as_json() == other.as_json()


def test_facts_survive_json():
    facts = ImageFacts((3, 4, 5), 1, affine((1, 2, 3)), "ab", True, (0.0, 2.0), ((0, 1), (2, 3), (4, 5)))
    assert same(ImageFacts.from_json(facts.as_json()), facts)
    plain = ImageFacts((3, 4), 3, None, "ab", False)
    assert same(ImageFacts.from_json(plain.as_json()), plain)


def test_processes_find_what_this_process_finds(files):
    bad = files[0].with_name("bad.nii.gz")
    bad.write_bytes(b"no image")
    with FactsReader(processes=2) as reader:
        reader.begin([(file, True) for file in [*files, bad]])
        for file in files:
            assert same(reader.facts(file, as_label=True), read_facts(file, as_label=True))
        assert str(reader.facts(bad, as_label=True)).startswith("cannot be read")


def test_what_was_read_is_remembered_until_the_file_changes(files, tmp_path, monkeypatch):
    memory = tmp_path / "facts.jsonl"
    with FactsReader(memory=memory) as reader:
        first = reader.facts(files[0])
    read = []
    monkeypatch.setattr(facts_reader, "facts_or_problem", lambda path, **_: read.append(path) or first)
    with FactsReader(memory=memory) as reader:
        reader.begin([(files[0], False)])
        assert same(reader.facts(files[0]), first)
    assert read == []
    os.utime(files[0], ns=(1, 1))
    with FactsReader(memory=memory) as reader:
        reader.facts(files[0])
    assert read == [files[0]]


def test_an_image_and_a_label_are_two_things(files, tmp_path):
    with FactsReader(memory=tmp_path / "facts.jsonl") as reader:
        assert reader.facts(files[0]).label_values == ()
        assert reader.facts(files[0], as_label=True).label_values == (0.0, 1.0, 2.0)


def test_a_line_that_a_killed_run_left_half_written_is_passed_over(files, tmp_path):
    memory = tmp_path / "facts.jsonl"
    with FactsReader(memory=memory) as reader:
        for file in files[:2]:
            reader.facts(file)
    memory.write_text(memory.read_text()[:-40])
    with FactsReader(memory=memory) as reader:
        found = [reader.facts(file) for file in files]
    assert all(same(one, read_facts(file)) for one, file in zip(found, files, strict=True))


def test_the_memory_holds_no_path(files, tmp_path):
    with FactsReader(memory=tmp_path / "facts.jsonl") as reader:
        reader.facts(files[0])
    assert str(tmp_path) not in (tmp_path / "facts.jsonl").read_text()


def test_a_file_that_crashes_its_reader_is_named_and_the_rest_goes_on(files, monkeypatch):
    code = (
        "import os, signal, sys; from medimg3d.data import facts_worker as worker; read = worker.read_facts; "
        "worker.read_facts = lambda path, **o: os.kill(os.getpid(), signal.SIGSEGV) if path.name == '1.nii.gz' "
        "else read(path, **o); worker.main()"
    )
    begin = facts_reader.subprocess.Popen
    monkeypatch.setattr(
        facts_reader.subprocess,
        "Popen",
        lambda command, **options: begin([sys.executable, "-c", code], **options),
    )
    with FactsReader(processes=1) as reader:
        reader.begin([(file, False) for file in files])
        found = [reader.facts(file) for file in files]
    assert [isinstance(one, str) for one in found] == [False, True, False, False]
    assert "crashed the program that read it (exit code -11)" in str(found[1])


def test_an_error_elsewhere_stops_the_processes(files):
    reader = FactsReader(processes=2)

    def read_and_stop():
        with reader:
            reader.begin([(file, False) for file in files])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_and_stop()
    assert all(child._process is None for child in reader._children)


def test_the_box_of_an_image_leaves_its_background_out():
    array = np.full((4, 5, 6), -1000, np.int16)
    array[1:3, 2:3, 0:6] = 40
    from medimg3d.data.image_facts import _content_box

    assert _content_box(array, array.shape, empty=array.flat[0]) == ((1, 3), (2, 3), (0, 6))
    assert _content_box(np.zeros((2, 2)), (2, 2), empty=0) is None


def test_the_spacing_follows_the_axes_of_the_body(tmp_path):
    matrix = np.zeros(
        (4, 4)
    )  # I runs to the head with 3 mm, J to the left with 1 mm, K to the back with 2 mm
    matrix[2, 0], matrix[0, 1], matrix[1, 2], matrix[3, 3] = 3, -1, -2, 1
    facts = read_facts(write_nifti(tmp_path / "a.nii", two_part_phantom(0)[1], matrix))
    assert facts.orientation == "SLP"
    assert facts.spacing_mm == pytest.approx((1, 2, 3))
