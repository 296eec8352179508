"""Mixup and CutMix in one, as timm mixes: each batch, pair or sample by one of the two.

"mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412) and "CutMix: Regularization Strategy
to Train Strong Classifiers with Localizable Features" (arXiv 1905.04899). Shapes: B samples, K
classes, n draws: 1 for a batch, else B.
"""

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vit_jax.data.augment.contract import TARGETS, VALUES, Augmentation, Batch, at


class Draw(NamedTuple):
    """How samples are mixed with their partners."""

    share: jax.Array  # float32 (n,): weight of the sample itself; 1: it stays as it is
    cut: jax.Array  # bool (n,): CutMix, else mixup
    box: jax.Array  # int32 (n, 4): top, bottom, left and right of what CutMix takes of the partner


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mix(Augmentation):
    """Mixes every sample and its targets with its partner: sample i with B - 1 - i."""

    mixup_alpha: float = 0.8  # of the Beta distribution of mixup's share; 0: no mixup
    cutmix_alpha: float = 1.0  # of that of CutMix's share; 0: no CutMix
    # Smallest and largest side of CutMix's box as shares of the image's; unset: from the share.
    cutmix_sides: tuple[float, ...] = ()
    probability: float = 1.0  # of mixing at all
    cutmix_probability: float = 0.5  # of CutMix where there is mixup too
    mode: Literal["batch", "pair", "sample"] = "batch"  # what has one draw
    # The share of CutMix is that of the pixels, where the box is clipped; always with cutmix_sides.
    exact_share: bool = True
    # What CutMix does with images of several classes: "share" weights the classes of both by their
    # pixels, "union" keeps all classes of both. Mixup always weights them by its share.
    several_labels: Literal["unset", "share", "union"] = "unset"

    stream: ClassVar[int] = 4
    needs: ClassVar[frozenset[str]] = frozenset({VALUES, "targets"})

    def __post_init__(self) -> None:
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not getattr(self, name) >= 0:  # NaN is not
                raise ValueError(f"mix's {name} is {getattr(self, name)}: it must be at least 0")
        for name in ("probability", "cutmix_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"mix's {name} is {getattr(self, name)}: it must be in [0, 1]")
        if not (self.mixup_alpha or self._cuts):
            raise ValueError("mix's mixup_alpha and cutmix_alpha are 0: leave it out")
        if self.cutmix_sides:
            low, high = (*self.cutmix_sides, 0.0)[:2]
            if len(self.cutmix_sides) != 2 or not 0 <= low < high <= 1:
                raise ValueError(
                    f"mix's cutmix_sides are {self.cutmix_sides}: give the smallest and the largest"
                    " side of the box as shares of the image, such as (0.2, 0.8)"
                )

    @property
    def _cuts(self) -> bool:
        return bool(self.cutmix_alpha or self.cutmix_sides)

    def check_labels(self, *, several: bool) -> None:
        if not several and self.several_labels == "union":
            raise ValueError(
                "config.augment: mix's several_labels is union, and images have one class: leave it"
                " unset (with sigmoids, config.objective.target_threshold=0 makes both classes"
                " targets of 1)"
            )
        if several and self._cuts and self.several_labels == "unset":
            raise ValueError(
                "config.augment: mix has CutMix, and images have several classes, of which a box"
                " may hold only some: set mix's several_labels to share or union, or leave CutMix"
                " out"
            )

    def __call__(self, batch: Batch, *, key: jax.Array) -> Batch:
        index = batch["sample_index"]
        if self.mode == "batch":
            index = index[:1]
        elif self.mode == "pair":  # both samples of a pair have the draw of the first
            first = jnp.arange(len(index)) < len(index) - len(index) // 2
            index = jnp.where(first[:, None], index, index[::-1])
        _, height, width, _ = batch["image"].shape
        draw = jax.vmap(lambda i: self.draw(at(key, i), size=(height, width)))(index)
        # A box of its own sides says nothing of the share that was drawn.
        exact = self.exact_share or bool(self.cutmix_sides)
        return batch | mixed(batch, draw, exact_share=exact, union=self.several_labels == "union")

    def draw(self, key: jax.Array, *, size: tuple[int, int]) -> Draw:
        """One draw for images of `size` (height, width), without the leading axis."""
        keys = jax.random.split(key, 5)
        cut = jnp.asarray(self._cuts)
        if self._cuts and self.mixup_alpha:
            cut = jax.random.uniform(keys[0]) < self.cutmix_probability
        mixup_share = _beta(keys[1], self.mixup_alpha)
        cutmix_share = _beta(keys[2], self.cutmix_alpha)
        share = jnp.where(cut, cutmix_share, mixup_share)
        mixes = jax.random.uniform(keys[3]) < self.probability
        if self.cutmix_sides:
            low, high = self.cutmix_sides
            box = box_of_sides(keys[4], size, low=low, high=high)
        else:
            box = box_of_share(keys[4], size, share=share)
        return Draw(jnp.where(mixes, share, 1), cut & mixes, box)


def mixed(
    batch: Batch, draw: Draw, *, exact_share: bool = True, union: bool = False
) -> dict[str, jax.Array]:
    """The images (B, H, W, C) and all targets (B, K) of a batch, mixed with the reversed batch.

    With `union`, CutMix gives the larger target of both images for each class. A teacher's answers
    are always weighted.
    """
    images = batch["image"]
    height, width = images.shape[1:3]
    top, bottom, left, right = (draw.box[:, i, None] for i in range(4))
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    in_rows, in_columns = (top <= rows) & (rows < bottom), (left <= columns) & (columns < right)
    inside = in_rows[:, :, None, None] & in_columns[:, None, :, None]
    share = draw.share.astype(jnp.float32)
    blend = share[:, None, None, None].astype(images.dtype)
    partner = images[::-1]
    cut = draw.cut[:, None, None, None]
    mixed_images = jnp.where(
        cut, jnp.where(inside, partner, images), blend * images + (1 - blend) * partner
    )
    if exact_share:
        area = (bottom - top) * (right - left)
        share = jnp.where(draw.cut, 1 - area[:, 0] / (height * width), share)
    weight = share[:, None]

    blended = {
        name: weight * batch[name] + (1 - weight) * batch[name][::-1]
        for name in TARGETS
        if name in batch
    }
    if union:
        both = jnp.maximum(batch["targets"], batch["targets"][::-1])
        blended["targets"] = jnp.where(draw.cut[:, None], both, blended["targets"])
    return {"image": mixed_images} | blended


def box_of_share(key: jax.Array, size: tuple[int, int], *, share: jax.Array) -> jax.Array:
    """A box int32 (4,) with 1 - `share` of the image, around any pixel and clipped to the image."""
    sides = []
    for length, side_key in zip(size, jax.random.split(key), strict=True):
        cut = (length * jnp.sqrt(1 - share)).astype(jnp.int32)
        centre = jax.random.randint(side_key, (), 0, length)
        sides += [
            jnp.clip(centre - cut // 2, 0, length),
            jnp.clip(centre + (cut + 1) // 2, 0, length),
        ]
    return jnp.stack(sides)


def box_of_sides(key: jax.Array, size: tuple[int, int], *, low: float, high: float) -> jax.Array:
    """A box int32 (4,) within the image, with sides from `low` to `high` of the image's."""
    sides = []
    for length, side_key in zip(size, jax.random.split(key), strict=True):
        cut_key, place_key = jax.random.split(side_key)
        most = max(int(length * high), int(length * low) + 1)
        cut = jax.random.randint(cut_key, (), int(length * low), most)
        start = jax.random.randint(place_key, (), 0, length - cut + 1)
        sides += [start, start + cut]
    return jnp.stack(sides)


def _beta(key: jax.Array, alpha: float) -> jax.Array:
    return jax.random.beta(key, alpha, alpha) if alpha else jnp.ones(())
