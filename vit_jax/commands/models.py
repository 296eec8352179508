"""`models`: prints the table of the zoo."""

import argparse
import math
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # this command has no arguments


def run(_: argparse.Namespace, __: Sequence[str]) -> int:
    """List the models of the zoo: sizes, parameters, cost.

    The models are as published: 224 pixels, and 1000 classes, except those of pretraining. The cost
    is that of a forward pass without masking; a multiply-add counts as two. Other patch sizes
    work too, such as "B/8" or "S/14".
    """
    from vit_jax.models import zoo

    header = ("model", "width", "depth", "mlp", "heads", "tokens", "parameters", "GFLOPs")
    rows = [header, *(_row(name) for name in zoo.names())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells))
    return 0


def _row(name: str) -> tuple[str, ...]:
    import jax

    from vit_jax.models import flops, zoo

    options = zoo.options(name)
    _, shapes = zoo.abstract(options)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    sizes: tuple[object, ...] = options.listed or ("-",) * 5  # where they differ between stages
    gflops = f"{flops.forward(options) / 1e9:.1f}"
    return (name, *map(str, sizes), f"{parameters:,}", gflops)
