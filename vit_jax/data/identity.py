"""What a split is made of, in few numbers: to find, and to name, what changed between two starts.

An image is known by its path below its class folder, its size in bytes and, for a few thousand of
them spread over the split, a digest of its first and last bytes. Nothing depends on where the
folder is. What a split holds is summed up by part (a class folder, a shard), so that the record of
a million images stays small; of a small split every image is kept.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

KEPT = 5_000  # images of a split up to which each is kept by name
LOOKED_INTO = 4_096  # images of a split whose content is looked at
_BYTES = 4_096  # of the begin and of the end of a file
_THREADS = 16  # they wait for the disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a split: how many images it holds, and what they are."""

    examples: int
    digest: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What defines a split. Two of equal `digest` give a run the same examples."""

    kind: str  # of the source
    name: str = ""  # of the data set and its version; "" where only the content counts
    examples: int
    class_names: tuple[str, ...]
    digest: str  # of all of this
    parts: Mapping[str, Part]  # by class folder, shard or split
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)  # path -> what it is


def identify(
    kind: str,
    *,
    class_names: Sequence[str],
    parts: Mapping[str, Part],
    name: str = "",
    images: Mapping[str, str] | None = None,
) -> Identity:
    """The identity of a split of these parts; their digests and the names make its own."""
    lines = [kind, name, *class_names]
    lines += [f"{key}\0{part.examples}\0{part.digest}" for key, part in parts.items()]
    return Identity(
        kind=kind,
        name=name,
        examples=sum(part.examples for part in parts.values()),
        class_names=tuple(class_names),
        digest=digest(lines),
        parts=dict(parts),
        images=images or {},
    )


def of_files(
    kind: str,
    files: Sequence[str | os.PathLike[str]],
    labels: Sequence[int] | np.ndarray,
    *,
    class_names: Sequence[str],
    root: str | os.PathLike[str],
) -> Identity:
    """The identity of labelled files below `root`, in their order.

    Costs one `stat` a file, and reads a little of the first, the last, and the files between.
    A file that is gone meanwhile counts as empty: reading it will say so.
    """
    paths = [os.fspath(file) for file in files]
    every = max(1, -(-len(paths) // LOOKED_INTO))
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        pieces = [range(i, min(i + 1024, len(paths))) for i in range(0, len(paths), 1024)]
        marks = pool.map(
            lambda rows: [fingerprint(paths[i], look=i % every == 0) for i in rows], pieces
        )
        marked = [mark for piece in marks for mark in piece]
    prefix = os.path.join(os.fspath(root), "")
    names = [path.removeprefix(prefix).replace(os.sep, "/") for path in paths]
    by_class: dict[int, list[str]] = collections.defaultdict(list)
    for name, label, mark in zip(names, labels, marked, strict=True):
        number = int(label)
        inside = name.removeprefix(f"{class_names[number]}/") if number >= 0 else name
        by_class[number].append(f"{inside}\0{mark}")
    # By label, so that a renamed class is found by what it holds.
    parts = {
        class_names[number] if number >= 0 else "": Part(examples=len(held), digest=digest(held))
        for number, held in sorted(by_class.items())
    }
    small = len(paths) <= KEPT
    images = dict(zip(names, marked, strict=True)) if small else None
    return identify(kind, class_names=class_names, parts=parts, images=images)


def digest(lines: Iterable[str | bytes]) -> str:
    """A short digest of texts, one after the other."""
    hashed = hashlib.blake2b(digest_size=12)
    for line in lines:
        hashed.update(line if isinstance(line, bytes) else line.encode(errors="surrogateescape"))
        hashed.update(b"\n")
    return hashed.hexdigest()


def fingerprint(path: str, *, look: bool) -> str:
    """What a file is: its size, and a digest of its ends where it is looked into."""
    try:
        size = os.stat(path).st_size
        if not look:
            return str(size)
        with open(path, "rb") as file:
            ends = file.read(_BYTES)
            if size > 2 * _BYTES:
                file.seek(-_BYTES, os.SEEK_END)
            ends += file.read(_BYTES)
    except OSError:
        return "0"
    return f"{size} {hashlib.blake2b(ends, digest_size=6).hexdigest()}"
