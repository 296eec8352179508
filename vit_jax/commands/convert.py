"""`convert`: from any checkpoint to a file of any layout, or to a run."""

import argparse
from collections.abc import Sequence
from typing import get_args

from vit_jax.checkpoints import layouts
from vit_jax.checkpoints.convert import convert
from vit_jax.models.interpolation import Method


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a run, or a released file or folder")
    parser.add_argument("target", help="a file to write, or a folder")
    names = ", ".join(layouts.LAYOUTS)
    parser.add_argument("--layout", default="", help=f"of the target: {names}")
    parser.add_argument("--source-layout", default="", help="of the source (default: recognised)")
    parser.add_argument("--num-heads", type=count, default=0, help="where the file cannot tell it")
    parser.add_argument("--decoder-heads", type=count, default=0, help="of a masked autoencoder")
    parser.add_argument("--grid", type=size, help="of the source's positions where not square")
    parser.add_argument("--image-size", type=size, help="HEIGHT or HEIGHT,WIDTH of the target")
    parser.add_argument("--patch-size", type=size, help="HEIGHT or HEIGHT,WIDTH of the target")
    parser.add_argument("--num-classes", type=count, help="of the target: another head is zero")
    parser.add_argument("--channels", type=count, help="of the target's images")
    parser.add_argument(
        "--adapt-channels",
        action="store_true",
        help="for other --channels: sum or repeat the first kernel, as timm does it",
    )
    methods = ", ".join(get_args(Method))
    parser.add_argument("--resize", default="", help=f"of positions, for the family's: {methods}")
    parser.add_argument("--overwrite", action="store_true", help="the target, if it is a file")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare what was written, and the original code where it is installed",
    )


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Convert a checkpoint between layouts.

    Reads any of them (recognised from the keys) or a run, writes any, and prints what was mapped,
    resized, dropped and initialised. Nothing is written where the source does not fit, or where the
    target is there already.
    """
    print(
        convert(
            options.source,
            options.target,
            layout=options.layout,
            source_layout=options.source_layout,
            num_heads=options.num_heads,
            decoder_heads=options.decoder_heads,
            grid=options.grid,
            image_size=options.image_size,
            patch_size=options.patch_size,
            num_classes=options.num_classes,
            channels=options.channels,
            adapt_channels=options.adapt_channels,
            resize=options.resize,
            check=options.check,
            overwrite=options.overwrite,
        )
    )
    return 0


def size(text: str) -> tuple[int, int]:
    """`HEIGHT` or `HEIGHT,WIDTH`."""
    parts = text.replace("x", ",").split(",")
    if len(parts) > 2 or not all(_positive(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give HEIGHT or HEIGHT,WIDTH, both positive")
    return int(parts[0]), int(parts[-1])


def count(text: str) -> int:
    """A positive whole number."""
    if not _positive(text):
        raise argparse.ArgumentTypeError(f"{text!r}: give a positive whole number")
    return int(text)


def _positive(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < len(text.lstrip("0")) < 20
