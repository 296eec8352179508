"""Models with ten or more blocks in a stage that an earlier version saved. Only readers know of it.

Up to format 2 of model.json, such a model ran the blocks of a stage in the order of their names as
texts: block1, block10, block11, block2. A model that was trained so is only right in that order.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from vit_jax.models.dvae import DVAEOptions
from vit_jax.models.regnet import RegNetOptions
from vit_jax.models.resnet_v1 import ResNetOptions
from vit_jax.models.zoo import Options

FIXED = 3  # the first format of models whose blocks run in the order of their numbers


Order = Literal["number", "name", "unknown"]


def matters(options: Options) -> bool:
    """Whether the order of names as texts is another one for a model with these options."""
    if isinstance(options, RegNetOptions | ResNetOptions):
        return max(options.depths) > 9
    return isinstance(options, DVAEOptions) and options.blocks > 9


def of_trained(card: Mapping[str, Any], config: Any) -> Order:
    """The order in which a model for which it `matters` ran its blocks when it was trained.

    `card` and `config` are the contents of model.json and config.json. A run that `convert` wrote
    has the parameters of a released file, and its config no optimizer. An exported model has no
    config.
    """
    if card.get("format", 1) >= FIXED:
        return "number"
    if not isinstance(config, Mapping):
        return "unknown"
    return "name" if "optimizer" in config else "number"


def by_number(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The flat dict of parameters, with new numbers for blocks that ran in the order of names."""
    stages: dict[str, set[str]] = {}
    for path in params:
        if found := _split(path):
            stages.setdefault(found[0], set()).add(found[1])
    numbers = {stage: _numbers(names) for stage, names in stages.items()}
    out = {}
    for path, array in params.items():
        if found := _split(path):
            stage, block, rest = found
            path = "/".join((stage, numbers[stage][block], rest))
        out[path] = array
    return out


def _numbers(names: Iterable[str]) -> dict[str, str]:
    return {name: f"block{number}" for number, name in enumerate(sorted(names), 1)}


def _split(path: str) -> tuple[str, str, str] | None:
    """(stage, block, rest) of the path of a parameter of a numbered block."""
    parts = path.split("/")
    for place, part in enumerate(parts):
        if part.startswith("block") and part[5:].isdecimal():
            return "/".join(parts[:place]), part, "/".join(parts[place + 1 :])
    return None
