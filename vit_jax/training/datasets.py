"""The data of a run: opened, compared with the data that the run began with, and recorded.

data.json    what defines each split, and every change that the user accepted since
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from vit_jax.checkpoints import classes, run_folder
from vit_jax.config import Config
from vit_jax.data import opening
from vit_jax.data.changes import changes, class_changes
from vit_jax.data.identity import Identity, Part
from vit_jax.data.record import DataFacts, Source, is_multi_label
from vit_jax.data.relabelled import Relabelled
from vit_jax.training import setup

NAME = "data.json"
SPLITS = ("train", "eval")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What a run was trained and evaluated on."""

    splits: Mapping[str, Identity]  # by the names of SPLITS
    accepted: tuple[Mapping[str, Any], ...] = ()  # changes: the step, and both summaries


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Both splits of a run, and what was found when they were opened."""

    train: Source
    held_out: Source
    record: DataRecord
    is_new: bool  # whether the record must be written
    change: Mapping[str, Any] | None = None  # a change that the user accepts, not yet recorded
    class_names: tuple[str, ...]  # of the model, by label
    card: run_folder.Card | None = None  # the card to write, if the classes have new names
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> DataFacts:
        """What the design of the run needs to know."""
        names = self.class_names
        return DataFacts(
            train_size=len(self.train),
            class_names=names,
            num_classes=len(names),
            multi_label=bool(names) and is_multi_label(self.train),
        )

    def write(self, workdir: str | os.PathLike[str], *, step: int) -> None:
        """Writes data.json, and model.json, if they must change in a run that resumes at `step`.

        Raises ValueError if that fails.
        """
        if self.is_new:
            now = dataclasses.asdict(self.record)
            if self.change:
                now["accepted"] = (*self.record.accepted, {"step": step, **self.change})
            run_folder.write_json(workdir, NAME, now)
        if self.card:
            run_folder.write_card(workdir, self.card)


def open_data(config: Config, workdir: str | os.PathLike[str], *, resumed: bool) -> Data:
    """The data of a run, new or `resumed`.

    Raises ValueError that names the changes if a run would resume with other classes or other
    examples. `config.data.accept_changes` allows it: both summaries go into the record.
    """
    labelled = "label" in config.objective.inputs
    train = opening.open_train(config.data, labelled=labelled)
    held_out = opening.open_eval(config.data, labelled=labelled)
    first = train.identity()
    # A folder without splits is used for both.
    same = (type(train), train.name, len(train)) == (type(held_out), held_out.name, len(held_out))
    now = DataRecord(splits={"train": first, "eval": first if same else held_out.identity()})
    if not resumed:
        names = train.class_names if labelled else ()
        return Data(train=train, held_out=held_out, record=now, is_new=True, class_names=names)
    card, before = run_folder.read_card(workdir), read(workdir)
    found = _changes(before, now, card.class_names)
    if found and not config.data.accept_changes:
        raise ValueError(_refused(workdir, found))
    match = _match(workdir, card, train)
    names = train.class_names if labelled else ()
    if match.kind == "reordered":
        names = card.class_names
        train = Relabelled(train, match.rows)
    renamed = card.options.num_classes and names != card.class_names
    return Data(
        train=train,
        held_out=held_out,
        record=dataclasses.replace(now, accepted=before.accepted if before else ()),
        is_new=before is None or bool(found),
        change=_change(before, now, found) if found else None,
        class_names=names,
        card=dataclasses.replace(card, class_names=names) if renamed else None,
        notes=_notes(config, before, now, found, match.note if labelled else ""),
    )


def _match(workdir: str | os.PathLike[str], card: run_folder.Card, train: Source) -> classes.Match:
    """How the classes of a resumed model are found in the data.

    Raises ValueError if their number differs.
    """
    if not card.options.num_classes:  # it has no head, so labels do not matter
        return classes.Match(kind="same")
    if len(train.class_names) != card.options.num_classes:
        raise ValueError(
            f"{train.name} has the classes {classes.described(train.class_names)}, the run in"
            f" {workdir} {classes.described(card.class_names, card.options.num_classes)}: another"
            f" number of classes is another model: start a run in another --workdir with"
            f" --config.init_from={workdir}"
        )
    return classes.match(
        card.class_names,
        train.class_names,
        their_count=card.options.num_classes,
        our_count=len(train.class_names),
    )


def evaluated_otherwise(workdir: str | os.PathLike[str], name: str, held_out: Identity) -> str:
    """A note that tells how this split differs from the run's held-out split; "" if equal."""
    try:
        record = read(workdir)
    except ValueError as error:  # a damaged record does not prevent an evaluation
        return str(error)
    found = changes(record.splits["eval"], held_out) if record else ()
    return f"{name} is not what the run was evaluated on: {'; '.join(found)}" if found else ""


def read(workdir: str | os.PathLike[str]) -> DataRecord | None:
    """The record of a run, or None if there is none. Raises ValueError if it is damaged."""
    content = run_folder.read_json(workdir, NAME)
    if content is None:
        return None
    try:
        return DataRecord(
            splits={split: _identity(content["splits"][split]) for split in SPLITS},
            accepted=tuple(dict(change) for change in content["accepted"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{workdir}/{NAME} is damaged: {type(error).__name__} {error}: restore it, or remove"
            " it to accept the data as they are now"
        ) from error


def _identity(content: Mapping[str, Any]) -> Identity:
    _check(content, Identity)
    names, images = content["class_names"], content["images"]
    if not all(isinstance(text, str) for text in (*names, *images.values())):
        raise ValueError("class_names and images must hold texts")
    return Identity(
        **{
            **content,
            "class_names": tuple(names),
            "parts": {name: _part(part) for name, part in content["parts"].items()},
            "images": images,
        }
    )


def _part(content: Mapping[str, Any]) -> Part:
    _check(content, Part)
    return Part(**content)


_KINDS: Mapping[str, type] = {
    **{"kind": str, "name": str, "digest": str, "examples": int},
    **{"class_names": list, "parts": dict, "images": dict},
}


def _check(content: Mapping[str, Any], made: type[Identity] | type[Part]) -> None:
    """Raises ValueError unless the fields of JSON have the types of those of `made`."""
    for field in dataclasses.fields(made):
        value = content.get(field.name, field.default)
        if value is dataclasses.MISSING:
            raise ValueError(f"it has no {field.name}")
        if type(value) is not _KINDS[field.name]:
            raise ValueError(f"{field.name} must be of type {_KINDS[field.name].__name__}")
        if isinstance(value, int) and not 0 <= value < 2**63:
            raise ValueError(f"{field.name} is not a number of images")


def _changes(
    before: DataRecord | None, now: DataRecord, names: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """What changed, by split. Without a record only the classes in model.json are compared."""
    if before is None:
        found = class_changes(names, now.splits["train"].class_names) if names else []
        return {"train": tuple(found)} if found else {}
    by_split = {split: changes(before.splits[split], now.splits[split]) for split in SPLITS}
    return {split: found for split, found in by_split.items() if found}


def _change(
    before: DataRecord | None, now: DataRecord, found: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    return {
        "changes": dict(found),
        "was": {split: _summary(before.splits[split]) for split in found} if before else {},
        "is": {split: _summary(now.splits[split]) for split in found},
    }


def _summary(identity: Identity) -> dict[str, Any]:
    names = ("kind", "name", "examples", "class_names", "digest")
    return {name: getattr(identity, name) for name in names}


def _notes(
    config: Config,
    before: DataRecord | None,
    now: DataRecord,
    found: Mapping[str, tuple[str, ...]],
    assumed: str,
) -> tuple[str, ...]:
    notes = []
    if before is None:
        notes.append(
            f"note: the run has no record of its data ({NAME}): it is assumed that they did not"
            " change, and they are recorded now"
        )
    if found:
        notes.append(f"note: the data changed, which you accept: {_listed(found)}")
    if before and "train" in found and not config.data.per_class:  # images that a run trains on
        old, new = (
            setup.lengths(config, dataset_size=record.splits["train"].examples).total
            for record in (before, now)
        )
        if old != new:
            notes.append(f"note: with these data the run has {new} steps; it had {old}")
    if assumed:
        notes.append(f"note: {assumed}")
    return tuple(notes)


def _refused(workdir: str | os.PathLike[str], found: Mapping[str, tuple[str, ...]]) -> str:
    return (
        f"the data of the run in {workdir} changed since it began: {_listed(found)}: restore them,"
        f" start another run with --config.init_from={workdir}, or continue with the changed data:"
        " --config.data.accept_changes=true"
    )


def _listed(found: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{split}: {'; '.join(what)}" for split, what in found.items())
