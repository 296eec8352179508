"""A local folder for files of a workdir that may be on a bucket."""

import os
import pathlib
import tempfile

from vit_jax.workdir import place

Changes = dict[str, bytes]  # content of files by their path in the folder


class Mirror:
    """A local folder, `local`, for files that are appended to or that a library writes locally.

    If the workdir is on this machine, `local` is the workdir. If it is on a bucket,
    `put(changes())` copies changed files there. Each file is copied whole, so begin a new file when
    one becomes large. Use as a context manager.
    """

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        self.remote = place.folder(workdir)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if place.is_bucket(self.remote):
            self._temporary = tempfile.TemporaryDirectory(prefix="vit_jax-")
        self.local = pathlib.Path(self._temporary.name if self._temporary else self.remote)
        self._sizes: dict[str, int] = {}

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary:
            self._temporary.cleanup()

    @property
    def uploads(self) -> bool:
        """Whether there is a bucket to copy to."""
        return self._temporary is not None

    def changes(self) -> Changes:
        """The files whose size changed since the last `put`."""
        if not self.uploads:
            return {}
        files = {
            path.relative_to(self.local).as_posix(): path
            for path in sorted(self.local.rglob("*"))
            if path.is_file()
        }
        changed = {
            name: path
            for name, path in files.items()
            if path.stat().st_size != self._sizes.get(name, 0)
        }
        return {name: path.read_bytes() for name, path in changed.items()}

    def put(self, changes: Changes) -> None:
        """Copies files to the bucket."""
        for name, content in changes.items():
            (self.remote / name).write_bytes(content)
            self._sizes[name] = len(content)
