"""Evaluators: how a model is measured. One file each, and a table; `contract` defines them."""

from vit_jax.evaluators.codebook import Codebook
from vit_jax.evaluators.contract import Context, Evaluator, Measure
from vit_jax.evaluators.few_shot import FewShot
from vit_jax.evaluators.held_out import HeldOut
from vit_jax.evaluators.knn import Knn
from vit_jax.evaluators.linear_probe import LinearProbe
from vit_jax.evaluators.robustness import Robustness

HELD_OUT = "held_out"  # the name of the evaluator whose metrics have no prefix

__all__ = [
    "HELD_OUT",
    "EVALUATORS",
    "Context",
    "Evaluator",
    "HeldOut",
    "Knn",
    "Measure",
    "Robustness",
]

# By the name in a config.
EVALUATORS: dict[str, type[Evaluator]] = {
    "codebook": Codebook,
    "few_shot": FewShot,
    "held_out": HeldOut,
    "knn": Knn,
    "linear_probe": LinearProbe,
    "robustness": Robustness,
}
