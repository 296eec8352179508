"""Describes what changed between two identities of a split."""

from collections.abc import Mapping

from vit_jax.data.identity import Identity, Part
from vit_jax.data.image_list import ROWS
from vit_jax.text import few

_SHOWN = 3  # names of each kind of change in a message


def changes(was: Identity, now: Identity) -> tuple[str, ...]:
    """The differences, most important first; () if both give a run the same examples."""
    if was.digest == now.digest:
        return ()
    if was.kind != now.kind:
        return (f"the source is now {now.kind}, it was {was.kind}",)
    found = [f"the dataset is now {now.name}, it was {was.name}"] if was.name != now.name else []
    renamed = _renamed(was, now)
    found += class_changes(was.class_names, now.class_names, renamed=renamed)
    found += _moved(was, now)
    if was.images and now.images:
        found += _images(was, now)
    else:
        found += _parts(was, now)
    if was.examples != now.examples:
        found.append(f"{now.examples} images in total now, {was.examples} before")
    return tuple(found or _rows(was, now)) or ("its images have changed",)


def class_changes(
    was: tuple[str, ...], now: tuple[str, ...], *, renamed: Mapping[str, str] | None = None
) -> list[str]:
    """Classes that were added, removed, renamed or numbered differently."""
    renamed = renamed or {}
    gone = [name for name in was if name not in now and name not in renamed]
    new = [name for name in now if name not in was and name not in renamed.values()]
    found = [f"class renamed: {old} -> {name}" for old, name in renamed.items()][:_SHOWN]
    found += [_listed("class added", "classes added", new)] if new else []
    found += [_listed("class removed", "classes removed", gone)] if gone else []
    if not found and was != now:
        found.append(f"the order of the classes is now {few(now)}, it was {few(was)}")
    return found


def _renamed(was: Identity, now: Identity) -> dict[str, str]:
    """Maps each removed class to the added class that holds the same images."""
    new = {now.parts[n]: n for n in now.class_names if n not in was.class_names and n in now.parts}
    gone = [n for n in was.class_names if n not in now.class_names and n in was.parts]
    return {name: new[was.parts[name]] for name in gone if was.parts[name] in new}


def _moved(was: Identity, now: Identity) -> list[str]:
    """Classes that hold the images that another class held: their folders were swapped."""
    held = {part: name for name, part in was.parts.items() if part.examples}
    moved = [
        f"class {name} holds the images that class {held[part]} held"
        for name, part in now.parts.items()
        if name in was.parts and was.parts[name] != part and held.get(part, name) in now.parts
        if held.get(part, name) != name
    ]
    return moved[:_SHOWN]


def _images(was: Identity, now: Identity) -> list[str]:
    """Images that were added, removed, renamed or changed, without added and removed classes."""
    other_classes = set(was.class_names) ^ set(now.class_names)
    old, new = (
        {path: mark for path, mark in images.items() if path.split("/")[0] not in other_classes}
        for images in (was.images, now.images)
    )
    gone = [path for path in old if path not in new]
    added = [path for path in new if path not in old]
    by_mark = {old[path]: path for path in gone}
    moved = {by_mark.pop(new[path]): path for path in added if new[path] in by_mark}
    gone = [path for path in gone if path not in moved]
    added = [path for path in added if path not in moved.values()]
    changed = [path for path in new if path in old and old[path] != new[path]]
    found = []
    for paths, one, several in (
        (added, "image added", "images added"),
        (gone, "image removed", "images removed"),
        ([f"{path} -> {moved[path]}" for path in moved], "image renamed", "images renamed"),
        (changed, "image with changed content", "images with changed content"),
    ):
        if paths:
            found.append(f"{len(paths)} {one if len(paths) == 1 else several}: {few(paths)}")
    return found


def _parts(was: Identity, now: Identity) -> list[str]:
    """Classes or shards that hold more, fewer or different images."""
    other_classes = set(was.class_names) ^ set(now.class_names)
    nothing = Part(examples=0, digest="")
    found = []
    for name in dict.fromkeys((*was.parts, *now.parts)):
        old, new = was.parts.get(name, nothing), now.parts.get(name, nothing)
        if name in other_classes or name == ROWS or old == new:
            continue
        if old.examples != new.examples:
            found.append(f"{name} holds {new.examples} images now, {old.examples} before")
        else:
            found.append(f"{name} holds the same number of images, but different ones")
    more = [f"{len(found) - _SHOWN} more classes or shards changed"] if len(found) > _SHOWN else []
    return found[:_SHOWN] + more


def _rows(was: Identity, now: Identity) -> list[str]:
    """What changed in lists of the same images, whose classes may alternate in another order."""
    old, new = was.parts.get(ROWS), now.parts.get(ROWS)
    if not new or old == new:
        return []
    if old:
        return ["the order of its images, or their classes, have changed"]
    return ["its record is of an earlier version, which did not note the order of the images"]


def _listed(one: str, several: str, names: list[str]) -> str:
    return f"{one if len(names) == 1 else several}: {few(names)}"
