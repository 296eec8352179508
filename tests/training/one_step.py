"""A tiny model's training step, compiled on a mesh, for tests of what a step does."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from tests.models import tiny
from vit_jax.config import Config, MeshConfig, default_config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.parallel.mesh import AXES, make_mesh, to_global
from vit_jax.training import setup, state
from vit_jax.training.design import design

BATCH = 32
MODEL = {"num_classes": 16, "depth": 2}
MESHES = {
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(data=1, fsdp=8),
    "all": MeshConfig(data=2, fsdp=2, tensor=2),
}


def make_config(name: str, *, fields: dict[str, Any] | None = None, **optimizer: Any) -> Config:
    """With flip, mixup, decay, clipping and an average; `fields` such as `{"ema": 0.0}`."""
    config = default_config()
    config.model.name = "Ti/16"
    config.schedule.decay = "constant"
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    config.augment = ("flip", "value_range", {"name": "mixup", "alpha": 0.2})
    config.ema = 0.9
    config.optimizer.name = name
    config.optimizer.learning_rate = {"sgd": 0.1, "adamw": 1e-3}[name]
    config.optimizer.weight_decay = 0.1
    # The first step of Adam is g / (|g| + eps): where the gradient is rounding noise, as that of
    # the bias of the keys, which the softmax does not see, an eps of 1e-8 makes whole steps of it.
    if name == "adamw":
        config.optimizer.eps = 1e-6
    config.optimizer.update(optimizer)
    config.update_from_flattened_dict(fields or {})
    return resolve(config)


def mesh_of(name: str) -> Mesh:
    if name != "one":
        return make_mesh(MESHES[name])
    auto = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh((1, 1, 1), AXES, axis_types=auto, devices=jax.devices()[:1])


class Training:
    """A state and its compiled step; `run` takes a step on a fixed batch."""

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        *,
        batch: dict[str, np.ndarray] | None = None,
        **model: Any,
    ) -> None:
        batch = batch or host_batch()
        config = dataclasses.replace(config, batch_size=len(batch["image"]))
        options = tiny.options(**(MODEL | model))
        start = setup.Start(options=options, preprocessing=Preprocessing(image_size=(16, 24)))
        plan = design(config, DataFacts(train_size=1000, num_classes=16), mesh, start=start)
        self.graphdef, self.abstract = plan.graphdef, plan.abstract
        self.state = state.create(
            options,
            plan.optimizer,
            abstract=self.abstract,
            seed=config.seed,
            params=tiny.params(options),
        )
        self.batch = to_global(batch, mesh, batch_size=config.batch_size)
        with jax.set_mesh(mesh):
            self.step = plan.step.lower(self.state, self.batch, {}).compile()

    def run(self) -> dict[str, float]:
        self.state, metrics = self.step(self.state, self.batch, {})
        return {name: float(value) for name, value in metrics.items()}


def host_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (BATCH, 16, 24, 3), np.uint8),
        "label": rng.integers(0, 16, BATCH, np.int32),
        "sample_index": np.stack([np.zeros(BATCH), np.arange(BATCH)], 1).astype(np.uint32),
    }
