"""What several commands share: options, values of options, and a hint that they show."""

import argparse
import pathlib

MOST_OF_A_BATCH = 2**20  # images, as of config.batch_size
HINT = "The fields of a config, their types, defaults and meanings: vit_jax config [FIELD]"


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:ARGUMENT]", help="the recipe")


def add_classes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--classes",
        type=pathlib.Path,
        metavar="FILE",
        help="names of the model's classes: lines, or a JSON list or object",
    )


def add_facts(parser: argparse.ArgumentParser) -> None:
    """What must be known of data that are not opened."""
    parser.add_argument("--train-size", type=count, help="training images of the data")
    parser.add_argument("--num-classes", type=count, help="classes of the data")


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--html", type=pathlib.Path, metavar="FILE", help="write a page with charts"
    )


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


def batch_size(text: str) -> int:
    """A positive number of images that a batch may have."""
    if (number := count(text)) > MOST_OF_A_BATCH:
        raise argparse.ArgumentTypeError(f"{text!r}: it must be at most {MOST_OF_A_BATCH}")
    return number


def amount(text: str) -> float:
    """A finite number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number that is not negative")
    return value


def checkpoint_step(text: str) -> int | str:
    """`latest`, `best`, or the number of a step."""
    if text in ("latest", "best"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give latest, best, or the number of a step")
    return int(text)


def _positive(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < len(text.lstrip("0")) < 20
