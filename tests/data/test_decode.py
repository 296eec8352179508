"""Files that are not plain RGB of 8 bits: channels, depth, transparency, orientation."""

import io
import struct
import zlib

import numpy as np
import PIL.EpsImagePlugin
import PIL.Image
import pytest

from tests.data.test_preprocess import encode, noise, smooth
from vit_jax.data.arrays import ArraySource
from vit_jax.data.decode import BrokenImageError, decode, upright

GREY = [
    *(("PNG", mode) for mode in ("RGB", "L", "P", "1")),
    *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
    *(("WEBP", "RGB"), ("TIFF", "CMYK"), ("GIF", "RGB")),
]


@pytest.mark.parametrize(("kind", "mode"), GREY)
def test_one_channel_is_pillows_grey(kind: str, mode: str) -> None:
    data = encode(PIL.Image.fromarray(smooth(30, 40)).convert(mode), kind)
    grey = decode(data, channels=1, fast_dct=False)
    expected = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("L"), int)[..., None]
    # libjpeg converts CMYK itself, and differs from Pillow by one level.
    assert np.abs(grey - expected).max() <= (mode == "CMYK" and kind == "JPEG")


def test_any_other_number_of_channels_needs_a_file_that_has_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 4), dtype=np.uint8)
    image = PIL.Image.fromarray(pixels, "RGBA")
    np.testing.assert_array_equal(decode(encode(image, "PNG"), channels=4), pixels)
    palette = image.convert("P")
    data = encode(palette, "PNG", transparency=bytes(range(256)))
    assert decode(data, channels=4).shape == (6, 7, 4)
    for data in (encode(image.convert("RGB"), "PNG"), encode(image.convert("RGB"), "JPEG")):
        with pytest.raises(BrokenImageError, match=r"it has 3 channels \(RGB\), the model takes 4"):
            decode(data, channels=4)
    with pytest.raises(BrokenImageError, match=r"the model takes 2: give files with 2 channels"):
        decode(encode(image, "PNG"), channels=2)


def test_arrays_are_converted_alike_one_by_one_and_in_batches() -> None:
    colours = np.stack([noise(4, 5), noise(4, 5)[::-1]])
    labels = np.zeros(2, np.int32)
    source = ArraySource(name="a", class_names=("a",), images=colours, labels=labels)
    grey = source.gather(np.array([0, 1]), channels=1)
    for row in range(2):
        np.testing.assert_array_equal(grey[row], decode(colours[row], channels=1))
        expected = np.asarray(PIL.Image.fromarray(colours[row]).convert("L"))
        np.testing.assert_array_equal(grey[row, ..., 0], expected)
    flat = ArraySource(name="a", class_names=("a",), images=colours[..., 0], labels=labels)
    assert np.array_equal(flat.gather(np.array([1]), channels=1)[0, ..., 0], colours[1, ..., 0])
    assert np.array_equal(flat.gather(np.array([1]))[0, ..., 2], colours[1, ..., 0])
    with pytest.raises(BrokenImageError, match="has 3 channels, the model takes 4"):
        source.gather(np.array([0]), channels=4)


DEEP = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_upper_eight(kind: str) -> None:
    data = encode(PIL.Image.fromarray(DEEP), kind)
    assert np.array_equal(decode(data)[..., 1], DEEP >> 8)
    assert np.array_equal(decode(data, channels=1)[..., 0], DEEP >> 8)


def test_sixteen_bits_big_endian_and_white_as_zero() -> None:
    big = PIL.Image.frombytes("I;16B", (16, 16), DEEP.astype(">u2").tobytes())
    assert np.array_equal(decode(encode(big, "TIFF"))[..., 0], DEEP >> 8)
    inverted = encode(PIL.Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0})
    assert PIL.Image.open(io.BytesIO(inverted)).tag_v2[262] == 0  # type: ignore[attr-defined]
    assert np.array_equal(decode(inverted)[..., 0], 255 - (DEEP >> 8))


def test_twelve_bits_keep_their_upper_eight() -> None:
    """As cameras of microscopes save them. Pillow reads such a TIFF, but does not write one."""
    row = (0 << 36 | 16 << 24 | 2048 << 12 | 4095).to_bytes(6, "big")
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(row)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    folder = struct.pack("<H", len(tags)) + entries + bytes(4)
    data = b"II*\0" + struct.pack("<I", 8 + len(row)) + row + folder
    assert decode(data, channels=1)[..., 0].tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused_by_name(kind: type) -> None:
    data = encode(PIL.Image.fromarray(DEEP.astype(kind)), "TIFF")
    for channels in (1, 3):
        with pytest.raises(BrokenImageError, match=r"\(TIFF of mode [FI]\), whose range is not"):
            decode(data, channels=channels)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "1", "I;16"])
def test_transparent_pixels_are_white(mode: str) -> None:
    hidden = PIL.Image.new("RGB", (2, 1), (40, 40, 40))
    hidden.putpixel((1, 0), (200, 200, 200))
    options: dict[str, object] = {}
    if mode == "RGBA":
        image = hidden.convert("RGBA")
        image.putalpha(PIL.Image.fromarray(np.array([[0, 255]], np.uint8)))
    elif mode == "LA":
        image = PIL.Image.fromarray(np.array([[[40, 0], [200, 255]]], np.uint8), "LA")
    elif mode == "I;16":
        image, options = PIL.Image.fromarray(np.array([[40, 200]], np.uint16) << 8), {}
        options = {"transparency": 40 << 8}
    elif mode == "P":
        image = hidden.quantize(2)
        clear = image.getpixel((0, 0))
        options = {"transparency": clear}
    elif mode == "1":
        image = hidden.convert("L").point(lambda v: 255 * (v > 100)).convert("1")
        options = {"transparency": 0}
    else:
        image = hidden.convert(mode)
        options = {"transparency": (40, 40, 40) if mode == "RGB" else 40}
    seen = decode(encode(image, "PNG", **options))
    assert seen[0, 0].tolist() == [255] * 3
    assert seen[0, 1, 0] == (255 if mode == "1" else 200)
    half = PIL.Image.new("RGBA", (1, 1), (0, 100, 200, 51))
    assert decode(encode(half, "PNG"))[0, 0].tolist() == [204, 224, 244]


def test_the_first_of_several_frames_is_used() -> None:
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decode(data)[0, 0].tolist() == [255, 0, 0], kind


def upside(orientation: int, kind: str) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(kind, {})
    return encode(PIL.Image.fromarray(smooth(6, 9)), kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_that_of_pillow_if_requested_and_else_ignored(
    orientation: int, kind: str
) -> None:
    data = upside(orientation, kind)
    image = PIL.Image.open(io.BytesIO(data))
    expected = np.asarray(PIL.ImageOps.exif_transpose(image))
    for channels in (3, 1):
        turned = decode(data, channels=channels, orient=True, fast_dct=False)
        reference = expected if channels == 3 else decode(expected, channels=1)
        np.testing.assert_array_equal(turned, reference)
    untouched = decode(data, fast_dct=False)
    np.testing.assert_array_equal(untouched, expected if kind == "TIFF" else np.asarray(image))


def test_orientation_is_also_applied_when_pillow_decodes_a_jpeg() -> None:
    """Pillow decodes a JPEG that libjpeg warns about."""
    data = upside(6, "JPEG").replace(b"\xff\xd9", b"\x00" * 8 + b"\xff\xd9")
    assert decode(data, orient=True).shape == (9, 6, 3) and decode(data).shape == (6, 9, 3)


def test_damaged_or_impossible_orientation_is_ignored() -> None:
    for orientation in (0, 9, 65535):
        assert decode(upside(orientation, "JPEG"), orient=True).shape == (6, 9, 3)
    data = upside(6, "JPEG").replace(b"Exif\x00\x00II", b"Exif\x00\x00XX")
    data = data.replace(b"Exif\x00\x00MM", b"Exif\x00\x00XX")
    assert decode(data, orient=True).shape == (6, 9, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_whole_image_with_damaged_exif_tags_is_read(kind) -> None:
    data = encode(PIL.Image.fromarray(smooth(6, 9)), kind, exif=b"Exif\x00\x00garbage " * 3)
    assert decode(data, orient=True).shape == (6, 9, 3)


def test_upright_gives_contiguous_pixels() -> None:
    for orientation in range(1, 9):
        assert upright(noise(3, 5), orientation).flags.c_contiguous


def test_a_message_about_a_broken_file_has_no_address_of_an_object() -> None:
    for data, reason in ((b"", "the file is empty"), (b"x" * 99, "it is not an image")):
        with pytest.raises(BrokenImageError, match=reason) as error:
            decode(data)
        assert "object at" not in str(error.value)


def test_a_few_bytes_that_claim_a_large_image_are_refused() -> None:
    """Pillow fills in missing pixels of some formats: 162 bytes took half a gigabyte."""
    data = encode(PIL.Image.new("L", (40, 30)), "PNG")
    size = struct.pack(">II", 40, 2**20 + 30)
    head = b"IHDR" + size + data[24:29]
    data = data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    with pytest.raises(BrokenImageError, match=r"refused to decode 1048606 x 40 pixels from \d+"):
        decode(data)
    blank = io.BytesIO()
    PIL.Image.new("1", (6000, 6000)).save(blank, "PNG")
    assert decode(blank.getvalue()).shape == (6000, 6000, 3)


def test_no_other_program_reads_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow lets Ghostscript execute an EPS file, whatever its suffix."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 6)).save(file, "EPS")

    def run(*args: object, **_: object) -> None:
        raise AssertionError(f"{args} was run")

    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", run)
    with pytest.raises(BrokenImageError, match="it begins with b'%!PS-Ado'"):
        decode(file.getvalue())


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PPM", "TIFF", "TGA", "JPEG2000", "ICO"])
def test_formats_that_pillow_decodes_itself_are_read(kind: str) -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (16, 16), "red").save(file, kind)
    assert decode(file.getvalue())[3, 3, 0] > 200
