"""The folder of an exported model: written as a whole or not at all, with digests of its files."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from vit_jax.workdir import place

DIGESTS = "SHA256SUMS"
STANDALONE = pathlib.Path(__file__).parent / "standalone"


def check(target: str | os.PathLike[str]) -> None:
    """Raises ValueError if the target exists, unless it is an empty folder, not the current one."""
    path = place.folder(target)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{target} exists: choose another folder")
    if not place.is_bucket(target):
        place.check_replaceable(target)


@contextlib.contextmanager
def writing(target: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A new local folder that becomes `target` at the end, or is removed after an error."""
    context = place.writing(target) if place.is_bucket(target) else place.replacing(target)
    with context as temporary:
        temporary.mkdir()
        yield temporary
        write_digests(temporary)
        _make_readable(temporary)


def write_json(folder: pathlib.Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def add_standalone(folder: pathlib.Path) -> None:
    """Copies the scripts that run the model without this package."""
    for script in sorted(STANDALONE.glob("*.py")):
        shutil.copyfile(script, folder / script.name)


def sizes(folder: pathlib.Path) -> dict[str, int]:
    """The bytes of each file, by name."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def write_digests(folder: pathlib.Path) -> None:
    """Writes the SHA-256 of every file, for `sha256sum -c SHA256SUMS`."""
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / DIGESTS).write_text("".join(lines))


def _make_readable(folder: pathlib.Path) -> None:
    """Gives all files the user's default mode: some libraries make files private."""
    mode = (folder / DIGESTS).stat().st_mode
    for path in folder.iterdir():
        path.chmod(mode)
