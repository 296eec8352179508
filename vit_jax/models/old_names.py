"""Earlier names of the fields of models, which files written by earlier versions still hold."""

from collections.abc import Mapping
from typing import Any

OPTIONS = {"gelu": "activation", "stochastic_depth": "drop_path"}
PREPROCESSING = {"crop": "crop_pct", "kernel": "interpolation"}
# Values of the old field `gelu`, and the values of `activation` that replace them.
ACTIVATIONS = {"tanh": "gelu_tanh", "erf": "gelu_erf", "quick": "gelu_quick"}


def options(fields: Any) -> Any:
    """Renames the old fields and values of a model's options."""
    if isinstance(fields, Mapping) and fields.get("gelu") in list(ACTIVATIONS):
        fields = {**fields, "gelu": ACTIVATIONS[fields["gelu"]]}
    return _renamed(fields, OPTIONS)


def preprocessing(fields: Any) -> Any:
    """Renames the old fields of `Preprocessing`."""
    return _renamed(fields, PREPROCESSING)


def _renamed(fields: Any, names: Mapping[str, str]) -> Any:
    """A field under both names stays as it is: the check for unknown fields refuses it later."""
    if not isinstance(fields, Mapping):
        return fields
    old = {name: new for name, new in names.items() if new not in fields}
    return {old.get(name, name): value for name, value in fields.items()}
