"""What a run reports: JSON lines, TensorBoard events, and a progress line."""

import json
import math
import os
import pathlib
import sys
import time
from typing import Any

import jax
import tqdm
from tensorboardX import SummaryWriter

from vit_jax.text import printable


class MetricWriter:
    """Appends to `metrics.jsonl` and to TensorBoard events in the run's folder.

    What an interrupted run wrote beyond `start_step` is dropped, for it will be written again.
    Only the primary process writes.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, start_step: int) -> None:
        self._file = self._events = None
        if jax.process_index():
            return
        path = pathlib.Path(workdir) / "metrics.jsonl"
        if path.exists():
            _truncate(path, start_step)
        self._file = path.open("a")
        self._events = SummaryWriter(
            str(pathlib.Path(workdir) / "tensorboard"),
            purge_step=start_step + 1,
            flush_secs=10,  # what a killed run loses of them; of the lines it loses nothing
        )

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file and self._events:
            self._file.close()
            self._events.close()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """One line `{"step": ..., name: value}`, on disk when this returns."""
        if self._file is None or self._events is None:
            return
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)


class Progress:
    """The line of progress; without a terminal, a line at every update. Times the steps."""

    def __init__(self, *, start_step: int, total_steps: int, batch_size: int) -> None:
        self._batch_size, self._since = batch_size, (start_step, time.perf_counter())
        self._primary = jax.process_index() == 0
        self._bar = tqdm.tqdm(
            total=total_steps,
            initial=start_step,
            unit="step",
            dynamic_ncols=True,
            disable=not (self._primary and sys.stderr.isatty()),
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        self._bar.update()

    def rate(self, step: int) -> float:
        """Images a second since the last call, or since `restart`."""
        (then, start), now = self._since, time.perf_counter()
        self._since = (step, now)
        return (step - then) * self._batch_size / max(now - start, 1e-9)

    def restart(self, step: int) -> None:
        """Leaves what happened since the last `rate` (compilation, evaluation) out of the next."""
        self._since = (step, time.perf_counter())

    def show(self, step: int, metrics: dict[str, Any]) -> None:
        text = ", ".join(f"{name} {_short(value)}" for name, value in metrics.items())
        if self._bar.disable:
            self.say(f"step {step}/{self._bar.total}: {text}{self._left(step, metrics)}")
        else:
            self._bar.set_postfix_str(text)

    def say(self, text: str) -> None:
        """A line above the progress line."""
        if self._primary:
            lines = map(printable, text.split("\n"))
            tqdm.tqdm.write("\n".join(lines), file=sys.stderr)

    def _left(self, step: int, metrics: dict[str, Any]) -> str:
        rate = metrics.get("images_per_second", 0)
        left = (self._bar.total - step) * self._batch_size / rate if rate else math.inf
        return f", {tqdm.tqdm.format_interval(left)} left" if math.isfinite(left) else ""


def _short(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _truncate(path: pathlib.Path, step: int) -> None:
    """Keeps whole lines up to `step`; a kill may have cut the last one."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)
