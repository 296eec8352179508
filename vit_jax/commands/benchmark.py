"""`benchmark`: what a run reaches on the devices that are there."""

import argparse
import pathlib
from collections.abc import Callable, Sequence

from vit_jax.commands import arguments

_HELP = {
    "step": "time, rate, MFU and memory of a training step, on images that are on the devices",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="benchmark", required=True, metavar="WHAT")
    add: dict[str, Callable[[argparse.ArgumentParser], None]] = {"step": _step}
    for name, text in _HELP.items():
        one = kinds.add_parser(name, help=text, description=text, allow_abbrev=False)
        _common(one)
        add[name](one)
        one.epilog = arguments.HINT
    parser.set_defaults(config_overrides=True)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:ARGUMENT]", help="the recipe")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--html", type=pathlib.Path, metavar="FILE", help="write a page with charts"
    )
    parser.add_argument(
        "--compare",
        type=pathlib.Path,
        metavar="FILE",
        help="JSON of an earlier benchmark; the exit code is 3 if something became worse",
    )
    parser.add_argument(
        "--tolerance",
        type=arguments.amount,
        default=1.0,
        metavar="PERCENT",
        help="changes up to this one are none, even beyond noise (1)",
    )


def _facts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train-size", type=arguments.count, help="training images of the data")
    parser.add_argument("--num-classes", type=arguments.count, help="classes of the data")


def _repeats(parser: argparse.ArgumentParser, *, what: str, number: int) -> None:
    name = what.replace(" ", "-")
    parser.add_argument(
        "--warmup", type=arguments.count, default=3, help=f"{what} before the measurement (3)"
    )
    parser.add_argument("--rounds", type=arguments.count, default=5, help="rounds (5)")
    parser.add_argument(
        f"--{name}", type=arguments.count, default=number, help=f"{what} of a round ({number})"
    )


def _step(parser: argparse.ArgumentParser) -> None:
    _facts(parser)
    _repeats(parser, what="steps", number=10)
    parser.add_argument(
        "--peak",
        type=arguments.amount,
        default=0.0,
        metavar="TFLOP/s",
        help="bfloat16 peak of a device, for the MFU; known for TPUs",
    )


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Measure a training step, the input, checkpoints or scaling on this machine.

    All kinds have one JSON schema, a page with charts, and a comparison with an earlier result for
    continuous integration (docs/benchmark.md).
    """
    from vit_jax.commands import benchmarking

    return benchmarking.run(options, overrides)
