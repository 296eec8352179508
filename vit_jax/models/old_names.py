"""Earlier names of the fields of models, which files written by earlier versions still hold."""

from collections.abc import Mapping
from typing import Any

OPTIONS = {"gelu": "activation", "stochastic_depth": "drop_path"}
PREPROCESSING = {"crop": "crop_pct", "kernel": "interpolation"}
# The values of `activation` under the names that `gelu` had for them.
ACTIVATIONS = {"tanh": "gelu_tanh", "erf": "gelu_erf", "quick": "gelu_quick"}


def options(fields: Any) -> Any:
    """A model's options, with today's names of fields and values."""
    if isinstance(fields, Mapping) and fields.get("gelu") in list(ACTIVATIONS):
        fields = {**fields, "gelu": ACTIVATIONS[fields["gelu"]]}
    return _renamed(fields, OPTIONS)


def preprocessing(fields: Any) -> Any:
    """The fields of `Preprocessing`, with today's names."""
    return _renamed(fields, PREPROCESSING)


def _renamed(fields: Any, names: Mapping[str, str]) -> Any:
    """A field under both of its names is left to the check for unknown fields."""
    if not isinstance(fields, Mapping):
        return fields
    old = {name: new for name, new in names.items() if new not in fields}
    return {old.get(name, name): value for name, value in fields.items()}
