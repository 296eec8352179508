"""`benchmark checkpoint`: how long a save stops training, and how long it and a restore take."""

import concurrent.futures
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from etils import epath

from vit_jax import stopping
from vit_jax.benchmark.report import Measured
from vit_jax.benchmark.samples import Quantity, once
from vit_jax.benchmark.training import Training, prepared
from vit_jax.checkpoints import s3
from vit_jax.checkpoints.store import Store
from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.parallel import multihost

FOLDER = "benchmark-checkpoints"  # below the folder that the user names; removed at the end
_POLL = 0.002  # seconds
_IN_MEMORY = (
    "restore read files that were written just before, which the system may still have had in"
    " memory: after a restart of the machine it takes longer"
)


def measure(
    config: Config,
    facts: DataFacts,
    *,
    workdir: str | os.PathLike[str],
    warmup: int,
    steps: int,
    saves: int,
    say: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Trains on a synthetic batch; saves in the background and restores, `saves` times each.

    `steps` are measured before the first save. What is written to `workdir` is removed. Raises
    ValueError if the config cannot be run or the folder cannot be used, RunFailed if a save fails.
    """
    with _folder(workdir) as folder:
        training = prepared(config, facts, say=say)
        training.run(warmup)
        alone = training.run(steps)
        with Store(folder, config.checkpoint) as store:
            found = [_save(training, store) for _ in range(saves)]
            written = _bytes(store.path / str(store.latest))
            restored = [_restore(training, store) for _ in range(saves)]
    leaves = jax.tree.leaves(training.design.abstract)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return Measured(
        measured={
            "stall": _each([one.stall for one in found]),
            "save": _each([one.total for one in found]),
            "restore": _each(restored),
            "step": Quantity(unit="s", rounds=(tuple(alone),)),
            "step_while_saving": Quantity(unit="s", rounds=tuple(one.steps for one in found)),
            "state": once(held, unit="bytes", exact=True),
            "written": once(written, unit="bytes", exact=True),
        },
        results=_cost(found, alone, every=training.design.lengths.checkpoint_every),
        notes=[_IN_MEMORY],
    )


class _Save(NamedTuple):
    stall: float  # seconds until training could go on
    total: float  # seconds until the checkpoint was complete
    steps: tuple[float, ...]  # seconds of the steps meanwhile, at least one


def _save(training: Training, store: Store) -> _Save:
    """Saves as a run does: it waits for the last step, and trains on while files are written."""
    step = int(training.state["step"])
    with concurrent.futures.ThreadPoolExecutor(1) as watching:
        began = time.perf_counter()
        store.save(step, training.state, {})
        stall = time.perf_counter() - began
        ended = watching.submit(_end_of_save, store)
        steps = training.run(1)
        while multihost.agree(not ended.done()):
            steps += training.run(1)
    store.wait()
    return _Save(stall, ended.result() - began, tuple(steps))


def _end_of_save(store: Store) -> float:
    while store.is_saving:
        time.sleep(_POLL)
    return time.perf_counter()


def _restore(training: Training, store: Store) -> float:
    """The seconds until the last checkpoint is on the devices, where nothing else is."""
    training.state = {}
    assert store.latest is not None, "it was saved"
    began = time.perf_counter()
    training.state = store.restore(training.design.abstract, step=store.latest)
    jax.block_until_ready(training.state)
    return time.perf_counter() - began


def _cost(found: list[_Save], alone: list[float], *, every: int) -> dict[str, float | int]:
    """The seconds that a save costs a run: the stall, and what the steps meanwhile take longer."""
    usual = statistics.median(alone)
    lost = statistics.median(
        one.stall + max(0.0, sum(one.steps) - usual * len(one.steps)) for one in found
    )
    result: dict[str, float | int] = {"seconds_lost_per_save": lost, "saved_every_steps": every}
    return result | ({"share_of_time_lost": lost / (every * usual + lost)} if every else {})


def _each(seconds: list[float]) -> Quantity:
    return Quantity(unit="s", rounds=tuple((value,) for value in seconds))


def _bytes(folder: epath.Path) -> int:
    """The bytes of all files below a folder."""
    sizes = 0
    for path in folder.iterdir():
        sizes += _bytes(path) if path.is_dir() else path.stat().length
    return sizes


@contextlib.contextmanager
def _folder(workdir: str | os.PathLike[str]) -> Iterator[epath.Path]:
    """A new folder below `workdir`, which is removed at the end, with `workdir` if that is new.

    Raises ValueError if it exists or cannot be made.
    """
    parent = s3.folder(workdir)
    folder, is_new = parent / FOLDER, not parent.exists()

    def make() -> None:
        if folder.exists():
            raise ValueError(f"{folder} exists, from a benchmark that was killed: remove it")
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise ValueError(f"{folder} cannot be made: {error.strerror or error}") from error

    def remove() -> None:
        with contextlib.suppress(OSError):
            folder.rmtree()
            if is_new:
                parent.rmdir()

    multihost.primary_first("benchmark folder", make)
    with contextlib.ExitStack() as stack:
        if multihost.is_primary():
            stack.callback(remove)
            stack.enter_context(stopping.cleanup(remove))
        yield folder
