"""The convolutional stem of ViTHybrid: Hugging Face's BiT as a backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.checkpoints.layouts.resnet import infer_stem, of_hugging_face, stem_entries
from vit_jax.checkpoints.layouts.table import Entry
from vit_jax.models.resnet import StemOptions

SPELLING = of_hugging_face("vit.embeddings.patch_embeddings.backbone.bit.")


def infer(shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any]) -> StemOptions:
    """The stem's sizes from the shapes; numerics and padding are those of the released models.

    Raises ValueError where config.json specifies an unsupported backbone.
    """
    backbone = config.get("backbone_config") or {}
    expected = {
        "layer_type": "bottleneck",
        "global_padding": "SAME",
        "embedding_dynamic_padding": True,
        "hidden_act": "relu",
    }
    wrong = [f"{k} {backbone[k]!r}" for k, v in expected.items() if backbone.get(k, v) != v]
    if wrong:
        raise ValueError(f"a backbone with {', '.join(wrong)} is not supported")
    numerics = StemOptions(
        groups=int(backbone.get("num_groups") or 32),
        std_eps=1e-8,
        std_eps_in="variance",
        norm_eps=1e-5,
        pool_padding="zero",
    )
    return infer_stem(shapes, SPELLING, numerics=numerics)


def entries(options: StemOptions) -> list[Entry]:
    return stem_entries(options, SPELLING, path="encoder/stem")
