"""The process that trains the other side of a twin."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.twins import wire
from benchmarks.twins.contract import Batch, Twin

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Peers(NamedTuple):
    """Where the original code is."""

    python: str  # of an environment with PyTorch
    folder: str  # with checkouts of the repositories


class Answer(NamedTuple):
    """What a side reports after a step."""

    loss: float
    grad_norm: float
    params: Mapping[str, np.ndarray]  # under the peer's names


class Peer:
    """A training run of the original code: `send` a batch, then `receive` the answer."""

    def __init__(
        self,
        twin: Twin,
        peers: Peers,
        *,
        settings: Mapping[str, Any],
        params: Mapping[str, np.ndarray],
    ) -> None:
        self._needs = twin.needs
        checkout = pathlib.Path(peers.folder, twin.checkout)
        if twin.checkout and not checkout.is_dir():
            raise SystemExit(f"{checkout} is not there: {twin.needs}")
        paths = [str(checkout)] if twin.checkout else []
        # The peer comes first: the package of google-research/vision_transformer has our name.
        path = os.pathsep.join([*paths, str(ROOT)])
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [
                peers.python if twin.uses_torch else sys.executable,
                *("-W", "ignore", "-P", "-m", f"benchmarks.twins.peers.{twin.peer}"),
            ],
            env=os.environ | threads | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        settings = {**settings, "libraries": twin.libraries}
        self._write(wire.first_message(settings, params))
        commit = _commit(peers.folder, twin.checkout) if twin.checkout else ""
        self.versions = ", ".join(filter(None, [commit, str(self._read()["versions"])]))

    def send(self, batch: Batch) -> None:
        self._write(batch)

    def receive(self) -> Answer:
        answer = self._read()
        params = wire.without_prefix(answer)
        return Answer(float(answer["loss"]), float(answer["grad_norm"]), params)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _write(self, message: Mapping[str, np.ndarray]) -> None:
        assert self._process.stdin is not None
        try:
            wire.send(self._process.stdin, message)
        except BrokenPipeError:
            raise SystemExit(f"the process of the peer ended (see above): {self._needs}") from None

    def _read(self) -> wire.Arrays:
        assert self._process.stdout is not None
        answer = wire.receive(self._process.stdout)
        if answer is None:
            raise SystemExit(f"the process of the peer ended (see above): {self._needs}")
        return answer


def _commit(folder: str, checkout: str) -> str:
    """The commit of the repository with this checkout, shortened; "" if it is a plain folder."""
    repository = pathlib.Path(folder, pathlib.Path(checkout).parts[0])
    if not (repository / ".git").exists():
        return ""
    command = ["git", "-C", str(repository), "rev-parse", "--short=10", "HEAD"]
    return f"commit {subprocess.check_output(command, text=True).strip()}"
