"""Loads a model from the folder of a run or from a released file."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx, traverse_util

from vit_jax.checkpoints import (
    beside,
    block_order,
    classes,
    exported,
    fallback,
    files,
    layouts,
    run_folder,
    store,
    surgery,
)
from vit_jax.checkpoints.layouts import class_names
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.timm import contradictions
from vit_jax.models import attention_choice, lora, zoo
from vit_jax.models.interpolation import Method, Methods
from vit_jax.models.model import TrainedWith
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.text import printable
from vit_jax.workdir import place


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model's parameters on the host, with its description."""

    options: zoo.Options
    params: dict[str, np.ndarray]  # flat, by path, float32
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    resize: Methods = Methods()  # how its family resizes parameters
    cross_entropy: TrainedWith = ""  # what it was trained with; "": not known
    layout: str = ""  # the layout of the file that was read; "" for a run
    step: int | None = None  # of a run
    notes: tuple[str, ...] = ()  # messages about what was assumed or not read


def load(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    adapt_channels: bool = False,
    num_heads: int | None = None,
    decoder_heads: int | None = None,
    grid: tuple[int, int] | None = None,
    resize: Method | None = None,
    step: store.Which = "latest",
    substitute: bool = False,
    **overrides: Any,
) -> zoo.Model:
    """A model ready to call: `model(images)` with images (B, height, width, channels) float32.

    `path` is the folder of a run or a released file. Of a run, the checkpoint at `step` is loaded,
    with the averaged parameters if the run keeps an average; `substitute` allows the previous
    checkpoint where the latest or best is damaged. A file or an exported folder has no steps. The
    layout of a released file is recognised from the names of its arrays unless `layout` is given.

    For another `image_size` the position embeddings are interpolated, with the method of the
    checkpoint's family unless `resize` names another. For another `patch_size` the patch embedding
    is resampled as in FlexiViT. For another `num_classes` the head is new and zero. For other
    `channels` the first kernel is summed or repeated as in timm, only with `adapt_channels`.
    `overrides` are fields of the model's options.

    Some arguments give what a file may not contain: `num_heads`, needed where it does not follow
    from the width; `decoder_heads` of a masked autoencoder; `grid`, the file's grid of positions
    (default: from config.json, a released model, or `image_size`, which is logged); and
    `position="none"` for a model without positions whose .npz has none.

    The model has `preprocessing` (the expected images), `class_names`, `step` (of a run) and
    `cross_entropy` (its loss), where known. Logs assumptions. Raises ValueError for bad input.
    """
    checkpoint = read(
        path,
        layout=layout or "",
        num_heads=num_heads or 0,
        decoder_heads=decoder_heads or 0,
        grid=grid,
        wanted_size=None if patch_size else image_size,
        position=overrides.get("position", ""),
        step=step,
        substitute=substitute,
    )
    checkpoint, _ = adapted(
        checkpoint,
        image_size=image_size,
        patch_size=patch_size,
        num_classes=num_classes,
        channels=channels,
        adapt_channels=adapt_channels,
        resize=resize or "",
        **overrides,
    )
    return _ready(checkpoint, path)


def _ready(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> zoo.Model:
    """The model with what the checkpoint says of it; logs the checkpoint's notes."""
    for note in checkpoint.notes:
        logging.getLogger(__name__).warning("%s: %s", printable(os.fspath(path)), printable(note))
    model = assemble(checkpoint.options, checkpoint.params)
    model.preprocessing = checkpoint.preprocessing
    model.class_names = checkpoint.class_names
    model.resize_methods, model.step = checkpoint.resize, checkpoint.step
    model.cross_entropy = checkpoint.cross_entropy
    return model


def adapted(
    checkpoint: Checkpoint,
    *,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    adapt_channels: bool = False,
    resize: str = "",
    **overrides: Any,
) -> tuple[Checkpoint, surgery.Report]:
    """The checkpoint with other sizes, arguments as in `load`; and a report of the changes."""
    changes: dict[str, Any] = dict(overrides)
    for field, size in (("image_size", image_size), ("patch_size", patch_size)):
        if size is not None:
            changes[field] = tuple(size) if isinstance(size, list | tuple) else (size, size)
    for name, number in (("num_classes", num_classes), ("channels", channels)):
        if number is not None:
            changes[name] = number
    target = checkpoint.options.adapted(**changes)
    methods = checkpoint.resize.with_position(resize)
    count, same_classes = target.num_classes, target.num_classes == checkpoint.options.num_classes
    other = classes.match((), (), their_count=checkpoint.options.num_classes, our_count=count)
    params, report = surgery.adapt(
        checkpoint.params,
        source=checkpoint.options,
        target=target,
        key=jax.random.key(0),
        resize=methods,
        classes=None if same_classes else other,
        adapt_channels=adapt_channels,
    )
    expects = dataclasses.replace(checkpoint.preprocessing, image_size=target.image_size)
    changed = dataclasses.replace(
        checkpoint,
        options=target,
        params=params,
        preprocessing=expects.for_channels(target.channels),
        class_names=checkpoint.class_names if same_classes else (),
        cross_entropy=checkpoint.cross_entropy if same_classes else "",
        notes=(*checkpoint.notes, *report.notes),
    )
    return changed, report


def read(
    path: str | os.PathLike[str],
    *,
    layout: str = "",
    num_heads: int = 0,
    decoder_heads: int = 0,
    grid: tuple[int, int] | None = None,
    wanted_size: int | tuple[int, int] | None = None,
    position: str = "",
    step: store.Which = "latest",
    substitute: bool = False,
) -> Checkpoint:
    """The checkpoint at `path`, unchanged. Raises ValueError as `load` does.

    `wanted_size` is the image size of the caller, used to choose the grid of positions where the
    files leave it open.
    """
    if run_folder.is_run(path):
        checkpoint = _read_run(path, step, substitute=substitute)
        given = {"layout": layout, "num_heads": num_heads, "decoder_heads": decoder_heads}
        _check_given(path, checkpoint.options, given | {"grid": grid})
        return checkpoint
    hints = Hints(
        num_heads=num_heads,
        decoder_heads=decoder_heads,
        grid=grid,
        wanted_size=_pair(wanted_size),
        position=position,
    )
    with place.reading(path) as copy:
        if step != "latest":
            files.locate(copy)  # a path that is not there has another message
            raise ValueError(_without_steps(path, step))
        return _read_file(copy, layout, hints)


def _read_file(path: str | os.PathLike[str], layout: str, given: Hints) -> Checkpoint:
    """The checkpoint of a released file or folder; `given` has the user's arguments."""
    file = files.locate(path)
    contents, texts = files.contents(file), files.read_beside(file)
    arrays, exact = contents.arrays, beside.exact(texts.config)
    found = layouts.find(arrays, layout or exact.layout, path=str(path), key=contents.key)
    try:
        hints = dataclasses.replace(given, config=texts.config, preprocessor=texts.preprocessor)
        notes = contents.notes + found.notes(arrays)
        arrays = found.canonical(arrays, hints)
        options = written = found.infer(arrays, hints)
        layouts.table.check_depth(options, number=len(arrays))
        if exact.options:
            options = beside.with_fields(options, exact.options, "options")
            written = found.as_written(options)
            layouts.table.check_depth(written, number=len(arrays))
            if options.fixed_table:  # the model computes its positions
                arrays = {name: a for name, a in arrays.items() if not _is_position(name)}
        _check_used(options, given)
        params = layouts.table.read(found.entries(written), arrays, surgery.shapes(written))
        params = surgery.with_rows(params, source=written, target=options)
        expects = found.preprocessing(options, hints)
        preprocessing = expects.for_channels(options.channels)
        if len(set(expects.mean)) > 1 and preprocessing.mean != expects.mean:
            notes += (f"mean and std of {len(expects.mean)} channels were fitted to the model's",)
        preprocessing = beside.with_fields(preprocessing, exact.preprocessing, "preprocessing")
        notes += found.assumptions(options, preprocessing, hints)
        notes += contradictions.notes(options, hints)
        names, problems = class_names.read(hints.config, options.num_classes)
    except (IndexError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: its arrays have shapes that fit no known model") from error
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    return Checkpoint(
        options=options,
        params={name: np.asarray(array, np.float32) for name, array in params.items()},
        preprocessing=preprocessing,
        class_names=names,
        resize=found.resize(options),
        cross_entropy=beside.cross_entropy(texts.config, exact),
        layout=layouts.name(found),
        notes=notes + tuple(hints.notes) + problems,
    )


def assemble(options: zoo.Options, params: dict[str, np.ndarray]) -> zoo.Model:
    """A model with these parameters, on the default device."""
    graphdef, _ = zoo.abstract(options)
    arrays = {path: jax.numpy.asarray(array) for path, array in params.items()}
    return nnx.merge(graphdef, traverse_util.unflatten_dict(arrays, sep="/"))


def _is_position(name: str) -> bool:
    return name.rsplit("/", 1)[-1] in ("pos_embed", "pos_embedding")


def _pair(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """(height, width); None for any other value, which `adapted` refuses."""
    if isinstance(size, int):
        return size, size
    return (size[0], size[1]) if isinstance(size, list | tuple) and len(size) == 2 else None


def _check_given(path: str | os.PathLike[str], options: zoo.Options, given: dict[str, Any]) -> None:
    """Raises ValueError where an argument contradicts a run, which needs none of them."""
    known = options.load_arguments
    for name, value in given.items():
        if value and value != known.get(name):
            fact = f"with {name} {known[name]}" if known.get(name) else f"without {name}"
            raise ValueError(f"{path} is a run {fact}, not {value!r}: leave it out")


def _check_used(options: zoo.Options, given: Hints) -> None:
    """Raises ValueError for a number of heads of a part that the model does not have."""
    known = options.load_arguments
    for name in ("num_heads", "decoder_heads"):
        if (number := getattr(given, name)) and not known.get(name):
            raise ValueError(f"the model has no {name}, not {number}: leave it out")


def _without_steps(path: str | os.PathLike[str], step: store.Which) -> str:
    return f"{os.fspath(path)} is one model, not a run with checkpoints: leave out step {step}"


def _trained_with(path: str | os.PathLike[str], card: run_folder.Card) -> TrainedWith:
    """What a run or an exported model was trained with; "" if it is not known."""
    if card.cross_entropy or not card.options.num_classes:
        return card.cross_entropy
    if exported.is_exported(path):
        return exported.cross_entropy(path)
    return run_folder.cross_entropy_of_config(path)


def _read_run(path: str | os.PathLike[str], step: store.Which, *, substitute: bool) -> Checkpoint:
    card, order = run_folder.read_old_card(path)
    if exported.is_exported(path):
        if step != "latest":
            raise ValueError(_without_steps(path, step))
        unknown = (
            "an earlier version exported it, which ran the blocks of a stage in another order: if"
            " that version trained it, export its run again"
        )
        return Checkpoint(
            options=attention_choice.runnable(card.options, platform=jax.default_backend()),
            params=exported.read(path, card.options),
            preprocessing=card.preprocessing,
            class_names=card.class_names,
            resize=card.resize,
            cross_entropy=_trained_with(path, card),
            notes=card.notes + ((unknown,) if order == "unknown" else ()),
        )
    item = "ema" if card.average else "params"
    _, shapes = zoo.abstract(card.options)
    abstract = nnx.to_pure_dict(shapes)
    best = (card.metric, card.better) if card.metric else None
    with store.Store(path, store.CheckpointConfig(), metric=best, read_only=True) as saved:
        wanted = {item: store.local_shapes(abstract)}
        found = fallback.restore(saved, wanted, step, substitute=substitute)
    flat = traverse_util.flatten_dict(found.state[item], sep="/")
    params = {name: np.asarray(array) for name, array in flat.items()}
    notes = card.notes + found.notes
    if order == "name":
        params = block_order.by_number(params)
        notes += ("an earlier version trained it, whose order of blocks it keeps",)
    options = attention_choice.runnable(card.options, platform=jax.default_backend())
    if adapters := getattr(options, "lora", None):
        params = lora.merged(params, adapters)
        options = zoo.change(options, lora=None)
    return Checkpoint(
        options=options,
        params=params,
        preprocessing=card.preprocessing,
        class_names=card.class_names,
        resize=card.resize,
        cross_entropy=_trained_with(path, card),
        step=found.step,
        notes=notes,
    )
