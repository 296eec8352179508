"""A discrete VAE: images are rebuilt from visual tokens of a codebook.

"Zero-Shot Text-to-Image Generation" (arXiv 2102.12092), section 2.1 and appendix A. The encoder
gives a distribution of tokens at each place. While training, a token is drawn by the Gumbel-softmax
relaxation, whose temperature falls until it is nearly one token; evaluations use the most likely
token. Shapes: B images, H and W pixels, C channels, h and w rows and columns of tokens, V tokens.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from vit_jax.data.augment import at
from vit_jax.data.record import DataFacts
from vit_jax.models.dvae import MARGIN, DVAEOptions, pixels
from vit_jax.models.zoo import Options
from vit_jax.objectives.contract import Batch, Direction, Frozen, Loss, Objective
from vit_jax.objectives.pixels import denormalised

_STREAM = 3  # the random stream of the tokens; the augmentations have other numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscreteVAE(Objective):
    """Rebuilds images from visual tokens: the tokenizer of BEiT."""

    # The error of rebuilt images. logit_laplace: the negative log-likelihood of DALL-E, nats per
    # pixel and channel; l2: the squared error of pixels in [0, 1].
    reconstruction: Literal["logit_laplace", "l2"] = "logit_laplace"
    # Weight of the divergence of the tokens from a uniform distribution, after its warm-up.
    kl_weight: float = 6.6
    kl_examples: int = 2_560_000  # images over which this weight grows from 0, by a cosine
    temperature: float = 0.0625  # of the Gumbel-softmax, after it has fallen from 1
    temperature_examples: int = 76_800_000  # images over which it falls, by a cosine

    metrics: ClassVar[Mapping[str, Direction]] = {"error": "min"}
    exact_images: ClassVar[bool] = True  # the images are the target

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= 1:
            raise ValueError(
                f"config.objective.temperature is {self.temperature}: it must be in (0, 1]"
            )
        for name in ("kl_weight", "kl_examples", "temperature_examples"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"config.objective.{name} is {getattr(self, name)}: it must not be negative"
                )

    def check_kind(self, base: Options) -> None:
        if not isinstance(base, DVAEOptions):
            raise ValueError(
                f"config.objective is dvae, which cannot train a {base.kind}: name a discrete VAE,"
                " such as DALL-E-dVAE"
            )

    def model(self, base: Options, facts: DataFacts) -> Options:
        self.check_kind(base)
        assert isinstance(base, DVAEOptions)
        if not base.reconstructs:
            raise ValueError(
                "config.objective is dvae, but the model has no decoder: set"
                " --config.model.reconstructs=true"
            )
        return base

    def bound(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "DiscreteVAE":
        return _Bound(**vars(self), mean=mean, std=std)

    def prepare(self, batch: Batch, *, options: Any, key: jax.Array) -> Batch:
        """Adds the random key of the tokens of each sample, as uint32 (B, 2)."""
        key = jax.random.fold_in(key, _STREAM)
        keys = jax.vmap(lambda index: jax.random.key_data(at(key, index)))(batch["sample_index"])
        return batch | {"token_key": keys}

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        """The index of a sample is the number of images before it, which sets the schedules."""
        images, words = batch["image"], batch["sample_index"].astype(jnp.float32)
        seen = words[:, 0] * 2.0**32 + words[:, 1]
        temperature = _between(1.0, self.temperature, seen, self.temperature_examples)
        weight = _between(0.0, self.kl_weight, seen, self.kl_examples)
        logits = model(images, key=key)
        tokens = relaxed_tokens(logits, batch["token_key"], temperature=temperature)
        errors = self._errors(model.decode(tokens), self._pixels(images))
        divergence = divergence_from_uniform(logits)
        per_pixel = divergence.sum(axis=(1, 2)) / images[0].size
        extras = {
            "reconstruction": errors,
            "divergence": divergence.mean(axis=(1, 2)),
            "temperature": temperature,
        }
        return Loss(errors + weight * per_pixel, jnp.ones_like(errors), extras)

    def measure(self, model: Any, batch: Batch, *, frozen: Frozen) -> dict[str, jax.Array]:
        """The squared error of pixels in [0, 1], rebuilt from the most likely tokens."""
        rebuilt = model.rebuilt(batch["image"])
        error = jnp.square(rebuilt - self._pixels(batch["image"])).mean(axis=(1, 2, 3))
        return {"error": jnp.where(batch["mask"], error, 0).sum()}

    def _errors(self, outputs: jax.Array, target: jax.Array) -> jax.Array:
        """The error of each image (B,) float32, from outputs (B, H, W, 2 C) of the decoder."""
        if self.reconstruction == "l2":
            return jnp.square(pixels(outputs) - target).mean(axis=(1, 2, 3))
        return logit_laplace(outputs, target).mean(axis=(1, 2, 3))

    def _pixels(self, images: jax.Array) -> jax.Array:
        """Normalised images with their values in [0, 1] again, float32."""
        raise NotImplementedError("the mean and std are unknown: call `bound` first")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bound(DiscreteVAE):
    """The objective with the mean and std of the normalised images, for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def _pixels(self, images: jax.Array) -> jax.Array:
        return denormalised(images, mean=self.mean, std=self.std)


def relaxed_tokens(
    logits: jax.Array,  # (B, h, w, V)
    keys: jax.Array,  # uint32 (B, 2): the random key of each image
    *,
    temperature: jax.Array,  # (B,)
) -> jax.Array:
    """Probabilities of tokens (B, h, w, V), drawn by the Gumbel-softmax."""

    def of_image(logits: jax.Array, key: jax.Array, temperature: jax.Array) -> jax.Array:
        noise = jax.random.gumbel(jax.random.wrap_key_data(key), logits.shape)
        return jax.nn.softmax((logits + noise) / temperature, axis=-1)

    return jax.vmap(of_image)(logits, keys, temperature)


def divergence_from_uniform(logits: jax.Array) -> jax.Array:
    """The Kullback-Leibler divergence (B, h, w), in nats, of tokens from a uniform distribution."""
    logs = jax.nn.log_softmax(logits, axis=-1)
    return (jnp.exp(logs) * logs).sum(axis=-1) + jnp.log(jnp.float32(logits.shape[-1]))


def logit_laplace(outputs: jax.Array, target: jax.Array) -> jax.Array:
    """Negative log-likelihoods (B, H, W, C) of pixels in [0, 1] (appendix A.3, equation 2).

    `outputs` (B, H, W, 2 C) are those of `DVAE.decode`. The density is that of pixels which are
    mapped to [0.1, 0.9], because its support does not include 0 and 1.
    """
    location, log_scale = jnp.split(outputs, 2, axis=-1)
    mapped = (1 - 2 * MARGIN) * target + MARGIN
    logit = jnp.log(mapped) - jnp.log1p(-mapped)
    distance = jnp.abs(logit - location) * jnp.exp(-log_scale)
    return jnp.log(2 * mapped * (1 - mapped)) + log_scale + distance


def _between(first: float, last: float, seen: jax.Array, examples: int) -> jax.Array:
    """A value (B,) that goes from `first` to `last` by half a cosine, over so many examples."""
    share = jnp.minimum(seen / float(max(examples, 1)), 1.0)
    return last + (first - last) * 0.5 * (1 + jnp.cos(jnp.pi * share))
