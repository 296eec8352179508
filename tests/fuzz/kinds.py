"""Good files of every kind that may come from outside, how they are damaged, how they are read."""

import io
import json
import pathlib
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image

from tests.fuzz import mutations

Damage = Callable[[bytes, random.Random], bytes]


class Kind:
    """Good files in a folder; `write` damages one of them, `read` reads it as a user would."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.good: list[tuple[pathlib.Path, bytes]] = []
        self.make()

    def make(self) -> None:
        """Adds the good files."""
        raise NotImplementedError

    def add(self, path: str, data: bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        self.good.append((place, data))

    def check(self) -> None:
        """Reads the good files: if that failed, no test below would mean anything."""
        for path, _ in self.good:
            self.read(path)

    def write(self, rng: random.Random) -> pathlib.Path:
        """Writes a damaged copy of one good file, and returns its path."""
        path, data = rng.choice(self.good)
        damaged = path.with_name(f"damaged{path.suffix}")
        damaged.write_bytes(self.damage(data, rng))
        return damaged

    def damage(self, data: bytes, rng: random.Random) -> bytes:
        raise NotImplementedError

    def read(self, path: pathlib.Path) -> None:
        raise NotImplementedError


# -- Checkpoints


def tiny(**changes: Any) -> Any:
    from tests.models import tiny

    sizes = {"image_size": (16, 16), "width": 12, "depth": 1, "mlp_dim": 16, "num_heads": 2}
    return tiny.model(**(sizes | {"num_classes": 3} | changes))


def saved(path: pathlib.Path, *, layout: str, **changes: Any) -> bytes:
    import vit_jax

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vit_jax.save(tiny(**changes), path, layout=layout)
    return path.read_bytes() if path.is_file() else b""


def files_of(path: pathlib.Path) -> dict[str, np.ndarray]:
    from vit_jax.checkpoints import files

    return files.read_arrays(path)


SMALL = {"blocks.0.x": np.arange(4, dtype=np.float32), "y": np.zeros((2, 3), np.float16)}


class Checkpoint(Kind):
    models: list[dict[str, np.ndarray]]

    def other_arrays(self, rng: random.Random) -> bytes:
        """A good file of this kind, whose arrays are not a model."""
        model = rng.choice(self.models)
        return self.container(mutations.odd_arrays(model, rng))

    def container(self, arrays: dict[str, np.ndarray]) -> bytes:
        raise NotImplementedError

    def read(self, path: pathlib.Path) -> None:
        from vit_jax.checkpoints import files, load

        if path.stem.startswith("small"):
            files.read(path)
        else:
            load.read(path, num_heads=2, grid=(2, 2))


class Npz(Checkpoint):
    def make(self) -> None:
        self.models = []
        for layout in ("vit_jax", "big_vision"):
            self.add(f"good_{layout}.npz", saved(self.folder / "made.npz", layout=layout))
            self.models.append(files_of(self.folder / "made.npz"))
        for name, write in (("small", np.savez), ("small_packed", np.savez_compressed)):
            file = io.BytesIO()
            write(file, **SMALL)
            self.add(f"{name}.npz", file.getvalue())

    def damage(self, data: bytes, rng: random.Random) -> bytes:
        how = rng.random()
        if how < 0.35:
            return self.other_arrays(rng)
        if how < 0.55:
            return mutations.damaged(data, rng)
        return mutations.rezipped(data, rng, {".npy": mutations.odd_npy})

    def container(self, arrays: dict[str, np.ndarray]) -> bytes:
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()


class Pth(Checkpoint):
    def make(self) -> None:
        from vit_jax.checkpoints import torch_file

        self.add("good.pth", saved(self.folder / "made.pth", layout="timm"))
        self.models = [files_of(self.folder / "made.pth")]
        for name, key in (("small", ""), ("small_model", "model")):
            torch_file.write(self.folder / "made.pth", SMALL, key=key)
            self.add(f"{name}.pth", (self.folder / "made.pth").read_bytes())

    def damage(self, data: bytes, rng: random.Random) -> bytes:
        how = rng.random()
        if how < 0.25:
            return self.other_arrays(rng)
        if how < 0.45:
            return mutations.damaged(data, rng)
        return mutations.rezipped(data, rng, {"data.pkl": mutations.odd_pickle})

    def container(self, arrays: dict[str, np.ndarray]) -> bytes:
        from vit_jax.checkpoints import torch_file

        torch_file.write(self.folder / "made.pth", arrays)
        return (self.folder / "made.pth").read_bytes()


class Safetensors(Checkpoint):
    def make(self) -> None:
        import safetensors.numpy

        self.add("good.safetensors", saved(self.folder / "made.safetensors", layout="timm"))
        self.models = [files_of(self.folder / "made.safetensors")]
        self.add("small.safetensors", safetensors.numpy.save(SMALL))

    def damage(self, data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            return self.other_arrays(rng)
        return mutations.odd_safetensors(data, rng)

    def container(self, arrays: dict[str, np.ndarray]) -> bytes:
        import safetensors.numpy

        return safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()})


class Msgpack(Checkpoint):
    """Files of transformers' Flax classes, with a config.json beside them."""

    def make(self) -> None:
        from tests.checkpoints.test_flax import flax_names
        from vit_jax.checkpoints import files

        saved(self.folder / "made", layout="hf")
        arrays = files.read_arrays(self.folder / "made" / "model.safetensors")
        self.models = [flax_names(arrays)]
        config = (self.folder / "made" / "config.json").read_bytes()
        (self.folder / "config.json").write_bytes(config)
        self.add("good.msgpack", self.container(self.models[0]))

    def damage(self, data: bytes, rng: random.Random) -> bytes:
        return self.other_arrays(rng) if rng.random() < 0.3 else mutations.damaged(data, rng)

    def container(self, arrays: dict[str, np.ndarray]) -> bytes:
        from flax import serialization

        tree: dict[str, Any] = {}
        for name, array in arrays.items():
            *outer, leaf = name.split(".")
            place = tree
            for part in outer:
                inner = place.setdefault(part, {})
                place = inner if isinstance(inner, dict) else place
            place[leaf] = array
        return serialization.msgpack_serialize(tree)


# -- JSON

TIMM = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 3,
    "num_features": 12,
    "global_pool": "token",
    "label_names": ["a", "b", "c"],
    "model_args": {"img_size": 16, "num_heads": 2, "act_layer": "gelu"},
    "pretrained_cfg": {
        "tag": "x",
        "input_size": [3, 16, 16],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 3,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}


class Json(Kind):
    """A config.json of releases and of runs, the index of shards, a map of labels."""

    def make(self) -> None:
        self._run()
        weights = saved(self.folder / "timm/model.safetensors", layout="timm")
        assert weights
        self.add("timm/config.json", json.dumps(TIMM).encode())
        for name, size in (("hf", (16, 16)), ("hf_wide", (8, 24))):
            saved(self.folder / name, layout="hf", image_size=size)
            for file in ("config.json", "preprocessor_config.json"):
                self.add(f"{name}/{file}", (self.folder / name / file).read_bytes())
        names = {"head.weight": "model.safetensors", "head.bias": "model.safetensors"}
        index = {"metadata": {"total_size": 9}, "weight_map": names}
        self.add("timm/x.index.json", json.dumps(index).encode())
        self.add("labels.json", json.dumps({"a b.png": 1, "c.png": 0}).encode())

    def _run(self) -> None:
        from vit_jax.checkpoints import run_folder
        from vit_jax.config import default_config, resolve
        from vit_jax.models.preprocessing import Preprocessing
        from vit_jax.training import run_config

        options = tiny().options
        expects = Preprocessing(image_size=options.image_size)
        card = run_folder.Card(options=options, class_names=("a", "b", "c"), preprocessing=expects)
        config = default_config()
        config.model.name = "Ti/16"
        run_config.write_run(self.folder / "run", resolve(config), card)
        for name in ("model.json", "config.json"):
            self.add(f"run/{name}", (self.folder / "run" / name).read_bytes())
        fields = json.loads((self.folder / "run/config.json").read_bytes())
        for number in (0, 1):  # earlier formats
            older = json.dumps(fields | {"format": number}).encode()
            self.add(f"run_{number}/config.json", older)

    def write(self, rng: random.Random) -> pathlib.Path:
        for path, data in self.good:
            if path.read_bytes() != data:
                path.write_bytes(data)
        path, data = rng.choice(self.good)
        path.write_bytes(mutations.odd_json(data.decode(), rng))
        return path

    def read(self, path: pathlib.Path) -> None:
        from vit_jax.checkpoints import files, load, run_folder
        from vit_jax.data.image_list import read_labels
        from vit_jax.training import run_config

        if path.parent.name.startswith("run"):
            (run_folder.read_card if path.name == "model.json" else run_config.read_config)(
                path.parent
            )
        elif path.name.endswith(".index.json"):
            files.read(path)
        elif path.name == "labels.json":
            read_labels(path)
        else:
            load.read(path.parent)


# -- Images


class Images(Kind):
    format = ""
    suffix = ""
    variants: tuple[tuple[str, dict[str, Any]], ...] = (("RGB", {}),)

    def make(self) -> None:
        self.numbers = np.random.default_rng(1).random(40)
        pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
        pixels[:15] //= 64
        for number, (mode, options) in enumerate(self.variants):
            file = io.BytesIO()
            image = PIL.Image.fromarray(pixels).convert(mode)
            image.save(file, self.format, **options)
            self.add(f"{number}{self.suffix}", file.getvalue())

    def damage(self, data: bytes, rng: random.Random) -> bytes:
        return mutations.damaged(data, rng)

    def read(self, path: pathlib.Path) -> None:
        from vit_jax.data import crops, preprocess

        size = (16, 16)
        for train, evaluate in (("linear", "area"), ("bicubic_antialias", "bicubic_antialias")):
            evaluated = preprocess.EvalTransform(size=size, interpolation=evaluate)
            trained = preprocess.TrainTransform(
                size=size, crop=crops.Inception(), interpolation=train
            )
            image = evaluated.decode(path.read_bytes())
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert evaluated(image).shape == trained(image, self.numbers).shape == (*size, 3)


class Jpeg(Images):
    format, suffix = "JPEG", ".jpg"
    exif = PIL.Image.Exif()
    variants = (
        *(("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("CMYK", {})),
        *(("RGB", {"exif": exif.tobytes(), "comment": b"x"}), ("RGB", {"subsampling": 0})),
        ("RGB", {"restart_marker_blocks": 2}),
    )

    def damage(self, data: bytes, rng: random.Random) -> bytes:
        return mutations.odd_jpeg(data, rng)


class Png(Images):
    format, suffix = "PNG", ".png"
    variants = (
        *(("RGB", {}), ("P", {}), ("RGBA", {}), ("1", {}), ("L", {}), ("LA", {}), ("I;16", {})),
        ("P", {"transparency": 0, "bits": 4}),
        ("RGB", {"save_all": True, "append_images": [PIL.Image.new("RGB", (40, 30))]}),
    )

    def damage(self, data: bytes, rng: random.Random) -> bytes:
        return mutations.odd_png(data, rng)


class Webp(Images):
    format, suffix = "WEBP", ".webp"
    variants = (
        *(("RGB", {}), ("RGB", {"lossless": True}), ("RGBA", {"lossless": True})),
        ("RGB", {"save_all": True, "append_images": [PIL.Image.new("RGB", (40, 30))]}),
        ("RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
    )

    def damage(self, data: bytes, rng: random.Random) -> bytes:
        return mutations.odd_webp(data, rng)


class OtherImages(Kind):
    """The less common formats that an image folder reads."""

    def make(self) -> None:
        self.numbers = np.random.default_rng(1).random(40)
        pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
        for suffix, mode, options in (
            (".bmp", "RGB", {}),
            (".bmp", "P", {}),
            (".ppm", "RGB", {}),
            (".pgm", "L", {}),
            (".tif", "RGB", {}),
            (".tif", "RGB", {"compression": "tiff_lzw"}),
            (".tif", "1", {"compression": "group4"}),
            (".tif", "RGB", {"compression": "jpeg"}),
            (".gif", "P", {}),
        ):
            file = io.BytesIO()
            PIL.Image.fromarray(pixels).convert(mode).save(
                file, PIL.Image.registered_extensions()[suffix], **options
            )
            self.add(f"{len(self.good)}{suffix}", file.getvalue())

    damage = Images.damage
    read = Images.read


KINDS: dict[str, Callable[[pathlib.Path], Kind]] = {
    "npz": Npz,
    "pth": Pth,
    "safetensors": Safetensors,
    "msgpack": Msgpack,
    "json": Json,
    "jpeg": Jpeg,
    "png": Png,
    "webp": Webp,
    "other_images": OtherImages,
}
