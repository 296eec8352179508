"""Linear probes: linear classifiers trained on the features of the training images.

As MAE's (arXiv 2111.06377, appendix A.1 and its code): batch norm without scale and bias, then a
linear layer trained by LARS or SGD with momentum, warm-up and a cosine. Features are computed once,
without augmentation. One program trains the probes of all learning rates and weight decays.

Shapes: N training images, S steps of B rows, G probes, D features, K classes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.data.subset import spread
from vit_jax.duration import Duration
from vit_jax.errors import Interrupted
from vit_jax.evaluators import features
from vit_jax.evaluators.contract import Context, Evaluator, Measure
from vit_jax.evaluators.features import Features
from vit_jax.models.options import EncoderOptions
from vit_jax.objectives import Direction, Objective
from vit_jax.parallel.mesh import batch_parts, whole_to_global

REFERENCE = 256  # images in the batch that a learning rate is for
EPSILON = 1e-6  # of the batch norm
NEW = 0.1  # weight of a batch in the running mean and variance
TRUST = 0.001  # LARS: an update has this share of the length of the weights
_CHUNK = 2**27  # bytes of features that are on the devices at once
_ROWS = 4096  # images that are classified at once

# step (), mean and variance (D,) of the batch norm, weights and moments of each probe, rates and
# decays (G,).
State = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe(Evaluator):
    """Top-1 of linear classifiers of features, the best of all learning rates and decays."""

    every: Duration = Duration()  # period in a run; unset: evaluate_every
    optimizer: Literal["lars", "sgd"] = "lars"  # of the classifiers
    learning_rates: tuple[float, ...] = (0.1,)  # for 256 images; scaled by the batch size
    weight_decays: tuple[float, ...] = (0.0,)  # each is tried with each learning rate
    epochs: int = 90  # passes over the features
    warmup_epochs: float = 10.0  # the learning rate rises linearly from 0
    batch_size: int = 4096  # all training images if there are fewer
    momentum: float = 0.9  # of the optimizer
    seed: int = 0  # of the initial weights and the order of images
    train_images: int = 0  # evenly spaced images of the training split; 0: all
    # Probes of the features after each block, instead of those that the head reads.
    every_layer: bool = False

    needs_train: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("learning_rates", "weight_decays"):
            values = getattr(self, name)
            if not values or not all(0 <= x < math.inf for x in values):
                raise ValueError(f"{name} is {values}: give finite numbers that are not negative")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} is {values}: no number may be twice")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}: it must be in [0, epochs)")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}: it must be in [0, 1)")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}: it must be in [0, 2**32)")
        if self.train_images < 0:
            raise ValueError(f"train_images is {self.train_images}: it must not be negative")

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        return {"top1": "max"}

    def open(self, context: Context) -> Measure:
        """Raises ValueError for a model without blocks if it needs `every_layer`."""
        depth = context.options.depth if isinstance(context.options, EncoderOptions) else 0
        if self.every_layer and not depth:
            raise ValueError(
                f"linear_probe cannot read every layer of a {context.options.kind}: set every_layer"
                " to False"
            )
        train, held_out = features.labelled(context, evaluator="linear_probe")
        train = spread(train, self.train_images)
        bad = features.bad_images(context, train)
        kind = features.of_layers if self.every_layer else features.of_images
        step = features.make_step(context, kind)
        number = len(train.class_names)

        def measure(params: Any, frozen: Mapping[str, Any]) -> dict[str, float]:
            known = features.of_split(context, train, params, step, bad=bad)
            asked = features.of_split(context, held_out, params, step)
            found: dict[int, np.ndarray] = {}
            for layer, (own, others) in self._layers(known, asked, depth).items():
                state = fit(self, own, context=context, num_classes=number)
                found[layer] = accuracies(state, others, context=context)
            return self._named(found) | {"count": len(asked.labels)}

        return measure

    @property
    def grid(self) -> list[tuple[float, float]]:
        """The learning rate and the weight decay of each probe."""
        return [(rate, decay) for rate in self.learning_rates for decay in self.weight_decays]

    def _layers(
        self, known: Features, asked: Features, depth: int
    ) -> dict[int, tuple[Features, Features]]:
        """The features by the number of the layer, from 1; 0 for those that the head reads."""
        if not self.every_layer:
            return {0: (known, asked)}
        pairs = (np.split(one.values, depth, axis=1) for one in (known, asked))
        return {
            number: (known._replace(values=own), asked._replace(values=others))
            for number, (own, others) in enumerate(zip(*pairs, strict=True), start=1)
        }

    def _named(self, top1: Mapping[int, np.ndarray]) -> dict[str, float]:
        """The metrics, from the top-1 of each probe (G,) of each layer."""
        layer = max(top1, key=lambda number: top1[number].max())
        best = int(top1[layer].argmax())
        found = {"top1": float(top1[layer][best])}
        if self.every_layer:
            found |= {"layer": layer}
            found |= {f"top1_layer{number}": float(own.max()) for number, own in top1.items()}
        if len(self.grid) > 1:
            rate, decay = self.grid[best]
            found |= {"learning_rate": rate, "weight_decay": decay}
            for number, own in top1.items():
                prefix = f"top1_layer{number}" if self.every_layer else "top1"
                for (rate, decay), value in zip(self.grid, own, strict=True):
                    found[f"{prefix}_lr{rate:.12g}_wd{decay:.12g}"] = float(value)
        return found


def fit(config: LinearProbe, known: Features, *, context: Context, num_classes: int) -> State:
    """The probes of all learning rates and weight decays after training. Raises Interrupted.

    The order of the images in an epoch depends only on the seed and the epoch. The last images,
    which do not fill a batch, are left out, as in MAE.
    """
    size = min(config.batch_size, len(known.labels))
    steps = len(known.labels) // size  # in an epoch
    width = known.values.shape[1]
    axis = 1 if size % batch_parts(context.mesh) == 0 else None
    at_once = max(1, _CHUNK // (4 * size * width))
    train = _trainer(config, batch_size=size, steps=steps)
    state = _start(config, width=width, num_classes=num_classes)
    for epoch in range(config.epochs):
        order = np.random.default_rng((config.seed, epoch)).permutation(len(known.labels))
        batches = order[: steps * size].reshape(steps, size)
        for first in range(0, steps, at_once):
            ids = batches[first : first + at_once]
            x, labels = (
                whole_to_global(array[ids], context.mesh, axis=axis)
                for array in (known.values, known.labels)
            )
            state = train(state, x, labels)
        if context.stop(epoch + 1):
            raise Interrupted
    return state


def accuracies(state: State, asked: Features, *, context: Context) -> np.ndarray:
    """The top-1 of each probe on other images: float64 (G,); 0 for one that has diverged."""
    total = np.zeros(len(state["rates"]))
    for first in range(0, len(asked.labels), _ROWS):
        part = slice(first, first + _ROWS)
        arrays = (asked.values[part], asked.labels[part][None])
        total += np.asarray(_hits(state, *(whole_to_global(x, context.mesh) for x in arrays)))
    finite = np.isfinite(np.asarray(state["weights"]["kernel"])).all(axis=(1, 2))
    return np.where(finite, total / len(asked.labels), 0)


@jax.jit
def _hits(state: State, x: jax.Array, labels: jax.Array) -> jax.Array:
    """The number of images (B,) with labels (1, B) that each probe predicts right: int (G,)."""
    x = _normal(x, state["mean"], state["variance"])
    return (_logits(state["weights"], x).argmax(axis=-1) == labels).sum(axis=1)


def _start(config: LinearProbe, *, width: int, num_classes: int) -> State:
    """The state before training. All probes begin with the same weights."""
    grid = np.array(config.grid, np.float32)
    shape = (width, num_classes)
    # MAE cuts this normal distribution at -2 and 2, which is 200 deviations.
    kernel = 0.01 * jax.random.normal(jax.random.key(config.seed), shape)
    each = {"kernel": kernel, "bias": jnp.zeros(num_classes)}
    weights = jax.tree.map(lambda x: jnp.repeat(x[None], len(grid), axis=0), each)
    return {
        "step": jnp.zeros((), jnp.int32),
        "mean": jnp.zeros(width),
        "variance": jnp.ones(width),
        "weights": weights,
        "moments": jax.vmap(_rule(config, 0.0).init)(weights),
        "rates": jnp.asarray(grid[:, 0]),
        "decays": jnp.asarray(grid[:, 1]),
    }


@functools.lru_cache(maxsize=4)  # it is compiled once for all layers and evaluations
def _trainer(
    config: LinearProbe, *, batch_size: int, steps: int
) -> Callable[[State, jax.Array, jax.Array], State]:
    """The jitted (state, features (S, B, D), labels (S, B)) -> the state after S steps."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        batch_size / REFERENCE,
        # At least the last step follows the warm-up: few steps may round up to all of them.
        warmup_steps=min(round(config.warmup_epochs * steps), config.epochs * steps - 1),
        decay_steps=config.epochs * steps,
    )

    def loss(weights: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        logits = _logits(weights, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(state: State, batch: tuple[jax.Array, jax.Array]) -> tuple[State, None]:
        x, labels = batch
        mean, variance = x.mean(axis=0), x.var(axis=0)
        x = _normal(x, mean, variance)
        now = schedule(state["step"].astype(jnp.float32))

        def one(weights: Any, moments: Any, rate: jax.Array, decay: jax.Array) -> tuple[Any, Any]:
            gradients = jax.grad(loss)(weights, x, labels)
            updates, moments = _rule(config, decay).update(gradients, moments, weights)
            return jax.tree.map(lambda w, u: w - rate * now * u, weights, updates), moments

        parts = (state["weights"], state["moments"], state["rates"], state["decays"])
        weights, moments = jax.vmap(one)(*parts)
        unbiased = variance * (batch_size / max(batch_size - 1, 1))
        running = {
            "mean": (1 - NEW) * state["mean"] + NEW * mean,
            "variance": (1 - NEW) * state["variance"] + NEW * unbiased,
        }
        return state | running | {
            "weights": weights,
            "moments": moments,
            "step": state["step"] + 1,
        }, None

    def train(state: State, x: jax.Array, labels: jax.Array) -> State:
        return jax.lax.scan(step, state, (x, labels))[0]

    return jax.jit(train, donate_argnums=0)


def _rule(config: LinearProbe, decay: Any) -> optax.GradientTransformation:
    """What is subtracted from the weights for a learning rate of 1. The bias has no decay."""
    kernels = {"kernel": True, "bias": False}
    scale = optax.scale_by_trust_ratio(trust_coefficient=TRUST)
    return optax.chain(
        optax.add_decayed_weights(decay, mask=kernels),
        optax.masked(scale, kernels) if config.optimizer == "lars" else optax.identity(),
        optax.trace(config.momentum),
    )


def _normal(x: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
    """Features (B, D) after the batch norm with these statistics (D,)."""
    return (x - mean[None]) * jax.lax.rsqrt(variance + EPSILON)[None]


def _logits(weights: Any, x: jax.Array) -> jax.Array:
    """Logits of features (B, D): (B, K), or (G, B, K) of the weights of G probes."""
    products = jnp.einsum("bd,...dk->...bk", x, weights["kernel"], precision="highest")
    return products + jnp.broadcast_to(weights["bias"][..., None, :], products.shape)
