"""The card of a saved model, model.json: all that is needed to use it without its training config.

model.json holds the fields of `Card`, the name of the model's family and the number of the format.
An unknown field is an error, unless the file lists it under `optional`: then it is ignored, with a
note. So a later version can add fields that older versions may ignore.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from vit_jax.checkpoints import block_order, old_runs
from vit_jax.models import old_names, zoo
from vit_jax.models.interpolation import Methods
from vit_jax.models.model import TrainedWith
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.zoo import Options
from vit_jax.schema import build

# Format 1 has the field names of `models.old_names`; `old_runs` reads a file without a number.
# Format 3 is that of the models for which `block_order` matters; others have format 2.
FORMAT = 3
_NEEDED = ("options", "class_names", "preprocessing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """A model's description, without its parameters."""

    options: Options
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    resize: Methods = Methods()  # how the family that it started from resizes parameters
    average: bool = False  # whether checkpoints hold averaged parameters, which are used then
    metric: str = ""  # the metric that chooses the best checkpoint
    better: Literal["max", "min"] = "max"  # whether a larger or a smaller metric is better
    cross_entropy: TrainedWith = ""  # what it was trained with; "": not known
    notes: tuple[str, ...] = ()  # messages about ignored fields; not written to the file


def to_json(card: Card) -> dict[str, Any]:
    """The content of model.json."""
    fields = dataclasses.asdict(dataclasses.replace(card, notes=()))
    del fields["notes"]
    if card.cross_entropy:
        fields["optional"] = ["cross_entropy"]  # earlier versions may ignore it
    else:
        del fields["cross_entropy"]
    return {"format": format_of(card), "family": zoo.family_name(card.options), **fields}


def format_of(card: Card) -> int:
    """The format in which a card is written: the lowest that has all that it says."""
    return block_order.FIXED if block_order.matters(card.options) else 2


def from_json(content: Any, *, config: Mapping[str, Any], path: str) -> Card:
    """The card of a model.json at `path` with the given content.

    `config` has the fields of config.json, used only for a file without a format. Raises ValueError
    where the file is damaged, has a later format, or contradicts itself.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold the fields of {Card.__name__}, got {content!r}")
    if "format" in content:
        content = dict(content)
        _check_format(content.pop("format"), path)
    else:
        content = old_runs.upgraded(content, config)
    for part, upgraded in (
        ("options", old_names.options),
        ("preprocessing", old_names.preprocessing),
    ):
        if part in content:
            content[part] = upgraded(content[part])
    kind = _kind(content.pop("family", None), path)
    content, notes = _without_optional(content, kind, path)
    if missing := [name for name in _NEEDED if name not in content]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    options = build(kind, content.pop("options"), f"{path}.options")
    rest = build(_Rest, content, path)
    card = Card(options=options, **vars(rest), notes=notes)
    _check(card, path)
    return card


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rest:
    """The fields of a card whose types do not depend on the family."""

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    resize: Methods = Methods()
    average: bool = False
    metric: str = ""
    better: Literal["max", "min"] = "max"
    cross_entropy: TrainedWith = ""


def _check_format(number: Any, path: str) -> None:
    if type(number) is not int or number < 1:
        raise ValueError(f"{path} is damaged: its format is {number!r}")
    if number > FORMAT:
        raise ValueError(
            f"{path} has format {number}, this version of vit_jax reads formats up to {FORMAT}:"
            " update vit_jax"
        )


def _kind(name: Any, path: str) -> type[Options]:
    if not isinstance(name, str) or name not in zoo.FAMILIES:
        known = ", ".join(zoo.FAMILIES)
        raise ValueError(f"{path} names the unknown model family {name!r}: known are {known}")
    return zoo.FAMILIES[name].options


def _without_optional(
    content: dict[str, Any], kind: type[Options], path: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The content without the unknown fields that it lists as optional, and a note about them."""
    parts: dict[str, Any] = {
        "": Card,
        "options": kind,
        "preprocessing": Preprocessing,
        "resize": Methods,
    }
    left_out = []
    for field in build(tuple[str, ...], content.pop("optional", ()), f"{path}.optional"):
        part, _, name = field.rpartition(".")
        holder = content.get(part) if part else content
        if part not in parts or not isinstance(holder, Mapping) or name not in holder:
            continue
        if name not in {known.name for known in dataclasses.fields(parts[part])}:
            kept = {key: value for key, value in holder.items() if key != name}
            content = {**content, part: kept} if part else kept
            left_out.append(field)
    if not left_out:
        return content, ()
    return content, (f"this version ignores optional fields of model.json: {', '.join(left_out)}",)


def _check(card: Card, path: str) -> None:
    """Raises ValueError where the parts of a card contradict each other."""
    expects, damaged = card.preprocessing, f"{path} is damaged"
    classes, names = card.options.num_classes, len(card.class_names)
    if names not in (0, classes):
        raise ValueError(f"{damaged}: it has {names} class names for {classes} classes")
    if expects.image_size != card.options.image_size:
        raise ValueError(
            f"{damaged}: its preprocessing makes images of size {expects.image_size}, its model"
            f" takes {card.options.image_size}"
        )
    if not len(expects.mean) == len(expects.std) == card.options.channels:
        raise ValueError(
            f"{damaged}: it has mean {expects.mean} and std {expects.std} for"
            f" {card.options.channels} channels"
        )
