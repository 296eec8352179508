"""The classifier of the Vision Transformer family: an encoder, pooling, and one or two heads.

One implementation serves the whole family; `ViTOptions` chooses the member. Shapes: B batch,
T tokens, N patches, D width, K classes.
"""

import dataclasses
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import heads
from vit_jax.models.batch_norm import BatchNorm
from vit_jax.models.encoder import TaskModel
from vit_jax.models.initial import redraw
from vit_jax.models.options import EncoderOptions
from vit_jax.models.stack import Intermediates


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTOptions(EncoderOptions):
    """A Vision Transformer that classifies, or returns features if it has no classes."""

    num_classes: int = 1000  # 0: no head, the features are the output
    # What the head reads: the class token, the mean of the patches, both concatenated (DINOv2), or
    # attention pooling of the patches.
    pool: Literal["token", "gap", "token_gap", "map"] = "token"
    norm_at: Literal["tokens", "pooled"] = "tokens"  # the last norm: before or after pooling
    representation_size: int = 0  # width of a tanh layer before the head; 0: no such layer
    # A norm of the features before the head. batch: batch norm without parameters, as in MAE's
    # linear probe; its running averages belong to the head.
    head_norm: Literal["none", "batch"] = "none"
    distillation_head: bool = True  # whether the distillation token has a head
    head_bias: float = 0.0  # initial bias of every class
    head_std: float = 0.0  # standard deviation of the initial weights of the head; 0: all zero

    def _check_task(self) -> None:
        if self.class_token is False and (self.distillation or self.pool.startswith("token")):
            raise ValueError(
                f"pool {self.pool!r} or distillation needs the class token: set class_token to True"
            )
        if self.distillation and self.pool != "token":
            raise ValueError(
                "a model with a distillation token classifies by its tokens, not by pool"
                f" {self.pool!r}: set pool to 'token'"
            )
        if self.head_norm != "none" and self.heads == 2:
            raise ValueError(
                f"head_norm {self.head_norm!r} is for one head, and distillation has two: set"
                " head_norm to 'none'"
            )
        if self.pool in ("token_gap", "map") and self.norm_at == "pooled":
            raise ValueError(f"pool {self.pool!r} needs normalised tokens: use norm_at 'tokens'")

    @property
    def needs_class_token(self) -> bool:
        return self.pool.startswith("token")

    @property
    def feature_size(self) -> int:
        return self.representation_size or self.pooled_width

    @property
    def pooled_size(self) -> int:
        return 0 if self.pool == "map" else self.pooled_width

    @property
    def pooled_width(self) -> int:
        return self.width * (2 if self.pool == "token_gap" else 1)

    def classifier(self) -> "ViTOptions":
        return dataclasses.replace(self, fixed_position=False, mask_token=False)

    def adapted(self, **changes: Any) -> "ViTOptions":
        # Removing a part of pretraining, such as `decoder=None`, changes nothing here.
        no_effect = {name for name in PRETRAINING if name in changes and not changes[name]}
        return self.changed(**{k: v for k, v in changes.items() if k not in no_effect})

    def described(self) -> str:
        return f"{super().described()}, pool {self.pool}"


class Classifier(TaskModel):
    """A ViT. `model(images)` returns logits, `model.features(images)` the input of the head."""

    def __init__(self, options: ViTOptions, *, rngs: nnx.Rngs) -> None:
        super().__init__(options, rngs=rngs)
        if options.pool == "map":
            self.pool = heads.AttentionPool(options.plain_block(), rngs=rngs)
        if options.representation_size:
            width, dtype = options.pooled_width, jnp.dtype(options.dtype)
            self.pre_logits = nnx.Linear(width, options.representation_size, dtype=dtype, rngs=rngs)
        if options.head_norm == "batch":
            self.head_norm = BatchNorm(options.feature_size, eps=1e-6, affine=False)
        sizes = (options.feature_size, options.num_classes)
        initial: dict[str, Any] = {"bias": options.head_bias, "std": options.head_std, "rngs": rngs}
        if options.num_classes:
            self.head = heads.linear_head(*sizes, **initial)
        if options.num_classes and options.heads == 2:
            self.head_distillation = heads.linear_head(*sizes, **initial)
        redraw(self, options.init, fixed_position=options.fixed_position, rngs=rngs)

    def __call__(
        self,
        images: jax.Array,  # (B, height, width, channels)
        *,
        key: jax.Array | None = None,
        return_intermediates: bool = False,
        return_heads: bool = False,
    ) -> Any:
        """Logits (B, K) float32; with `return_intermediates`, (logits, Intermediates).

        With a distillation head, the logits are the mean over both heads. With `return_heads`, they
        are a tuple instead: the logits of each head.
        """
        pooled, intermediates = self._pooled(images, key, return_intermediates)
        outputs = self._outputs(pooled, key)
        logits = outputs if return_heads else _mean(outputs)
        return (logits, intermediates) if return_intermediates else logits

    def pooled(self, images: jax.Array) -> jax.Array:
        pooled = self._pooled(images, None, False)[0]
        return jnp.stack([x.astype(jnp.float32) for x in pooled], axis=1)

    def classified(
        self, pooled: jax.Array, *, key: jax.Array | None = None, return_heads: bool = False
    ) -> Any:
        outputs = self._outputs(tuple(pooled[:, i] for i in range(pooled.shape[1])), key)
        return outputs if return_heads else _mean(outputs)

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The input of the head (B, `options.feature_size`), float32; the mean over two heads.

        It is the input of `head_norm` if there is one.
        """
        features = self._features(self._pooled(images, key, False)[0])
        return jnp.stack(features).mean(axis=0) if len(features) > 1 else features[0]

    def _outputs(
        self, pooled: tuple[jax.Array, ...], key: jax.Array | None
    ) -> tuple[jax.Array, ...]:
        """The logits (B, K) float32 of each head, or its features if there are no classes."""
        options, features = self.options, self._features(pooled)
        if not options.num_classes:
            return features
        if options.head_norm == "batch":
            features = tuple(self.head_norm(x, training=key is not None) for x in features)
        two = (self.head, self.head_distillation) if options.heads == 2 else (self.head,)
        outputs = (head(x) for head, x in zip(two, features, strict=True))
        return tuple(x.astype(jnp.float32) for x in outputs)

    def _features(self, pooled: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """The input of each head (B, feature_size) float32."""
        if self.options.representation_size:
            pooled = tuple(jnp.tanh(self.pre_logits(x)) for x in pooled)
        return tuple(x.astype(jnp.float32) for x in pooled)

    def _pooled(
        self, images: jax.Array, key: jax.Array | None, return_intermediates: bool
    ) -> tuple[tuple[jax.Array, ...], Intermediates | None]:
        """The pooled tokens (B, D) for each head."""
        options = self.options
        x, intermediates = self.encoder(images, key=key, return_intermediates=return_intermediates)
        patches = x[:, options.prefix_tokens :]
        pooled: tuple[jax.Array, ...]
        if options.pool == "token":
            pooled = tuple(x[:, i] for i in range(options.heads))
        elif options.pool == "gap":
            pooled = (patches.astype(jnp.float32).mean(axis=1),)
        elif options.pool == "token_gap":
            pooled = (jnp.concatenate([x[:, 0], patches.mean(axis=1)], axis=-1),)
        else:
            pool_key = None if key is None else jax.random.split(key, 3)[2]
            pooled = (self.pool(patches, key=pool_key),)
        if options.norm_at == "pooled":
            pooled = tuple(self.encoder.norm(x) for x in pooled)
        return pooled, intermediates


def _mean(outputs: tuple[jax.Array, ...]) -> jax.Array:
    return sum(outputs[1:], outputs[0]) / len(outputs)


# Fields of pretraining models. A model without them is a classifier.
PRETRAINING = ("decoder", "mim_classes", "mim_norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingOptions(EncoderOptions):
    """A model that is pretrained without classes and becomes a classifier afterwards."""

    part: ClassVar[str]  # the field in PRETRAINING that makes it this pretraining model

    @classmethod
    def around(cls, base: EncoderOptions, **fields: Any) -> Self:
        """The pretraining model with the encoder of `base`, and these fields."""
        names = (field.name for field in dataclasses.fields(EncoderOptions))
        kept = {name: getattr(base, name) for name in names}
        return cls(**kept | {"class_token": base.has_class_token} | fields)

    def classifier(self) -> ViTOptions:
        """The encoder alone. Its positions are trained from then on."""
        known = {field.name for field in dataclasses.fields(ViTOptions)}
        kept = {name: value for name, value in vars(self).items() if name in known}
        return ViTOptions(**kept | {"num_classes": 0, "fixed_position": False, "mask_token": False})

    def adapted(self, **changes: Any) -> EncoderOptions:
        without = self.part in changes and not changes[self.part]
        if without or changes.get("num_classes"):
            return self.classifier().adapted(**changes)
        return self.changed(**changes)

    def changed(self, **changes: Any) -> Self:
        if classes := changes.pop("num_classes", 0):
            raise ValueError(
                f"a {self.kind} has no classes, but num_classes is {classes}: choose a model that"
                " classifies, or fine-tune a checkpoint of this model without naming a model"
            )
        return super().changed(**changes)
