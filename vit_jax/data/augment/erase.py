"""Random erasing: rectangles of the image become noise (arXiv 1708.04896), as timm does it."""

import dataclasses
import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from vit_jax.data.augment.contract import VALUES, Augmentation, Batch, at

_MOST = 100  # rectangles: each is a part of the program
_ATTEMPTS = 10  # to draw a rectangle that is smaller than the image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Erase(Augmentation):
    """Erases rectangles of an image, after the value range."""

    probability: float = 0.25  # of erasing, for each image
    max_count: int = 1  # rectangles of an image: 1 to `max_count`, which share the area
    area: tuple[float, float] = (0.02, 1 / 3)  # smallest and largest share of the image
    aspect: float = 0.3  # height / width is between this and its inverse
    # What stands there: normal noise in each pixel, one normal colour, or zeros.
    fill: Literal["noise", "colour", "zero"] = "noise"

    stream: ClassVar[int] = 5
    needs: ClassVar[frozenset[str]] = frozenset({VALUES})

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"erase's probability is {self.probability}: it must be in [0, 1]")
        if not 1 <= self.max_count <= _MOST:
            raise ValueError(f"erase's max_count is {self.max_count}: it must be from 1 to {_MOST}")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"erase's area is {self.area}: give 0 < low <= high <= 1")
        if not 0 < self.aspect <= 1:
            raise ValueError(f"erase's aspect is {self.aspect}: it must be in (0, 1]")

    def __call__(self, batch: Batch, *, key: jax.Array) -> Batch:
        def one(image: jax.Array, index: jax.Array) -> jax.Array:
            chance, place, content = jax.random.split(at(key, index), 3)
            erases = jax.random.uniform(chance) < self.probability
            count = jax.random.randint(chance, (), 1, self.max_count + 1).astype(jnp.float32)
            for number in range(self.max_count):
                if number:
                    place, content = (jax.random.fold_in(key, number) for key in (place, content))
                inside = rectangle(
                    place,
                    (image.shape[0], image.shape[1]),
                    area=tuple(share / count for share in self.area),
                    aspect=self.aspect,
                )
                inside &= erases & (number < count)
                fill = self._fill(content, image.shape).astype(image.dtype)
                image = jnp.where(inside[..., None], fill, image)
            return image

        return batch | {"image": jax.vmap(one)(batch["image"], batch["sample_index"])}

    def _fill(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        if self.fill == "zero":
            return jnp.zeros(shape)
        if self.fill == "noise":
            return jax.random.normal(key, shape)
        return jnp.broadcast_to(jax.random.normal(key, (1, 1, shape[-1])), shape)


def rectangle(
    key: jax.Array,
    size: tuple[int, int],
    *,
    area: tuple[jax.typing.ArrayLike, ...],
    aspect: float,
) -> jax.Array:
    """Bool (height, width): inside the first drawn rectangle that is smaller than the image.

    `area` and `aspect` are those of `Erase`.
    """
    area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
    low, high = (share * size[0] * size[1] for share in area)
    pixels = jax.random.uniform(area_key, (_ATTEMPTS,), minval=low, maxval=high)
    bound = -math.log(aspect)
    ratio = jnp.exp(jax.random.uniform(aspect_key, (_ATTEMPTS,), minval=-bound, maxval=bound))
    heights = jnp.round(jnp.sqrt(pixels * ratio)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(pixels / ratio)).astype(jnp.int32)
    fits = (heights < size[0]) & (widths < size[1])
    first = jnp.argmax(fits)
    height, width = heights[first], widths[first]
    top = jax.random.randint(top_key, (), 0, jnp.maximum(size[0] - height + 1, 1))
    left = jax.random.randint(left_key, (), 0, jnp.maximum(size[1] - width + 1, 1))
    rows, columns = jnp.arange(size[0]), jnp.arange(size[1])
    in_rows, in_columns = (top <= rows) & (rows < top + height), (left <= columns)
    in_columns &= columns < left + width
    return fits[first] & in_rows[:, None] & in_columns[None]
