"""`config` shows what there is to set: every field, of what type, its default, what it means."""

import dataclasses
from typing import Any

import pytest

from tests import runs
from vit_jax import schema
from vit_jax.commands import configs
from vit_jax.config import Config
from vit_jax.schema import forms
from vit_jax.schema.describe import entries, shown
from vit_jax.training.optimizer import OPTIMIZERS

ALL = list(entries(Config, {}))


def test_every_field_of_the_schema_is_shown_with_its_meaning(printed) -> None:
    """Those of models have names that say enough."""
    out = printed("config")
    leaves = {path.removeprefix(".") for path, _ in schema.leaves(Config(), "")}
    leaves = {path.replace("evaluators.held_out.", "evaluators.NAME.") for path in leaves}
    assert leaves <= {entry.path for entry in ALL}
    for entry in ALL:
        assert f"  {entry.path} = " in out
        assert entry.kind and (entry.group or entry.path.count(".") < 2 or "NAME" in entry.path)
        assert entry.meaning or entry.path.startswith("model."), entry.path
    assert max(map(len, out.splitlines())) <= 100


def test_a_field_of_each_choice_is_shown_where_it_belongs(printed) -> None:
    out = printed("config", "optimizer")
    assert "learning_rate = 0.001 (number)\n        peak of the schedule" in out
    parts = out.split("\n\n")
    (sgd,) = (part for part in parts if part.startswith("optimizer.name=sgd: Gradient descent"))
    assert "optimizer.momentum = 0.9" in sgd and "optimizer.b1" not in sgd
    assert "data." not in out and "schedule." not in out
    # Of sgd and of muon.
    assert printed("config", "config.optimizer.nesterov").count(" = ") == 2
    assert "data.shift = 0 (whole number)" in printed("config", "data.crop")
    assert "total = epochs=90.0 (one of .steps, .epochs, .exa" in printed("config", "total")
    assert "depths" not in printed("config", "model", "--config", "configs/quickstart.py")


def test_a_word_finds_the_fields_that_have_it_in_their_name_or_meaning(printed) -> None:
    out = printed("config", "warm")
    assert "  schedule.warmup = " in out and "  ema_warmup = " in out
    assert "optimizer.accumulate" not in out
    assert "  data.orientation = " in printed("config", "exif")


def test_a_recipe_s_values_are_shown_of_what_it_takes(tmp_path, printed) -> None:
    recipe = ("--config", runs.write_recipe(tmp_path))
    overrides = ("--config.optimizer.name=sgd", "--config.optimizer.momentum=0.5")
    out = printed("config", *recipe, *overrides)
    assert "momentum = 0.9 (number) (here: 0.5)" in out
    crops = "one of inception, random_resized, simple, shift, center"
    assert f"data.crop = inception ({crops}) (here: shift)" in out
    assert "data.shift = 0 (whole number) (here: 2)" in out
    assert "(here: steps=6)" in out and "model.width = unset (whole number) (here: 16)" in out
    assert "ema = 0.0 (number) (here: 0.9)" in out
    assert out.count("(here: ") <= 30, "and no other"


def test_the_evaluators_of_a_recipe_are_shown_under_their_names(tmp_path, printed) -> None:
    recipe = ("--config", runs.write_recipe(tmp_path))
    near = ("--config.evaluators.near.kind=knn", "--config.evaluators.near.k=3,5")
    out = printed("config", "evaluators.near", *recipe, *near)
    assert "evaluators.near.kind = unset (one of " in out and "(here: knn)" in out
    assert "evaluators.near.k = 20 (list of whole numbers) (here: 3,5)" in out
    assert out.count("(here: ") == 2 and "held_out.every" not in out
    out = printed("config", *recipe)
    assert "evaluators.held_out.kind = unset" in out and "(here: held_out)" in out
    assert "evaluators.NAME" not in out and "evaluators.near" not in out
    assert "evaluators.NAME.kind = unset" in printed("config", "evaluators")


def typed(text: str, kind: Any, choice: Any = None) -> Any:
    """The value of a list that is typed as `text`."""
    parsed = configs._read(f"--config.x={text}").parse(schema.Target(kind=kind, choice=choice))
    return parsed if choice else schema.build(kind, parsed, "x")


def test_every_default_list_can_be_typed_as_it_is_shown() -> None:
    kinds = [kind for table in schema.tables(Config) for kind in table.values()]
    kinds += [Config, *(kind for f in forms.fields(Config).values() if (kind := f.kind))]
    seen = 0
    for kind in filter(forms.is_group, kinds):
        for field in forms.fields(kind).values():
            if isinstance(field.default, tuple) and field.form is None:
                assert typed(shown(field.default), field.kind) == field.default, field.name
                seen += 1
    assert seen > 20


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((), ""),
        (("head", "cls$"), "head,cls$"),
        (("^(a|b){1,2}/x", "[^,]"), "^(a|b){1,2}/x,[^,]"),
        (("xla_a=true", "xla_b=3"), "xla_a=true,xla_b=3"),
        (("a,b",), "'a,b'"),
        (("1", "2"), "'1','2'"),
        (("", " a"), "'',' a'"),
    ],
)
def test_a_list_of_texts_has_quotes_only_where_they_are_needed(value, text) -> None:
    assert (shown(value), typed(text, tuple[str, ...])) == (text, value)


def test_a_list_of_pairs_can_be_typed_as_it_is_shown() -> None:
    for pairs in ((("kernel", 0.5),), (("a", 0.5), ("b", 2.0))):
        assert typed(shown(pairs), tuple[tuple[str, float], ...]) == pairs


def test_a_list_of_choices_needs_no_quotes(tmp_path, refused) -> None:
    (choice,) = (f.form.choice for f in forms.fields(Config).values() if f.name == "augment")
    for text in ("flip,value_range", "flip, value_range", "'flip','value_range'"):
        assert typed(text, tuple, choice) == ("flip", "value_range")
    recipe = ("config", "augment", "--config", runs.write_recipe(tmp_path))
    said = refused(*recipe, "--config.augment=flip,flop")
    assert "config.augment.name is 'flop': choose one of 'randaugment_timm'," in said
    said = refused(*recipe, "--config.image_size=28 28")
    assert "a list, with commas between its items, as in the default 224,224" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["optimiser"],
            "no config field has 'optimiser' in its name or meaning: did you mean 'opt",
        ),
        (
            ["--config.seed=1"],
            "--config.seed=1 changes a recipe: name the recipe with --config FILE",
        ),
        (["seed", "--config", "gone.py"], "no recipe at gone.py"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(arguments, said, refused) -> None:
    assert said in refused("config", *arguments)


def test_help_says_how_fields_are_shown(printed) -> None:
    for command in ("train", "evaluate"):
        assert printed(command, "--help").rstrip().endswith("meanings: vit_jax config [FIELD]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    """A guest. Raises ValueError for a guest that is late."""

    # How much it brings
    # with it.
    luggage: tuple[float, float] = (
        0.5,
        1.0,
    )
    seat: int | None = None  # where it sits
    name: str = ""


def test_a_guest_is_shown_by_its_own_comments(monkeypatch, printed) -> None:
    monkeypatch.setitem(OPTIMIZERS, "toy", Toy)  # type: ignore[arg-type]
    out = printed("config", "optimizer.name")
    assert "optimizer.name=toy: A guest.\n" in out
    assert "optimizer.luggage = 0.5,1.0 (2 numbers)\n        How much it brings with it." in out
    assert "optimizer.seat = none (whole number or none)\n        where it sits" in out
