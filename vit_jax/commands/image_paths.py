"""The image files that the arguments of a command name: files, folders and patterns."""

import glob
import os
import pathlib
from collections.abc import Iterator, Sequence

from vit_jax.data import folder_scan


def expanded(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs (path, problem): each file, in order, and what is wrong with an argument, or "".

    A folder stands for the images anywhere below it, a pattern such as `photos/*.jpg` or
    `photos/**/*.jpg` for the files and folders that it matches. Files are not opened.
    """
    for path in paths:
        if os.path.isdir(path):
            yield from _below(path)
        elif os.path.exists(path):
            yield path, ""
        elif glob.has_magic(path):
            found = sorted(glob.glob(path, recursive=True))
            kept = [one for one in found if not _is_inside(one, found)]
            yield from expanded(kept) if kept else [(path, "no file has a name like this")]
        else:
            yield path, "there is no such file or folder"


def _below(folder: str) -> Iterator[tuple[str, str]]:
    try:
        found = folder_scan.images(pathlib.Path(folder)).images
    except ValueError as error:
        yield folder, str(error)
        return
    yield from ((path, "") for path in found)
    if not found:
        yield folder, "it is a folder without images"


def _is_inside(path: str, found: Sequence[str]) -> bool:
    """Whether a folder that a pattern matches contains the path, which would come twice."""
    folders = {one.rstrip(os.sep) for one in found if os.path.isdir(one)}
    return any(str(parent) in folders for parent in pathlib.PurePath(path).parents)
