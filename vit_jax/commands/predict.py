"""`predict`: prints the most probable classes of image files."""

import argparse
import sys
from collections.abc import Sequence

from vit_jax.commands.arguments import checkpoint_step, count
from vit_jax.text import printable, printable_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG or WebP files")
    parser.add_argument("--workdir", required=True, help="folder of a run, or a released file")
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument(
        "--top", type=count, default=5, help="number of classes to show for each image"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per image, each on a line"
    )


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Show the most probable classes of images."""
    from vit_jax.checkpoints.load import load
    from vit_jax.commands.predictions import predict

    model = load(options.workdir, step=options.step, substitute=True)
    failures = 0
    for path, result in predict(model, options.images, top=options.top):
        if isinstance(result, str):
            print(printable(f"vit_jax: {path}: {result}"), file=sys.stderr)
            failures += 1
        elif options.json:
            classes = [{"class": name, "probability": p} for name, p in result]
            print(printable_json({"image": path, "classes": classes}))
        else:
            shown = ", ".join(f"{name} {100 * p:.1f}%" for name, p in result)
            print(printable(f"{path}: {shown}"))
    return 2 if failures else 0
