"""Values of the command line that several commands read, and a hint that several show."""

import argparse

HINT = "The fields of a config, their types, defaults and meanings: vit_jax config [FIELD]"


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
