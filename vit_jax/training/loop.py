"""The loop of a run: steps, evaluations, checkpoints, and what is reported meanwhile."""

import contextlib
import math
import os
import shlex
import signal
from typing import NoReturn

import jax

from vit_jax import stopping
from vit_jax.checkpoints.store import saved_steps
from vit_jax.config import Config
from vit_jax.errors import Interrupted, RunFailed, Stopped
from vit_jax.evaluators import held_out
from vit_jax.parallel import multihost
from vit_jax.parallel.mesh import to_global
from vit_jax.training import memory
from vit_jax.training.metrics import MetricWriter, Progress
from vit_jax.training.run import Run, prepare
from vit_jax.workdir.mirror import Mirror

PROFILED = (10, 15)  # first and last step of this process that a profile records, if it has them


class Diverged(RunFailed):
    """The loss or the gradient is not finite any more."""


def train(
    config: Config, *, workdir: str | os.PathLike[str], notes: list[str], profile: bool = False
) -> dict[str, float]:
    """Trains, or goes on with, the run in `workdir`; returns its last evaluation.

    `notes` on the config are said when the run begins.
    Raises ValueError, before anything is written, where the config cannot be run; Diverged where
    the loss is not finite; Stopped after SIGINT, SIGTERM or SIGHUP. Whatever ends a run, the same
    call goes on from its last checkpoint, and gives the same bits as a run that nothing ended.
    """
    with memory.explained(config), contextlib.ExitStack() as stack:
        run = prepare(config, workdir, stack)
        stack.enter_context(jax.set_mesh(run.design.mesh))
        start, total = int(run.state["step"]), run.lengths.total
        progress = stack.enter_context(
            Progress(start_step=start, total_steps=total, batch_size=config.batch_size)
        )
        for line in (*notes, *run.messages):
            progress.say(line)
        stopping.ends_at_once(_nothing_to_save(start))
        missing = _evaluation_is_missing(run, start)
        if start >= total:
            progress.say(f"the run is complete: step {start} of {total}")
            if not missing:
                return run.evaluations(run.state, run.frozen)
        writer = stack.enter_context(MetricWriter(workdir, start_step=start))
        for line in writer.messages:
            progress.say(line)
        reporter = _Reporter(run, writer, progress)
        metrics: dict[str, float] = {}
        if missing:
            metrics = _late_evaluation(run, reporter, start)
        trace = stack.enter_context(_Trace(workdir, start, total)) if profile else None
        saved = start
        for done in range(start + 1, total + 1):
            if trace:
                trace.before(done)
            try:
                batch = next(run.batches)
            except Interrupted:
                _give_up(run, reporter, done - 1, saved=saved)
            inputs = {name: batch[name] for name in run.design.batch}
            placed = to_global(inputs, run.design.mesh, batch_size=config.batch_size)
            run.state, values = run.design.step(run.state, placed, run.frozen)
            if done == start + 1:  # it is compiled and there is something to save
                stack.enter_context(stopping.saving(lambda: _at_once(run)))
            # The values of the step before are read now that this one is on its way: the device
            # never waits for the host.
            reporter.push(done, values)
            run.store.check()
            if done == start + 1:
                reporter.restart(done)  # it compiled: no measure of speed
            last, stop = done == total, multihost.told_to_stop(done)
            evaluated: dict[str, float] = {}
            if not stop and (names := _evaluators_due(run, done)):
                reporter.settle()
                try:
                    evaluated = run.evaluations(run.state, run.frozen, names=names)
                    metrics |= evaluated
                    reporter.evaluated(done, evaluated)
                except Interrupted:  # the run evaluates when it goes on
                    stop = True
            if last or stop or _due(done, run.lengths.checkpoint_every) or _best(run, evaluated):
                _save(run, reporter, done, evaluated)
                saved = done
                reporter.restart(done)
            elif evaluated:
                reporter.restart(done)
            if stop:
                raise _stopped(run, done)
        run.store.wait()
        return metrics


def _save(run: Run, reporter: "_Reporter", step: int, evaluated: dict[str, float]) -> None:
    """Starts saving the state after a step."""
    reporter.settle()  # a state that is not finite is never saved
    if run.lease:
        run.lease.check(now=True)
    reporter.flush()  # a run that goes on from here has lost nothing of what it reported
    run.store.save(step, run.state, evaluated)


def describe(metrics: dict[str, float]) -> str:
    """An evaluation in one line: of each evaluator, of the parameters and of their average."""
    groups: dict[str, list[str]] = {}
    for key, value in sorted(metrics.items(), key=lambda item: _place(item[0])):
        evaluator, _, name = key.rpartition("/")
        if name in held_out.COUNTS:
            continue
        average = "average " if name.startswith("ema_") else ""
        said = _said(name.removeprefix("ema_"), value)
        groups.setdefault(evaluator, []).append(f"{average}{said}")
    parts = [(f"{name} " if name else "") + ", ".join(said) for name, said in groups.items()]
    left_out = [
        f", {int(metrics[key])} {why} left out"
        for key, why in (("unlabelled", "without a label"), ("broken", "broken"))
        if key in metrics
    ]
    counts = [value for key, value in metrics.items() if key.rpartition("/")[2] == "count"]
    images = f" on {int(counts[0])} images" if counts else ""
    return f"{'; '.join(parts)}{images}{''.join(left_out)}"


def _place(key: str) -> tuple[str, bool, int]:
    """Of the parameters first, then of their average; top-1 first."""
    evaluator, _, name = key.rpartition("/")
    plain, known = name.removeprefix("ema_"), ("top1", "top5", "loss")
    return evaluator, plain != name, known.index(plain) if plain in known else len(known)


def _said(name: str, value: float) -> str:
    """A metric as it is read: shares as percent."""
    if name in ("top1", "top5"):
        return f"top-{name[3:]} {100 * value:.2f}%"
    return f"{name} {value:.4f}"


class _Reporter:
    """Reads the values of a step once the next one is dispatched, and stops where one diverged."""

    def __init__(self, run: Run, writer: MetricWriter, progress: Progress) -> None:
        self._run, self._writer, self._progress = run, writer, progress
        self._pending: tuple[int, dict[str, jax.Array]] | None = None

    def push(self, step: int, values: dict[str, jax.Array]) -> None:
        self.settle()
        self._pending = (step, values)
        self._progress.advance()

    def settle(self) -> None:
        """Waits for the last step pushed. Raises Diverged."""
        if self._pending is None:
            return
        step, values = self._pending
        self._pending = None
        host = {name: float(value) for name, value in jax.device_get(values).items()}
        self._check(step, host)
        if _due(step, self._run.lengths.log_every) or step == self._run.lengths.total:
            host["images_per_second"] = self._progress.rate(step)
            if bad := self._run.batches.bad.count:
                host["bad_images"] = bad
            self._write(step, host)
            self._progress.show(step, host)

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """Reports an evaluation. Raises Diverged."""
        named = {f"eval_{name}": value for name, value in metrics.items()}
        self._check(step, named)
        self._write(step, named)
        self._progress.say(f"step {step}: {describe(metrics)}")

    def flush(self) -> None:
        self._writer.flush()

    def restart(self, step: int) -> None:
        """Leaves the time until now out of the next measure of speed."""
        self.settle()
        self._progress.restart(step)

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._run.lease:
            self._run.lease.check()
        self._writer.write(step, values)

    def _check(self, step: int, values: dict[str, float]) -> None:
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            self._run.store.wait()
            raise Diverged(f"{wrong[0]} is {values[wrong[0]]} at step {step}: {_advice(self._run)}")


def _advice(run: Run) -> str:
    """What can be done in fact where a run diverged: its own config is fixed once it has saved."""
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
    if run.config.init_layout:  # that of the file that this run started from
        start += " --config.init_layout="
    return (
        f"checkpoint {kept[-1]} is kept: go on from it in a new workdir with a lower rate, by the"
        f" same command with --workdir {shlex.quote(f'{workdir}-2')} {start} {rate};"
        f" {others}"
    )


class _Trace:
    """Records a few steps for TensorBoard or Perfetto in `profile/` of the run."""

    def __init__(self, workdir: str | os.PathLike[str], start: int, total: int) -> None:
        """Of the steps `start + 1` to `total`."""
        self._mirror, self._recording = Mirror(workdir), False
        length = PROFILED[1] - PROFILED[0] + 1
        self._first = max(min(start + PROFILED[0], total + 1 - length), start + 1)
        self._end = self._first + length

    def __enter__(self) -> "_Trace":
        return self

    def __exit__(self, *_: object) -> None:
        with self._mirror:
            self._stop()

    def before(self, step: int) -> None:
        if step == self._first:
            jax.profiler.start_trace(str(self._mirror.local / "profile"))
            self._recording = True
        elif step == self._end:
            self._stop()

    def _stop(self) -> None:
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
            self._mirror.put(self._mirror.changes())


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _best(run: Run, evaluated: dict[str, float]) -> bool:
    """Whether an evaluation is the best so far, and the best is kept."""
    kept = run.config.checkpoint.keep_best > 0
    return kept and bool(evaluated) and run.store.is_best(evaluated)


def _evaluation_is_missing(run: Run, start: int) -> bool:
    """Whether the run was stopped within the evaluation that was due after its last step."""
    due = start > 0 and _evaluators_due(run, start)
    return bool(due) and not run.store.is_evaluated(start)


def _evaluators_due(run: Run, step: int) -> list[str]:
    """The names of the evaluators that judge the state after this step: all at the end."""
    every = run.lengths.evaluate_every
    return [name for name in every if step == run.lengths.total or _due(step, every[name])]


def _late_evaluation(run: Run, reporter: "_Reporter", step: int) -> dict[str, float]:
    """Measures the state that the run starts from, and saves it again where it is the best."""
    metrics = run.evaluations(run.state, run.frozen, names=_evaluators_due(run, step))
    reporter.evaluated(step, metrics)
    if _best(run, metrics):
        with stopping.saving(lambda: _at_once(run)):
            run.store.remove(step)
            _save(run, reporter, step, metrics)
            run.store.wait()
            if multihost.agree(stopping.told()):
                raise _stopped(run, step)
    return metrics


def _give_up(run: Run, reporter: "_Reporter", step: int, *, saved: int) -> NoReturn:
    """Ends a run that was told to stop while it waits for images."""
    if jax.process_count() > 1:  # the others wait for this one's: nobody can save
        raise RunFailed(
            f"told to stop by {stopping.signal_name()} after step {step}, but the next images"
            f" were not read for {multihost.READ_LIMIT:.0f} s: the same command goes on from step"
            f" {saved}"
        )
    if step > saved:
        _save(run, reporter, step, {})
    raise _stopped(run, step)


def _stopped(run: Run, step: int) -> Stopped:
    """Once everything is saved: what the user is told."""
    run.store.wait()
    return Stopped(
        f"stopped after step {step} of {run.lengths.total} and saved: run the same command to go"
        " on from there",
        code=stopping.exit_code(default=signal.SIGTERM),
    )


def _nothing_to_save(start: int) -> str:
    kept = f"nothing new to save; the same command goes on from step {start}"
    return f"interrupted before step {start + 1}: {kept if start else 'nothing to save'}"


def _at_once(run: Run) -> str:
    kept = saved_steps(run.store.path.parent)
    after = f"goes on from step {kept[-1]}" if kept else "begins anew: nothing was saved"
    return f"ended at once, without saving: the same command {after}"
