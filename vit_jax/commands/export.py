"""`export`: writes a model as a folder that other programs run."""

import argparse
from collections.abc import Sequence

from vit_jax.commands import arguments
from vit_jax.commands.arguments import (
    MOST_OF_A_BATCH,
    batch_size,
    checkpoint_step,
    count,
    size,
)
from vit_jax.text import printable

FORMATS = ("stablehlo", "onnx", "safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="folder of a run, or a released file")
    parser.add_argument("target", metavar="OUT", help="the folder to write")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument(
        "--image-size",
        type=size,
        action="append",
        default=[],
        help="HEIGHT or HEIGHT,WIDTH; repeatable: a program for each size",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="of the stored kernels, and of the computation: float32 for kernels in int8",
    )
    parser.add_argument(
        "--batch",
        type=_batches,
        default=(),
        metavar="N,N",
        help="a program for each of these numbers of images; any: one program for any number",
    )
    parser.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="PATH",
        help="images to compare the program with the model on; repeatable. Unset: those of the run",
    )
    parser.add_argument(
        "--measured", type=count, default=200, metavar="N", help="the most images to compare on"
    )
    parser.add_argument("--licence", default="", help="of the weights, for the model card")
    parser.add_argument(
        "--not-for",
        action="append",
        default=[],
        metavar="USE",
        help="what the model must not be used for, for the model card; repeatable",
    )
    arguments.add_classes(parser)


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Write a model as a folder that other programs run without this package.

    The folder has the program (uint8 images in, probabilities out), the weights, how images are
    prepared, the class names, a model card, a server, a report of how equal program and model are,
    and a digest of every file. If they are not equal, nothing is written and the exit code is 1.
    Kernels in int8 change the model a little: the classes of --images may differ for few of them.
    With --format safetensors there is no program: `load` and `predict` read the folder.
    """
    from vit_jax.commands import exporting

    for line in exporting.export(options):
        print(printable(line))
    return 0


def _batches(text: str) -> tuple[int, ...]:
    """`any`, or numbers separated by commas."""
    if text == "any":
        return ()
    try:
        return tuple(dict.fromkeys(batch_size(part) for part in text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give any, or numbers such as 1,8, each at most {MOST_OF_A_BATCH}"
        ) from error
