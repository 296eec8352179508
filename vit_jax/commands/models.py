"""`models`: the table of the zoo."""

import argparse
import math
from collections.abc import Sequence

import jax
from flax import nnx

from vit_jax.models import flops, zoo
from vit_jax.models.vit import ViTOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # it takes none


def run(_: argparse.Namespace, __: Sequence[str]) -> int:
    """List the models of the zoo: sizes, parameters, cost.

    At 224 pixels with 1000 classes and a class token; a
    multiply-add counts as two operations. Any other patch size works too: "B/8", "S/14".
    """
    header = ("model", "width", "depth", "mlp", "heads", "tokens", "parameters", "GFLOPs")
    rows = [header, *(_row(name) for name in zoo.names())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells))
    return 0


def _row(name: str) -> tuple[str, ...]:
    options = zoo.options(name)
    assert isinstance(options, ViTOptions), name
    shapes = jax.eval_shape(lambda: nnx.state(zoo.init(options, key=jax.random.key(0))))
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    sizes = (options.width, options.depth, options.mlp_dim, options.num_heads, options.tokens)
    gflops = f"{flops.forward(options) / 1e9:.1f}"
    return (name, *(str(size) for size in sizes), f"{parameters:,}", gflops)
