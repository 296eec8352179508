"""Local servers that speak the protocols of buckets: real processes, for the tests."""

import contextlib
import importlib.util
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.patience import limit

BUCKET = "made-by-the-tests"
LIMIT = 120  # seconds that a server may take to start

NEEDED = {"s3": ("s3fs", "moto", "flask", "flask_cors"), "gs": ("gcsfs", "gcp_storage_emulator")}


@contextlib.contextmanager
def server(scheme: str, folder: pathlib.Path) -> Iterator[str]:
    """A new bucket on a server of its own, which the environment names: `s3://BUCKET`."""
    missing = [name for name in NEEDED[scheme] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{scheme}:// is not tested: {missing[0]} is not installed (extra dev has it)")
    with contextlib.ExitStack() as stack:
        url = _start(scheme, folder, stack)
        stack.enter_context(_environment(settings(scheme, url)))
        if scheme == "s3":
            request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
            urllib.request.urlopen(request).close()
        yield f"{scheme}://{BUCKET}"


def _start(scheme: str, folder: pathlib.Path, stack: contextlib.ExitStack) -> str:
    """The address of a new server, which ends with the stack.

    It opens its port seconds after the port was found free: another program may have it by then.
    """
    log = stack.enter_context((folder / f"{scheme}.log").open("wb"))
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        commands = {
            "s3": ["-m", "moto.server", "-H", "127.0.0.1", "-p", port],
            "gs": [str(pathlib.Path(__file__).with_name("gcs_server.py")), port, BUCKET],
        }
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, *commands[scheme]], cwd=folder, stdout=log, stderr=log
            )
        )
        stack.callback(process.terminate)
        if _answers(url := f"http://127.0.0.1:{port}", process):
            return url
    raise AssertionError(f"the server ended three times: {folder / scheme}.log")


def settings(scheme: str, url: str) -> dict[str, str]:
    """What sends all the libraries to a server, with credentials that it does not check."""
    if scheme == "s3":
        return {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "testing",
        # gcsfs would ask another, which the server does not speak, for the kind of the bucket.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


def _answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    """Waits until the server answers. False if it has ended."""
    deadline = time.monotonic() + limit(LIMIT)
    while process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
    return False
