"""Compiles steps for TPUs and GPUs, in processes with a time limit, and keeps the results."""

import concurrent.futures
import contextlib
import fnmatch
import gzip
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import IO, Any, TypeVar

from vit_jax import program_cache
from vit_jax.errors import RunFailed
from vit_jax.planning import job as job_lib
from vit_jax.planning.job import Job, Result

Given = TypeVar("Given")
Found = TypeVar("Found")
Other = TypeVar("Other")
INSTALL = "pip install vit_jax[tpu]"
INSTALL_CUDA = "pip install --no-deps 'jax-cuda13-plugin=={0}.*' 'jax-cuda13-pjrt=={0}.*'"
_THREADS = 8  # that wait for compilations; fewer processes compile
_SETTINGS = {  # the compiler must not look for TPUs on this machine or in the network
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # results are kept here instead
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # the libraries of CUDA are not needed to compile
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def check_installed(platform: str = "tpu") -> None:
    """Raises ValueError unless the compiler of a platform that JAX asks for is installed."""
    found = job_lib.versions(platform)
    if platform == "gpu":
        _check_cuda(found["jax"], found[job_lib.CUDA[0]])
        return
    wanted = _wanted_version()
    if not found["libtpu"] or not importlib.util.find_spec("libtpu"):
        raise ValueError(f"plan needs the TPU compiler, libtpu: {INSTALL}")
    if wanted and not fnmatch.fnmatch(found["libtpu"], wanted):
        raise ValueError(
            f"libtpu {found['libtpu']} does not fit jax {found['jax']}, which needs {wanted}:"
            f" {INSTALL}"
        )


def _check_cuda(jax: str, plugin: str) -> None:
    wanted, found = (".".join(version.split(".")[:3]) for version in (jax, plugin))
    install = INSTALL_CUDA.format(wanted)
    if not plugin:
        raise ValueError(
            f"plans for GPUs need the CUDA compiler of JAX, but neither GPU nor CUDA: {install}"
        )
    if found != wanted:
        raise ValueError(f"the CUDA plugin {plugin} does not fit jax {jax}: {install}")


def _wanted_version() -> str:
    """The version of libtpu that the installed JAX asks for, as a pattern, or ""."""
    for requirement in importlib.metadata.requires("jax") or []:
        if match := re.match(r"libtpu\s*==\s*([\w.*]+)", requirement):
            return match.group(1)
    return ""


def cache_folder() -> pathlib.Path:
    """Where results are kept: `vit_jax/plans` in the user's cache folder."""
    return program_cache.caches() / "vit_jax" / "plans"


class _Cancelled(RunFailed):
    """A compilation that was ended because another one failed."""

    def __init__(self) -> None:
        super().__init__("the compilation was cancelled")


class TookTooLong(RunFailed):
    """A compilation that was ended at its limit."""


class Compiler:
    """Compiles jobs and keeps what it finds. Use it in a `with` statement."""

    def __init__(
        self,
        *,
        limit: float = 600.0,
        processes: int = 1,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`limit`: seconds for one compilation; `processes`: how many may run at once.

        `report` gets a line of text before each compilation that takes long.
        """
        self.limit, self._report = limit, report
        self._resources = contextlib.ExitStack()
        self._folder = self._writable_folder()
        self._free = threading.BoundedSemaphore(processes)
        self._idle: list[_Worker] = []  # processes that wait for probes
        self._busy: set[_Worker] = set()
        self._locks: dict[str, threading.Lock] = {}  # by the key of a job
        self._ended = False

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        self._resources.close()

    def _writable_folder(self) -> pathlib.Path:
        """The folder of the cache, or one for this process only where the cache is read-only."""
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except (OSError, RuntimeError) as error:  # a read-only home, or none
            reason = getattr(error, "strerror", None) or error
            self._report(f"plans are not kept ({reason}): set XDG_CACHE_HOME to a folder to write")
            return pathlib.Path(self._resources.enter_context(tempfile.TemporaryDirectory()))

    def _end(self) -> None:
        """Ends all processes; those that compile give no result, and no others begin."""
        self._ended = True
        for worker in list(self._busy):
            worker.interrupt()  # the thread that waits for it ends it
        while self._idle:
            self._idle.pop().end()

    def each(self, function: Callable[[Given], Found], values: Iterable[Given]) -> list[Found]:
        """The results of a function that compiles, for several values at once.

        If one of them fails, the compilations that still run are ended.
        """
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            return self._results([pool.submit(function, value) for value in values])

    def both(self, first: Callable[[], Found], second: Callable[[], Other]) -> tuple[Found, Other]:
        """The results of two functions that compile, at once. Errors: as in `each`."""
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            one, other = pool.submit(first), pool.submit(second)
            self._results([one, other])
            return one.result(), other.result()

    def _results(self, futures: Sequence[concurrent.futures.Future[Any]]) -> list[Any]:
        try:
            done, _ = concurrent.futures.wait(futures, return_when="FIRST_EXCEPTION")
            errors = [future.exception() for future in futures if future in done]
        except BaseException:  # Ctrl-C
            self._cancel(futures)
            raise
        if failed := [error for error in errors if error]:
            self._cancel(futures)
            raise min(failed, key=lambda error: isinstance(error, _Cancelled))
        return [future.result() for future in futures]

    def _cancel(self, futures: Sequence[concurrent.futures.Future[Any]]) -> None:
        for future in futures:
            future.cancel()
        self._end()

    def one(self, job: Job) -> Result:
        """The result of a job, perhaps from an earlier time.

        Raises ValueError if the config cannot be designed or compiled for the topology, TookTooLong
        if it takes too long, and RunFailed if the compiler ends without a result.
        """
        key = job.key
        with self._locks.setdefault(key, threading.Lock()):  # another thread may have the same job
            result = job_lib.kept(self._folder, key, with_text=not job.probe)
            if result is None:
                check_installed(job.topology.chip.platform)
                with self._free:
                    if self._ended:
                        raise _Cancelled
                    result = self._compile(job)
                job_lib.keep(self._folder, key, result)
        if result.failure and result.bad_input:
            raise ValueError(result.failure)
        if result.failure:
            raise RunFailed(f"the compiler failed for {job.topology.name}: {result.failure}")
        return result

    def text(self, result: Result) -> str:
        """The text of the compiled program of a result that fits and is no probe."""
        path = job_lib.text_path(self._folder, result.program)
        return gzip.decompress(path.read_bytes()).decode()

    def _compile(self, job: Job) -> Result:
        program_cache.trim(self._folder)
        if not job.probe:
            self._report(f"compiling for {job.topology.name}; this may take minutes")
        worker = self._worker_of_probes() if job.probe else _Worker(self._folder)
        self._busy.add(worker)
        try:
            if self._ended:  # while the process started, before `_end` could see it
                raise _Cancelled
            result = worker.run(job, self.limit)
        except BaseException as error:
            worker.end()
            if self._ended:
                raise _Cancelled from error
            raise
        finally:
            self._busy.discard(worker)
        if job.probe and not self._ended:
            self._idle.append(worker)
        else:
            worker.end()  # a full compilation may leave gigabytes behind
        return result

    def _worker_of_probes(self) -> "_Worker":
        with contextlib.suppress(IndexError):  # none waits, or another thread took the last one
            return self._idle.pop()
        return _Worker(self._folder)


class _Worker:
    """A process that runs `worker`."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (`end` closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vit_jax.planning.worker", str(folder)],
            env=os.environ | _SETTINGS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C reaches this process only, which ends the worker
        )

    def run(self, job: Job, limit: float) -> Result:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(job.to_json().encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise RunFailed(self._why(job)) from None
        answer, until = b"", time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise TookTooLong(
                        f"the compiler needed more than {limit:.0f} seconds for"
                        f" {job.topology.name}: give it more with --limit"
                    )
                part = os.read(stdout.fileno(), 1 << 16)
                if not part:
                    raise RunFailed(self._why(job))
                answer += part
        return job_lib.result_of_json(answer.decode())

    def _why(self, job: Job) -> str:
        """Why the process ended: the signal, and the last line that tells something."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        telling = [line for line in lines if re.match(r"[EF]\d{4} |\w*Error", line)]
        last = (telling or lines or ["no message"])[-1][:500]
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the compiler ended ({how}) for {job.topology.name}: {last}"

    def interrupt(self) -> None:
        """Kills the process; `run` then raises."""
        self._process.kill()

    def end(self) -> None:
        """Ends the process at once, and closes its files."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()
