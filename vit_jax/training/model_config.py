"""What a config says of the model: a name, and any field of the options of its family."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax import schema
from vit_jax.models import zoo
from vit_jax.schema.forms import fields, group_of

# Fields that begin from their defaults in every run: those by which a model is run, and the layer
# before the head, which belongs to the task that a checkpoint was trained for.
FRESH = (*zoo.RUN_FIELDS, "representation_size")
# A run keeps the activations of matrix products only, whatever its options begin with.
_DEFAULTS = {"remat": "dots"}
_REFUSED = {
    "num_classes": "the data say how many classes there are",
    "image_size": "set config.image_size",
    "family": "config.model.name says which it is",
}
# What a number of 0 means nothing of: it leaves the field to the zoo, or to the checkpoint.
_NEVER_ZERO = ("width", "depth", "mlp_dim", "num_heads", "channels")


def _kinds(values: Mapping[str, Any]) -> tuple[type, ...]:
    """The options that a model of this name has, whatever its task; without a name all there are.

    Raises ValueError for an unknown name.
    """
    if not isinstance(name := values.get("name"), str) or not name:
        return zoo.option_classes()
    return zoo.related_classes(zoo.options(name))


def _read(key: str, value: Any) -> Any:
    """A value as it is meant: one side of a patch is both, and what cannot be is unset."""
    if value in ("", ()) or (key in _NEVER_ZERO and value == 0 and value is not False):
        return schema.UNSET
    if key in FRESH and value == default(key):
        return schema.UNSET
    if key == "patch_size" and isinstance(value, int | tuple):
        sides = value if isinstance(value, tuple) else (value,)
        return sides * 2 if len(sides) == 1 else sides
    return value


def default(key: str) -> Any:
    """What a field of `FRESH` is where it is not set; None for one that no model has."""
    own = next((fields(kind)[key] for kind in zoo.option_classes() if key in fields(kind)), None)
    return _DEFAULTS.get(key, own.default if own else None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What to build: the zoo's entry `name`, or the model of `init_from`, with some fields set."""

    name: str = ""  # "B/16", "R50+B/16", ...; unset: the model of `init_from`
    # Fields of the options of the model; unset: as the zoo says, or the checkpoint of `init_from`.
    fields: schema.FrozenMapping = schema.any_of(_kinds, refused=_REFUSED, read=_read)

    def get(self, key: str) -> Any:
        """A field where it is set; its default if it is one of `FRESH`, else None."""
        return self.fields.get(key, default(key) if key in FRESH else None)

    def change(self, base: zoo.Options, **always: Any) -> zoo.Options:
        """The model with its fields that are set, and those of `FRESH` as this run has them.

        Fields that only the model of a task has are set by `finish`. Raises ValueError for sizes
        that do not fit.
        """
        known = fields(type(base))
        fresh = {key: default(key) for key in FRESH if key in known}
        given = {k: _over(base, k, value) for k, value in self.fields.items() if k in known}
        return zoo.change(base, **(fresh | given | always))

    def finish(self, target: zoo.Options, base: zoo.Options) -> zoo.Options:
        """The model that an objective trains, with the fields that set which `base` did not have.

        Raises ValueError for a field that neither has.
        """
        known, before = fields(type(target)), fields(type(base))
        given = {key: value for key, value in self.fields.items() if key not in before}
        for key in given:
            if key not in known:
                raise ValueError(
                    f"config.model.{key} is no field of {self.name or 'the model'}:"
                    f" {schema.nearest(key, known)}"
                )
        rest = {key: _over(target, key, value) for key, value in given.items()}
        return zoo.change(target, **rest) if rest else target


def _over(base: Any, key: str, value: Any) -> Any:
    """A value of a field of `base`: of a part of it, what is set of that part."""
    if not isinstance(value, Mapping):
        return value
    part = getattr(base, key)
    if part is None:
        part = group_of(fields(type(base))[key].kind)()
    return dataclasses.replace(part, **{k: _over(part, k, v) for k, v in value.items()})
