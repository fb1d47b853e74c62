"""The configs' unchanging part: JSON files of the package, with a place for every planned value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

PACKAGE = "PACKAGE"
"""Stands in templates and blocks for the name of the bundle's own package."""


def read_template(task: str, name: str) -> dict[str, Any]:
    """A template, such as ``("segmentation", "train")``."""
    content: dict[str, Any] = json.loads(template_text(f"{task}/{name}.json"))
    return content


def template_text(path: str) -> str:
    """The text of a file below ``templates/``."""
    return files("medimg3d.planning").joinpath("templates", *path.split("/")).read_text(encoding="utf-8")


def fill(template: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A template with values at their ids (``train#trainer#max_epochs``); ids that it lacks are left aside.

    A number in an id counts list entries. Values stand for themselves: nothing is shared between them.
    """
    content: dict[str, Any] = json.loads(json.dumps(template))
    for identity, value in values.items():
        *parents, last = identity.split("#")
        place: Any = content
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place.get(parent)
            if place is None:
                break
        if isinstance(place, list):
            place[int(last)] = value
        elif isinstance(place, dict) and last in place:
            place[last] = value
    filled: dict[str, Any] = json.loads(json.dumps(content))
    return filled


def with_package(content: Any, package: str) -> Any:
    """The content with the bundle's own package in the place of :data:`PACKAGE`."""
    return json.loads(json.dumps(content).replace(f'"{PACKAGE}.', f'"{package}.'))
