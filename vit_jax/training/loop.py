"""The loop of a run: steps, evaluations and checkpoints, in an order that loses nothing."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

import jax

from vit_jax import stopping
from vit_jax.checkpoints.store import saved_steps
from vit_jax.config import Config, to_fields
from vit_jax.errors import Interrupted, NotReady, RunFailed, Stopped
from vit_jax.parallel import multihost
from vit_jax.parallel.mesh import to_global
from vit_jax.training import memory, reports
from vit_jax.training import metrics as metrics_lib
from vit_jax.training.clock import Clock
from vit_jax.training.metrics import MetricWriter
from vit_jax.training.profile import Trace
from vit_jax.training.progress import Progress
from vit_jax.training.reporting import Reporter, due
from vit_jax.training.run import Run, prepare
from vit_jax.training.sessions import Session
from vit_jax.training.writers import Calls, Open


def train(
    config: Config,
    *,
    workdir: str | os.PathLike[str],
    notes: list[str],
    command: str = "",
    profile: bool = False,
    callbacks: Sequence[Callable[[int, Mapping[str, float]], object]] = (),
) -> dict[str, float]:
    """Trains the run in `workdir`, new or resumed; returns the metrics of its last evaluation.

    `notes` about the config are printed when the run begins, and `command` is what trains it, for
    its report. `callbacks` are called with each line of metrics.jsonl. Raises ValueError, before
    anything is written, if the config cannot be run; Diverged if the loss is not finite; Stopped
    after SIGINT, SIGTERM or SIGHUP. However a run ends, the same call continues from its last
    checkpoint, with the same bits as a run that was not interrupted.
    """
    for kind in config.writers:
        kind.check()
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

        def others() -> list[Open]:
            fields = to_fields(config)
            opened = [kind.open(workdir, config=fields) for kind in config.writers]
            return [*opened, *map(Calls, callbacks)]

        writer = stack.enter_context(MetricWriter(workdir, start_step=start, others=others))
        for line in writer.messages:
            progress.say(line)
        mesh, clock = dict(run.design.mesh.shape), Clock(step=start)
        with metrics_lib.keeping(workdir, begins=True):
            opened = Session(workdir, step=start, command=command, mesh=mesh, clock=clock)
        session = stack.enter_context(opened)
        with clock.of("data"):
            run.read(stack)
        clock.restart(start)  # features that are computed once do not count as waiting
        reporter = Reporter(run, writer, progress, clock)
        metrics = _late_evaluation(run, reporter, start) if missing else {}
        trace = stack.enter_context(Trace(workdir, start, total)) if profile else None
        metrics |= _steps(run, reporter, trace, start, stack)
        with clock.of("checkpoints"):
            run.store.wait()
        session.end()
        if config.report and multihost.is_primary():
            progress.say(reports.at_the_end(workdir))
        return metrics


def _steps(
    run: Run, reporter: Reporter, trace: Trace | None, start: int, stack: contextlib.ExitStack
) -> dict[str, float]:
    """Runs the steps after `start` to the end; returns the last metrics of each evaluator."""
    total, batch_size, clock = run.lengths.total, run.config.batch_size, reporter.clock
    metrics: dict[str, float] = {}
    evaluated: dict[str, float] = {}  # what the evaluations after the last step gave
    saved = start
    for done in range(start + 1, total + 1):
        if trace:
            trace.before(done)
        try:
            with clock.of("data"):
                batch = next(run.batches)
        except Interrupted:
            _give_up(run, reporter, done - 1, evaluated, saved=saved)
        inputs = {name: batch[name] for name in run.design.batch}
        placed = to_global(inputs, run.design.mesh, batch_size=batch_size)
        compiles = done == start + 1 or done - 1 in run.design.stages.ends
        with clock.of("compilation") if compiles else contextlib.nullcontext():
            run.state, values = run.design.step(run.state, placed, run.frozen)
        if done == start + 1:  # the step is compiled, and there is something to save
            stack.enter_context(stopping.saving(lambda: _ended_at_once(run)))
        # The values of the step before are read after this step was dispatched: the device never
        # waits for the host.
        reporter.push(done, values)
        run.store.check()
        if compiles:
            reporter.restart(done)  # what else a first call takes is not measured
        last, stop = done == total, multihost.told_to_stop(done)
        evaluated = {}
        if not stop and (names := _evaluators_due(run, done)):
            reporter.settle()
            try:
                with clock.of("evaluations"):
                    evaluated = run.evaluations(run.state, run.frozen, names=names)
                metrics |= evaluated
                reporter.evaluated(done, evaluated)
            except Interrupted as error:  # the resumed run evaluates first
                if isinstance(error, NotReady):
                    _check_alone(done, saved=saved)
                stop = True
        if last or stop or due(done, run.lengths.checkpoint_every) or _best(run, evaluated):
            _save(run, reporter, done, evaluated)
            saved = done
            reporter.restart(done)
        elif evaluated:
            reporter.restart(done)
        if stop:
            raise _stopped(run, done)
    return metrics


def _save(run: Run, reporter: Reporter, step: int, evaluated: dict[str, float]) -> None:
    """Starts saving the state after a step."""
    reporter.settle()  # a state that is not finite is never saved
    with _writing(run, reporter, step):
        run.store.save(step, run.state, evaluated)


@contextlib.contextmanager
def _writing(run: Run, reporter: Reporter, step: int) -> Iterator[None]:
    """Within, a checkpoint is written, of a run that has lost neither its lease nor a line."""
    if run.lease:
        run.lease.check(now=True)
    with reporter.clock.of("checkpoints"):
        reporter.flush(step)  # a run that resumes from here has lost nothing of what it reported
        yield


def _best(run: Run, evaluated: dict[str, float]) -> bool:
    """Whether to save because this evaluation is the best so far."""
    kept = run.config.checkpoint.keep_best > 0
    return kept and bool(evaluated) and run.store.is_best(evaluated)


def _evaluation_is_missing(run: Run, start: int) -> bool:
    """Whether the run was stopped before or in the evaluation that was due after step `start`."""
    names = start > 0 and _evaluators_due(run, start)
    return bool(names) and not run.store.is_evaluated(start)


def _evaluators_due(run: Run, step: int) -> list[str]:
    """The names of the evaluators that measure the state after this step: all at the end."""
    every = run.lengths.evaluate_every
    return [name for name in every if step == run.lengths.total or due(step, every[name])]


def _late_evaluation(run: Run, reporter: Reporter, step: int) -> dict[str, float]:
    """Measures the state that the run resumes from, and adds the metrics to its checkpoint.

    A kill loses nothing: without the metrics, the next start measures again.
    """
    with reporter.clock.of("evaluations"):
        metrics = run.evaluations(run.state, run.frozen, names=_evaluators_due(run, step))
    reporter.evaluated(step, metrics)
    with stopping.saving(lambda: _ended_at_once(run)):
        with _writing(run, reporter, step):
            run.store.add_metrics(step, metrics)
        if multihost.agree(stopping.requested()):
            raise _stopped(run, step)
    return metrics


def _give_up(
    run: Run, reporter: Reporter, step: int, evaluated: dict[str, float], *, saved: int
) -> NoReturn:
    """Ends a run that was told to stop while it waited for images.

    `evaluated` is what the evaluations after this step gave.
    """
    _check_alone(step, saved=saved)
    if step > saved:
        _save(run, reporter, step, evaluated)
    raise _stopped(run, step)


def _check_alone(step: int, *, saved: int) -> None:
    """Raises RunFailed if there are other processes: they wait for this one, so none can save."""
    if jax.process_count() > 1:
        kept = f"continues from step {saved}" if saved else "begins again: nothing was saved"
        raise RunFailed(
            f"told to stop by {stopping.signal_name()} after step {step}, but this process waited"
            f" for its next images for {multihost.READ_LIMIT:.0f} s: the same command {kept}"
        )


def _stopped(run: Run, step: int) -> Stopped:
    """Waits until everything is saved; returns what to raise."""
    run.store.wait()
    return Stopped(
        f"stopped after step {step} of {run.lengths.total} and saved: run the same command to"
        " continue from there",
        code=stopping.exit_code(default=signal.SIGTERM),
    )


def _nothing_to_save(start: int) -> str:
    kept = f"nothing new to save; the same command continues from step {start}"
    return f"interrupted before step {start + 1}: {kept if start else 'nothing to save'}"


def _ended_at_once(run: Run) -> str:
    kept = saved_steps(run.store.path.parent)
    after = f"continues from step {kept[-1]}" if kept else "begins again: nothing was saved"
    return f"ended at once, without saving: the same command {after}"
