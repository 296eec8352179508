"""Paths of workdirs and checkpoints, on this machine or on a bucket (gs://, s3://)."""

import contextlib
import functools
import importlib.util
import logging
import os
import pathlib
import shutil
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import fsspec
import fsspec.asyn
import fsspec.exceptions
from etils import epath

from vit_jax.workdir import hub

_BLOCK = 2**24  # bytes of a file that are in memory at once
_LIMIT = 60.0  # seconds that a bucket may take to answer at first
_GOOGLE = "storage.googleapis.com"

# The library for each kind of bucket, and the command that installs it.
_LIBRARIES = {
    "gs": ("gcsfs", "pip install 'etils[epath-gcs]'"),
    "s3": ("s3fs", "pip install 'etils[epath-s3]' 's3fs>=2025.1'"),
}


def folder(path: str | os.PathLike[str]) -> epath.Path:
    """The absolute path of a folder, on this machine or on a bucket.

    Raises ValueError in one line if it is on a bucket that cannot be used: its library is not
    installed, the bucket does not exist, or there is no permission.
    """
    text = os.fspath(path)
    if not text:
        raise ValueError("the workdir is empty: name a folder")
    if "://" not in text:
        return epath.Path(text).resolve()
    scheme, _, rest = text.partition("://")
    bucket = rest.partition("/")[0]
    if scheme not in _LIBRARIES:
        known = " and ".join(f"{name}://" for name in _LIBRARIES)
        raise ValueError(f"{text}: {scheme}:// is not supported: buckets are {known}")
    if not bucket or not rest.partition("/")[2].strip("/"):
        raise ValueError(f"{text}: name a folder of a bucket, such as {scheme}://BUCKET/RUN")
    _check_bucket(scheme, bucket)
    return epath.Path(text)


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path is on a bucket, where a file is written whole and never appended to."""
    return "://" in os.fspath(path)


def is_file(path: epath.Path) -> bool:
    """Whether a path is a file or a link to one. epath takes a pipe for one: reading it waits."""
    return path.is_file() if is_bucket(path) else os.path.isfile(path)


def write_whole(path: epath.Path | pathlib.Path, data: bytes) -> None:
    """Writes a file whole: after a failure it is as it was before.

    Several threads and processes may write the same file at once: one of them is the last.
    """
    if is_bucket(path):
        path.write_bytes(data)  # an object appears when it is complete
        return
    temporary = _temporary(pathlib.Path(path))
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_output(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file that a user named, whole, and its folder. Raises ValueError if that fails."""
    target = folder(path)
    with named_if_unwritable(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, data)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises ValueError unless a file can be made where `path` is to be: before a long computation.

    `path` is local, and its folder exists.
    """
    with (
        named_if_unwritable(path),
        tempfile.TemporaryFile(dir=pathlib.Path(path).parent),
    ):
        pass


@contextlib.contextmanager
def named_if_unwritable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes an OSError a ValueError in one line that names the path that is written."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A released model as local files; a copy of it, with its config, if it is not on a disk.

    `path` may be on a bucket, or the name of a model of the hub (`hub.py`). Raises ValueError if
    there is nothing at `path`.
    """
    if hub.is_hub(path):
        yield hub.local(os.fspath(path))
        return
    if not is_bucket(path):
        yield pathlib.Path(path)
        return
    source = folder(path)
    with tempfile.TemporaryDirectory(prefix="vit_jax-") as temporary, _named(temporary, source):
        if source.is_dir():
            files = [file for file in source.iterdir() if not file.is_dir()]
        elif source.exists():
            others = (file for file in source.parent.iterdir() if _beside(file.name, source.name))
            files = [source, *others]
        else:
            raise ValueError(f"no checkpoint at {path}")
        here = pathlib.Path(temporary) / source.name
        into = here if source.is_dir() else here.parent
        into.mkdir(exist_ok=True)
        for file in files:
            with file.open("rb") as remote, (into / file.name).open("wb") as copy:
                shutil.copyfileobj(remote, copy, _BLOCK)
        yield here


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A local path; the file or folder that is written there is copied to the bucket at the end.

    Raises ValueError if `path` is a folder that is not empty.
    """
    target = folder(path)
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{path} exists and is not empty: choose another folder")
    with tempfile.TemporaryDirectory(prefix="vit_jax-") as temporary, _named(temporary, target):
        here = pathlib.Path(temporary) / target.name
        yield here
        # The files that make it a run or a model come last, so that half a copy is neither.
        names = sorted(
            (file.relative_to(here).as_posix() for file in here.rglob("*") if file.is_file()),
            key=lambda name: (name in ("config.json", "model.json"), "commit_" in name, name),
        )
        copies = {here / name: target / name for name in names}
        if not here.is_dir():  # the config gets the name of its file, and replaces no other config
            config = here.with_name("config.json")
            own = target.parent / f"{target.name}.config.json"
            copies = {here: target} | ({config: own} if config.is_file() else {})
        for local, there in copies.items():
            with local.open("rb") as file, there.open("wb") as remote:
                shutil.copyfileobj(file, remote, _BLOCK)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A temporary path that replaces `path` at the end, or is removed where an error is raised.

    Raises ValueError where `path` cannot be replaced (`check_replaceable`) or written.
    """
    path = pathlib.Path(path)
    check_replaceable(path)
    temporary = _temporary(path)
    try:
        with named_if_unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if path.is_dir():
                path.rmdir()
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raises ValueError where a local path is a folder with files, or the current folder.

    The current folder would be another one after it is replaced, and its users would not see it.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return
    if any(path.iterdir()):
        raise ValueError(f"{path} exists and is not empty: choose another folder")
    if path.samefile(os.curdir):
        raise ValueError(f"{path} is the current folder: name a folder that is to be made in it")


def _temporary(path: pathlib.Path) -> pathlib.Path:
    """A path beside `path` that no other thread and no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")


@contextlib.contextmanager
def _named(temporary: str, path: epath.Path) -> Iterator[None]:
    """Makes errors ValueErrors that name the path on the bucket instead of the local copy."""
    try:
        yield
    except ValueError as error:
        text = str(error).replace(f"{temporary}/{path.name}", str(path))
        raise ValueError(text.replace(temporary, str(path.parent))) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be copied: {error.strerror or error}") from error


def _beside(name: str, read: str) -> bool:
    """Whether the file `name` is needed to read the file `read` in the same folder."""
    names = ("config.json", f"{read}.config.json", "preprocessor_config.json")
    shard = read.endswith(".index.json") and name.endswith((".safetensors", ".bin"))
    return name != read and (shard or name in names)


def file_system(scheme: str) -> Any:
    """The file system of `gs` or `s3` that the whole program uses."""
    # Other machines and TensorStore write too, so a cached listing would be wrong.
    fsspec.config.conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
    # epath would use TensorFlow if it is installed, which does not support s3://.
    os.environ.setdefault("EPATH_USE_TF", "false")
    return fsspec.filesystem(scheme)


@functools.cache
def _check_bucket(scheme: str, bucket: str) -> None:
    """Raises ValueError if a bucket cannot be used.

    No later error would be as clear: s3fs creates a missing bucket, and most calls only report that
    a file does not exist.
    """
    library, install = _LIBRARIES[scheme]
    if importlib.util.find_spec(library) is None:
        raise ValueError(f"{scheme}:// needs {library}, which is not installed: {install}")
    # It logs the tracebacks of errors that are raised too, and are one line below.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    try:
        if scheme == "gs":
            _check_network()
        system = file_system(scheme)
        fsspec.asyn.sync(system.loop, system._info, bucket, timeout=_LIMIT)
    except FileNotFoundError as error:
        raise ValueError(f"there is no bucket {scheme}://{bucket}: create it first") from error
    except fsspec.exceptions.FSTimeoutError as error:
        where = f"the bucket {scheme}://{bucket} cannot be reached"
        raise ValueError(f"{where}: no answer in {_LIMIT:.0f} s") from error
    except Exception as error:  # each library raises other kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"the bucket {scheme}://{bucket} cannot be reached: {reason}") from error


def _check_network() -> None:
    """Raises OSError if the server of gs:// has no address. gcsfs would try for minutes."""
    own = fsspec.config.conf.get("gs", {}).get("endpoint_url")
    if own or os.environ.get("STORAGE_EMULATOR_HOST") or urllib.request.getproxies():
        return
    try:
        socket.getaddrinfo(_GOOGLE, 443)
    except OSError as error:
        raise OSError(f"there is no network, or no address of {_GOOGLE}") from error
