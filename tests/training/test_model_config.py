"""Fields of a model from a recipe: all of its family's options, of the types they have there."""

import dataclasses

import pytest

from tests.models import tiny
from tests.parts import model_config
from vit_jax import schema
from vit_jax.checkpoints import save
from vit_jax.commands import configs
from vit_jax.config import Config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.schema import forms
from vit_jax.training import setup

NAMES = ("Ti/16", "R26+B/32", "Swin-T", "R50x1", "MAE-pretrain-B/16", "BEiT-B/16")
FACTS = DataFacts(train_size=100, class_names=("a", "b", "c"), num_classes=3)
ELSEWHERE = {"image_size", "num_classes", "family", "lora"}


def made(name: str, *overrides: str) -> zoo.Options:
    """The model of a new run of 3 classes, with overrides of the command line."""
    texts = [f"--config.model.{text}" for text in overrides]
    config, _ = configs._override({"model": {"name": name}}, texts)
    return setup.fresh_start(config, FACTS).options


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_every_family_can_be_set(name) -> None:
    """To what it is, which changes nothing but what the task says."""
    options = zoo.options(name)
    own = {key: value for key, value in schema.plain(options).items() if key not in ELSEWHERE}
    config = resolve({"model": {"name": name, **own}})
    assert config == resolve({"model": schema.plain(config.model)}), "it reads back"
    assert hash(config.model) == hash(model_config(**schema.plain(config.model)))
    options = dataclasses.replace(options, num_classes=3) if "MAE" not in name else options
    changed = config.model.change(options)
    assert {f.name for f in dataclasses.fields(options)} - ELSEWHERE == own.keys()
    assert changed == options


def test_fields_are_read_by_the_type_of_the_options() -> None:
    options = made("Ti/16", "layer_scale=1e-4", "qk_norm=true", "patch_size=8", "registers=4")
    assert options == zoo.options(
        *("Ti/16",), layer_scale=1e-4, qk_norm=True, patch_size=8, registers=4, num_classes=3
    )
    assert made("Ti/16", "class_token=false", "pool=gap").class_token is False
    assert made("Ti/16", "class_token=none").class_token is None
    swin = made("Swin-T", "depths=1,1,2,1", "num_heads=3,3,3,6", "windows=((7,7),)")
    assert (swin.depths, swin.num_heads) == ((1, 1, 2, 1), (3, 3, 3, 6))


def test_fields_of_a_part_change_that_part_only() -> None:
    options = made("R26+B/32", "stem.num_layers=1,2,1,1", "stem.groups=16")
    stem = dataclasses.replace(zoo.options("R26+B/32").stem, num_layers=(1, 2, 1, 1), groups=16)
    assert options.stem == stem
    config = resolve({"model": {"name": "MAE-pretrain-B/16", "decoder": {"width": 64}}})
    assert config.model.change(zoo.options("MAE-pretrain-B/16")).decoder == dataclasses.replace(
        zoo.options("MAE-pretrain-B/16").decoder, width=64
    )
    assert made("R50x1", "stem.root_width=32").stem.root_width == 32


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("Ti/16", "layerscale=1", "unknown config field config.model.layerscale of Ti/16: did you"),
        ("Ti/16", "depths=1,2", "unknown config field config.model.depths of Ti/16: did you mean"),
        ("R50x1", "dropout=0.1", "unknown config field config.model.dropout of R50x1: known: "),
        ("Ti/16", "num_classes=5", "config.model.num_classes cannot be set here: the number of"),
        (
            "Ti/16",
            "image_size=32",
            "config.model.image_size cannot be set here: set config",
        ),
        ("Ti/16", "layer_scale=x", "layer_scale=x: the value must be of type float"),
        (
            "Ti/16",
            "activation=relu",
            "config.model.activation is 'relu': choose one of 'gelu_tanh', 'gelu_erf'",
        ),
        ("Ti/16", "stem.nm_layers=3", "config.model.stem.nm_layers: did you mean 'num_layers'?"),
        ("Ti/16", "stem=3", "model.stem=3: set its fields one by one: model.stem.groups"),
        (
            "Ti/16",
            "width.x=3",
            "unknown config field config.model.width.x: config.model.width has no fields",
        ),
        ("Ti17", "width=64", "unknown model 'Ti17': did you mean 'Ti/16'?"),
    ],
)
def test_what_a_model_does_not_have_is_told_with_what_it_has(name, override, said) -> None:
    with pytest.raises(ValueError, match=said) as error:
        made(name, override)
    assert "\n" not in str(error.value)


def test_zero_and_empty_leave_a_size_to_the_zoo() -> None:
    recipe = {"model": {"name": "Ti/16", "width": 96, "num_heads": 2, "pool": "gap"}}
    texts = [f"--config.model.{text}" for text in ("width=0", "num_heads=0", "pool=")]
    assert configs._override(recipe, texts)[0].model == model_config(name="Ti/16")
    assert model_config(name="Ti/16", dropout=0.0, remat="auto") == model_config(name="Ti/16")


def test_the_name_says_of_what_type_a_field_is_wherever_it_stands() -> None:
    texts = ["--config.model.num_heads=3,6,12,24", "--config.model.name=Swin-T"]
    assert configs._override({}, texts)[0].model.get("num_heads") == (3, 6, 12, 24)


def test_a_checkpoint_gives_the_model_but_not_how_it_is_regularised(tmp_path) -> None:
    model = tiny.model(num_classes=3, representation_size=8, dropout=0.5, layer_scale=0.25)
    save.save(model, tmp_path / "run")
    source = {"init_from": str(tmp_path / "run"), "image_size": model.options.image_size}
    options = setup.fresh_start(resolve(source), FACTS).options
    assert options == dataclasses.replace(model.options, representation_size=0, dropout=0.0)
    changed = resolve(source | {"model": {"dropout": 0.25, "representation_size": 8}})
    options = setup.fresh_start(changed, FACTS).options
    assert options == dataclasses.replace(model.options, dropout=0.25)
    other = resolve(source | {"model": {"depths": (2, 2)}})  # of another family than the file's
    with pytest.raises(ValueError, match="config.model.depths is not a field of the model"):
        setup.fresh_start(other, FACTS)


def test_what_begins_from_its_default_begins_so_in_every_family() -> None:
    """What a run has where nothing is said is the same for all models that have the field."""
    for kind in zoo.option_classes():
        for key, field in forms.fields(kind).items():
            if key in zoo.RUN_FIELDS and key != "remat":
                assert Config().model.get(key) == field.default, (kind, key)
