import os
import subprocess
import sys
import textwrap

import pytest

from medimg3d.inference.backends.converted import converted, default_cache_dir, discard, stored
from medimg3d.inference.backends.kinds import BackendError

KEY = {"form": "openvino", "weights_sha256": "a"}


class Converter:
    """Writes one file, and counts how often."""

    def __init__(self, text="model"):
        self.text = text
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "model.bin").write_text(self.text)


def entries(cache):
    return sorted(path.name for path in (cache / "converted").iterdir())


def test_a_second_call_finds_the_first_ones_model(tmp_path):
    convert = Converter()
    first = converted(KEY, tmp_path, convert=convert, check=lambda folder: {"relative": 0.5})
    second = converted(KEY, tmp_path, convert=convert)
    assert convert.calls == 1
    assert first.folder == second.folder
    assert second.facts["agreement"] == {"relative": 0.5}
    assert second.facts["seconds"] >= 0


def test_other_weights_have_their_own_model(tmp_path):
    convert = Converter()
    converted(KEY, tmp_path, convert=convert)
    converted({**KEY, "weights_sha256": "b"}, tmp_path, convert=convert)
    assert convert.calls == 2
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, BackendError("no"), RuntimeError])
def test_a_conversion_that_fails_midway_leaves_nothing(tmp_path, stop):
    def fail(folder):
        (folder / "model.bin").write_text("half")
        raise stop

    with pytest.raises(type(stop) if isinstance(stop, Exception) else stop):
        converted(KEY, tmp_path, convert=fail)
    assert entries(tmp_path) == []


def test_a_conversion_that_torch_contradicts_is_not_kept(tmp_path):
    def refuse(folder):
        assert (folder / "model.bin").read_text() == "model"
        raise BackendError("differs from torch")

    with pytest.raises(BackendError, match="differs from torch"):
        converted(KEY, tmp_path, convert=Converter(), check=refuse)
    assert entries(tmp_path) == []


def test_a_killed_conversion_leaves_no_entry_and_the_next_one_makes_it(tmp_path):
    code = f"""
        import os
        from pathlib import Path
        from medimg3d.inference.backends.converted import converted

        def killed(folder):
            (folder / "model.bin").write_text("half")
            os._exit(9)  # as a kill: nothing is tidied up

        converted({KEY!r}, Path({str(tmp_path)!r}), convert=killed)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=120)
    assert done.returncode == 9
    assert stored(KEY, tmp_path) is None
    assert [name[:9] for name in entries(tmp_path)] == [".partial-"]
    assert (converted(KEY, tmp_path, convert=Converter()).folder / "model.bin").read_text() == "model"


def test_what_a_conversion_left_behind_a_day_ago_is_removed(tmp_path):
    old, young = tmp_path / "converted" / ".partial-old", tmp_path / "converted" / ".partial-young"
    for path in (old, young):
        path.mkdir(parents=True)
    os.utime(old, (0, 0))
    converted(KEY, tmp_path, convert=Converter())
    assert not old.exists()
    assert young.exists()


def damage_bytes(folder):
    (folder / "model.bin").write_text("modem")


def damage_missing(folder):
    (folder / "model.bin").unlink()


def damage_facts(folder):
    (folder / "entry.json").write_text("{")


def damage_key(folder):
    text = (folder / "entry.json").read_text()
    (folder / "entry.json").write_text(text.replace('"weights_sha256": "a"', '"weights_sha256": "b"'))


@pytest.mark.parametrize("damage", [damage_bytes, damage_missing, damage_facts, damage_key])
def test_a_damaged_entry_is_made_anew(tmp_path, damage):
    convert = Converter()
    damage(converted(KEY, tmp_path, convert=convert).folder)
    entry = converted(KEY, tmp_path, convert=convert)
    assert convert.calls == 2
    assert (entry.folder / "model.bin").read_text() == "model"


def test_of_two_conversions_at_once_the_first_stays(tmp_path):
    def overtaken(folder):
        converted(KEY, tmp_path, convert=Converter("first"))
        (folder / "model.bin").write_text("second")

    entry = converted(KEY, tmp_path, convert=overtaken)
    assert (entry.folder / "model.bin").read_text() == "first"
    assert len(entries(tmp_path)) == 1
    assert stored(KEY, tmp_path) is not None


def test_notes_stay_with_the_entry_and_go_with_it(tmp_path):
    entry = converted(KEY, tmp_path, convert=Converter())
    assert entry.note("verdict") is None
    entry.write_note("verdict", {"accepted": True})
    assert stored(KEY, tmp_path).note("verdict") == {"accepted": True}
    discard(entry)
    assert stored(KEY, tmp_path) is None


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDIMG3D_CACHE", str(tmp_path / "here"))
    assert default_cache_dir() == tmp_path / "here"


def test_the_cache_lies_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDIMG3D_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "medimg3d"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_cache_dir().parts[-3:] == ("Library", "Caches", "medimg3d")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert default_cache_dir() == tmp_path / "medimg3d" / "Cache"
