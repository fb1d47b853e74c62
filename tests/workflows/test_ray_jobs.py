"""Jobs on a Ray cluster of two machines: a killed one changes nothing but the time.

Each "machine" is a Ray node of its own on this one, with one processor; the driver's node has none.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import phantoms
import pytest
import torch
from phantoms import two_boxes, two_part_phantom, write_nifti, write_threshold_bundle

from medimg3d.errors import MissingExtraError, UsageError
from medimg3d.workflows.cross_validate import fold_job
from medimg3d.workflows.jobs import Job
from medimg3d.workflows.predict import predict
from medimg3d.workflows.predict_shards import predict_on_ray
from medimg3d.workflows.ray_jobs import SETTINGS, RayCluster, fit_slots, ray_jobs
from medimg3d.workflows.train import train

needs_ray = [
    pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed: pip install "medimg3d[ray]"'),
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL, and no FIFO"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's sockets and processes
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PLAIN = {"overlays": False, "reports": False, "device": "cpu"}
NODE = {"num_gpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}


def cluster_of(address="local", **asked):
    """The settings alone, whether or not Ray is installed."""
    cluster = object.__new__(RayCluster)
    for name, value in ({"cpus": None, "gpus": None, "retries": 3} | asked | {"address": address}).items():
        object.__setattr__(cluster, name, value)
    return cluster


@pytest.mark.parametrize(
    ("machines", "asked", "slots"),
    [
        ([{"CPU": 16}, {"CPU": 4}], {}, (4, 0, 5)),  # the smallest machine's, five times
        ([{"CPU": 0}, {"CPU": 2}, {"CPU": 2}], {}, (2, 0, 2)),  # the driver's machine does not count
        ([{"CPU": 16, "GPU": 4}, {"CPU": 64}], {}, (4, 1, 4)),  # a GPU each, with its share of the processors
        ([{"CPU": 16, "GPU": 4}], {"gpus": 2, "cpus": 8}, (8, 2, 2)),
        ([{"CPU": 16, "GPU": 4}], {"gpus": 0}, (16, 0, 1)),
    ],
)
def test_what_a_job_gets(machines, asked, slots):
    found = fit_slots(machines, cluster_of(**asked))
    assert (found.cpus, found.gpus, found.count) == slots


def test_more_than_any_machine_has_is_bad_usage():
    with pytest.raises(UsageError, match=r"asks for 8 CPUs and 0 GPUs, .* \(the largest: 4 and 0\)"):
        fit_slots([{"CPU": 4}, {"CPU": 2}], cluster_of(cpus=8))


def test_a_missing_ray_names_the_extra(monkeypatch):
    monkeypatch.setattr("medimg3d.workflows.ray_jobs.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=re.escape('pip install "medimg3d[ray]"')):
        RayCluster()


def patiently(start, *, tries=4):
    """Ray gives a node 15 s to start its agents, which is little on a busy machine (raylet, node_manager.cc)."""
    for left in reversed(range(tries)):
        try:
            return start()
        except Exception as err:
            if not left or "timed out during startup" not in str(err):
                raise
    return None


@pytest.fixture(scope="module")
def machines():
    """A cluster of a driver and one machine; tests add a second one."""
    os.environ.update(SETTINGS)
    from ray.cluster_utils import Cluster

    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE}))
    patiently(lambda: cluster.add_node(num_cpus=1, **NODE))
    yield cluster
    cluster.shutdown()


@pytest.fixture
def second(machines):
    """The second machine; it is gone after the test, killed or not."""
    machine = patiently(lambda: machines.add_node(num_cpus=1, **NODE))
    yield machine
    if machine in machines.worker_nodes:
        machines.remove_node(machine)


class Gate:
    """What stops in front of it goes on when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle: int | None = None
        os.mkfifo(path)

    def open(self) -> None:
        if self.handle is None:
            self.handle = os.open(self.path, os.O_RDWR)  # readers no longer wait for a writer

    def close(self) -> None:
        if self.handle is not None:
            os.close(self.handle)


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.close()


def write_gated_bundle(folder: Path, gate: Gate, stopped_cases: str) -> Path:
    """The bundle of thresholds, which stops in front of a gate when it has read certain cases."""
    write_threshold_bundle(folder)
    file = folder / "configs" / "inference.json"
    config = json.loads(file.read_text())
    wait = f"os.close(os.open({str(gate.path)!r}, os.O_RDONLY))"
    is_stopped = f"os.path.basename(str(image.meta['filename_or_obj']))[0] in {stopped_cases!r}"
    stop = {
        "_target_": "Lambdad",
        "keys": "image",
        "func": f"$lambda image: ({wait} if {is_stopped} else None, image)[1]",
        "track_meta": False,
    }
    config["preprocessing"]["transforms"].insert(1, stop)
    file.write_text(json.dumps(config))
    return folder


def finished(out: Path) -> int:
    return len(list(out.glob(".shards/*/.finished/[!.]*.case.json")))


def label_maps(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("[!.]*_seg.nii.gz"))}


def manifest(out: Path) -> list[dict]:
    """What is listed of each case, but for the time that it took."""
    cases = json.loads((out / "run.json").read_text())["cases"]
    return [{key: value for key, value in case.items() if key != "seconds"} for case in cases]


def tries(out: Path, name: str) -> int:
    return (out / "jobs" / f"{name}.log").read_text().count("--- try on ")


@pytest.fixture
def images(tmp_path):
    """a to h, of which h is broken, and a second one of one name in another folder."""
    folder = tmp_path / "in"
    for name in "abcdefg":
        write_nifti(folder / f"{name}.nii.gz", two_boxes() + ord(name))
    write_nifti(folder / "later" / "a.nii.gz", two_boxes())
    (folder / "h.nii.gz").write_bytes((folder / "g.nii.gz").read_bytes()[:100])
    return folder


@pytest.mark.slow
class TestCluster:
    pytestmark = needs_ray

    def test_one_machine_of_two_killed_in_the_middle_of_a_prediction(
        self, machines, second, images, gate, tmp_path
    ):
        # Two shards: a c e g later/a, b d f h. Each finishes its first case and stops in front of its second one.
        bundle = write_gated_bundle(tmp_path / "bundle", gate, "cd")
        out = tmp_path / "out"

        def kill(done, total):
            assert total == 9
            if gate.handle is None and finished(out) == 2:
                assert done == 2
                machines.remove_node(second, allow_graceful=False)
                gate.open()

        cluster = RayCluster(machines.address, cpus=1)
        result = predict_on_ray(bundle, [images], out, cluster=cluster, shards=2, progress=kill, **PLAIN)
        assert len(result.cases) == 8
        assert sorted([tries(out, "shard_1"), tries(out, "shard_2")]) == [1, 2]
        whole = tmp_path / "whole"
        predict(bundle, [images], whole, **PLAIN)
        assert label_maps(out) == label_maps(whole)
        assert len(label_maps(out)) == 8
        assert manifest(out) == manifest(whole)
        assert [case["status"] for case in manifest(out)] == ["done"] * 8 + ["rejected"]
        assert (out / "measurements.csv").read_text() == (whole / "measurements.csv").read_text()
        assert not (out / ".shards").exists()
        assert not list(out.rglob(".partial-*"))
        # what is finished is finished, for a distributed run and for one that is not
        kept = {path: path.stat().st_mtime_ns for path in out.glob("*_seg.nii.gz")}
        predict_on_ray(bundle, [images], out, cluster=cluster, resume=True, **PLAIN)
        predict(bundle, [images], out, resume=True, **PLAIN)
        assert {path: path.stat().st_mtime_ns for path in out.glob("*_seg.nii.gz")} == kept
        assert manifest(out) == manifest(whole)

    def test_a_case_that_kills_its_process_costs_no_other(self, machines, images, gate, tmp_path):
        for name in "efg":
            (images / f"{name}.nii.gz").unlink()
        bundle = write_gated_bundle(tmp_path / "bundle", gate, "d")
        file = bundle / "configs" / "inference.json"
        file.write_text(re.sub(r"os\.close\(os\.open\([^)]*\)\)", "os.abort()", file.read_text()))
        cluster = RayCluster(machines.address, cpus=1, retries=0)
        result = predict_on_ray(bundle, [images], tmp_path / "out", cluster=cluster, shards=1, **PLAIN)
        assert sorted(case.case for case in result.cases) == ["b", "c", "in_a", "later_a"]
        reasons = {Path(key).name: reason for key, reason in result.rejected.items()}
        assert set(reasons) == {"d.nii.gz", "h.nii.gz"}
        assert f"ended by signal {signal.SIGABRT.value}" in reasons["d.nii.gz"]
        assert "truncated" in reasons["h.nii.gz"]

    def test_a_job_that_fails_is_named_and_the_others_go_on(self, machines, tmp_path):
        jobs = [
            Job("wrong", words=("predict", "no_bundle", "no_image", "--out", str(tmp_path / "out"))),
            Job("killed", call="os:abort"),
            Job("good", call="os:getpid"),
        ]
        lines = []
        with ray_jobs(RayCluster(machines.address, cpus=1, retries=1)) as ray:
            wrong, killed, good = ray.run(jobs, tmp_path / "jobs", say=lines.append)
        assert (wrong.code, killed.code, good.code) == (2, None, 0)
        assert "no_bundle" in wrong.reason
        assert killed.has_died
        assert good.is_done
        assert (tries(tmp_path, "wrong"), tries(tmp_path, "killed"), tries(tmp_path, "good")) == (1, 2, 1)
        assert len(lines) == 3

    def test_no_cluster_at_the_address_is_bad_usage(self, tmp_path):
        with (
            pytest.raises(UsageError, match=r"No Ray cluster answers at 127\.0\.0\.1:1 "),
            ray_jobs(RayCluster("127.0.0.1:1")),
        ):
            pass

    def test_a_fold_whose_process_is_killed_ends_with_the_same_weights(
        self, machines, bundle_root, tmp_path, torch_threads
    ):
        study = phantoms.write_decathlon(tmp_path / "study", num_cases=10) / "dataset.json"
        small = {"iterations_per_epoch": 2, "batch_size": 1, "val_interval": 1, "patch_size": [16, 24, 16]}
        options = {"epochs": 3, "precision": "float32", "num_workers": 0, "overrides": small}
        out, killed = tmp_path / "out", []

        def kill():
            if not killed and (out / "fold_0" / "training" / "checkpoint.pt").is_file():
                log = (out / "jobs" / "fold_0.log").read_text()
                killed.append(int(re.search(r"process (\d+)", log)[1]))
                os.kill(killed[0], signal.SIGKILL)

        job = fold_job(bundle_root, out, study, 0, **options)
        with ray_jobs(RayCluster(machines.address, cpus=1)) as ray:
            (outcome,) = ray.run([job], out / "jobs", tick=kill)
        assert outcome.is_done, outcome.reason
        assert killed
        assert tries(out, "fold_0") == 2
        assert (out / "fold_0" / "held_out" / "summary.json").is_file()
        torch_threads(1)  # as the job has
        train(bundle_root, out=tmp_path / "whole", datalist=study, fold=0, check=None, **options)
        ours, theirs = (
            torch.load(folder / "models" / "model.pt", weights_only=True)
            for folder in (out / "fold_0", tmp_path / "whole")
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_backend_that_every_machine_would_choose_is_refused(tmp_path):
    write_nifti(tmp_path / "in" / "a.nii.gz", two_part_phantom(0)[0])
    bundle = write_threshold_bundle(tmp_path / "bundle")
    with pytest.raises(UsageError, match="--backend auto could choose another on each machine"):
        predict_on_ray(bundle, [tmp_path / "in"], tmp_path / "out", cluster=cluster_of(), backend="auto")
