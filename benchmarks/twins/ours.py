"""This project's side of a twin: the production step, its batches, and its random draws."""

import contextlib
import dataclasses
import unittest.mock
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from benchmarks.twins.contract import Batch, Frozen, Twin, base_config
from benchmarks.twins.initial import Params, initial
from vit_jax.checkpoints import layouts, surgery
from vit_jax.config import Config, resolve
from vit_jax.data import opening, pipeline, preprocess
from vit_jax.data.record import DataFacts, Source
from vit_jax.models import dropping, layers
from vit_jax.parallel.mesh import make_mesh, to_global
from vit_jax.training import frozen, state
from vit_jax.training.design import Design, design


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What the trajectories of our side share."""

    config: Config
    source: Source
    models: Mapping[str, frozen.Loaded]  # frozen models

    @property
    def facts(self) -> DataFacts:
        names = self.source.class_names if "label" in self.config.objective.inputs else ()
        return DataFacts(train_size=len(self.source), class_names=names, num_classes=len(names))

    def design(self) -> Design:
        """A design of its own, so that its step is traced by itself."""
        mesh = make_mesh(self.config.mesh, jax.devices()[:1])
        return design(self.config, self.facts, mesh, frozen=self.models)

    def frozen(self, plan: Design) -> Frozen:
        """The parameters of the frozen models, on the device."""
        return frozen.place(self.models, plan.frozen)

    def batches(self, plan: Design) -> Iterator[Batch]:
        """The batches of all steps, as arrays of the host."""
        transform = preprocess.train_transform(
            plan.config.data, size=plan.options.image_size, channels=plan.options.channels
        )
        batches = pipeline.train_batches(
            self.source,
            transform,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            num_steps=plan.lengths.total,
            threads=1,
            labelled="label" in plan.objective.inputs,
        )
        with batches:
            for batch in batches:
                yield {name: np.asarray(batch[name]) for name in plan.objective.inputs}


def open_run(twin: Twin, *, steps: int, data: str = "", folder: str = "") -> Run:
    """The config and the data of a twin. Files of frozen models are written to `folder`."""
    recipe = base_config(steps=steps, size=32 if data else 28, data=data)
    twin.recipe(recipe)
    twin.prepare(recipe, folder)
    config = resolve(recipe)
    source = opening.open_train(config.data)
    run = Run(config=config, source=source, models={})
    return dataclasses.replace(run, models=frozen.read(config.objective, run.facts))


class Ours:
    """A training run of this project, a step at a time."""

    def __init__(self, run: Run, *, rows: np.ndarray | None = None) -> None:
        """With `rows`, every batch has its rows in this order, and so have its draws."""
        self.plan = run.design()
        self._rows = rows
        self._frozen = run.frozen(self.plan)
        self._state = state.create(
            self.plan.options,
            self.plan.optimizer,
            abstract=self.plan.abstract,
            seed=0,
            params=initial(self.plan.options, seed=run.config.seed),
        )

    def step(self, batch: Batch) -> tuple[float, float]:
        """Trains on a batch of the pipeline; returns the loss and the norm of the gradient."""
        with _permuted_drop_path(self._rows):
            self._state, metrics = self.plan.step(
                self._state, on_device(self.plan, batch), self._frozen
            )
        return float(metrics["loss"]), float(metrics["grad_norm"])

    def params(self) -> Params:
        nested = jax.device_get(self._state["params"])
        flat = traverse_util.flatten_dict(nested, sep="/")
        return {path: np.asarray(array) for path, array in flat.items()}


def on_device(plan: Design, batch: Batch) -> dict[str, jax.Array]:
    return to_global(dict(batch), plan.mesh, batch_size=plan.config.batch_size)


def renamed(plan: Design, layout: str, params: Mapping[str, np.ndarray]) -> Params:
    """The parameters under the names of a layout."""
    entries = layouts.writer(plan.options, layout).entries(plan.options)
    return layouts.table.write(entries, params)


def restored(plan: Design, layout: str, params: Mapping[str, np.ndarray]) -> Params:
    """The inverse of `renamed`: parameters by our paths."""
    entries = layouts.writer(plan.options, layout).entries(plan.options)
    return layouts.table.read(entries, params, surgery.shapes(plan.options))


def symmetric_rows(batch: int) -> np.ndarray:
    """An order of the rows that leaves pure rounding.

    Samples keep their partner, which is at the mirrored row, and the first row stays: a mixture of
    the batch takes its draw from it.
    """
    rng = np.random.default_rng(1)
    half = np.concatenate([[0], 1 + rng.permutation(batch // 2 - 1)])
    turned = rng.random(len(half)) < 0.5
    turned[0] = False
    half = np.where(turned, batch - 1 - half, half)
    return np.concatenate([half, batch - 1 - half[::-1]])


@contextlib.contextmanager
def _permuted_drop_path(rows: np.ndarray | None) -> Iterator[None]:
    """Drops the same samples in a batch whose rows are in this order.

    The step draws what is dropped by row, not by sample.
    """
    if rows is None:
        yield
        return
    original, back = dropping.drop_path, np.argsort(rows)

    def drop_path(x: jax.Array, **arguments: Any) -> jax.Array:
        return original(x[back], **arguments)[rows]

    with unittest.mock.patch.object(layers, "drop_path", drop_path):
        yield
