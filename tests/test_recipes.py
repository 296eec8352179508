"""Recipes have the values of the papers, and say what they are."""

import argparse
import ast
import pathlib
import re
import runpy
from typing import Any

import pytest
from flax import nnx, traverse_util

from vit_jax.commands import configs
from vit_jax.config import Config
from vit_jax.data import opening
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.training import setup
from vit_jax.training.optimizer import peak_rate

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "configs"
START = ["--config.init_from=FILE"]
FACTS = DataFacts(train_size=100, num_classes=3)


def recipe(name: str, overrides: tuple[str, ...] = ()) -> Config:
    path = FOLDER / name
    return configs.from_file(str(path), list(overrides))


# Table 3 of the ViT paper: model and data, epochs, rate, decay, weight decay, dropout.
TABLE_3 = [
    ("B/16-jft", 7, 8e-4, "linear", 0.1, 0.0),
    ("B/32-jft", 7, 8e-4, "linear", 0.1, 0.0),
    ("L/32-jft", 7, 6e-4, "linear", 0.1, 0.0),
    ("L/16-jft", 14, 4e-4, "linear", 0.1, 0.0),
    ("H/14-jft", 14, 3e-4, "linear", 0.1, 0.0),
    ("R50x1-jft", 7, 1e-3, "linear", 0.1, 0.0),
    ("R50x2-jft", 7, 1e-3, "linear", 0.1, 0.0),
    ("R101x1-jft", 7, 8e-4, "linear", 0.1, 0.0),
    ("R152x1-jft", 7, 6e-4, "linear", 0.1, 0.0),
    ("R152x2-jft", 7, 6e-4, "linear", 0.1, 0.0),
    ("R50+B/16-jft", 7, 8e-4, "linear", 0.1, 0.0),
    ("R50+B/32-jft", 7, 8e-4, "linear", 0.1, 0.0),
    ("R50+L/32-jft", 7, 2e-4, "linear", 0.1, 0.0),
    ("R50+L/16-jft", 14, 4e-4, "linear", 0.1, 0.0),
    ("B/16-i21k", 90, 1e-3, "linear", 0.03, 0.1),
    ("B/32-i21k", 90, 1e-3, "linear", 0.03, 0.1),
    ("L/16-i21k", 90, 1e-3, "linear", 0.03, 0.1),
    ("L/32-i21k", 90, 1e-3, "linear", 0.03, 0.1),
    *(
        (f"{model}-i1k", 300, 3e-3, "cosine", 0.3, 0.1)
        for model in ("B/16", "B/32", "L/16", "L/32")
    ),
]


@pytest.mark.parametrize("row", TABLE_3, ids=lambda row: row[0])
def test_pretraining_is_table_3_of_the_vit_paper(row) -> None:
    variant, epochs, rate, decay, weight_decay, dropout = row
    config = recipe(f"vit.py:{variant}")
    assert (config.batch_size, config.image_size) == (4096, (224, 224))
    assert config.total.epochs == epochs and config.schedule.warmup.steps == 10_000
    rule: Any = config.optimizer.rule
    assert (config.optimizer.learning_rate, rule.weight_decay) == (rate, weight_decay)
    assert (rule.b1, rule.b2) == (0.9, 0.999)
    assert type(config.schedule.decay).__name__.lower() == decay
    assert (config.model.get("dropout") or 0.0) == dropout
    assert config.optimizer.clip_norm == (1.0 if variant.endswith("i1k") else 0.0)
    assert (config.model.get("head_bias") or 0.0) == (0.0 if variant.endswith("i1k") else -10.0)


def test_the_table_has_every_variant() -> None:
    assert {row[0] for row in TABLE_3} == set(runpy.run_path(str(FOLDER / "vit.py"))["VARIANTS"])


# Table 4: steps, the learning rates of its grid, the share of the training images held out.
TABLE_4 = {
    "imagenet": (20_000, (0.003, 0.01, 0.03, 0.06), 1),
    "cifar10": (10_000, (0.001, 0.003, 0.01, 0.03), 2),
    "cifar100": (10_000, (0.001, 0.003, 0.01, 0.03), 2),
    "pets": (500, (0.001, 0.003, 0.01, 0.03), 10),
    "flowers": (500, (0.001, 0.003, 0.01, 0.03), 10),
}


@pytest.mark.parametrize("variant", TABLE_4)
def test_fine_tuning_is_table_4_of_the_vit_paper(variant) -> None:
    config = recipe(f"vit_finetune.py:{variant}", tuple(START))
    steps, rates, held_out = TABLE_4[variant]
    assert (config.total.steps, config.batch_size, config.image_size) == (steps, 512, (384, 384))
    assert config.optimizer.learning_rate in rates
    rule: Any = config.optimizer.rule
    assert (rule.momentum, rule.weight_decay, config.optimizer.clip_norm) == (0.9, 0.0, 1.0)
    assert config.data.train_split == f"train[:{100 - held_out}%]"


def test_a_task_of_vtab_is_trained_for_2500_steps_on_1000_images() -> None:
    config = recipe("vit_finetune.py:vtab", (*START, "--config.data.name=caltech101"))
    assert (config.total.steps, config.optimizer.learning_rate) == (2500, 0.01)
    assert (config.data.train_split, config.data.eval_split) == ("train[:1000]", "test")


def test_scaling_is_that_of_big_vision() -> None:
    config = recipe("scaling.py:G/14")
    rule: Any = config.optimizer.rule
    assert (config.batch_size, config.total.steps) == (16_384, 1_000_000)
    assert (config.optimizer.learning_rate, rule.weight_decay) == (8e-4, 0.03)
    assert rule.decay_factors == (("^head/", 100.0),) and config.model.get("pool") == "map"
    assert config.schedule.cooldown.steps == 50_000 and config.schedule.warmup.steps == 10_000


@pytest.mark.parametrize("size", ["B/16", "L/16", "H/14"])
def test_mae_is_that_of_its_appendix(size) -> None:
    config = recipe(f"mae.py:{size}")
    rule: Any = config.optimizer.rule
    objective: Any = config.objective
    crop: Any = config.data.crop
    rate, _ = peak_rate(config.optimizer, batch_size=config.batch_size)
    assert (config.batch_size, rate) == (4096, pytest.approx(2.4e-3))
    assert (config.total.epochs, config.schedule.warmup.epochs) == (800, 40)
    assert (rule.b1, rule.b2, rule.weight_decay) == (0.9, 0.95, 0.05)
    assert rule.decay_mask == ("kernel$", "cls$", "mask$")  # main_pretrain.py: all but vectors
    assert (objective.mask_ratio, objective.normalise) == (0.75, True)
    assert crop.crop_area == (0.2, 1.0) and config.data.interpolation == "bicubic_antialias"


@pytest.mark.parametrize(
    ("size", "epochs", "rate", "layer_decay", "drop_path"),
    [
        ("B/16", 100, 2e-3, 0.65, 0.1),
        ("L/16", 50, 4e-3, 0.75, 0.2),
        ("H/14", 50, 4e-3, 0.75, 0.3),
    ],
)
def test_maes_fine_tuning_is_that_of_its_appendix(
    size, epochs, rate, layer_decay, drop_path
) -> None:
    config = recipe(f"mae_finetune.py:{size}", tuple(START))
    found, _ = peak_rate(config.optimizer, batch_size=config.batch_size)
    assert (config.total.epochs, config.batch_size) == (epochs, 1024)
    assert (found, config.optimizer.layer_decay) == (pytest.approx(rate), layer_decay)
    assert config.model.get("drop_path") == drop_path
    assert names(config) == ["RandAugmentTimm", "Flip", "ValueRange", "Erase", "Mix"]


@pytest.mark.parametrize(("size", "epochs"), [("B/16", 90), ("L/16", 50), ("H/14", 50)])
def test_maes_linear_probe_is_that_of_its_appendix(size, epochs) -> None:
    config = recipe(f"mae_probe.py:{size}", tuple(START))
    found, _ = peak_rate(config.optimizer, batch_size=config.batch_size)
    rule: Any = config.optimizer.rule
    assert (config.batch_size, config.total.epochs, found) == (16_384, epochs, pytest.approx(6.4))
    assert (type(rule).__name__, rule.weight_decay, rule.momentum) == ("Lars", 0.0, 0.9)
    assert (config.schedule.warmup.epochs, config.optimizer.frozen) == (10, ("^encoder/",))
    assert (config.model.get("pool"), config.model.get("head_norm")) == ("token", "batch")
    assert names(config) == ["Flip", "ValueRange"]


@pytest.mark.parametrize(
    ("variant", "epochs", "warmup", "scale"),
    [
        ("B/16-i1k", 800, (0, 10), 0.1),
        ("L/16-i1k", 800, (0, 10), 1e-5),
        ("B/16-i22k", 150, (10_000, 0), 0.1),
        ("L/16-i22k", 150, (10_000, 0), 1e-5),
    ],
)
def test_beit_is_that_of_its_readme(variant, epochs, warmup, scale) -> None:
    config = recipe(f"beit.py:{variant}")
    rule: Any = config.optimizer.rule
    objective: Any = config.objective
    assert (config.batch_size, config.total.epochs) == (2048, epochs)
    assert (config.schedule.warmup.steps, config.schedule.warmup.epochs) == warmup
    assert (config.optimizer.learning_rate, config.schedule.decay.end_value) == (1.5e-3, 1e-5)
    assert (rule.b1, rule.b2, rule.weight_decay) == (0.9, 0.98, 0.05)
    assert (config.optimizer.clip_norm, config.model.get("drop_path")) == (3.0, 0.1)
    assert (objective.hidden, objective.smallest_block, objective.largest_block) == (75, 16, 0)
    model: Any = config.model.change(zoo.options(config.model.name))
    assert (model.layer_scale, model.relative_bias, model.position) == (scale, "shared", "none")
    assert (model.mim_classes, model.key_bias, model.init) == (8192, False, "beit")
    assert config.data.mean == ((0.485, 0.456, 0.406) if variant.endswith("i1k") else ())
    assert names(config) == ["ColourJitter", "Flip", "ValueRange"]


@pytest.mark.parametrize(
    ("variant", "batch", "epochs", "rate", "warmup", "layer_decay", "drop_path"),
    [
        ("B/16", 1024, 100, 4e-3, 20, 0.65, 0.1),
        ("L/16", 1024, 50, 1e-3, 5, 0.75, 0.2),
        ("B/16-i22k", 4096, 90, 3e-3, 5, 0.65, 0.2),
        ("L/16-i22k", 2048, 90, 2e-3, 5, 0.75, 0.2),
        ("B/16-after-i22k", 512, 30, 2e-5, 5, 0.85, 0.1),
        ("L/16-after-i22k", 512, 30, 2e-5, 5, 0.9, 0.4),
    ],
)
def test_beits_fine_tuning_is_that_of_its_readme(
    variant, batch, epochs, rate, warmup, layer_decay, drop_path
) -> None:
    config = recipe(f"beit_finetune.py:{variant}", tuple(START))
    rule: Any = config.optimizer.rule
    assert (config.total.epochs, config.batch_size) == (epochs, batch)
    assert (config.optimizer.learning_rate, config.schedule.warmup.epochs) == (rate, warmup)
    assert config.optimizer.layer_decay == layer_decay
    assert rule.weight_decay == (1e-8 if "after" in variant else 0.05)
    assert config.model.get("drop_path") == drop_path
    mixed = ["Mix"] if variant in ("B/16", "L/16") else []
    assert names(config) == ["RandAugmentTimm", "Flip", "ValueRange", "Erase", *mixed]


def test_the_discrete_vae_is_that_of_dall_e() -> None:
    config = recipe("dvae.py:dalle")
    rule: Any = config.optimizer.rule
    objective: Any = config.objective
    assert (config.batch_size, config.total.steps, config.ema) == (512, 3_000_000, 0.999)
    assert (config.optimizer.learning_rate, config.schedule.decay.end_value) == (1e-4, 1.25e-6)
    assert (rule.b1, rule.b2, rule.weight_decay) == (0.9, 0.999, 1e-4)
    assert (objective.reconstruction, objective.kl_weight) == ("logit_laplace", 6.6)
    assert (objective.kl_examples, objective.temperature_examples) == (5000 * 512, 150_000 * 512)
    assert objective.temperature == 1 / 16


@pytest.mark.parametrize("variant", ["Ti/16", "S/16", "B/16", "distilled-S/16"])
def test_deit_is_that_of_its_main_py(variant) -> None:
    distilled = variant.startswith("distilled")
    more = ("--config.objective.teacher=FILE",) if distilled else ()
    config = recipe(f"deit.py:{variant}", more)
    found, _ = peak_rate(config.optimizer, batch_size=config.batch_size)
    rule: Any = config.optimizer.rule
    objective: Any = config.objective
    assert (config.batch_size, config.total.epochs, found) == (1024, 300, pytest.approx(1e-3))
    assert (rule.weight_decay, objective.label_smoothing, config.ema) == (0.05, 0.1, 0.99996)
    assert config.schedule.warmup.epochs == 5 and config.model.get("drop_path") == 0.1
    assert names(config) == ["RandAugmentTimm", "Flip", "ValueRange", "Erase", "Mix"]
    if distilled:
        assert (objective.distillation, objective.alpha) == ("hard", 0.5)
        # timm's `add_weight_decay`: all but vectors, the class token and the positions
        params = nnx.to_pure_dict(zoo.abstract(zoo.options(config.model.name))[1])
        decays = traverse_util.flatten_dict(rule.decays(params), sep="/")
        tokens = {path for path, on in decays.items() if on and not path.endswith("kernel")}
        assert tokens == {"encoder/distillation"}


def test_deit_at_384_pixels_is_that_of_its_readme() -> None:
    config = recipe("deit.py:finetune-384", tuple(START))
    rate, _ = peak_rate(config.optimizer, batch_size=config.batch_size)
    rule: Any = config.optimizer.rule
    assert (config.image_size, config.batch_size, config.total.epochs) == ((384, 384), 512, 30)
    assert (rate, config.schedule.decay.end_value, rule.weight_decay) == (5e-6, 5e-6, 1e-8)
    assert config.model.name == "" and config.model.get("drop_path") == 0.1
    assert names(config) == ["RandAugmentTimm", "Flip", "ValueRange", "Erase", "Mix"]


@pytest.mark.parametrize(
    ("size", "pixels", "rate", "drop_path"),
    [
        ("S/16", 224, 4e-3, 0.05),
        ("B/16", 192, 3e-3, 0.2),
        ("L/16", 192, 3e-3, 0.45),
        ("H/14", 160, 3e-3, 0.6),
    ],
)
def test_deit_iii_is_that_of_its_readme(size, pixels, rate, drop_path) -> None:
    config = recipe(f"deit3.py:{size}")
    rule: Any = config.optimizer.rule
    objective: Any = config.objective
    assert (config.image_size, config.optimizer.learning_rate) == ((pixels, pixels), rate)
    assert (config.batch_size, config.total.epochs, rule.weight_decay) == (2048, 800, 0.05)
    assert type(rule).__name__ == "Lamb" and objective.cross_entropy == "sigmoid_mean"
    assert objective.target_threshold == 0  # both classes of a mixed image
    assert config.model.get("drop_path") == drop_path
    assert config.model.get("drop_path_grows") is False
    assert names(config) == ["ThreeAugment", "Flip", "ValueRange", "Mix"]
    assert config.model.get("drop_edges") is (True if size == "H/14" else None)


@pytest.mark.parametrize(
    ("variant", "pixels", "drop_path"),
    [
        *(("B/16-224", 224, 0.2), ("L/16-224", 224, 0.45), ("H/14-224", 224, 0.55)),
        *(("S/16-384", 384, 0.0), ("B/16-384", 384, 0.15), ("L/16-384", 384, 0.4)),
    ],
)
def test_deit_iii_is_fine_tuned_as_in_its_readme(variant, pixels, drop_path) -> None:
    config = recipe(f"deit3.py:{variant}", tuple(START))
    rule: Any = config.optimizer.rule
    objective: Any = config.objective
    assert (config.image_size, config.batch_size) == ((pixels, pixels), 512)
    assert (config.total.epochs, config.optimizer.learning_rate) == (20, 1e-5)
    assert (type(rule).__name__, rule.weight_decay, config.optimizer.clip_norm) == ("AdamW", 0.1, 0)
    assert config.model.get("drop_path") == drop_path and objective.label_smoothing == 0.1
    assert config.model.get("drop_path_grows") is False and config.schedule.warmup.epochs == 5
    assert names(config) == ["RandAugmentTimm", "Flip", "ValueRange", "Mix"]


@pytest.mark.parametrize(
    ("variant", "pixels", "epochs", "rate", "drop_path"),
    [
        ("S/16-i21k", 224, 240, 1e-3, 0.05),
        ("B/16-i21k", 224, 240, 1e-3, 0.1),
        ("L/16-i21k", 224, 240, 1e-3, 0.3),
        ("H/14-i21k", 128, 90, 1e-3, 0.5),
        ("S/16-i21k-224", 224, 50, 3e-4, 0.05),
        ("B/16-i21k-224", 224, 50, 3e-4, 0.15),
        ("L/16-i21k-224", 224, 50, 3e-4, 0.4),
        ("H/14-i21k-224", 224, 50, 3e-4, 0.45),
    ],
)
def test_deit_iii_on_imagenet_21k_is_that_of_its_readme(
    variant, pixels, epochs, rate, drop_path
) -> None:
    config = recipe(f"deit3.py:{variant}", tuple(START) if variant.endswith("224") else ())
    rule: Any = config.optimizer.rule
    objective: Any = config.objective
    mix: Any = config.augment[-1]
    assert (config.image_size, config.batch_size) == ((pixels, pixels), 2048)
    assert (config.total.epochs, config.optimizer.learning_rate) == (epochs, rate)
    assert (type(rule).__name__, rule.weight_decay) == ("Lamb", 0.02)
    assert (objective.cross_entropy, objective.label_smoothing) == ("softmax", 0.1)
    assert type(config.data.crop).__name__ == "Simple" and config.data.crop_pct == 1.0
    assert (mix.mixup_alpha, mix.cutmix_alpha) == (0.0, 1.0)
    assert config.model.get("drop_path") == drop_path
    assert names(config) == ["ThreeAugment", "Flip", "ValueRange", "Mix"]


@pytest.mark.parametrize(
    ("variant", "randaugment", "alpha", "bias"),
    [
        ("Ti/16-i1k", (2, 0.0), 0.0, -6.9),
        ("S/16-i1k", (2, 15.0), 0.5, -6.9),
        ("B/16-i1k-light2", (2, 10.0), 0.2, -6.9),
        ("Ti/16-i21k", None, 0.0, -10.0),
        ("B/32-i21k", (2, 10.0), 0.2, -10.0),
        ("L/16-i21k-strong2", (2, 20.0), 0.8, -10.0),
    ],
)
def test_augreg_has_the_strengths_of_the_paper(variant, randaugment, alpha, bias) -> None:
    config = recipe(f"augreg.py:{variant}")
    rule: Any = config.optimizer.rule
    found: dict[str, Any] = {type(a).__name__: a for a in config.augment}
    first = found.get("RandAugmentBigVision")
    assert (first and (first.layers, first.magnitude)) == randaugment
    assert (found["Mixup"].alpha if alpha else 0.0) == alpha
    assert (config.batch_size, config.model.get("head_bias")) == (4096, bias)
    assert (rule.weight_decay, rule.moment_dtype) == (0.1, "bfloat16")
    model: Any = config.model.change(zoo.options(config.model.name))
    if "i1k" in variant:  # vit_i1k.py: rep_size=True, pool_type="tok"
        assert (model.pool, model.class_position) == ("token", False)
        assert model.representation_size == model.width
    else:  # vit_i21k.py: pool_type="gap"
        assert (model.pool, model.class_token, model.representation_size) == ("gap", False, 0)


def test_the_plain_vit_is_that_of_big_vision() -> None:
    config = recipe("plain_vit.py:300")
    rule: Any = config.optimizer.rule
    assert (config.total.epochs, config.batch_size) == (300, 1024)
    assert (config.model.get("position"), config.model.get("pool")) == ("sincos2d", "gap")
    assert (config.optimizer.learning_rate, rule.weight_decay) == (1e-3, 0.1)
    assert names(config) == ["RandAugmentBigVision", "Flip", "ValueRange", "Mixup"]


@pytest.mark.parametrize(
    ("name", "interpolation", "fit", "crop_pct"),
    [
        ("deit.py:S/16", "bicubic_antialias", "crop", 0.875),
        ("deit.py:finetune-384", "bicubic_antialias", "crop", 0.875),
        ("deit3.py:B/16", "bicubic_antialias", "crop", 1.0),
        ("deit3.py:B/16-384", "bicubic_antialias", "crop", 1.0),
        ("mae.py:B/16", "bicubic_antialias", "crop", 0.875),
        ("mae_finetune.py:B/16", "bicubic_antialias", "crop", 0.875),
        ("mae_probe.py:B/16", "bicubic_antialias", "crop", 0.875),
        ("beit_finetune.py:B/16", "bicubic_antialias", "crop", 0.875),
        ("vit_finetune.py:cifar10", "linear", "squash", 1.0),  # input_pipeline.py: tf.image.resize
        ("plain_vit.py:90", "area", "crop", 0.875),  # big_vision: resize_small, central_crop
        ("augreg.py:B/16-i1k", "area", "crop", 0.875),
        ("scaling.py:G/14", "area", "crop", 0.875),
    ],
)
def test_models_are_evaluated_as_their_authors_did(name, interpolation, fit, crop_pct) -> None:
    data = recipe(name, tuple(START) if "finetune" in name or "384" in name else ()).data
    assert (data.eval_interpolation, data.eval_fit, data.crop_pct) == (interpolation, fit, crop_pct)


def names(config: Config) -> list[str]:
    return [type(augmentation).__name__ for augmentation in config.augment]


def test_masked_patch_prediction_is_that_of_the_appendix() -> None:
    config = recipe("masked_patch.py:paper")
    objective: Any = config.objective
    assert (config.batch_size, config.total.steps) == (4096, 1_000_000)
    assert (config.optimizer.learning_rate, config.schedule.warmup.steps) == (2e-4, 10_000)
    assert (objective.target, objective.corrupt) == ("mean_colour", 0.5)


@pytest.mark.parametrize(
    "name",
    [
        "vit.py",
        "vit_finetune.py",
        "scaling.py",
        "mae.py",
        "mae_finetune.py",
        "mae_probe.py",
        "deit.py",
        "deit3.py",
        "masked_patch.py",
        "beit.py",
        "beit_finetune.py",
        "dvae.py",
    ],
)
def test_an_unknown_variant_is_refused_with_those_that_there_are(name) -> None:
    with pytest.raises(ValueError, match="no variant 'B/17': choose one of"):
        recipe(f"{name}:B/17", tuple(START))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit.py:B/61-i1k", "did you mean 'B/16-i1k'?"),
        ("deit3.py:B/16-i2k", "did you mean 'B/16-i21k'?"),
        ("quickstart.py:B/16", "it has no variants: leave out :B/16"),
    ],
)
def test_a_misspelt_variant_names_the_nearest(name, said) -> None:
    with pytest.raises(ValueError) as caught:
        recipe(name)
    assert said in str(caught.value) and "Error" not in str(caught.value)


# Rates of the papers that have one batch size, by recipe, and the name of some data.
ONE_BATCH = {
    **{"vit.py:B/16-i1k": 3e-3, "scaling.py:G/14": 8e-4, "plain_vit.py:90": 1e-3},
    **{"augreg.py:B/16-i1k": 1e-3, "masked_patch.py:paper": 2e-4, "dvae.py:dalle": 1e-4},
    **{"beit.py:B/16-i1k": 1.5e-3, "beit_finetune.py:B/16": 4e-3, "deit3.py:B/16": 3e-3},
    "vit_finetune.py:imagenet": 0.03,
}


@pytest.mark.parametrize("name", ONE_BATCH)
def test_another_batch_than_the_papers_is_warned_of(name) -> None:
    config = recipe(name, ("--config.batch_size=1000", *START, "--config.data.name=imagenet2012"))
    rate, note = peak_rate(config.optimizer, batch_size=config.batch_size)
    assert rate == ONE_BATCH[name] and "outside the published recipe" in note


FINE_TUNING = ("vit_finetune.py", "mae_finetune.py", "mae_probe.py", "beit_finetune.py")


@pytest.mark.parametrize(
    "name", [*FINE_TUNING, "deit.py:finetune-384", "deit3.py:B/16-224", "deit3.py:B/16-i21k-224"]
)
def test_a_recipe_that_fine_tunes_does_not_train_from_random_values(name) -> None:
    config = recipe(name, ("--config.model.name=B/16",))
    with pytest.raises(ValueError, match="init_from is empty, and this recipe fine-tunes: name a"):
        setup.fresh_start(config, FACTS)
    anyway = recipe(name, ("--config.model.name=B/16", "--config.needs_init=false"))
    assert setup.fresh_start(anyway, FACTS).params is None


def test_recipes_of_a_paper_do_not_train_on_the_embedded_images() -> None:
    """A forgotten dataset is an error, not a run of weeks on Fashion-MNIST."""
    for name in ("masked_patch.py:paper", "dvae.py:dalle", "beit.py:B/16-i22k"):
        with pytest.raises(ValueError, match=r"config\.data\.name is empty: name a dataset"):
            opening.open_train(recipe(name).data, labelled=False)


@pytest.mark.parametrize("name", ["R50x1", "Swin-T", "ResNet-18", "RegNetY-160", "B/16"])
@pytest.mark.parametrize("file", ["finetune.py", "vit_finetune.py"])
def test_a_checkpoint_of_any_family_can_be_fine_tuned(file, name) -> None:
    config = recipe(file, tuple(START))
    base = zoo.options(name)
    config.model.finish(config.model.change(base), base)


def test_every_run_of_a_study_has_a_valid_config() -> None:
    studies = runpy.run_path(str(FOLDER.parent / "benchmarks/studies.py"))["STUDIES"]
    for study in studies.values():
        runs = study()
        assert len({run.name for run in runs}) == len(runs)
        for run in runs:
            file, _, variant = run.recipe.partition(":")
            fields = run.fields | dict.fromkeys(run.uses, "FILE")
            recipe(
                f"{file}.py" + (variant and f":{variant}"),
                tuple(f"--config.{field}={value}" for field, value in fields.items()),
            )


@pytest.mark.parametrize(
    ("rows", "trained"),
    [
        (["beit 5e-4"], {"dvae", "beit", "beit 5e-4"}),
        (["scratch"], {"scratch 5e-4", "scratch 2e-3"}),
        (["mae"], {"mae", "mae 5e-4", "mae 2e-3"}),
    ],
)
def test_rows_of_a_study_are_trained_with_the_runs_that_they_use(rows, trained) -> None:
    """In any order of the seeds; a run that is trained once has the lowest of them."""
    program = runpy.run_path(str(FOLDER.parent / "benchmarks/studies.py"))
    for seeds in ([0, 1], [2, 0, 1]):
        submitted: dict[tuple[str, int], list[Any]] = {}

        class Pool:
            def submit(self, _, run, seed, before, *rest, into=submitted) -> tuple[str, int]:
                assert {name for name, _ in before} == set(run.uses.values())
                into[run.name, seed] = before
                return run.name, seed

        flags = argparse.Namespace(study="pretraining", rows=rows, seeds=seeds)
        program["_submit"](Pool(), flags, 0.0)
        assert {name for name, _ in submitted} == trained
        once = {seed for name, seed in submitted if name == "dvae"}
        assert once == ({0} if "dvae" in trained else set())


def named_recipes() -> list[tuple[str, str]]:
    """Each recipe that a page or a docstring names, as FILE.py:VARIANT, and where it is named.

    Names in a line about big_vision are of its recipes. docs/extending.md makes its own ones, and
    has a test that follows it.
    """
    root = FOLDER.parent
    pages = (*root.glob("*.md"), *root.glob("docs/*.md"))
    texts = {page: page.read_text() for page in pages if page.name != "extending.md"}
    for folder in ("benchmarks", "configs", "launch", "scripts", "vit_jax"):
        for source in (root / folder).rglob("*.py"):
            texts[source] = ast.get_docstring(ast.parse(source.read_text())) or ""
    return [
        (name.rstrip(".:"), str(path.relative_to(root)))
        for path, text in texts.items()
        for line in text.splitlines()
        if "big_vision" not in line
        for name in re.findall(r"\bconfigs/([a-z0-9_]+\.py(?::[\w/+.-]+)?)", line)
    ]


def test_every_recipe_that_a_page_or_a_docstring_names_exists() -> None:
    named = named_recipes()
    assert len(named) > 50
    for name, place in named:
        file, _, variant = name.partition(":")
        assert (FOLDER / file).exists(), f"{place} names configs/{name}"
        get_config = runpy.run_path(str(FOLDER / file))["get_config"]
        try:
            get_config(*([variant] if variant else []))
        except ValueError as error:
            pytest.fail(f"{place} names configs/{name}: {error}")
