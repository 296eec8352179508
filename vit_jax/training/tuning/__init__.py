"""Which parts of a model train: one file each, and a table; `contract` defines them.

Training a few saves memory and time in fine-tuning. A parameter that does not train has no gradient
and no state of the optimizer, and keeps its bits. What is computed only for such parameters is not
differentiated, so its activations are not kept.
"""

from vit_jax.training.tuning.contract import Tuning
from vit_jax.training.tuning.low_rank import LowRank
from vit_jax.training.tuning.parts import BitFit, Blocks, Full, Head

__all__ = ["TUNINGS", "Tuning"]

# By the name in a config.
TUNINGS: dict[str, type[Tuning]] = {
    "full": Full,
    "head": Head,
    "bitfit": BitFit,
    "blocks": Blocks,
    "lora": LowRank,
}
