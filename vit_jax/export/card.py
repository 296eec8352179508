"""The card of an exported model: facts as JSON, and a page for people who consider using it."""

import dataclasses
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from typing import Any

import vit_jax
from vit_jax.checkpoints import run_folder
from vit_jax.export.program import Program
from vit_jax.text import few, printable
from vit_jax.workdir import lines

LIBRARIES = ("jax", "jaxlib", "flax", "numpy")
NOT_FOR = (
    "Decisions about people, or decisions that can harm someone, without a study of its errors on"
    " images of that use.",
    "Images unlike those that it was trained on, or classes that it does not have: its accuracy is"
    " known only for the data below, and it always answers with one of its classes.",
)
_NOT_FOR_FEATURES = (
    "Classification as it is: it has no classes. Train a head on its features first.",
    NOT_FOR[0],
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known about where a model is from."""

    source: str  # the run or the file
    step: str = ""  # of the checkpoint that was asked for: latest, best, or a number
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # see `of_run`


def of_run(workdir: str | os.PathLike[str], *, digest: str) -> dict[str, Any]:
    """Facts of a run: data, objective, its start, and the last line of held-out metrics.

    `digest` is that of the config. Raises ValueError if a file of the run is damaged.
    """
    fields, data = run_folder.read_fields(workdir), run_folder.read_json(workdir, "data.json") or {}
    splits = data.get("splits", {}) if isinstance(data, Mapping) else {}
    measured = [line for line in lines.read(workdir).good if "eval_count" in line]
    return {
        "config_digest": digest,
        "objective": fields.get("objective", {}).get("name", ""),
        "started_from": fields.get("init_from", ""),
        "data": {
            split: {
                "name": " ".join(filter(None, (of.get("kind"), of.get("name")))),
                "images": of.get("examples"),
                "digest": of.get("digest"),
            }
            for split, of in splits.items()
        },
        "metrics": measured[-1] if measured else {},
    }


def facts(
    program: Program,
    origin: Origin,
    *,
    programs: Mapping[str, int | None],
    classes: Sequence[str],
    licence: str,
    not_for: Sequence[str],
) -> dict[str, Any]:
    """The content of card.json."""
    options = program.options
    standard = NOT_FOR if options.num_classes else _NOT_FOR_FEATURES
    size = [*program.preprocessing.image_size, options.channels]
    return {
        "format": 1,
        "model": options.described(),
        "parameters": sum(array.size for array in program.arrays.values()),
        "source": {"path": origin.source, "step": origin.step, **origin.run},
        "programs": programs,
        "input": {"dtype": "uint8", "shape": ["batch", *size]},
        "outputs": (
            {"logits": len(classes), "probabilities": len(classes)}
            if options.num_classes
            else {"features": options.feature_size}
        ),
        "activation": program.activation if options.num_classes else None,
        "dtype": options.dtype,
        "licence": licence or "unknown: ask whoever trained it",
        "not_for": [*not_for, *standard],
        "versions": {
            "vit_jax": vit_jax.__version__,
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
    }


def page(
    facts: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    parity: Mapping[str, Any],
    classes: Sequence[str],
) -> str:
    """The text of README.md."""
    source = facts["source"]
    name = os.path.basename(os.path.normpath(source["path"]))
    shown = few([printable(one) for one in classes], 10)
    answers = (
        f"one of {len(classes)} classes (class_names.json): {shown}"
        if classes
        else "features; it has no classes"
    )
    return "\n".join(
        (
            f"# {printable(name)}",
            "",
            f"{printable(facts['model'])}, {facts['parameters']:,} parameters. For an image it"
            f" gives {answers}.",
            "",
            "## What it must not be used for",
            "",
            *(f"- {printable(line)}" for line in facts["not_for"]),
            "",
            "## Data and accuracy",
            "",
            *_data(source),
            "",
            "## Images",
            "",
            *(f"{i}. {step}" for i, step in enumerate(preprocessing["steps"], start=1)),
            "",
            "## Files",
            "",
            *_files(facts["programs"]),
            "",
            "## Equal to the original",
            "",
            *_equal(parity),
            "",
            "## Origin",
            "",
            f"From {printable(source['path'])}, licence: {printable(facts['licence'])}.",
            *([f"It started from {printable(source['started_from'])}."]
              if source.get("started_from") else []),
            f"Versions: {', '.join(f'{k} {v}' for k, v in facts['versions'].items())}.",
            "",
        )
    )  # fmt: skip


def preprocessing(program: Program, *, normalises: bool = True) -> dict[str, Any]:
    """The content of preprocessing.json: what comes before the program, and what is in it.

    `normalises`: whether there is a program, which normalises pixels itself.
    """
    expects, channels = program.preprocessing, program.options.channels
    before = {
        "image_size": list(expects.image_size),
        "crop_pct": expects.crop_pct,
        "interpolation": expects.interpolation,
        "fit": expects.fit,
    }
    height, width = expects.image_size
    normal = "(pixel / 255 - mean) / std"
    given = f"Give the pixels as uint8 to the program, which computes {normal}."
    colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    return {
        "channels": channels,
        "before_the_program": before,
        "in_the_program": {"mean": list(expects.mean), "std": list(expects.std)},
        "steps": [
            f"Decode the file to {colours} with 8 bits, turned as its EXIF orientation says.",
            f"Resize with {expects.interpolation} to cover {height} x {width} divided by"
            f" {expects.crop_pct}"
            + (", whatever the aspect ratio is." if expects.fit == "squash" else "."),
            f"Cut {height} x {width} pixels (height x width) from the centre.",
            given if normalises else f"Compute {normal}, with the values of model.json.",
        ],
    }


def _data(source: Mapping[str, Any]) -> list[str]:
    if "data" not in source:
        return ["A released or converted model: see its authors for its data and accuracy."]
    found = [
        f"- {split}: {of['images']:,} images of {printable(of['name'])}"
        for split, of in source["data"].items()
    ]
    metrics = source["metrics"]
    if not metrics:
        return [*found, "- It was not evaluated while it was trained."]
    values = [
        f"{name.removeprefix('eval_')} {value:.4g}"
        for name, value in lines.numbers(metrics).items()
        if name.startswith("eval_") and name != "eval_count"
    ]
    return [
        *found,
        f"- On {metrics['eval_count']:,} held-out images at step {metrics['step']}, the last"
        f" evaluation: {', '.join(values)}.",
    ]


def _files(programs: Mapping[str, int | None]) -> list[str]:
    checked = "`sha256sum -c SHA256SUMS` checks the files."
    if not programs:
        return [f"`vit_jax.load(FOLDER)` reads the model. {checked}"]
    return [
        "`python serve.py 8000` serves the model; `runtime.py` reads images and runs it.",
        checked,
        *(
            f"`{file}` takes {batch or 'any number of'} images at once."
            for file, batch in programs.items()
        ),
    ]


def _equal(parity: Mapping[str, Any]) -> list[str]:
    if not parity["programs"]:
        return [f"The weights, read back from the file, are {parity['read_back']}."]
    images = f"{parity['images']['number']} images ({printable(parity['images']['source'])})"
    return [
        f"`{file}`: largest relative difference {_worst(of)} on {images}."
        for file, of in parity["programs"].items()
    ]


def _worst(of: Mapping[str, Any]) -> str:
    worst = max(value["relative"] for value in of.values() if isinstance(value, dict))
    return f"{worst:.2g}"
