"""What every model and its options must provide, whatever the family.

A family of models is an options class, a module class, and an entry of `zoo.FAMILIES`. No other
code in the package knows the family's name.
"""

import dataclasses
from typing import Any, Literal, Self, TypeVar

import jax
from flax import nnx

from vit_jax.models.interpolation import Methods
from vit_jax.models.layers import Dtype
from vit_jax.models.names import nearest
from vit_jax.models.preprocessing import Preprocessing

# What a classifier is trained with: see `objectives.Classification`.
CrossEntropy = Literal["softmax", "sigmoid", "sigmoid_mean"]
TrainedWith = Literal["", CrossEntropy]  # "": not known


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The sizes and choices that define a model; each family adds fields.

    Raises ValueError if the fields do not fit together.
    """

    image_size: tuple[int, int] = (224, 224)  # (height, width)
    channels: int = 3
    dtype: Dtype = "float32"  # dtype of the computation; parameters are float32

    @property
    def num_classes(self) -> int:
        """Number of logits of the head. 0: there is no head, and the features are the output."""
        return 0

    @property
    def feature_size(self) -> int:
        """Length of a feature vector, the input of the head."""
        raise NotImplementedError

    @property
    def pooled_size(self) -> int:
        """Length of the vectors that `Model.pooled` returns; 0 if a layer that pools trains."""
        return self.feature_size

    @property
    def heads(self) -> int:
        """Number of heads that give logits; each head has features of its own."""
        return 1

    @property
    def tokens(self) -> int:
        """Length of the sequence that the blocks see; 0 if it differs between stages."""
        return 0

    @property
    def listed(self) -> tuple[int, ...]:
        """Width, depth, MLP width, heads and tokens; () if they differ between stages."""
        return ()

    @property
    def has_class_token(self) -> bool:
        return False

    @property
    def load_arguments(self) -> dict[str, Any]:
        """Values that some files do not record, as arguments of `load`: heads and the grid."""
        return {}

    @property
    def fixed_table(self) -> bool:
        """Whether the position table is computed, instead of being a parameter."""
        return False

    def classifier(self) -> "ModelOptions":
        """The same model without the parts that only pretraining uses."""
        return self

    def adapted(self, **changes: Any) -> "ModelOptions":
        """Like `changed`, but a pretraining model becomes a classifier if `changes` ask for one."""
        return self.changed(**changes)

    def changed(self, **changes: Any) -> Self:
        """The options with some fields changed. Raises ValueError for an unknown field."""
        known = sorted(f.name for f in dataclasses.fields(self))
        for field in changes:
            if field not in known:
                raise ValueError(f"unknown model option {field!r}: {nearest(field, known)}")
        for field in {"image_size", "patch_size"} & set(changes):
            if isinstance(size := changes[field], int | list):  # one number is square
                changes[field] = (size, size) if isinstance(size, int) else tuple(size)
        return dataclasses.replace(self, **changes)

    def plain(self) -> Self:
        """The same model, with defaults in fields that only repeat what other fields imply."""
        return self

    def with_rows_of(self, target: Self) -> Self:
        """The same model, with position tables that have the same rows as those of `target`."""
        return self

    def described(self) -> str:
        """A description of the model in one line."""
        return ", ".join((self.kind, *self._input_and_output()))

    @property
    def kind(self) -> str:
        """The name of this kind of model in messages."""
        return type(self).__name__.removesuffix("Options")

    def _input_and_output(self) -> tuple[str, str]:
        height, width = self.image_size
        return f"{height}x{width} pixels", f"{self.num_classes} classes"


AnyOptions = TypeVar("AnyOptions", bound=ModelOptions)


class Model(nnx.Module):
    """A model of any family. A family's class is called as `module(options, rngs=rngs)`."""

    preprocessing: Preprocessing | None = None  # set by `create` and `load`
    # How its family resizes parameters; set by `create` and `load`.
    resize_methods: Methods = Methods()
    class_names: tuple[str, ...] = ()  # set by `load` if the file has them
    step: int | None = None  # of the checkpoint in a run; set by `load`
    # What it was trained with, which makes its logits probabilities; set by `load` if known.
    cross_entropy: TrainedWith = ""
    options: Any  # an instance of the family's options class
    head: Any  # (B, feature_size) -> logits (B, K), of models with classes

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> Any:
        """Logits (B, K) float32 of images (B, height, width, channels); features without a head.

        A `key` means training.
        """
        features = self.features(images, key=key)
        return self.head(features) if self.options.num_classes else features

    def pooled(self, images: jax.Array) -> jax.Array:
        """What the layers after the encoder read: float32 (B, `options.heads`, D).

        With `tune.kind=head`, no parameter that computes it trains, unless `pooled_size` is 0.
        """
        return self.features(images)[:, None]

    def classified(self, pooled: jax.Array, *, key: jax.Array | None = None) -> Any:
        """The logits (B, K) float32 of what `pooled` returns. A `key` means training."""
        del key  # for families with more than a linear head
        return self.head(pooled[:, 0])

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The input of the head (B, `options.feature_size`), float32."""
        raise NotImplementedError

    def resized(self, height: int, width: int | None = None) -> Self:
        """The same model for images of another size; one number means a square.

        Position tables, and whatever else depends on the size, are interpolated as `load` does for
        the model's family. The other parameters are shared. Raises ValueError for a size that the
        model cannot take.
        """
        from vit_jax.models import resizing  # it imports the zoo, which imports this module

        return resizing.resized(self, (height, height if width is None else width))

    def rebuilt(self, images: jax.Array) -> jax.Array | None:
        """Pixels in [0, 1] of images that were encoded and decoded; None if it cannot decode."""
        return None

    def visual_tokens(self, images: jax.Array) -> jax.Array | None:
        """Tokens of a codebook, int32 (B, h, w), of images; None if it has no codebook."""
        return None

    def decoded(self, tokens: jax.Array) -> jax.Array | None:
        """Pixels in [0, 1] (B, H, W, C) of tokens of a codebook, int32 (B, h, w).

        None if the model cannot decode.
        """
        return None

    @property
    def patch_kernel(self) -> jax.Array | None:
        """The first kernel, which reads pixels (height, width, channels, D); None if unknown.

        It is that of the patch embedding, or of the root of a ResNet below it.
        """
        return None

    def position_table(self) -> jax.Array | None:
        """Positions (1, R, D) added to the tokens; None if the model has no single table."""
        return None

    def attention_weights(self, images: jax.Array) -> jax.Array | None:
        """The attention of every layer and head, (L, B, H, T, T) float32, a row for each query.

        The last tokens are the patches, in the raster order of `options.grid`, which covers
        `options.covered` pixels. None if patches do not attend to all others.
        """
        return None

    def grid_features(self, images: jax.Array) -> jax.Array | None:
        """The last features of each place of a grid, (B, rows, columns, D) float32.

        None if the model has none before it pools them.
        """
        return None

    def relative_biases(self) -> dict[str, jax.Array]:
        """Learned biases of attention logits by the part of the model that adds them.

        Each is (L, 2 rows - 1, 2 columns - 1, H): an offset of the key from the query, down and
        right, for every layer and head. Offset zero is in the middle.
        """
        return {}
