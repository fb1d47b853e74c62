"""``medimg3d predict``: images to label maps, volumes and reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medimg3d.cli.output import (
    EXIT_FAILED,
    EXIT_REJECTS,
    DebugOption,
    JsonOption,
    errors_console,
    print_json,
    print_rejects,
    print_table,
    progress_bar,
)
from medimg3d.cli.ray_options import JobCpusOption, JobGpusOption, RayOption, ray_cluster
from medimg3d.errors import UsageError

if TYPE_CHECKING:
    from medimg3d.workflows.predict import PredictResult
    from medimg3d.workflows.predict_classification import ClassificationResult

_MOST_ROWS = 40

BundleArgument = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE", help="Folder of the bundle (with configs/ and models/).", show_default=False
    ),
]
InputsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="Images (volumes: .nii, .nii.gz, .nrrd, .mha; films: JPEG, PNG, TIFF, DICOM), folders of them, or a "
        "datalist (volumes).",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for everything that is written.")
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="Weights instead of the bundle's models/model.pt."),
]
SectionOption = Annotated[
    str | None,
    typer.Option(
        "--section",
        help="Part of the datalist: test (the default where it has test cases), validation, training or all.",
        show_default=False,
    ),
]
OverlaysOption = Annotated[
    bool, typer.Option("--overlays/--no-overlays", help="Draw a picture of each case.")
]
ReportsOption = Annotated[
    bool, typer.Option("--reports/--no-reports", help="Write an HTML page for each case.")
]
ExplainOption = Annotated[
    bool, typer.Option("--explain", help="Classifiers: draw where the network looked in each image.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1; by default a GPU where there is one."),
]

BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="What runs the network: auto (a short trial, remembered), torch, compile, openvino-f32, onnxruntime, …",
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="DATALIST",
        help="With --backend openvino-int8, once: labelled cases to quantize on; taken if the Dice hardly falls.",
    ),
]
FastOption = Annotated[
    bool, typer.Option("--fast/--plain", help="Use the bundle's inference_fast.json where it has one.")
]
MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        min=0.01,
        metavar="GB",
        help="Most memory of the whole process; slower where it is little.",
    ),
]
WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        min=0,
        help="Cases loaded ahead at once; 0: one case after the other. Always 0 with --memory-gb.",
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Keep the cases that an earlier run into --out finished.")
]

UncertaintyOption = Annotated[
    bool,
    typer.Option("--uncertainty", help="Write a map of how unsure the networks are; warn of unusual cases."),
]

MasksOption = Annotated[
    bool,
    typer.Option(
        "--region-masks",
        help="Bundles of overlapping regions: write a mask of each region, too, in DIR/regions/.",
    ),
]
ShardsOption = Annotated[
    int | None,
    typer.Option(
        "--shards",
        min=1,
        help="With --ray: parts of the cases; by default two for each job that fits at once.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("predict", no_args_is_help=True)(predict)


def predict(
    bundle: BundleArgument,
    inputs: InputsArgument,
    out: OutOption,
    section: SectionOption = None,
    checkpoint: CheckpointOption = None,
    overlays: OverlaysOption = True,
    reports: ReportsOption = True,
    explain: ExplainOption = False,
    device: DeviceOption = None,
    backend: BackendOption = None,
    calibration: CalibrationOption = None,
    fast: FastOption = True,
    memory_gb: MemoryOption = None,
    workers: WorkersOption = 1,
    resume: ResumeOption = False,
    uncertainty: UncertaintyOption = False,
    region_masks: MasksOption = False,
    ray: RayOption = None,
    job_cpus: JobCpusOption = None,
    job_gpus: JobGpusOption = None,
    shards: ShardsOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    r"""Run a bundle on images: label maps, volumes, pictures and reports, or probabilities and decisions.

    A bundle that segments: each image ends as [bold]DIR/CASE_seg.nii.gz[/] on its own grid, or is rejected
    with its reason; one bad file never stops the rest. A bundle that classifies: each image is a row of
    [bold]DIR/predictions.csv[/] (file, probability, decision, unsure). Both are what
    [bold]python -m monai.bundle run[/] gives with the bundle's inference.json.

    Beside label maps: [bold]measurements.csv[/] (volumes in mL), [bold]index.html[/] (open this one),
    [bold]reports/[/], [bold]overlays/[/], and [bold]run.json[/] (what was run on what, with hashes).

    [bold]Examples[/]

      [dim]# one image[/]
      medimg3d predict bundles/mri_hippocampus_unet t1_crop.nii.gz --out result

      [dim]# a folder, without pictures, the table for a script[/]
      medimg3d predict bundles/mri_hippocampus_unet study/ --out result --no-overlays --no-reports --json

      [dim]# several channels: the test cases of a datalist, or a folder with case_0000.nii.gz, case_0001.nii.gz, …[/]
      medimg3d predict bundles/sarcoma sarcoma.json --out result

      [dim]# the fastest way on this machine; stopped or killed, the same line goes on where it was[/]
      medimg3d predict bundles/mri_hippocampus_unet study/ --out result --backend auto --resume

      [dim]# films (JPEG, PNG, DICOM) with a classifier, with heat maps[/]
      medimg3d predict bundles/xray_pneumonia_densenet films/ --out result --explain

      [dim]# many films, the fastest way on this machine[/]
      medimg3d predict bundles/xray_pneumonia_densenet films/ --out result --backend auto

      [dim]# the same bundle with weights of your own[/]
      medimg3d predict bundles/mri_hippocampus_unet study/ --out result --checkpoint my_run/models/model.pt

      [dim]# a large folder over the machines of a Ray cluster; --resume keeps what is finished[/]
      medimg3d predict bundles/mri_hippocampus_unet study/ --out result --ray auto --resume

    Exit code 3: some files were rejected; 1: all were.
    """
    from medimg3d.bundle.folder import BundleFolder
    from medimg3d.workflows.predict import predict as run_predict

    _log_if(debug)
    cluster = ray_cluster(ray, job_cpus, job_gpus)
    if shards is not None and cluster is None:
        raise UsageError("--shards is for --ray; give --ray ADDRESS or --ray local, too.")
    if BundleFolder(bundle).is_classifier:
        if calibration is not None:
            raise UsageError(
                f"{bundle} classifies; --calibration is for bundles that segment. Leave it away."
            )
        if memory_gb is not None or resume or uncertainty or region_masks or section is not None:
            raise UsageError(
                f"{bundle} classifies; --memory-gb, --resume, --uncertainty, --region-masks and --section are for "
                "bundles that segment."
            )
        options = {"explain": explain, "device": device, "fast": fast, "backend": backend}
        on_ray = {} if cluster is None else {"cluster": cluster, "shards": shards}
        _classify(bundle, inputs, out, checkpoint, options, on_ray, as_json=as_json)
        return
    if explain:
        raise UsageError(f"{bundle} segments; --explain is for bundles that classify. Leave it away.")
    asked: dict[str, Any] = {
        "section": section,
        "checkpoint": checkpoint,
        "overlays": overlays,
        "reports": reports,
        "device": device,
        "backend": backend,
        "fast": fast,
        "memory_gb": memory_gb,
        "workers": workers,
        "resume": resume,
        "uncertainty": uncertainty,
        "region_masks": region_masks,
    }
    run: Callable[..., PredictResult] = run_predict
    if cluster is None:
        asked["calibration"] = calibration
    else:
        from medimg3d.workflows.predict_shards import predict_on_ray

        if calibration is not None:
            raise UsageError("--calibration is for one machine; run it once without --ray, then with --ray.")
        asked |= {"cluster": cluster, "shards": shards, "say": errors_console().print}
        run = predict_on_ray
    try:
        with progress_bar("Segmenting") as progress:
            result = run(bundle, inputs, out, progress=progress, **asked)
    except KeyboardInterrupt:
        errors_console().print("The same command with --resume goes on where this one was.")
        raise
    if as_json:
        print_json(result.summary())
    else:
        _show(result)
    print_rejects(result.rejected)
    _exit(result)


def _classify(
    bundle: Path,
    inputs: list[Path],
    out: Path,
    checkpoint: Path | None,
    options: dict[str, Any],
    on_ray: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    from medimg3d.workflows.predict_classification import predict_classification

    run: Callable[..., ClassificationResult] = predict_classification
    if on_ray:
        from medimg3d.workflows.classify_shards import classify_on_ray

        options |= {**on_ray, "say": errors_console().print}
        run = classify_on_ray
    with progress_bar("Classifying") as progress:
        result = run(bundle, inputs, out, checkpoint=checkpoint, progress=progress, **options)
    if as_json:
        print_json(result.summary())
    elif result.images:
        columns = ("file", "probability", "decision", "unsure")
        rows = [[image.row[name] for name in columns] for image in result.images]
        shown = rows if len(rows) <= _MOST_ROWS else rows[:_MOST_ROWS]
        print_table(f"Decisions (bundle {result.bundle.name})", columns, shown)
        if len(shown) < len(rows):
            errors_console().print(f"... and {len(rows) - len(shown)} more in predictions.csv.", markup=False)
        errors_console().print(
            f"Open {result.out / 'index.html'}. Research use only, not for diagnosis.",
            markup=False,
            soft_wrap=True,
        )
    print_rejects(result.rejected)
    if not result.images:
        errors_console().print("[bold red]Error:[/] every input was rejected; nothing was classified.")
        raise typer.Exit(EXIT_FAILED)
    if result.rejected:
        raise typer.Exit(EXIT_REJECTS)


def _show(result: PredictResult) -> None:
    if result.cases:
        print_table(f"Volumes in mL (bundle {result.bundle.name})", *volume_table(result))
        for case in result.cases:
            if case.note:
                errors_console().print(f"  {case.case}: {case.note}", markup=False, soft_wrap=True)
        page = result.out / "index.html"
        opened = page if page.is_file() else result.out / "measurements.csv"
        errors_console().print(
            f"Open {opened}. Research use only, not for diagnosis.", markup=False, soft_wrap=True
        )
    if result.ignored:
        errors_console().print(f"{len(result.ignored)} files ignored: not images.", markup=False)


def volume_table(result: PredictResult) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the cases' volumes in mL, blank where not known."""
    names = list(result.bundle.class_names.values())
    rows = [
        [case.case, *("" if (ml := case.volumes.ml[name]) is None else f"{ml:.3f}" for name in names)]
        for case in result.cases
    ]
    return ["case", *names], rows


def _exit(result: PredictResult) -> None:
    if not result.cases:
        errors_console().print("[bold red]Error:[/] every input was rejected; no label map was written.")
        raise typer.Exit(EXIT_FAILED)
    if result.rejected:
        raise typer.Exit(EXIT_REJECTS)


def _log_if(debug: bool) -> None:
    if debug:
        import logging

        logging.getLogger("medimg3d").setLevel(logging.DEBUG)
        logging.getLogger("medimg3d").addHandler(logging.StreamHandler())
