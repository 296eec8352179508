"""Options of XLA for programs on a CPU, so that a run begins sooner. They change no bit of results.

Measured in docs/performance.md: matrix products are calls of a library, and what is between them
is as fast at level 1 of LLVM as at its default, 3.
"""

from typing import Any

import jax


def options(shardings: Any) -> dict[str, int] | None:
    """Options for a program whose results have the shardings of this tree; None: the defaults."""
    first = jax.tree.leaves(shardings)[0]
    on_cpu = next(iter(first.device_set)).platform == "cpu"
    return {"xla_backend_optimization_level": 1} if on_cpu else None
