"""Rebuilds the embedded dataset from Debian's package `dataset-fashion-mnist`.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb debian
    python scripts/build_embedded_dataset.py debian/usr/share/datasets/fashion-mnist

It takes the first 2,000 training and 500 test images of each class, in their original order. The
archive that ships with the package holds exactly these arrays.
"""

import argparse
import gzip
import pathlib

import numpy as np

OUTPUT = pathlib.Path("vit_jax/data/embedded/fashion_mnist.npz")
FILES = {"train": ("train", 2000), "test": ("t10k", 500)}  # split -> prefix, images per class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="folder of the four idx files")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT)
    options = parser.parse_args()
    arrays = {}
    for split, (prefix, per_class) in FILES.items():
        images = read_idx(options.folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(options.folder / f"{prefix}-labels-idx1-ubyte.gz")
        kept = first_of_each_class(labels, per_class)
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images[kept], labels[kept]
    np.savez_compressed(options.output, **arrays)
    print(f"{options.output}: {', '.join(f'{k} {v.shape}' for k, v in arrays.items())}")


def read_idx(path: pathlib.Path) -> np.ndarray:
    """A gzipped idx file of bytes: 2 zeros, type 8, number of axes, their sizes, the values."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    axes = data[3]
    shape = np.frombuffer(data, ">u4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Ascending indices of the first `count` examples of every class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in np.unique(labels)]))


if __name__ == "__main__":
    main()
