"""The largest sizes that a model may have. A larger number is a mistake or an attack.

The limits are far above every published model. They stop a damaged or hostile file from asking for
more memory than any machine has.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

MOST = 2**20  # of a field that _MOST does not name
_MOST = {"width": 2**16, "depth": 2**12, "num_heads": 2**12, "image_size": 2**16}
MOST_PIXELS = 2**27  # of an image
MOST_TOKENS = 2**20
MOST_PARAMETERS = 2**38  # a terabyte of float32


def check(options: Any) -> None:
    """Raises ValueError if a number in a model's options is negative, not finite or too large.

    Stricter conditions, such as at least one head, are checked by the options class itself.
    """
    for field in dataclasses.fields(options):
        value, most = getattr(options, field.name), _MOST.get(field.name, MOST)
        for number in _numbers(value):
            if isinstance(number, int) and not 0 <= number <= most:
                raise ValueError(f"{field.name} is {value}: it must be from 0 to {most:,}")
            if not math.isfinite(number):
                raise ValueError(f"{field.name} is {value}: it must be finite")
    size = getattr(options, "image_size", ())
    if math.prod(size) > MOST_PIXELS:
        raise ValueError(f"image_size is {size}: it must have at most {MOST_PIXELS:,} pixels")


def check_tokens(number: int) -> None:
    if number > MOST_TOKENS:
        raise ValueError(
            f"the image has {number:,} patches, at most {MOST_TOKENS:,} are possible:"
            " use larger patches or a smaller image"
        )


def check_parameters(number: int) -> None:
    if number > MOST_PARAMETERS:
        raise ValueError(
            f"the model would have {number:,} parameters, more than any machine holds:"
            " use a smaller width, depth or number of classes"
        )


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, tuple):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, int | float):
        yield value
