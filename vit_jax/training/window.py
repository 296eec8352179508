"""Means of what the steps since the last line of metrics gave, also after an interruption."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from vit_jax import plain_json
from vit_jax.workdir import place

FILE = "window.json"  # in the workdir: the sums since the last line, for each checkpoint
LAST_OF_LOSS = "loss_last"
# The other values of a step are those of the last step of the window.
LAST = ("learning_rate", "grad_norm", "param_norm")


class Window:
    """Sums of the values of steps, in double precision."""

    def __init__(self, sums: Mapping[str, float] | None = None, *, count: int = 0) -> None:
        self._sums, self._count = dict(sums or {}), count

    def add(self, values: Mapping[str, float]) -> None:
        """Adds the values of a step."""
        self._count += 1
        for name, value in values.items():
            if name not in LAST:
                self._sums[name] = self._sums.get(name, 0.0) + value

    @property
    def loss(self) -> float:
        """The mean loss so far."""
        return self._sums["loss"] / self._count

    def line(self, values: Mapping[str, float]) -> dict[str, float]:
        """The values of a line of metrics; `values` are those of its step, which was added.

        The loss and what an objective measures are means, `loss_last` is the loss of the step.
        """
        means = {name: total / self._count for name, total in self._sums.items()}
        first = {"loss": means.pop("loss"), LAST_OF_LOSS: values["loss"]}
        return first | means | {name: values[name] for name in values if name in LAST}

    def write(self, workdir: str | os.PathLike[str], *, step: int, kept: Iterable[int]) -> None:
        """Keeps the sums for a run that resumes from step `step`; `kept` are other checkpoints."""
        path, now = place.folder(workdir) / FILE, str(step)
        before = _read(path)
        if not self._count and not before:
            return
        content = {name: before[name] for name in map(str, kept) if name in before}
        content[now] = {"count": self._count, "sums": self._sums}
        place.write_whole(path, json.dumps(content).encode())


def restored(workdir: str | os.PathLike[str], *, step: int) -> Window:
    """The window of a run that resumes from a step; an empty one if it was not kept."""
    match _read(place.folder(workdir) / FILE).get(str(step)):
        case {"count": int(count), "sums": dict(sums)}:
            if all(isinstance(value, float) for value in sums.values()):
                return Window(sums, count=count)
    return Window()


def _read(path: epath.Path) -> dict[str, Any]:
    """The content of the file; nothing if it is not there or is damaged."""
    try:
        content = plain_json.loads(path.read_text()) if place.is_file(path) else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
