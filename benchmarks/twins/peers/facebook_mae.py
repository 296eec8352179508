"""facebookresearch/mae: its model, schedule and step, with current versions of its libraries.

The code is of 2022. What current libraries no longer have is put in place here.
"""

import math
import sys
import types
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]
from timm.models import vision_transformer  # type: ignore[import-not-found]

from benchmarks.twins import wire
from benchmarks.twins.peers import torch_side

_SIX = types.ModuleType("torch._six")
_SIX.inf = math.inf  # type: ignore[attr-defined]
sys.modules["torch._six"] = _SIX
vars(np)["float"] = float


class _Block(vision_transformer.Block):
    def __init__(self, *args: Any, qk_scale: None = None, **fields: Any) -> None:
        super().__init__(*args, **fields)


vision_transformer.Block = _Block

import models_mae  # type: ignore[import-not-found]  # noqa: E402
from util import lr_sched, misc  # type: ignore[import-not-found]  # noqa: E402


class FacebookMae:
    """A masked autoencoder in pretraining."""

    def __init__(self, settings: dict[str, Any], params: wire.Arrays) -> None:
        self.settings, self.updates = settings, 0
        self.model = models_mae.MaskedAutoencoderViT(
            img_size=settings["image_size"],
            patch_size=settings["patch_size"],
            embed_dim=settings["width"],
            depth=settings["depth"],
            num_heads=settings["heads"],
            decoder_embed_dim=settings["decoder_width"],
            decoder_depth=settings["decoder_depth"],
            decoder_num_heads=settings["decoder_heads"],
            mlp_ratio=settings["mlp_dim"] / settings["width"],
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            norm_pix_loss=True,
        )
        torch_side.load(self.model, params)
        self.optimizer = torch.optim.AdamW(
            decay_groups(self.model, settings["weight_decay"]),
            lr=settings["learning_rate"],
            betas=(0.9, 0.95),
        )
        self.scaler = misc.NativeScalerWithGradNormCount()
        self.schedule = types.SimpleNamespace(
            lr=settings["learning_rate"],
            min_lr=0.0,
            warmup_epochs=settings["warmup"],  # here an epoch is a step
            epochs=settings["steps"],
        )

    def step(self, batch: wire.Arrays) -> tuple[float, float]:
        lr_sched.adjust_learning_rate(self.optimizer, self.updates, self.schedule)
        images = torch_side.images(batch["image"], self.settings)
        with torch_side.rand(batch["noise"]):
            loss, _, _ = self.model(images, mask_ratio=self.settings["mask_ratio"])
        norm = self.scaler(loss, self.optimizer, parameters=self.model.parameters())
        self.optimizer.zero_grad()
        self.updates += 1
        return loss.item(), norm.item()

    def params(self) -> Mapping[str, np.ndarray]:
        return torch_side.params(self.model)


def decay_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """The groups of `add_weight_decay` of timm 0.3.2, which the code needs: no decay of vectors."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    vectors = [p for name, p in trained if p.ndim == 1 or name.endswith(".bias")]
    matrices = [p for name, p in trained if not (p.ndim == 1 or name.endswith(".bias"))]
    return [
        {"params": vectors, "weight_decay": 0.0},
        {"params": matrices, "weight_decay": weight_decay},
    ]


if __name__ == "__main__":
    wire.serve(FacebookMae)
