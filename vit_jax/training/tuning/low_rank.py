"""Low-rank adapters, which a model gets beside its kernels."""

import dataclasses

from vit_jax.models import zoo
from vit_jax.models.lora import LoraOptions
from vit_jax.training.tuning.contract import Tuning, vit
from vit_jax.training.tuning.parts import Head


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank(Tuning, LoraOptions):
    """Low-rank adapters of a ViT and the layers after the encoder train (LoRA, arXiv 2106.09685).

    A run saves the model and its adapters. `load` adds the adapters to the kernels.
    """

    def model(self, options: zoo.Options) -> zoo.Options:
        known = {f.name: getattr(self, f.name) for f in dataclasses.fields(LoraOptions)}
        adapted = zoo.change(vit(options), lora=LoraOptions(**known))
        return super().model(adapted)

    def trains(self, path: str, options: zoo.Options) -> bool:
        return "/lora/" in path or Head().trains(path, options)
