"""A planned bundle against nnU-Net: same cases, fold, cores and time (or steps) of training; Dice, time and memory.

nnU-Net runs from an environment of its own (--nnunet-python). The road has steps; what a step found is a file in
--work/steps, and a step whose file is there is passed over, so that hours of training can be spread over days:

  convert          the datalist with its folds written down, and nnU-Net's raw folder of the same files
  preprocess       nnUNetv2_plan_and_preprocess
  plan             medimg3d plan
  train            medimg3d train --minutes; with --trained, a fold that medimg3d cross-validate trained, and its time
  train-nnunet     nnU-Net, for the wall time that medimg3d's training took (--match time), or for as many steps
                   (--match steps)
  train-again      medimg3d once more, for as many steps as nnU-Net took in equal time (--match their-steps): on a
                   CPU, where nnU-Net takes few, far cheaper than --match steps
  predict          medimg3d predict of the held-out cases, warm, with each of --backends
  predict-nnunet   nnU-Net's predictor, warm, with and without its processes
  score            both sides' label maps by medimg3d evaluate; JSON lines, appended to --results

docs/against_nnunet.md says what is equal and what is not.

Usage: python benchmarks/against_nnunet.py --datalist FILE --work DIR --nnunet-python PYTHON [--fold 0] [--minutes 60]
       [--match time,steps,their-steps] [--steps all] [--device cpu] [--backends torch,openvino-f32] [--cases N]
       [--again STEP]
       python benchmarks/against_nnunet.py --table-only [--docs docs/against_nnunet.md]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import nnunet_data as data
import nnunet_scores
from nnunet_command import (
    PLANS,
    PREPROCESSED,
    TRAINER,
    model_folder,
    nnunet,
    nnunet_environment,
    nnunet_versions,
    note_file,
)
from prediction_speed import machine_facts, rounded
from process_tree import Watched, run_watched
from run_all import append, put_into, read_lines

from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.json_file import write_json
from medimg3d.data.training_record import read_json

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "nnunet_trainer"))  # a folder that nnU-Net's environment imports, too

from training_length import length_of_steps  # noqa: E402 - found by the line above

RESULTS = HERE / "results" / "against_nnunet.jsonl"
STEPS = (
    "convert", "preprocess", "plan", "train", "train-nnunet", "train-again", "predict", "predict-nnunet", "score",
)  # fmt: skip
THEIR_STEPS = "their-steps"
MATCHES = ("time", "steps", THEIR_STEPS)
NNUNET_PROCESSES = {"processes": 3, "sequential": 0}
"""Of nnU-Net's predictor: 3 that preprocess and 3 that write, as nnUNetv2_predict has it; or none."""

SETTINGS = ("datalist", "fold", "cases", "device", "cores", "seed", "configuration", "channels")
PATHS = ("datalist", "trained")
"""What a work folder is begun with and keeps."""

Found = dict[str, Any]


def main() -> None:
    """Read the arguments, run the steps that are asked for and not there."""
    given = read_arguments()
    if given.side:
        medimg3d_side(given)
        return
    if given.table_only:
        show_table(given)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped, too
    given.work.mkdir(parents=True, exist_ok=True)
    keep_settings(given)
    os.environ["OMP_NUM_THREADS"] = str(given.cores)
    if hasattr(os, "sched_setaffinity"):  # what is started inherits it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    for kind, name, run in wanted_steps(given):
        do_step(given, kind, name, run)


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """What is compared, and how."""
    cores = machine_facts()["cores"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--datalist", type=Path, help="as medimg3d datalist makes it, or a Decathlon dataset.json"
    )
    parser.add_argument("--work", type=Path, help="folder for everything")
    parser.add_argument("--nnunet-python", type=Path, help="Python of an environment with nnunetv2")
    parser.add_argument("--fold", type=int, default=0, help="that is held out")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, each side")
    parser.add_argument("--epochs", type=int, help="of medimg3d's training instead")
    parser.add_argument(
        "--trained", type=Path, help="fold_K of medimg3d cross-validate, instead of a training"
    )
    parser.add_argument(
        "--match", default="time,steps", help="what is equal: time, steps, their-steps, or several in turn"
    )
    parser.add_argument("--steps", default="all", help=f"with commas: {', '.join(STEPS)}")
    parser.add_argument("--again", default="", help="steps that are run although they are done")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cores", type=int, default=cores)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--configuration", default="3d_fullres", help="of nnU-Net")
    parser.add_argument("--channels", help="names of the channels for nnU-Net, where the datalist has none")
    parser.add_argument("--plan", default="", help="further options of medimg3d plan, in one string")
    parser.add_argument("--backends", default="torch,openvino-f32", help="of medimg3d predict")
    parser.add_argument("--rounds", type=int, default=1, help="of each timed prediction; the median counts")
    parser.add_argument("--cases", type=int, help="only so many, to try the road")
    parser.add_argument("--results", type=Path, help="JSON lines to append to")
    parser.add_argument("--table-only", action="store_true", help="print the table of what is measured")
    parser.add_argument("--docs", type=Path, help="put the table between the marks of this file, too")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--side-match", default=MATCHES[0], help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not (given.table_only or (given.datalist and given.work and given.nnunet_python)):
        parser.error("give --datalist, --work and --nnunet-python (or --table-only)")
    check_lists(parser, given)
    if given.results is None:
        given.results = RESULTS if given.cases is None else RESULTS.with_name("quick.jsonl")
    return given


def check_lists(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Turn the lists of names into lists; refuse what is in none of them."""
    given.steps = list(STEPS) if given.steps == "all" else given.steps.split(",")
    for name, known in (("steps", STEPS), ("match", MATCHES), ("again", STEPS), ("backends", None)):
        value = getattr(given, name)
        setattr(given, name, value if isinstance(value, list) else list(filter(None, value.split(","))))
        unknown = [one for one in getattr(given, name) if known is not None and one not in known]
        if unknown:
            parser.error(f"no --{name} {unknown[0]}; there are {', '.join(known or ())}")


def keep_settings(given: argparse.Namespace) -> None:
    """Write down what the work folder is begun with; refuse another thing later."""
    paths = {name: path and str(path.resolve()) for name in PATHS for path in [getattr(given, name)]}
    now = {name: getattr(given, name) for name in SETTINGS} | paths
    file = given.work / "settings.json"
    begun = read_json(file)
    other = [name for name in now if begun and begun.get(name) != now[name]]
    if other:
        raise SystemExit(
            f"{given.work} was begun with --{other[0]} {begun.get(other[0])}, not {now[other[0]]}; give the same, or "
            "another --work"
        )
    write_json(now, file)


def wanted_steps(given: argparse.Namespace) -> list[tuple[str, str, Callable[[], Found]]]:
    """The steps that are asked for: kind, name and what it does; each training of a side once, whatever matches it."""
    once = {"convert": convert, "preprocess": preprocess, "plan": plan, "train": train}
    each = {
        "train-nnunet": (train_nnunet, their_name),
        "predict": (predict, our_name),
        "predict-nnunet": (predict_nnunet, their_name),
        "score": (score, "{}-{}".format),
    }
    steps: dict[str, tuple[str, str, Callable[[], Found]]] = {}
    for kind in (kind for kind in STEPS if kind in given.steps):
        if kind in once:
            steps[kind] = (kind, kind, partial(once[kind], given))
        elif kind == "train-again":
            if THEIR_STEPS in given.match:
                steps[kind] = (kind, our_name("train", THEIR_STEPS), partial(train_again, given))
        else:
            run, named = each[kind]
            for match in given.match:
                name = named(kind, match)
                steps.setdefault(name, (kind, name, partial(run, given, match)))
    return list(steps.values())


def our_name(kind: str, match: str) -> str:
    """The step of medimg3d's training that a match compares."""
    return f"{kind}-{THEIR_STEPS}" if match == THEIR_STEPS else kind


def their_name(kind: str, match: str) -> str:
    """The step of nnU-Net's training that a match compares."""
    return f"{kind}-{their_match(match)}"


def their_match(match: str) -> str:
    """What nnU-Net's training was matched to: where medimg3d takes its steps, the time."""
    return MATCHES[0] if match == THEIR_STEPS else match


def our_run(given: argparse.Namespace, match: str) -> Path:
    """The trained bundle that a match compares."""
    return Path(given.work / ("run_their_steps" if match == THEIR_STEPS else "run"))


def our_prediction(match: str, backend: str) -> str:
    """Folder of its label maps."""
    return f"medimg3d_{'their_steps_' if match == THEIR_STEPS else ''}{backend}"


def do_step(given: argparse.Namespace, kind: str, name: str, run: Callable[[], Found]) -> None:
    """Run a step unless it is done."""
    file = step_file(given, name)
    if file.is_file() and kind not in given.again:
        print(f"{name}: done before", file=sys.stderr, flush=True)
        return
    print(f"{name} …", file=sys.stderr, flush=True)
    begun = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    found = {**rounded(run()), "begun": begun}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(found, file)
    print(f"{name}: {json.dumps(found)}"[:400], file=sys.stderr, flush=True)


def step_file(given: argparse.Namespace, name: str) -> Path:
    """Where a step says what it found."""
    return Path(given.work / "steps" / f"{name}.json")


def of_step(given: argparse.Namespace, name: str) -> Found:
    """What an earlier step found."""
    file = step_file(given, name)
    if not file.is_file():
        raise SystemExit(f"the step {name} is not done in {given.work}; run it first (--steps {name})")
    return read_json(file)


def convert(given: argparse.Namespace) -> Found:
    """Write the data set in both forms."""
    datalist = data.with_folds(load_datalist(given.datalist))
    if given.cases is not None:
        datalist = data.fewer_cases(datalist, given.fold, given.cases)
    channels = data.channel_names(datalist, given.channels)
    counts = data.write_both(datalist, given.fold, given.work, channels=channels)
    return {"name": datalist.name or given.datalist.parent.name, "channels": channels, **counts}


def preprocess(given: argparse.Namespace) -> Found:
    """nnU-Net's fingerprint, plan and preprocessing of one configuration; then our folds in place of its own."""
    of_step(given, "convert")
    done = nnunet(given, "preprocess", "nnUNetv2_plan_and_preprocess", "-d", "1", "-c", given.configuration,
                  "-np", given.cores, "-npfp", given.cores, "--verify_dataset_integrity", "--no_pbar")  # fmt: skip
    folder = given.work / PREPROCESSED / data.DATASET
    folds = data.splits(load_datalist(given.work / data.DATALIST))
    (folder / "splits_final.json").write_text(json.dumps(folds, indent=1))
    planned = read_json(folder / f"{PLANS}.json")["configurations"][given.configuration]
    cache = folder / planned.get("data_identifier", f"{PLANS}_{given.configuration}")
    chosen = {key: planned[key] for key in ("patch_size", "batch_size", "spacing")}
    return {**figures(done), "cache_gb": folder_bytes(cache) / 1e9, **chosen}


def plan(given: argparse.Namespace) -> Found:
    """``medimg3d plan``."""
    of_step(given, "convert")
    bundle = given.work / "bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    if given.trained is not None:
        copy_recipe(given.trained, bundle)
        return {"seconds": None, "peak_memory_gb": None, **of_recipe(bundle)}
    done = medimg3d(given, "plan", given.work / data.DATALIST, "--out", bundle, "--device", given.device,
                    *given.plan.split())  # fmt: skip
    return {**figures(done), **of_recipe(bundle)}


def of_recipe(bundle: Path) -> Found:
    """What a bundle trains, and on what."""
    recipe = read_json(bundle / "configs" / "train.json")
    chosen = {key: recipe.get(key) for key in ("window_size", "batch_size", "iterations_per_epoch")}
    return {"network": recipe["network_def"].get("_target_"), **chosen}


def copy_recipe(trained: Path, bundle: Path) -> None:
    """The bundle that a fold was trained by: all but what the training left."""
    if not (trained / "docs" / "README.md").is_file():
        raise SystemExit(
            f"{trained} is no trained fold; expected fold_K of medimg3d cross-validate, at its end"
        )
    shutil.copytree(trained, bundle, ignore=shutil.ignore_patterns("training", "held_out", "models"))


def train(given: argparse.Namespace) -> Found:
    """``medimg3d train``, going on where it was interrupted. Its preprocessing is part of it."""
    if given.trained is not None:
        return take_trained(given)
    length = ["--epochs", given.epochs] if given.epochs else ["--minutes", given.minutes]
    return train_bundle(given, "train", MATCHES[0], length)


def take_trained(given: argparse.Namespace) -> Found:
    """A fold that ``medimg3d cross-validate`` trained. It may have had fewer of the cores than nnU-Net will have."""
    times, settings = (
        read_json(given.trained / "training" / name) for name in ("times.json", "settings.json")
    )
    if settings.get("seed") != given.seed or given.cases is not None:
        raise SystemExit(
            f"{given.trained} was trained with seed {settings.get('seed')} on all cases; expected --seed "
            f"{given.seed} and no --cases"
        )
    if settings.get("fold") != given.fold or times.get("training_s") is None or times["resumed"]:
        raise SystemExit(
            f"{given.trained}: expected a training of fold {given.fold} without interruption, and its time; "
            f"found fold {settings.get('fold')}, {times or 'no times.json'}"
        )
    run = our_run(given, MATCHES[0])
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(given.trained, run)
    seconds = {"seconds": times["training_s"], "peak_memory_gb": None, "was_interrupted": False}
    cache = run / "training" / "cache"  # elsewhere with cross-validate --cache
    return {**seconds, **of_run(run), "cache_gb": folder_bytes(cache) / 1e9 if cache.is_dir() else None}


def of_run(run: Path) -> Found:
    """How long, and in what precision, a run was trained."""
    settings = read_json(run / "training" / "settings.json")
    steps = int(settings["epochs"]) * int(read_json(run / "configs" / "train.json")["iterations_per_epoch"])
    return {"epochs": settings["epochs"], "steps": steps, "precision": settings["precision"]}


def train_again(given: argparse.Namespace) -> Found:
    """The same for as many steps as nnU-Net took (up to 2 % fewer), validated once, at the end."""
    theirs = length_of_steps(int(of_step(given, their_name("train-nnunet", THEIR_STEPS))["steps"]))
    length = ["--epochs", theirs.epochs, "--set", f"iterations_per_epoch={theirs.iterations}",
              "--set", f"val_interval={theirs.epochs}"]  # fmt: skip
    return train_bundle(given, "train-again", THEIR_STEPS, length)


def train_bundle(given: argparse.Namespace, kind: str, match: str, length: list[object]) -> Found:
    """Train the planned bundle into the folder of a match."""
    of_step(given, "plan")
    run, cache = our_run(given, match), given.work / f"cache_{kind}"
    if kind in given.again:
        for folder in (run, cache):
            shutil.rmtree(folder, ignore_errors=True)
    done = medimg3d(given, "train", given.work / "bundle", "--datalist", given.work / data.DATALIST, "--fold",
                    given.fold, "--out", run, "--cache", cache, "--seed", given.seed, "--resume", *length,
                    every_s=2.0, step=our_name("train", match))  # fmt: skip
    return {**figures(done), "was_interrupted": done.was_interrupted, **of_run(run),
            "cache_gb": folder_bytes(cache) / 1e9}  # fmt: skip


def train_nnunet(given: argparse.Namespace, match: str) -> Found:
    """nnU-Net's training for medimg3d's wall time or steps, going on where it was interrupted."""
    of_step(given, "preprocess")
    ours = of_step(given, "train")
    name = f"train-nnunet-{match}"
    fold = model_folder(given, match) / f"fold_{given.fold}"
    if "train-nnunet" in given.again:
        shutil.rmtree(fold, ignore_errors=True)
    goes_on = any(fold.glob("checkpoint_*.pth"))
    if not goes_on:  # a run that was stopped before its first checkpoint is none
        shutil.rmtree(fold, ignore_errors=True)
        note_file(given, name).unlink(missing_ok=True)
    budget = (
        {"MEDIMG3D_STEPS": str(ours["steps"])}
        if match == "steps"
        else {"MEDIMG3D_UNTIL": str(time.time() + ours["seconds"])}
    )
    done = nnunet(given, name, "nnUNetv2_train", "1", given.configuration, given.fold, "-tr", TRAINER, "-device",
                  given.device, *(["--c"] if goes_on else []), match=match, every_s=2.0,
                  more={**budget, "MEDIMG3D_SEED": str(given.seed)})  # fmt: skip
    length = read_json(fold / "medimg3d_length.json")
    return {**figures(done), "was_interrupted": done.was_interrupted, **length}


def predict(given: argparse.Namespace, match: str) -> Found:
    """``medimg3d predict`` of the held-out cases with each backend, each in a process of its own."""
    of_step(given, our_name("train", match))
    found = {}
    for backend in given.backends:
        name = our_prediction(match, backend)
        shutil.rmtree(given.work / "predicted" / name, ignore_errors=True)
        command = [sys.executable, "-W", "ignore", __file__, "--side", backend, "--side-match", match, "--work",
                   given.work, "--datalist", given.datalist, "--nnunet-python", given.nnunet_python, "--device",
                   given.device, "--rounds", given.rounds]  # fmt: skip
        done = run_watched(command, given.work / "logs" / f"predict-{name}.log")
        found[backend] = of_prediction(done, side_report(given, name))
    return {"backends": found}


def side_report(given: argparse.Namespace, name: str) -> Path:
    """Where the process of a prediction says what it measured."""
    return Path(given.work / "steps" / f"predict-{name}.part")


def medimg3d_side(given: argparse.Namespace) -> None:
    """In the process of its own: one image to warm up with, then all of them, the building of the network counted."""
    from medimg3d.workflows.predict import predict as predict_images

    images, run = given.work / data.IMAGES / "medimg3d", our_run(given, given.side_match)
    name = our_prediction(given.side_match, given.side)
    out = given.work / "predicted" / name
    options: dict[str, Any] = {
        "overlays": False, "reports": False, "backend": given.side, "device": given.device,
    }  # fmt: skip
    predict_images(
        run, [next(iter(sorted(images.iterdir())))], out.with_name(f"{out.name}_warm_up"), **options
    )
    seconds = []
    for _ in range(given.rounds):
        begin = time.perf_counter()
        result = predict_images(run, [images], out, **options)
        seconds.append(time.perf_counter() - begin)
    import torch

    found: Found = {"seconds": seconds, "threads": torch.get_num_threads(), "rejected": result.rejected}
    if given.device == "cuda":
        found["gpu_memory_gb"] = torch.cuda.max_memory_reserved() / 1e9
    write_json(found, side_report(given, name))


def predict_nnunet(given: argparse.Namespace, match: str) -> Found:
    """nnU-Net's predictor on the same cases, with its processes and without."""
    of_step(given, f"train-nnunet-{match}")
    found = {}
    for way, processes in NNUNET_PROCESSES.items():
        name = f"predict-nnunet-{match}-{way}"
        report, out = (
            given.work / "steps" / f"{name}.part",
            given.work / "predicted" / f"nnunet_{match}_{way}",
        )
        shutil.rmtree(out, ignore_errors=True)
        command = [given.nnunet_python, HERE / "nnunet_predict.py", "--images", given.work / data.IMAGES / "nnunet",
                   "--model", model_folder(given, match), "--fold", given.fold, "--out", out, "--report", report,
                   "--device", given.device, "--processes", processes, "--rounds", given.rounds]  # fmt: skip
        step_file(given, name).parent.mkdir(parents=True, exist_ok=True)
        done = run_watched(
            command, given.work / "logs" / f"{name}.log", environment=nnunet_environment(given, match)
        )
        found[way] = of_prediction(done, report)
        data.restore_labels(out, load_datalist(given.work / data.DATALIST).labels)
    return {"ways": found}


def score(given: argparse.Namespace, match: str) -> Found:
    """Score both sides alike; a line a backend."""
    theirs = scores_of(given, f"nnunet_{their_match(match)}_processes")
    patients = {case.name: case.patient for case in load_datalist(given.work / data.HELD_OUT).training}
    lines = []
    for backend in given.backends:
        ours = scores_of(given, our_prediction(match, backend))
        compared = nnunet_scores.compare(nnunet_scores.pair_up(theirs, ours, patients), seed=given.seed)
        finds = [nnunet_scores.false_finds(side) for side in (theirs, ours)]
        line = {
            "benchmark": "against_nnunet", **head(given), "match": match, "backend": backend, **compared,
            "false_finds": finds, **costs(given, match, backend),
        }  # fmt: skip
        lines.append(
            {**rounded(line), **machine_facts(), "cores": given.cores, "begun": time.strftime("%Y-%m-%d")}
        )
        print(json.dumps(lines[-1]), flush=True)
    append(given.results, lines)
    return {"lines": lines}


def head(given: argparse.Namespace) -> Found:
    """What a line is about."""
    converted = of_step(given, "convert")
    facts = {key: converted[key] for key in ("name", "training_cases", "held_out_cases", "half_precision_gb")}
    quick = {} if given.cases is None else {"quick": True}
    return {**facts, "fold": given.fold, "device": given.device, "seed": given.seed, **quick}


def costs(given: argparse.Namespace, match: str, backend: str) -> Found:
    """Time, steps and memory of both sides, [nnU-Net, medimg3d]; nnU-Net's prediction by the faster of its ways."""
    prepared, planned = of_step(given, "preprocess"), of_step(given, "plan")
    trained = [of_step(given, their_name("train-nnunet", match)), of_step(given, our_name("train", match))]
    ways = of_step(given, their_name("predict-nnunet", match))["ways"]
    ours = of_step(given, our_name("predict", match))["backends"][backend]
    way = min(ways, key=lambda name: ways[name]["seconds"])
    both = [ways[way], ours]
    return {
        "training_s": [one["seconds"] for one in trained],
        "steps": [one["steps"] for one in trained],
        "epochs": [one["epochs"] for one in trained],
        "training_memory_gb": [one["peak_memory_gb"] for one in trained],
        "was_interrupted": [one["was_interrupted"] for one in trained],
        "batch_size": [prepared["batch_size"], planned["batch_size"]],
        "patch_size": [prepared["patch_size"], planned["window_size"]],
        "preprocess_s": prepared["seconds"], "plan_s": planned["seconds"],
        "cache_gb": [prepared["cache_gb"], trained[1]["cache_gb"]],
        "nnunet_way": way, "nnunet_ways": ways,
        "prediction_s": [one["seconds"] for one in both],
        "prediction_process_s": [one["process_s"] for one in both],
        "prediction_memory_gb": [one["peak_memory_gb"] for one in both],
        "nnunet_versions": nnunet_versions(given),
    }  # fmt: skip


def scores_of(given: argparse.Namespace, predicted: str) -> nnunet_scores.Scores:
    """``medimg3d evaluate`` of one side's label maps; every held-out case must have one."""
    from medimg3d.workflows.evaluate import evaluate

    result = evaluate(
        given.work / "predicted" / predicted, given.work / data.HELD_OUT, given.work / "scores" / predicted,
        workers=given.cores,
    )  # fmt: skip
    if result.rejected:
        case, reason = next(iter(result.rejected.items()))
        raise SystemExit(
            f"{predicted}: {len(result.rejected)} cases could not be scored; the first, {case}: {reason}"
        )
    seen = result.summary["seen_in_training"].get("cases")
    if seen:
        raise SystemExit(
            f"{predicted}: trained on {seen}; expected held-out cases only (--trained of another split?)"
        )
    return result.scores


def of_prediction(done: Watched, report: Path) -> Found:
    """The median of the rounds, and the whole process with start-up and warm-up."""
    told = json.loads(report.read_text())
    if told.get("rejected"):
        raise SystemExit(f"rejected: {told['rejected']}")
    return {**told, "rounds_s": told["seconds"], "seconds": median(told["seconds"]), "process_s": done.seconds,
            "peak_memory_gb": done.peak_memory_gb}  # fmt: skip


def figures(done: Watched) -> Found:
    """Seconds and memory of a command."""
    return {"seconds": done.seconds, "peak_memory_gb": done.peak_memory_gb}


def medimg3d(
    given: argparse.Namespace, name: str, *options: object, every_s: float = 0.5, step: str | None = None
) -> Watched:
    """Run a command of medimg3d."""
    command = [sys.executable, "-W", "ignore", "-m", "medimg3d.cli.main", name, *options, "--json"]
    step = step or name
    note = note_file(given, step) if name == "train" else None
    return run_watched(command, given.work / "logs" / f"{step}.log", every_s=every_s, note=note)


def folder_bytes(folder: Path) -> int:
    """Size of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def show_table(given: argparse.Namespace) -> None:
    """Print the table, and put it into the docs."""
    text = nnunet_scores.table(read_lines(given.results))
    print(text)
    if given.docs is not None:
        put_into(given.docs, text)


if __name__ == "__main__":
    main()
