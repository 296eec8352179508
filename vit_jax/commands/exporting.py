"""What `export` does, once its arguments are read."""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from vit_jax.checkpoints import exported, run_folder
from vit_jax.checkpoints.load import load
from vit_jax.commands import labelled_images
from vit_jax.commands.subject import Subject
from vit_jax.data.record import UNKNOWN
from vit_jax.export import card, folder, onnx, own, parity, stablehlo
from vit_jax.export import program as program_lib
from vit_jax.export.parity import Images, Reference
from vit_jax.export.program import Program, Variant
from vit_jax.objectives import classification
from vit_jax.parallel import machine

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
    if options.dtype not in written_as.STORED:
        raise ValueError(f"--format {options.format} cannot have --dtype {options.dtype}")
    written_as.check()
    folder.check(options.target)
    subjects = [_subject(options, size) for size in options.image_size or (None,)]
    originals = [_program(subject) for subject in subjects]
    programs = program_lib.sharing([one.with_weights(options.dtype) for one in originals])
    variants = tuple(program_lib.variants(programs, options.batch, suffix=written_as.SUFFIX))
    names, report = _classes(subjects[0], options), _empty_report(written_as.PACKAGES)
    with folder.writing(options.target) as here:
        written_as.write(here, variants)
        for subject, original, program in zip(subjects, originals, programs, strict=True):
            images = _images(subject, number=options.measured)
            model = _reference(report, original, program, images)
            for variant in variants:
                if variant.program is program:
                    _judge(report, written_as.loaded(here, variant), model, images, variant)
        facts = _facts(options, subjects[0], programs[0], names)
        facts |= {
            "programs": {variant.name: variant.facts() for variant in variants},
            "requirements": card.requirements(programs[0], written_as.REQUIREMENTS),
        }
        prepared = card.preprocessing(programs)
        folder.write_json(here, "preprocessing.json", prepared)
        folder.write_json(here, "class_names.json", list(names))
        folder.add_standalone(here)
        return _end(here, options, report, facts, card.page(facts, prepared, report, names))


def _weights(options: argparse.Namespace) -> list[str]:
    """Writes a folder without a program, which `load` reads. Arguments of a program are refused."""
    if options.batch or options.dtype not in own.STORED or len(options.image_size) > 1:
        raise ValueError(
            "--format safetensors has no program, and weights in float32 or int8 for one image"
            " size: leave out --batch, --dtype bfloat16, and all but one --image-size"
        )
    folder.check(options.target)
    subject = _subject(options, options.image_size[0] if options.image_size else None)
    original, names = _program(subject), _classes(subject, options)
    variant = Variant(
        name=exported.WEIGHTS, program=original.with_weights(options.dtype), batch=None
    )
    report, images = _empty_report(()), _images(subject, number=options.measured)
    with folder.writing(options.target) as here:
        numbers = tuple(map(str, range(len(names))))
        own.write(here, subject.model, () if names == numbers else names, stored=options.dtype)
        model = _reference(report, original, variant.program, images)
        again = program_lib.of_model(load(here), activation=original.activation)
        _judge(report, parity.of_program(again), model, images, variant)
        facts = _facts(options, subject, variant.program, names)
        facts |= {"model": subject.model.options.described(), "input": None, "outputs": None}
        prepared = card.preprocessing([original], normalises=False)
        return _end(here, options, report, facts, card.page(facts, prepared, report, names))


def _empty_report(packages: Sequence[str]) -> dict[str, Any]:
    """parity.json before anything is measured; `packages` are those that run the programs."""
    facts = machine.facts()
    facts["versions"] |= {name: importlib.metadata.version(name) for name in packages}
    return {"machine": facts, "images": {}, "models": {}, "programs": {}}


def _reference(
    report: dict[str, Any], original: Program, program: Program, images: Images
) -> Reference:
    """What the programs for one image size are compared with; it is added to the report."""
    model = parity.reference(original, program, images)
    report["images"] = {"number": len(images.pixels), "source": images.source}
    report["models"][program.size] = model.report(images)
    return model


def _judge(
    report: dict[str, Any], run: parity.Run, model: Reference, images: Images, variant: Variant
) -> None:
    """Adds a program to the report. Raises RunFailed if it differs too much from the model."""
    found = parity.batched(run, images.pixels, variant.batch or parity.BATCH)
    stored = variant.program.stored
    of_program = parity.judged(found, model, images, stored=stored, name=variant.name)
    seconds = parity.speed(run, images.pixels, variant.batch)
    report["programs"][variant.name] = (
        variant.facts() | {"dtype": stored} | of_program | {"seconds_per_image": seconds}
    )


def _facts(
    options: argparse.Namespace, subject: Subject, program: Program, names: Sequence[str]
) -> dict[str, Any]:
    """The content of card.json, but for the programs."""
    return card.facts(
        program, _origin(subject), classes=names, licence=options.licence, not_for=options.not_for
    )


def _end(
    here: pathlib.Path,
    options: argparse.Namespace,
    report: dict[str, Any],
    facts: Mapping[str, Any],
    page: str,
) -> list[str]:
    """Writes the card and the report; returns the summary."""
    report["bytes"] = {
        name: size
        for name, size in folder.sizes(here).items()
        if not name.endswith((".json", ".py"))
    }
    folder.write_json(here, "card.json", facts)
    folder.write_json(here, "parity.json", report)
    (here / "README.md").write_text(page)
    return _summary(options.target, folder.sizes(here), report)


def _subject(options: argparse.Namespace, size: tuple[int, int] | None) -> Subject:
    return Subject(
        workdir=options.source,
        step=options.step,
        image_size=size,
        files=tuple(options.images),
        classes=options.classes,
    )


def _program(subject: Subject) -> Program:
    return program_lib.of_model(subject.model, activation=_activation(subject))


def _classes(subject: Subject, options: argparse.Namespace) -> tuple[str, ...]:
    if not subject.model.options.num_classes:
        return ()
    return tuple(labelled_images.lookup(subject.model, options.classes).names)


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
    return Images(pixels=pixels, source=why, random=True)


def _activation(subject: Subject) -> program_lib.Activation:
    """A model that learned each class on its own has a probability for each."""
    kind = classification.trained_with(subject.model)
    return "softmax" if kind == "softmax" else "sigmoid"


def _origin(subject: Subject) -> card.Origin:
    step = subject.model.step
    origin = card.Origin(
        source=subject.workdir,
        digest=card.digest(subject.workdir, step=step),
        step=step,
        chosen="" if step is None else str(subject.step),
    )
    if subject.config is None:
        return origin
    fields = json.dumps(run_folder.read_fields(subject.workdir), sort_keys=True)
    digest = hashlib.sha256(fields.encode()).hexdigest()
    run = card.of_run(subject.workdir, config_digest=digest, step=step)
    return dataclasses.replace(origin, run=run)


def _summary(target: str, written: Mapping[str, int], report: Mapping[str, Any]) -> list[str]:
    files = ", ".join(f"{name} {size:,}" for name, size in written.items())
    images = f"{report['images']['number']} images ({report['images']['source']})"
    lines = [f"{target}: {files} bytes"]
    for name, of in report["programs"].items():
        same = f", the same class for {of['same_class']:.1%} of them" if "same_class" in of else ""
        top1 = f", top-1 {of['top1']:.1%}" if "top1" in of else ""
        number, seconds = next(iter(of["seconds_per_image"].items()))
        lines.append(
            f"{name}: relative difference {parity.relative(of):.2g} on {images}{same}{top1};"
            f" {seconds['clock'] * 1000:.3g} ms per image with {number} at once"
        )
    return lines
