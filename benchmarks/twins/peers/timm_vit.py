"""timm: its ViT, optimizers, schedule, mixup, losses and clipping, as its train.py uses them."""

import contextlib
import unittest.mock
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import timm  # type: ignore[import-not-found]
import timm.data.mixup  # type: ignore[import-not-found]
import timm.loss  # type: ignore[import-not-found]
import timm.optim  # type: ignore[import-not-found]
import timm.scheduler  # type: ignore[import-not-found]
import timm.utils  # type: ignore[import-not-found]
import torch  # type: ignore[import-not-found]
from timm.models.vision_transformer import VisionTransformer  # type: ignore[import-not-found]

from benchmarks.twins import wire
from benchmarks.twins.peers import torch_side


class TimmVit:
    """A ViT of timm in training."""

    def __init__(self, settings: dict[str, Any], params: wire.Arrays) -> None:
        self.settings = settings
        self.model = self.build(settings)
        torch_side.load(self.model, params)
        self.model.train()
        self.optimizer = timm.optim.create_optimizer_v2(
            self.model,
            opt=settings["optimizer"],
            lr=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
        )
        self.schedule = timm.scheduler.CosineLRScheduler(
            self.optimizer,
            t_initial=settings["steps"] - settings["warmup"],
            warmup_t=settings["warmup"],
            warmup_prefix=True,
            t_in_epochs=False,
        )
        self.mixup = timm.data.Mixup(
            mixup_alpha=0.8,
            cutmix_alpha=1.0,
            label_smoothing=settings["smoothing"],
            num_classes=settings["classes"],
        )
        self.criterion = self.criterion_of(settings)
        self.updates = 0

    def build(self, settings: dict[str, Any]) -> Any:
        return VisionTransformer(
            **torch_side.timm_sizes(settings),
            drop_path_rate=settings["drop_path"],
            init_values=settings["layer_scale"] or None,
            no_embed_class=not settings["class_position"],
        )

    def criterion_of(self, settings: dict[str, Any]) -> Any:
        if settings["loss"] == "binary":
            return timm.loss.BinaryCrossEntropy(smoothing=0.0, target_threshold=0.0)
        return timm.loss.SoftTargetCrossEntropy()

    def loss(self, images: Any, targets: Any) -> Any:
        return self.criterion(self.model(images), targets)

    def step(self, batch: wire.Arrays) -> tuple[float, float]:
        images = torch_side.images(batch["image"], self.settings)
        labels = torch.from_numpy(batch["label"]).long()
        with given_mix(self.mixup, batch):
            images, targets = self.mixup(images, labels)
        with torch_side.bernoulli(self._kept(batch)):
            loss = self.loss(images, targets)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch_side.grad_norm(self.model)
        if self.settings["clip_norm"] and self.settings["optimizer"] != "lamb":  # LAMB clips itself
            timm.utils.dispatch_clip_grad(self.model.parameters(), self.settings["clip_norm"])
        self.optimizer.step()
        self.updates += 1
        self.schedule.step_update(self.updates)
        return loss.item(), norm

    def params(self) -> Mapping[str, np.ndarray]:
        return torch_side.params(self.model)

    def _kept(self, batch: wire.Arrays) -> Iterator[np.ndarray]:
        """The draws of the branches that timm may drop, in the order in which it computes them."""
        for i, block in enumerate(self.model.blocks):
            for j, branch in enumerate((block.drop_path1, block.drop_path2)):
                if not isinstance(branch, torch.nn.Identity):
                    yield batch["kept"][:, i, j]


@contextlib.contextmanager
def given_mix(mixup: Any, batch: wire.Arrays) -> Iterator[None]:
    """Gives mixup the draws of the batch."""
    share, cut = float(batch["mix_share"]), bool(batch["mix_cut"])
    box = tuple(int(batch[f"mix_{side}"]) for side in ("top", "bottom", "left", "right"))
    patch = unittest.mock.patch.object
    with (
        patch(mixup, "_params_per_batch", return_value=(share, cut)),
        patch(timm.data.mixup, "rand_bbox", return_value=box),
    ):
        yield


if __name__ == "__main__":
    wire.serve(TimmVit)
