"""``medimg3d evaluate``: label maps or class decisions against references, as figures with intervals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medimg3d.cli.output import (
    EXIT_REJECTS,
    DebugOption,
    JsonOption,
    console,
    errors_console,
    print_json,
    print_rejects,
    print_table,
    progress_bar,
)
from medimg3d.errors import UsageError

if TYPE_CHECKING:
    from medimg3d.workflows.evaluate import EvaluationResult
    from medimg3d.workflows.evaluate_classification import ClassificationEvaluation
    from medimg3d.workflows.label_meaning import PredictedValues

PredictionsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS",
        help="Folder with CASE_seg.nii.gz, one a case; or a classifier's predictions.csv or its folder.",
        show_default=False,
    ),
]
LabelsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="LABELS",
        help="Folder of label maps, Decathlon folder, or datalist; for classes: datalist, labels.csv, or a folder "
        "with one of them.",
        show_default=False,
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        metavar="DIR",
        help="Bundle that made the predictions: warns about cases that it was trained on.",
    ),
]
RegionsOption = Annotated[
    str | None,
    typer.Option(
        "--regions",
        metavar="FILE|JSON",
        help='Label maps: regions that overlap, {"whole": [1, 2], "core": [2]}; a bundle or a datalist names its own.',
        show_default=False,
    ),
]
PredictedOption = Annotated[
    str | None,
    typer.Option(
        "--predicted",
        metavar="regions|labels",
        help="Label maps: how predictions name regions: by number (a bundle of regions), or by the values of the "
        "references (nnU-Net).",
        show_default=False,
    ),
]
IgnoreOption = Annotated[
    int | None,
    typer.Option(
        "--ignore-label",
        min=1,
        metavar="VALUE",
        help="Label maps: value of references where nobody labelled; counts in no score.",
        show_default=False,
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Images, for the pictures; a datalist names them itself."),
]
ToleranceOption = Annotated[
    float,
    typer.Option("--tolerance-mm", min=0, help="Distance that the surface Dice still calls agreement."),
]
WorstOption = Annotated[
    int | None,
    typer.Option(
        "--num-worst",
        min=0,
        help="Number of worst cases to draw: lowest Dice (5), or most confident mistakes (12).",
        show_default=False,
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the intervals.")]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Cases at once; by default one a processor, at most 4."),
]
SectionOption = Annotated[
    str | None,
    typer.Option(
        "--section",
        help="Classes: part of the datalist to score: test (the default), validation, training or all.",
        show_default=False,
    ),
]
SubgroupOption = Annotated[
    list[str] | None,
    typer.Option(
        "--subgroup",
        metavar="COLUMN",
        help="Classes: figures by this column of the datalist, too; can be repeated. By default: subtype.",
        show_default=False,
    ),
]
AgainstOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--against",
        metavar="PREDICTIONS",
        help="Classes: other predictions of the same films; the specificity gained over them at equal sensitivity. Can "
        "be repeated.",
        show_default=False,
    ),
]
NoLogOption = Annotated[
    bool,
    typer.Option(
        "--no-log",
        help="Classes: do not note this look at a test set in the bundle. For tests of the program only.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("evaluate", no_args_is_help=True)(evaluate)


def evaluate(
    predictions: PredictionsArgument,
    labels: LabelsArgument,
    out: OutOption,
    bundle: BundleOption = None,
    images: ImagesOption = None,
    regions: RegionsOption = None,
    predicted: PredictedOption = None,
    ignore_label: IgnoreOption = None,
    tolerance_mm: ToleranceOption = 1.0,
    section: SectionOption = None,
    subgroup: SubgroupOption = None,
    against: AgainstOption = None,
    num_worst: WorstOption = None,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    no_log: NoLogOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    r"""Measure predictions against references: label maps, or classes of whole images.

    [bold]Label maps.[/] For each case and class: Dice, the distance that holds 95 % of both surfaces (HD95, mm),
    the share of the surfaces within a tolerance (surface Dice), and the difference of the volumes (mL). For
    each class: the mean with its 95 % interval, and how many cases are not in it and why.

    [bold]Classes[/] (PREDICTIONS is or holds predictions.csv). Accuracy, sensitivity, specificity, precision,
    F1, AUC, average precision, calibration, each with its 95 % interval; confusion matrix, the unsure films,
    subgroups, the most confident mistakes. With --bundle, each look at a test set is noted in the bundle.

    Writes [bold]evaluation.html[/] (one file, pictures inside), [bold]cases.csv[/] and
    [bold]summary.json[/]. A case without a prediction, unreadable, or on another grid is named with its
    reason, and the exit code is 3.

    [bold]Examples[/]

      [dim]# predictions of a Decathlon set; draws the worst cases, since the images are known[/]
      medimg3d evaluate predictions Task04_Hippocampus --out evaluation

      [dim]# a folder of label maps; warns about cases that the bundle was trained on[/]
      medimg3d evaluate predictions labels --images images --bundle my_bundle --out evaluation

      [dim]# overlapping regions, predicted by nnU-Net as label values[/]
      medimg3d evaluate predictions labels --regions '{"whole": [1, 2, 3], "core": [1, 3]}' --out evaluation

      [dim]# a classifier's predictions.csv against the test part of a datalist[/]
      medimg3d evaluate predictions chest.json --bundle my_bundle --subgroup subtype --out evaluation

      [dim]# is the new classifier better than the old one: false alarms at equal sensitivity[/]
      medimg3d evaluate new_predictions chest.json --against old_predictions --out evaluation

      [dim]# for machines[/]
      medimg3d evaluate predictions test.json --out evaluation --json > figures.json
    """
    from medimg3d.data.class_predictions import is_classification

    if is_classification(predictions):
        unused: dict[str, Any] = {
            "--images": images,
            "--workers": workers,
            "--regions": regions,
            "--predicted": predicted,
            "--ignore-label": ignore_label,
        }
    else:
        unused = {
            "--section": section,
            "--subgroup": subgroup,
            "--against": against,
            "--no-log": no_log,
        }
    _refuse_unused(predictions, unused)
    if is_classification(predictions):
        classes = _evaluate_classes(
            predictions, labels, out, bundle, section, subgroup, against, num_worst, seed, log=not no_log
        )
        _finish(classes, _show_classes, as_json)
        return
    from medimg3d.data.label_regions import read_regions
    from medimg3d.workflows.evaluate import evaluate as run_evaluation

    with progress_bar("Scoring") as progress:
        result = run_evaluation(
            predictions,
            labels,
            out,
            bundle=bundle,
            images=images,
            regions=None if regions is None else read_regions(regions),
            predicted=_predicted(predicted),
            ignore_label=ignore_label,
            tolerance_mm=tolerance_mm,
            num_worst=5 if num_worst is None else num_worst,
            seed=seed,
            workers=workers,
            progress=progress,
        )
    _finish(result, _show, as_json)


def _predicted(value: str | None) -> PredictedValues | None:
    if value is None:
        return None
    if value == "regions":
        return "regions"
    if value == "labels":
        return "labels"
    raise UsageError(f"--predicted is {value!r}; expected regions or labels.")


def _refuse_unused(predictions: Path, options: dict[str, Any]) -> None:
    """An option that does nothing here is a mistake of the caller's."""
    given = [name for name, value in options.items() if value]
    if given:
        kind = "label maps" if "--section" in options else "classes"
        raise UsageError(
            f"{predictions} holds predicted {kind}, for which {given[0]} does nothing; leave it out."
        )


def _evaluate_classes(
    predictions: Path,
    labels: Path,
    out: Path,
    bundle: Path | None,
    section: str | None,
    subgroup: list[str] | None,
    against: list[Path] | None,
    num_worst: int | None,
    seed: int,
    *,
    log: bool,
) -> ClassificationEvaluation:
    from medimg3d.workflows.evaluate_classification import NUM_MISTAKES, evaluate_classification

    with progress_bar("Reading") as progress:
        return evaluate_classification(
            predictions,
            labels,
            out,
            section=section or "test",
            bundle=bundle,
            subgroup_by=subgroup or ("subtype",),
            against=against or (),
            num_mistakes=NUM_MISTAKES if num_worst is None else num_worst,
            seed=seed,
            log=log,
            progress=progress,
        )


def _finish(result: Any, show: Callable[[Any], None], as_json: bool) -> None:
    """Print the figures, the warnings and the rejects; exit code 3 if there are any."""
    if as_json:
        print_json(result.summary)
    else:
        show(result)
    _show_warnings(result)
    print_rejects(result.rejected)
    if result.rejected:
        raise typer.Exit(EXIT_REJECTS)


def _show(result: EvaluationResult) -> None:
    from medimg3d.report.page import summary_rows

    rows = [
        (row["metric"], row["class_name"], row["mean"], row["interval"], row["n"], row["left_out"])
        for row in summary_rows(result.summary)
    ]
    settings = result.summary["settings"]
    title = f"{len(result.scores)} cases; surface Dice at {settings['tolerance_mm']:g} mm"
    print_table(title, ("metric", "class", "mean", "95 % interval", "n", "not in the mean"), rows)
    console().print(f"Page: {result.files['page']}", markup=False, soft_wrap=True, highlight=False)


def _show_classes(result: ClassificationEvaluation) -> None:
    from medimg3d.report.classification_page import against_rows, metric_rows

    rows = [(row["label"], row["value"], row["interval"], row["note"]) for row in metric_rows(result.summary)]
    counts = ", ".join(f"{n} {name}" for name, n in result.summary["n_by_class"].items())
    unsure = result.summary["unsure"]["n"]
    title = f"{len(result.films)} films ({counts}; {unsure} unsure), section {result.summary['section']}"
    print_table(title, ("figure", "value", "95 % interval", "note"), rows)
    out = console()
    for column, entries in result.summary["subgroups"].items():
        for entry in entries:
            figures = ", ".join(
                f"{name.replace('_', ' ')} {figure['value']:.3f}"
                for name, figure in entry["figures"].items()
                if figure["value"] is not None
            )
            text = (
                f"{column} {entry['value']} (n = {entry['n']}, against {entry['compared_with']}): {figures}"
            )
            out.print(text, markup=False, soft_wrap=True, highlight=False)
    for one in against_rows(result.summary):
        text = (
            f"Against {one['name']} (n = {one['n']}), both at sensitivity {one['sensitivity']}: specificity "
            f"{one['here']}, there {one['there']}, gained {one['gain']} ({one['gain_interval'] or 'no interval'})"
        )
        out.print(text, markup=False, soft_wrap=True, highlight=False)
    out.print(f"Page: {result.files['page']}", markup=False, soft_wrap=True, highlight=False)
    for notice in result.notices:
        errors_console().print(notice, markup=False, soft_wrap=True, style="dim")


def _show_warnings(result: EvaluationResult | ClassificationEvaluation) -> None:
    out = errors_console()
    for warning in result.warnings:
        out.print("[bold yellow]Warning:[/] ", end="")
        out.print(warning, markup=False, soft_wrap=True)
    seen = result.summary["seen_in_training"]
    if not seen["checked"]:
        text = f"Not checked whether these cases were trained on: {seen['why_not']}."
        out.print(text, markup=False, soft_wrap=True, style="dim")
