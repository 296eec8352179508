"""google-research/big_vision: its model, loss and optimizer, in the order of its train.py."""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from benchmarks.twins import wire
from benchmarks.twins.peers import jax_side

jax_side.leave_out("tensorflow", "tensorflow.io", "tensorflow.io.gfile")

from big_vision import optax as bv_optax  # type: ignore[import-not-found]  # noqa: E402
from big_vision import utils  # noqa: E402
from big_vision.models import vit  # type: ignore[import-not-found]  # noqa: E402


class BigVision:
    """A ViT in pretraining."""

    def __init__(self, settings: dict[str, Any], params: wire.Arrays) -> None:
        self.classes = settings["classes"]
        side = settings["patch_size"]
        model = vit.Model(
            self.classes,
            patch_size=(side, side),
            width=settings["width"],
            depth=settings["depth"],
            mlp_dim=settings["mlp_dim"],
            num_heads=settings["heads"],
        )
        config = ml_collections.ConfigDict(
            {
                "optax_name": "big_vision.scale_by_adafactor",
                "optax": {"beta2_cap": settings["b2_cap"]},
                "grad_clip_norm": settings["clip_norm"],
                "lr": settings["learning_rate"],
                "wd": settings["wd"],
                "schedule": {
                    "decay_type": "rsqrt",
                    "timescale": settings["timescale"],
                    "warmup_steps": settings["warmup"],
                    "cooldown_steps": settings["cooldown"],
                },
            }
        )
        self.weights = jax_side.nested(params)["params"]
        lengths = {"total_steps": settings["steps"], "batch_size": 1, "data_size": 1}
        optimizer, _ = bv_optax.make(config, self.weights, sched_kw=lengths)
        self.state = optimizer.init(self.weights)

        def update(weights: Any, state: Any, images: Any, labels: Any) -> Any:
            def loss_of(weights: Any) -> jax.Array:
                logits, _ = model.apply({"params": weights}, images, train=True)
                return utils.sigmoid_xent(logits=logits, labels=labels)

            loss, grads = jax.value_and_grad(loss_of)(weights)
            updates, state = optimizer.update(grads, state, weights)
            return optax.apply_updates(weights, updates), state, loss, optax.global_norm(grads)

        self.update = jax.jit(update)

    def step(self, batch: wire.Arrays) -> tuple[float, float]:
        images = jax_side.images(batch["image"])
        labels = np.eye(self.classes, dtype=np.float32)[batch["label"]]
        self.weights, self.state, loss, norm = self.update(self.weights, self.state, images, labels)
        return float(loss), float(norm)

    def params(self) -> Mapping[str, np.ndarray]:
        return jax_side.flat({"params": self.weights})


if __name__ == "__main__":
    wire.serve(BigVision)
