"""What a recipe gets that does not say more: the same in every version."""

from typing import Any

from vit_jax.config import of_fields, resolve

NEVER = {"steps": 0, "epochs": 0.0, "examples": 0, "percent": 0.0}
EVERY_TENTH = NEVER | {"percent": 10.0}
MODEL = {
    **{"name": "", "width": 0, "depth": 0, "mlp_dim": 0, "num_heads": 0, "patch_size": ()},
    **{"channels": 0, "pool": "", "representation_size": 0, "position": "", "position_at": ""},
    **{"dropout": 0.0, "attention_dropout": 0.0, "drop_path": 0.0, "head_bias": 0.0},
    **{"dtype": "float32", "attention": "auto", "remat": "auto", "unroll": 0},
}
DATA = {
    **{"source": "embedded", "name": "", "path": "", "train_split": "train", "eval_split": ""},
    **{"crop": "inception", "crop_area": (0.05, 1.0), "shift": 0, "kernel": "linear"},
    **{"eval_kernel": "area", "eval_fit": "crop", "eval_crop": 0.875, "orientation": False},
    **{"flip": True, "mixup": 0.0, "mean": (), "std": (), "accept_changes": False},
    **{"repeats": 1, "max_bad": 0.001, "threads": 8, "prefetch": 2},
}
OPTIMIZER = {
    **{"name": "adamw", "learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8},
    **{"momentum": 0.9, "nesterov": False, "moment_dtype": "float32", "weight_decay": 0.0},
    **{"decay_mask": ("kernel$",), "frozen": (), "clip_norm": 1.0, "accumulate": 1},
}
SCHEDULE = {
    **{"decay": "cosine", "warmup": NEVER, "end": 0.0},
    **{"timescale": NEVER | {"steps": 10_000}, "cooldown": NEVER},
}
DEFAULT: dict[str, Any] = {
    **{"seed": 0, "init_from": "", "init_state": "parameters", "init_layout": ""},
    **{"init_grid": (), "init_resize": "", "init_head": "by_name", "init_adapt_channels": False},
    **{"image_size": (224, 224), "batch_size": 256, "total": NEVER | {"epochs": 90.0}},
    **{"evaluate_every": EVERY_TENTH, "eval_batch_size": 0, "log_every": NEVER | {"steps": 50}},
    **{"ema": 0.0, "model": MODEL, "data": DATA, "optimizer": OPTIMIZER, "schedule": SCHEDULE},
    "objective": {"loss": "softmax", "label_smoothing": 0.0},
    "checkpoint": {"every": EVERY_TENTH, "keep_last": 2, "keep_best": 1, "metric": "top1"},
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
}


def test_the_defaults_are_those_of_every_earlier_version() -> None:
    """A recipe, and the config of a run, mean the same in a later version.

    The config of a run of an earlier version holds them all; without the model it may be none.
    """
    model = {"model": MODEL | {"name": "Ti/16"}}
    assert of_fields(DEFAULT | model) == resolve({"model": {"name": "Ti/16"}})
    for group, choices in (
        ("optimizer", {"name": ("adamw", "adam", "sgd")}),
        ("schedule", {"decay": ("cosine", "linear", "rsqrt")}),
        ("data", {"crop": ("inception", "shift"), "source": ("image_folder", "tfds")}),
    ):
        for key, names in choices.items():
            for name in names:
                old = DEFAULT | model | {group: DEFAULT[group] | {key: name}}
                assert of_fields(old) == resolve({**model, group: {key: name}}), name
