"""Which parts of a model train: all, or a few, which saves memory and time in fine-tuning.

A parameter that does not train has no gradient and no state of the optimizer, and keeps its bits.
What is computed only for such parameters is not differentiated, so its activations are not kept.
"""

import dataclasses
from typing import ClassVar

from vit_jax.models import zoo
from vit_jax.models.fitting import under
from vit_jax.models.lora import LoraOptions
from vit_jax.models.options import EncoderOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """Which parameters train. Its fields are its part of the config."""

    whole: ClassVar[bool] = False  # whether the whole model trains
    fixed_statistics: ClassVar[bool] = False  # whether batch norm uses its running averages

    def model(self, options: zoo.Options) -> zoo.Options:
        """The model to train. Raises ValueError if this kind cannot train it."""
        if not (self.whole or options.num_classes):
            raise ValueError(
                f"config.tune.kind={_name(self)} fine-tunes a classifier, but {options.kind} has"
                " no classes: use full"
            )
        return options

    def trains(self, path: str, options: zoo.Options) -> bool:
        """Whether the parameter with this path trains."""
        raise NotImplementedError

    def frozen_blocks(self, options: zoo.Options) -> int:
        """The number of blocks, from the first, that do not train although their paths do."""
        return 0


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
        depth = getattr(_encoder(self, options), "depth", 0)
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
        return _encoder(self, options).depth - self.last


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank(Tuning, LoraOptions):
    """Low-rank adapters of a ViT and the layers after the encoder train (LoRA, arXiv 2106.09685).

    A run saves the model and its adapters. `load` adds the adapters to the kernels.
    """

    def model(self, options: zoo.Options) -> zoo.Options:
        known = {f.name: getattr(self, f.name) for f in dataclasses.fields(LoraOptions)}
        adapted = zoo.change(_encoder(self, options), lora=LoraOptions(**known))
        return super().model(adapted)

    def trains(self, path: str, options: zoo.Options) -> bool:
        return "/lora/" in path or Head().trains(path, options)


# By the name in a config.
TUNINGS: dict[str, type[Tuning]] = {
    "full": Full,
    "head": Head,
    "bitfit": BitFit,
    "blocks": Blocks,
    "lora": LowRank,
}


def check_start(tuning: Tuning) -> None:
    """Raises ValueError unless this part of a model can train on parameters that are all new."""
    if not tuning.whole:
        raise ValueError(
            f"config.tune.kind={_name(tuning)} trains a part of a model and keeps the rest: name"
            " the model to start from, config.init_from"
        )


def _name(tuning: Tuning) -> str:
    return next(name for name, kind in TUNINGS.items() if type(tuning) is kind)


def _encoder(tuning: Tuning, options: zoo.Options) -> EncoderOptions:
    """The options of a ViT. Raises ValueError for another model."""
    if not isinstance(options, EncoderOptions):
        raise ValueError(
            f"config.tune.kind={_name(tuning)} is for Vision Transformers, not for {options.kind}"
        )
    return options
