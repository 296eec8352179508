"""What a run reports of its steps and evaluations, and the end of a run that diverged."""

import math
import shlex

import jax

from vit_jax.errors import RunFailed
from vit_jax.evaluators import held_out
from vit_jax.training import window
from vit_jax.training.clock import Clock
from vit_jax.training.metrics import MetricWriter, keeping
from vit_jax.training.progress import Progress
from vit_jax.training.run import Run

_FIRST = ("top1", "top5", "loss")  # metrics that come before the others in a line


class Diverged(RunFailed):
    """The loss or the gradient is no longer finite."""


class Reporter:
    """Reads the values of a step after the next step was dispatched, and reports them."""

    def __init__(self, run: Run, writer: MetricWriter, progress: Progress, clock: Clock) -> None:
        self._run, self._writer, self._progress, self.clock = run, writer, progress, clock
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._workdir = run.store.path.parent
        self._window = window.restored(self._workdir, step=int(run.state["step"]))

    def push(self, step: int, values: dict[str, jax.Array]) -> None:
        """Reports the step before, and keeps the values of this one. Raises Diverged."""
        self.settle()
        self._pending = (step, values)
        self._progress.advance()

    def settle(self) -> None:
        """Waits for the last step that was pushed, and reports it. Raises Diverged."""
        if self._pending is None:
            return
        step, values = self._pending
        self._pending = None
        host = {name: float(value) for name, value in jax.device_get(values).items()}
        self._check(step, host)
        self._window.add(host)
        self._progress.loss(self._window.loss)
        if due(step, self._run.lengths.log_every) or step == self._run.lengths.total:
            line = self._window.line(host)
            self._window = window.Window()
            speed = self.clock.speed(step)
            line["images_per_second"] = speed.steps_per_second * self._run.config.batch_size
            line["data_wait"] = speed.waiting
            if bad := self._run.batches.bad.count:
                line["bad_images"] = bad
            self._write(step, line)
            self._progress.show(step, line)

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """Reports an evaluation. Raises Diverged."""
        named = {f"eval_{name}": value for name, value in metrics.items()}
        self._check(step, named)
        # A kill may have come after this line, and before the metrics were with the checkpoint.
        if not self._writer.has(step, named):
            self._write(step, named)
        self._progress.say(f"step {step}: {describe(metrics)}")

    def flush(self, step: int) -> None:
        """Returns when everything that a run needs that resumes from this step is in the workdir.

        That is what was reported, and the sums of what will be.
        """
        self._writer.flush()
        if jax.process_index() == 0:
            with keeping(self._workdir):
                self._window.write(self._workdir, step=step, kept=self._run.store.steps)

    def restart(self, step: int) -> None:
        """Excludes the time until now from the next measure of speed."""
        self.settle()
        self.clock.restart(step)

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._run.lease:
            self._run.lease.check()
        self._writer.write(step, values)

    def _check(self, step: int, values: dict[str, float]) -> None:
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            self._run.store.wait()
            raise Diverged(f"{wrong[0]} is {values[wrong[0]]} at step {step}: {_advice(self._run)}")


def due(step: int, every: int) -> bool:
    """Whether something with the period `every` is due after a step; 0 is never."""
    return every > 0 and step % every == 0


def describe(metrics: dict[str, float]) -> str:
    """An evaluation in one line: for each evaluator the parameters, then their average."""
    groups: dict[str, list[str]] = {}
    for key, value in sorted(metrics.items(), key=lambda item: _order(item[0])):
        evaluator, _, name = key.rpartition("/")
        if name in held_out.COUNTS:
            continue
        average = "average " if name.startswith("ema_") else ""
        shown = _shown(name.removeprefix("ema_"), value)
        groups.setdefault(evaluator, []).append(f"{average}{shown}")
    parts = [(f"{name} " if name else "") + ", ".join(shown) for name, shown in groups.items()]
    left_out = [
        f", {int(metrics[key])} {why} left out"
        for key, why in (("unlabelled", "without a label"), ("broken", "broken"))
        if key in metrics
    ]
    counts = [value for key, value in metrics.items() if key.rpartition("/")[2] == "count"]
    images = f" on {int(counts[0])} images" if counts else ""
    return f"{'; '.join(parts)}{images}{''.join(left_out)}"


def _order(key: str) -> tuple[str, bool, int]:
    """A sort key: by evaluator, the parameters before their average, `_FIRST` before the rest."""
    evaluator, _, name = key.rpartition("/")
    plain = name.removeprefix("ema_")
    return evaluator, plain != name, _FIRST.index(plain) if plain in _FIRST else len(_FIRST)


def _shown(name: str, value: float) -> str:
    """A metric in words; accuracies are percentages."""
    kind, _, rest = name.partition("_")
    if kind in ("top1", "top5"):
        return f"top-{kind[3:]}{f' {rest}' if rest else ''} {100 * value:.2f}%"
    return f"{name} {value:.4f}"


def _advice(run: Run) -> str:
    """What to do after a run diverged. Once it has saved, its config can no longer change."""
    rate = f"--config.optimizer.learning_rate={run.config.optimizer.learning_rate / 3:.3g}"
    others = "more warm-up or clipping may help too"
    kept = run.store.steps
    if not kept:
        return (
            f"there is no checkpoint yet: run the same command with a lower rate, such as {rate};"
            f" {others}"
        )
    workdir = run.store.path.parent
    start = f"--config.init_from={shlex.quote(str(workdir))} --config.init_state=all"
    if run.config.init_layout:  # the layout of the file that this run started from
        start += " --config.init_layout="
    return (
        f"checkpoint {kept[-1]} is kept: continue from it in a new workdir with a lower rate, by"
        f" the same command with --workdir {shlex.quote(f'{workdir}-2')} {start} {rate};"
        f" {others}"
    )
