"""Reading and running a bundle's configs with MONAI, from any folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.notices import quiet_training


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


def run_training(
    bundle: BundleFolder, values: Mapping[str, Any], *, tracking: str | None = None, config: str = "train"
) -> None:
    """Run ``train.json`` with the bundle's overlay ``train_fast.json``.

    Args:
        bundle: The bundle.
        values: Values by id that replace those of the configs.
        tracking: ``"mlflow"`` for MLflow.
        config: Another training config that the overlay fits.
    """
    with bundle_code(bundle.root), quiet_training():
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
