"""Points that all processes of a job must reach without an error and with the same facts.

The processes communicate through the job's coordinator, not through the devices. So nothing has to
be compiled, and nothing hangs if one process computes something else than the other processes.
"""

import collections
import itertools
import json
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vit_jax.errors import RunFailed
from vit_jax.parallel import multihost
from vit_jax.text import few

_POLL = 0.1  # seconds after which the primary process looks again for what others published
_SHOWN = 5  # the most differences in a message
_DAY = 24 * 3600 * 1000  # milliseconds
_NUMBERS = itertools.count()  # of meetings; all processes meet in the same order


class Meeting:
    """A part of a program that succeeds on all processes, or fails on all of them.

    A context manager. The processes wait for each other in `end`, or when the context ends.
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

        Raises ValueError on all of them if their `facts` differ or one process raised ValueError,
        and RunFailed if a process failed with another error.
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
        client = multihost.client()
        client.key_value_set(f"{self._key}/of/{jax.process_index()}", json.dumps(mine))
        if multihost.is_primary():
            # Here, so that a primary process that fails still answers the other processes.
            client.key_value_set(f"{self._key}/verdict", json.dumps(self._judge(client)))

    def _verdict(self) -> dict[str, str]:
        client = multihost.client()
        verdict: dict[str, str] = json.loads(
            client.blocking_key_value_get(f"{self._key}/verdict", _DAY)
        )
        return verdict

    def _judge(self, client: Any) -> dict[str, str]:
        """What is wrong, as soon as one process failed or all have published their facts."""
        while True:
            found = client.key_value_dir_get(f"{self._key}/of/")
            published = {int(key.rsplit("/", 1)[1]): json.loads(text) for key, text in found}
            for index, content in sorted(published.items()):
                for kind in ("wrong", "failed"):
                    if kind in content:
                        return {kind: f"process {index}: {content[kind]}"}
            if len(published) == jax.process_count():
                facts = [published[index]["facts"] for index in range(len(published))]
                return {"wrong": differences(facts)}
            time.sleep(_POLL)


def compare(facts: Mapping[str, str]) -> None:
    """Raises ValueError on all processes unless these facts are equal on all of them."""
    with Meeting() as meeting:
        meeting.end(facts)


def differences(facts: Sequence[Mapping[str, str]]) -> str:
    """A message that lists the facts that differ, with all their values; "" if all are equal."""
    found = []
    for name in dict.fromkeys(name for of_one in facts for name in of_one):
        holders: dict[str, list[int]] = collections.defaultdict(list)
        for index, of_one in enumerate(facts):
            holders[of_one.get(name, "missing")].append(index)
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
