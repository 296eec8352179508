"""Decodes a file, or pixels in memory, to uint8 pixels with the channels that a model takes.

Nothing is guessed: pixels of an unknown value range and missing channels are refused.
"""

import functools
import io

import numpy as np
import PIL.Image
import simplejpeg

MAX_PIXELS = 89_478_485  # Pillow's limit: a small file can claim to be huge
# Deflate expands one byte to at most 8,256 pixels of one bit. A LARGE image that claims more per
# byte is damaged, or made to fill the memory.
MAX_PIXELS_PER_BYTE, LARGE = 10_000, 2**24
BACKGROUND = "white"  # colour behind transparent pixels
_ORIENTATION = 0x0112  # tag of EXIF
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF
_KNOWN_32_BIT = ("PNG", "PPM")  # formats that Pillow opens as 32-bit pixels that hold 16 bits


class BrokenImageError(ValueError):
    """The bytes cannot be decoded as a whole image, or the model cannot take the image."""


def decode(
    data: bytes | np.ndarray,
    *,
    channels: int = 3,
    fast_dct: bool = True,
    orient: bool = False,
) -> np.ndarray:
    """Decodes a file, or converts uint8 pixels (H, W) or (H, W, C), to uint8 (H, W, channels).

    Three channels are RGB and one is grey (Pillow's "L"); every file is converted to them. For any
    other number of channels, the file must have as many, such as the four of RGBA. Transparent
    pixels are put on white unless the model has a channel for transparency. Only the first frame
    and the upper 8 of 16 bits are used.

    `fast_dct`: decode JPEGs with TensorFlow's default cosine transform, else with Pillow's.
    `orient`: turn the image as its EXIF orientation says; a TIFF file is always turned. Raises
    BrokenImageError.
    """
    if isinstance(data, np.ndarray):
        return convert_channels(data if data.ndim == 3 else data[..., None], channels=channels)
    if data[:2] == b"\xff\xd8" and channels in (1, 3):
        try:
            pixels = _decode_jpeg(data, fast_dct)
            turned = upright(pixels, _orientation(data)) if orient else pixels
            return convert_channels(turned, channels=channels)
        except BrokenImageError:
            raise
        except ValueError:
            pass  # libjpeg warned; Pillow decides below whether that is fatal
    try:
        with _open(data) as image:
            _check_pixels(image.height, image.width, num_bytes=len(data))
            image.load()
            pixels = _pixels(image, channels)
            return upright(pixels, _exif_orientation(image)) if orient else pixels
    except Exception as error:  # damaged bytes make decoders raise far more than they document
        raise BrokenImageError(f"cannot decode the image: {_reason(error, data)}") from error


def convert_channels(pixels: np.ndarray, *, channels: int) -> np.ndarray:
    """Converts uint8 (..., H, W, C) to uint8 (..., H, W, channels). Raises BrokenImageError."""
    given = pixels.shape[-1]
    if given == channels:
        return pixels
    if given == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    if given == 3 and channels == 1:
        flat = PIL.Image.fromarray(pixels.reshape(-1, *pixels.shape[-2:]))
        return np.array(flat.convert("L")).reshape(*pixels.shape[:-1], 1)
    raise BrokenImageError(f"the image has {given} channels, the model takes {channels}")


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns (H, W, C) as an EXIF orientation from 1 to 8 says; any other number changes nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_jpeg(data: bytes, fast_dct: bool) -> np.ndarray:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    _check_pixels(height, width, num_bytes=len(data))
    return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=fast_dct, fastupsample=False)


def _orientation(data: bytes) -> int:
    """The orientation in the header of a JPEG, 1 if there is none or the header is damaged."""
    try:
        with _open(data) as image:
            return _exif_orientation(image)
    except Exception:  # the pixels are whole
        return 1


def _exif_orientation(image: PIL.Image.Image) -> int:
    """The orientation of an image, 1 if there is none or its tags are damaged."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged tags do not matter: the pixels are whole
        return 1


def _open(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data), formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    """All formats but EPS and WMF: Pillow lets another program execute such files."""
    PIL.Image.init()
    return tuple(kind for kind in PIL.Image.ID if kind not in ("EPS", "WMF"))


def _pixels(image: PIL.Image.Image, channels: int) -> np.ndarray:
    """uint8 (H, W, channels). Raises ValueError if that needs a guess."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if channels in (1, 3):
        pixels = np.array(_opaque(image).convert("L" if channels == 1 else "RGB"))
        return pixels[..., None] if channels == 1 else pixels
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if len(bands := image.getbands()) != channels or image.mode == "1":
        raise ValueError(
            f"it has {len(bands)} channels ({image.mode}), the model takes {channels}:"
            f" give files with {channels} channels"
        )
    return np.array(image)


def _opaque(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image on a ground of colour `BACKGROUND`."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    ground = PIL.Image.new("RGBA", image.size, BACKGROUND)
    return PIL.Image.alpha_composite(ground, image).convert("RGB")


def _eight_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    """Reduces grey pixels of 16 bits to 8. Raises ValueError if their range is not known."""
    if image.mode == "F" or image.mode == "I" and image.format not in _KNOWN_32_BIT:
        kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise ValueError(
            f"its pixels are {kind} ({image.format} of mode {image.mode}), whose range is not"
            " known: save it with 8 or 16 bits per channel"
        )
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = tags.get(_BITS, (16,))[0]
    values = np.asarray(image).astype(np.int32)
    grey = (np.clip(values, 0, 2**bits - 1) >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero: Pillow inverts that for 8 bits only
        grey = 255 - grey
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return PIL.Image.fromarray(grey)


def _check_pixels(height: int, width: int, *, num_bytes: int) -> None:
    """Raises BrokenImageError if the file claims more pixels than its bytes can hold."""
    pixels = height * width
    if pixels > MAX_PIXELS:
        raise BrokenImageError(
            f"refused to decode {height} x {width} pixels: at most {MAX_PIXELS:,} are allowed"
        )
    if pixels > max(LARGE, MAX_PIXELS_PER_BYTE * num_bytes):
        raise BrokenImageError(
            f"refused to decode {height} x {width} pixels from {num_bytes} bytes:"
            " the file is damaged"
        )


def _reason(error: Exception, data: bytes) -> str:
    """The message of a decoder's error, in one line and without an object's address."""
    if not data:
        return "the file is empty"
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"it begins with {data[:8]!r}: it is not an image, or its header is damaged"
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return " ".join(str(error).split()) or type(error).__name__
