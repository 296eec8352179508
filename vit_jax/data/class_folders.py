"""Images in folders named by class, to measure a model that has these classes and maybe others."""

import logging
import os
import pathlib

from vit_jax.data import folder_scan, split_names
from vit_jax.text import few, printable

_LOG = logging.getLogger(__name__)


def read(root: pathlib.Path) -> dict[str, list[str]]:
    """The images below each folder in `root`, as paths relative to `root`, by the folder's name.

    Logs a warning for what is not read. Raises ValueError if there are no folders of images.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder of images")
    names = folder_scan.folders(root)
    if not names:
        raise ValueError(
            f"{root} has no class folders: name the classes of its images with --labels FILE"
        )
    if len(splits := [name for name in names if split_names.kind(name)]) == len(names):
        held_out = [*split_names.held_out(splits), splits[0]][0]
        raise ValueError(
            f"the folders in {root} look like splits, not classes: {few(splits)}; give one of them,"
            f" such as --images {root / held_out}"
        )
    scans = {name: folder_scan.images(root / name, around=(root,)) for name in names}
    found = {
        name: [os.path.relpath(path, root) for path in scan.images] for name, scan in scans.items()
    }
    if empty := [name for name, images in found.items() if not images]:
        _warn(root, f"{len(empty)} of {len(names)} class folders have no image: {few(empty)}")
    if loose := folder_scan.loose_images(root):
        _warn(root, f"{loose:,} images outside class folders are not read")
    kept = {name: images for name, images in found.items() if images}
    if not kept:
        raise ValueError(f"{root} holds no image ({' '.join(folder_scan.SUFFIXES)})")
    return kept


def _warn(root: pathlib.Path, fact: str) -> None:
    _LOG.warning("%s: %s", printable(root), printable(fact))
