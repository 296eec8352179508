"""microsoft/unilm: BEiT's model and its groups of decayed parameters, in the order of its engine.

Its tokenizer is left out: the tokens are given. The schedule is that of timm_vit, at every step;
BEiT's own begins the warm-up at 1e-6 and reaches the peak one step earlier.
"""

import math
import sys
import types
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import timm.optim  # type: ignore[import-not-found]  # noqa: F401
import torch  # type: ignore[import-not-found]

from benchmarks.twins import wire
from benchmarks.twins.peers import torch_side

_GONE = {
    "nadam": "Nadam",
    "novograd": "NovoGrad",
    "nvnovograd": "NvNovoGrad",
    "radam": "RAdam",
    "rmsprop_tf": "RMSpropTF",
    "sgdp": "SGDP",
}
# What optim_factory imports by names that current releases of timm no longer have, and never calls.
for _name, _kind in _GONE.items():
    _path = f"timm.optim.{_name}"
    _module = sys.modules.setdefault(_path, types.ModuleType(_path))
    vars(_module).setdefault(_kind, None)

import modeling_pretrain  # type: ignore[import-not-found]  # noqa: E402
import optim_factory  # type: ignore[import-not-found]  # noqa: E402


class UnilmBeit:
    """A BEiT in pretraining."""

    def __init__(self, settings: dict[str, Any], params: wire.Arrays) -> None:
        self.settings, self.updates = settings, 0
        self.model = modeling_pretrain.VisionTransformerForMaskedImageModeling(
            img_size=settings["image_size"],
            patch_size=settings["patch_size"],
            vocab_size=settings["vocabulary"],
            embed_dim=settings["width"],
            depth=settings["depth"],
            num_heads=settings["heads"],
            mlp_ratio=settings["mlp_dim"] / settings["width"],
            drop_path_rate=settings["drop_path"],
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            init_values=settings["layer_scale"],
            use_abs_pos_emb=False,
            use_shared_rel_pos_bias=True,
        )
        torch_side.load(self.model, params)
        self.model.train()
        groups = optim_factory.get_parameter_groups(
            self.model, settings["weight_decay"], self.model.no_weight_decay()
        )
        self.optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.98))

    def step(self, batch: wire.Arrays) -> tuple[float, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate() * group["lr_scale"]
        images = torch_side.images(batch["image"], self.settings)
        hidden = torch.from_numpy(batch["hidden"])
        labels = torch.from_numpy(batch["tokens"]).long()[hidden]
        with torch_side.bernoulli(self._kept(batch)):
            outputs = self.model(images, bool_masked_pos=hidden, return_all_tokens=False)
        loss = torch.nn.CrossEntropyLoss()(input=outputs, target=labels)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings["clip_norm"])
        self.optimizer.step()
        self.updates += 1
        return loss.item(), norm.item()

    def params(self) -> Mapping[str, np.ndarray]:
        return torch_side.params(self.model)

    def _rate(self) -> float:
        warmup, steps = self.settings["warmup"], self.settings["steps"]
        peak: float = self.settings["learning_rate"]
        if self.updates < warmup:
            return peak * self.updates / warmup
        progress = (self.updates - warmup) / (steps - warmup)
        return peak * 0.5 * (1 + math.cos(math.pi * progress))

    def _kept(self, batch: wire.Arrays) -> Iterator[np.ndarray]:
        """The draws of the branches that may be dropped: of all blocks but the first."""
        for layer in range(1, self.settings["depth"]):
            yield from (batch["kept"][:, layer, branch] for branch in range(2))


if __name__ == "__main__":
    wire.serve(UnilmBeit)
