"""Guesses which model a misspelt name, or a name of another library, stands for."""

import difflib
import re
from collections.abc import Sequence

# The sizes, as timm, Hugging Face and torchvision write them.
_SIZES = {
    **{"tiny": "Ti", "small": "S", "medium": "M", "base": "B", "large": "L", "huge": "H"},
    **{"giant": "g", "gigantic": "G", "so400m": "So400m"},
    **{"ti": "Ti", "s": "S", "m": "M", "b": "B", "l": "L", "h": "H", "g": "g", "t": "Ti"},
}
# Words in a name, and the prefix they stand for; the first match counts. "" is a plain ViT.
_FAMILIES = (
    *(("deit3", "DeiT-III-"), ("deit-iii", "DeiT-III-"), ("distilled", "DeiT-distilled-")),
    *(("deit", "DeiT-"), ("beit", "BEiT-"), ("mae", "MAE-"), ("vit", "")),
)


def nearest(name: str, known: Sequence[str]) -> str:
    """The hint `did you mean 'x'? Known: ...` for a message."""
    lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), sorted(lower), n=1, cutoff=0.0)
    meant = _translated(name, known) or lower[close[0]]
    return f"did you mean {meant!r}? Known: {', '.join(known)}"


def _translated(name: str, known: Sequence[str]) -> str:
    """`B/16` for `vit_base_patch16_224`, `ViT-B_16` or `google/vit-base-patch16-224`; else ""."""
    text = name.lower()
    if resnet := re.search(r"(?:^|[^a-z0-9])r?(\d+x\d)(?!\d)", text):
        return _first([f"R{resnet[1]}"], known)
    words = "|".join(sorted(_SIZES, key=len, reverse=True))
    swin = re.search(rf"swin[-_]({words})(?![a-z])", text)
    if swin:
        return _first([f"Swin-{_SIZES[swin[1]][0]}"], known)
    if hybrid := re.search(rf"({words})_r(\d+)_s(\d+)", text):
        return _first([f"R{hybrid[2]}+{_SIZES[hybrid[1]]}/{hybrid[3]}"], known)
    found = re.search(rf"(?<![a-z])({words})(?![a-z])[-_/]?(?:[a-z_-]*patch[-_]?)?(\d+)", text)
    if not found:
        return ""
    plain = f"{_SIZES[found[1]]}/{found[2]}"
    root = re.search(r"(?<![a-z0-9])r(\d*)[+_-]", text)
    family = next((prefix for word, prefix in _FAMILIES if word in text), "")
    rooted = [f"R{root[1]}+{plain}"] if root else []
    return _first([*rooted, family + plain, plain], known)


def _first(names: Sequence[str], known: Sequence[str]) -> str:
    return next((name for name in names if name in known), "")
