"""Small files in a shared folder that are created, replaced and read as a whole.

A lease needs exclusive creation: if many processes on any hosts create the same file, exactly one
succeeds. A local or shared file system does this with a hard link, a bucket with a conditional
request of its fsspec library.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from typing import Protocol

import fsspec

READ_BACK = 1.0  # seconds until every process sees which writer was the last


class Folder(Protocol):
    """A folder of small files. Every method raises OSError where it cannot be reached."""

    def make(self) -> None:
        """Makes the folder and its parents where they are missing."""

    def read(self, name: str) -> bytes | None:
        """The content; None where the file does not exist."""

    def create(self, name: str, content: bytes) -> bool:
        """Writes a new file as a whole; returns False where the file exists."""

    def replace(self, name: str, content: bytes) -> None:
        """Writes the file as a whole, over an existing one."""

    def remove(self, name: str) -> None:
        """Removes the file if it exists."""


def folder(path: str | os.PathLike[str]) -> Folder:
    """The folder at a local path, or at a URL such as gs://bucket/run."""
    text = os.fspath(path)
    return Bucket(text) if "://" in text else Local(text)


class Local:
    """A folder on this machine or on a shared file system."""

    def __init__(self, path: str) -> None:
        self._path = path

    def make(self) -> None:
        os.makedirs(self._path, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        path = self._at(name)
        if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe waits for ever
            raise OSError(f"{path} is not a file")
        try:
            with open(path, "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, name: str, content: bytes) -> bool:
        with self._temporary(name, content) as temporary:
            try:
                os.link(temporary, self._at(name))
                return True
            except FileExistsError:
                # A network file system may make the link, lose the answer, and try again.
                return os.stat(temporary).st_nlink == 2
            except OSError:  # the file system has no hard links
                return self._open_new(name, content)

    def replace(self, name: str, content: bytes) -> None:
        with self._temporary(name, content) as temporary:
            os.replace(temporary, self._at(name))

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self._at(name))

    def _at(self, name: str) -> str:
        return os.path.join(self._path, name)

    def _open_new(self, name: str, content: bytes) -> bool:
        try:
            file = os.open(self._at(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(file, "wb") as opened:
            opened.write(content)
        return True

    @contextlib.contextmanager
    def _temporary(self, name: str, content: bytes) -> Iterator[str]:
        path = self._at(f".{name.lstrip('.')}.{uuid.uuid4().hex}")
        try:
            with open(path, "wb") as file:
                file.write(content)
            yield path
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


class Bucket:
    """A prefix of an object store, which writes objects as a whole."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        with _as_os_error():
            self._files, _ = fsspec.core.url_to_fs(self._url)

    def make(self) -> None:
        """Nothing: a prefix needs no making, and buckets are made by the user."""

    def read(self, name: str) -> bytes | None:
        with _as_os_error():
            try:
                # `open` may use an outdated size from a cached listing and cut the content.
                return bytes(self._files.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes) -> bool:
        if self.read(name) is not None:
            return False
        try:
            with _as_os_error():
                self._files.pipe_file(self._at(name), content, mode="create")
        except FileExistsError:
            return False
        except OSError:
            if (found := self.read(name)) is not None:
                return found == content
            self.replace(name, content)  # raises OSError where it cannot be written
        # A store may refuse or ignore conditional requests. If several processes write at the same
        # time, the last object stays, and a moment later every process reads that one.
        time.sleep(READ_BACK)
        return self.read(name) == content

    def replace(self, name: str, content: bytes) -> None:
        with _as_os_error():
            self._files.pipe_file(self._at(name), content)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), _as_os_error():
            self._files.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._url}/{name}"


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Turns every error into an OSError: store libraries raise errors of many other kinds."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
