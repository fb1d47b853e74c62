"""Makes a bundle's own Python package importable, also where another bundle's package has the same name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def bundle_code(root: Path) -> Iterator[None]:
    """Put a bundle's folder first on the import path while the block runs.

    Packages of the same name that came from another folder (a copy of the bundle) are forgotten first, so
    that the block gets this bundle's code. Objects made from them live on.

    Args:
        root: The bundle's folder.
    """
    root = root.resolve()
    for package in _packages(root):
        _forget_if_from_elsewhere(package, root)
    importlib.invalidate_caches()
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


def _packages(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("*/__init__.py"))


def _forget_if_from_elsewhere(package: str, root: Path) -> None:
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None or Path(file).resolve().is_relative_to(root):
        return
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
