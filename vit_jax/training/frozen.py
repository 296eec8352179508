"""Models in the step that do not train: read, matched with the data, placed, and remembered.

frozen.json  of a run's folder: path and digest of each, so that a run goes on with the same ones
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

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


def read(objective: Objective, facts: DataFacts) -> dict[str, Loaded]:
    """The models that the objective names. Raises ValueError where one cannot serve."""
    return {
        name: _read(wanted.path, f"config.objective.{wanted.field}", facts, wanted.has_classes)
        for name, wanted in objective.frozen_models().items()
    }


def _read(path: str, field: str, facts: DataFacts, has_classes: bool) -> Loaded:
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


def check_images(models: Mapping[str, Description], options: Options) -> None:
    """Raises ValueError where a frozen model takes other images than the one that trains."""
    for name, model in models.items():
        for field in ("image_size", "channels"):
            theirs, ours = getattr(model.options, field), getattr(options, field)
            if theirs != ours:
                raise ValueError(
                    f"config.objective.{name} has {field} {theirs}, the model that trains {ours}:"
                    f" name one of {ours}, or convert it (vit_jax convert --image-size)"
                )


def check_same(workdir: str | os.PathLike[str], loaded: Mapping[str, Loaded]) -> None:
    """Raises ValueError where a run in `workdir` began with other frozen models than these."""
    before = run_folder.read_json(workdir, NAME) or {}
    for name, model in loaded.items():
        was = before.get(name, {})
        if was.get("digest") != model.digest:
            raise ValueError(
                f"config.objective.{name} ({model.path}) changed since the run in {workdir} began:"
                f" it was {was.get('path')} with digest {was.get('digest')}, and is"
                f" {model.digest}: bring it back, or start a run in another --workdir"
            )


def write(workdir: str | os.PathLike[str], loaded: Mapping[str, Loaded]) -> None:
    """Writes frozen.json where there are any. Raises ValueError where it cannot."""
    if loaded:
        content = {name: {"path": m.path, "digest": m.digest} for name, m in loaded.items()}
        run_folder.write_json(workdir, NAME, content)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
    """A frozen model on paper: its static part, where its parameters live, its value range."""

    options: Options
    graphdef: nnx.GraphDef
    abstract: Any  # nested dict of shapes with shardings
    scale: tuple[float, ...]  # from the values of the trained model to its own, per channel
    shift: tuple[float, ...]

    def bound(self, params: Any) -> Callable[..., Any]:
        """The model as a function of images in the value range of the trained model."""
        model = nnx.merge(self.graphdef, params)

        def call(images: jax.Array, **arguments: Any) -> Any:
            scale, shift = (jnp.asarray(x, images.dtype) for x in (self.scale, self.shift))
            if (self.scale, self.shift) != (_ONE * len(scale), _ZERO * len(shift)):
                shape = (1, 1, 1, len(scale))
                images = images * scale.reshape(shape) + shift.reshape(shape)
            return model(images, **arguments)

        return call


_ONE, _ZERO = (1.0,), (0.0,)


def design(
    model: Description, mesh: Mesh, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Frozen:
    """`mean` and `std` are those of the model that trains. Nothing is allocated."""
    graphdef, shapes = state.abstract_params(model.options)
    own = model.preprocessing
    pairs = list(zip(mean, std, own.mean, own.std, strict=True))
    return Frozen(
        options=model.options,
        graphdef=graphdef,
        abstract=rules.placed_shapes(shapes, mesh),
        scale=tuple(ours / theirs for _, ours, _, theirs in pairs),
        shift=tuple((center - own) / scale for center, _, own, scale in pairs),
    )


def place(loaded: Mapping[str, Loaded], designs: Mapping[str, Frozen]) -> dict[str, Any]:
    """The parameters of each, where its design says."""
    return {
        name: state.placed(
            traverse_util.unflatten_dict(dict(model.params), sep="/"), designs[name].abstract
        )
        for name, model in loaded.items()
    }
