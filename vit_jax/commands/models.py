"""`models`: prints the table of the zoo."""

import argparse
from collections.abc import Sequence
from typing import Any

from vit_jax.text import printable, printable_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", default="", help="a model, under any of its names, or a part of names"
    )
    parser.add_argument("--family", default="", help="vit, hybrid, deit, beit, mae, bit, swin, ...")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per model, each on a line"
    )


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """List the models of the zoo: sizes, parameters, cost, paper, licence.

    The models are as published: their image size, and 1000 classes, except those of pretraining.
    The cost is that of a forward pass without masking; a multiply-add counts as two. "arXiv" is the
    paper, "weights" the licence of the weights that its authors released. Other patch sizes work
    too, such as "B/8" or "S/14", and names of timm, Hugging Face and torchvision.
    """
    from vit_jax.models import zoo

    named = _selected(options.name, options.family)
    found = [_facts(name, zoo.options(written)) for written, name in named.items()]
    if options.json:
        for facts in found:
            print(printable_json(facts))
        return 0
    for written, name in named.items():
        if written != name:
            print(printable(zoo.understood(written).described(written)))
    for line in _table(found):
        print(line)
    return 0


def _selected(name: str, kind: str) -> dict[str, str]:
    """The names of the zoo to list, by the name to take the options of.

    Raises ValueError where no model has the name or is of this kind.
    """
    from vit_jax import schema
    from vit_jax.models import origins, zoo

    kinds = {one: origins.origin(one).kind for one in zoo.names()}
    if kind and kind not in kinds.values():
        raise ValueError(f"no family {kind!r}: {schema.nearest(kind, set(kinds.values()))}")
    part = {one: one for one in kinds if name.lower() in one.lower()}
    if name and name not in part:
        try:
            part = {name: zoo.understood(name).name}
        except ValueError:
            if not part:
                raise
    elif name:
        part = {name: name}
    found = {key: one for key, one in part.items() if kind in ("", origins.origin(one).kind)}
    if not found:
        raise ValueError(f"no model of the family {kind!r} has {name!r} in its name")
    return found


def _facts(name: str, options: Any) -> dict[str, Any]:
    """What is known of a model; None where it differs between stages, or is unknown."""
    from vit_jax.models import flops, origins

    origin = origins.origin(name)
    sizes = options.listed or (None,) * 5  # where they differ between stages
    return {
        "model": name,
        "family": origin.kind,
        **dict(zip(("width", "depth", "mlp", "heads", "tokens"), sizes, strict=True)),
        "parameters": flops.parameters(options),
        "gflops": flops.forward(options) / 1e9,
        "image_size": options.image_size,
        "arxiv": origin.paper or None,
        "weights": origin.licence or None,
    }


def _table(found: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of a table with a row for each model."""
    header = {"gflops": "GFLOPs", "image_size": "pixels", "arxiv": "arXiv"}
    columns = [key for key in found[0] if key != "family"]
    rows = [[header.get(key, key) for key in columns]]
    rows += [[_shown(key, facts[key]) for key in columns] for facts in found]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    left = ("model", "weights")
    return [
        "  ".join(
            cell.ljust(width) if key in left else cell.rjust(width)
            for key, cell, width in zip(columns, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "parameters":
        return f"{value:,}"
    if key == "gflops":
        return f"{value:.1f}"
    return "x".join(map(str, value)) if key == "image_size" else str(value)
