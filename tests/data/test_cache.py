import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    FgBgToIndicesd,
    LoadImaged,
    NormalizeIntensityd,
    RandFlipd,
)

from medimg3d.data import cache
from medimg3d.data.cache import DiskCacheDataset, describe_transform
from medimg3d.errors import DataError


def pipeline(nonzero=False):
    keys = ["image", "label"]
    return Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            NormalizeIntensityd("image", nonzero=nonzero),
            FgBgToIndicesd("label"),
        ]
    )


@pytest.fixture
def cases(tmp_path):
    items = []
    for n in range(2):
        image, label = phantoms.two_part_phantom(n)
        matrix = phantoms.affine((1.0, 2.0, 3.0), (4, 5, 6))
        items.append(
            {
                "image": str(phantoms.write_nifti(tmp_path / f"i{n}.nii.gz", image, matrix)),
                "label": str(phantoms.write_nifti(tmp_path / f"l{n}.nii.gz", label, matrix)),
            }
        )
    return items


def entries(folder: Path):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_cached_items_equal_fresh_ones_with_affine_and_indices(tmp_path, cases):
    fresh = pipeline()(dict(cases[0]))
    dataset = DiskCacheDataset(cases, pipeline(), tmp_path / "cache")
    for _ in range(2):  # the first call writes, the second reads
        item = dataset[0]
        assert torch.equal(item["image"].as_tensor(), fresh["image"].as_tensor())
        assert torch.equal(item["image"].affine, fresh["image"].affine)
        assert np.array_equal(item["label_fg_indices"], fresh["label_fg_indices"])


def test_second_read_does_not_run_the_transforms(tmp_path, cases):
    DiskCacheDataset(cases, pipeline(), tmp_path / "cache")[0]
    dataset = DiskCacheDataset(cases, pipeline(), tmp_path / "cache")
    dataset.transform = None
    assert dataset[0]["image"].shape == (1, 30, 42, 28)


def test_changed_settings_or_content_give_another_entry(tmp_path, cases):
    cache = tmp_path / "cache"
    DiskCacheDataset(cases[:1], pipeline(), cache)[0]
    DiskCacheDataset(cases[:1], pipeline(nonzero=True), cache)[0]
    assert len(entries(cache)) == 2
    image, _ = phantoms.two_part_phantom(7)
    phantoms.write_nifti(Path(cases[0]["image"]), image)
    DiskCacheDataset(cases[:1], pipeline(), cache)[0]
    assert len(entries(cache)) == 3


def test_same_content_under_another_name_shares_the_entry(tmp_path, cases):
    cache = tmp_path / "cache"
    DiskCacheDataset(cases[:1], pipeline(), cache)[0]
    copy = {key: path.replace(".nii", "_copy.nii") for key, path in cases[0].items()}
    for key, path in cases[0].items():
        Path(copy[key]).write_bytes(Path(path).read_bytes())
    DiskCacheDataset([copy], pipeline(), cache)[0]
    assert len(entries(cache)) == 1


def test_a_change_to_a_read_item_stays_out_of_the_cache(tmp_path, cases):
    dataset = DiskCacheDataset(cases, pipeline(), tmp_path / "cache")
    before = dataset[0]["image"].clone()
    dataset[0]["image"].fill_(0)
    assert torch.equal(dataset[0]["image"], before)


def test_kept_entries_are_unpacked_once_and_others_each_time(tmp_path, cases, monkeypatch):
    unpacked = []
    read = cache._read_entry
    monkeypatch.setattr(cache, "_read_entry", lambda entry: (unpacked.append(entry.name), read(entry))[1])
    size = sum(value.nbytes for value in read_item(cases, tmp_path).values())
    unpacked.clear()
    dataset = DiskCacheDataset(cases, pipeline(), tmp_path / "cache", kept_bytes=size + size // 2)
    rounds = [[dataset[index] for index in (0, 1)] for _ in range(3)]
    assert [unpacked.count(key) for key in dataset._keys] == [1, 3]
    for first, again in zip(rounds[0], rounds[2], strict=True):
        assert all(np.array_equal(first[name], again[name]) for name in first)


def read_item(cases, tmp_path):
    return DiskCacheDataset(cases, pipeline(), tmp_path / "cache")[0]


def test_random_transforms_are_refused(tmp_path, cases):
    with pytest.raises(DataError, match="RandFlipd is random"):
        DiskCacheDataset(cases, Compose([LoadImaged("image"), RandFlipd("image")]), tmp_path / "cache")


def test_descriptions_do_not_depend_on_the_instance():
    assert describe_transform(pipeline()) == describe_transform(pipeline())
    assert describe_transform(pipeline()) != describe_transform(pipeline(nonzero=True))


def run_python(code: str, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *arguments], env=environment)


def test_a_killed_writer_leaves_no_entry_and_the_next_one_writes_it(tmp_path):
    code = """
        import os, sys
        import torch
        import medimg3d.data.cache as cache
        write = cache.write_packed
        def write_and_die(path, array):
            if path.stem == "b":
                path.write_bytes(b"half")
                os.kill(os.getpid(), 9)
            return write(path, array)
        cache.write_packed = write_and_die
        item = {"case": 1}
        cache.DiskCacheDataset([item], lambda _: {"a": torch.ones(3), "b": torch.zeros(3), "c": 1}, sys.argv[1])[0]
    """
    process = run_python(code, str(tmp_path))
    assert process.wait() == -9
    assert entries(tmp_path) == []
    assert list(tmp_path.glob(".partial-*"))
    dataset = DiskCacheDataset([{"case": 1}], lambda _: {"a": torch.ones(3), "b": torch.zeros(3)}, tmp_path)
    assert torch.equal(dataset[0]["a"], torch.ones(3))
    assert len(entries(tmp_path)) == 1


def test_two_writers_of_the_same_case_leave_one_whole_entry(tmp_path):
    code = """
        import sys, time
        import torch
        from pathlib import Path
        from medimg3d.data.cache import DiskCacheDataset
        folder, me = Path(sys.argv[1]), sys.argv[2]
        def transform(_):
            (folder / f"ready_{me}").touch()  # both are past the check for an entry before either writes
            while len(list(folder.glob("ready_*"))) < 2:
                time.sleep(0.01)
            return {"a": torch.arange(1_000_000.0)}
        item = DiskCacheDataset([{"case": 1}], transform, folder / "cache")[0]
        sys.exit(0 if torch.equal(item["a"], torch.arange(1_000_000.0)) else 1)
    """
    processes = [run_python(code, str(tmp_path), name) for name in "xy"]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(entries(tmp_path / "cache")) == 1
    assert list((tmp_path / "cache").glob(".partial-*")) == []


@pytest.mark.parametrize("name", ["image.gz", "item.json"])
def test_a_damaged_entry_is_made_anew(tmp_path, cases, name, caplog):
    cache = tmp_path / "cache"
    whole = DiskCacheDataset(cases, pipeline(), cache)[0]["image"]
    file = cache / entries(cache)[0] / name
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(DiskCacheDataset(cases, pipeline(), cache)[0]["image"], whole)
    assert "damaged" in caplog.text
    caplog.clear()
    DiskCacheDataset(cases, pipeline(), cache)[0]
    assert "damaged" not in caplog.text


def test_abandoned_partial_entries_are_removed_after_an_hour(tmp_path):
    old, new = tmp_path / ".partial-old", tmp_path / ".partial-new"
    old.mkdir()
    new.mkdir()
    os.utime(old, (1, 1))
    DiskCacheDataset([], Compose([]), tmp_path)
    assert not old.exists()
    assert new.exists()
