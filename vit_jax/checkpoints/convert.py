"""Converts any checkpoint to a file of any layout or to a run, and reports what was changed."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints import check as check_lib
from vit_jax.checkpoints import load, save
from vit_jax.workdir import place

Size = int | tuple[int, int]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    layout: str = "",
    source_layout: str = "",
    num_heads: int = 0,
    decoder_heads: int = 0,
    grid: tuple[int, int] | None = None,
    image_size: Size | None = None,
    patch_size: Size | None = None,
    num_classes: int | None = None,
    channels: int | None = None,
    adapt_channels: bool = False,
    resize: str = "",
    check: bool = False,
    overwrite: bool = False,
) -> str:
    """Writes `target`; returns a report of what was loaded, resized, dropped and initialised.

    Without a `layout`, a .npz gets the vit_jax layout and a folder becomes a run. The other
    arguments are the same as in `load`. `check` compares the written model with the source, and
    with the original code where it is installed. Raises ValueError with one line, and writes
    nothing, where the source cannot be read or does not fit, or where the target exists:
    `overwrite` replaces a file other than the source, but never a folder.
    """
    _check_target(pathlib.Path(source), pathlib.Path(target), overwrite)
    original = load.read(
        source,
        layout=source_layout,
        num_heads=num_heads,
        decoder_heads=decoder_heads,
        grid=grid,
        wanted_size=None if patch_size else image_size,
    )
    checkpoint, changes = load.adapted(
        original,
        image_size=image_size,
        patch_size=patch_size,
        num_classes=num_classes,
        channels=channels,
        adapt_channels=adapt_channels,
        resize=resize,
    )
    _check_finite(source, checkpoint.params)
    notes = save.write(checkpoint, target, layout=layout, origin=str(source))
    lines = [
        f"{source}: {original.layout or 'a run'}, {original.options.described()}",
        str(changes),
        *(f"note: {note}" for note in (*original.notes, *notes)),
        f"{target}: {layout or ('vit_jax' if pathlib.Path(target).suffix == '.npz' else 'a run')},"
        f" {sum(a.size for a in checkpoint.params.values()):,} parameters",
    ]
    if check:
        lines += _compared(checkpoint, target)
    return "\n".join(lines)


def _check_finite(source: str | os.PathLike[str], params: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError that names the first parameter with a NaN or an infinity."""
    for name, array in params.items():
        if not np.isfinite(array).all():
            raise ValueError(
                f"{source}: {name} has values that are not finite (NaN or infinity): the file is"
                " damaged, or its training diverged"
            )


def _compared(checkpoint: load.Checkpoint, target: str | os.PathLike[str]) -> list[str]:
    """Lines on how the written model compares with the source and with the original code."""
    try:
        lines = [check_lib.compare(checkpoint, load.read(target))]
    except ValueError as error:
        lines = [f"check: not read back: {error}"]
    with place.reading(target) as here:
        return lines + check_lib.against_origin(checkpoint, folder=here)


def _check_target(source: pathlib.Path, target: pathlib.Path, overwrite: bool) -> None:
    """Raises ValueError where writing the target would destroy something."""
    try:
        if not os.path.lexists(target):
            return
        if target.is_dir() and not source.samefile(target):
            place.check_replaceable(target)
            return
        kept = source.parent if source.name.endswith(".index.json") else source
        folders = [folder.resolve() for folder in (kept,) if folder.is_dir()]
        if source.samefile(target) or set(folders) & {*target.resolve().parents}:
            raise ValueError(f"{target} is the source or a part of it: choose another target")
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return  # no source: reading it raises; a broken link as target: it is replaced
        raise ValueError(f"{target} cannot be written: {error.strerror}") from error
    if not overwrite:
        raise ValueError(f"{target} exists: give another name, or --overwrite to replace it")
