"""Code that a bundle carries, so that it runs where medimg3d is not installed.

The source of each file stays in medimg3d; the bundle's own package holds copies under the source's hash, and a
test fails when they differ. The package's name is unique (``medimg3d_<bundle>``): two bundles in one process
that both named theirs ``scripts`` would run each other's code.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from importlib.resources import files
from pathlib import Path

from medimg3d.atomic import write_text
from medimg3d.errors import BundleError

# File in a bundle's package → its one source in medimg3d.
SOURCES = {
    "channel_transforms.py": ("transforms", "channel_transforms.py"),
    "channels.py": ("data", "channels.py"),
    "class_index.py": ("data", "class_index.py"),
    "classification_metrics.py": ("engines", "classification_metrics.py"),
    "contrastive.py": ("networks", "contrastive.py"),
    "decision.py": ("inference", "decision.py"),
    "each_channel.py": ("transforms", "each_channel.py"),
    "ensemble_inferer.py": ("inference", "ensemble_inferer.py"),
    "field_of_view.py": ("transforms", "field_of_view.py"),
    "film_reader.py": ("data", "film_reader.py"),
    "folds.py": ("data", "folds.py"),
    "flat_axis.py": ("transforms", "flat_axis.py"),
    "found_region.py": ("transforms", "found_region.py"),
    "ignored_voxels.py": ("transforms", "ignored_voxels.py"),
    "mirroring.py": ("inference", "mirroring.py"),
    "nonzero_clip.py": ("transforms", "nonzero_clip.py"),
    "predictions_csv.py": ("inference", "predictions_csv.py"),
    "regions.py": ("transforms", "regions.py"),
    "scheme_loss.py": ("engines", "scheme_loss.py"),
    "seeding.py": ("data", "seeding.py"),
    "small_components.py": ("transforms", "small_components.py"),
    "thinned_indices.py": ("transforms", "thinned_indices.py"),
    "transfer.py": ("networks", "transfer.py"),
    "weight_averaging.py": ("engines", "weight_averaging.py"),
}


def package_folder(bundle_root: Path) -> Path:
    """Folder of the package that a bundle carries, by its name; it need not exist."""
    return bundle_root / f"medimg3d_{bundle_root.name}"


def needed_files(bundle_root: Path) -> list[str]:
    """The files that a bundle's configs reach by ``_target_``, sorted.

    Raises:
        BundleError: A config names a module of the bundle's package that medimg3d has no source for.
    """
    package = re.escape(package_folder(bundle_root.resolve()).name)
    found: set[str] = set()
    for config in sorted((bundle_root / "configs").glob("*.json")):
        found |= set(re.findall(rf'"{package}\.(\w+)\.', config.read_text(encoding="utf-8")))
    unknown = sorted(name for name in found if f"{name}.py" not in SOURCES)
    if unknown:
        raise BundleError(
            f"The configs name {package}.{unknown[0]}; expected one of {', '.join(sorted(SOURCES))}."
        )
    return sorted(f"{name}.py" for name in found)


def write_carried_code(bundle_root: Path) -> list[Path]:
    """Write every file that a bundle's configs need anew from its source.

    Args:
        bundle_root: Folder of a bundle.

    Returns:
        The files written.
    """
    folder = package_folder(bundle_root.resolve())
    names = needed_files(bundle_root)
    for name in names:
        write_text(folder / name, carried_text(name))
    note = '"""Code of medimg3d that this bundle carries: it runs without medimg3d installed."""\n'
    write_text(folder / "__init__.py", note)
    return [folder / name for name in ["__init__.py", *names]]


def carried_text(name: str) -> str:
    """What a carried file should hold: two lines that name its source and hash, then the source."""
    layer, module = SOURCES[name]
    source = (files("medimg3d") / layer / module).read_text(encoding="utf-8")
    digest = hashlib.sha256(source.encode()).hexdigest()
    return f"# Copied from medimg3d/{layer}/{module}; do not edit here.\n# Source sha256: {digest}\n{source}"


def check_carried_code(bundle_root: Path) -> None:
    """Compare a bundle's carried files with their sources.

    Raises:
        BundleError: A copy is missing or differs.
    """
    folder = package_folder(bundle_root.resolve())
    for name in needed_files(bundle_root):
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != carried_text(name):
            raise BundleError(
                f"{folder.name}/{name} differs from its source in medimg3d; expected an exact copy. "
                "Write it anew with `python -m medimg3d.bundle.carried_code BUNDLE`."
            )


def main() -> None:
    """Write the carried code of the bundles that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m medimg3d.bundle.carried_code",
        description="Write the code that bundles carry anew from its source in medimg3d.",
    )
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="folder of a bundle")
    bundles: list[Path] = parser.parse_args().bundles
    for bundle in bundles:
        if not (bundle / "configs").is_dir():
            parser.error(f"found no configs/ in {bundle}; expected the folder of a bundle")
    for bundle in bundles:
        write_carried_code(bundle)


if __name__ == "__main__":
    main()
