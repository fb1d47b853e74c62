import hashlib
import json
import tarfile
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from phantoms import write_decathlon

from medimg3d.data import public_sets
from medimg3d.data.public_sets import (
    PUBLIC_SETS,
    FileHash,
    PublicSet,
    find_set,
    get_set,
    parse_hash,
    public_set,
)
from medimg3d.errors import DataError, UsageError


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def served(folder):
    """A real web server on loopback; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def offer(monkeypatch, url, file_hash=None, archive_folder="Task99", name="phantoms"):
    """Make one set known, and nothing else."""
    entry = PublicSet(
        name=name,
        title="phantoms",
        homepage="http://localhost",
        licence="CC0",
        citation="nobody",
        url=url,
        hash=file_hash,
        hash_source="this test" if file_hash else "",
        archive_folder=archive_folder,
    )
    monkeypatch.setattr(public_sets, "PUBLIC_SETS", (entry,))
    return entry


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch, request):
    if "realdata" not in request.keywords:
        monkeypatch.delenv("MEDIMG3D_DATA", raising=False)


@pytest.fixture
def archive(tmp_path):
    """A tar of a Decathlon root named Task99, in a folder to serve."""
    write_decathlon(tmp_path / "src" / "Task99", num_cases=1)
    (tmp_path / "www").mkdir()
    with tarfile.open(tmp_path / "www" / "Task99.tar", "w") as tar:
        tar.add(tmp_path / "src" / "Task99", "Task99")
    return tmp_path / "www" / "Task99.tar"


def digest(path, kind="sha256"):
    return FileHash(kind, hashlib.new(kind, path.read_bytes()).hexdigest())


def mirror_of(folder, name):
    (folder / name).mkdir(parents=True)
    (folder / name / "a.txt").write_text("a")
    return folder


def test_every_set_has_its_licence_citation_and_names_are_unique():
    assert len({entry.name for entry in PUBLIC_SETS}) == len(PUBLIC_SETS)
    assert all(entry.licence and entry.citation and entry.homepage for entry in PUBLIC_SETS)


def test_the_decathlon_hash_is_the_one_in_monai():
    from monai.apps import DecathlonDataset

    entry = public_set("hippocampus")
    assert entry.url == DecathlonDataset.resource["Task04_Hippocampus"]
    assert entry.hash == FileHash("md5", DecathlonDataset.md5["Task04_Hippocampus"])


def test_a_download_is_checked_unpacked_and_says_where_it_is_from(tmp_path, monkeypatch, archive):
    with served(archive.parent) as address:
        offer(monkeypatch, f"{address}/Task99.tar", digest(archive, "md5"))
        folder = get_set("phantoms", tmp_path / "out")
    assert (folder / "imagesTr" / "phantom_000.nii.gz").is_file()
    assert json.loads((folder / "SOURCE.json").read_text())["licence"] == "CC0"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["phantoms"]


def test_a_single_file_becomes_a_folder_with_it(tmp_path, monkeypatch, archive):
    file = archive.with_name("set.npz")
    file.write_bytes(b"arrays")
    with served(archive.parent) as address:
        offer(monkeypatch, f"{address}/set.npz?download=1", digest(file), archive_folder="")
        folder = get_set("phantoms", tmp_path / "out")
    assert (folder / "set.npz").read_bytes() == b"arrays"


def test_a_wrong_hash_leaves_nothing_behind(tmp_path, monkeypatch, archive):
    with served(archive.parent) as address:
        offer(monkeypatch, f"{address}/Task99.tar", FileHash("sha256", "0" * 64))
        with pytest.raises(DataError, match="does not have the sha256 000"):
            get_set("phantoms", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_without_a_hash_nothing_is_fetched(tmp_path, monkeypatch):
    offer(monkeypatch, "http://127.0.0.1:9/Task99.tar")
    with pytest.raises(DataError, match=r"no published hash.*--hash sha256:DIGITS"):
        get_set("phantoms", tmp_path / "out")


def test_a_hash_of_the_user_opens_a_set_without_one(tmp_path, monkeypatch, archive):
    with served(archive.parent) as address:
        offer(monkeypatch, f"{address}/Task99.tar")
        folder = get_set("phantoms", tmp_path / "out", hash_text=f"sha256:{digest(archive).value.upper()}")
    assert (folder / "dataset.json").is_file()


def test_an_archive_without_the_expected_folder_is_refused(tmp_path, monkeypatch, archive):
    with served(archive.parent) as address:
        offer(monkeypatch, f"{address}/Task99.tar", digest(archive), archive_folder="Task04")
        with pytest.raises(DataError, match="holds no folder Task04"):
            get_set("phantoms", tmp_path / "out")


def test_offline_is_one_clear_line(tmp_path, monkeypatch, capfd):
    offer(monkeypatch, "http://127.0.0.1:9/Task99.tar", FileHash("md5", "0" * 32))  # port 9: nobody listens
    with pytest.raises(
        DataError, match=r"could not be downloaded.*Check the network.*--from FOLDER"
    ) as caught:
        get_set("phantoms", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_set_without_download_says_why(tmp_path):
    with pytest.raises(DataError, match=r"ACDC asks for a registration.*--from FOLDER"):
        get_set("acdc_half", tmp_path)


def test_a_copy_from_a_mirror_can_be_changed_though_the_mirror_is_read_only(tmp_path):
    mirror = mirror_of(tmp_path / "mirror", "hippocampus")
    (mirror / "hippocampus" / "a.txt").chmod(0o444)
    (mirror / "hippocampus").chmod(0o555)
    folder = get_set("hippocampus", tmp_path / "out", from_folder=mirror)
    (folder / "a.txt").write_text("b")
    (mirror / "hippocampus").chmod(0o755)


def test_the_mirror_of_the_environment_is_used_before_the_network(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIMG3D_DATA", str(mirror_of(tmp_path / "mirror", "hippocampus")))
    assert (get_set("hippocampus", tmp_path / "out") / "a.txt").is_file()


def test_nothing_is_overwritten(tmp_path):
    mirror = mirror_of(tmp_path / "mirror", "hippocampus")
    (tmp_path / "out" / "hippocampus").mkdir(parents=True)
    with pytest.raises(DataError, match="exists and is not overwritten"):
        get_set("hippocampus", tmp_path / "out", from_folder=mirror)


def test_a_mirror_without_the_set(tmp_path):
    with pytest.raises(DataError, match=r"No hippocampus in .*expected the folder"):
        get_set("hippocampus", tmp_path / "out", from_folder=tmp_path)


def test_find_set_without_any_root_says_what_to_set():
    with pytest.raises(DataError, match=r"MEDIMG3D_DATA is not set.*medimg3d data get hippocampus"):
        find_set("hippocampus")


def test_find_set_prefers_the_argument(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIMG3D_DATA", str(mirror_of(tmp_path / "a", "hippocampus")))
    assert find_set("hippocampus", mirror_of(tmp_path / "b", "hippocampus")) == tmp_path / "b" / "hippocampus"


def test_an_unknown_set_is_bad_usage():
    with pytest.raises(UsageError, match="'brain' is unknown; expected one of hippocampus"):
        find_set("brain")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0" * 64, "no type; expected TYPE:DIGITS"),
        ("crc32:00000000", "'crc32' is unknown"),
        ("sha256:abc", "not 64 hexadecimal digits"),
        (f"md5:{'x' * 32}", "not 32 hexadecimal digits"),
    ],
)
def test_a_malformed_hash_is_bad_usage(text, message):
    with pytest.raises(UsageError, match=message):
        parse_hash(text)


@pytest.mark.realdata
def test_the_adrenal_file_here_has_the_official_hash(data_root):
    entry = public_set("adrenalmnist3d")
    assert digest(find_set("adrenalmnist3d", data_root) / entry.file_name, "md5") == entry.hash
