"""Frozen models, which do not train: read, matched with the data, placed, and recorded.

frozen.json  in a run's folder: path and digest of each, so that a run resumes with the same models
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jax.sharding import Mesh

from vit_jax.checkpoints import classes, load, run_folder, surgery
from vit_jax.data.record import DataFacts
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.zoo import Options
from vit_jax.objectives import Objective
from vit_jax.parallel import rules
from vit_jax.training import facts as facts_lib
from vit_jax.training import state

NAME = "frozen.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What the design of a run needs to know of a frozen model."""

    options: Options
    preprocessing: Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded(Description):
    """A frozen model that was read."""

    path: str
    params: surgery.Params
    digest: str


def read(
    objective: Objective, facts: DataFacts, *, for_evaluation: bool = False
) -> dict[str, Loaded]:
    """The models that the objective names, or those of them that evaluations need.

    Raises ValueError if a model cannot be read, or has other classes than the data.
    """
    return {
        name: read_model(
            wanted.path, f"config.objective.{wanted.field}", facts, has_classes=wanted.has_classes
        )
        for name, wanted in objective.frozen_models().items()
        if wanted.evaluated or not for_evaluation
    }


def read_model(path: str, field: str, facts: DataFacts, *, has_classes: bool = True) -> Loaded:
    """A frozen model; with `has_classes` its head has the classes of the data, in their order.

    `field` names it in messages. Raises ValueError as `read` does.
    """
    if not path:
        raise ValueError(f"{field} is empty: name a run or a released file")
    try:
        found = load.read(path)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
    params = found.params
    if has_classes:
        match = classes.match(
            found.class_names,
            facts.class_names,
            their_count=found.options.num_classes,
            our_count=facts.num_classes,
        )
        if not match.kept:
            raise ValueError(
                f"{field} ({path}) has other classes than the data ({match.note}): name a model"
                " that was trained on the same classes"
            )
        params, _ = surgery.adapt(
            params,
            source=found.options,
            target=found.options,
            key=jax.random.key(0),
            resize=found.resize,
            classes=match,
        )
    return Loaded(
        path=path,
        options=found.options,
        preprocessing=found.preprocessing,
        params=params,
        digest=facts_lib.digest(params),
    )


class Recorded(Protocol):
    """What frozen.json records of a frozen model, or of a file of a teacher's answers."""

    @property
    def path(self) -> str: ...

    @property
    def digest(self) -> str: ...


def check_same(workdir: str | os.PathLike[str], loaded: Mapping[str, Recorded]) -> None:
    """Raises ValueError unless the run in `workdir` began with these, named by their fields."""
    before = run_folder.read_json(workdir, NAME) or {} if loaded else {}
    for name, model in loaded.items():
        if not isinstance(before, Mapping) or not isinstance(before.get(name), Mapping):
            raise ValueError(
                f"config.objective.{name} is not recorded in {workdir}/{NAME}, so it cannot be"
                " checked: restore that file"
            )
        was = before[name]
        if was.get("digest") != model.digest:
            raise ValueError(
                f"config.objective.{name} ({model.path}) changed since the run in {workdir} began:"
                f" it was {was.get('path')} with digest {was.get('digest')}, and is"
                f" {model.digest}: restore it, or start a run in another --workdir"
            )


def write(workdir: str | os.PathLike[str], loaded: Mapping[str, Recorded]) -> None:
    """Writes frozen.json if there is something to record. Raises ValueError if that fails."""
    if loaded:
        content = {name: {"path": m.path, "digest": m.digest} for name, m in loaded.items()}
        run_folder.write_json(workdir, NAME, content)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
    """The design of a frozen model: its static part, its shapes, its value range."""

    options: Options
    graphdef: nnx.GraphDef
    abstract: Any  # nested dict of shapes with shardings
    scale: tuple[float, ...]  # per channel, from the values of the trained model to its own
    shift: tuple[float, ...]
    interpolation: str  # of the resize to its image size
    lowest: tuple[float, ...]  # values of black and white, per channel, in its own value range
    highest: tuple[float, ...]

    def bound(self, params: Any) -> Callable[..., Any]:
        """The model as a function of images in the value range of the trained model."""
        model = nnx.merge(self.graphdef, params)

        def call(images: jax.Array, **arguments: Any) -> Any:
            return model(self._input(images), **arguments)

        return call

    def _input(self, images: jax.Array) -> jax.Array:
        """Images of the trained model with the channels, value range and size of this model."""
        if images.shape[-1] != self.options.channels:  # grey
            images = jnp.repeat(images, self.options.channels, axis=-1)
        values = images.astype(jnp.float32)  # rounded once, at the end
        if (self.scale, self.shift) != (_ONE * len(self.scale), _ZERO * len(self.shift)):
            values = values * _of_channels(self.scale) + _of_channels(self.shift)
        size = self.options.image_size
        if values.shape[1:3] != size:
            shape = (len(values), *size, self.options.channels)
            values = jax.image.resize(values, shape, self.interpolation, antialias=True)
            values = jnp.clip(values, _of_channels(self.lowest), _of_channels(self.highest))
        return values.astype(images.dtype)


_ONE, _ZERO = (1.0,), (0.0,)


def _of_channels(values: tuple[float, ...]) -> jax.Array:
    """float32 (1, 1, 1, C)."""
    return jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1)


def designs(
    models: Mapping[str, Description],
    *,
    objective: Objective,
    options: Options,
    mesh: Mesh,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> dict[str, Frozen]:
    """The design of each; `options`, `mean` and `std` are those of the model that trains.

    Raises ValueError if a frozen model does not fit the model that trains. Nothing is allocated.
    """
    _check_channels(models, options)
    wanted = objective.frozen_models()
    fitted = objective.fit_frozen(options, {name: model.options for name, model in models.items()})
    return {
        name: design(
            dataclasses.replace(model, options=fitted[name]),
            mesh,
            mean=mean,
            std=std,
            interpolation=wanted[name].interpolation,
        )
        for name, model in models.items()
    }


def binder(models: Mapping[str, Frozen]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A function that makes callable models of the parameters of any of these."""

    def bind(params: Mapping[str, Any]) -> dict[str, Any]:
        return {name: models[name].bound(tree) for name, tree in params.items()}

    return bind


def design(
    model: Description,
    mesh: Mesh,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    interpolation: str = "bicubic",
) -> Frozen:
    """`mean` and `std` are those of the model that trains. Nothing is allocated."""
    graphdef, shapes = state.abstract_params(model.options)
    own = model.preprocessing
    if len(mean) == 1:  # grey images are repeated for every channel
        mean, std = mean * len(own.mean), std * len(own.std)
    pairs = list(zip(mean, std, own.mean, own.std, strict=True))
    return Frozen(
        options=model.options,
        graphdef=graphdef,
        abstract=rules.placed_shapes(shapes, mesh),
        scale=tuple(ours / theirs for _, ours, _, theirs in pairs),
        shift=tuple((center - own) / scale for center, _, own, scale in pairs),
        interpolation=interpolation,
        lowest=tuple((0 - center) / scale for _, _, center, scale in pairs),
        highest=tuple((1 - center) / scale for _, _, center, scale in pairs),
    )


def notes(models: Mapping[str, Frozen], *, image_size: tuple[int, int]) -> tuple[str, ...]:
    """A line for each frozen model that takes images of another size than the model that trains."""
    found = []
    for name, model in models.items():
        if model.options.image_size == image_size:
            continue
        ours, theirs = ("x".join(map(str, size)) for size in (image_size, model.options.image_size))
        found.append(
            f"note: config.objective.{name} takes images of {theirs}: those of {ours} are resized"
            f" for it on the devices ({model.interpolation}, antialiased)"
        )
    return tuple(found)


def _check_channels(models: Mapping[str, Description], options: Options) -> None:
    """Raises ValueError if the images of the model that trains lack channels of a frozen model.

    Grey images can be repeated; nothing says how colours become grey.
    """
    for name, model in models.items():
        theirs, ours = model.options.channels, options.channels
        if ours not in (1, theirs):
            raise ValueError(
                f"config.objective.{name} takes images of {theirs} channels, and the model that"
                f" trains has {ours}: name a model with {ours} channels, or convert this one"
                " (vit_jax convert)"
            )


def place(loaded: Mapping[str, Loaded], designs: Mapping[str, Frozen]) -> dict[str, Any]:
    """The parameters of each model, float32 on the devices, sharded as its design says."""
    return {
        name: state.placed(
            traverse_util.unflatten_dict(dict(model.params), sep="/"), designs[name].abstract
        )
        for name, model in loaded.items()
    }
