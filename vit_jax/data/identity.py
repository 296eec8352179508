"""A short summary of a split, to find and to name what changed between two starts of a run.

An image is identified by its path below its class folder, its size in bytes and, for a few thousand
images spread over the split, a digest of its first and last bytes. Nothing depends on where the
folder is. There is one entry per part (a class folder, a shard), so that the summary of a million
images stays small. For a small split, every image is recorded.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

MAX_RECORDED = 5_000  # every image is recorded in a split of at most this size
MAX_OPENED = 4_096  # at most this many images of a split are opened
_BYTES = 4_096  # read at the beginning and at the end of a file
_THREADS = 16  # they wait for the disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a split: the number of its images, and a digest of them."""

    examples: int
    digest: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """The summary of a split. Splits with equal `digest` give a run the same examples."""

    kind: str  # of the source
    name: str = ""  # of the dataset and its version; "" if only the content counts
    examples: int
    class_names: tuple[str, ...]
    digest: str  # of kind, name, classes and parts
    parts: Mapping[str, Part]  # by class folder, shard or split
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)  # path -> fingerprint


def identify(
    kind: str,
    *,
    class_names: Sequence[str],
    parts: Mapping[str, Part],
    name: str = "",
    images: Mapping[str, str] | None = None,
) -> Identity:
    """The identity of a split with these parts; `digest` covers all arguments but `images`."""
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

    Costs one `stat` per file, and opens at most `MAX_OPENED` files to read both their ends. A file
    that has disappeared counts as empty; reading it later will report that.
    """
    paths = [os.fspath(file) for file in files]
    every = max(1, -(-len(paths) // MAX_OPENED))
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        pieces = [range(i, min(i + 1024, len(paths))) for i in range(0, len(paths), 1024)]
        marks = pool.map(
            lambda rows: [fingerprint(paths[i], read_ends=i % every == 0) for i in rows], pieces
        )
        marked = [mark for piece in marks for mark in piece]
    prefix = os.path.join(os.fspath(root), "")
    names = [path.removeprefix(prefix).replace(os.sep, "/") for path in paths]
    by_class: dict[int, list[str]] = collections.defaultdict(list)
    for name, label, mark in zip(names, labels, marked, strict=True):
        number = int(label)
        inside = name.removeprefix(f"{class_names[number]}/") if number >= 0 else name
        by_class[number].append(f"{inside}\0{mark}")
    # Digests do not contain the class name, so that a renamed class is found by its content.
    parts = {
        class_names[number] if number >= 0 else "": Part(examples=len(held), digest=digest(held))
        for number, held in sorted(by_class.items())
    }
    small = len(paths) <= MAX_RECORDED
    images = dict(zip(names, marked, strict=True)) if small else None
    return identify(kind, class_names=class_names, parts=parts, images=images)


def digest(lines: Iterable[str | bytes]) -> str:
    """A short digest of a sequence of texts."""
    hashed = hashlib.blake2b(digest_size=12)
    for line in lines:
        hashed.update(line if isinstance(line, bytes) else line.encode(errors="surrogateescape"))
        hashed.update(b"\n")
    return hashed.hexdigest()


def fingerprint(path: str, *, read_ends: bool) -> str:
    """The size of a file and, with `read_ends`, a digest of its ends. "0" if unreadable."""
    try:
        size = os.stat(path).st_size
        if not read_ends:
            return str(size)
        with open(path, "rb") as file:
            ends = file.read(_BYTES)
            if size > 2 * _BYTES:
                file.seek(-_BYTES, os.SEEK_END)
            ends += file.read(_BYTES)
    except OSError:
        return "0"
    return f"{size} {hashlib.blake2b(ends, digest_size=6).hexdigest()}"
