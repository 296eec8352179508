"""facebookresearch/deit: its distilled model and its loss; the rest is timm's, as in its engine."""

from typing import Any

import safetensors.torch
import timm.loss  # type: ignore[import-not-found]
from timm.models.vision_transformer import VisionTransformer  # type: ignore[import-not-found]

from benchmarks.twins import wire
from benchmarks.twins.peers import torch_side
from benchmarks.twins.peers.timm_vit import TimmVit

import losses  # type: ignore[import-not-found]  # isort: skip
import models  # type: ignore[import-not-found]  # isort: skip


class Deit(TimmVit):
    """A distilled ViT in training."""

    def build(self, settings: dict[str, Any]) -> Any:
        return models.DistilledVisionTransformer(
            **torch_side.timm_sizes(settings), drop_path_rate=settings["drop_path"]
        )

    def criterion_of(self, settings: dict[str, Any]) -> Any:
        teacher = VisionTransformer(**torch_side.timm_sizes(settings | settings["teacher_sizes"]))
        teacher.load_state_dict(safetensors.torch.load_file(settings["teacher"]))
        return losses.DistillationLoss(
            timm.loss.SoftTargetCrossEntropy(), teacher.eval(), "hard", settings["alpha"], 1.0
        )

    def loss(self, images: Any, targets: Any) -> Any:
        return self.criterion(images, self.model(images), targets)


if __name__ == "__main__":
    wire.serve(Deit)
