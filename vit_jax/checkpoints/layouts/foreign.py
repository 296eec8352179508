"""Refuses released files of model families that this package does not have."""

import re
from collections.abc import Collection

# Pattern of a name that only this kind of model has -> the kind.
_MARKS = {
    r"(.*/)?MixerBlock_\d+/": "an MLP-Mixer",
    r"blocks_token_only\.\d+\.": "a CaiT or PatchConvNet",
    r"blocks\.\d+\.norm1\.alpha": "a ResMLP",
    r"blocks\.\d+\.(norm11|attn1)\.": "a ViT of parallel blocks",
    r"patch_embed\.proj\.\d+\.": "a model with more than one convolution before its blocks",
    r"(.*\.)?transformer\.resblocks\.\d+\.": "a CLIP with the names of OpenAI or open_clip",
    r"(.*\.)?(rope_embed\.periods|storage_tokens|rope_embeddings\.)": "a DINOv3",
    r"layer\.\d+\.layer_scale1\.": "a DINOv3",
    r"blocks\.\d+\.mlp\.w1\.weight$": "a DINOv2 or DINOv3 with gate and value in two layers",
}


def refuse(names: Collection[str], *, path: str) -> None:
    """Raises ValueError where the names are those of an unsupported family."""
    for mark, what in _MARKS.items():
        if any(re.match(mark, name) for name in names):
            raise ValueError(f"{path}: it holds {what}, which this package does not have")
    towers = {name.partition(".")[0] for name in names}
    if "text_model" in towers and "vision_model" not in towers:
        raise ValueError(f"{path}: it holds a text tower, but no vision model")
    if "embedding/kernel" in names and not any(n.startswith("Transformer/") for n in names):
        raise ValueError(f"{path}: it holds a model that is neither a transformer nor a BiT")
