"""Runs the model in this folder, without the package that exported it.

It needs the packages that `requirements` of card.json names.
Shapes: B images of the model's size (H, W) with C channels; (h, w) is the size of a photograph.
"""

import functools
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
MAX_PIXELS = 89_478_485  # Pillow's limit: a small file can claim to be huge
# Deflate expands one byte to at most 8,256 pixels of one bit. A LARGE image that claims more per
# byte is made to fill the memory. If a resized image is LARGE, only the part that is kept is made.
MAX_PIXELS_PER_BYTE, LARGE = 10_000, 2**24


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
        found = self(images)
        probabilities = found["probabilities"][0]
        # By the logits: several sigmoids may be rounded to 1.
        best = np.argsort(-found["logits"][0], kind="stable")[:top]
        return [(self.classes[i], float(probabilities[i])) for i in best]

    def read(self, data):
        """The bytes of an image file as uint8 (H, W, C). Raises ValueError for a bad file."""
        try:
            with PIL.Image.open(io.BytesIO(data), formats=_formats()) as opened:
                _check_pixels(opened.height * opened.width, num_bytes=len(data))
                image = PIL.ImageOps.exif_transpose(opened)
                pixels = _pixels(image, self.preparing["channels"])
        except PIL.UnidentifiedImageError as error:  # its message has the address of an object
            raise ValueError("cannot decode the image: its format is unknown") from error
        except Exception as error:  # damaged bytes make decoders raise far more than they document
            reason = str(error) or type(error).__name__
            raise ValueError(f"cannot decode the image: {reason}") from error
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


@functools.cache
def _formats():
    """All formats but EPS and WMF: Pillow lets another program execute such files."""
    PIL.Image.init()
    return tuple(kind for kind in PIL.Image.ID if kind not in ("EPS", "WMF"))


def _check_pixels(pixels, *, num_bytes):
    """Raises ValueError if the file claims more pixels than are allowed, or than it can hold."""
    if pixels > min(MAX_PIXELS, max(LARGE, MAX_PIXELS_PER_BYTE * num_bytes)):
        raise ValueError(f"{pixels:,} pixels in a file of {num_bytes:,} bytes are too many")


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
    floors = pillow and cover[0] == cover[1]
    whole = [int(side + 1e-9) if floors else round(side) for side in sides]
    size = cover if fit == "squash" else list(map(max, whole, image_size))
    margins = [full - side for full, side in zip(size, image_size, strict=True)]
    floor = not pillow or fit == "crop_floor"
    top, left = (margin // 2 if floor else round(margin / 2) for margin in margins)
    part = (top, left, *image_size)
    # A line of pixels, resized as a whole to the height of the model, would take gigabytes.
    large = size[0] * size[1] > max(LARGE, 8 * image_size[0] * image_size[1])
    cut = _resized_part if large else _cut_resized
    planes = [image] if image.shape[2] == 3 else list(np.moveaxis(image, 2, 0))
    planes = [cut(plane, size, part, interpolation) for plane in planes]
    return planes[0] if image.shape[2] == 3 else np.stack(planes, axis=2)


def _cut_resized(plane, size, part, interpolation):
    """The part (top, left, H, W) of uint8 (h, w, 3) or (h, w) after it is resized to `size`.

    "linear" and "area" are those of OpenCV.
    """
    top, left, height, width = part
    if plane.shape[:2] == tuple(size):
        resized = plane
    elif interpolation in RESAMPLING:
        resized = _by_pillow(plane, size, interpolation)
    else:
        import cv2

        method = 3 if interpolation == "area" and _shrinks(plane, size) else 1
        resized = cv2.resize(np.ascontiguousarray(plane), size[::-1], interpolation=method)
    return resized[top : top + height, left : left + width]


def _resized_part(plane, size, part, interpolation):
    """The same as `_cut_resized` up to rounding, but only the part is computed."""
    top, left, height, width = part
    if interpolation in RESAMPLING:
        y, x = plane.shape[0] / size[0], plane.shape[1] / size[1]  # pixels per resized pixel
        right = min((left + width) * x, plane.shape[1])
        bottom = min((top + height) * y, plane.shape[0])
        box = (left * x, top * y, right, bottom)
        return _by_pillow(plane, (height, width), interpolation, box)
    area = interpolation == "area" and _shrinks(plane, size)
    rows, of_rows = _taps(plane.shape[0], size[0], range(top, top + height), area)
    columns, of_columns = _taps(plane.shape[1], size[1], range(left, left + width), area)
    region = plane[rows, columns].astype(np.float32)
    mean = np.einsum("yh,hw...,xw->yx...", of_rows, region, of_columns, optimize=True)
    return np.rint(mean).clip(0, 255).astype(np.uint8)


def _shrinks(plane, size):
    return size[0] <= plane.shape[0] and size[1] <= plane.shape[1]


def _by_pillow(plane, size, interpolation, box=None):
    image = PIL.Image.fromarray(plane)
    return np.asarray(image.resize(size[::-1], RESAMPLING[interpolation], box=box))


def _taps(source, target, kept, area):
    """The pixels of an axis that the `kept` resized pixels depend on, and their weights.

    The axis is resized from `source` to `target` pixels. The weights (kept, pixels) are the shares
    of pixels within each resized pixel with `area`, else those of the two nearest centres.
    """
    scale = source / target
    index = np.array(kept, np.float64)[:, None]
    if area:
        low, high = index * scale, (index + 1) * scale
    else:
        low = high = np.clip((index + 0.5) * scale - 0.5, 0, source - 1)
    pixels = slice(int(low.min()), min(int(np.ceil(high.max())) + 1, source))
    pixel = np.arange(pixels.start, pixels.stop)
    if area:
        weights = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) / scale
    else:
        weights = np.clip(1 - np.abs(low - pixel), 0, None)
    return pixels, weights.astype(np.float32)
