"""The schema of a run: what it refuses, in which words, and what it keeps."""

import argparse
import dataclasses
import json
import logging
import math

import numpy as np
import pytest

from vit_jax import config as config_lib
from vit_jax import schema
from vit_jax.commands import arguments, configs
from vit_jax.config import Config, Duration, default_config, resolve
from vit_jax.data.crops import Shift
from vit_jax.training.optimizers import AdamW, Sgd
from vit_jax.training.schedules import ReciprocalSqrt


def changed(**fields):
    """A valid config with some fields changed; `a__b` is the field a.b."""
    config = default_config()
    config.model.name = "Ti/16"
    for path, value in fields.items():
        *parents, name = path.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        with node.ignore_type(), node.unlocked():
            node[name] = value
    return config


def test_the_default_needs_a_model_only() -> None:
    with pytest.raises(ValueError, match="config.model.name is empty: name a model, or set"):
        resolve(default_config())
    assert resolve(changed()).model.name == "Ti/16"
    assert resolve(changed(model__name="", init_from="run")).init_from == "run"
    grey = {"data__mean": (0.5,), "data__std": (0.2,)}  # the channels are those of the file
    assert resolve(changed(model__name="", init_from="run", **grey)).data.std == (0.2,)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batchsize": 8}, "unknown config field config.batchsize: did you mean 'batch_size'?"),
        (
            {"optimizer__learning_rte": 1.0},
            "unknown config field config.optimizer.learning_rte: did you mean 'learning_rate'?",
        ),
        ({"mesh__xyzzy": 2}, "unknown config field config.mesh.xyzzy: known: data, fsdp, tensor"),
        ({"total__step": 2}, "config.total.step: did you mean 'steps'?"),
        ({"batch_size": "16"}, "config.batch_size must be int, got '16'"),
        ({"batch_size": 16.0}, "config.batch_size must be int, got 16.0"),
        ({"batch_size": True}, "config.batch_size must be int, got True"),
        ({"data__flip": 1}, "config.data.flip must be bool, got 1"),
        ({"ema": "0.9"}, "config.ema must be float, got '0.9'"),
        ({"seed": None}, "config.seed must be int, got None"),
        ({"total": 5}, "config.total must hold the fields of Duration, got 5"),
        ({"model__pool": "cls"}, "config.model.pool is 'cls': choose one of 'token', 'gap'"),
        ({"data__crop_area": (0.5,)}, r"config.data.crop_area needs 2 values, got \(0.5,\)"),
        ({"data__mean": (0.5, 0.5)}, r"config.data.mean is \(0.5, 0.5\) .*give three numbers"),
        ({"data__std": (0.5,)}, r"and std \(0.5,\): give three numbers each, or none"),
        ({"data__crop_area": {0.5: 1, 1.0: 2}}, "config.data.crop_area must be a list, got {"),
        ({"optimizer__frozen": (1,)}, r"config.optimizer.frozen\[0\] must be str, got 1"),
        ({"total": {"steps": 5, "epochs": 2.0}}, "config.total is given in steps and epochs: keep"),
        (
            {"schedule__warmup__steps": 5, "schedule__warmup__percent": 1.0},
            "config.schedule.warmup is given in steps and percent: keep one, set the others to 0",
        ),
        ({"log_every__steps": -1}, "config.log_every.steps is negative"),
        ({"total__epochs": 0.0}, "config.total needs steps, epochs or examples"),
        ({"total__percent": 50.0}, "config.total needs steps"),
        ({"batch_size": 0}, "config.batch_size is 0: it must be positive"),
        ({"optimizer__learning_rate": math.nan}, "learning_rate is nan: it must be positive"),
        ({"eval_batch_size": -1}, "config.eval_batch_size is -1: it must not be negative"),
        ({"data__mixup": -0.2}, "mixup's alpha is -0.2: it must be positive"),
        ({"data__std": (0.5, 0.0, 0.5)}, "config.data.std is .*: it must be positive"),
        ({"model__dropout": 1.0}, r"config.model.dropout is 1.0: it must be in \[0, 1\)"),
        ({"ema": -0.1}, r"config.ema is -0.1: it must be in \[0, 1\)"),
        ({"seed": -1}, "config.seed is -1"),
        ({"seed": 2**32}, r"config.seed is 4294967296: it must be in \[0, 2\*\*32\)"),
        ({"data__mixup": math.nan}, "mixup's alpha is nan: it must be positive"),
        ({"data__max_bad": math.nan}, "config.data.max_bad is nan: it must not be negative"),
        ({"image_size": (1, 2, 3)}, r"config.image_size is \(1, 2, 3\): give \(height, width\)"),
        ({"image_size": (0,)}, r"config.image_size is \(0,\)"),
        (
            {"data__mixup": 0.2, "data__repeats": 3},
            "config.data.repeats is 3, and mixup mixes neighbours in the",
        ),
        ({"data__mixup": 0.2, "batch_size": 1}, "config.batch_size is 1, and mix or mixup"),
        ({"ema_warmup": 0.67}, "config.ema_warmup is 0.67, and there is no average"),
        (
            {"batch_size": 30, "optimizer__accumulate": 4},
            "config.batch_size 30 does not divide into config.optimizer.accumulate 4 micro-batches",
        ),
        ({"checkpoint__metric": "ema_top1"}, "the run has no average: set config.ema, or"),
        ({"checkpoint__metric": "ema_loss"}, "the run has no average: set config.ema, or"),
        ({"init_grid": (2,)}, r"config.init_grid is \(2,\): give \(rows, columns\)"),
        ({"init_grid": (2, 0)}, r"config.init_grid is \(2, 0\): give \(rows, columns\)"),
        ({"init_state": "all"}, "name the run to start from, config.init_from"),
        ({"batch_size": 2**31}, "config.batch_size is 2147483648: it must be at most 1048576"),
        ({"eval_batch_size": 10**9}, "config.eval_batch_size is 1000000000: it must be at most"),
        ({"data__threads": 10**6}, "config.data.threads is 1000000: it must be at most 1024"),
        ({"schedule__warmup__epochs": math.inf}, "config.schedule.warmup.epochs is inf: it must"),
        (
            {"schedule__cooldown__percent": 1e308},
            r"cooldown.percent is 1e\+308: it must be at most",
        ),
        ({"schedule__cooldown__percent": math.nan}, "cooldown.percent is nan: it must be finite"),
        ({"evaluate_every__steps": 2**63}, "steps is .* at most"),
        ({"log_every__steps": 10**400}, "config.log_every.steps is .* at most"),
        ({"optimizer__learning_rate": math.inf}, "learning_rate is inf: it must be finite"),
        ({"data__mean": (math.nan, 0.0, 0.0)}, r"config.data.mean is \(nan, .*: it must be finite"),
        ({"model__channels": 1, "data__mean": (0.5, 0.5, 0.5)}, "give 1 for the model's channels"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(fields, said) -> None:
    with pytest.raises(ValueError, match=said) as error:
        resolve(changed(**fields))
    assert "\n" not in str(error.value)


POSITIVE = (
    *("batch_size", "optimizer.accumulate", "optimizer.learning_rate"),
    *("checkpoint.keep_last", "data.threads", "data.prefetch", "data.repeats"),
)
UNSET_OR_POSITIVE = ("eval_batch_size", "checkpoint.keep_best", "data.max_bad", "model.unroll")
SHARES = (
    *("model.dropout", "model.attention_dropout", "model.drop_path"),
    *("ema", "objective.label_smoothing"),
)
MOST = {
    **{"batch_size": 2**20, "eval_batch_size": 2**20, "optimizer.accumulate": 2**20},
    **{"data.threads": 2**10, "data.prefetch": 2**10, "model.unroll": 2**12},
    **{"checkpoint.keep_last": 2**31 - 1, "checkpoint.keep_best": 2**31 - 1},
    **{"log_every.steps": 2**31 - 1, "schedule.timescale.steps": 2**31 - 1},
    **{"schedule.warmup.examples": 2**53, "schedule.warmup.percent": 1e6},
    **{"schedule.warmup.epochs": 1e9, "seed": 2**32 - 1},
}


@pytest.mark.parametrize(
    ("path", "value", "beyond"),
    [
        *((path, 1, 0) for path in POSITIVE),
        *((path, 0, -1) for path in UNSET_OR_POSITIVE),
        *((path, 0, -1) for path in SHARES),
        *((path, 1 - 2**-20, 1) for path in SHARES),
        *((path, most, most + 1) for path, most in MOST.items()),
    ],
)
def test_a_bound_is_taken_and_what_lies_beyond_is_refused(path, value, beyond) -> None:
    """Each field by itself, in its own type."""
    several = {"batch_size": 2**20} if path == "optimizer.accumulate" else {}
    if path.startswith("schedule.timescale"):
        several["schedule__decay"] = "rsqrt"
    field = path.replace(".", "__")
    target = schema.locate(Config, path.split("."), schema.plain(resolve(changed(**several))), "c")
    kind = target.kind
    assert resolve(changed(**(several | {field: kind(value)})))
    with pytest.raises(ValueError, match=f"config.{path} is {kind(beyond)}: it must"):
        resolve(changed(**(several | {field: kind(beyond)})))


def test_a_batch_of_a_command_has_the_limit_of_that_of_a_config() -> None:
    assert arguments.batch_size(str(MOST["batch_size"])) == MOST["batch_size"]
    with pytest.raises(argparse.ArgumentTypeError, match="it must be at most 1048576"):
        arguments.batch_size(str(MOST["batch_size"] + 1))


def test_a_number_that_no_float_holds_is_refused() -> None:
    fields = changed().to_dict()
    fields["optimizer"]["learning_rate"] = 10**400  # of JSON
    with pytest.raises(ValueError, match="learning_rate is inf: it must be finite"):
        resolve(fields)


def test_numbers_become_what_the_schema_says() -> None:
    config = resolve(changed(optimizer__learning_rate=1, image_size=32, optimizer__frozen="cls"))
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.image_size == (32, 32)
    assert config.optimizer.frozen == ("cls",)


def test_json_gives_back_the_same_config() -> None:
    config = resolve(
        changed(
            image_size=(32, 56),
            optimizer__decay_mask=(),
            schedule__warmup=dataclasses.asdict(Duration(examples=5)),
            mesh__fsdp=8,
        )
    )
    again = config_lib.of_fields(json.loads(json.dumps(config_lib.to_fields(config))))
    assert again == config
    assert isinstance(again.optimizer.rule, AdamW)
    assert again.optimizer.rule.decay_mask == ()
    assert hash(again) == hash(config), "frozen through and through"


def test_the_default_config_holds_every_field_and_no_more() -> None:
    config = default_config()
    config.model.name = "Ti/16"
    assert resolve(config) == Config(model=config_lib.ModelConfig(name="Ti/16"))
    config.emma = 0.9
    with pytest.raises(ValueError, match="config.emma: did you mean 'ema'"):
        resolve(config)


def overridden(*overrides, **fields):
    """The config of a recipe that sets `fields`, with overrides of the command line."""
    recipe = config_lib.plain_fields(changed(**fields))
    return configs._override(recipe, [f"--config.{text}" for text in overrides])[0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sed=1", "unknown config field config.sed: did you mean 'seed'?"),
        ("optimizer.lr=1", "unknown config field config.optimizer.lr: "),
        ("optimiser.b1=1", "unknown config field config.optimiser: did you mean 'optimizer'?"),
        ("seed.x=1", "unknown config field config.seed.x"),
        *(
            (
                f"{path}.x.y=3",
                f"unknown config field config.{path}.x.y: config.{path} has no fields",
            )
            for path in ("optimizer.name", "optimizer.b1", "schedule.decay", "objective.name")
        ),
        *(
            (f"{path}.x=3", f"unknown config field config.{path}.x: config.{path} has no fields")
            for path in ("augment.flip.name", "evaluators.held_out.kind", "model.width")
        ),
        ("optimizer.momentun=0.9", "did you mean 'momentum'?"),
        ("total=5", "--config.total=5: set its fields one by one: total.epochs, total.examples"),
        ("seed=x", "--config.seed=x: the value must be of type int, as the default 0"),
        ("optimizer.b1=x", "b1=x: the value must be of type float, as the default 0.9"),
        ("data.flip=2", "data.flip=2: the value must be of type bool"),
        ("objective=classification", "set its fields one by one: objective.name, objective.alpha"),
    ],
)
def test_overrides_of_no_field_and_of_no_value_say_what_there_is(override, said) -> None:
    with pytest.raises(ValueError, match=said) as error:
        overridden(override)
    assert "\n" not in str(error.value)


def test_overrides_are_read_by_the_type_of_the_field() -> None:
    config = overridden(
        *("optimizer.b1=0", "image_size=32,56", "data.crop_area=(0.1,1)", "data.mean=0.5,0.5,1"),
        *("optimizer.frozen=head", "schedule.warmup.percent=5", "total.steps=7"),
    )
    assert config.optimizer.rule == AdamW(b1=0.0)
    assert (config.image_size, config.data.mean) == ((32, 56), (0.5, 0.5, 1.0))
    assert config.optimizer.frozen == ("head",)
    assert (config.schedule.warmup, config.total) == (Duration(percent=5.0), Duration(steps=7))


SGD_B1 = "config.optimizer.b1 belongs to adamw, adam, .*; config.optimizer.name is 'sgd'"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"optimizer__name": "sgd", "optimizer__b1": 0.9}, SGD_B1),
        (
            {"optimizer__name": "adam", "optimizer__weight_decay": 0.0},
            "config.optimizer.weight_decay belongs to adamw, sgd, .*; .* is 'adam'",
        ),
        (
            {"optimizer__momentum": 0.9},
            "config.optimizer.momentum belongs to sgd, lars and muon; .* is 'adamw'",
        ),
        ({"data__shift": 2}, "config.data.shift belongs to shift; config.data.crop is 'inception'"),
        (
            {"data__path": "x"},
            "image_list, manifest and tfds; config.data.source is 'embedded'",
        ),
        (
            {"schedule__decay": "rsqrt", "schedule__end_value": 0.1},
            "config.schedule.end_value belongs to cosine, linear and polynomial",
        ),
        (
            {"schedule__timescale__steps": 10},
            "config.schedule.timescale belongs to rsqrt; config.schedule.decay is 'cosine'",
        ),
        ({"optimizer__name": "adamx"}, "config.optimizer.name is 'adamx': choose one of 'adamw'"),
        ({"optimizer__name": 3}, "config.optimizer.name is 3: choose one of 'adamw'"),
        ({"objective__name": "x"}, "config.objective.name is 'x': choose one of 'beit', "),
    ],
)
def test_a_field_of_a_choice_that_was_not_taken_says_whose_it_is(fields, said) -> None:
    with pytest.raises(ValueError, match=said):
        resolve(changed(**fields))
    overrides = [f"{k.replace('__', '.')}={v}" for k, v in fields.items()]
    with pytest.raises(ValueError, match=said.replace("is 3", "is '3'")):
        overridden(*reversed(overrides))


def test_a_choice_is_named_before_its_fields_in_whatever_order() -> None:
    named, field = "optimizer.name=sgd", "optimizer.momentum=0.5"
    assert overridden(field, named) == overridden(named, field)
    assert overridden(named, field).optimizer.rule == Sgd(momentum=0.5)
    config = overridden("schedule.timescale.epochs=2", "schedule.decay=rsqrt")
    assert config.schedule.decay == ReciprocalSqrt(timescale=Duration(epochs=2.0))


def test_another_choice_starts_from_its_defaults_and_says_so() -> None:
    set_by_recipe = {"b1": 0.5, "weight_decay": 0.1, "learning_rate": 2.0}
    recipe = resolve(changed(**{f"optimizer__{k}": v for k, v in set_by_recipe.items()}))
    config, notes = configs.override(recipe, ["--config.optimizer.name=sgd"])
    assert config.optimizer.rule == Sgd() and config.optimizer.learning_rate == 2.0
    (note,) = notes
    assert note.startswith("note: --config.optimizer.name=sgd starts from its defaults, without")
    assert "optimizer.b1=0.5" in note and "optimizer.weight_decay=0.1" in note
    assert configs.override(recipe, ["--config.optimizer.name=adamw"]) == (recipe, [])
    config = overridden("data.crop=shift", "data.shift=2", data__crop_area=(0.5, 1.0))
    assert config.data.crop == Shift(shift=2)


def test_one_unit_of_a_duration_replaces_the_others() -> None:
    assert resolve(changed(total__steps=5)).total == Duration(steps=5), "over the default"
    for overrides in (["total.steps=5"], ["total.epochs=0", "total.steps=5"]):
        assert overridden(*overrides).total == Duration(steps=5), "over the default"
        assert overridden(*overrides, total__epochs=3.0).total == Duration(steps=5)
    assert overridden("total.steps=5", "total.steps=6").total == Duration(steps=6)


@pytest.mark.parametrize("unit", ["steps", "epochs", "examples", "percent"])
@pytest.mark.parametrize("set_in", ["epochs", "percent", ""])  # by the recipe; the default: percent
def test_a_zero_of_any_unit_is_zero_whatever_unit_was_set(unit, set_in) -> None:
    fields = {f"evaluate_every__{set_in}": 3.0} if set_in else {}
    assert overridden(f"evaluate_every.{unit}=0", **fields).evaluate_every == Duration()
    assert resolve(changed(**{f"evaluate_every__{unit}": 0})).evaluate_every == Duration()


@pytest.mark.parametrize("fields", [{}, {"total__epochs": 3.0}])
def test_two_units_of_the_command_line_are_refused(fields) -> None:
    with pytest.raises(ValueError, match="config.total is given in steps and epochs: keep one"):
        overridden("total.steps=5", "total.epochs=2", **fields)


TWO_UNITS = """
from vit_jax.config import default_config


def get_config():
    config = default_config()
    config.model.name = "Ti/16"
    config.total.steps = 5
    config.total.epochs = 2.0
    return config
"""


def test_two_units_in_the_text_of_a_recipe_are_refused_whatever_is_overridden(tmp_path) -> None:
    (tmp_path / "recipe.py").write_text(TWO_UNITS)
    for overrides in ([], ["--config.total.steps=3"], ["--config.total.epochs=0"]):
        with pytest.raises(ValueError, match="config.total is given in steps and epochs"):
            configs.from_file(str(tmp_path / "recipe.py"), overrides)


def test_numbers_of_numpy_are_numbers() -> None:
    config = resolve(
        changed(batch_size=np.int64(64), image_size=np.array([28, 42]), ema=np.float64(0.5))
    )
    assert (config.batch_size, config.image_size, config.ema) == (64, (28, 42), 0.5)
    assert type(config.batch_size) is int and type(config.ema) is float
    with pytest.raises(ValueError, match="config.batch_size must be int, got 64.0"):
        resolve(changed(batch_size=np.float32(64)))


def test_a_field_under_its_old_name_is_taken_and_its_new_name_told(caplog) -> None:
    config = resolve(changed(schedule__end=0.1, data__eval_crop=0.9, data__kernel="linear"))
    assert schema.plain(config)["schedule"]["end_value"] == 0.1
    assert config.data.crop_pct == 0.9
    assert "config.schedule.end is called config.schedule.end_value now" in caplog.text
    assert "config.data.eval_crop is called config.data.crop_pct now" in caplog.text
    fields = resolve(changed(model__gelu="erf", model__stochastic_depth=0.1)).model.fields
    assert (fields["activation"], fields["drop_path"]) == ("gelu_erf", 0.1)
    _, notes = configs.override(config, ["--config.data.eval_kernel=nearest"])
    assert notes == ["note: config.data.eval_kernel is called config.data.eval_interpolation now"]
    assert overridden("model.gelu=quick").model.fields["activation"] == "gelu_quick"
    assert overridden("data.eval_kernel=nearest").data.eval_interpolation == "nearest"


def test_the_config_of_an_older_run_is_read(caplog) -> None:
    """It holds every field of every choice, with or without meaning."""
    caplog.set_level(logging.WARNING)
    fields = config_lib.to_fields(resolve(changed(optimizer__name="sgd", optimizer__momentum=0.5)))
    old = json.loads(json.dumps(fields))
    del old["format"]
    old["optimizer"] |= {"b1": 0.5, "b2": 0.999, "eps": 1e-8}
    old["schedule"] |= {"end": 0.25, "timescale": dataclasses.asdict(Duration(steps=10_000))}
    del old["schedule"]["end_value"]
    old["data"] |= {"kernel": "linear", "shift": 0, "path": "", "name": ""}
    del old["data"]["interpolation"], old["objective"]["name"]
    config = config_lib.of_fields(old)
    assert config.optimizer.rule == Sgd(momentum=0.5)
    assert schema.plain(config)["schedule"]["end_value"] == 0.25
    assert not caplog.text, "who reads a run has no need of its old names"
    with pytest.raises(ValueError, match="belongs to"):
        config_lib.of_fields(old | {"format": 1})
    first = fields | {"format": 1, "model": fields["model"] | {"gelu": "erf"}}
    assert config_lib.of_fields(first).model.fields["activation"] == "gelu_erf"
    with pytest.raises(ValueError, match="its format is 99, and this version of vit_jax reads"):
        config_lib.of_fields(fields | {"format": 99})


@pytest.mark.parametrize("number", [None, 0, 1, 2])
@pytest.mark.parametrize(
    ("group", "value", "said"),
    [
        ("checkpoint", None, "config.checkpoint must "),
        ("checkpoint", [], "config.checkpoint must "),
        ("optimizer", {"name": {}}, "config.optimizer lacks name"),
        ("optimizer", {"name": None}, "config.optimizer lacks name"),
    ],
)
def test_values_of_no_meaning_are_refused_in_a_config_of_any_format(
    number, group, value, said
) -> None:
    fields = config_lib.to_fields(resolve(changed())) | {group: value}
    del fields["format"]
    with pytest.raises(ValueError, match=said):
        config_lib.of_fields(fields if number is None else fields | {"format": number})


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        (Duration(), 0),
        (Duration(steps=7), 7),
        (Duration(epochs=3.0), 3 * 50_000 // 128 + 1),
        (Duration(examples=1000), 8),
        (Duration(percent=10.0), 20),
        (Duration(percent=0.8), 2),
        (Duration(percent=0.7), 1),
        (Duration(epochs=0.003), 1),
    ],
)
def test_durations_become_steps(duration, steps) -> None:
    assert duration.to_steps(batch_size=128, dataset_size=50_000, total_steps=200) == steps


@pytest.mark.parametrize(
    "value", [3, 1.5, None, {"flip": "x"}, [3], [[]], [{}], [{"alpha": 1}], True]
)
@pytest.mark.parametrize("moved", [{}, {"flip": False}])
def test_a_list_of_choices_that_is_none_is_refused(value, moved) -> None:
    with pytest.raises(ValueError, match="augment"):
        resolve({"model": {"name": "Ti/16"}, "augment": value, "data": moved})


def test_a_name_of_another_library_becomes_the_zoo_s_name_and_its_options(caplog) -> None:
    config = overridden(
        "model.name=vit_base_r50_s16_384", "model.stem.norm_eps=1e-3", "model.width=192"
    )
    assert (config.model.name, config.model.get("activation")) == ("R50+B/16", "gelu_erf")
    stem = {"std_eps": 1e-8, "std_eps_in": "variance", "norm_eps": 1e-3}
    assert (config.model.get("stem"), config.model.get("width")) == (stem, 192)
    fields = ["--config.model.name=vit_b_16", "--config.model.activation=gelu_tanh"]
    same, notes = configs.override(config, fields)
    assert same.model.get("activation") == "gelu_tanh"
    assert len(notes) == 1 and notes[0].startswith(
        "note: config.model.name=vit_b_16 is B/16 with mean=(0.485, 0.456, 0.406), std="
    )
    recipe = default_config()
    recipe.model.name = "google/vit-base-patch16-384"
    assert resolve(recipe).model.get("norm_eps") == 1e-12
    assert "is B/16 with activation='gelu_erf', norm_eps=1e-12, as in Hugging Face" in caplog.text
    assert "its name has 384 pixels, image_size is 224x224" in caplog.text
