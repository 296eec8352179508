"""`figures`: draws pictures of a run, or of the augmentations of a recipe."""

import argparse
from collections.abc import Sequence

from vit_jax.commands.arguments import checkpoint_step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", help="folder of the run")
    parser.add_argument(
        "--step", type=checkpoint_step, default="latest", help="latest, best, or a number"
    )
    parser.add_argument(
        "--augment", action="store_true", help="draw the augmentations of --config or of the run"
    )
    parser.add_argument("--config", metavar="FILE[:ARGUMENT]", help="a recipe, for --augment")
    parser.add_argument("-o", "--output", help="folder for the pictures of --augment")
    parser.set_defaults(config_overrides=True)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Draw a run: curves, predictions, filters, similarity of positions.

    A discrete VAE has reconstructions and the use of its codebook instead of predictions.
    Writes PNG files into pictures/ of the run and prints where they are. With --augment, draws one
    picture for each augmentation of a recipe or a run (augment_NAME.png): a row for each image, a
    column for each random draw.
    """
    from vit_jax.commands import pictures

    return pictures.run(options, overrides)
