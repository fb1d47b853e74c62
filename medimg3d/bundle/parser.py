"""Reading and running a bundle's configs with MONAI, from any folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.notices import quiet_training
from medimg3d.errors import BundleError, Medimg3dError, is_out_of_memory, root_cause


def parse_config(
    bundle: BundleFolder, configs: Sequence[str], values: Mapping[str, Any] | None = None
) -> ConfigParser:
    """A parser that holds the merged configs of a bundle.

    Args:
        bundle: The bundle; build objects inside ``bundle_code(bundle.root)``, so that its package is found.
        configs: Names below ``configs/`` without ``.json``, merged in order.
        values: Values that replace those of the configs, by id.

    Returns:
        The parser; ``get_parsed_content(id)`` builds objects.
    """
    parser = ConfigParser()
    parser.read_config([str(bundle.config(name)) for name in configs])
    parser.read_meta(str(bundle.root / "configs" / "metadata.json"))
    parser.update({"bundle_root": str(bundle.root), **(values or {})})
    return parser


@contextmanager
def telling_training_errors(config: str) -> Iterator[None]:
    """Tell what goes wrong as a person can act on it, out of the errors that MONAI wraps it in.

    Args:
        config: The training config.

    Raises:
        BundleError: The memory did not suffice, or the configs or their values do not fit together or the data.
        Medimg3dError, OSError: As they were raised within.
    """
    try:
        yield
    except Exception as err:
        cause = root_cause(err)
        if isinstance(cause, (Medimg3dError, OSError)):
            raise cause from cause.__cause__
        if is_out_of_memory(cause):
            raise BundleError(
                "The training needs more memory than there is; expected a batch that fits. Give a smaller one (--set "
                "batch_size=N), or plan the bundle with --memory-gb N."
            ) from err
        said = " ".join(str(cause).split())[:300] or "no message"
        raise BundleError(
            f"{config}.json cannot be run ({type(cause).__name__}: {said}). Check what --set and --overlay change, "
            "and the data; --debug shows where."
        ) from err


def run_training(
    bundle: BundleFolder, values: Mapping[str, Any], *, tracking: str | None = None, config: str = "train"
) -> None:
    """Run ``train.json`` with the bundle's overlay ``train_fast.json``.

    Args:
        bundle: The bundle.
        values: Values by id that replace those of the configs.
        tracking: ``"mlflow"`` for MLflow.
        config: Another training config that the overlay fits.

    Raises:
        BundleError: The memory did not suffice, or the configs or their values do not fit together or the data.
        OSError: A file could not be read or written.
    """
    with bundle_code(bundle.root), quiet_training(), telling_training_errors(config):
        workflow = ConfigWorkflow(
            config_file=[str(bundle.config(config)), str(bundle.config("train_fast"))],
            workflow_type="train",
            logging_file=False,
            tracking=tracking,
            bundle_root=str(bundle.root),
            **values,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
