"""The command `train` for a folder of small images, which are decoded once and kept in memory.

    python benchmarks/in_memory.py --config configs/cifar10.py:patch4 --workdir DIR \
        --config.data.path=IMAGES

The pixels are those that the command decodes for the interpolations "linear" and "area", and the
order of the images is the same. All images must have the same size.
"""

import argparse
import concurrent.futures
import dataclasses
import pathlib

import numpy as np

import vit_jax
from vit_jax.commands import configs
from vit_jax.data import decode, given, opening
from vit_jax.data.record import Source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--config", required=True, help="recipe whose images are in a folder")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    flags, overrides = parser.parse_known_args()
    config, _ = configs.read(flags.config, overrides)
    images, held_out = opening.open_train(config.data), opening.open_eval(config.data)
    data = dataclasses.replace(config.data, source=given.GivenData())
    config = dataclasses.replace(config, data=data)
    found = vit_jax.train(
        config,
        flags.workdir,
        source=_arrays(images),
        held_out=_arrays(held_out),
        class_names=images.class_names,
    )
    print(found)


def _arrays(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 (N, H, W, 3), and their classes, int32 (N,)."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        records = list(pool.map(source.read, range(len(source))))
        images = np.stack(list(pool.map(lambda record: decode.decode(record.data), records)))
    return images, np.array([record.label for record in records], np.int32)


if __name__ == "__main__":
    main()
