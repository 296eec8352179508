"""What may change when a run goes on, and what may not: every field of the config, one by one."""

import dataclasses
import types
import typing
from typing import Any

import pytest

from tests.parts import model_config
from vit_jax import schema
from vit_jax.checkpoints import run_folder
from vit_jax.config import Config, DataConfig, Duration, ModelConfig
from vit_jax.data.sources import FolderData
from vit_jax.models import zoo
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives import OBJECTIVES
from vit_jax.schema import forms
from vit_jax.training import length, run_config, setup

# What changes nothing of the result. A new field that belongs here is to be added here too.
MODEL = zoo.options("Ti/16")  # whose fields the config may set
MAY_CHANGE = {
    *("mesh.data", "mesh.fsdp", "mesh.tensor", "compiler_options"),
    *(f"evaluate_every.{unit}" for unit in ("steps", "epochs", "examples", "percent")),
    *(f"log_every.{unit}" for unit in ("steps", "epochs", "examples", "percent")),
    *(f"checkpoint.every.{unit}" for unit in ("steps", "epochs", "examples", "percent")),
    *("checkpoint.keep_last", "checkpoint.keep_best", "checkpoint.metric", "eval_batch_size"),
    *("data.threads", "data.prefetch", "data.max_bad", "data.path", "data.accept_changes"),
    *("model.remat", "model.unroll", "model.attention", "init_from", "init_state", "evaluators"),
    *("writers", "report"),
}
# Lists and maps of choices, as a whole.
ANOTHER = {
    "augment": ("value_range",),
    "evaluators": {"near": {"kind": "knn"}},
    "writers": ("csv",),
}
HANDLED = {"total.epochs"}  # by `training.length`, which says what another length does
BEFORE = Config(
    model=ModelConfig(name="Ti/16"),
    data=DataConfig(source=FolderData(path="here")),
    init_from="somewhere",
    total=Duration(epochs=90.0),
)


def fields(config: Any, prefix: str = "") -> dict[str, Any]:
    """The type of every field by its path; of choices those of the one that is taken."""
    found: dict[str, Any] = {}
    for name, field in forms.fields(type(config)).items():
        value = getattr(config, name)
        if isinstance(field.form, forms.Choice):
            group = prefix if field.beside else f"{prefix}{name}."
            found |= {f"{group}{field.form.key}": field.form} | fields(value, group)
        elif isinstance(field.form, forms.Open):
            own = forms.fields(type(MODEL))
            found |= {f"{prefix}{key}": own[key].kind for key in own.keys() - field.form.refused}
        elif dataclasses.is_dataclass(value):
            found |= fields(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.kind
    return found


def changed(config: Any, path: str, kind: Any) -> Any:
    """The config with another value of one field."""
    values = schema.plain(config)
    group, (*parents, name) = values, path.split(".")
    for parent in parents:
        group = group[parent]
    if name in ANOTHER:
        return schema.build(Config, values | {name: ANOTHER[name]}, "config")
    value = another(group.get(name, getattr(MODEL, name, None)), kind)
    if name in vars(Duration()):  # one unit replaces the others
        group.clear()
    group[name] = value
    if isinstance(kind, forms.Choice):
        for key in kind.fields() & group.keys() - {name}:
            del group[key]
    return schema.build(Config, values, "config")


def another(value: Any, kind: Any) -> Any:
    """A value of a field of that type that differs from `value`."""
    if isinstance(kind, forms.Choice):
        return next((name for name in kind.table if name != value), "toy")
    if typing.get_origin(kind) is typing.Literal:
        return next(choice for choice in typing.get_args(kind) if choice != value)
    if typing.get_origin(kind) is types.UnionType:
        part = forms.group_of(kind)
        return schema.plain(part()) if part else True
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if kind == tuple[tuple[str, float], ...]:
        return (("kernel", 0.5),)
    if kind == tuple[tuple[float, int], ...]:
        return ((0.5, 7),)
    if isinstance(value, tuple):
        return (*value[:-1], {str: "kernel", int: 7, float: 0.75}[typing.get_args(kind)[0]])
    if isinstance(value, float):
        return value / 2 or 1.0
    return value + 1


@dataclasses.dataclass(frozen=True)
class Toy:
    """Another objective."""


CARD = run_folder.Card(
    options=zoo.options("Ti/16", num_classes=3),
    class_names=("a", "b", "c"),
    preprocessing=Preprocessing(image_size=(224, 224)),
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    run_config.write_run(folder, BEFORE, CARD)
    return folder


def test_every_field_that_changes_the_result_is_refused_on_resume(workdir, monkeypatch) -> None:
    run_config.check_same_run(workdir, BEFORE)
    monkeypatch.setitem(OBJECTIVES, "toy", Toy)
    taken, refused = set(), set()
    for path, kind in fields(BEFORE).items():
        if path in ("total.steps", "total.examples", "total.percent"):
            continue  # another unit beside the one that is given is no config
        try:
            run_config.check_same_run(workdir, changed(BEFORE, path, kind))
            taken.add(path)
        except ValueError as error:
            assert f"{path}" in str(error) and "\n" not in str(error)
            refused.add(path)
    assert taken == MAY_CHANGE | HANDLED
    assert {"seed", "batch_size", "optimizer.learning_rate", "schedule.decay", "ema"} <= refused


def test_every_field_of_a_group_that_differs_is_named_at_once() -> None:
    there = Config(model=model_config(name="Ti/16", layer_scale=1e-4, drop_path=0.1))
    here = Config(model=model_config(name="Ti/16", drop_path=0.2))
    assert sorted(run_config.differences(there, here)) == [
        "model.drop_path is 0.1 there and 0.2 here",
        "model.layer_scale is 0.0001 there and not set here",
    ]


def test_another_choice_is_named_without_the_fields_that_only_one_of_them_has() -> None:
    optimizer = {"name": "sgd", "momentum": 0.5, "learning_rate": 0.1}
    fields = {"optimizer": optimizer, "schedule": {"decay": "rsqrt"}}
    other = schema.build(Config, schema.plain(BEFORE) | fields, "config")
    for there, here, names in ((BEFORE, other, "adamw sgd"), (other, BEFORE, "sgd adamw")):
        old, new = map(repr, names.split())
        found = run_config.differences(there, here)
        assert f"optimizer.name is {old} there and {new} here" in found
        paths = {"optimizer.name", "optimizer.learning_rate", "schedule.decay"}
        assert {text.partition(" ")[0] for text in found} == paths


def test_a_run_cannot_become_shorter_than_it_is(workdir) -> None:
    shorter = dataclasses.replace(BEFORE, total=Duration(epochs=1.0))
    with pytest.raises(ValueError, match="config.total is 10 steps, but .* is saved at step 11"):
        length.change(workdir, shorter, step=11, dataset_size=2560)
    assert length.change(workdir, shorter, step=10, dataset_size=2560) is not None
    assert length.change(workdir, BEFORE, step=11, dataset_size=2560) is None


def test_a_resumed_run_takes_the_new_unroll_remat_and_attention() -> None:
    model = model_config(name="Ti/16", unroll=3, remat="full", attention="xla")
    begin = setup.resumed_start(Config(model=model), CARD)
    expected = dataclasses.replace(CARD.options, unroll=3, remat="full", attention="xla")
    assert begin.options == expected != CARD.options
    assert begin.params is None, "its parameters are those of the checkpoint"


def test_a_resumed_run_of_a_family_without_these_options_is_as_it_was() -> None:
    card = dataclasses.replace(CARD, options=zoo.options("R50x1", num_classes=3))
    config = Config(model=model_config(name="R50x1"))
    assert setup.resumed_start(config, card).options == card.options


@pytest.mark.parametrize("text", ['{"mine": 1}', "{", "[]", '"text"'])
def test_a_config_json_that_is_of_no_run_is_never_replaced(tmp_path, recipe, refused, text) -> None:
    workdir = tmp_path / "folder"
    workdir.mkdir()
    (workdir / "config.json").write_text(text)
    said = refused("train", "--config", recipe, "--workdir", workdir)
    assert "move that file away, or use another --workdir" in said
    assert (workdir / "config.json").read_text() == text
    assert sorted(path.name for path in workdir.iterdir()) == ["config.json"]
