"""Runs the model in this folder, without the package that exported it.

It needs the packages that `requirements` of card.json names.
Shapes: B images of the model's size (H, W) with C channels; (h, w) is the size of a photograph.
"""

import io
import json
import math
import pathlib

import numpy as np
import PIL.Image
import PIL.ImageOps

RESAMPLING = {
    "bilinear_antialias": PIL.Image.Resampling.BILINEAR,
    "bicubic_antialias": PIL.Image.Resampling.BICUBIC,
    "lanczos_antialias": PIL.Image.Resampling.LANCZOS,
    "nearest": PIL.Image.Resampling.NEAREST,
}


class Model:
    """`model(images)` computes, `model.read(data)` turns an image file into input."""

    def __init__(self, folder, image_size=None):
        """`image_size` (H, W) is one of preprocessing.json; unset: the first of them."""
        self.folder = pathlib.Path(folder)
        self.card = json.loads((self.folder / "card.json").read_text())
        self.preparing = json.loads((self.folder / "preprocessing.json").read_text())
        self.classes = json.loads((self.folder / "class_names.json").read_text())
        self.image_size = list(image_size or self.preparing["image_sizes"][0])
        batches = {
            of["batch"]: name
            for name, of in self.card["programs"].items()
            if of["image_size"] == self.image_size
        }
        if not batches:
            known = self.preparing["image_sizes"]
            raise ValueError(f"no program takes images of {self.image_size}: choose from {known}")
        self.batch = None if None in batches else min(batches)  # None: any number of images
        program = self.folder / batches[self.batch]
        self.compute = _onnx(program) if program.suffix == ".onnx" else self._stablehlo(program)

    def __call__(self, images):
        """Outputs by name, float32 (B, ...), for images uint8 (B, H, W, C)."""
        return {name: np.asarray(array) for name, array in self.compute(images).items()}

    def classify(self, image, top=5):
        """The most probable classes of one image uint8 (H, W, C): pairs (class, probability).

        Raises ValueError for a model without classes.
        """
        if not self.classes:
            raise ValueError("the model has no classes: model(images) gives its features")
        images = np.zeros((self.batch or 1, *image.shape), np.uint8)
        images[0] = image
        probabilities = self(images)["probabilities"][0]
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.classes[i], float(probabilities[i])) for i in best]

    def read(self, data):
        """The bytes of an image file as uint8 (H, W, C). Raises ValueError for a bad file."""
        try:
            image = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
            pixels = _pixels(image, self.preparing["channels"])
        except (OSError, SyntaxError) as error:
            raise ValueError(f"cannot decode the image: {error}") from error
        before = self.preparing["before_the_program"]
        return center_crop(pixels, image_size=self.image_size, **before)

    def _stablehlo(self, program):
        import jax
        from jax import export
        from safetensors import flax

        exported = export.deserialize(bytearray(program.read_bytes()))
        weights = flax.load_file(self.folder / "weights.safetensors")
        compute = jax.jit(exported.call)
        return lambda images: compute(weights, images)


def _onnx(program):
    import onnxruntime

    session = onnxruntime.InferenceSession(program)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


def _pixels(image, channels):
    """uint8 (h, w, channels). Transparent pixels are put on white."""
    if image.mode.startswith("I") or image.mode == "F":
        raise ValueError("give a file with 8 bits for each channel")
    if channels in (1, 3):
        if image.has_transparency_data:
            image = image.convert("RGBA")
            ground = PIL.Image.new("RGBA", image.size, "white")
            image = PIL.Image.alpha_composite(ground, image)
        pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
        return pixels[..., None] if channels == 1 else pixels
    if len(image.getbands()) != channels:
        raise ValueError(f"the image has {len(image.getbands())} channels, not {channels}")
    return np.array(image)


def center_crop(image, *, image_size, crop_pct, interpolation, fit):
    """Resizes to cover image_size / crop_pct, then cuts image_size from the centre."""
    cover = [math.floor(side / crop_pct + 1e-6) for side in image_size]
    scale = max(cover[0] / image.shape[0], cover[1] / image.shape[1])
    pillow = interpolation in RESAMPLING
    sides = [side * scale for side in image.shape[:2]]
    whole = [int(side + 1e-9) if pillow else round(side) for side in sides]
    size = cover if fit == "squash" else list(map(max, whole, image_size))
    margins = [full - side for full, side in zip(size, image_size, strict=True)]
    floor = not pillow or fit == "crop_floor"
    top, left = (margin // 2 if floor else round(margin / 2) for margin in margins)
    planes = [image] if image.shape[2] == 3 else list(np.moveaxis(image, 2, 0))
    planes = [_resized(plane, size, interpolation) for plane in planes]
    resized = planes[0] if image.shape[2] == 3 else np.stack(planes, axis=2)
    return resized[top : top + image_size[0], left : left + image_size[1]]


def _resized(plane, size, interpolation):
    """uint8 (h, w, 3) or (h, w), resized; "linear" and "area" are those of OpenCV."""
    height, width = size
    if plane.shape[:2] == (height, width):
        return plane
    if interpolation in RESAMPLING:
        image = PIL.Image.fromarray(plane)
        return np.asarray(image.resize((width, height), RESAMPLING[interpolation]))
    import cv2

    shrinks = height <= plane.shape[0] and width <= plane.shape[1]
    area = interpolation == "area" and shrinks
    return cv2.resize(plane, (width, height), interpolation=3 if area else 1)
