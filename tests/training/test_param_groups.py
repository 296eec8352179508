"""Rates and decays of all parameters are those of the tables of timm and MAE."""

import json
from typing import Any

import numpy as np
import pytest
from flax import traverse_util

from tests.models import tiny
from tests.parts import optimizer_config
from vit_jax.training.optimizer import rate_factors

# Paths of a plain ViT by the names of timm; below `blocks.N.` those of a block.
OF_TIMM = {
    **{"cls_token": "cls", "pos_embed": "position", "norm.weight": "norm/scale"},
    **{"norm.bias": "norm/bias", "patch_embed.proj.weight": "embedding/kernel"},
    "patch_embed.proj.bias": "embedding/bias",
    **{
        f"norm{n}.{a}": f"norm{n}/{b}"
        for n in (1, 2)
        for a, b in (("weight", "scale"), ("bias",) * 2)
    },
    **{
        f"{theirs}.{a}": f"{ours}/{b}"
        for theirs, ours in (
            *(("attn.qkv", "attention/qkv"), ("attn.proj", "attention/out")),
            *(("mlp.fc1", "mlp/fc1"), ("mlp.fc2", "mlp/fc2")),
        )
        for a, b in (("weight", "kernel"), ("bias", "bias"))
    },
}


def at_timms_name(flat: dict[str, Any], name: str) -> float:
    """The number of a flat tree, () or (L, 1, ...), for a parameter of timm."""
    if name.startswith("head."):
        return float(flat["head/kernel" if name.endswith("weight") else "head/bias"])
    if not name.startswith("blocks."):
        return float(flat[f"encoder/{OF_TIMM[name]}"])
    _, layer, rest = name.split(".", 2)
    found = np.ravel(flat[f"encoder/blocks/{OF_TIMM[rest]}"])
    return float(found[int(layer) if len(found) > 1 else 0])


@pytest.mark.parametrize("fixture", ["timm_param_groups", "mae_schedule_layerdecay"])
def test_every_parameter_has_the_rate_and_the_decay_of_the_table(shared, fixture) -> None:
    """Timm decays its norm before pooling like the last block; here it has the head's rate."""
    table = json.loads((shared / f"fixtures/{fixture}/meta.json").read_text())["layer_decay_table"]
    flat = tiny.params(tiny.options(depth=3 if fixture.startswith("timm") else 2))
    params = traverse_util.unflatten_dict(flat, sep="/")
    factors = (("encoder/norm/", 0.75),) if fixture.startswith("timm") else ()
    optimizer = optimizer_config(layer_decay=0.75, weight_decay=0.05, rate_factors=factors)
    rule: Any = optimizer.rule
    rates, decays = (
        traverse_util.flatten_dict(tree, sep="/")
        for tree in (rate_factors(optimizer, params), rule.decay_rates(params))
    )
    seen = {name: row for name, row in table.items() if not name.startswith("fc_norm")}
    assert len(seen) > 25
    for name, (their_rate, their_decay) in seen.items():
        assert at_timms_name(rates, name) == pytest.approx(their_rate), name
        assert 0.05 * at_timms_name(decays, name) == pytest.approx(their_decay), name
