"""`convert --check`: logits of a model, of the written file and of the original code, compared.

The original code is Hugging Face's transformers, or timm, which has the models of DeiT, MAE and
BEiT too. Neither is a dependency: a library that is not installed is reported as not compared.
"""

import importlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.checkpoints import layouts, load
from vit_jax.checkpoints.load import Checkpoint

_SEED, _BATCH = 0, 2


def compare(checkpoint: Checkpoint, again: Checkpoint) -> str:
    """Message: the largest difference of logits between a model and the model read back."""
    images = _images(checkpoint)
    difference = _largest(_logits(checkpoint, images), _logits(again, images))
    return f"check: read back, logits differ by at most {difference}"


def against_origin(checkpoint: Checkpoint, *, folder: pathlib.Path) -> list[str]:
    """Message: the largest difference between our logits and those of the original code.

    The original code is transformers if `folder` holds a Hugging Face model, otherwise timm.
    """
    config = folder / "config.json"
    run = (folder / "model.json").is_file()
    hugging_face = config.is_file() and not run and "model_type" in json.loads(config.read_text())
    name = "transformers" if hugging_face else "timm"
    try:
        library, torch = importlib.import_module(name), importlib.import_module("torch")
    except ImportError as error:
        return [f"check: not compared with the original code: {error.name} is not installed"]
    images = _images(checkpoint)
    try:
        ours = _logits(checkpoint, images)
        tensor = torch.tensor(np.moveaxis(images, -1, 1).copy())
        with torch.no_grad():
            if hugging_face:
                theirs = _transformers_logits(checkpoint, library, folder, tensor)
            else:
                theirs = _timm_model(checkpoint, torch)(tensor).numpy()
    except (ValueError, AssertionError, ImportError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return [f"check: not compared with {name}: {reason}"]
    return [f"check: {name} {library.__version__}, logits differ by {_largest(ours, theirs)}"]


def _timm_model(checkpoint: Checkpoint, torch: Any) -> Any:
    """A timm model with the same options and parameters. Raises ValueError if timm has none."""
    options, layout = checkpoint.options, layouts.writer(checkpoint.options, "timm")
    arrays = layouts.table.write(layout.entries(options), checkpoint.params)
    arrays |= layout.constants(options)
    arrays.pop("mask_token", None)  # timm's models for classification have none
    assert layout.original, "every timm layout can build timm's model"
    built = layout.original(options)
    state = {name: torch.tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}
    missing, unexpected = built.load_state_dict(state, strict=False)
    computed = ("relative_position_index", "num_batches_tracked")
    wrong = [n for n in missing if not n.endswith(computed)] + unexpected
    if wrong:
        raise ValueError(f"its parameters differ: {', '.join(wrong[:4])}")
    return built.eval()


def _transformers_logits(
    checkpoint: Checkpoint, library: Any, folder: pathlib.Path, tensor: Any
) -> np.ndarray:
    """Logits (B, classes) of the transformers model in `folder`.

    `tensor` has images (B, C, height, width).
    """
    if not checkpoint.options.num_classes:
        raise ValueError("the model has no head")
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(library, kind).from_pretrained(folder).eval()(tensor).logits.numpy()


def _images(checkpoint: Checkpoint) -> np.ndarray:
    options = checkpoint.options
    shape = (_BATCH, *options.image_size, options.channels)
    return np.random.default_rng(_SEED).uniform(-1, 1, shape).astype(np.float32)


def _logits(checkpoint: Checkpoint, images: np.ndarray) -> np.ndarray:
    model = load.assemble(checkpoint.options, checkpoint.params)
    return np.asarray(jax.jit(lambda model, x: model(x))(model, jnp.asarray(images)))


def _largest(ours: np.ndarray, theirs: np.ndarray) -> str:
    if ours.shape != theirs.shape:
        return f"everything: shapes are {ours.shape} and {theirs.shape}"
    return f"{np.abs(ours - theirs).max():.1e} (the largest logit is {np.abs(ours).max():.1e})"
