"""`convert`: writes any checkpoint as a file of any layout, or as a run."""

import argparse
from collections.abc import Sequence
from typing import get_args

from vit_jax.commands.arguments import count, size
from vit_jax.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from vit_jax.checkpoints import layouts
    from vit_jax.models.interpolation import Method

    parser.add_argument("source", help="a run, or a released file or folder")
    parser.add_argument("target", help="a file to write, or a folder")
    names = ", ".join(layouts.LAYOUTS)
    parser.add_argument("--layout", default="", help=f"layout of the target: {names}")
    parser.add_argument(
        "--source-layout", default="", help="layout of the source (default: recognised)"
    )
    parser.add_argument("--num-heads", type=count, default=0, help="if the source does not say it")
    parser.add_argument(
        "--decoder-heads",
        type=count,
        default=0,
        help="of the decoder of a masked autoencoder, if the source does not say it",
    )
    parser.add_argument(
        "--grid", type=size, help="ROWS,COLUMNS of the source's positions if not square"
    )
    parser.add_argument("--image-size", type=size, help="HEIGHT or HEIGHT,WIDTH of the target")
    parser.add_argument("--patch-size", type=size, help="HEIGHT or HEIGHT,WIDTH of the target")
    parser.add_argument("--num-classes", type=count, help="of the target; a new head is zero")
    parser.add_argument("--channels", type=count, help="of the target's images")
    parser.add_argument(
        "--adapt-channels",
        action="store_true",
        help="for other --channels: sum or repeat the first kernel, as timm does",
    )
    methods = ", ".join(get_args(Method))
    parser.add_argument("--resize", default="", help=f"how positions are interpolated: {methods}")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the target if it is a file"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the target with the source, and with the original code if it is installed",
    )


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Convert a checkpoint between layouts.

    Reads a file of any layout, which is recognised from its keys, or a run. Writes any layout, and
    prints what was mapped, resized, dropped and initialised. Nothing is written if the source does
    not fit or the target exists.
    """
    from vit_jax.checkpoints.convert import convert

    report = convert(
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
    for line in report.split("\n"):
        print(printable(line))
    return 0
