"""A compiled training step with its state, and a synthetic batch that is on the devices."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.parallel import agreement
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.planning import designed
from vit_jax.training import frozen, memory, state
from vit_jax.training.design import Design

_HIT = "/jax/compilation_cache/cache_hits"


class Training:
    """The step of a config as training runs it: the state is donated, the batch stays."""

    def __init__(
        self,
        config: Config,
        facts: DataFacts,
        *,
        devices: Sequence[jax.Device] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Compiles the step for `devices` (unset: all) and runs nothing.

        `say` gets a line of text before what may take minutes.

        Raises ValueError if the config cannot be run, RunFailed if the memory is too small.
        """
        self.config, self.mesh = config, mesh_lib.make_mesh(config.mesh, devices)
        models = frozen.read(config.objective, facts)
        self.design = designed.of_config(config, facts, self.mesh, models=models)
        number = f"{self.devices} devices" if self.devices > 1 else "1 device"
        say(f"compiling the step for {number}; this may take minutes")
        with self._running():
            self._batch = synthetic(self.design, self.mesh, classes=facts.num_classes)
            self._frozen = frozen.place(models, self.design.frozen)
            self.state = state.create(
                self.design.options, self.design.optimizer, abstract=self.design.abstract, seed=0
            )
            began = time.perf_counter()
            lowered = self.design.step.lower(self.state, self._batch, self._frozen)
            self.trace_seconds = time.perf_counter() - began
            began = time.perf_counter()
            with _hits() as hits:
                self.program = lowered.compile()
            self.compile_seconds = time.perf_counter() - began
            self.cached = bool(hits)  # the program came from the cache of an earlier process

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        with memory.explained(self.config), jax.set_mesh(self.mesh):
            yield

    @property
    def devices(self) -> int:
        return self.mesh.size

    def run(self, steps: int) -> list[float]:
        """Runs steps and returns the seconds of each, between the ends of two steps in a row.

        As in training, a step is dispatched before the step before it has ended, so the devices
        never wait for the host. The first interval begins when one more step, not counted, ends.
        """
        ends: list[float] = []
        with self._running():
            waiting = self._dispatch()
            for _ in range(steps):
                following = self._dispatch()
                jax.block_until_ready(waiting)
                ends.append(time.perf_counter())
                waiting = following
            jax.block_until_ready((waiting, self.state))
            ends.append(time.perf_counter())
        return [end - begin for begin, end in zip(ends, ends[1:], strict=False)]

    def _dispatch(self) -> dict[str, jax.Array]:
        self.state, metrics = self.program(self.state, self._batch, self._frozen)
        return metrics


def prepared(config: Config, facts: DataFacts, *, say: Callable[[str], None]) -> Training:
    """The step for all devices, compiled on all processes. Errors: `Training`.

    The devices of a process do not wait for another process that is still compiling.
    """
    with agreement.Meeting():
        return Training(config, facts, say=say)


def synthetic(plan: Design, mesh: Mesh, *, classes: int) -> dict[str, jax.Array]:
    """A batch of random images and labels, made on the devices."""

    def make(shape: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
        if jnp.issubdtype(shape.dtype, jnp.floating):
            return jax.random.normal(key, shape.shape, shape.dtype)
        # A multi-hot label of several classes has bytes too, but of 0 and 1.
        is_image = shape.dtype == jnp.uint8 and len(shape.shape) == 4
        most = 256 if is_image else 2 if shape.dtype == jnp.uint8 else max(classes, 1)
        return jax.random.randint(key, shape.shape, 0, most, jnp.int32).astype(shape.dtype)

    def batch() -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(0), len(plan.batch))
        return {
            name: make(shape, key)
            for (name, shape), key in zip(plan.batch.items(), keys, strict=True)
        }

    shardings = {name: shape.sharding for name, shape in plan.batch.items()}
    return jax.jit(batch, out_shardings=shardings)()


@contextlib.contextmanager
def _hits() -> Iterator[list[str]]:
    """Within, the names of the programs' cache hits are added to the list."""
    found: list[str] = []

    def listen(event: str, **_: Any) -> None:
        if event == _HIT:
            found.append(event)

    jax.monitoring.register_event_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(listen)
