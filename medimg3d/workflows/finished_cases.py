"""Which cases of a prediction are done: one small file a case, so that a killed run can go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medimg3d.atomic import remove_partial_files
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.inputs import InputFile
from medimg3d.data.json_file import write_json
from medimg3d.errors import UsageError
from medimg3d.workflows.predicted_case import PredictedCase

FOLDER = ".finished"


class FinishedCases:
    """The finished cases in a folder of predictions.

    A case counts as finished if its record is there, its image has the content it had, and its label map the
    content that was written. A record is written after everything else of its case. Half-written files that a
    killed run left are removed; two runs into one folder at one time are not meant.

    Args:
        out: Folder of the predictions.
        settings: What the result depends on (weights, configs, backend); kept for the run that goes on.
        resume: Keep the finished cases; else they are forgotten and predicted anew.

    Raises:
        UsageError: The folder was begun with other settings.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.out = out
        self.folder = out / FOLDER
        begun = begun_settings(out)
        if resume and begun is not None:
            for name, value in settings.items():
                if begun.get(name) != value:
                    raise UsageError(
                        f"{out} was begun with {name} {begun.get(name)} and is resumed with {value}; expected the "
                        "same. Leave --resume away to predict all cases anew."
                    )
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json(dict(settings), self.folder / "settings.json")
        for folder in (out, self.folder, out / "overlays", out / "reports"):
            remove_partial_files(folder)

    def find(self, image: InputFile, *, unchanged: bool = False) -> PredictedCase | None:
        """The finished case of an image; None if it is still to be predicted.

        Args:
            image: The image.
            unchanged: It was just predicted, or compared: do not read it once more.
        """
        try:
            content = json.loads(self._file(image.case).read_text(encoding="utf-8"))
            recorded = [content["image_sha256"], *content.get("further_sha256", ())]
            if not unchanged and recorded != [content_sha256(file) for file in image.files]:
                return None
            return PredictedCase.from_json(content, image, self.out)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def add(self, case: PredictedCase) -> None:
        """Write the record of a case whose other files are whole."""
        write_json(case.as_json(self.out), self._file(case.case))

    def _file(self, case: str) -> Path:
        return self.folder / f"{case}.case.json"


def begun_settings(out: Path) -> dict[str, Any] | None:
    """Settings that a folder of predictions was begun with; None if it was not, or they cannot be read."""
    try:
        content = json.loads((out / FOLDER / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
