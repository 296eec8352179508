"""google-research/vision_transformer: its model, and the update of its fine-tuning.

Its package has the name of ours, which is why this process must not find ours first.
"""

from collections.abc import Mapping
from typing import Any

import flax.jax_utils
import jax
import numpy as np
import optax

from benchmarks.twins import wire
from benchmarks.twins.peers import jax_side

jax_side.leave_out(
    *("tensorflow", "clu", "clu.metric_writers", "clu.periodic_actions"),
    *("vit_jax.checkpoint", "vit_jax.input_pipeline", "vit_jax.models"),
)

from vit_jax import models_vit, train, utils  # noqa: E402

_RENAMES = {
    "LayerNorm_2": "LayerNorm_1",
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
    "MlpBlock_3": "MlpBlock_0",
}


class GoogleVit:
    """A ViT in fine-tuning."""

    def __init__(self, settings: dict[str, Any], params: wire.Arrays) -> None:
        self.classes = settings["classes"]
        side = settings["patch_size"]
        model = models_vit.VisionTransformer(
            num_classes=self.classes,
            patches=_Sized((side, side)),
            hidden_size=settings["width"],
            transformer={
                "num_layers": settings["depth"],
                "mlp_dim": settings["mlp_dim"],
                "num_heads": settings["heads"],
                "dropout_rate": 0.0,
                "attention_dropout_rate": 0.0,
            },
        )
        rate = utils.create_learning_rate_schedule(
            settings["steps"], settings["learning_rate"], "cosine", settings["warmup"]
        )
        optimizer = optax.chain(
            jax_side.recorded_norm(),
            optax.clip_by_global_norm(settings["clip_norm"]),
            optax.sgd(rate, momentum=0.9, accumulator_dtype="bfloat16"),
        )
        # Released files name the modules of a block as before Linen.
        self.names = {linen_name(name): name for name in params}
        first = jax_side.nested({new: params[old] for new, old in self.names.items()})
        make_update = train.make_update_fn  # type: ignore[attr-defined]  # of their vit_jax
        self.update = make_update(apply_fn=model.apply, accum_steps=1, tx=optimizer)
        self.state = flax.jax_utils.replicate((first, optimizer.init(first)))
        self.key = flax.jax_utils.replicate(jax.random.PRNGKey(0))

    def step(self, batch: wire.Arrays) -> tuple[float, float]:
        labels = np.eye(self.classes, dtype=np.float32)[batch["label"]]
        arrays = {"image": jax_side.images(batch["image"])[None], "label": labels[None]}
        *state, loss, self.key = self.update(*self.state, arrays, self.key)
        self.state = tuple(state)
        return float(loss[0]), float(self.state[1][0][0])

    def params(self) -> Mapping[str, np.ndarray]:
        found = jax_side.flat(flax.jax_utils.unreplicate(self.state[0]))
        return {self.names[name]: array for name, array in found.items()}


def linen_name(name: str) -> str:
    for old, new in _RENAMES.items():
        name = name.replace(old, new)
    return name


class _Sized:
    """The part of a config that holds the size of the patches."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size


if __name__ == "__main__":
    wire.serve(GoogleVit)
