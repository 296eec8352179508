"""The forms of a choice, on toy tables: in a group of its own, under names, in an order."""

import dataclasses
from typing import Any

import ml_collections
import pytest

from vit_jax import schema
from vit_jax.schema import FrozenMapping, Override


@dataclasses.dataclass(frozen=True, kw_only=True)
class Every(schema.OneUnit):
    steps: int = 0
    percent: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    every: Every = Every(percent=10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nearest:
    k: int  # must be given
    every: Every = Every()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip:
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup:
    alpha: float = 0.1


EVALUATORS: dict[str, Any] = {"held_out": HeldOut, "knn": Nearest}
CHANGES: dict[str, Any] = {"flip": Flip, "mixup": Mixup}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    """A config of these forms."""

    seed: int = 0
    evaluators: FrozenMapping = schema.named(EVALUATORS, {"test": HeldOut()})
    augment: tuple[Any, ...] = schema.listed(CHANGES, (Flip(),))


def made(*overrides: tuple[str, Any], **fields: Any) -> Toy:
    """What a recipe and the command line give, whose values are read already."""
    recipe = ml_collections.ConfigDict(schema.unset(Toy))
    for name, value in fields.items():
        recipe[name] = value
    given = [
        Override(path=tuple(path.split(".")), text=f"--{path}", parse=lambda target, v=value: v)
        for path, value in overrides
    ]
    values, _ = schema.apply(Toy, recipe.to_dict(), given)
    toy: Toy = schema.build(Toy, values, "config")
    assert schema.build(Toy, schema.plain(toy), "config") == toy, "it reads back"
    assert hash(toy) == hash(dataclasses.replace(toy)), "frozen through and through"
    return toy


def test_nothing_set_gives_the_defaults() -> None:
    assert made() == Toy()
    assert schema.unset(Toy)["augment"] == ("flip",)


def test_names_of_the_user_hold_choices_of_their_own() -> None:
    evaluators = {"a": {"kind": "knn", "k": 20}, "b": {"kind": "held_out"}}
    toy = made(("evaluators.c.k", 5), ("evaluators.c.kind", "knn"), evaluators=evaluators)
    assert dict(toy.evaluators) == {"a": Nearest(k=20), "b": HeldOut(), "c": Nearest(k=5)}
    assert dict(made(("evaluators.test.every.steps", 3)).evaluators) == {
        "test": HeldOut(every=Every(steps=3))
    }


@pytest.mark.parametrize(
    ("evaluators", "said"),
    [
        ({"a": {"kind": "knn"}}, "config.evaluators.a lacks k"),
        ({"a": {"k": 3}}, "config.evaluators.a lacks kind: choose one of 'held_out', 'knn'"),
        ({"a": {"kind": "kn"}}, "config.evaluators.a.kind is 'kn': choose one of"),
        (
            {"a": {"kind": "held_out", "k": 3}},
            "config.evaluators.a.k belongs to knn; config.evaluators.a.kind is 'held_out'",
        ),
        ({"a": {"kind": "knn", "kk": 3}}, "unknown config field config.evaluators.a.kk: did you"),
        ({"a": 3}, "config.evaluators.a must hold kind and the fields of a choice, got 3"),
        ({"a": {"kind": "held_out", "every": {"steps": 1, "percent": 2.0}}}, "a.every is given in"),
    ],
)
def test_what_is_wrong_under_a_name_is_told_with_it(evaluators, said) -> None:
    with pytest.raises(ValueError, match=said):
        made(evaluators=evaluators)


def test_an_order_is_what_the_recipe_writes() -> None:
    augment = ("flip", {"name": "mixup", "alpha": 0.2})
    assert made(augment=augment).augment == (Flip(), Mixup(alpha=0.2))
    assert made(augment=augment[::-1]).augment == (Mixup(alpha=0.2), Flip())
    assert made(augment=()).augment == ()


def test_entries_of_an_order_are_set_by_their_names_after_the_order_is() -> None:
    set_alpha = ("augment.mixup.alpha", 0.5)
    assert made(set_alpha, augment=("mixup", "flip")).augment == (Mixup(alpha=0.5), Flip())
    assert made(set_alpha, ("augment", ("mixup",))).augment == (Mixup(alpha=0.5),)
    replaced = made(("augment", ("flip", "mixup")), augment=({"name": "mixup", "alpha": 0.2},))
    assert replaced.augment == (Flip(), Mixup()), "a whole replaces a whole"


@pytest.mark.parametrize(
    ("overrides", "augment", "said"),
    [
        ([("augment.mixup.alpha", 0.5)], ("flip",), "config.augment is flip: add it to that list"),
        ([("augment.flip.alpha", 0.5)], ("flip",), "unknown config field config.augment.flip.alph"),
        ([], ("flip", "flip"), "config.augment names 'flip' twice"),
        ([], ("flp",), "config.augment.name is 'flp': choose one of 'flip', 'mixup'"),
        ([], ({"alpha": 0.1},), "config.augment lacks name: choose one of"),
        ([], ({"name": "flip", "alpha": 0.1},), "config.augment.flip.alpha belongs to mixup"),
    ],
)
def test_what_is_wrong_in_an_order_is_told(overrides, augment, said) -> None:
    with pytest.raises(ValueError, match=said):
        made(*overrides, augment=augment)


def test_a_table_is_read_when_it_is_used(monkeypatch) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Invert:
        share: float = 0.5

    monkeypatch.setitem(CHANGES, "invert", Invert)
    toy = made(("augment.invert.share", 0.25), augment=("invert",))
    assert toy.augment == (Invert(share=0.25),)
