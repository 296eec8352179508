"""How a model is judged: one file an evaluator, and a table of them.

`contract` says what each is.
"""

from vit_jax.evaluators.contract import Context, Evaluator, Measure
from vit_jax.evaluators.held_out import HeldOut
from vit_jax.evaluators.knn import Knn

HELD_OUT = "held_out"  # the name of the evaluator whose metrics are called without it

__all__ = ["HELD_OUT", "EVALUATORS", "Context", "Evaluator", "HeldOut", "Knn", "Measure"]

# By the name that a config gives them.
EVALUATORS: dict[str, type[Evaluator]] = {
    "held_out": HeldOut,
    "knn": Knn,
}
