"""The zoo: the families of models, the names of released sizes, and how to create a model.

A family is an entry of `FAMILIES`. The class of a model's options determines its family; no other
code in the package tests for families.

Names are `SIZE/PATCH` ("B/16"), `ROOT+SIZE/PATCH` ("R50+B/16"), `FAMILY-SIZE/PATCH` ("DeiT-B/16"),
and for BiT's ResNets "R50x1", for Swin "Swin-T", for ResNets with batch norm "ResNet-18". Sources
of the sizes: Ti, S, B, L, H from "An Image is Worth 16x16 Words" (arXiv 2010.11929, table 1) and
"How to train your ViT?" (2106.10270, table 2); M, g, G from "Scaling Vision Transformers"
(2106.04560, table 2); e from "PaLI" (2209.06794, table 1); So400m from "Getting ViT in Shape"
(2305.13035, section 6); BiT's ResNets from "Big Transfer" (1912.11370); Swin's from its paper
(2103.14030, section 3.3); the other ResNets from 1512.03385, table 1; the discrete VAE of DALL-E
from its code.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from vit_jax.models import aliases, bit, dvae, regnet, resnet_v1, swin, vit_fitting
from vit_jax.models.aliases import Alias
from vit_jax.models.bit import BiTOptions
from vit_jax.models.classifier import Classifier, PretrainingOptions, ViTOptions
from vit_jax.models.fitting import Fitting
from vit_jax.models.interpolation import OF_SWIN, Methods
from vit_jax.models.masked_autoencoder import MaskedAutoencoder, MaskedAutoencoderOptions
from vit_jax.models.masked_image_model import MaskedImageModel, MaskedImageModelOptions
from vit_jax.models.model import AnyOptions, ModelOptions
from vit_jax.models.model import Model as Model
from vit_jax.models.names import suggested
from vit_jax.models.option_groups import Compute, Regularisation
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet import StemOptions
from vit_jax.models.series import BEIT_SCALES, IMAGENET, SERIES, Series
from vit_jax.models.series import HYBRIDS as HYBRIDS
from vit_jax.models.series import PLAIN as PLAIN
from vit_jax.models.series import SIZES as SIZES
from vit_jax.models.swin import SwinOptions

_LOG = logging.getLogger(__name__)

Options = ModelOptions


# Fields that say how a model is trained and run. They do not change what its parameters mean.
COMPUTE_FIELDS = ("dtype", *(field.name for field in dataclasses.fields(Compute)))
RUN_FIELDS = (
    *COMPUTE_FIELDS,
    *(field.name for field in dataclasses.fields(Regularisation)),
    "head_bias",
    "head_std",
)
# Fields that change nothing about a model whose parameters are there.
FREE_FIELDS = (*RUN_FIELDS, "init")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models: its classes, how its parameters are fitted, its released models."""

    options: type[ModelOptions]
    module: Callable[..., Model]  # (options, rngs=...)
    fitting: Fitting = dataclasses.field(default_factory=Fitting)
    # Released models by name: the fields of their options that differ from the defaults.
    names: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    input: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # fields of `Preprocessing`
    whole_from: int | None = None  # pixels of the short side from which images are not cropped
    resize: Methods = Methods()  # how its released models resize parameters


# A saved model records the name of its family. `series.SERIES` has the released models of the ViTs.
FAMILIES: dict[str, Family] = {
    "vit": Family(options=ViTOptions, module=Classifier, fitting=vit_fitting.FITTING),
    "masked_autoencoder": Family(
        options=MaskedAutoencoderOptions, module=MaskedAutoencoder, fitting=vit_fitting.FITTING
    ),
    "masked_image_model": Family(
        options=MaskedImageModelOptions, module=MaskedImageModel, fitting=vit_fitting.FITTING
    ),
    "bit": Family(options=BiTOptions, module=bit.BiT, fitting=bit.FITTING, names=bit.NAMES),
    "swin": Family(
        options=SwinOptions,
        module=swin.Swin,
        fitting=swin.FITTING,
        names=swin.NAMES,
        input=IMAGENET | {"crop_pct": 0.9},
        whole_from=384,
        resize=OF_SWIN,
    ),
    "regnet": Family(
        options=regnet.RegNetOptions,
        module=regnet.RegNet,
        fitting=regnet.FITTING,
        names=regnet.NAMES,
        input=IMAGENET,
    ),
    "resnet": Family(
        options=resnet_v1.ResNetOptions,
        module=resnet_v1.ResNet,
        fitting=resnet_v1.FITTING,
        names=resnet_v1.NAMES,
        input=IMAGENET | {"interpolation": "bilinear_antialias"},
    ),
    "dvae": Family(
        options=dvae.DVAEOptions,
        module=dvae.DVAE,
        fitting=dvae.FITTING,
        names=dvae.NAMES,
        input={"mean": dvae.MEAN, "std": dvae.STD, "interpolation": "lanczos_antialias"},
    ),
}


def names() -> tuple[str, ...]:
    """The names of all models that have a published source."""
    of_series = (f"{name}-{size}" for name, f in SERIES.items() for size in f.sizes)
    of_families = (name for family in FAMILIES.values() for name in family.names)
    return (*PLAIN, *HYBRIDS, *of_series, *of_families)


def option_classes() -> tuple[type[Options], ...]:
    """The options classes of all families."""
    return tuple(family.options for family in FAMILIES.values())


def related_classes(options: Options) -> tuple[type[Options], ...]:
    """Options classes of the models that exchange parameters with this one, its own class first."""
    own = family(options)
    kin = (other for other in FAMILIES.values() if other.fitting is own.fitting)
    return own.options, *(other.options for other in kin if other is not own)


def options(name: str, **changes: Any) -> Options:
    """The options of a name, with `changes` to any of their fields.

    Raises ValueError for an unknown name (naming the nearest) or an unknown field.
    """
    alias = understood(name)
    base = _published(alias.name)
    parts = {
        key: dataclasses.replace(getattr(base, key), **value) if key == "stem" else value
        for key, value in alias.fields.items()
    }
    size = {"image_size": alias.side} if alias.side else {}
    return change(base, **(size | parts | changes))


@functools.lru_cache(maxsize=256)
def understood(name: str) -> Alias:
    """The zoo's model that a name of papers, timm, Hugging Face or torchvision stands for.

    Raises ValueError for an unknown or ambiguous name; the message has the nearest names.
    """
    if _exists(name):
        return Alias(name=name)
    if alias := aliases.find(name, names(), exists=_exists):
        return alias
    raise ValueError(f"unknown model {name!r}: {suggested(name, names(), exists=_exists)}")


def change(options: AnyOptions, **changes: Any) -> AnyOptions:
    """The options with some fields changed. Raises ValueError for an unknown field.

    A pretraining model has no classes, so it raises ValueError for `num_classes` too.
    """
    return options.changed(**changes)


def classifier(options: Options) -> Options:
    """The same model without the parts that only pretraining uses."""
    return options.classifier()


def of_parts(**fields: Any) -> EncoderOptions:
    """The options of the task model that the fields describe: a classifier if no part is set.

    `fields` may hold fields of other task models if these are unset. Raises ValueError if parts of
    two task models are set.
    """
    kinds: list[type[PretrainingOptions]] = [MaskedAutoencoderOptions, MaskedImageModelOptions]
    kind: type[EncoderOptions] = next((k for k in kinds if fields.get(k.part)), ViTOptions)
    known = {field.name for field in dataclasses.fields(kind)}
    own = {name: value for name, value in fields.items() if name in known}
    options = kind(**own)
    for name, value in fields.items():
        if name not in known and value != getattr(options, name):
            raise ValueError(f"a {options.kind} with {name}={value!r} is not supported")
    return options


def create(
    name: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    key: jax.Array | None = None,
    **changes: Any,
) -> Model:
    """A freshly initialised model; `key` defaults to `jax.random.key(0)`.

    `name` is a name of the zoo, such as "B/16", or one that papers, timm, Hugging Face or
    torchvision use for it: "ViT-B/16", "vit_base_patch16_224", "google/vit-base-patch16-224". The
    log then has the model and its options. No weights are loaded. One number as `image_size` means
    a square; the default is the size in the name, or 224. A model that has classes has 1000 by
    default (`num_classes`). `changes` are any other fields of the options, such as
    `layer_scale=1e-4`. Raises ValueError for an unknown name or option.
    """
    alias = understood(name)
    if num_classes is not None:
        changes["num_classes"] = num_classes
    chosen = options(name, image_size=image_size or alias.side or 224, **changes)
    if alias.name != name:
        what = alias.described(name) + alias.of_size(chosen.image_size)
        _LOG.warning("%s; it has new weights, load() reads released ones", what)
    model = init(chosen, key=jax.random.key(0) if key is None else key)
    expects = preprocessing(name, image_size=chosen.image_size)
    model.preprocessing = expects.for_channels(chosen.channels)
    model.resize_methods = resize_methods(name)
    return model


def preprocessing(name: str, *, image_size: tuple[int, int]) -> Preprocessing:
    """How images are prepared for the released models of a zoo name."""
    alias = understood(name)
    entry = _released(alias.name)
    given = {**entry.input}
    if entry.whole_from and min(image_size) >= entry.whole_from:
        given["crop_pct"] = 1.0
    return Preprocessing(image_size=image_size, **{**given, **alias.input})


def resize_methods(name: str) -> Methods:
    """How the code of a zoo name resizes parameters that depend on the image or patch size."""
    return _released(understood(name).name).resize


def family(options: Options) -> Family:
    """The family of these options. Raises ValueError if there is none."""
    return FAMILIES[family_name(options)]


def family_name(options: Options) -> str:
    """The name of the family, which a saved model records. Raises ValueError if there is none."""
    for name, entry in FAMILIES.items():
        if entry.options is type(options):
            return name
    raise ValueError(f"{type(options).__name__} belongs to no family: add one to zoo.FAMILIES")


def init(options: Options, *, key: jax.Array) -> Model:
    """A freshly initialised model of any options. Pure: works under `jax.eval_shape` and jit."""
    rngs = nnx.Rngs()
    rngs.params = _Stream(key, tag="params")  # type: ignore[attr-defined]
    return family(options).module(options, rngs=rngs)


class _Stream(nnx.RngStream):
    """Draws the keys of `nnx.RngStream`.

    The base class asks for the sharding of its count at each draw. Under tracing there is none, and
    JAX searches everything traced so far for the text of that error: seconds for a deep ResNet.
    """

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], self.count[...])
        self.count.set_value(self.count[...] + 1)
        return key


@functools.lru_cache(maxsize=16)  # a run asks several times for the same model
def abstract(options: Options) -> tuple[nnx.GraphDef, nnx.State]:
    """Graph definition and state of a model, with shapes and dtypes for arrays: no computation.

    Do not change the state: later calls return it too.
    """
    graphdef, state = nnx.split(nnx.eval_shape(lambda: init(options, key=jax.random.key(0))))
    return graphdef, state


def check_head(options: Options) -> None:
    """Raises ValueError for a model that has no classes."""
    if not options.num_classes:
        raise ValueError(
            "the model has no head and no classes: fine-tune it first (train with"
            " --config.init_from=FILE), or use model.features(images)"
        )


def _exists(name: str) -> bool:
    """Whether this is a name of the zoo, as it is written."""
    whole = any(name in family.names for family in FAMILIES.values())
    return whole or _sizes(split(name)[1]) is not None


def _published(name: str) -> Options:
    for family in FAMILIES.values():
        if name in family.names:
            return family.options(**family.names[name])
    series, rest = split(name)
    fields = _sizes(rest)
    assert fields is not None, f"{name} does not exist"
    kind: type[EncoderOptions] = ViTOptions
    if series:
        fields, kind = {**fields, **SERIES[series].parts}, SERIES[series].options
    if series.startswith("BEiT"):
        fields["layer_scale"] = BEIT_SCALES.get(rest.partition("/")[0], 1e-5)
    return kind(**fields)


def _released(name: str) -> Series | Family:
    """The entry with what released models of a name have in common."""
    series, _ = split(name)
    if series:
        return SERIES[series]
    return next((family for family in FAMILIES.values() if name in family.names), FAMILIES["vit"])


def split(name: str) -> tuple[str, str]:
    """The series of a name, or "", and the rest of the name."""
    series, _, rest = name.rpartition("-")
    return (series, rest) if series in SERIES else ("", name)


def _sizes(name: str) -> dict[str, Any] | None:
    """Fields of the options of SIZE/PATCH or a hybrid; None for another name."""
    fields: dict[str, Any] = {}
    size, _, patch = name.rpartition("/")
    if name in HYBRIDS:
        layers, patch_of_stem = HYBRIDS[name]
        fields["stem"] = StemOptions(num_layers=layers)
        size, patch = size.split("+")[1], str(patch_of_stem)
    if size not in SIZES or not patch.isdecimal() or int(patch) < 1:
        return None
    width, depth, mlp_dim, num_heads = SIZES[size]
    return fields | {
        "width": width,
        "depth": depth,
        "mlp_dim": mlp_dim,
        "num_heads": num_heads,
        "patch_size": (int(patch), int(patch)),
    }
