"""The public image sets that medimg3d's bundles and tests use: source, hash, licence, citation.

Nothing is downloaded that was not asked for, and never without a hash. A hash stands here only if its source
is named; for the rest the user brings one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medimg3d.data.json_file import write_json
from medimg3d.errors import DataError, UsageError

DATA_VARIABLE = "MEDIMG3D_DATA"
HASH_TYPES = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
"""Hash types that MONAI's downloader knows, and their length in hexadecimal digits."""

_MEDMNIST_HASH_SOURCE = "github.com/MedMNIST/MedMNIST, medmnist/info.py of version 3.0.2"
_MEDMNIST_CITATION = (
    "Yang J et al., MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification, Scientific Data 10:41 (2023), doi:10.1038/s41597-022-01721-8"
)
_KERMANY_CITATION = (
    "Kermany DS, Zhang K, Goldbaum M, Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for "
    "Classification, Mendeley Data V2 (2018), doi:10.17632/rscbjbr9sj.2"
)


@dataclass(frozen=True)
class FileHash:
    """A hash and its type; checks itself when built.

    Attributes:
        kind: One of :data:`HASH_TYPES`.
        value: Hexadecimal digits, lower case.

    Raises:
        UsageError: An unknown type, or digits that cannot be such a hash.
    """

    kind: str
    value: str

    def __post_init__(self) -> None:
        if self.kind not in HASH_TYPES:
            raise UsageError(f"Hash type {self.kind!r} is unknown; expected one of {', '.join(HASH_TYPES)}.")
        digits = HASH_TYPES[self.kind]
        if len(self.value) != digits or set(self.value) - set("0123456789abcdef"):
            raise UsageError(f"The {self.kind} hash is not {digits} hexadecimal digits; copy it anew.")


@dataclass(frozen=True)
class PublicSet:
    """One public set.

    Attributes:
        name: Its name here, and of its folder in a mirror.
        title: What it holds, in a few words.
        homepage: Where its makers describe it.
        licence: Licence in words; says where commercial use is forbidden.
        citation: What to cite.
        url: The official file; empty if it cannot be had by one plain download (``why_no_url`` says why).
        hash: Hash of that file; None if its makers publish none.
        hash_source: Who states the hash.
        archive_folder: Folder inside the archive that becomes the set's folder; empty for a single file.
        why_no_url: Why there is no download.
    """

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    url: str = ""
    hash: FileHash | None = None
    hash_source: str = ""
    archive_folder: str = ""
    why_no_url: str = ""

    def __post_init__(self) -> None:
        if bool(self.url) == bool(self.why_no_url):
            raise ValueError(f"{self.name}: expected either url or why_no_url.")
        if (self.hash is None) != (not self.hash_source):
            raise ValueError(f"{self.name}: a hash needs its source, and a source its hash.")

    @property
    def file_name(self) -> str:
        """File name under which the download is kept or unpacked."""
        name = self.url.partition("?")[0].rpartition("/")[2]
        return name if "." in name else f"{self.name}.zip"  # Mendeley's addresses end in file_downloaded


PUBLIC_SETS: tuple[PublicSet, ...] = (
    PublicSet(
        name="hippocampus",
        title="3D MRI, anterior and posterior hippocampus (MSD Task04)",
        homepage="http://medicaldecathlon.com",
        licence="CC BY-SA 4.0",
        citation="Antonelli M et al., The Medical Segmentation Decathlon, Nature Communications 13:4128 "
        "(2022); Simpson AL et al., arXiv:1902.09063 (2019)",
        url="https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
        hash=FileHash("md5", "9d24dba78a72977dbd1d2e110310f31b"),
        hash_source="MONAI 1.6.1, monai.apps.DecathlonDataset",
        archive_folder="Task04_Hippocampus",
    ),
    PublicSet(
        name="pneumoniamnist",
        title="2D chest X-ray, 28 pixels, normal or pneumonia (MedMNIST)",
        homepage="https://medmnist.com",
        licence="CC BY 4.0",
        citation=f"{_MEDMNIST_CITATION}; {_KERMANY_CITATION}",
        url="https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1",
        hash=FileHash("md5", "28209eda62fecd6e6a2d98b1501bb15f"),
        hash_source=_MEDMNIST_HASH_SOURCE,
    ),
    PublicSet(
        name="adrenalmnist3d",
        title="3D shapes from CT, 64 voxels cubed, normal or mass (MedMNIST)",
        homepage="https://medmnist.com",
        licence="CC BY 4.0",
        citation=_MEDMNIST_CITATION,
        url="https://zenodo.org/records/10519652/files/adrenalmnist3d_64.npz?download=1",
        hash=FileHash("md5", "17721accfe9fb005146a47d33bc54b2f"),
        hash_source=_MEDMNIST_HASH_SOURCE,
    ),
    PublicSet(
        name="chest_xray",
        title="2D chest X-rays of children, normal, bacterial or viral pneumonia",
        homepage="https://data.mendeley.com/datasets/rscbjbr9sj/2",
        licence="CC BY 4.0",
        citation=_KERMANY_CITATION,
        url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
        "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
        archive_folder="chest_xray",
    ),
    PublicSet(
        name="acdc_half",
        title="3D heart MRI, three structures, in-plane size halved (ACDC)",
        homepage="https://www.creatis.insa-lyon.fr/Challenge/acdc/",
        licence="CC BY-NC-SA 4.0 (no commercial use)",
        citation="Bernard O et al., IEEE Transactions on Medical Imaging 37:2514-2525 (2018), "
        "doi:10.1109/TMI.2018.2837502",
        why_no_url="ACDC asks for a registration, and this is a reduced copy of it",
    ),
    PublicSet(
        name="lung_cancer_ct",
        title="3D CT crops of lung tumours, two hospitals, survival",
        homepage="https://doi.org/10.7937/K9/TCIA.2015.PF0M9REI",
        licence="CC BY-NC 3.0 and CC BY 3.0 (no commercial use)",
        citation="Aerts HJWL et al., Nature Communications 5:4006 (2014); "
        "Bakr S et al., Scientific Data 5:180202 (2018)",
        why_no_url="these are crops; the full scans are at The Cancer Imaging Archive",
    ),
    PublicSet(
        name="sarcoma_petct_mr",
        title="CT, FDG-PET and T1 MRI of the same patients, tumour",
        homepage="https://doi.org/10.7937/K9/TCIA.2015.7GO2GSKS",
        licence="CC BY 3.0",
        citation="Vallieres M et al., Physics in Medicine and Biology 60:5471 (2015); "
        "Clark K et al., Journal of Digital Imaging 26:1045 (2013)",
        why_no_url="these are crops on one grid; the full scans are at The Cancer Imaging Archive",
    ),
)


def public_set(name: str) -> PublicSet:
    """The set of that name.

    Raises:
        UsageError: There is none.
    """
    for entry in PUBLIC_SETS:
        if entry.name == name:
            return entry
    raise UsageError(
        f"Data set {name!r} is unknown; expected one of {', '.join(s.name for s in PUBLIC_SETS)}."
    )


def find_set(name: str, root: str | Path | None = None) -> Path:
    """The folder of a set that is already on this machine.

    Args:
        name: Name of the set.
        root: Folder that holds it; the folder named by ``MEDIMG3D_DATA`` if None.

    Returns:
        The set's folder.

    Raises:
        UsageError: An unknown name.
        DataError: It is not there.
    """
    entry = public_set(name)
    base = root or os.environ.get(DATA_VARIABLE)
    if not base:
        raise DataError(
            f"{DATA_VARIABLE} is not set; name the folder with the sets, or: medimg3d data get {name}"
        )
    folder = Path(base) / entry.name
    if not _is_filled(folder):
        raise DataError(
            f"No {name} in {base}; expected the folder {folder}. Get it with: medimg3d data get {name}"
        )
    return folder


def get_set(
    name: str, out: str | Path, *, from_folder: str | Path | None = None, hash_text: str | None = None
) -> Path:
    """Put a set's folder below ``out``: copied from a mirror, else downloaded and checked against its hash.

    Works in a temporary folder beside the target and renames it at the end: there is never half a set.

    Args:
        name: Name of the set.
        out: Folder that will hold the set's folder.
        from_folder: Mirror to copy from. If None, the folder of ``MEDIMG3D_DATA`` where it has the set, else
            the official source.
        hash_text: Hash of the official file as ``"sha256:<digits>"``, for sets without a published one.

    Returns:
        The set's new folder.

    Raises:
        UsageError: An unknown name or a malformed hash.
        DataError: The target exists, the mirror lacks the set, there is no hash or no download, the network
            fails, or the hash does not match.
    """
    entry = public_set(name)
    own_hash = None if hash_text is None else parse_hash(hash_text)
    target = Path(out) / name
    if target.exists():
        raise DataError(f"{target} exists and is not overwritten; move it away or choose another --out.")
    mirror = _mirror(name, from_folder)
    if mirror is not None:
        return _build(target, lambda new: _copy(mirror, new))
    return _build(target, _downloader(entry, own_hash))


def parse_hash(text: str) -> FileHash:
    """A hash from ``"sha256:<digits>"``.

    Raises:
        UsageError: Not of that form.
    """
    kind, colon, value = text.partition(":")
    if not colon:
        raise UsageError("The hash has no type; expected TYPE:DIGITS, such as sha256:2f5e... .")
    return FileHash(kind.strip().lower(), value.strip().lower())


def _mirror(name: str, from_folder: str | Path | None) -> Path | None:
    """Folder to copy from; None means download."""
    if from_folder is not None:
        return find_set(name, from_folder)
    base = os.environ.get(DATA_VARIABLE)
    return Path(base) / name if base and _is_filled(Path(base) / name) else None


def _downloader(entry: PublicSet, own_hash: FileHash | None) -> Callable[[Path], None]:
    """What fills a new folder from the official source; refuses before anything is fetched."""
    if not entry.url:
        raise DataError(
            f"{entry.name} cannot be downloaded: {entry.why_no_url} ({entry.homepage}). "
            f"Copy it from a mirror: medimg3d data get {entry.name} --from FOLDER"
        )
    expected = own_hash or entry.hash
    if expected is None:
        raise DataError(
            f"{entry.name} has no published hash, so it is not downloaded unchecked; give the hash of "
            f"{entry.url} with --hash sha256:DIGITS, or copy the set with --from FOLDER."
        )
    return lambda new: _download(entry, expected, new)


def _build(target: Path, fill: Callable[[Path], None]) -> Path:
    """Fill a temporary folder, then rename it to ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        new = Path(temporary) / target.name
        fill(new)
        os.rename(new, target)  # fails if someone else has made it meanwhile
    return target


def _copy(mirror: Path, new: Path) -> None:
    try:
        shutil.copytree(mirror, new, copy_function=shutil.copyfile)
        for folder, _, _ in os.walk(new):
            os.chmod(folder, 0o755)  # a mirror is often read-only; a copy is its owner's
    except (OSError, shutil.Error) as err:
        raise DataError(
            f"{mirror} could not be copied ({type(err).__name__}); check rights and free space."
        ) from err


def _download(entry: PublicSet, expected: FileHash, new: Path) -> None:
    """Fetch, check and unpack; ``new`` is the folder to make."""
    from monai.apps.utils import HashCheckError, download_url

    work = new.parent / "download"
    file = work / entry.file_name
    try:
        # The halves of monai.apps.download_and_extract, which asks the server for the file's name once more
        # and stops where an address does not end in it (Zenodo, Mendeley).
        with _quiet_monai():
            download_url(entry.url, file, hash_val=expected.value, hash_type=expected.kind, progress=False)
    except HashCheckError as err:
        raise DataError(
            f"{entry.url} does not have the {expected.kind} {expected.value}; it was changed or damaged and "
            "is not kept. Try again, or ask its makers."
        ) from err
    except Exception as err:  # urllib, ssl and MONAI raise many kinds, MONAI a bare Exception
        raise DataError(_offline(entry, err)) from err
    if not file.is_file():  # MONAI swallows PermissionError
        raise DataError(_offline(entry, None))
    if entry.archive_folder:
        _unpack(entry, file, work / "unpacked").rename(new)
    else:
        new.mkdir()
        file.rename(new / entry.file_name)
    source = {"name": entry.name, "url": entry.url, expected.kind: expected.value}
    write_json(source | {"licence": entry.licence, "citation": entry.citation}, new / "SOURCE.json")


def _unpack(entry: PublicSet, file: Path, folder: Path) -> Path:
    """The set's folder out of the archive."""
    from monai.apps.utils import extractall

    try:
        with _quiet_monai():
            extractall(file, folder, has_base=False)
    except Exception as err:  # tarfile, zipfile, zlib, and MONAI's refusal of paths that lead out
        raise DataError(f"{file.name} cannot be unpacked ({type(err).__name__}: {err}).") from err
    found = folder / entry.archive_folder
    if not found.is_dir():
        raise DataError(f"{file.name} holds no folder {entry.archive_folder}; expected the official archive.")
    return found


@contextmanager
def _quiet_monai() -> Iterator[None]:
    """Keep MONAI's log lines off standard output, which belongs to the result; errors are raised here."""
    from monai.apps.utils import logger

    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _offline(entry: PublicSet, err: Exception | None) -> str:
    reason = "no file came" if err is None else f"{type(err).__name__}: {err}".splitlines()[0]
    return (
        f"{entry.name} could not be downloaded from {entry.url} ({reason}). Check the network, or copy it "
        f"from a folder: medimg3d data get {entry.name} --from FOLDER"
    )


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
