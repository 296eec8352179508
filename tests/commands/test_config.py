"""`config` shows what there is to set: every field, of what type, its default, what it means."""

import dataclasses

import pytest

from tests import runs
from vit_jax import schema
from vit_jax.config import Config
from vit_jax.schema.describe import entries
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
    assert "data.crop = inception (one of inception, simple, shift, center) (here: shift)" in out
    assert "data.shift = 0 (whole number) (here: 2)" in out
    assert "(here: steps=6)" in out and "model.width = unset (whole number) (here: 16)" in out
    assert "ema = 0.0 (number) (here: 0.9)" in out
    assert out.count("(here: ") < 30, "and no other"


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
