"""read_image converts every kind of image file to 8-bit pixels on white or raises ImageError."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from crnn_ext.ocr import ImageError
from crnn_ext.ocr.images.image_files import IMAGE_FORMATS, image_size, read_image


def pixels(source, mode="L"):
    image = read_image(source, mode)
    assert image.mode == mode
    return np.asarray(image).tolist()


def encoded(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth, color, rows, *extra):
    """Return a PNG file; extra chunks stand between the header and the data."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + data + png_chunk(b"IEND", b"")


GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # PNG's color types


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        pytest.param(png(2, 1, 1, GRAY, [b"\x40"]), [[0, 255]], id="1 bit"),
        pytest.param(png(4, 1, 2, GRAY, [b"\x1b"]), [[0, 85, 170, 255]], id="2 bits"),
        pytest.param(png(2, 2, 8, GRAY, [b"\x01\x02", b"\x03\x04"]), [[1, 2], [3, 4]], id="8 bits"),
        pytest.param(
            png(4, 1, 16, GRAY, [struct.pack(">4H", 0, 0x0101, 0x8000, 0xFFFF)]),
            [[0, 1, 127, 255]],
            id="16 bits",
        ),
        pytest.param(png(1, 1, 16, RGB, [struct.pack(">3H", 0xFFFF, 0xFFFF, 0xFFFF)]), [[255]], id="48 bits"),
        pytest.param(
            png(2, 1, 8, PALETTE, [b"\0\1"], png_chunk(b"PLTE", b"\x0a\x0a\x0a\xc8\xc8\xc8")),
            [[10, 200]],
            id="palette",
        ),
        pytest.param(
            png(2, 1, 8, PALETTE, [b"\0\1"], png_chunk(b"PLTE", bytes(6)), png_chunk(b"tRNS", b"\x00\xff")),
            [[255, 0]],
            id="palette with transparency",
        ),
        pytest.param(
            png(2, 1, 8, GRAY, [b"\x07\x09"], png_chunk(b"tRNS", b"\x00\x07")),
            [[255, 9]],
            id="transparent gray",
        ),
        pytest.param(
            png(2, 1, 16, GRAY, [struct.pack(">2H", 7, 0x0909)], png_chunk(b"tRNS", b"\x00\x07")),
            [[255, 9]],
            id="transparent 16-bit gray",
        ),
        pytest.param(png(3, 1, 8, GRAY_ALPHA, [b"\0\xff\0\0\0\x80"]), [[0, 255, 127]], id="gray and alpha"),
        pytest.param(png(2, 1, 8, RGB_ALPHA, [b"\0\0\0\xff\0\0\0\0"]), [[0, 255]], id="RGB and alpha"),
        pytest.param(
            encoded(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), "JPEG"), [[255]], id="CMYK without ink"
        ),
        pytest.param(encoded(Image.new("CMYK", (1, 1), (0, 0, 0, 255)), "JPEG"), [[0]], id="CMYK black"),
        pytest.param(encoded(Image.new("I;16", (1, 1), 0xFFFF), "TIFF"), [[255]], id="16-bit TIFF"),
    ],
)
def test_read_image_to_grey(tmp_path, file, expected):
    path = tmp_path / "image"
    path.write_bytes(file)
    assert pixels(path) == pixels(str(path)) == expected


def test_read_image_rgb(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png(2, 1, 8, RGB, [b"\x01\x02\x03\xff\x00\x00"]))
    assert pixels(path, "RGB") == [[[1, 2, 3], [255, 0, 0]]]
    # Red contributes 299/1000 of the luminance.
    assert pixels(path)[0][1] == 76


@pytest.mark.parametrize(
    ("mode", "kept"),
    [("1", "L"), ("L", "L"), ("LA", "L"), ("I;16", "L"), ("P", "RGB"), ("RGB", "RGB"), ("CMYK", "RGB")],
)
def test_read_image_native_mode(mode, kept):
    assert read_image(Image.new(mode, (2, 1)), None).mode == kept


@pytest.mark.parametrize("file_format", IMAGE_FORMATS)
def test_read_image_format(tmp_path, file_format):
    path = tmp_path / "image"
    path.write_bytes(encoded(Image.new("L", (5, 3), 255), file_format))
    assert pixels(path) == [[255] * 5] * 3


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, [[1, 2, 3], [4, 5, 6]]),
        (2, [[3, 2, 1], [6, 5, 4]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (4, [[4, 5, 6], [1, 2, 3]]),
        (5, [[1, 4], [2, 5], [3, 6]]),
        (6, [[4, 1], [5, 2], [6, 3]]),
        (7, [[6, 3], [5, 2], [4, 1]]),
        (8, [[3, 6], [2, 5], [1, 4]]),
    ],
)
def test_read_image_exif_orientation(tmp_path, orientation, upright):
    image = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "image.png", exif=exif)
    assert pixels(tmp_path / "image.png") == upright
    with Image.open(tmp_path / "image.png") as opened:
        once = read_image(opened, "L")
    assert pixels(once) == upright, "an upright image must not be rotated again"


@pytest.mark.parametrize("file_format", IMAGE_FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_size_matches_read_image(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if file_format in ("BMP", "GIF") else {"exif": exif}
    file = encoded(Image.effect_noise((24, 9), 80), file_format, **options)
    size = image_size(io.BytesIO(file))
    assert size == read_image(io.BytesIO(file), "L").size
    assert size == ((9, 24) if options and orientation > 4 else (24, 9))


def test_image_size_reads_header_only():
    intact = encoded(Image.effect_noise((64, 48), 80), "PNG")
    assert image_size(io.BytesIO(intact[:100])) == (64, 48)
    with pytest.raises(ImageError, match="not an image in a known format"):
        image_size(io.BytesIO(intact[:9]))
    with pytest.raises(ImageError, match="more pixels than the limit of 89478485"):
        image_size(io.BytesIO(png(20_000, 20_000, 1, GRAY, [b""])))
    with pytest.raises(ImageError, match=r"^No such file or directory$"):
        image_size("missing.png")


def test_read_image_animation(tmp_path):
    frames = [Image.new("L", (2, 1), level) for level in (0, 255)]
    frames[0].save(tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "image.gif") == [[0, 0]]


def test_read_image_array():
    assert pixels(np.array([[0, 9]], np.uint8)) == [[0, 9]]
    assert pixels(np.array([[[1, 2, 3]]], np.uint8), "RGB") == [[[1, 2, 3]]]
    assert pixels(np.array([[[0, 0, 0, 0]]], np.uint8)) == [[255]]
    with pytest.raises(TypeError, match="must be uint8, got float64"):
        read_image(np.zeros((2, 2)), "L")
    for shape in [(4,), (0, 4), (2, 2, 2), (1, 2, 2, 3)]:
        with pytest.raises(ValueError, match=r"must be .* got shape"):
            read_image(np.zeros(shape, np.uint8), "L")
    with pytest.raises(TypeError, match="must be a PIL image, an array, a path or a BytesIO, got bytes"):
        read_image(b"image.png", "L")


def test_read_image_errors(tmp_path):
    def reason(content, name="image.png"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name, "L")
        return str(caught.value)

    intact = encoded(Image.effect_noise((64, 64), 80), "PNG")
    assert reason(b"") == reason(b"text") == f"not an image in a known format ({', '.join(IMAGE_FORMATS)})"
    assert "truncated" in reason(intact[: len(intact) // 2])
    assert "truncated" in reason(encoded(Image.effect_noise((64, 64), 80), "JPEG")[:-200])
    # Pillow would hand PostScript to another program.
    assert "not an image in a known format" in reason(encoded(Image.new("L", (9, 9)), "EPS"))
    assert "floating-point" in reason(encoded(Image.new("F", (2, 2)), "TIFF"))
    with pytest.raises(ImageError, match=r"^No such file or directory$"):
        read_image(tmp_path / "missing.png", "L")
    with pytest.raises(ImageError, match=r"^Is a directory$"):
        read_image(tmp_path, "L")
    with pytest.raises(ImageError, match="the image has no pixels: 0 x 3"):
        read_image(Image.new("L", (0, 3)), "L")


# Pillow's limit is 89,478,485 pixels; up to twice that, it only warns.
@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("side", [10_000, 20_000])
def test_read_image_decompression_bomb(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png(side, side, 1, GRAY, [b""]))
    with pytest.raises(ImageError, match="more pixels than the limit of 89478485"):
        read_image(tmp_path / "bomb.png", "L")


def test_read_image_damaged_exif(tmp_path):
    # The table declares 99 entries and has none.
    (tmp_path / "image.png").write_bytes(
        png(1, 1, 8, GRAY, [b"\x05"], png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x63"))
    )
    with pytest.warns(UserWarning, match="EXIF"):
        assert pixels(tmp_path / "image.png") == [[5]]


def test_image_size_exif_after_pixels(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    intact = png(3, 2, 8, GRAY, [b"\x05" * 3] * 2)
    end = len(png_chunk(b"IEND", b""))
    content = intact[:-end] + png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + intact[-end:]
    (tmp_path / "image.png").write_bytes(content)
    assert read_image(tmp_path / "image.png", "L").size == (2, 3)
    assert image_size(tmp_path / "image.png") == image_size(io.BytesIO(content)) == (2, 3)


@pytest.fixture(scope="module")
def examples():
    image = Image.effect_noise((24, 9), 80)
    return [encoded(image, file_format) for file_format in IMAGE_FORMATS]


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(data=st.data())
def test_read_image_fuzzed(examples, tmp_path_factory, data):
    damaged = bytearray(data.draw(st.sampled_from(examples)))
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with contextlib.suppress(ImageError):
        assert read_image(path, "RGB").mode == "RGB"
