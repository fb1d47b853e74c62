"""The deterministic part of preprocessing on disk, compressed to the bit, shared by workers, ranks and runs.

An entry is a folder named by the hash of what went in: the content of the input files, the transforms with
their settings, and the versions that matter. It is written under another name and renamed when whole, so that
a killed writer leaves nothing that looks like an entry, and of two processes that write the same case one wins
and the other discards its copy. MONAI's ``PersistentDataset`` loses the metadata (its issue 8599) and loads
pickles; here the arrays are compressed files beside one JSON file.
"""

from __future__ import annotations

import copy
import enum
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import MetaTensor
from torch.utils.data import Dataset

from medimg3d.data.content_hash import content_sha256
from medimg3d.data.packed_array import read_packed, write_packed
from medimg3d.errors import DataError

FORMAT = 2
ENDING = ".gz"
KEPT_BYTES = 128 * 2**20
"""What a process keeps of entries that it has unpacked; unpacking costs more than augmenting a patch."""

_ABANDONED_S = 3600.0
_log = logging.getLogger(__name__)


class DiskCacheDataset(Dataset):
    """Like MONAI's ``CacheDataset`` for deterministic transforms, but on disk.

    Args:
        data: Items (dictionaries) to transform; values that name files count by the files' content.
        transform: Deterministic transforms from an item to a dictionary of tensors, arrays and plain values.
        cache_dir: Folder of the entries; several data sets and processes may share it.
        kept_bytes: Entries are kept unpacked in memory until they have this size, in each process that reads;
            all others are unpacked at each reading. Every reading gives a copy of its own.

    Note:
        A cached ``MetaTensor`` keeps its affine and the metadata that JSON can hold, but not its record of
        applied transforms: invert with a pipeline that was not cached.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Any,
        cache_dir: Path | str,
        *,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.data = list(data)
        self.transform = transform
        self.cache_dir = Path(cache_dir)
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(self.cache_dir)
        settings = json.dumps([FORMAT, monai.__version__, describe_transform(transform)], sort_keys=True)
        self._keys = [_entry_key(settings, item) for item in self.data]
        self._kept: dict[int, dict[str, Any]] = {}
        self._room = kept_bytes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self._kept:
            return _copy(self._kept[index])
        item = self._read(index)
        size = sum(value.nbytes for value in item.values() if _is_array(value))
        if size <= self._room:
            self._room -= size
            self._kept[index] = _copy(item)
        return item

    def _read(self, index: int) -> dict[str, Any]:
        entry = self.cache_dir / self._keys[index]
        if entry.is_dir():
            try:
                return _read_entry(entry)
            except DataError as error:
                _log.warning("%s It is made anew.", error)
                shutil.rmtree(entry, ignore_errors=True)
        _write_entry(entry, self.transform(dict(self.data[index])))
        return _read_entry(entry)


def describe_transform(value: Any) -> Any:
    """A transform and all its settings as something JSON can hold; equal settings give equal descriptions.

    Raises:
        DataError: A random transform is among them (its results must not be cached), or a setting that
            cannot be described.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, (torch.dtype, torch.device, np.dtype)):
        return str(value)
    if hasattr(value, "__qualname__"):  # a class or function; of a lambda only the code tells it from another
        code = getattr(value, "__code__", None)
        body = hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest() if code else ""
        return [value.__module__, value.__qualname__, body]
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        array = np.asarray(value)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return {str(key): describe_transform(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [describe_transform(inner) for inner in value]
    if isinstance(value, monai.transforms.Randomizable) and not isinstance(value, monai.transforms.Compose):
        raise DataError(
            f"{type(value).__name__} is random and stands among the cached transforms; expected deterministic "
            "ones only. Move it to the random transforms."
        )
    if hasattr(value, "__dict__"):
        settings = {k: v for k, v in vars(value).items() if k != "R" and not k.startswith("__")}
        return [f"{type(value).__module__}.{type(value).__qualname__}", describe_transform(settings)]
    return repr(value)


def _entry_key(settings: str, item: Mapping[str, Any]) -> str:
    parts = [settings]
    for name, value in sorted(item.items()):
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            is_path = isinstance(one, (str, os.PathLike)) and os.path.exists(one)
            parts.append(
                f"{name}={content_sha256(one) if is_path else json.dumps(one, default=str, sort_keys=True)}"
            )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _write_entry(entry: Path, item: Mapping[str, Any]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=entry.parent))
    try:
        description = {name: _write_value(temporary, name, value) for name, value in item.items()}
        (temporary / "item.json").write_text(json.dumps(description))
        for path in temporary.iterdir():
            with open(path, "rb+") as handle:
                os.fsync(handle.fileno())
        os.rename(temporary, entry)
    except OSError:
        if not entry.is_dir():  # else another process was first: its entry holds the same
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_value(folder: Path, name: str, value: Any) -> dict[str, Any]:
    if _is_array(value):
        array = value.numpy() if isinstance(value, torch.Tensor) else value
        packed = write_packed(folder / f"{name}{ENDING}", array)
        kind = (
            "meta"
            if isinstance(value, MetaTensor)
            else "tensor"
            if isinstance(value, torch.Tensor)
            else "array"
        )
        described: dict[str, Any] = {"kind": kind, "packed": packed}
        if isinstance(value, MetaTensor):
            described["affine"] = np.asarray(value.affine).tolist()
            described["meta"] = {key: inner for key, inner in value.meta.items() if _is_plain(inner)}
        return described
    if not _is_plain(value):
        raise DataError(
            f"{name} is a {type(value).__name__}; the cache holds tensors, arrays and plain values. "
            "Remove it with DeleteItemsd."
        )
    return {"kind": "plain", "value": value}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(inner) for inner in value)
    return value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic))


def _is_array(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def _copy(item: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of its own, so that what is done to them in place does not reach the kept ones."""
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for name, value in item.items()
    }


def _read_entry(entry: Path) -> dict[str, Any]:
    item: dict[str, Any] = {}
    for name, described in _description(entry).items():
        if described["kind"] == "plain":
            item[name] = described["value"]
            continue
        array = read_packed(entry / f"{name}{ENDING}", described["packed"])
        if described["kind"] == "array":
            item[name] = array
        elif described["kind"] == "tensor":
            item[name] = torch.from_numpy(array)
        else:
            affine = torch.tensor(described["affine"], dtype=torch.float64)
            item[name] = MetaTensor(torch.from_numpy(array), affine=affine, meta=described["meta"])
    return item


def _description(entry: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((entry / "item.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{entry / 'item.json'} is damaged ({error}); expected a description. Remove it."
        ) from error
    return description


def _remove_abandoned(cache_dir: Path) -> None:
    for path in cache_dir.glob(".partial-*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)
        except FileNotFoundError:
            continue
