"""A run's evaluation: of a state while it trains, or of one of its checkpoints."""

import logging
import os
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from vit_jax.checkpoints import classes, fallback, run_folder
from vit_jax.checkpoints import store as store_lib
from vit_jax.config import Config, DataConfig, MeshConfig
from vit_jax.data import opening, pipeline, preprocess
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import Source
from vit_jax.data.relabelled import Relabelled
from vit_jax.models import zoo
from vit_jax.models.zoo import Options
from vit_jax.parallel import agreement, multihost, rules
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import datasets, evaluation, facts, memory, run_config, setup, state


class Evaluator:
    """Measures a state on the held-out split, its average too where there is one."""

    def __init__(
        self,
        config: Config,
        *,
        mesh: Mesh,
        source: Source,
        class_names: tuple[str, ...],
        num_classes: int = 0,
    ) -> None:
        """Of a model of these classes, of which the number is enough, on the images of `source`.

        Labels are matched by name; `note` says what was assumed. Raises ValueError where the
        classes are others.
        """
        self.config, self.mesh = config, mesh
        # Rounded up to what the mesh divides: the result does not depend on it.
        wanted, parts = config.eval_batch_size or config.batch_size, mesh_lib.batch_parts(mesh)
        self.batch_size = -(-wanted // parts) * parts
        num_classes = num_classes or len(class_names)
        match = classes.match(
            class_names,
            source.class_names,
            their_count=num_classes,
            our_count=len(source.class_names),
        )
        if not match.kept:
            raise ValueError(
                f"{source.name} has the classes {classes.said(source.class_names)}, the model"
                f" {classes.said(class_names, num_classes)}: train and evaluate on the same classes"
                f" ({match.note})"
            )
        self.source: Source = source
        if match.kind == "reordered":
            self.source = Relabelled(source, match.rows)
        by_name = "labels are matched by name: " if match.kind == "reordered" else ""
        self.note = by_name + match.note
        # Of all evaluations of a run: a broken image is reported once.
        self.bad = BadImages(size=len(self.source), max_bad=config.data.max_bad)
        self._step: evaluation.EvalStep | None = None

    def bind(self, graphdef: nnx.GraphDef, options: Options, data: DataConfig) -> "Evaluator":
        """Fixes the model and its value range; to be called before the first evaluation."""
        self._transform = preprocess.eval_transform(
            data, size=options.image_size, channels=options.channels
        )
        self._step = evaluation.make_eval_step(
            graphdef,
            num_classes=options.num_classes,
            loss=self.config.objective.loss,
            mean=data.mean,
            std=data.std,
        )
        return self

    def __call__(self, state: state.State) -> dict[str, float]:
        """top1, top5, loss, count; with `ema_` before the names for the average.

        Raises Interrupted where the process was told to stop.
        """
        with memory.explained(self.config, evaluation=True):
            return self._measure_all(state)

    def _measure_all(self, state: state.State) -> dict[str, float]:
        metrics = self._measure(state["params"])
        if "ema" in state:
            average = self._measure(state["ema"])
            for name in evaluation.COUNTS:
                average.pop(name, None)
            metrics |= {f"ema_{name}": value for name, value in average.items()}
        return metrics

    def _measure(self, params: Any) -> dict[str, float]:
        assert self._step is not None, "bind comes first"
        data = self.config.data
        with pipeline.eval_batches(
            self.source,
            self._transform,
            batch_size=self.batch_size,
            rows=mesh_lib.local_rows(self.mesh, self.batch_size),
            threads=data.threads,
            prefetch=data.prefetch,
            bad=self.bad,
            interrupted=multihost.give_up_reading,
        ) as batches:
            return evaluation.evaluate(
                self._step,
                params,
                batches,
                mesh=self.mesh,
                batch_size=self.batch_size,
                size=len(self.source),
                stop=multihost.told_to_stop,
            )


def evaluate(
    config: Config, workdir: str | os.PathLike[str], *, which: store_lib.Which
) -> tuple[int, dict[str, float]]:
    """Measures a checkpoint of the run in `workdir`: its step, and what `Evaluator` says.

    On the run's mesh, or, where that does not fit the devices at hand, with all of them as `data`.
    """
    agreement.compare(facts.of_start(config, workdir))
    card = run_folder.read_card(workdir)
    zoo.check_head(card.options)
    try:
        mesh = mesh_lib.make_mesh(config.mesh)
    except ValueError:
        mesh = mesh_lib.make_mesh(MeshConfig())
    with agreement.Meeting() as meeting:
        source = opening.open_eval(config.data)
        evaluator = Evaluator(
            config,
            mesh=mesh,
            source=source,
            class_names=card.class_names,
            num_classes=card.options.num_classes,
        )
        identity = source.identity()
        meeting.end(facts.of_data({"eval": identity}))
    for note in (evaluator.note, datasets.evaluated_otherwise(workdir, source.name, identity)):
        if note and multihost.is_primary():
            logging.getLogger(__name__).warning("%s: %s", os.fspath(workdir), note)
    graphdef, shapes = state.abstract_params(card.options)
    names = ("params", "ema") if run_config.read_config(workdir).ema else ("params",)
    placed = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        shapes,
        rules.tree_shardings(shapes, mesh),
    )
    with store_lib.Store(workdir, config.checkpoint, read_only=True) as store:
        found = fallback.restore(store, dict.fromkeys(names, placed), which, substitute=True)
    if multihost.is_primary():
        for note in found.notes:
            logging.getLogger(__name__).warning("%s: %s", os.fspath(workdir), note)
    with jax.set_mesh(mesh):
        data = setup.with_value_range(config, card.preprocessing).data
        return found.step, evaluator.bind(graphdef, card.options, data)(found.state)
