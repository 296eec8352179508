"""Each recipe has the values of its authors' code, field by field, as a run would use them.

The values were read in the papers and in the repositories that each entry names. They are written
here a second time on purpose: a slip of the pen in a recipe trains another model without a word.
"""

import pathlib
from typing import Any

import pytest

from vit_jax.commands import config as config_command
from vit_jax.commands import configs
from vit_jax.config import Config
from vit_jax.training import run_config

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "configs"

ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
# timm's rand-m9-mstd0.5-inc1, as DeiT, DeiT III, MAE and BEiT use it.
RANDAUGMENT = {
    "augment.randaugment_timm": {
        **{"layers": 2, "magnitude": 9.0, "magnitude_std": 0.5, "magnitude_max": 10.0},
        **{"probability": 0.5, "increasing": True, "fill": (), "interpolation": "bicubic"},
    }
}
ERASE = {"augment.erase": {"probability": 0.25, "fill": "noise"}}


def mix(mixup: float, cutmix: float = 1.0) -> dict[str, Any]:
    """The --mixup and --cutmix of timm, with its other defaults."""
    return {
        "augment.mix.mixup_alpha": mixup,
        "augment.mix.cutmix_alpha": cutmix,
        "augment.mix.probability": 1.0,
        "augment.mix.cutmix_probability": 0.5,
        "augment.mix.mode": "batch",
        "augment.mix.exact_share": True,
        "augment.mix.cutmix_sides": (),
    }


def optimizer(name: str, **fields: Any) -> dict[str, Any]:
    return {f"optimizer.{field}": value for field, value in {"name": name, **fields}.items()}


# timm's cosine: by the epoch, from the start of the run, over a warm-up from 1e-6.
TIMMS_SCHEDULE = {
    "schedule": {
        **{"decay": "cosine", "decay_from": "start", "hold": {"epochs": 1.0}},
        **{"warmup": {"epochs": 5.0}, "warmup_start": 1e-6, "end_value": 1e-5},
    }
}
BICUBIC = {"data.crop": "random_resized", "data.crop_area": (0.08, 1.0)} | {
    f"data.{name}": "bicubic_antialias" for name in ("interpolation", "eval_interpolation")
}

VALUES: dict[str, dict[str, Any]] = {
    # big_vision, configs/vit_i1k.py and vit_i21k.py; "How to train your ViT?", table 1.
    "augreg.py:B/16-i1k": {
        "image_size": (224, 224),
        "total": {"epochs": 300.0},
        "schedule": {"decay": "cosine", "warmup": {"steps": 10_000}, "end_value": 0.0},
        "data.train_split": "train[:99%]",
        "data.crop_area": (0.05, 1.0),
        "objective.cross_entropy": "sigmoid",
        **{"model.representation_size": 768, "model.init": "big_vision"},
        **optimizer("adamw", learning_rate=1e-3, rate_batch=4096, clip_norm=1.0, **ADAM),
    },
    "augreg.py:L/16-i1k": {"model.representation_size": 1024},
    "augreg.py:B/16-i21k": {"model.init": "big_vision"},
    **{
        f"augreg.py:B/16-i1k-{strength}": {
            "augment.randaugment_big_vision.layers": layers,
            "augment.randaugment_big_vision.magnitude": magnitude,
            "augment.mixup.alpha": alpha,
        }
        for strength, layers, magnitude, alpha in (
            ("light1", 2, 0.0, None),
            ("light2", 2, 10.0, 0.2),
            ("medium1", 2, 15.0, 0.2),
            ("medium2", 2, 15.0, 0.5),
            ("strong1", 2, 20.0, 0.5),
            ("strong2", 2, 20.0, 0.8),
            ("none", None, None, None),
        )
    },
    # big_vision, configs/vit_s16_i1k.py.
    "plain_vit.py:90": {
        **{"image_size": (224, 224), "model.class_token": False},
        "total": {"epochs": 90.0},
        "schedule": {"decay": "cosine", "warmup": {"steps": 10_000}, "end_value": 0.0},
        "data.train_split": "train[:99%]",
        "data.eval_split": "validation",
        "data.crop_area": (0.05, 1.0),
        "augment.randaugment_big_vision": {"layers": 2, "magnitude": 10.0},
        "augment.mixup.alpha": 0.2,
        "objective.cross_entropy": "softmax",
        "objective.label_smoothing": 0.0,
        "model.representation_size": 384,
        **optimizer("adamw", learning_rate=1e-3, rate_batch=1024, clip_norm=1.0, **ADAM),
        "optimizer.moment_dtype": "bfloat16",
    },
    # big_vision, configs/proj/scaling_laws/train_vit_g.py.
    "scaling.py:G/14": {
        **{"image_size": (224, 224), "model.class_token": False},
        "schedule": {
            **{"decay": "rsqrt", "timescale": {"steps": 10_000}},
            **{"warmup": {"steps": 10_000}, "cooldown": {"steps": 50_000}},
        },
        **{"model.head_bias": -10.0, "model.init": "big_vision"},
        "objective.cross_entropy": "sigmoid",
        **optimizer("adafactor", b1=0.9, b2_cap=0.999, moment_dtype="bfloat16", clip_norm=1.0),
        "optimizer.rate_batch": 16_384,
    },
    # The ViT paper, table 3; the end of the linear decay from its authors (thread 2).
    "vit.py:B/16-i21k": {
        "schedule": {"decay": "linear", "warmup": {"steps": 10_000}, "end_value": 1e-5},
        "objective.cross_entropy": "sigmoid",
        "model.representation_size": 768,
        **optimizer("adamw", rate_batch=4096, decay_mask=("kernel$",), **ADAM),
    },
    "vit.py:L/16-jft": {"model.representation_size": 1024, "schedule.end_value": 1e-5},
    "vit.py:H/14-jft": {"model.representation_size": 1280},
    "vit.py:R50+B/16-jft": {"model.representation_size": 768},
    "vit.py:R152x2-jft": {"model.representation_size": None},
    "vit.py:B/16-i1k": {
        "schedule": {"decay": "cosine", "end_value": 0.0},
        "data.train_split": "train[:99%]",
        "data.eval_split": "train[99%:]",
        "data.crop_area": (0.05, 1.0),
        "objective.cross_entropy": "softmax",
    },
    # vision_transformer, configs/common.py.
    "vit_finetune.py:imagenet": {
        "data.eval_split": "train[99%:]",
        "schedule": {"decay": "cosine", "warmup": {"steps": 500}, "end_value": 0.0},
        "data.crop_area": (0.05, 1.0),
        "model.representation_size": None,
        **optimizer("sgd", learning_rate=0.03, rate_batch=512, moment_dtype="bfloat16"),
        "optimizer.nesterov": False,
    },
    "vit_finetune.py:cifar10": {
        **{"optimizer.learning_rate": 0.01, "data.eval_split": "train[98%:]"},
    },
    "vit_finetune.py:pets": {"schedule.warmup": {"steps": 100}},
    # facebookresearch/deit, main.py and README_deit.md.
    "deit.py:distilled-B/16": {
        **{"image_size": (224, 224), "total": {"epochs": 300.0}, "ema": 0.99996},
        **RANDAUGMENT,
        **ERASE,
        **mix(0.8),
        **TIMMS_SCHEDULE,
        **BICUBIC,
        "model.head_std": 0.02,
        "objective.temperature": 1.0,
        "optimizer.decay_mask": ("kernel$", "encoder/distillation$"),
        **optimizer("adamw", learning_rate=5e-4, rate_batch=512, clip_norm=0.0, **ADAM),
    },
    "deit.py:B/16": {"optimizer.decay_mask": ("kernel$",)},
    "deit.py:finetune-384": {
        **RANDAUGMENT,
        **ERASE,
        **mix(0.8),
        **BICUBIC,
        **optimizer("adamw", clip_norm=0.0, **ADAM),
        "objective.label_smoothing": 0.1,
        "ema": 0.99996,
    },
    # facebookresearch/deit, README_revenge.md.
    "deit3.py:B/16": {
        "augment.three_augment.jitter": 0.3,
        **mix(0.8),
        **TIMMS_SCHEDULE,
        **BICUBIC,
        **{"model.head_std": 0.02, "objective.label_smoothing": 0.0, "ema": 0.0},
        **optimizer("lamb", rate_batch=2048, clip_norm=1.0, **ADAM),  # --opt-eps is 1e-8
    },
    "deit3.py:B/16-224": {**RANDAUGMENT, **mix(0.8), **TIMMS_SCHEDULE, **BICUBIC}
    | optimizer("adamw", rate_batch=512, **ADAM),
    "deit3.py:L/16-i21k": {
        "augment.three_augment.jitter": 0.3,
        "data.crop_padding": 4,
        **mix(0.0),
        **TIMMS_SCHEDULE,
        **optimizer("lamb", rate_batch=2048, clip_norm=1.0, **ADAM),
    },
    "deit3.py:B/16-i21k-224": optimizer("lamb", rate_batch=2048, **ADAM),
    # facebookresearch/mae, PRETRAIN.md, FINETUNE.md and their scripts.
    "mae.py:B/16": {
        "image_size": (224, 224),
        "schedule": {"decay": "cosine", "decay_from": "warmup", "end_value": 0.0},
        "schedule.warmup_start": 0.0,
        "data.crop_area": (0.2, 1.0),
        **optimizer("adamw", learning_rate=1.5e-4, rate_batch=256, clip_norm=0.0, eps=1e-8),
    },
    "mae_finetune.py:B/16": {
        "image_size": (224, 224),
        "schedule": {"decay": "cosine", "warmup": {"epochs": 5.0}, "end_value": 1e-6},
        **RANDAUGMENT,
        **ERASE,
        **mix(0.8),
        **BICUBIC,
        **{"model.head_std": 2e-5, "objective.label_smoothing": 0.1},
        **optimizer("adamw", weight_decay=0.05, rate_batch=256, clip_norm=0.0, **ADAM),
    },
    "mae_probe.py:B/16": {
        "image_size": (224, 224),
        "schedule": {"decay": "cosine", "warmup": {"epochs": 10.0}, "end_value": 0.0},
        **BICUBIC,
        **{"model.norm_at": "tokens", "model.head_std": 0.01},
        **optimizer("lars", learning_rate=0.1, trust_coefficient=0.001, clip_norm=0.0),
        "objective.label_smoothing": 0.0,
    },
    # microsoft/unilm, beit/: run_beit_pretraining.py, run_class_finetuning.py, get_started_*.md.
    "beit.py:B/16-i1k": {
        "image_size": (224, 224),
        "schedule.decay": "cosine",
        **BICUBIC,
        "augment.colour_jitter": {
            **{"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.0}
        },
        "data.std": (0.229, 0.224, 0.225),
        **optimizer("adamw", rate_batch=2048, eps=1e-8),
    },
    "beit_finetune.py:B/16": {
        "image_size": (224, 224),
        "schedule": {"decay": "cosine", "end_value": 1e-6},
        **RANDAUGMENT,
        **ERASE,
        **mix(0.8),
        **BICUBIC,
        **{"model.head_std": 2e-5, "objective.label_smoothing": 0.1},
        **optimizer("adamw", clip_norm=0.0, rate_batch=1024, **ADAM),
    },
    "beit_finetune.py:B/16-i22k": {"optimizer.clip_norm": 3.0},
    "beit_finetune.py:L/16-i22k": {"optimizer.clip_norm": 1.0},
    # "Zero-Shot Text-to-Image Generation", appendix A.2.
    "dvae.py:dalle": {"image_size": (256, 256), "schedule.decay": "cosine"}
    | optimizer("adamw", rate_batch=512, clip_norm=0.0, eps=1e-8),
    # The ViT paper, appendix B.1.2.
    "masked_patch.py:paper": {
        "image_size": (224, 224),
        "schedule": {"decay": "cosine", "end_value": 0.0},
        "data.crop_area": (0.05, 1.0),
        **optimizer("adam", clip_norm=0.0, **ADAM),
    },
}


def recipe(name: str) -> Config:
    overrides = ["--config.init_from=FILE"]
    overrides += ["--config.objective.teacher=FILE"] if "distilled" in name else []
    return configs.from_file(str(FOLDER / name), overrides)


@pytest.mark.parametrize("name", VALUES)
def test_a_recipe_has_the_values_of_its_authors(name) -> None:
    found = run_config.flat(recipe(name))
    for one in found["augment"]:
        if not isinstance(one, str):
            found |= {f"augment.{one['name']}.{field}": value for field, value in one.items()}
    for path, value in run_config.flat(VALUES[name]).items():
        assert found.get(path) == value, path


@pytest.mark.parametrize("name", VALUES)
def test_the_lists_of_a_recipe_can_be_typed_as_config_shows_them(name) -> None:
    config = recipe(name)
    every = run_config.flat(config).items()
    lists = tuple(f"{path}." for path, value in every if isinstance(value, tuple))
    shown = config_command.values(config).items()
    typed = [f"--config.{p}={value}" for p, value in shown if f"{p}.".startswith(lists)]
    assert len(typed) >= len(lists) > 10
    assert configs.override(config, typed)[0] == config
