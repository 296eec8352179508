"""`benchmark`: what a run reaches on the devices that are there."""

import argparse
import pathlib
from collections.abc import Callable, Sequence

from vit_jax.commands import arguments

_HELP = {
    "step": "time, rate, MFU and memory of a training step, on images that are on the devices",
    "input": "images that this host reads, decodes, crops and augments per second",
    "checkpoint": "how long a save stops training, and how long it and a restore take",
    "scaling": "rate per device on 1, 2, 4, ... devices, with as many images on each",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="benchmark", required=True, metavar="WHAT")
    add: dict[str, Callable[[argparse.ArgumentParser], None]] = {
        "step": _step,
        "input": _input,
        "checkpoint": _checkpoint,
        "scaling": _scaling,
    }
    for name, text in _HELP.items():
        one = kinds.add_parser(name, help=text, description=text, allow_abbrev=False)
        _common(one)
        add[name](one)
        one.epilog = arguments.HINT
    parser.set_defaults(config_overrides=True)


def _common(parser: argparse.ArgumentParser) -> None:
    arguments.add_recipe(parser)
    arguments.add_output(parser)
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


def _repeats(parser: argparse.ArgumentParser, *, what: str) -> None:
    _warmup(parser, what=what)
    parser.add_argument("--rounds", type=arguments.count, default=5, help="rounds (5)")
    parser.add_argument(
        f"--{what}", type=arguments.count, default=10, help=f"{what} of a round (10)"
    )


def _warmup(parser: argparse.ArgumentParser, *, what: str) -> None:
    parser.add_argument(
        "--warmup", type=arguments.count, default=3, help=f"{what} before the measurement (3)"
    )


def _input(parser: argparse.ArgumentParser) -> None:
    _repeats(parser, what="batches")
    parser.add_argument(
        "--step",
        type=pathlib.Path,
        metavar="FILE",
        help="JSON of benchmark step, to find the share of the time that devices wait for images",
    )


def _checkpoint(parser: argparse.ArgumentParser) -> None:
    arguments.add_facts(parser)
    _warmup(parser, what="steps")
    parser.add_argument(
        "--workdir",
        required=True,
        help="folder on the disk or bucket to measure; what is written there is removed",
    )
    parser.add_argument(
        "--steps", type=arguments.count, default=10, help="steps before the first save (10)"
    )
    parser.add_argument("--saves", type=arguments.count, default=5, help="saves and restores (5)")


def _scaling(parser: argparse.ArgumentParser) -> None:
    arguments.add_facts(parser)
    _repeats(parser, what="steps")


def _step(parser: argparse.ArgumentParser) -> None:
    arguments.add_facts(parser)
    _repeats(parser, what="steps")
    parser.add_argument(
        "--peak",
        type=arguments.amount,
        default=0.0,
        metavar="TFLOP/s",
        help="bfloat16 peak of a device, for the MFU; known for TPUs and a few GPUs",
    )


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Measure a training step, the input, checkpoints or scaling on this machine.

    All kinds have one JSON schema, a page with charts, and a comparison with an earlier result for
    continuous integration (docs/benchmark.md).
    """
    from vit_jax.commands import benchmarking

    return benchmarking.run(options, overrides)
