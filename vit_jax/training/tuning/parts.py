"""All parameters of a model train, or a part of those that it has."""

import dataclasses
from typing import ClassVar

from vit_jax.models import zoo
from vit_jax.models.fitting import under
from vit_jax.models.options import EncoderOptions
from vit_jax.training.tuning.contract import Tuning, vit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Full(Tuning):
    """All parameters train."""

    whole: ClassVar[bool] = True

    def trains(self, path: str, options: zoo.Options) -> bool:
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head(Tuning):
    """Only the layers after the encoder train: the head, and what pools or norms before it."""

    fixed_statistics: ClassVar[bool] = True

    cached: bool = False  # compute what these layers read once, instead of at every step

    @property
    def caches(self) -> bool:
        return self.cached

    def trains(self, path: str, options: zoo.Options) -> bool:
        if isinstance(options, EncoderOptions):
            return not under(path, ("encoder",))
        return under(path, zoo.family(options).fitting.heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BitFit(Tuning):
    """All biases and the layers after the encoder train (BitFit, arXiv 2106.10199)."""

    def trains(self, path: str, options: zoo.Options) -> bool:
        return path.endswith("/bias") or Head().trains(path, options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks(Tuning):
    """Only the last blocks of a ViT, its last norm, and the layers after the encoder train."""

    last: int = 4  # number of blocks that train

    def model(self, options: zoo.Options) -> zoo.Options:
        depth = getattr(vit(options), "depth", 0)
        if not 1 <= self.last <= depth:
            raise ValueError(
                f"config.tune.last is {self.last}: it must be in [1, {depth}], the blocks of the"
                " model"
            )
        return super().model(options)

    def trains(self, path: str, options: zoo.Options) -> bool:
        after = under(path, ("encoder/blocks", "encoder/norm"))
        return after or Head().trains(path, options)

    def frozen_blocks(self, options: zoo.Options) -> int:
        return vit(options).depth - self.last
