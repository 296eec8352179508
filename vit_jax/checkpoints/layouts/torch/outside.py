"""Refuses models with timm's names that have parts which this package does not support.

Most of these parts show in the names of arrays. Others show only in config.json: in its
`architecture`, and in `model_args` if there are any.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vit_jax.checkpoints.layouts.hints import unknown

# Pattern in the name of an array -> the unsupported part.
_ARRAYS = {
    r"^rope\.|\.rope\.": "rotary positions",
    r"rel_pos\.": "relative positions computed by an MLP or from a table of timm's own",
    r"^blocks\.0\.(attns|ffns)\.": "parallel branches in a block",
    r"^blocks\.0\.(in_proj|attn_out_proj)\.": "attention and MLP in parallel",
    r"^blocks\.0\.attn\.lambda_": "differential attention",
    r"^blocks\.0\.(attn|mlp)\.norm\.": "norms inside of attention or MLP",
    r"^blocks\.0\.mlp\.fc1_g\.": "a gated MLP with gate and value in two layers",
    r"^patch_embed\.norm\.": "a norm of the embedded patches",
    r"^patch_embed\.backbone\..*running_mean$": "a stem with batch norm",
}
# Layers that have a bias in all supported models, by the part that is unsupported without it.
_BIASED = {
    "RMSNorm": ("blocks.0.norm1", "blocks.0.norm2"),
    "layers without bias": ("blocks.0.attn.proj", "blocks.0.mlp.fc1"),
}
_ARCHITECTURES = {
    r"rope|dinov3|_pe_|lingbot|sapiens|eva02_(?!enormous)": "rotary positions",
    r"_rpn_|eva02_enormous": "norms after the branches of a block",
}
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "pool_include_prefix": (False,),
    "final_norm": (True,),
    "proj_bias": (True,),
    "global_pool": ("token", "avg", "map", ""),
    "act_layer": ("gelu", "gelu_tanh", "quick_gelu"),
    "norm_layer": ("layernorm",),
    "use_rot_pos_emb": (False,),
    "use_post_norm": (False,),
}


def refuse(shapes: Mapping[str, Sequence[int]], arguments: Mapping[str, Any]) -> None:
    """Raises ValueError where arrays or the fields of config.json show an unsupported model."""
    names = shapes.keys()
    found = [what for part, what in _ARRAYS.items() if any(re.search(part, name) for name in names)]
    found += [what for what, layers in _BIASED.items() if _without_bias(names, layers)]
    if _is_small_eva02(shapes):
        found.append("rotary positions")
    last = ("norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias")
    if not any(name in names for name in last):
        found.append("no norm after the blocks")
    architecture = str(arguments.get("architecture", ""))
    found += [what for part, what in _ARCHITECTURES.items() if re.search(part, architecture)]
    found += unknown(arguments, _ARGUMENTS)
    if found:
        raise ValueError(f"a ViT with {', '.join(dict.fromkeys(found))} is not supported")


def _is_small_eva02(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether an MLP is gated and keys have no bias, as only in timm's eva02_tiny and eva02_small.

    Their rotary positions are buffers, which no file has.
    """
    fc1, fc2 = (shapes.get(f"blocks.0.mlp.{name}.weight", ()) for name in ("fc1", "fc2"))
    gated = len(fc1) == len(fc2) == 2 and fc1[0] == 2 * fc2[1]
    return gated and "blocks.0.attn.q_bias" in shapes


def _without_bias(names: Collection[str], layers: Collection[str]) -> bool:
    """Whether no layer has a bias. If only some lack it, the file is damaged."""
    return all(f"{n}.weight" in names and f"{n}.bias" not in names for n in layers)
