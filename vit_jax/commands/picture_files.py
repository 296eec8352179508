"""Pictures as files, and as parts of a page."""

import io
import warnings
from collections.abc import Iterable, Mapping

import jax
import PIL.Image
from etils import epath
from matplotlib.figure import Figure

from vit_jax.page import document
from vit_jax.text import printable
from vit_jax.workdir import place

_QUALITY = 85  # of WebP
_SMALLER = 0.8  # the factor by which a picture that is too large is made smaller


def save(drawn: Mapping[str, Figure], folder: epath.Path) -> None:
    """Writes the pictures, each whole, and prints their paths. Raises ValueError if that fails."""
    if jax.process_index() != 0:
        return
    for name, figure in drawn.items():
        path = folder / f"{name}.png"
        place.write_output(path, _png(figure))
        print(printable(path))


def embedded(drawn: Iterable[tuple[str, Figure]], *, most: int) -> dict[str, str]:
    """The pictures of a page by title, which have `most` bytes together or fewer."""
    pictures = {name.replace("_", " ").capitalize(): _png(figure) for name, figure in drawn}
    packed = {title: _webp(png) for title, png in pictures.items()}
    each, size = most // max(len(packed), 1), sum(map(len, packed.values()))
    if size > most:  # those that take more than their share are made smaller
        packed = {
            title: data if len(data) <= each else _smaller(pictures[title], each)
            for title, data in packed.items()
        }
    return {title: document.picture(data, "webp") for title, data in packed.items()}


def _png(figure: Figure) -> bytes:
    png = io.BytesIO()
    with warnings.catch_warnings():  # the font may lack letters of a class name
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def _webp(png: bytes, *, scale: float = 1.0) -> bytes:
    image = PIL.Image.open(io.BytesIO(png)).convert("RGB")
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    data = io.BytesIO()
    image.resize(size, PIL.Image.Resampling.LANCZOS).save(data, "WEBP", quality=_QUALITY)
    return data.getvalue()


def _smaller(png: bytes, most: int) -> bytes:
    """A picture with fewer pixels, so that it has `most` bytes or fewer."""
    scale = _SMALLER
    while len(data := _webp(png, scale=scale)) > most and scale > 0.1:
        scale *= _SMALLER
    return data
