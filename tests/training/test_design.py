"""A run on paper: every recipe is designed and traced at full size without data or devices."""

import dataclasses
import pathlib
import runpy
from typing import Any, ClassVar

import jax
import numpy as np
import pytest

from vit_jax.commands import configs
from vit_jax.config import Config, default_config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.models import attention_choice, zoo
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives import OBJECTIVES
from vit_jax.objectives.classification import Classification
from vit_jax.parallel.mesh import AXES, MeshConfig, make_mesh
from vit_jax.training import compute, frozen, run, setup
from vit_jax.training.design import design

RECIPES = sorted((pathlib.Path(__file__).resolve().parents[2] / "configs").glob("*.py"))
FACTS = DataFacts(train_size=1_281_167, num_classes=1000)

# Images of the datasets that the variants of a recipe are named after.
SIZES = {"-jft": 303_000_000, "-i21k": 12_400_000, "/14": 303_000_000}


# Variants that are designed but not traced: another variant of the recipe has the same blocks, and
# the trace of a ResNet grows with its depth.
NOT_TRACED = tuple(
    f"vit.py:{name}-jft"
    for name in ("R50x2", "R101x1", "R152x1", "R50+B/32", "R50+B/16", "R50+L/32")
)


def one_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), devices=jax.devices()[:1])


def traced(plan) -> tuple[Any, dict[str, Any]]:
    with jax.set_mesh(plan.mesh):
        state, metrics = jax.eval_shape(plan.step, plan.abstract, plan.batch, plan.abstract_frozen)
        sums = jax.eval_shape(
            plan.eval_step, plan.abstract["params"], plan.eval_batch, plan.abstract_frozen
        )
    assert set(plan.objective.metrics) | {"count"} <= set(sums)
    return state, metrics


def variants() -> list[str]:
    """Every recipe, with each of its variants."""
    found = []
    for path in RECIPES:
        names = runpy.run_path(str(path)).get("VARIANTS", ())
        found += [f"{path}:{name}" for name in names] or [str(path)]
    return found


@pytest.mark.parametrize("recipe", variants(), ids=lambda recipe: recipe.rpartition("configs/")[2])
def test_every_recipe_is_designed_and_traced_at_full_size(recipe) -> None:
    """Without the trace for a few variants: see NOT_TRACED."""
    config = configs.from_file(recipe, missing(recipe))
    size = next((size for end, size in SIZES.items() if recipe.endswith(end)), FACTS.train_size)
    facts = dataclasses.replace(FACTS, train_size=size)
    plan = design(
        config, facts, make_mesh(config.mesh), start=begin(config), frozen=teachers(config)
    )
    if recipe.endswith(NOT_TRACED):
        return
    state, metrics = traced(plan)
    jax.tree.map(
        lambda leaf, s: leaf.shape == s.shape or pytest.fail(f"{leaf} {s}"), state, plan.abstract
    )
    assert {"loss", "grad_norm", "param_norm", "learning_rate"} <= set(metrics)


def missing(recipe: str) -> list[str]:
    """What the user must set of the recipe: a file to start from, where it names no model."""
    path, _, variant = recipe.partition(":")
    if variant.startswith("distilled-"):
        return ["--config.objective.teacher=FILE"]
    get_config = runpy.run_path(path)["get_config"]
    config = get_config(variant) if variant else get_config()
    return [] if config.model.name else ["--config.init_from=FILE"]


def teachers(config: Config) -> dict[str, frozen.Description]:
    """Each frozen model that the objective names: a teacher of the same images, or a tokenizer."""
    options = {"teacher": zoo.options("R50x1", image_size=setup.image_size(config))}
    tokens = config.model.get("mim_classes") or 8192
    options["tokenizer"] = zoo.options("DALL-E-dVAE", vocabulary=tokens, groups=3)
    return {
        name: frozen.Description(
            options=options[name],
            preprocessing=Preprocessing(image_size=options[name].image_size),
        )
        for name in config.objective.frozen_models()
    }


def begin(config: Config) -> setup.Start | None:
    """The model of a file that is not there: a B/16, as released."""
    if not config.init_from:
        return None
    height, width = setup.image_size(config)
    options = zoo.options("B/16", image_size=(height // 16 * 16, width // 16 * 16))
    return setup.Start(
        options=config.objective.model(options, FACTS),
        preprocessing=Preprocessing(image_size=options.image_size),
    )


def small(**fields: Any) -> Config:
    config = default_config()
    config.model.name = "Ti/16"
    config.image_size = (32, 32)
    config.batch_size = 8
    config.total.epochs = 1.0
    for name, value in fields.items():
        setattr(config, name, value)
    return resolve(config)


def test_the_shapes_of_a_batch_are_global_and_say_where_they_live() -> None:
    plan = design(small(eval_batch_size=10), FACTS, make_mesh(MeshConfig(data=4, fsdp=2)))
    assert plan.batch["image"].shape == (8, 32, 32, 3)
    assert plan.batch["image"].dtype == np.uint8
    assert plan.batch["image"].sharding.shard_shape((8, 32, 32, 3)) == (1, 32, 32, 3)
    assert plan.eval_batch["image"].shape[0] == 16, "rounded up to what the mesh divides"
    assert dict(plan.mesh.shape) == dict(zip(AXES, (4, 2, 1), strict=True))


def test_the_value_range_is_that_of_the_model_unless_the_config_says() -> None:
    plan = design(small(), FACTS, one_device())
    assert plan.config.data.mean == (0.5, 0.5, 0.5)


def test_a_batch_that_the_mesh_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide over the mesh"):
        design(small(batch_size=12), FACTS, make_mesh(MeshConfig(data=8)))


def test_classification_of_images_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="the images have no classes"):
        design(small(), DataFacts(train_size=100), one_device())


def test_a_model_of_masked_pretraining_is_not_trained_as_a_classifier() -> None:
    config = default_config()
    config.model.name = "MAE-pretrain-B/16"
    with pytest.raises(ValueError, match=r"masked pretraining: name .*MAE-B/16"):
        design(resolve(config), FACTS, one_device())


def test_a_frozen_model_of_other_channels_is_refused() -> None:
    teacher = frozen.Description(
        options=zoo.options("Ti/16", channels=4),
        preprocessing=Preprocessing(image_size=(224, 224)).for_channels(4),
    )
    with pytest.raises(ValueError, match=r"objective.teacher takes images of 4 channels, .* has 3"):
        design(small(), FACTS, one_device(), frozen={"teacher": teacher})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deep(Classification):
    """Asks for an array that no source gives."""

    inputs: ClassVar[tuple[str, ...]] = ("image", "label", "sample_index", "depth")


def test_an_objective_that_asks_for_an_unknown_input_is_refused(monkeypatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "deep", Deep)
    with pytest.raises(ValueError, match="Deep.inputs asks for 'depth', .* image, label, sample"):
        design(small(objective={"name": "deep"}), FACTS, one_device())


def test_cudnn_attention_is_refused_without_a_gpu_and_where_it_cannot_compute() -> None:
    def refused(**fields: Any) -> str:
        with pytest.raises(ValueError) as error:
            design(small(model={"name": "Ti/16", "attention": "cudnn", **fields}), FACTS, devices)
        return str(error.value)

    devices = one_device()
    half = {"dtype": "bfloat16"}
    assert "config.model.attention is 'cudnn', which needs GPUs" in refused(**half)
    assert "needs dtype 'bfloat16', not 'float32'" in refused()
    narrow = refused(**half, width=60, num_heads=5)
    assert "heads whose width is a multiple of 8" in narrow
    with pytest.raises(ValueError, match="needs dtype 'bfloat16', not 'float32'"):
        zoo.options("Swin-T", attention="cudnn")


def test_cudnn_attention_in_unrolled_blocks_is_refused_where_xla_would_fail(monkeypatch) -> None:
    options = zoo.options("Ti/16", attention="cudnn", dtype="bfloat16", unroll=2)
    for flags in (
        "--xla_gpu_deterministic_ops=true",
        "--xla_gpu_deterministic_ops --xla_foo=1",
        "--xla_foo=1 --xla_gpu_exclude_nondeterministic_ops=True",
    ):
        monkeypatch.setenv("XLA_FLAGS", flags)
        with pytest.raises(ValueError, match="'cudnn' with config.model.unroll=2 fails in XLA"):
            compute.check(options)
    compute.check(zoo.change(options, unroll=1))
    compute.check(zoo.change(options, attention="xla"))
    compute.check(options, ["xla_gpu_exclude_nondeterministic_ops=false"])
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=false")
    compute.check(options)
    with pytest.raises(ValueError, match="without this option in config.compiler_options"):
        compute.check(options, ["xla_gpu_deterministic_ops=true"])


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What the choice of an attention reads of a device."""

    compute_capability: str


def test_auto_attention_is_cudnn_on_one_gpu_only_where_it_was_measured(monkeypatch) -> None:
    def chosen(*devices: str, **fields: Any) -> str:
        monkeypatch.setattr(jax, "devices", lambda: [Gpu(name) for name in devices])
        options = zoo.options("S/16", **{"dtype": "bfloat16", **fields})
        return attention_choice.runnable(options, platform="gpu").attention

    assert chosen("9.0") == chosen("8.0") == chosen("10.0") == "cudnn"
    assert chosen("7.5") == chosen("gfx90a") == chosen("9.0", "9.0") == "xla"
    assert chosen("9.0", dtype="float32") == chosen("9.0", unroll=12) == "xla"
    assert chosen("9.0", position="relative") == chosen("9.0", relative_bias="shared") == "xla"
    assert chosen("9.0", num_heads=2) == "xla", "heads of 192, which only some GPUs compute"
    assert chosen("9.0", attention="recompute") == "recompute"


def test_a_model_with_cudnn_attention_is_computed_without_it_elsewhere() -> None:
    options = zoo.options("Ti/16", attention="cudnn", dtype="bfloat16", registers=1)
    assert attention_choice.runnable(options, platform="gpu") is options
    assert attention_choice.runnable(options, platform="cpu").attention == "auto"


@pytest.mark.parametrize(
    ("fields", "notes"),
    [
        ({"model.drop_path": 0.1}, []),
        ({"optimizer.accumulate": 2}, []),
        (
            {"optimizer.accumulate": 2, "model.dropout": 0.1, "model.drop_path": 0.1},
            [
                "note: dropout and drop_path draw anew for each micro-batch of 128 images: another"
                " optimizer.accumulate gives other draws"
            ],
        ),
    ],
)
def test_a_run_notes_what_depends_on_its_micro_batches(fields, notes) -> None:
    config = default_config()
    config.model.name = "Ti/16"
    config.update_from_flattened_dict(fields)
    plan = design(resolve(config), FACTS, one_device())
    assert list(run._about_micro_batches(plan)) == notes
