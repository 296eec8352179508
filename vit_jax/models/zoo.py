"""The zoo: one table from a name to the sizes of a model, and the way to make it.

Names are `SIZE/PATCH` ("B/16"), `ROOT+SIZE/PATCH` ("R50+B/16"), `FAMILY-SIZE/PATCH` ("DeiT-B/16"),
those of BiT's ResNets ("R50x1") and of Swin ("Swin-T"). Sources of the sizes: Ti, S, B, L, H from
"An Image is Worth 16x16 Words" (arXiv 2010.11929, table 1) and "How to train your ViT?"
(2106.10270, table 2); M, g, G from "Scaling Vision Transformers" (2106.04560, table 2); e from
"PaLI" (2209.06794, table 1); So400m from "Getting ViT in Shape" (2305.13035, section 6); the
ResNets from "Big Transfer" (1912.11370); Swin's from its paper (2103.14030, section 3.3).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from flax import nnx

from vit_jax.models.bit import RESNET_V2, BiT, BiTOptions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.names import nearest
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.resnet import StemOptions
from vit_jax.models.swin import Swin, SwinOptions
from vit_jax.models.vit import ViT, ViTOptions

# The type of its options says which model is meant.
Options = ViTOptions | BiTOptions | SwinOptions
Model = ViT | BiT | Swin
AnyOptions = TypeVar("AnyOptions", ViTOptions, BiTOptions, SwinOptions, Options)
_MODELS: dict[type, Any] = {ViTOptions: ViT, BiTOptions: BiT, SwinOptions: Swin}

# Fields of any options by which a model is trained and run, not what its parameters mean.
RUN_FIELDS = (
    *("attention", "remat", "unroll", "dtype", "dropout", "attention_dropout"),
    *("stochastic_depth", "head_bias"),
)

# name: width D, depth L, MLP width M, heads H
SIZES = {
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "M": (512, 12, 2048, 8),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "So400m": (1152, 27, 4304, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
    "e": (1792, 56, 15360, 16),
}

# name: bottlenecks of each stage, patch of the stem's output. In R50+B/16 the fourth stage of a
# ResNet-50 is folded into the third (paper, appendix B.1.3). The root of R+Ti/16 strides 4, not
# the 2 that its name supposes, so its tokens are 32 pixels wide.
HYBRIDS = {
    "R+Ti/16": ((), 8),
    "R26+S/32": ((2, 2, 2, 2), 1),
    "R26+B/32": ((2, 2, 2, 2), 1),
    "R50+B/16": ((3, 4, 9), 1),
    "R50+L/32": ((3, 4, 6, 3), 1),
}

# name: bottlenecks of each stage, width factor
RESNETS = {
    "R50x1": ((3, 4, 6, 3), 1),
    "R50x3": ((3, 4, 6, 3), 3),
    "R101x1": ((3, 4, 23, 3), 1),
    "R101x3": ((3, 4, 23, 3), 3),
    "R152x2": ((3, 8, 36, 3), 2),
    "R152x4": ((3, 8, 36, 3), 4),
}

# name: width of the first stage, blocks of each stage, heads of each stage
SWINS = {
    "Swin-T": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "Swin-S": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "Swin-B": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "Swin-L": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}

# The plain models that `names` lists; any other SIZE/PATCH can be made too.
PLAIN = (
    *("Ti/16", "S/32", "S/16", "M/16", "B/32", "B/16", "B/8", "L/32", "L/16", "So400m/14"),
    *("H/14", "g/14", "G/14", "e/14"),
)


@dataclasses.dataclass(frozen=True)
class Family:
    """What models of plain sizes share beyond their sizes."""

    sizes: tuple[str, ...]  # SIZE/PATCH of those with a source; others can be made too
    parts: Mapping[str, Any]  # fields of `ViTOptions`
    input: Mapping[str, Any]  # fields of `Preprocessing`


_IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "kernel": "bicubic_antialias"}
_BEIT = {"gelu": "erf", "position": "none", "class_token": True, "key_bias": False}

# DeiT (arXiv 2012.12877) and DeiT III (2204.07118); MAE (2111.06377); BEiT (2106.08254). Those
# called pretrain have the parts of pretraining, the others are what is fine-tuned and evaluated.
FAMILIES = {
    "DeiT": Family(("Ti/16", "S/16", "B/16"), {"gelu": "erf"}, _IMAGENET),
    "DeiT-distilled": Family(
        ("Ti/16", "S/16", "B/16"), {"gelu": "erf", "distillation": True}, _IMAGENET
    ),
    "DeiT-III": Family(
        ("S/16", "M/16", "B/16", "L/16", "H/14"),
        {"gelu": "erf", "layer_scale": 1e-4, "class_position": False},
        _IMAGENET | {"crop": 1.0},
    ),
    "MAE": Family(
        ("B/16", "L/16", "H/14"),
        {"gelu": "erf", "pool": "gap", "norm_at": "pooled", "class_token": True},
        _IMAGENET,
    ),
    "MAE-pretrain": Family(
        ("B/16", "L/16", "H/14"),
        {"gelu": "erf", "num_classes": 0, "fixed_position": True, "decoder": DecoderOptions()},
        _IMAGENET,
    ),
    "BEiT": Family(
        ("B/16", "L/16"),
        _BEIT | {"pool": "gap", "norm_at": "pooled", "relative_bias": "per_block"},
        {"crop": 0.9, "kernel": "bicubic_antialias"},
    ),
    "BEiT-pretrain": Family(
        ("B/16", "L/16"),
        _BEIT
        | {"num_classes": 0, "relative_bias": "shared", "mask_token": True, "mim_classes": 8192},
        {"crop": 0.9, "kernel": "bicubic_antialias"},
    ),
}
_BEIT_SCALES = {"B": 0.1, "L": 1e-5}  # LayerScale starts at


def names() -> tuple[str, ...]:
    """The models of the zoo with a published source."""
    of_families = (f"{name}-{size}" for name, f in FAMILIES.items() for size in f.sizes)
    return (*PLAIN, *HYBRIDS, *of_families, *RESNETS, *SWINS)


def option_classes() -> tuple[type, ...]:
    """The types of options that there are."""
    return tuple(_MODELS)


def options(name: str, **changes: Any) -> Options:
    """The options of a zoo name, with `changes` to any of their fields.

    Raises ValueError for an unknown name (naming the nearest) or an unknown field.
    """
    return change(_published(name), **changes)


def change(options: AnyOptions, **changes: Any) -> AnyOptions:
    """The options with some fields changed. Raises ValueError for an unknown field."""
    known = {f.name for f in dataclasses.fields(options)}
    for field in changes:
        if field not in known:
            raise ValueError(f"unknown model option {field!r}: {nearest(field, sorted(known))}")
    for field in {"image_size", "patch_size"} & set(changes):
        if isinstance(size := changes[field], int | list):  # one number is square
            changes[field] = (size, size) if isinstance(size, int) else tuple(size)
    return dataclasses.replace(options, **changes)


def classifier(options: Options) -> Options:
    """The same model without what only masked pretraining uses."""
    if not isinstance(options, ViTOptions):
        return options
    return dataclasses.replace(
        options, decoder=None, fixed_position=False, mask_token=False, mim_classes=0
    )


def create(
    name: str,
    *,
    image_size: int | tuple[int, int] = (224, 224),
    num_classes: int = 1000,
    key: jax.Array | None = None,
    **changes: Any,
) -> Model:
    """A freshly initialised model; `key` defaults to `jax.random.key(0)`.

    One number as `image_size` is a square. Raises ValueError for an unknown name or option.
    """
    chosen = options(name, image_size=image_size, num_classes=num_classes, **changes)
    model = init(chosen, key=jax.random.key(0) if key is None else key)
    expects = preprocessing(name, image_size=chosen.image_size)
    model.preprocessing = expects.for_channels(chosen.channels)
    return model


def preprocessing(name: str, *, image_size: tuple[int, int]) -> Preprocessing:
    """What the released models of a zoo name expect of their images."""
    family, _ = _split(name)
    given = FAMILIES[family].input if family else {}
    if name in SWINS:
        given = _IMAGENET | {"crop": 0.9}
    return Preprocessing(image_size=image_size, **given)


def init(options: Options, *, key: jax.Array) -> Model:
    """A freshly initialised model of any options. Pure: works under `jax.eval_shape` and jit."""
    return _MODELS[type(options)](options, rngs=nnx.Rngs(params=key))


def abstract(options: Options) -> tuple[nnx.GraphDef, nnx.State]:
    """The parts of a model, with shapes and dtypes for parameters: nothing is computed."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: init(options, key=jax.random.key(0))))
    return graphdef, state


def check_head(options: Options) -> None:
    """Raises ValueError for a model that has no classes."""
    if not options.num_classes:
        raise ValueError(
            "the model has no head, and so no classes: fine-tune it first (train with"
            " --config.init_from=FILE), or use model.features(images)"
        )


def _published(name: str) -> Options:
    if name in RESNETS:
        layers, factor = RESNETS[name]
        stem = dataclasses.replace(RESNET_V2, num_layers=layers, root_width=64 * factor)
        return BiTOptions(stem=stem)
    if name in SWINS:
        width, depths, num_heads = SWINS[name]
        return SwinOptions(width=width, depths=depths, num_heads=num_heads)
    family, rest = _split(name)
    fields = _sizes(rest, name)
    if family:
        fields |= FAMILIES[family].parts
    if family.startswith("BEiT"):
        fields["layer_scale"] = _BEIT_SCALES.get(rest.partition("/")[0], 1e-5)
    return ViTOptions(**fields)


def _split(name: str) -> tuple[str, str]:
    """The family of a name, or "", and what follows."""
    family, _, rest = name.rpartition("-")
    return (family, rest) if family in FAMILIES else ("", name)


def _sizes(name: str, whole: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    size, _, patch = name.rpartition("/")
    if name in HYBRIDS:
        layers, patch_of_stem = HYBRIDS[name]
        fields["stem"] = StemOptions(num_layers=layers)
        size, patch = size.split("+")[1], str(patch_of_stem)
    if size not in SIZES or not patch.isdecimal() or int(patch) < 1:
        raise ValueError(f"unknown model {whole!r}: {nearest(whole, names())}")
    width, depth, mlp_dim, num_heads = SIZES[size]
    return fields | {
        "width": width,
        "depth": depth,
        "mlp_dim": mlp_dim,
        "num_heads": num_heads,
        "patch_size": (int(patch), int(patch)),
    }
