"""`plan`: what a run would need on TPUs or GPUs, before anyone rents them."""

import argparse
import pathlib
from collections.abc import Sequence

from vit_jax.commands import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_recipe(parser)
    parser.add_argument(
        "--topology",
        action="append",
        required=True,
        metavar="NAME",
        help="such as v5e-256, v5p-512, 2xv5e-256, v6e:4x4, h100-8; several with commas",
    )
    arguments.add_facts(parser)
    parser.add_argument(
        "--price", type=arguments.amount, default=0.0, help="of a chip for an hour, in any currency"
    )
    decoding = parser.add_mutually_exclusive_group()
    decoding.add_argument(
        "--input-json",
        type=pathlib.Path,
        metavar="FILE",
        help="what `benchmark input --json` printed, to find input-bound hosts",
    )
    decoding.add_argument(
        "--decoded",
        type=arguments.amount,
        default=0.0,
        metavar="IMAGES",
        help="without such a file: images that one core of a host decodes per second",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="find the largest batch that fits, and the fastest mesh and remat",
    )
    parser.add_argument(
        "--scaling",
        type=arguments.count,
        metavar="CHIPS",
        help="weak and strong scaling, from the first topology up to this many chips",
    )
    arguments.add_output(parser)
    parser.add_argument(
        "--limit", type=arguments.count, default=600, help="most seconds of a compilation"
    )
    parser.set_defaults(config_overrides=True)
    parser.epilog = arguments.HINT


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Plan a run: memory, time and cost on TPUs or GPUs, without one.

    The step of the recipe is compiled on this machine, by the TPU compiler (pip install
    vit_jax[tpu]) or by the one for GPUs; nothing is executed and no data are needed. Results are
    kept in the user's cache folder, so that the same plan is there at once the next time.
    """
    from vit_jax.commands import planning

    return planning.run(options, overrides)
