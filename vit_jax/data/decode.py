"""From an encoded file, or pixels in memory, to uint8 pixels with the channels a model takes.

What cannot be done without a guess is refused by name: pixels whose range is not known, channels
that a file does not have.
"""

import functools
import io

import numpy as np
import PIL.Image
import simplejpeg

MAX_PIXELS = 89_478_485  # of a file: a small one can claim to be huge; where Pillow warns
# Deflate makes at most 8,256 pixels of one bit out of a byte: what claims more, and is large, is
# damaged or made to fill the memory.
DENSEST, LARGE = 10_000, 2**24
BACKGROUND = "white"  # what is seen through transparent pixels
_ORIENTATION = 0x0112  # the tag of EXIF
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF
_KNOWN_32_BIT = ("PNG", "PPM")  # formats whose 32-bit pixels of Pillow hold 16 bits


class BrokenImageError(ValueError):
    """The bytes are no image that can be decoded whole, or none that the model can take."""


def decode(
    data: bytes | np.ndarray,
    *,
    channels: int = 3,
    fast_dct: bool = True,
    orient: bool = False,
) -> np.ndarray:
    """uint8 (H, W, channels) of an encoded file, or of uint8 pixels (H, W) or (H, W, C).

    Three channels are RGB, one is grey (Pillow's "L"), whatever the file holds; any other number
    the file must have itself, such as the four of RGBA. Transparency is seen on white where the
    model has no channel for it. Of several frames the first is taken, of 16 bits the upper 8.

    `fast_dct`: the cosine transform of JPEGs of TensorFlow's default, else that of Pillow.
    `orient`: turn the image as its EXIF orientation says; a TIFF file is always turned. Raises
    BrokenImageError.
    """
    if isinstance(data, np.ndarray):
        return of_array(data if data.ndim == 3 else data[..., None], channels=channels)
    if data[:2] == b"\xff\xd8" and channels in (1, 3):
        try:
            pixels = _decode_jpeg(data, fast_dct)
            turned = upright(pixels, _orientation(data)) if orient else pixels
            return of_array(turned, channels=channels)
        except BrokenImageError:
            raise
        except ValueError:
            pass  # libjpeg warned: whether that is fatal is for Pillow to decide
    try:
        with _open(data) as image:
            _check_pixels(image.height, image.width, of=len(data))
            image.load()
            pixels = _pixels(image, channels)
            return upright(pixels, image.getexif().get(_ORIENTATION, 1)) if orient else pixels
    except Exception as error:  # damaged bytes make decoders raise far more than they document
        raise BrokenImageError(f"cannot decode the image: {_reason(error, data)}") from error


def of_array(pixels: np.ndarray, *, channels: int) -> np.ndarray:
    """uint8 (..., H, W, channels) of uint8 pixels (..., H, W, C). Raises BrokenImageError."""
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
    """(H, W, C) turned as an orientation of EXIF, 1 to 8, says; as it is for any other number."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_jpeg(data: bytes, fast_dct: bool) -> np.ndarray:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    _check_pixels(height, width, of=len(data))
    return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=fast_dct, fastupsample=False)


def _orientation(data: bytes) -> int:
    """The orientation that the header of a JPEG tells, 1 where it tells none."""
    try:
        with _open(data) as image:
            return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged tag: the pixels are whole
        return 1


def _open(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data), formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    """All that Pillow reads itself: of an EPS or WMF file, another program runs what it holds."""
    PIL.Image.init()
    return tuple(kind for kind in PIL.Image.ID if kind not in ("EPS", "WMF"))


def _pixels(image: PIL.Image.Image, channels: int) -> np.ndarray:
    """uint8 (H, W, channels). Raises ValueError where that would be a guess."""
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
            " give files of that many"
        )
    return np.array(image)


def _opaque(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image on `BACKGROUND`."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    ground = PIL.Image.new("RGBA", image.size, BACKGROUND)
    return PIL.Image.alpha_composite(ground, image).convert("RGB")


def _eight_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    """Grey pixels of 16 bits as 8. Raises ValueError where their range is not known."""
    if image.mode == "F" or image.mode == "I" and image.format not in _KNOWN_32_BIT:
        kind = "fractions" if image.mode == "F" else "32-bit numbers"
        raise ValueError(
            f"its pixels are {kind} ({image.format} of mode {image.mode}), whose range is not"
            " known: save it with 8 or 16 bits a channel"
        )
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = tags.get(_BITS, (16,))[0]
    values = np.asarray(image).astype(np.int32)
    grey = (np.clip(values, 0, 2**bits - 1) >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero: Pillow turns that round for 8 bits only
        grey = 255 - grey
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return PIL.Image.fromarray(grey)


def _check_pixels(height: int, width: int, *, of: int) -> None:
    """Raises BrokenImageError where a file of so many bytes claims what no image of it holds."""
    pixels = height * width
    if pixels > MAX_PIXELS:
        raise BrokenImageError(f"refused to decode {height} x {width} pixels: over {MAX_PIXELS}")
    if pixels > max(LARGE, DENSEST * of):
        raise BrokenImageError(f"refused to decode {height} x {width} pixels out of {of} bytes")


def _reason(error: Exception, data: bytes) -> str:
    """What a decoder said, in one line and without an object's address."""
    if not data:
        return "the file is empty"
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"it begins with {data[:8]!r}, which no known image does, or its header is damaged"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    return " ".join(str(error).split()) or type(error).__name__
