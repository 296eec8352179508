"""Small datasets of TensorFlow Datasets for tests, prepared as array_record."""

import io
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of its imports
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered


def prepare(
    root: pathlib.Path,
    name: str,
    label: Any,
    splits: Mapping[str, Sequence[Any]],
    *,
    image: Any = None,
    classes: Sequence[str] = (),
) -> None:
    """A dataset `name` in `root` whose splits have these labels; image i has the grey value i.

    `classes` replaces the names of the feature `label` once it is prepared.
    """
    feature = image or tfds.features.Image(shape=(None, None, 3))

    class Examples:
        def _info(self) -> Any:
            features = tfds.features.FeaturesDict({"image": feature, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _: object) -> dict[str, Iterator[Any]]:
            return {split: self._generate_examples(labels) for split, labels in splits.items()}

        def _generate_examples(self, labels: Sequence[Any]) -> Iterator[Any]:
            for value, of in enumerate(labels):
                pixels = np.full((8, 9, 3), value, np.uint8)
                file = io.BytesIO()
                PIL.Image.fromarray(pixels).save(file, "PNG")
                encoded = io.BytesIO(file.getvalue())
                yield value, {"image": pixels if image else encoded, "label": of}

    title = "".join(word.title() for word in name.split("_"))
    with registered.skip_registration():  # so that TFDS finds it only by its files
        bases = (Examples, tfds.core.GeneratorBasedBuilder)
        builder = type(title, bases, {"VERSION": tfds.core.Version("1.0.0")})(
            data_dir=str(root), file_format="array_record"
        )
        builder.download_and_prepare()
    if classes:
        (root / name / "1.0.0" / "label.labels.txt").write_text("\n".join(classes) + "\n")
