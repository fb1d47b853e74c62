"""The figures of prediction in turn: speed, parts, memory, a folder; JSON lines, and a table made from them.

Each piece is a script of this folder with its options. Its lines are printed as they come, and appended to the
results in one go when it has ended well, so that a piece that was stopped has left nothing and is run again, and one
that is whole is passed over as long as options, versions and machine are the same (--again runs it anew; the table
takes the latest). A piece that fails is named at the end (exit code 1), and the others go on. The baseline's cheaper
order and the other backends are measured with the UNet; with the other networks, whose windows take much longer, the
zoo's order alone, on 96 slices. Nothing else should run on the machine meanwhile: all takes hours.

Usage: python benchmarks/run_all.py [--results benchmarks/results/prediction.jsonl] [--only speed-unet,folder]
       [--again] [--table-only] [--readme README.md] [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prediction_speed import machine_facts

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
HEAD = ("what", "stock MONAI", "medimg3d", "ratio", "agreement with stock", "peak memory, stock / medimg3d")

Line = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """A script with its options.

    Args:
        name: How ``--only`` calls it.
        script: File in this folder.
        options: Its options.
        quick: Its options with ``--quick``.
    """

    name: str
    script: str
    options: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--quick",)

    def run_of(self, *, is_quick: bool) -> dict[str, Any]:
        """What its figures depend on."""
        options = self.quick if is_quick else self.options
        return {"piece": self.name, "options": list(options), **machine_facts()}


def _speed(network: str, orders: str, backends: str, shape: str = "512,512,250") -> Piece:
    network_option = ("--network", network, "--shape", shape)
    return Piece(
        f"speed-{network}",
        "prediction_speed.py",
        (*network_option, "--orders", orders, "--backends", backends),
        ("--network", network, "--orders", "zoo", "--backends", "torch,openvino-f32", "--quick"),
    )


THIN = "512,512,96"
"""Of the networks whose windows take seconds: slices for one window in depth, and the zoo's order alone."""

PIECES = (
    Piece(
        "folder",
        "prediction_folder.py",
        ("--backends", "torch,openvino-f32,openvino-int8", "--rounds", "3"),
        quick=("--quick", "--backends", "torch,openvino-f32"),
    ),
    _speed("unet", "zoo,cheap", "torch,openvino-f32,openvino-bf16,openvino-int8"),
    Piece("parts", "prediction_parts.py", quick=("--quick", "--orders", "zoo")),
    Piece("memory-depth", "prediction_memory.py", ("--caps", "")),
    Piece("memory-4", "prediction_memory.py", ("--caps", "4", "--depths", "")),
    Piece("memory-2", "prediction_memory.py", ("--caps", "2,0.2", "--depths", "")),
    _speed("dynunet", "zoo", "openvino-f32", THIN),
    _speed("swinunetr", "zoo", "openvino-f32", THIN),
    _speed("mednext", "zoo", "openvino-f32", THIN),
)


def main() -> None:
    """Run what is missing, then print the table."""
    given = read_arguments()
    failed = [] if given.table_only else run_missing(given)
    lines = [line for piece in PIECES for line in latest(read_lines(given.results), piece.name)]
    text = table(lines)
    print(text)
    if given.readme is not None:
        put_into(given.readme, text)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def read_arguments() -> argparse.Namespace:
    """What to run, and where the lines go."""
    names = [piece.name for piece in PIECES]
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--results", type=Path, help="file of JSON lines to append to")
    arguments.add_argument("--only", default=",".join(names), help="pieces, with commas between")
    arguments.add_argument("--again", action="store_true", help="run also what is there")
    arguments.add_argument("--table-only", action="store_true", help="run nothing")
    arguments.add_argument(
        "--readme", type=Path, help=f"put the table between {BEGIN} and {END} of this file"
    )
    arguments.add_argument("--quick", action="store_true", help="small images, to try the scripts")
    given = arguments.parse_args()
    given.only = given.only.split(",")
    if unknown := sorted(set(given.only) - set(names)):
        arguments.error(f"no piece {', '.join(unknown)}; there are {', '.join(names)}")
    if given.results is None:
        given.results = HERE / "results" / ("quick.jsonl" if given.quick else "prediction.jsonl")
    return given


def run_missing(given: argparse.Namespace) -> list[str]:
    """Run the pieces that are asked for and not there; the names of those that failed."""
    there = [] if given.again else [line["run"] for line in read_lines(given.results)]
    failed = []
    for piece in PIECES:
        run = piece.run_of(is_quick=given.quick)
        if piece.name not in given.only or run in there:
            continue
        print(f"{piece.name}: {piece.script} {' '.join(run['options'])}", file=sys.stderr, flush=True)
        lines = run_piece(piece, run)
        if lines is None:
            failed.append(piece.name)
        else:
            append(given.results, lines)
    return failed


def run_piece(piece: Piece, run: dict[str, Any]) -> list[Line] | None:
    """The lines of a piece; None if it failed."""
    begun = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    command = [sys.executable, "-W", "ignore", str(HERE / piece.script), *run["options"]]
    lines: list[Line] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            print(text, end="", flush=True)
            if text.startswith("{"):
                lines.append({**_without_facts(json.loads(text)), "begun": begun, "run": run})
    return lines if process.returncode == 0 and lines else None


def _without_facts(line: Line) -> Line:
    return {name: value for name, value in line.items() if name not in machine_facts()}


def append(file: Path, lines: Iterable[Line]) -> None:
    """Add lines to the end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(file: Path) -> list[Line]:
    """All lines; none if there is no file."""
    return (
        [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    )


def latest(lines: Iterable[Line], piece: str) -> list[Line]:
    """The lines of a piece's last run."""
    own = [line for line in lines if line["run"]["piece"] == piece]
    return [line for line in own if line["begun"] == own[-1]["begun"]]


def table(lines: Iterable[Line]) -> str:
    """A Markdown table, with what it was measured on in front."""
    lines = list(lines)
    rows = [row for line in one_a_comparison(lines) for row in rows_of(line)]
    if not rows:
        return "Nothing is measured yet: run `make bench`."
    head = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    return "\n".join([*measured_on(lines), "", *head, *(f"| {' | '.join(row)} |" for row in rows)])


def one_a_comparison(lines: Sequence[Line]) -> Iterator[Line]:
    """Of comparisons that were run in several rounds, the one with the middle ratio, and the range of all."""
    rounds: dict[str, list[Line]] = {}
    for line in lines:
        rounds.setdefault(_comparison(line), []).append(line)
    for found in rounds.values():
        if len(found) == 1:
            yield found[0]
            continue
        found.sort(key=lambda line: line["ratio"])
        ratios = [found[0]["ratio"], found[-1]["ratio"]]
        yield found[(len(found) - 1) // 2] | {"ratios": ratios, "rounds": len(found)}


def _comparison(line: Line) -> str:
    """What is compared, whatever the round; of a line without a ratio, the line itself."""
    if "ratio" not in line:
        return json.dumps(line)
    names = ("benchmark", "network", "shape", "classes", "cases", "images", "backend", "against")
    return json.dumps([line.get(name) for name in names])


def measured_on(lines: Iterable[Line]) -> Iterator[str]:
    """One sentence for each machine and set of versions, with the pieces."""
    pieces: dict[str, list[str]] = {}
    for line in lines:
        run = line["run"]
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        text = f"{run['cores']} cores ({run['processor']}), {versions}, {line['begun'][:10]}"
        pieces.setdefault(text, []).append(run["piece"])
    for text, names in pieces.items():
        which = f" ({', '.join(dict.fromkeys(names))})" if len(pieces) > 1 else ""
        yield f"Measured{which} on {text}."


def rows_of(line: Line) -> Iterator[tuple[str, ...]]:
    """Its rows of the table; none for the figures of one side, which the comparisons hold."""
    if "failed" in line or "skipped" in line:
        why, side = str(line.get("failed") or line["skipped"]), line.get("side", "")
        cells = (why, "") if side.startswith("stock") else ("", why)
        yield (", ".join(filter(None, (_of(line), side))), *cells, *[""] * 3)
    elif line["benchmark"] == "prediction_memory":
        yield memory_row(line)
    elif "against" in line:
        yield ROWS[line["benchmark"]](line)


def speed_row(line: Line) -> tuple[str, ...]:
    """File to label map."""
    what = f"{_of(line)}, {line['backend']}, against {line['against']}"
    is_same_method = line["against"] == "zoo"  # the cheap order's labels are others, whoever works them out
    agreement = f"Dice ≥ {line['least_dice']:.4f}{_of_class(line)}" if is_same_method else ""
    return what, *_seconds(line), _ratio(line), agreement, _memory(line)


def _of_class(line: Line) -> str:
    """How large the class is that agrees least, where some voxels differ."""
    if "equal_voxels" not in line or line["least_dice"] >= 0.99995:
        return ""
    return f" ({line['voxels_of_that_class']:,} voxels); {100 * line['equal_voxels']:.2f}% equal"


def parts_row(line: Line) -> tuple[str, ...]:
    """All but network and decompression."""
    what = f"outside the network: {_of(line)}, {line['backend']}, against {line['against']}"
    shares = f"{line['outside_of_stock']:.0%} of stock's, {line['outside_of_own_total']:.0%} of own total"
    return what, *_seconds(line, "outside_s"), shares, "", _memory(line)


def folder_row(line: Line) -> tuple[str, ...]:
    """Cases per second."""
    ran = line["backend"] if line["ran"] == line["backend"] else f"{line['backend']} ({line['ran']})"
    rates = (f"{rate:.2f} cases/s" for rate in line["cases_per_s"])
    agreement = f"{line['equal_voxels']:.4%} of the voxels equal"
    if "dice" in line:
        before, after = (", ".join(f"{one:.4f}" for one in dice) for dice in line["dice"])
        agreement += f"; Dice to the truth {before} → {after}"
    return f"{_of(line)}, {ran}", *rates, _ratio(line), agreement, _memory(line)


ROWS = {"prediction_speed": speed_row, "prediction_parts": parts_row, "prediction_folder": folder_row}


def memory_row(line: Line) -> tuple[str, ...]:
    """medimg3d under a cap, refused by it, or against the depth."""
    what, peak = f"memory: {_of(line)}", line["peak_memory_gb"]
    if "bytes_per_extra_voxel" in line:
        what += f", {' → '.join(map(str, line['depths']))} slices"
        told = f"{line['bytes_per_extra_voxel']:.2f} bytes an extra voxel"
        return what, "", told, "", "", " → ".join(f"{one:.2f}" for one in peak.values()) + " GB"
    what += f", at most {line['cap_gb']:g} GB" if "cap_gb" in line else ""
    told = f"{line['seconds']:.1f} s" if line["exit_code"] == 0 else _reason(line)
    return what, "", told, "", "", f"– / {peak:.2f} GB"


def _reason(line: Line) -> str:
    """Why there is no label map, on one line of a table."""
    refused = line.get("refused") or [line.get("message", "")]
    return "refused: " + " ".join(str(refused[0]).split()).replace("|", "/")


def _of(line: Line) -> str:
    if line["benchmark"] == "prediction_folder":
        return f"folder of {line['cases']} ({line['images']})"
    return f"{line['network']}, {line['shape'].replace(',', ' × ')}, {line['classes']} classes"


def _ratio(line: Line) -> str:
    """How many times as fast; of several rounds the middle one, and all."""
    text = f"{line['ratio']:.1f} ×"
    if "ratios" in line:
        low, high = line["ratios"]
        text += f" ({low:.1f} to {high:.1f} in {line['rounds']} rounds)"
    return text


def _seconds(line: Line, name: str = "seconds") -> tuple[str, str]:
    stock, ours = line[name]
    return f"{stock:.1f} s", f"{ours:.1f} s"


def _memory(line: Line) -> str:
    stock, ours = line["peak_memory_gb"]
    return f"{stock:.1f} / {ours:.1f} GB"


def put_into(readme: Path, text: str) -> None:
    """Replace what stands between the two marks."""
    before, found, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"{readme} has no {BEGIN} and {END}; put them where the table is to stand")
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
