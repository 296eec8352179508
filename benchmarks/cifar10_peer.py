"""Runs the training of github.com/kentaroy47/vision-transformers-cifar10 as it is, on a GPU.

    python benchmarks/cifar10_peer.py --peer CHECKOUT --data DIR --out DIR [arguments of its script]

Its program, models, augmentation and optimizer are those of the checkout. What is replaced: the
download of CIFAR-10, by the JPEG files of DIR/train and DIR/test that `configs/cifar10.py` trains
on; wandb, by nothing; and the workers that read images stay between the epochs. Its results are in
DIR/log. Needs torch, torchvision, pandas and einops.
"""

import argparse
import functools
import os
import pathlib
import runpy
import sys
import unittest.mock
from typing import Any

import PIL.Image


class Folder:
    """What the script expects of torchvision's CIFAR10."""

    root = pathlib.Path()

    def __init__(self, *, train: bool, transform: Any, **_: Any) -> None:
        self.transform = transform
        folder = self.root / ("train" if train else "test")
        names = sorted(path.name for path in folder.iterdir())
        self.images, self.labels = [], []
        for label, name in enumerate(names):
            for path in sorted((folder / name).iterdir()):
                with PIL.Image.open(path) as image:
                    self.images.append(image.convert("RGB"))
                self.labels.append(label)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), self.labels[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for name in ("peer", "data", "out"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    flags, arguments = parser.parse_known_args()
    import torch  # type: ignore[import-not-found]
    import torchvision  # type: ignore[import-not-found]

    Folder.root = flags.data.resolve()
    torchvision.datasets.CIFAR10 = Folder
    # timm makes a subclass of the loader, so the class itself must stay.
    made = torch.utils.data.DataLoader.__init__
    torch.utils.data.DataLoader.__init__ = functools.partialmethod(made, persistent_workers=True)
    sys.modules["wandb"] = unittest.mock.MagicMock()
    peer = flags.peer.resolve()
    sys.path.insert(0, str(peer))
    sys.argv = ["train_cifar10.py", *arguments]
    flags.out.mkdir(parents=True, exist_ok=True)
    os.chdir(flags.out)
    runpy.run_path(str(peer / "train_cifar10.py"), run_name="__main__")


if __name__ == "__main__":
    main()
