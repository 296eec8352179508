"""How a tokenizer uses its codebook, over all held-out images."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.data.augment import normalize
from vit_jax.duration import Duration
from vit_jax.evaluators.contract import Context, Evaluator, Measure
from vit_jax.models.dvae import DVAEOptions
from vit_jax.objectives import Direction, Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codebook(Evaluator):
    """Perplexity of the visual tokens of a discrete VAE, and the share of tokens that it uses."""

    every: Duration = Duration()  # period in a run; unset: evaluate_every

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        return {"perplexity": "max", "used": "max"}

    def open(self, context: Context) -> Measure:
        """Raises ValueError for a model without visual tokens."""
        if not isinstance(context.options, DVAEOptions):
            raise ValueError(
                f"config.evaluators: codebook cannot measure a {context.options.kind}, which has no"
                " visual tokens: leave it out"
            )
        size = context.options.vocabulary

        @jax.jit
        def histogram(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
            model = nnx.merge(context.graphdef, params)
            images = normalize(batch["image"], mean=context.mean, std=context.std)
            tokens = model.visual_tokens(images)
            counted = batch["mask"].astype(jnp.int32)
            weights = jnp.broadcast_to(counted[:, None, None], tokens.shape)
            counts = jnp.zeros(size, jnp.int32).at[tokens.reshape(-1)].add(weights.reshape(-1))
            return counts, counted.sum()

        def measure(params: Any, frozen: Mapping[str, Any]) -> dict[str, float]:
            counts, images = np.zeros(size, np.int64), 0
            with context.on_devices(
                context.held_out, inputs=("image", "mask"), labelled=False
            ) as batches:
                for batch in batches:
                    of_batch, number = histogram(params, batch)
                    counts, images = counts + np.asarray(of_batch), images + int(number)
            return {"perplexity": perplexity(counts), "used": used(counts), "count": images}

        return measure


def perplexity(counts: np.ndarray) -> float:
    """The exponential of the entropy of tokens that were counted (V,): V if all are as frequent."""
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def used(counts: np.ndarray) -> float:
    """The share of tokens that were seen at least once."""
    return float((counts > 0).mean())
