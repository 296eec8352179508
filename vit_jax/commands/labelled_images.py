"""The images of `evaluate --images`, with the classes of the model that is measured."""

import argparse
import dataclasses
import os
import pathlib
import re
from typing import Any

from vit_jax import plain_json
from vit_jax.checkpoints import class_file, class_lookup
from vit_jax.checkpoints.class_lookup import Lookup
from vit_jax.data import class_folders, folder_scan, image_list
from vit_jax.data.image_list import ImageListSource
from vit_jax.models.zoo import Model

_VALIDATION = re.compile(r"ILSVRC2012_val_([0-9]{8})(?![0-9])")  # the number of an image, from 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images to measure a model on."""

    source: ImageListSource
    classes: int  # number of the model's classes that have images
    unlabelled: int = 0  # images that are left out because they have no label


def lookup(model: Model, classes: pathlib.Path | None) -> Lookup:
    """The classes of a model, with the names of a file instead of its own if one is given."""
    count = model.options.num_classes
    if classes:
        return Lookup(class_file.read(classes, count=count), count=count)
    return class_lookup.of_names(tuple(model.class_names), count=count)


def open_images(options: argparse.Namespace, known: Lookup) -> LabelledImages:
    """The images that `--images`, `--labels` and `--real` name.

    Without a file of labels, the images are in folders that name classes. Raises ValueError if
    images are missing, or a name is not that of one class.
    """
    root = options.images
    if options.real:
        sets, unlabelled = _real(root, options.real)
        source = ImageListSource(root, sets, class_names=known.names)
        counted = {number for own in sets.values() for number in own}
        return LabelledImages(source=source, classes=len(counted), unlabelled=unlabelled)
    if options.labels:
        labels = image_list.read_labels(options.labels, find=_finding(known))
    else:
        labels = _by_folder(root, known)
    source = ImageListSource(root, labels, class_names=known.names)
    return LabelledImages(source=source, classes=len(set(labels.values())))


def _by_folder(root: pathlib.Path, known: Lookup) -> dict[str, int]:
    found = class_folders.read(root)
    try:
        numbers = known.find_all(tuple(found))
    except ValueError as error:
        raise ValueError(
            f"the folders in {root} do not name classes of the model: {error}; rename them, or name"
            " the classes with --classes FILE"
        ) from error
    return {
        image: number
        for images, number in zip(found.values(), numbers, strict=True)
        for image in images
    }


def _finding(known: Lookup) -> image_list.Find:
    def find(name: str) -> int:
        try:
            return known.find(name)
        except ValueError as error:
            raise ValueError(f"{error}, which is not a class of the model") from error

    return find


def _real(root: pathlib.Path, path: pathlib.Path) -> tuple[dict[str, list[int]], int]:
    """Labels of the validation images of ImageNet below `root`, and the number without labels.

    The file has a list of classes for each validation image, in the order of their numbers, as the
    labels of "Are we done with ImageNet?" (arXiv 2006.07159).
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder of images")
    of_number = _real_labels(path)
    labels: dict[str, list[int]] = {}
    images = folder_scan.images(root).images
    for image in images:
        found = _VALIDATION.search(os.path.basename(image))
        if not found or not 1 <= int(found[1]) <= len(of_number):
            raise ValueError(
                f"--real needs validation images of ImageNet, such as ILSVRC2012_val_00000001.JPEG,"
                f" with numbers up to {len(of_number)}: {os.path.relpath(image, root)!r} is not one"
            )
        if own := of_number[int(found[1]) - 1]:
            labels[os.path.relpath(image, root)] = own
    if not labels:
        raise ValueError(f"{path} has a label for none of the {len(images)} images in {root}")
    return labels, len(images) - len(labels)


def _real_labels(path: pathlib.Path) -> list[list[int]]:
    try:
        content: Any = plain_json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot read the labels {path}: {reason}") from error
    if not isinstance(content, list) or not all(_is_classes(own) for own in content):
        raise ValueError(f"{path} is not a list with a list of class numbers for each image")
    return content


def _is_classes(own: Any) -> bool:
    return isinstance(own, list) and all(type(number) is int for number in own)
