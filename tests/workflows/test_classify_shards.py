"""A classification on a Ray cluster gives the table of an undistributed one, whatever dies on the way."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medimg3d.cli.main import app
from medimg3d.errors import UsageError
from medimg3d.workflows.classify_shards import classify_on_ray
from medimg3d.workflows.predict_classification import predict_classification

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "xray_pneumonia_densenet"


def write_films(folder: Path) -> Path:
    """Four films, one of them in a subfolder, and a broken one."""
    rng = np.random.default_rng(0)
    for number, place in enumerate((".", ".", ".", "clinic")):
        (folder / place).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120 + 40 * number, (90 + 8 * number, 80)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / place / f"film_{number}.png")
    (folder / "film_9.png").write_bytes((folder / "film_0.png").read_bytes()[:100])
    return folder


def write_bundle_that_one_film_kills(folder: Path, name: str) -> Path:
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "configs" / "inference.json"
    config = json.loads(file.read_text())
    kill = f"os.abort() if {name!r} in str(image.meta['filename_or_obj']) else image"
    step = {"_target_": "Lambdad", "keys": "image", "func": f"$lambda image: {kill}", "track_meta": False}
    config["preprocessing"]["transforms"].insert(1, step)
    file.write_text(json.dumps(config))
    return folder


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_tables(ours: list[dict[str, str]], theirs: list[dict[str, str]]) -> None:
    assert [row["file"] for row in ours] == [row["file"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for name, value in other.items():
            if name.startswith("probability"):
                assert float(one[name]) == pytest.approx(float(value), abs=1e-6)
            else:
                assert one[name] == value


def record(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed: pip install "medimg3d[ray]"')
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's sockets and processes
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestRay:
    def test_the_command_gives_the_files_of_an_undistributed_run(self, tmp_path):
        films = write_films(tmp_path / "films")
        out, whole = tmp_path / "out", tmp_path / "whole"
        options = [
            "--ray",
            "local",
            "--job-cpus",
            "1",
            "--job-gpus",
            "0",
            "--shards",
            "2",
            "--explain",
            "--json",
        ]
        done = CliRunner().invoke(app, ["predict", str(BUNDLE), str(films), "--out", str(out), *options])
        assert done.exit_code == 3, done.output
        assert [Path(file).name for file in json.loads(done.stdout)["rejected"]] == ["film_9.png"]
        expected = predict_classification(BUNDLE, [films], whole, explain=True, device="cpu")
        assert_same_tables(table(out), table(whole))
        assert len(expected.images) == 4
        ours, theirs = record(out), record(whole)
        assert ours["cases"] == theirs["cases"]
        assert ours["settings"] == theirs["settings"]
        assert ours["bundle"] == theirs["bundle"]
        assert ours["peak_memory_gb"] > 0
        names = [
            {path.relative_to(o) for path in o.rglob("*") if path.suffix != ".log"} for o in (out, whole)
        ]
        assert names[0] - {Path("jobs")} == names[1]

    def test_a_film_that_kills_its_process_costs_no_other(self, tmp_path):
        from medimg3d.workflows.ray_jobs import RayCluster

        films = write_films(tmp_path / "films")
        bundle = write_bundle_that_one_film_kills(tmp_path / "bundle", "film_1")
        cluster = RayCluster("local", cpus=1, gpus=0, retries=0)
        result = classify_on_ray(bundle, [films], tmp_path / "out", cluster=cluster, shards=1, fast=False)
        assert [image.case for image in result.images] == ["film_3", "film_0", "film_2"]
        reasons = {Path(key).name: reason for key, reason in result.rejected.items()}
        assert set(reasons) == {"film_1.png", "film_9.png"}
        assert f"ended by signal {signal.SIGABRT.value}" in reasons["film_1.png"]
        (films / "film_1.png").unlink()
        predict_classification(bundle, [films], tmp_path / "whole", fast=False, device="cpu")
        assert_same_tables(table(tmp_path / "out"), table(tmp_path / "whole"))
        assert not (tmp_path / "out" / ".shards").exists()


def test_a_backend_that_every_machine_would_choose_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--backend auto could choose another on each machine"):
        classify_on_ray(BUNDLE, [tmp_path], tmp_path / "out", cluster=None, backend="auto")
