"""The progress of a run for people: a bar on a terminal, else a line for every update."""

import sys
from typing import Any

import jax
import tqdm

from vit_jax.text import printable
from vit_jax.training.window import LAST_OF_LOSS

# What a person reads first comes first: a narrow terminal cuts the end.
_BAR = "{desc}{images_per_second} images/s, {remaining} left |{bar}| {n_fmt}/{total_fmt}"
# Not in a line for people.
_IN_FILES = (LAST_OF_LOSS, "grad_norm", "param_norm", "images_per_second", "data_wait")
_WORTH_SAYING = 0.05  # of the time, waiting for data


class _Bar(tqdm.tqdm):
    """A bar of steps that shows images per second."""

    batch_size = 1

    @property
    def format_dict(self) -> dict[str, Any]:
        shown = super().format_dict
        done, elapsed = shown["n"] - shown["initial"], shown["elapsed"]
        rate = shown["rate"] or (done / elapsed if done and elapsed else None)
        shown["images_per_second"] = f"{rate * self.batch_size:,.0f}" if rate else "?"
        return shown


class Progress:
    """A progress bar; without a terminal, a line for every update."""

    def __init__(self, *, start_step: int, total_steps: int, batch_size: int) -> None:
        self._batch_size = batch_size
        self._primary = jax.process_index() == 0
        self._bar = _Bar(
            total=total_steps,
            initial=start_step,
            bar_format=_BAR,
            dynamic_ncols=True,
            disable=not (self._primary and sys.stderr.isatty()),
        )
        self._bar.batch_size = batch_size

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        self._bar.update()

    def loss(self, mean: float) -> None:
        """Shows the mean loss since the last line, when the bar is drawn next."""
        if not self._bar.disable:
            self._bar.set_description_str(f"loss {_short(mean)}, ", refresh=False)

    def show(self, step: int, metrics: dict[str, Any]) -> None:
        """Prints a line of metrics if there is no bar: loss, rate, time left, and the rest."""
        if not self._bar.disable:
            return
        rest = dict(metrics)
        parts = [f"loss {_short(rest.pop('loss'))}"] if "loss" in rest else []
        if rate := metrics.get("images_per_second", 0):
            left = (self._bar.total - step) * self._batch_size / rate
            parts += [f"{rate:,.0f} images/s", f"{tqdm.tqdm.format_interval(left)} left"]
        if (wait := metrics.get("data_wait", 0)) >= _WORTH_SAYING:
            parts.append(f"{wait:.0%} waiting for data")
        parts += [f"{key} {_short(value)}" for key, value in rest.items() if key not in _IN_FILES]
        self.say(f"step {step}/{self._bar.total}: {', '.join(parts)}")

    def say(self, text: str) -> None:
        """Prints lines above the bar, on the primary process."""
        if self._primary:
            lines = map(printable, text.split("\n"))
            tqdm.tqdm.write("\n".join(lines), file=sys.stderr)


def _short(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
