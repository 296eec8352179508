"""What the log of a run advises, from its design alone: nothing is compiled for it."""

from collections.abc import Iterator
from typing import Any

import jax

from vit_jax.models import stack
from vit_jax.parallel import rules

# Rows of a kernel that a device holds. With 16 of them, the TPU compiler adds up gradients and some
# kernels whole on every device; with 32 it scatters and gathers parts (docs/performance.md).
_FEWEST_ROWS = 32
_BY_ROWS = ("qkv/kernel", "fc1/kernel", "fc2/kernel")


def thin_parts(shapes: Any, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> str:
    """A note if `fsdp` leaves so few rows of a kernel on a device that TPUs add up whole arrays.

    `shapes` are the parameters; "" if there is nothing to note.
    """
    fsdp = mesh.shape["fsdp"]
    rows = min(_split_rows(shapes, mesh), default=0)
    if fsdp == 1 or not rows or rows // fsdp >= _FEWEST_ROWS:
        return ""
    fits = [n for n in range(1, fsdp) if fsdp % n == 0 and rows // n >= _FEWEST_ROWS]
    better = f": --config.mesh.data=-1 --config.mesh.fsdp={max(fits)} moves less" if fits else ""
    return (
        f"note: config.mesh.fsdp {fsdp} leaves {rows // fsdp} rows of a kernel on a device, and"
        f" TPUs add up whole gradients below {_FEWEST_ROWS} rows{better}"
    )


def _split_rows(shapes: Any, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> Iterator[int]:
    """The rows of each kernel of the blocks that `fsdp` splits by rows, on all devices together.

    The kernel after the attention is left out: its rows are two axes, heads and their widths.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not stack.is_stacked(name) or not name.endswith(_BY_ROWS):
            continue
        axes = tuple(rules.spec(name, leaf.shape, mesh))
        if "fsdp" in axes:
            yield leaf.shape[axes.index("fsdp")]
