"""The part `config.model`: a name of the zoo, and any fields of the model's options."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax import schema
from vit_jax.models import zoo
from vit_jax.schema.forms import fields, group_of

# Fields that have their defaults in every run unless the config sets them, whatever a checkpoint
# has: how a model is trained and computed, and the layers before the head, which belong to the task
# of the checkpoint.
FRESH = (*zoo.RUN_FIELDS, "representation_size", "head_norm")
# The defaults of a run where they may differ from those of the options.
_DEFAULTS = {"remat": "auto"}
_REFUSED = {
    "num_classes": "the number of classes comes from the data",
    "image_size": "set config.image_size",
    "lora": "set config.tune.kind=lora",
    "family": "the family follows from config.model.name",
}
# Fields that cannot be 0: then 0 means unset.
_NEVER_ZERO = ("width", "depth", "mlp_dim", "num_heads", "channels")


def _kinds(values: Mapping[str, Any]) -> tuple[type, ...]:
    """The options of models with this name, whatever their task; without a name all options.

    Raises ValueError for an unknown name.
    """
    if not isinstance(name := values.get("name"), str) or not name:
        return zoo.option_classes()
    return zoo.related_classes(zoo.options(name))


def _read(key: str, value: Any) -> Any:
    """The value of a field: `UNSET` if it means that, and both sides of a patch."""
    if value in ("", ()) or (key in _NEVER_ZERO and value == 0 and value is not False):
        return schema.UNSET
    if key in FRESH and value == default(key):
        return schema.UNSET
    if key == "patch_size" and isinstance(value, int | tuple):
        sides = value if isinstance(value, tuple) else (value,)
        return sides * 2 if len(sides) == 1 else sides
    return value


def default(key: str) -> Any:
    """The value of a field of `FRESH` that is not set; None if no model has the field."""
    own = next((fields(kind)[key] for kind in zoo.option_classes() if key in fields(kind)), None)
    return _DEFAULTS.get(key, own.default if own else None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The zoo's entry `name`, or the model of `init_from`, with some fields changed."""

    # A name of the zoo, such as "B/16", or of papers, timm, Hugging Face or torchvision, which sets
    # the options of that library, such as `activation`; unset: the model of `init_from`.
    name: str = ""
    # Any fields of the model's options; unset: as the zoo says, or the checkpoint of `init_from`.
    fields: schema.FrozenMapping = schema.any_of(_kinds, refused=_REFUSED, read=_read)

    def get(self, key: str) -> Any:
        """The value of a field that is set, else the default of a field of `FRESH`, else None."""
        return self.fields.get(key, default(key) if key in FRESH else None)

    def change(self, base: zoo.Options, **always: Any) -> zoo.Options:
        """`base` with the fields that are set, those of `FRESH`, and those in `always`.

        `finish` sets the fields that only a task model has. Raises ValueError for sizes that do
        not fit.
        """
        known = fields(type(base))
        fresh = {key: default(key) for key in FRESH if key in known}
        given = {k: _over(base, k, value) for k, value in self.fields.items() if k in known}
        return zoo.change(base, **(fresh | given | always))

    def finish(self, target: zoo.Options, base: zoo.Options) -> zoo.Options:
        """`target`, the model that an objective makes of `base`, with the fields that it added.

        Raises ValueError for a field that neither of them has.
        """
        known, before = fields(type(target)), fields(type(base))
        given = {key: value for key, value in self.fields.items() if key not in before}
        for key in given:
            if key not in known:
                raise ValueError(
                    f"config.model.{key} is not a field of {self.name or 'the model'}:"
                    f" {schema.nearest(key, known)}"
                )
        rest = {key: _over(target, key, value) for key, value in given.items()}
        return zoo.change(target, **rest) if rest else target


def _over(base: Any, key: str, value: Any) -> Any:
    """The value of a field of `base`; a mapping changes only some fields of a part."""
    if not isinstance(value, Mapping):
        return value
    part = getattr(base, key)
    if part is None:
        part = group_of(fields(type(base))[key].kind)()
    return dataclasses.replace(part, **{k: _over(part, k, v) for k, v in value.items()})
