"""Optimizers: one file each, and a table; `contract` defines them.

The state of an optimizer repeats the nested dict of the parameters for each moment, below a prefix.
So the rules that shard a parameter by its path also shard its moments.
"""

from vit_jax.training.optimizers.adafactor import Adafactor
from vit_jax.training.optimizers.adam import Adam, AdamW
from vit_jax.training.optimizers.contract import MomentDtype, Rule
from vit_jax.training.optimizers.lamb import Lamb
from vit_jax.training.optimizers.lars import Lars
from vit_jax.training.optimizers.lion import Lion
from vit_jax.training.optimizers.muon import Muon
from vit_jax.training.optimizers.sgd import Sgd

__all__ = ["OPTIMIZERS", "Adam", "AdamW", "MomentDtype", "Rule", "Sgd"]

# By the name in a config.
OPTIMIZERS: dict[str, type[Rule]] = {
    "adamw": AdamW,
    "adam": Adam,
    "sgd": Sgd,
    "lamb": Lamb,
    "lars": Lars,
    "lion": Lion,
    "adafactor": Adafactor,
    "muon": Muon,
}
