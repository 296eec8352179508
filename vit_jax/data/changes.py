"""What changed between two identities of a split, in words."""

from collections.abc import Mapping

from vit_jax.data.identity import Identity, Part
from vit_jax.text import few

_SHOWN = 3  # names of a kind in a message


def changes(was: Identity, now: Identity) -> tuple[str, ...]:
    """What differs, most important first; () where both give a run the same examples."""
    if was.digest == now.digest:
        return ()
    if was.kind != now.kind:
        return (f"the source is {now.kind}, and was {was.kind}",)
    found = [f"the data set is {now.name}, and was {was.name}"] if was.name != now.name else []
    renamed = _renamed(was, now)
    found += class_changes(was.class_names, now.class_names, renamed=renamed)
    found += _moved(was, now)
    if was.images and now.images:
        found += _images(was, now)
    else:
        found += _parts(was, now)
    if was.examples != now.examples:
        found.append(f"{now.examples} images in all, and {was.examples} then")
    return tuple(found) or ("its images are others",)


def class_changes(
    was: tuple[str, ...], now: tuple[str, ...], *, renamed: Mapping[str, str] | None = None
) -> list[str]:
    """Classes that came, went, or got another name or number."""
    renamed = renamed or {}
    gone = [name for name in was if name not in now and name not in renamed]
    new = [name for name in now if name not in was and name not in renamed.values()]
    found = [f"class renamed: {old} -> {name}" for old, name in renamed.items()][:_SHOWN]
    found += [_listed("class added", "classes added", new)] if new else []
    found += [_listed("class removed", "classes removed", gone)] if gone else []
    if not found and was != now:
        found.append(f"the classes are in another order: {few(now)}, and were {few(was)}")
    return found


def _renamed(was: Identity, now: Identity) -> dict[str, str]:
    """Classes that are gone, by the name of a new one that holds the same."""
    new = {now.parts[n]: n for n in now.class_names if n not in was.class_names and n in now.parts}
    gone = [n for n in was.class_names if n not in now.class_names and n in was.parts]
    return {name: new[was.parts[name]] for name in gone if was.parts[name] in new}


def _moved(was: Identity, now: Identity) -> list[str]:
    """Classes that hold what another one held: their folders changed places."""
    held = {part: name for name, part in was.parts.items() if part.examples}
    moved = [
        f"class {name} holds what class {held[part]} held"
        for name, part in now.parts.items()
        if name in was.parts and was.parts[name] != part and held.get(part, name) in now.parts
        if held.get(part, name) != name
    ]
    return moved[:_SHOWN]


def _images(was: Identity, now: Identity) -> list[str]:
    """Images that came, went, moved, or hold something else; not those of classes told above."""
    told = set(was.class_names) ^ set(now.class_names)
    old, new = (
        {path: mark for path, mark in images.items() if path.split("/")[0] not in told}
        for images in (was.images, now.images)
    )
    gone = [path for path in old if path not in new]
    came = [path for path in new if path not in old]
    by_mark = {old[path]: path for path in gone}
    moved = {by_mark.pop(new[path]): path for path in came if new[path] in by_mark}
    gone = [path for path in gone if path not in moved]
    came = [path for path in came if path not in moved.values()]
    other = [path for path in new if path in old and old[path] != new[path]]
    found = []
    for paths, one, several in (
        (came, "image more", "images more"),
        (gone, "image fewer", "images fewer"),
        ([f"{path} -> {moved[path]}" for path in moved], "image renamed", "images renamed"),
        (other, "image with another content", "images with another content"),
    ):
        if paths:
            found.append(f"{len(paths)} {one if len(paths) == 1 else several}: {few(paths)}")
    return found


def _parts(was: Identity, now: Identity) -> list[str]:
    """Classes or shards that hold another number of images, or other ones."""
    told = set(was.class_names) ^ set(now.class_names)
    nothing = Part(examples=0, digest="")
    found = []
    for name in dict.fromkeys((*was.parts, *now.parts)):
        old, new = was.parts.get(name, nothing), now.parts.get(name, nothing)
        if name in told or old == new:
            continue
        if old.examples != new.examples:
            found.append(f"{name} holds {new.examples} images, and held {old.examples}")
        else:
            found.append(f"{name} holds as many images, but other ones")
    more = [f"{len(found) - _SHOWN} more of this kind"] if len(found) > _SHOWN else []
    return found[:_SHOWN] + more


def _listed(one: str, several: str, names: list[str]) -> str:
    return f"{one if len(names) == 1 else several}: {few(names)}"
