"""Both sides of a conversion on the same images: what is written, and the original code.

The original code is Hugging Face's, or timm's, which holds the models of DeiT, MAE and BEiT too. It
is no dependency: where it is not installed nothing is compared with it, and that is said.
"""

import functools
import importlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.checkpoints import layouts, load
from vit_jax.checkpoints.load import Checkpoint
from vit_jax.models.vit import ViTOptions

_SEED, _BATCH = 0, 2


def compare(checkpoint: Checkpoint, again: Checkpoint) -> str:
    """The largest difference of logits between a model and what was read back of it."""
    images = _images(checkpoint)
    difference = _largest(_logits(checkpoint, images), _logits(again, images))
    return f"check: read back, logits differ by at most {difference}"


def against_origin(checkpoint: Checkpoint, *, folder: pathlib.Path) -> list[str]:
    """The largest difference between our logits and those of the original code.

    That is transformers' where `folder` is of Hugging Face, and timm's else.
    """
    hugging_face = (folder / "config.json").is_file() and not (folder / "model.json").is_file()
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
                theirs = _timm_model(checkpoint, library, torch)(tensor).numpy()
    except ValueError as error:
        return [f"check: not compared with {name}: {error}"]
    return [f"check: {name} {library.__version__}, logits differ by {_largest(ours, theirs)}"]


def _transformers_logits(
    checkpoint: Checkpoint, library: Any, folder: pathlib.Path, tensor: Any
) -> np.ndarray:
    """What the model of its config gives for images (B, C, height, width)."""
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
        return f"all: {ours.shape} against {theirs.shape}"
    return f"{np.abs(ours - theirs).max():.1e} of {np.abs(ours).max():.1e}"


def _timm_model(checkpoint: Checkpoint, timm: Any, torch: Any) -> Any:
    """A model of timm with the same options and parameters. Raises ValueError where it has none."""
    options = checkpoint.options
    if not isinstance(options, ViTOptions) or options.mim_classes or options.decoder:
        raise ValueError("this kind of model is not built there")
    if options.stem or options.mlp != "plain":
        raise ValueError("a model with a stem or a gated MLP is not built there")
    arrays = layouts.table.write(
        layouts.writer(options, "timm").entries(options), checkpoint.params
    )
    parts = timm.models
    beit = not options.key_bias or options.relative_bias != "none"
    arguments: dict[str, Any] = {
        "img_size": options.image_size,
        "patch_size": options.patch_size,
        "in_chans": options.channels,
        "num_classes": options.num_classes,
        "embed_dim": options.width,
        "depth": options.depth,
        "num_heads": options.num_heads,
        "mlp_ratio": options.mlp_dim / options.width,
        "init_values": options.layer_scale or None,
        "norm_layer": functools.partial(torch.nn.LayerNorm, eps=options.norm_eps),
        "global_pool": {"token": "token", "gap": "avg", "map": "map"}.get(options.pool, ""),
    }
    if beit:
        arguments |= {
            "use_abs_pos_emb": options.position != "none",
            "use_rel_pos_bias": options.relative_bias == "per_block",
            "use_shared_rel_pos_bias": options.relative_bias == "shared",
        }
        model = parts.beit.Beit(**arguments)
    else:
        approximate = "tanh" if options.gelu == "tanh" else "none"
        arguments |= {
            "qkv_bias": options.qkv_bias,
            "qk_norm": options.qk_norm,
            "class_token": options.has_class_token,
            "no_embed_class": not options.class_position,
            "reg_tokens": options.registers,
            "pre_norm": options.input_norm,
            "fc_norm": options.norm_at == "pooled",
            "act_layer": functools.partial(torch.nn.GELU, approximate=approximate),
        }
        create = parts.vision_transformer.VisionTransformer
        if options.distillation:
            create = parts.deit.VisionTransformerDistilled
            arguments.pop("fc_norm")
        model = create(**arguments)
    state = {name: torch.tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    wrong = [n for n in missing if "relative_position_index" not in n] + unexpected
    if wrong:
        raise ValueError(f"its parameters differ: {', '.join(wrong[:4])}")
    return model.eval()
