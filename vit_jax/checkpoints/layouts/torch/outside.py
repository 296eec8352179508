"""What other models of timm's names have and ours have not: refused by its name.

Most of it shows in the names of arrays. Some models differ in what they compute alone, which only
the config.json beside them tells: its `architecture`, and `model_args` where those were given.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

# What is in the name of an array -> what it is for.
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
# Layers that have a bias in all models of ours.
_BIASED = {
    "RMSNorm": ("blocks.0.norm1", "blocks.0.norm2"),
    "layers without bias": ("blocks.0.attn.proj", "blocks.0.mlp.fc1"),
}
_ARCHITECTURES = {
    r"rope|dinov3|_pe_|lingbot|sapiens": "rotary positions",
    r"_rpn_": "norms after the branches of a block",
}
_ARGUMENTS = {
    "pool_include_prefix": (False, None),
    "final_norm": (True, None),
    "proj_bias": (True, None),
    "global_pool": ("token", "avg", "map", "", None),
    "act_layer": ("gelu", "gelu_tanh", "quick_gelu", None),
}


def refuse(names: Collection[str], told: Mapping[str, Any]) -> None:
    """Raises ValueError where arrays of these names, or what config.json tells, are not ours."""
    found = [what for part, what in _ARRAYS.items() if any(re.search(part, name) for name in names)]
    found += [what for what, layers in _BIASED.items() if _without_bias(names, layers)]
    last = ("norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias")
    if not any(name in names for name in last):
        found.append("no norm after the blocks")
    architecture = str(told.get("architecture", ""))
    found += [what for part, what in _ARCHITECTURES.items() if re.search(part, architecture)]
    found += [
        f"{name}={told[name]!r}"
        for name, known in _ARGUMENTS.items()
        if name in told and told[name] not in known
    ]
    if found:
        raise ValueError(f"a ViT with {', '.join(dict.fromkeys(found))} is not supported")


def _without_bias(names: Collection[str], layers: Collection[str]) -> bool:
    """Whether none of the layers has a bias; one that is missing is a damage of the file."""
    return all(f"{n}.weight" in names and f"{n}.bias" not in names for n in layers)
