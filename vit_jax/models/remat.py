"""What the backward pass of a block keeps of the forward pass, and what it computes again.

Values that are dear to compute and small have names. A policy is a set of the names that it keeps;
everything else of a block is computed again from them.
"""

import functools
from typing import Any, Literal

import jax
from jax.ad_checkpoint import checkpoint_name

Remat = Literal["auto", "none", "dots", "lean", "full"]

STATISTICS = "norm_statistics"  # mean and 1/deviation of each token
QKV = "qkv"  # queries, keys and values, with their bias
ATTENTION = "attention"  # the output of the attention, before its projection
LOG_SUM = "attention_log_sum"  # logarithm of the sum of the exponentials, for each query and head
RESIDUAL = "attention_residual"  # the tokens between attention and MLP
HIDDEN = "mlp_hidden"  # the output of the first layer of the MLP, with its bias
BRANCH = "branch"  # the output of a branch that is scaled: the gradient of the scale needs it

_LEAN = (STATISTICS, ATTENTION, LOG_SUM, RESIDUAL, HIDDEN, BRANCH)
_KEPT = {"dots": (*_LEAN, QKV), "lean": _LEAN, "full": ()}


def named(x: jax.Array, name: str) -> jax.Array:
    """The same array, which policies know by this name."""
    return checkpoint_name(x, name)


def checkpointed(body: Any, remat: str) -> Any:
    """The same function of a scan, whose backward pass keeps what the option `remat` says.

    "auto" means "dots": training replaces it by a choice for its devices.
    """
    if remat == "none":
        return body
    kept = _KEPT["dots" if remat == "auto" else remat]
    policy = jax.checkpoint_policies.save_only_these_names(*kept)
    # A scan separates its iterations, so `prevent_cse` is not needed.
    return functools.partial(jax.checkpoint, prevent_cse=False, policy=policy)(body)
