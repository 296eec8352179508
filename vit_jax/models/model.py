"""What the package asks of every model and of its options, whatever the family.

A family of models is an options class, a module class, and an entry of `zoo.FAMILIES`. Nothing else
in the package knows its name.
"""

import dataclasses
from typing import Any, Self

import jax
from flax import nnx

from vit_jax.models.layers import Dtype
from vit_jax.models.names import nearest
from vit_jax.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The sizes and choices that make a model; a family adds fields to these.

    Its checks raise ValueError where the fields do not fit together.
    """

    image_size: tuple[int, int] = (224, 224)  # (height, width)
    channels: int = 3
    dtype: Dtype = "float32"  # of the computation; parameters are float32

    @property
    def num_classes(self) -> int:
        """Logits of the head; 0: there is no head, the features are the output."""
        return 0

    @property
    def feature_size(self) -> int:
        """Length of a feature vector, the input of the head."""
        raise NotImplementedError

    @property
    def heads(self) -> int:
        """Heads that give logits, each of its own features."""
        return 1

    @property
    def tokens(self) -> int:
        """Length of the sequence that the blocks see; 0 where that differs between stages."""
        return 0

    @property
    def listed(self) -> tuple[int, ...]:
        """Width, depth, MLP width, heads and tokens; () where they differ between stages."""
        return ()

    @property
    def has_class_token(self) -> bool:
        return False

    @property
    def tells(self) -> dict[str, Any]:
        """What users have to say of files that do not tell it: heads, and the grid of positions."""
        return {}

    @property
    def fixed_table(self) -> bool:
        """Whether positions are computed, and no parameters."""
        return False

    def classifier(self) -> "ModelOptions":
        """The same model without what only pretraining uses."""
        return self

    def adapted(self, **changes: Any) -> "ModelOptions":
        """As `changed`; a model of pretraining becomes a classifier where `changes` ask for one."""
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
        """The same model with defaults in the fields that say what others say already."""
        return self

    def with_rows_of(self, target: Self) -> Self:
        """The same model, where its tables have the rows that those of `target` have."""
        return self

    def described(self) -> str:
        """The model in one line."""
        return ", ".join((self.kind, *self._input_and_output()))

    @property
    def kind(self) -> str:
        """What the model is called in messages."""
        return type(self).__name__.removesuffix("Options")

    def _input_and_output(self) -> tuple[str, str]:
        height, width = self.image_size
        return f"{height}x{width} pixels", f"{self.num_classes} classes"


class Model(nnx.Module):
    """A model of any family, made of its options by `MODULE(options, rngs=rngs)`."""

    preprocessing: Preprocessing | None = None  # of a loaded model
    class_names: tuple[str, ...] = ()  # of a loaded model, where known
    options: Any  # those of its family

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> Any:
        """Logits (B, K) float32 of images (B, height, width, channels), or the features."""
        raise NotImplementedError

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The input of the head (B, `options.feature_size`), float32."""
        raise NotImplementedError

    @property
    def patch_kernel(self) -> jax.Array | None:
        """The weights that embed a patch (height, width, channels, D), where they can be drawn."""
        return None

    def position_table(self) -> jax.Array | None:
        """Positions (1, N, D) that are added to the tokens of all blocks, where there are any."""
        return None
