"""A tiny model's training step, compiled on a mesh, for tests of what a step does."""

from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from tests.models import tiny
from vit_jax.config import Config, MeshConfig, default_config, resolve
from vit_jax.parallel.mesh import AXES, make_mesh, to_global
from vit_jax.training import optimizer, state, step

BATCH = 32
MODEL = {"num_classes": 16, "depth": 2}
MESHES = {
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(data=1, fsdp=8),
    "all": MeshConfig(data=2, fsdp=2, tensor=2),
}


def make_config(name: str, *, fields: dict[str, Any] | None = None, **optimizer: Any) -> Config:
    """With flip, mixup, decay, clipping and an average; `fields` such as `{"data.flip": False}`."""
    config = default_config()
    config.model.name = "Ti/16"
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    config.data.mixup = 0.2
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
        schedule: optax.Schedule | None = None,
        ema_begins: bool = True,
        **model: Any,
    ) -> None:
        options = tiny.options(**MODEL, **model)
        self.graphdef, shapes = state.abstract_params(options)
        schedule = schedule or optax.constant_schedule(config.optimizer.learning_rate)
        rule = optimizer.make_optimizer(config.optimizer, schedule, shapes)
        self.abstract = state.abstract_state(options, rule, average=True, mesh=mesh)
        self.state = state.create(
            options, rule, abstract=self.abstract, seed=config.seed, params=tiny.params(options)
        )
        prepare, loss = step.classification_step_parts(config, num_classes=16)
        train_step = step.make_train_step(
            self.graphdef,
            prepare=prepare,
            loss=loss,
            optimizer=rule,
            schedule=schedule,
            abstract=self.abstract,
            accumulate=config.optimizer.accumulate,
            ema=config.ema,
            ema_begins=ema_begins,
        )
        batch = batch or host_batch()
        self.batch = to_global(batch, mesh, batch_size=len(batch["image"]))
        with jax.set_mesh(mesh):
            self.step = train_step.lower(self.state, self.batch).compile()

    def run(self) -> dict[str, float]:
        self.state, metrics = self.step(self.state, self.batch)
        return {name: float(value) for name, value in metrics.items()}


def host_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (BATCH, 16, 24, 3), np.uint8),
        "label": rng.integers(0, 16, BATCH, np.int32),
        "position": np.stack([np.zeros(BATCH), np.arange(BATCH)], 1).astype(np.uint32),
    }
