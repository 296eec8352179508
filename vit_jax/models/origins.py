"""Where the models of the zoo are from: the paper, and the licence of the released weights.

The licences are those that timm 1.0.31 records for the weights of the authors, except BEiT's and
DALL-E's, which are the LICENSE files of microsoft/unilm and openai/DALL-E. A model without released
weights of its authors, or whose licence is unknown, has none.
"""

import dataclasses

from vit_jax.models import zoo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model is from; "" is unknown."""

    kind: str  # the word that selects the model and those like it in the table of models
    paper: str = ""  # arXiv identifier
    licence: str = ""  # of the weights that the authors released


_APACHE, _MIT, _NO_COMMERCE, _BSD = "Apache-2.0", "MIT", "CC-BY-NC-4.0", "BSD-3-Clause"
_VIT, _AUGREG, _SCALING = "2010.11929", "2106.10270", "2106.04560"

_PLAIN = {
    **dict.fromkeys(("B/32", "B/16", "L/32", "L/16", "H/14"), (_VIT, _APACHE)),
    **dict.fromkeys(("Ti/16", "S/32", "S/16", "B/8"), (_AUGREG, _APACHE)),
    **dict.fromkeys(("M/16", "g/14", "G/14"), (_SCALING, "")),
    "So400m/14": ("2305.13035", _APACHE),
    "e/14": ("2209.06794", ""),
}
_HYBRIDS = {
    **dict.fromkeys(("R+Ti/16", "R26+S/32", "R50+L/32"), (_AUGREG, _APACHE)),
    "R50+B/16": (_VIT, _APACHE),
    **dict.fromkeys(("R50+B/32", "R50+L/16"), (_VIT, "")),
}
_SERIES = {
    **dict.fromkeys(("DeiT", "DeiT-distilled"), ("deit", "2012.12877", _APACHE)),
    "DeiT-III": ("deit", "2204.07118", _APACHE),
    **dict.fromkeys(("MAE", "MAE-pretrain"), ("mae", "2111.06377", _NO_COMMERCE)),
    **dict.fromkeys(("BEiT", "BEiT-pretrain"), ("beit", "2106.08254", _MIT)),
}
_FAMILIES = {
    "swin": ("2103.14030", _MIT),
    "regnet": ("2003.13678", _APACHE),  # the teacher of DeiT
    "resnet": ("1512.03385", _BSD),
    "dvae": ("2102.12092", "Modified MIT"),
}
_BIT_UNRELEASED = ("R50x2", "R152x1")


def origin(name: str) -> Origin:
    """The origin of a name of the zoo."""
    if name in zoo.HYBRIDS:
        paper, licence = _HYBRIDS.get(name, ("", ""))
        return Origin(kind="hybrid", paper=paper, licence=licence)
    series, _ = zoo.split(name)
    if series:
        kind, paper, licence = _SERIES.get(series, (series.lower(), "", ""))
        return Origin(kind=kind, paper=paper, licence=licence)
    family = next((key for key, entry in zoo.FAMILIES.items() if name in entry.names), "vit")
    if family == "bit":
        licence = "" if name in _BIT_UNRELEASED else _APACHE
        return Origin(kind=family, paper="1912.11370", licence=licence)
    paper, licence = (
        _PLAIN.get(name, ("", "")) if family == "vit" else _FAMILIES.get(family, ("", ""))
    )
    return Origin(kind=family, paper=paper, licence=licence)
