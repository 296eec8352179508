"""Small files that processes of any host create, replace and read without a half-written one.

What a lease needs of a folder: creating a file is exclusive, so that of many processes exactly
one succeeds. A local or shared file system does it with a hard link, a bucket with a conditional
request of fsspec's library for it.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from typing import Protocol

import fsspec

READ_BACK = 1.0  # seconds until all see which of several writers was the last


class Folder(Protocol):
    """Where the files are. Every method raises OSError where the folder cannot be reached."""

    def make(self) -> None:
        """Makes the folder and those above it where they are missing."""

    def read(self, name: str) -> bytes | None:
        """The content; None where there is no such file."""

    def create(self, name: str, content: bytes) -> bool:
        """Writes a new file, whole; False where there is one."""

    def replace(self, name: str, content: bytes) -> None:
        """Writes the file, whole, over what is there."""

    def remove(self, name: str) -> None:
        """Removes the file, if it is there."""


def folder(path: str | os.PathLike[str]) -> Folder:
    """The folder at a local path, or at a URL such as gs://bucket/run."""
    text = os.fspath(path)
    return Bucket(text) if "://" in text else Local(text)


class Local:
    """A folder of this machine, or of a file system that several share."""

    def __init__(self, path: str) -> None:
        self._path = path

    def make(self) -> None:
        os.makedirs(self._path, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        try:
            with open(self._at(name), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, name: str, content: bytes) -> bool:
        with self._temporary(name, content) as temporary:
            try:
                os.link(temporary, self._at(name))
                return True
            except FileExistsError:
                # A network file system may do it, lose its answer, and try again.
                return os.stat(temporary).st_nlink == 2
            except OSError:  # it has no hard links
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
    """A prefix of an object store. An object is whole or not there, whoever writes it."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        with _as_os_error():
            self._files, _ = fsspec.core.url_to_fs(self._url)

    def make(self) -> None:
        """A prefix needs no making, and a bucket is not ours to make."""

    def read(self, name: str) -> bytes | None:
        with _as_os_error():
            try:
                # `open` may take the size from a list kept in memory, and cut the content.
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
            self.replace(name, content)  # raises where it cannot be written
        # A store may know no conditional requests, or not heed them. Of those that write at once
        # the last one stays, as all of them see a moment later.
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
    """The libraries of the stores raise errors of the network, of HTTP and of their own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
