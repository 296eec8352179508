"""Named arrays between the two processes of a twin, and the loop of the process of the peer."""

import importlib.metadata
import io
import json
import os
import struct
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol

import numpy as np

Arrays = dict[str, np.ndarray]
_LENGTH = struct.Struct("<Q")
SETTINGS = "settings"  # the name of the settings in the first message, as JSON
PARAM = "param/"  # before the name of a parameter


class Peer(Protocol):
    """A model in training in the original code."""

    def step(self, batch: Arrays) -> tuple[float, float]:
        """Trains on a batch and its draws; returns the loss and the norm of the gradient."""

    def params(self) -> Mapping[str, np.ndarray]:
        """The parameters under the names of the original code."""


def send(stream: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    stream.write(_LENGTH.pack(buffer.tell()))
    stream.write(buffer.getvalue())
    stream.flush()


def receive(stream: IO[bytes]) -> Arrays | None:
    """The next message, or None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    with np.load(io.BytesIO(stream.read(*_LENGTH.unpack(head))), allow_pickle=False) as file:
        return dict(file)


def first_message(settings: Mapping[str, Any], params: Mapping[str, np.ndarray]) -> Arrays:
    return {SETTINGS: np.asarray(json.dumps(settings))} | with_prefix(params)


def with_prefix(params: Mapping[str, np.ndarray]) -> Arrays:
    return {PARAM + name: np.asarray(array) for name, array in params.items()}


def without_prefix(message: Arrays) -> Arrays:
    return {k.removeprefix(PARAM): v for k, v in message.items() if k.startswith(PARAM)}


def serve(build: Callable[[dict[str, Any], Arrays], Peer]) -> None:
    """The process of a peer: builds it from the first message, then takes a step for each other.

    The first answer holds `versions`; every other one `loss`, `grad_norm` and the parameters after
    the step.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the peer prints is no answer
    first = receive(sys.stdin.buffer)
    assert first is not None
    settings = json.loads(str(first[SETTINGS]))
    send(answers, {"versions": np.asarray(", ".join(map(_version, settings["libraries"])))})
    peer = build(settings, without_prefix(first))
    while (batch := receive(sys.stdin.buffer)) is not None:
        loss, norm = peer.step(batch)
        figures = {"loss": np.asarray(loss), "grad_norm": np.asarray(norm)}
        send(answers, {**figures, **with_prefix(peer.params())})


def _version(library: str) -> str:
    return f"{library} {importlib.metadata.version(library)}"
