"""Every file of a planned bundle but the code it carries, as text by its path."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from medimg3d.planning.classification_configs import classification_configs
from medimg3d.planning.metadata import metadata
from medimg3d.planning.pages import card, licence_note, page_of_json, plan_json, plan_page
from medimg3d.planning.plan import Plan
from medimg3d.planning.segmentation_configs import segmentation_configs
from medimg3d.planning.template import template_text, with_package


def planned_configs(plan: Plan, name: str) -> dict[str, dict[str, Any]]:
    """The configs by file name without ``.json``; ``name`` is that of the bundle's folder."""
    configs = segmentation_configs(plan) if plan.is_segmentation else classification_configs(plan)
    return {key: with_package(config, f"medimg3d_{name}") for key, config in configs.items()}


def bundle_files(
    plan: Plan, name: str, *, licence: str = "", as_json: Callable[[Any], str] = json.dumps
) -> Mapping[str, str]:
    """The text of every file.

    Args:
        plan: The plan.
        name: Name of the bundle's folder; its own package is called ``medimg3d_<name>``.
        licence: Licence of the data.
        as_json: How configs are written.

    Returns:
        Path below the bundle's folder to text.
    """
    configs = planned_configs(plan, name) | {"metadata": metadata(plan)}
    return {
        **{f"configs/{key}.json": as_json(content) for key, content in configs.items()},
        "configs/logging.conf": template_text("logging.conf"),
        "LICENSE": template_text("LICENSE.txt"),
        "docs/README.md": card(plan, name),
        "docs/data_license.txt": licence_note(licence),
        "docs/plan.md": plan_page(plan),
        "docs/plan.json": page_of_json(plan_json(plan)),
    }
