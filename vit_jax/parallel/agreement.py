"""Points at which all processes of a job must come, unharmed and with the same facts.

They talk through the job's coordinator, not through the devices: nothing has to be compiled, and
nothing hangs where one process computes something else than the others.
"""

import collections
import itertools
import json
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from vit_jax.errors import RunFailed
from vit_jax.parallel import multihost
from vit_jax.text import few

_POLL = 0.1  # seconds between two looks of the primary process
_SHOWN = 5  # differences in a message
_DAY = 24 * 3600 * 1000  # milliseconds
_NUMBERS = itertools.count()  # all processes meet in the same order


class Meeting:
    """A part of a program that ends well on all processes, or fails on all of them.

    Use it as a context manager; `end` is where they meet, at the latest when the context ends.
    """

    def __init__(self) -> None:
        self._alone = not jax.distributed.is_initialized() or jax.process_count() == 1
        self._key = f"vit_jax/meeting/{next(_NUMBERS)}"
        self._ended = False

    def __enter__(self) -> "Meeting":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if error is None:
            self.end()
        elif not (self._ended or self._alone):
            self._ended = True
            wrong = isinstance(error, ValueError)
            reason = str(error) if wrong else f"it failed: {type(error).__name__} {error}"
            self._publish({"wrong" if wrong else "failed": reason})

    def end(self, facts: Mapping[str, str] | None = None) -> None:
        """Waits for all processes.

        Raises ValueError on all of them where their `facts` are not the same, or one process
        raised ValueError; RunFailed where one failed otherwise.
        """
        if self._ended or self._alone:
            return
        self._ended = True
        self._publish({"facts": dict(facts or {})})
        verdict = self._verdict()
        if failed := verdict.get("failed"):
            raise RunFailed(failed)
        if wrong := verdict.get("wrong"):
            raise ValueError(wrong)

    def _publish(self, mine: Mapping[str, object]) -> None:
        client = ocp.multihost.get_jax_distributed_client()
        client.key_value_set(f"{self._key}/of/{jax.process_index()}", json.dumps(mine))
        if multihost.is_primary():
            # Here, so that a primary process that fails still answers the others.
            client.key_value_set(f"{self._key}/verdict", json.dumps(self._judge(client)))

    def _verdict(self) -> dict[str, str]:
        client = ocp.multihost.get_jax_distributed_client()
        verdict: dict[str, str] = json.loads(
            client.blocking_key_value_get(f"{self._key}/verdict", _DAY)
        )
        return verdict

    def _judge(self, client: Any) -> dict[str, str]:
        """What is wrong, as soon as one process failed or all have come."""
        while True:
            found = client.key_value_dir_get(f"{self._key}/of/")
            said = {int(key.rsplit("/", 1)[1]): json.loads(text) for key, text in found}
            for index, words in sorted(said.items()):
                for kind in ("wrong", "failed"):
                    if kind in words:
                        return {kind: f"process {index}: {words[kind]}"}
            if len(said) == jax.process_count():
                return {"wrong": differences([said[i]["facts"] for i in range(len(said))])}
            time.sleep(_POLL)


def compare(facts: Mapping[str, str]) -> None:
    """Raises ValueError on all processes where these facts are not the same on all of them."""
    with Meeting() as meeting:
        meeting.end(facts)


def differences(facts: Sequence[Mapping[str, str]]) -> str:
    """What differs between processes, with all values and whose they are; "" where nothing does."""
    found = []
    for name in dict.fromkeys(name for of_one in facts for name in of_one):
        holders: dict[str, list[int]] = collections.defaultdict(list)
        for index, of_one in enumerate(facts):
            holders[of_one.get(name, "not there")].append(index)
        if len(holders) > 1:
            values = [f"{value} in {_processes(of)}" for value, of in holders.items()]
            found.append(f"{name} is {' and '.join(values[:_SHOWN])}")
    if not found:
        return ""
    more = f"; {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"the processes of this job differ: {'; '.join(found[:_SHOWN])}{more}: start all of them"
        " with the same command, the same code and the same data"
    )


def _processes(indices: Sequence[int]) -> str:
    return f"{'process' if len(indices) == 1 else 'processes'} {few(indices, _SHOWN)}"
