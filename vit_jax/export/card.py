"""The card of an exported model: facts as JSON, and a page for people who consider using it."""

import dataclasses
import hashlib
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from typing import Any

import vit_jax
from vit_jax.checkpoints import exported, files, integrity, run_folder
from vit_jax.data import subset
from vit_jax.export.program import Program
from vit_jax.text import few, printable
from vit_jax.workdir import lines, place

LIBRARIES = ("jax", "jaxlib", "flax", "numpy")
NOT_FOR = (
    "Decisions about people, or decisions that can harm someone, without a study of its errors on"
    " images of that use.",
    "Images unlike those that it was trained on, or classes that it does not have: its accuracy is"
    " known only for the data below, and it always answers with one of its classes.",
)
_BY_OPENCV = ("linear", "area")  # interpolations of runtime.py that are not those of Pillow
_NOT_FOR_FEATURES = (
    "Classification as it is: it has no classes. Train a head on its features first.",
    NOT_FOR[0],
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known about where a model is from."""

    source: str  # the run or the file
    digest: Mapping[str, str]  # see `digest`
    step: int | None = None  # of the checkpoint in a run
    chosen: str = ""  # how the user named this step: latest, best, or a number
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # see `of_run`


def digest(source: str, *, step: int | None) -> dict[str, str]:
    """The name and the SHA-256 of the file that an exported model was read from.

    Of a run, it is the file with the checksums of the checkpoint at `step`. {} if there is none.
    """
    if step is not None:
        name = f"checkpoints/{step}/{integrity.NAME}"
        path = place.folder(source) / name
        content = path.read_bytes() if path.exists() else b""
        return {"file": name, "sha256": hashlib.sha256(content).hexdigest()} if content else {}
    own = exported.is_exported(source)
    with place.reading(source) as copy:
        file = copy / exported.WEIGHTS if own else files.locate(copy)
        with file.open("rb") as opened:
            content_digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"file": file.name, "sha256": content_digest}


def of_run(
    workdir: str | os.PathLike[str], *, config_digest: str, step: int | None
) -> dict[str, Any]:
    """Facts of a run: data, objective, its start, and the held-out metrics of a step.

    If the step was not evaluated, they are those of the last evaluation before it. If the run
    keeps an average of the parameters, which is what is exported, they are the average's. Raises
    ValueError if a file of the run is damaged.
    """
    fields, data = run_folder.read_fields(workdir), run_folder.read_json(workdir, "data.json") or {}
    splits = data.get("splits", {}) if isinstance(data, Mapping) else {}
    own = fields.get("data", {})
    measured = [
        line
        for line in lines.read(workdir).good
        if "eval_count" in line and (step is None or line["step"] <= step)
    ]
    last = max(measured, key=lambda line: line["step"], default={})
    average = {
        f"eval_{name.removeprefix('eval_ema_')}": value
        for name, value in last.items()
        if name.startswith("eval_ema_")
    }
    kept = {name: value for name, value in last.items() if not name.startswith("eval_ema_")}
    return {
        "config_digest": config_digest,
        "objective": fields.get("objective", {}).get("name", ""),
        "started_from": fields.get("init_from", ""),
        "data": {
            split: {
                "name": " ".join(filter(None, (own.get("source"), of.get("name")))),
                "images": subset.number(
                    of.get("examples"),
                    classes=len(of.get("class_names", ())),
                    per_class=own.get("per_class", 0) if split == "train" else 0,
                ),
                "digest": of.get("digest"),
            }
            for split, of in splits.items()
        },
        "image_size": fields.get("image_size"),  # of these images
        "average": bool(average),  # whether the metrics are those of the averaged parameters
        "metrics": kept | average,
    }


def facts(
    program: Program,
    origin: Origin,
    *,
    classes: Sequence[str],
    licence: str,
    not_for: Sequence[str],
) -> dict[str, Any]:
    """The content of card.json, without the programs; `program` is that of the first size."""
    options = program.options
    standard = NOT_FOR if options.num_classes else _NOT_FOR_FEATURES
    size = [*program.preprocessing.image_size, options.channels]
    return {
        "format": 1,
        "model": options.described(),
        "parameters": program.parameters,
        "source": {
            "path": origin.source,
            "digest": origin.digest,
            "step": origin.step,
            "chosen": origin.chosen,
            **origin.run,
        },
        "programs": {},
        "input": {"dtype": "uint8", "shape": ["batch", *size]},
        "outputs": (
            {"logits": len(classes), "probabilities": len(classes)}
            if options.num_classes
            else {"features": options.feature_size}
        ),
        "activation": program.activation if options.num_classes else None,
        "dtype": options.dtype,
        "kernels": program.stored,
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
            *_files(facts),
            "",
            "## Equal to the original",
            "",
            *_equal(parity),
            "",
            "## Origin",
            "",
            *_origin(source),
            f"Licence: {printable(facts['licence'])}.",
            *([f"It started from {printable(source['started_from'])}."]
              if source.get("started_from") else []),
            f"Versions: {', '.join(f'{k} {v}' for k, v in facts['versions'].items())}.",
            "",
        )
    )  # fmt: skip


def requirements(program: Program, of_format: Sequence[str]) -> list[str]:
    """The packages that runtime.py needs, as `pip install` names them."""
    opencv = program.preprocessing.interpolation in _BY_OPENCV
    return ["numpy", "pillow", *(["opencv-python-headless"] if opencv else []), *of_format]


def preprocessing(programs: Sequence[Program], *, normalises: bool = True) -> dict[str, Any]:
    """The content of preprocessing.json: what comes before the programs, and what is in them.

    The programs of one model differ in their image size. `normalises`: whether there are programs,
    which normalise pixels themselves.
    """
    expects, channels = programs[0].preprocessing, programs[0].options.channels
    before = {
        "crop_pct": expects.crop_pct,
        "interpolation": expects.interpolation,
        "fit": expects.fit,
    }
    sizes = [program.preprocessing.image_size for program in programs]
    shown = " or ".join(f"{height} x {width}" for height, width in sizes)
    normal = "(pixel / 255 - mean) / std"
    given = f"Give the pixels as uint8 to the program, which computes {normal}."
    colours = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    return {
        "channels": channels,
        "image_sizes": [list(size) for size in sizes],
        "before_the_program": before,
        "in_the_program": {"mean": list(expects.mean), "std": list(expects.std)},
        "steps": [
            f"Decode the file to {colours} with 8 bits, turned as its EXIF orientation says.",
            f"Resize with {expects.interpolation} to cover {shown} divided by"
            f" {expects.crop_pct}"
            + (", whatever the aspect ratio is." if expects.fit == "squash" else "."),
            f"Cut {shown} pixels (height x width) from the centre.",
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
        return [*found, "- It was not evaluated while it was trained, up to this step."]
    values = [
        f"{name.removeprefix('eval_')} {value:.4g}"
        for name, value in lines.numbers(metrics).items()
        if name.startswith("eval_") and name != "eval_count"
    ]
    pixels = " x ".join(map(str, source.get("image_size") or ()))
    return [
        *found,
        f"- On {metrics['eval_count']:,} held-out images"
        + (f" of {pixels} pixels" if pixels else "")
        + f" at step {metrics['step']}"
        + (", with averaged parameters" if source.get("average") else "")
        + ("" if metrics["step"] == source["step"] else ", the last evaluation before it")
        + f": {', '.join(values)}.",
    ]


def _origin(source: Mapping[str, Any]) -> list[str]:
    step = "" if source["step"] is None else f", step {source['step']} ({source['chosen']})"
    lines = [f"From {printable(source['path'])}{step}."]
    if of := source["digest"]:
        lines.append(f"SHA-256 of its {printable(of['file'])}: {of['sha256']}.")
    return lines


def _files(facts: Mapping[str, Any]) -> list[str]:
    checked = "`sha256sum -c SHA256SUMS` checks the files."
    if not facts["programs"]:
        return [f"`vit_jax.load(FOLDER)` reads the model. {checked}"]
    return [
        "`python serve.py 8000` serves the model; `runtime.py` reads images and runs it. They need"
        f" `pip install {' '.join(facts['requirements'])}`.",
        checked,
        "",
        *(
            f"- `{file}` takes {of['batch'] or 'any number of'} images of"
            f" {' x '.join(map(str, of['image_size']))} pixels at once."
            for file, of in facts["programs"].items()
        ),
    ]


def _equal(parity: Mapping[str, Any]) -> list[str]:
    images = f"{parity['images']['number']} images ({printable(parity['images']['source'])})"
    lines = [_difference(file, of, parity["models"]) for file, of in parity["programs"].items()]
    return [f"On {images}:", "", *lines]


def _difference(file: str, of: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """How equal one program is to its model."""
    worst = max(one["relative"] for one in of["outputs"].values())
    line = f"- `{file}`, kernels in {of['dtype']}: largest relative difference {worst:.2g}"
    if "same_class" in of:
        line += f", the same class for {of['same_class']:.1%}"
    if "top1" in of:
        model = models["x".join(map(str, of["image_size"]))]
        line += f", top-1 {of['top1']:.1%} (the model: {model['top1']:.1%})"
    return f"{line}."
