"""The names of arrays in Hugging Face's models, unified over all releases.

Files of the 4.x and 5.x releases have almost the same names. But 5.x renamed parameters in memory,
and a file may have these names too. `canonical` returns the names of 4.x, with the prefix of the
model's body, which is missing in files of models without a head.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping

import numpy as np

from vit_jax.checkpoints.layouts.table import Arrays

# Family -> prefix of the body's names.
BODIES = {
    "vit": "vit.",
    "vit_hybrid": "vit.",
    "vit_mae": "vit.",
    "deit": "deit.",
    "beit": "beit.",
    "dinov2": "dinov2.",
    "dinov2_with_registers": "dinov2_with_registers.",
    "siglip": "vision_model.",
    "clip": "vision_model.",
}
_BODY = re.compile(
    r"^(embeddings|encoder|layernorm|layers|pooler|pre_layrnorm|post_layernorm|head|shared_|norm)"
)
# Part of a name -> family. The first part that some name contains decides.
_MARKS = {
    "pre_layrnorm": "clip",
    "backbone.bit.": "vit_hybrid",
    "decoder.mask_token": "vit_mae",
    "patch_embedding.weight": "siglip",
    "register_tokens": "dinov2_with_registers",
    "layer_scale1": "dinov2",
    "lambda_1": "beit",
    "relative_position_bias.relative_position_bias_table": "beit",
    "distillation_token": "deit",
    "patch_embeddings.projection": "vit",
}

# Names of 5.x, in memory or in files (pattern) -> names of 4.x.
_RENAMES = [
    (r"^((?:vit|deit|beit)\.)?layers\.(\d+)\.", r"\1encoder.layer.\2."),
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
    (r"(^|\.)shared_position_bias\.", r"\1encoder.relative_position_bias."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (
        r"(layer\.\d+)(\.attention){0,2}\.relative_position_bias\.",
        r"\1.attention.attention.relative_position_bias.",
    ),
]
_MLP = [(r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense.")]
TABLE = "relative_position_bias.relative_position_bias_table"
PROJECTION, PROJECTION_BIAS = "visual_projection.weight", "visual_projection.bias"
_BUFFERS = ("position_ids", "relative_position_index", "num_batches_tracked")
_OTHER_TOWERS = ("text_model.", "text_projection.", "logit_scale", "logit_bias")


@dataclasses.dataclass(frozen=True)
class Parts:
    """Names of the parts of a block, and of the embedding and the last norm."""

    block: str = "encoder.layer.{i}"
    norms: tuple[str, str] = ("layernorm_before", "layernorm_after")
    qkv: str = "attention.attention."
    parts: tuple[str, str, str] = ("query", "key", "value")
    out: str = "attention.output.dense"
    mlp: tuple[str, str] = ("intermediate.dense", "output.dense")
    scales: tuple[str, str] = ("lambda_1", "lambda_2")
    embedding: str = "embeddings.patch_embeddings.projection"
    norm: str = "layernorm"


_DINO = Parts(
    norms=("norm1", "norm2"),
    mlp=("mlp.fc1", "mlp.fc2"),
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
)
_SIGLIP = Parts(
    block="encoder.layers.{i}",
    norms=("layer_norm1", "layer_norm2"),
    qkv="self_attn.",
    parts=("q_proj", "k_proj", "v_proj"),
    out="self_attn.out_proj",
    mlp=("mlp.fc1", "mlp.fc2"),
    embedding="embeddings.patch_embedding",
    norm="post_layernorm",
)


def family(names: Mapping[str, object]) -> str:
    """The family of a model with these names; "" for an unknown one."""
    others = ("model.layers.", "blocks.", "swin.", "encoder.layers.0.blocks.")
    if any(name.startswith(others) for name in names):
        return ""  # a language model, a timm model, a Swin
    for mark, kind in _MARKS.items():
        if any(mark in name for name in names):
            return "beit" if kind == "vit" and _without_key_bias(names) else kind
    return ""


def _without_key_bias(names: Collection[str]) -> bool:
    """Whether only queries and values have a bias, as in BEiT."""
    ends = {name.rpartition(".attention.")[2] for name in names}
    return not ends.isdisjoint(("query.bias", "q_proj.bias")) and ends.isdisjoint(
        ("key.bias", "k_proj.bias")
    )


def canonical(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The arrays of the vision model with the names of the 4.x releases, without buffers."""
    kind = family(arrays)
    renames = _RENAMES + (_MLP if kind in ("vit", "vit_hybrid", "vit_mae", "deit", "beit") else [])
    classifies = any(f"{head}classifier.weight" in arrays for head in ("", "cls_"))
    out = {}
    for name, array in arrays.items():
        if name.rpartition(".")[2] in _BUFFERS or name.startswith(_OTHER_TOWERS):
            continue
        if classifies and (name.startswith("vision_model.head.") or ".pooler.dense." in name):
            continue  # the classifier does not use it
        if kind not in ("siglip", "clip"):
            for pattern, replacement in renames:
                name = re.sub(pattern, replacement, name)
        out[name] = array
    if kind.startswith("dinov2"):
        out = _fused_gates(out)
    if PROJECTION in out:  # a head without bias
        out[PROJECTION_BIAS] = np.zeros(out[PROJECTION].shape[:1], np.float32)
    body = BODIES[kind]
    if not any(name.startswith(body) for name in out):
        out = {body + name if _BODY.match(name) else name: a for name, a in out.items()}
    return _summed_biases(out, body)


def left_out(names: Collection[str]) -> list[str]:
    """The names of a text tower and of other parts outside the vision model."""
    return [name for name in names if name.startswith(_OTHER_TOWERS)]


def _summed_biases(arrays: Arrays, body: str) -> Arrays:
    """Adds BEiT's shared relative bias to that of each block, where a file has both."""
    shared = f"{body}encoder.{TABLE}"
    own = [n for n in arrays if n.endswith(f"attention.attention.{TABLE}")]
    if shared not in arrays or not own:
        return arrays
    summed = {name: arrays[name] + arrays[shared] for name in own}
    return {n: a for n, a in (arrays | summed).items() if n != shared}


def _fused_gates(arrays: Arrays) -> Arrays:
    """Joins gate and value of a gated MLP into one array, as in files of 4.x."""
    out = {}
    for name, array in arrays.items():
        if ".mlp.up_proj." in name:
            continue
        if ".mlp.gate_proj." in name:
            array = np.concatenate([array, arrays[name.replace("gate_proj", "up_proj")]])
        name = name.replace(".mlp.gate_proj.", ".mlp.weights_in.")
        out[name.replace(".mlp.down_proj.", ".mlp.weights_out.")] = array
    return out


def parts(kind: str) -> Parts:
    """The names of the parts of a family's blocks."""
    return (
        _SIGLIP if kind in ("siglip", "clip") else _DINO if kind.startswith("dinov2") else Parts()
    )
