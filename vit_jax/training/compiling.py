"""Options of XLA for programs on a CPU, so that a run begins sooner. They change no bit of results.

Measured in docs/performance.md: matrix products are calls of a library, and what is between them
is as fast at level 1 of LLVM as at its default, 3.
"""

from typing import Any

import jax

Options = dict[str, bool | int]

_QUICK: Options = {"xla_backend_optimization_level": 1}


def often(shardings: Any) -> Options | None:
    """Options for a program that runs at every step, on the devices of a tree of shardings."""
    return _QUICK if _on_cpu(shardings) else None


def once(shardings: Any) -> Options | None:
    """Options for a program that runs once: its compilation takes longer than its run."""
    return _QUICK | {"xla_cpu_use_fusion_emitters": False} if _on_cpu(shardings) else None


def _on_cpu(shardings: Any) -> bool:
    first = jax.tree.leaves(shardings)[0]
    return next(iter(first.device_set)).platform == "cpu"
