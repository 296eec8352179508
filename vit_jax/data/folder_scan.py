"""Finds folders and images below a folder; nothing is skipped silently.

Links are followed, as in torchvision and timm. A folder that cannot be read is an error here,
because a missing class would shift the labels of all classes after it.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable

# The suffixes that torchvision reads.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")

# Folders that disks, network drives and archives create for themselves.
SYSTEM_FOLDERS = {
    *("lost+found", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX"),
    "System Volume Information",
}


@dataclasses.dataclass(kw_only=True)
class Scan:
    """What was found below a folder."""

    images: list[str] = dataclasses.field(default_factory=list)  # paths, sorted
    folders: list[str] = dataclasses.field(default_factory=list)  # names of the top folders
    # Number of files that are not images, by suffix.
    others: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    loops: list[str] = dataclasses.field(
        default_factory=list
    )  # links to a folder that contains them


def folders(folder: pathlib.Path) -> tuple[str, ...]:
    """Sorted names of the visible folders in `folder`.

    Raises ValueError if one cannot be read, or for a broken link: without the folder that it may
    have led to, the numbers of the classes after it would shift.
    """
    return tuple(sorted(e.name for e in _visible(str(folder)) if _is_folder(e, named=True)))


def loose_images(folder: pathlib.Path) -> int:
    """The number of images in `folder` itself."""
    return sum(e.name.lower().endswith(SUFFIXES) for e in _visible(str(folder)) if _is_file(e))


def images(folder: pathlib.Path, *, around: Iterable[pathlib.Path] = ()) -> Scan:
    """Finds the images anywhere below `folder`. They are sorted, so every file system agrees.

    A link to a folder that contains it, or to a folder in `around`, is not followed. Hidden files
    and folders are left out. Files that are not images are counted by suffix. Raises ValueError for
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
            else:  # opening a pipe could wait forever
                scan.others["pipe or device"] += 1
    scan.images.sort()
    return scan


def _visible(path: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as entries:
            return [e for e in entries if e.name[0] != "." and e.name not in SYSTEM_FOLDERS]
    except OSError as error:
        raise _unreadable(path, error) from error


def _is_folder(entry: "os.DirEntry[str]", *, named: bool = False) -> bool:
    """Whether the entry is a folder, or a link to one.

    Raises ValueError for a broken link that may have led to a folder: one without a suffix, or any
    among folders that are `named` by classes or splits, whose names may hold a dot. A broken link
    to an image counts as an image: reading it will fail, and the failure is counted.
    """
    image = entry.name.lower().endswith(SUFFIXES)
    try:
        if entry.is_dir():
            return True
        broken = entry.is_symlink() and not os.path.exists(entry.path)
    except OSError as error:  # a circular link, or one into a folder that we may not read
        if image:
            return False
        raise _unreadable(entry.path, error) from error
    if broken and not image and (named or not os.path.splitext(entry.name)[1]):
        target = os.readlink(entry.path)
        raise ValueError(
            f"{entry.path} is a link to {target}, which does not exist: repair or remove the link"
        )
    return False


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether the entry is a file, or a broken link, which reading will report."""
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
