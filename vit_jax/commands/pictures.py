"""What `figures` does, once its arguments are read."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence

import jax
from etils import epath
from matplotlib.figure import Figure

from vit_jax import __version__
from vit_jax.analysis.contract import NoPicture
from vit_jax.checkpoints import run_folder
from vit_jax.commands import augmentations, comparing, configs, picture_files
from vit_jax.commands.drawings import PICTURES
from vit_jax.commands.subject import Subject
from vit_jax.models.names import nearest
from vit_jax.page import document
from vit_jax.text import printable
from vit_jax.training import run_config
from vit_jax.workdir import place

PAGE_BYTES = 4 * 2**20  # of all pictures of a page


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Draws pictures, writes them and prints their paths. Returns the exit code."""
    if options.html:
        document.check_installed("--html")
    if options.augment:
        return _augmentations(options, overrides)
    if overrides or options.config:
        given = overrides[0] if overrides else "--config"
        raise ValueError(f"{given} is for the pictures of augmentations: add --augment")
    if not options.workdir:
        raise ValueError("figures draws a run: give its --workdir, or --augment and --config")
    if others := [path for path in options.images if run_folder.is_run(path)]:
        return _compare(options, others)
    for name in options.only or ():
        if name not in PICTURES:
            raise ValueError(f"there is no picture {name!r}: {nearest(name, tuple(PICTURES))}")
    folder = _folder(options)
    subject = Subject(
        workdir=options.workdir,
        step=options.step,
        image_size=options.image_size,
        files=tuple(options.images),
        measured=options.measured or 0,
    )
    if options.images and not subject.source:
        raise ValueError("there are no images: name files or folders")
    found = dict(drawn(subject, only=options.only or ()))
    _write(found, options, folder, title=f"Pictures of {options.workdir}")
    return 0


def _compare(options: argparse.Namespace, others: Sequence[str]) -> int:
    """Draws the pictures that several runs have together. Returns the exit code."""
    files = [path for path in options.images if path not in others]
    unknown = [name for name in options.only or () if name not in comparing.PICTURES]
    if files or unknown:
        raise ValueError(
            f"several runs have the pictures {' and '.join(comparing.PICTURES)} only:"
            f" leave out {(files or unknown)[0]}"
        )
    _check_unused(options, what="one run")
    if not (options.output or options.html):
        raise ValueError("the curves of several runs belong to none of them: give a folder, -o")
    found = comparing.draw([options.workdir, *others], only=options.only or ())
    folder = epath.Path(options.output) if options.output else None
    _write(found, options, folder, title=f"{len(others) + 1} runs compared")
    return 0


def _check_unused(options: argparse.Namespace, *, what: str) -> None:
    """Raises ValueError for an option that only the pictures of `what` use."""
    given = [option for option in ("image_size", "measured") if getattr(options, option)]
    if options.step != "latest":
        given.append("step")
    if given:
        name = given[0].replace("_", "-")
        raise ValueError(f"--{name} is for the pictures of {what}: leave it out")


def _folder(options: argparse.Namespace) -> epath.Path | None:
    """Where the pictures go: -o, or pictures/ of the run; None if there is only a page.

    Raises ValueError if there is none of them.
    """
    if options.output:
        return epath.Path(options.output)
    if options.html:
        return None
    if not options.workdir or not run_folder.is_run(options.workdir):
        raise ValueError(f"{options.workdir} is not a run: give a folder for the pictures, -o")
    return place.folder(options.workdir) / "pictures"


def _write(
    found: Mapping[str, Figure],
    options: argparse.Namespace,
    folder: epath.Path | None,
    *,
    title: str,
) -> None:
    """Writes the pictures into a folder and onto the page --html, as far as they are wanted."""
    if folder is not None:
        picture_files.save(found, folder)
    if options.html and jax.process_index() == 0:
        pictures = picture_files.embedded(found.items(), most=PAGE_BYTES)
        note = f"Drawn by vit_jax {__version__} (docs/pictures.md)."
        section = document.Section(pictures=pictures)
        document.write(options.html, document.render(title=title, note=note, sections=[section]))
        print(printable(options.html))


def drawn(
    subject: Subject, *, only: Sequence[str] = (), but: Sequence[str] = (), quiet: bool = False
) -> Iterator[tuple[str, Figure]]:
    """The pictures `only`, or all that exist except `but`, by name.

    The reason for each other one is printed, unless `quiet`. Raises ValueError if one of `only`
    does not exist for the model, or if no picture exists.
    """
    reasons: dict[str, str] = {}
    number = 0
    for name in only or (name for name in PICTURES if name not in but):
        picture = PICTURES[name]
        try:
            if picture.images and subject.source is None:
                raise NoPicture("it needs images: name files or folders")
            yield name, picture.draw(subject)
            number += 1
        except NoPicture as missing:
            if only:
                raise ValueError(f"{subject.workdir} has no picture {name}: {missing}") from missing
            reasons[name] = str(missing)
    if not number:
        raise ValueError(f"{subject.workdir} has no pictures: {'; '.join(set(reasons.values()))}")
    for reason in dict.fromkeys(() if quiet else reasons.values()):
        names = ", ".join(name for name, why in reasons.items() if why == reason)
        print(printable(f"vit_jax: not drawn: {names}: {reason}"), file=sys.stderr)


def _augmentations(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Draws the augmentations of `--config`, or of the run in `--workdir`."""
    if options.images or options.only:
        raise ValueError("--augment draws training images: it takes no images and no --only")
    _check_unused(options, what="a model, and --augment draws training images")
    if options.config:
        config = configs.from_file(options.config, overrides)
    elif options.workdir:
        config = configs.override(run_config.read_config(options.workdir), overrides)[0]
    else:
        raise ValueError("--augment draws a recipe or a run: give --config or --workdir")
    if not (options.output or options.html or options.workdir):
        raise ValueError("--augment writes pictures: give a folder, -o FOLDER or --workdir")
    folder = _folder(options)
    of = options.config or options.workdir
    _write(augmentations.draw(config), options, folder, title=f"Augmentations of {of}")
    return 0
