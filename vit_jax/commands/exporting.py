"""What `export` does, once its arguments are read."""

import argparse
import hashlib
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from vit_jax.checkpoints import run_folder
from vit_jax.commands import labelled_images
from vit_jax.commands.subject import Subject
from vit_jax.data.record import UNKNOWN
from vit_jax.export import card, folder, onnx, own, parity, stablehlo
from vit_jax.export import program as program_lib
from vit_jax.export.parity import Images
from vit_jax.export.program import Program

FORMATS: dict[str, ModuleType] = {"stablehlo": stablehlo, "onnx": onnx}
RANDOM = 32  # images, if there are no others


def export(options: argparse.Namespace) -> list[str]:
    """Writes the folder; returns a summary in lines.

    Raises ValueError for bad input, and RunFailed if the program does not equal the model; then
    nothing is written.
    """
    if options.format == "safetensors":
        return _weights(options)
    written_as = FORMATS[options.format]
    if options.dtype not in written_as.DTYPES:
        raise ValueError(f"--format {options.format} cannot have --dtype {options.dtype}")
    written_as.check()
    folder.check(options.target)
    subject = _subject(options)
    model = program_lib.of_model(subject.model, activation=_activation(subject))
    exported = model.with_weights(options.dtype, dtype=options.dtype)
    classes = _classes(subject, options)
    images = _images(subject, number=options.measured)
    with folder.writing(options.target) as here:
        programs = written_as.write(here, exported, options.batch)
        runs = {
            name: (written_as.loaded(here, name, exported), size) for name, size in programs.items()
        }
        compared = _compare(model, exported, images, runs=runs)
        facts = card.facts(
            exported,
            _origin(subject),
            programs=programs,
            classes=classes,
            licence=options.licence,
            not_for=options.not_for,
        )
        facts["requirements"] = list(written_as.REQUIREMENTS)
        prepared = card.preprocessing(exported)
        folder.write_json(here, "card.json", facts)
        folder.write_json(here, "preprocessing.json", prepared)
        folder.write_json(here, "class_names.json", list(classes))
        folder.write_json(here, "parity.json", compared)
        (here / "README.md").write_text(card.page(facts, prepared, compared, classes))
        folder.add_standalone(here)
        written = folder.sizes(here)
    return _summary(options.target, written, compared)


def _weights(options: argparse.Namespace) -> list[str]:
    """Writes a folder without a program, which `load` reads. Arguments of a program are refused."""
    if options.batch or options.images or options.dtype != "float32":
        raise ValueError(
            "--format safetensors has no program and float32 weights: leave out --batch, --images"
            " and --dtype"
        )
    folder.check(options.target)
    subject = _subject(options)
    model = program_lib.of_model(subject.model, activation=_activation(subject))
    names = _classes(subject, options)
    with folder.writing(options.target) as here:
        numbers = tuple(map(str, range(len(names))))
        own.write(here, subject.model, () if names == numbers else names)
        facts = card.facts(
            model,
            _origin(subject),
            programs={},
            classes=names,
            licence=options.licence,
            not_for=options.not_for,
        )
        facts |= {"model": subject.model.options.described(), "input": None, "outputs": None}
        folder.write_json(here, "card.json", facts)
        report = {"read_back": "equal in every bit", "programs": {}}
        folder.write_json(here, "parity.json", report)
        prepared = card.preprocessing(model, normalises=False)
        (here / "README.md").write_text(card.page(facts, prepared, report, names))
        written = folder.sizes(here)
    return _summary(options.target, written, report)


def _subject(options: argparse.Namespace) -> Subject:
    return Subject(
        workdir=options.source,
        step=options.step,
        image_size=options.image_size,
        files=tuple(options.images),
    )


def _classes(subject: Subject, options: argparse.Namespace) -> tuple[str, ...]:
    if not subject.model.options.num_classes:
        return ()
    return tuple(labelled_images.lookup(subject.model, options.classes).names)


def _compare(
    model: Program,
    exported: Program,
    images: Images,
    *,
    runs: Mapping[str, tuple[parity.Run, int | None]],
) -> dict[str, Any]:
    """The content of parity.json. Raises RunFailed if a program differs from the model.

    A program in bfloat16 may differ from the model in float32 by twice as much as the model in
    bfloat16 does: compilers round bfloat16 at different places.
    """
    original = parity.of_program(model, images)
    bound = parity.BOUND
    report: dict[str, Any] = {
        "images": {"number": len(images.pixels), "source": images.source},
        "model": {"dtype": "float32"} | _top1(original, images),
    }
    if exported.options.dtype != "float32":
        rounded = parity.of_program(exported, images)
        report["model_rounded"] = parity.compared(rounded, original, images.labels)
        bound = max(2 * parity.relative(report["model_rounded"]), bound)
    report["bound"] = bound
    report["programs"] = {}
    for name, (run, batch) in runs.items():
        found = parity.batched(run, images.pixels, batch or parity.BATCH)
        of_program = parity.compared(found, original, images.labels)
        parity.check(of_program, bound=bound, name=name)
        report["programs"][name] = of_program
    return report


def _top1(outputs: Mapping[str, Any], images: Images) -> dict[str, float]:
    if not images.labels or "logits" not in outputs:
        return {}
    return {"top1": float((outputs["logits"].argmax(-1) == np.asarray(images.labels)).mean())}


def _images(subject: Subject, *, number: int) -> Images:
    """Those that the user named, or held-out ones of the run, or random ones."""
    if not subject.files and subject.config is None:
        return _random(subject, "random pixels: the model has no images of its own")
    try:
        records = subject.records(number)
        pixels = subject.pixels(records)
    except ValueError as error:
        if subject.files:
            raise
        return _random(subject, f"random pixels: the images of the run are not there ({error})")
    labels = [record.label for record in records]
    known = all(isinstance(label, int | np.integer) and label != UNKNOWN for label in labels)
    source = ", ".join(subject.files) or f"held-out images of {subject.workdir}"
    return Images(
        pixels=pixels,
        labels=tuple(map(int, labels)) if known and subject.model.options.num_classes else (),
        source=source,
    )


def _random(subject: Subject, why: str) -> Images:
    options = subject.model.options
    shape = (RANDOM, *options.image_size, options.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Images(pixels=pixels, source=why)


def _activation(subject: Subject) -> program_lib.Activation:
    """A run that learned each class on its own has a probability for each."""
    kind = getattr(subject.config and subject.config.objective, "cross_entropy", "softmax")
    return "softmax" if kind == "softmax" else "sigmoid"


def _origin(subject: Subject) -> card.Origin:
    if subject.config is None:
        return card.Origin(source=subject.workdir)
    fields = json.dumps(run_folder.read_fields(subject.workdir), sort_keys=True)
    digest = hashlib.sha256(fields.encode()).hexdigest()
    return card.Origin(
        source=subject.workdir,
        step=str(subject.step),
        run=card.of_run(subject.workdir, digest=digest),
    )


def _summary(target: str, written: Mapping[str, int], compared: Mapping[str, Any]) -> list[str]:
    files = ", ".join(f"{name} {size:,}" for name, size in written.items())
    lines = [f"{target}: {files} bytes"]
    for name, report in compared["programs"].items():
        images = f"{compared['images']['number']} images ({compared['images']['source']})"
        agree = report.get("top1_agreement")
        same = "" if agree is None else f", the same class for {agree:.1%} of them"
        top1 = f", top-1 {report['top1']:.1%}" if "top1" in report else ""
        lines.append(
            f"{name}: relative difference {parity.relative(report):.2g} on {images}{same}{top1}"
        )
    return lines
