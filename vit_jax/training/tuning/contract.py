"""The contract of what trains in a run."""

import dataclasses
from typing import ClassVar

from vit_jax.models import zoo
from vit_jax.models.options import EncoderOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """Which parameters train. Its fields are its part of the config."""

    whole: ClassVar[bool] = False  # whether the whole model trains
    fixed_statistics: ClassVar[bool] = False  # whether batch norm uses its running averages

    @property
    def caches(self) -> bool:
        """Whether what the trained layers read is computed once, instead of at every step."""
        return False

    def model(self, options: zoo.Options) -> zoo.Options:
        """The model to train. Raises ValueError if this kind cannot train it."""
        if not (self.whole or options.num_classes):
            raise ValueError(
                f"config.tune fine-tunes a part of a classifier, but {options.kind} has no classes:"
                " use config.tune.kind=full"
            )
        return options

    def trains(self, path: str, options: zoo.Options) -> bool:
        """Whether the parameter with this path trains."""
        raise NotImplementedError

    def frozen_blocks(self, options: zoo.Options) -> int:
        """The number of blocks, from the first, that do not train although their paths do."""
        return 0


def vit(options: zoo.Options) -> EncoderOptions:
    """The options of a ViT. Raises ValueError for another model."""
    if not isinstance(options, EncoderOptions):
        raise ValueError(
            f"this config.tune.kind is for Vision Transformers, not for {options.kind}"
        )
    return options
