"""Writing one JSON object in one step, and naming what a JSON value is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.errors import DataError


def write_json(content: Mapping[str, Any], path: Path) -> Path:
    """Write one JSON object in one step (temporary file, then rename).

    Raises:
        DataError: The content is not JSON (NaN, or an object without a JSON form).
    """
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as err:
        raise DataError(
            f"{path.name} cannot be written: {err}. Use text, finite numbers, lists or null."
        ) from err
    write_text(path, text)
    return path


def is_int(value: Any) -> bool:
    """Whether the value is a whole number (``true`` is not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def kind_of(value: Any) -> str:
    """JSON's name for the kind of a value: object, list, text."""
    names = {dict: "object", list: "list", str: "text", bool: "truth value", type(None): "null"}
    return names.get(type(value), type(value).__name__)
