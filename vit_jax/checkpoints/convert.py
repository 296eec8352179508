"""From any checkpoint to a file of any layout or to a run, with a report of what became of it.

The command line adds its arguments to `convert` and prints what it returns:

    convert(args.source, args.target, layout=args.layout, num_heads=args.num_heads,
            check=args.check)
"""

import os
import pathlib

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
    """Writes `target`; returns the report: what was mapped, resized, dropped, initialised.

    Without a `layout`, a .npz is vit_jax's and a folder is a run of ours. The other arguments are
    those of `load`. `check` compares the written model with the one read, and with the original
    code where that is installed. Raises ValueError in one line, and writes nothing, where the
    source cannot be read or does not fit, or the target is there: a file is replaced with
    `overwrite`, unless it is the source, and a folder never.
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
    notes = save.write(checkpoint, target, layout=layout, origin=str(source))
    lines = [
        f"{source}: {original.layout or 'a run'}, {original.options.described()}",
        str(changes),
        *(f"note: {note}" for note in (*original.notes, *notes)),
        f"{target}: {layout or ('vit_jax' if pathlib.Path(target).suffix else 'a run')},"
        f" {sum(a.size for a in checkpoint.params.values()):,} parameters",
    ]
    if check:
        try:
            lines.append(check_lib.compare(checkpoint, load.read(target)))
        except ValueError as error:
            lines.append(f"check: not read back: {error}")
        with place.reading(target) as here:
            lines += check_lib.against_origin(checkpoint, folder=here)
    return "\n".join(lines)


def _check_target(source: pathlib.Path, target: pathlib.Path, overwrite: bool) -> None:
    """Raises ValueError where writing the target would destroy something."""
    try:
        if not os.path.lexists(target):
            return
        if target.is_dir() and not source.samefile(target):
            return  # written to only where it is empty
        kept = source.parent if source.name.endswith(".index.json") else source
        folders = [folder.resolve() for folder in (kept,) if folder.is_dir()]
        if source.samefile(target) or set(folders) & {*target.resolve().parents}:
            raise ValueError(f"{target} is what is read, or a part of it: choose another target")
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return  # no source, which reading it says, or a link to nothing, which is replaced
        raise ValueError(f"{target} cannot be written: {error.strerror}") from error
    if not overwrite:
        raise ValueError(f"{target} exists: give another name, or --overwrite to replace it")
