"""Every notebook in tutorials/ runs from top to bottom, beside the shipped bundles, and stores no output."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPOSITORY / "tutorials").glob("*.ipynb"))


def _run(notebook: Path, folder: Path) -> nbformat.NotebookNode:
    """Execute a copy in ``folder/tutorials`` with ``folder/bundles`` beside it, as in the repository."""
    (folder / "bundles").symlink_to(REPOSITORY / "bundles")
    (folder / "tutorials").mkdir()
    content = nbformat.read(notebook, as_version=4)
    client = NotebookClient(
        content,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder / "tutorials")}},
    )
    return client.execute()


def _pictures(content: nbformat.NotebookNode) -> int:
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid_and_stores_no_outputs(notebook):
    content = nbformat.read(notebook, as_version=4)
    nbformat.validate(content)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in content.cells)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_on_images_made_by_itself(notebook, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDIMG3D_DATA", raising=False)
    assert _pictures(_run(notebook, tmp_path)) >= 3


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_on_real_images(notebook, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIMG3D_DATA", str(data_root))
    assert _pictures(_run(notebook, tmp_path)) >= 3
