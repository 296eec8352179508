"""transformers: ViTMAEForPreTraining, trained as its Trainer does."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]
import transformers  # type: ignore[import-not-found]
from transformers.trainer_pt_utils import get_parameter_names  # type: ignore[import-not-found]

from benchmarks.twins import wire
from benchmarks.twins.peers import torch_side

# Names of released files -> names of release 5 in memory.
_RENAMES = (
    (r"^vit\.encoder\.layer\.", "vit.layers."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda m: f".attention.{m[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)


class HfMae:
    """A masked autoencoder in pretraining."""

    def __init__(self, settings: dict[str, Any], params: wire.Arrays) -> None:
        self.settings = settings
        self.model = transformers.ViTMAEForPreTraining(
            transformers.ViTMAEConfig(
                image_size=settings["image_size"],
                patch_size=settings["patch_size"],
                hidden_size=settings["width"],
                num_hidden_layers=settings["depth"],
                num_attention_heads=settings["heads"],
                intermediate_size=settings["mlp_dim"],
                decoder_hidden_size=settings["decoder_width"],
                decoder_num_hidden_layers=settings["decoder_depth"],
                decoder_num_attention_heads=settings["decoder_heads"],
                decoder_intermediate_size=settings["decoder_mlp_dim"],
                layer_norm_eps=1e-6,
                mask_ratio=settings["mask_ratio"],
                norm_pix_loss=True,
            )
        )
        self.names = {renamed(name): name for name in params}
        torch_side.load(self.model, {new: params[old] for new, old in self.names.items()})
        self.model.train()
        self.optimizer = torch.optim.AdamW(
            self._groups(),
            lr=settings["learning_rate"],
            betas=(0.9, 0.95),
        )
        self.schedule = transformers.get_cosine_schedule_with_warmup(
            self.optimizer, settings["warmup"], settings["steps"]
        )

    def step(self, batch: wire.Arrays) -> tuple[float, float]:
        images = torch_side.images(batch["image"], self.settings)
        loss = self.model(images, noise=torch.from_numpy(batch["noise"])).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings["clip_norm"])
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return loss.item(), norm.item()

    def params(self) -> Mapping[str, np.ndarray]:
        return {self.names[k]: v for k, v in torch_side.params(self.model).items()}

    def _groups(self) -> list[dict[str, Any]]:
        """The groups of Trainer: no decay of biases and LayerNorms."""
        decay = get_parameter_names(
            self.model, [torch.nn.LayerNorm], ["bias", "layernorm", r"(?:^|\.)norm(?:$|\.)"]
        )
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        return [
            {
                "params": [p for name, p in trained if (name in decay) == decays],
                "weight_decay": rate,
            }
            for decays, rate in ((True, self.settings["weight_decay"]), (False, 0.0))
        ]


def renamed(name: str) -> str:
    for pattern, new in _RENAMES:
        name = re.sub(pattern, new, name)
    return name


if __name__ == "__main__":
    wire.serve(HfMae)
