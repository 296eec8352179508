"""Folders and images below a folder, none of them skipped without a word.

Links are followed, as torchvision and timm do. What cannot be read is an error here, for a class
that is missing would shift the labels of all that follow it.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable

# Those of torchvision.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")

# Folders that disks, network drives and archives add, and that are not for people.
OF_SYSTEMS = {
    *("lost+found", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX"),
    "System Volume Information",
}


@dataclasses.dataclass(kw_only=True)
class Scan:
    """What is below a folder."""

    images: list[str] = dataclasses.field(default_factory=list)  # paths, sorted
    folders: list[str] = dataclasses.field(default_factory=list)  # names of those at the top
    others: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    loops: list[str] = dataclasses.field(default_factory=list)  # links to a folder around them


def folders(folder: pathlib.Path) -> tuple[str, ...]:
    """Sorted names of the visible folders in `folder`. Raises ValueError where one is lost."""
    return tuple(sorted(e.name for e in _visible(str(folder)) if _is_folder(e)))


def loose_images(folder: pathlib.Path) -> int:
    """The number of images in `folder` itself."""
    return sum(e.name.lower().endswith(SUFFIXES) for e in _visible(str(folder)) if _is_file(e))


def images(folder: pathlib.Path, *, around: Iterable[pathlib.Path] = ()) -> Scan:
    """The images anywhere below `folder`, in an order every file system agrees on.

    A link to a folder that it lies in, or to one of `around`, is not followed. Hidden files and
    folders are left out, files that are no images counted by their suffix. Raises ValueError for
    a folder that cannot be read.
    """
    scan = Scan()
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = []
    waiting.append((str(folder), tuple(_identity(str(path)) for path in around)))
    while waiting:
        path, above = waiting.pop()
        here = _identity(path)
        if here in above:
            scan.loops.append(path)
            continue
        for entry in _visible(path):
            if _is_folder(entry):
                waiting.append((entry.path, (*above, here)))
                if path == str(folder):
                    scan.folders.append(entry.name)
            elif not entry.name.lower().endswith(SUFFIXES):
                scan.others[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1
            elif _is_file(entry):
                scan.images.append(entry.path)
            else:  # to open a pipe would wait for ever
                scan.others["pipe or device"] += 1
    scan.images.sort()
    return scan


def _visible(path: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as entries:
            return [e for e in entries if e.name[0] != "." and e.name not in OF_SYSTEMS]
    except OSError as error:
        raise _unreadable(path, error) from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder, or a link to one.

    Raises ValueError for a broken link that may have been to a folder. A broken link to an image is
    kept: reading it will fail, and that is counted.
    """
    try:
        if entry.is_dir():
            return True
        lost = entry.is_symlink() and not os.path.exists(entry.path)
    except OSError as error:  # a link in a circle, or into a folder that is closed to us
        if entry.name.lower().endswith(SUFFIXES):
            return False
        raise _unreadable(entry.path, error) from error
    if lost and not os.path.splitext(entry.name)[1]:
        target = os.readlink(entry.path)
        raise ValueError(
            f"{entry.path} is a link to {target}, which is not there: repair or remove the link"
        )
    return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether it can be opened as a file, or is a link that cannot, which reading will report."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_dev, status.st_ino


def _unreadable(path: str, error: OSError) -> ValueError:
    reason = error.strerror or type(error).__name__
    return ValueError(f"cannot read the folder {path}: {reason}; make it readable, or move it away")
