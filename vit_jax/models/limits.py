"""What each field of a model's options may be, on its own.

The largest sizes are far above every published model. A larger number is a mistake or an attack:
they stop a damaged or hostile file from asking for more memory than any machine has.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

MOST = 2**20  # of a field that _MOST does not name
_MOST = {"width": 2**16, "depth": 2**12, "num_heads": 2**12, "image_size": 2**16}
MOST_PIXELS = 2**27  # of an image
MOST_TOKENS = 2**20
MOST_PARAMETERS = 2**38  # a terabyte of float32
# In [0, 1), where a model has them.
_SHARES = ("dropout", "attention_dropout", "drop_path", "norm_eps", "std_eps", "head_std")


def check(options: Any) -> None:
    """Raises ValueError for a choice that there is not, and for a number that no model has.

    That is one that is negative, not finite or too large, or a rate outside of [0, 1). Stricter
    conditions, such as at least one head, are checked by the options class itself.
    """
    for name, hint in get_type_hints(type(options)).items():
        value, choices = getattr(options, name), get_args(hint)
        if get_origin(hint) is Literal and value not in choices:
            raise ValueError(f"{name} is {value!r}: choose one of {', '.join(map(repr, choices))}")
        if name in _SHARES and not 0 <= value < 1:
            raise ValueError(f"{name} is {value}: it must be in [0, 1)")
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
