"""A person's own pictures: what is found in them, what a network sees of it, and what it reads."""

import io
import struct
import tracemalloc
import zlib
from functools import partial

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage.transform import resize, rotate

from digit_recognizer.data import digits
from digit_recognizer.files import UserError
from digit_recognizer.inference import recognize
from digit_recognizer.inference.recognize import PictureResult
from digit_recognizer.pictures.find import find_digits
from digit_recognizer.pictures.load import WORK_SIDE, read_picture

FONTS = {
    "sans": "DejaVuSans.ttf",
    "mono": "DejaVuSansMono.ttf",
    "serif": "DejaVuSerif.ttf",
    "stix": "STIXGeneral.ttf",
    "cm": "cmr10.ttf",
}
PAPER, PEN = (236, 232, 220), (40, 42, 66)


def digits_in(pixels):
    return find_digits(pixels)[0]


def coverage(font, text, size=120):
    """The text in one of matplotlib's fonts: how much of each pixel is ink, float (height, width)."""
    path = f"{matplotlib.get_data_path()}/fonts/ttf/{FONTS[font]}"
    face = ImageFont.truetype(path, size)
    left, top, right, bottom = face.getbbox(text)
    image = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), text, 255, face)
    return np.asarray(image) / 255


def drawings(*rows, font="sans", size=80):
    return [[coverage(font, digit, size) for digit in row] for row in rows]


def scaled(image, factor=10):
    """A row of a CSV, uint8 (28, 28), as a smooth drawing."""
    return resize(image / 255, (28 * factor, 28 * factor), order=3).clip(0, 1)


def sheet(rows, pitch=200, paper=PAPER, pen=PEN, angle=0.0, light=None, noise=0.0, seed=0):
    """A picture, uint8 (height, width, 3), of rows of drawings, each in the middle of a square of `pitch`."""
    ink = np.zeros((pitch * len(rows), pitch * max(map(len, rows))))
    for row, drawings in enumerate(rows):
        for column, drawing in enumerate(drawings):
            height, width = drawing.shape
            top, left = row * pitch + (pitch - height) // 2, column * pitch + (pitch - width) // 2
            ink[top : top + height, left : left + width] = drawing
    ink = rotate(ink, angle, resize=True)[..., None]
    colours = np.array(paper) * (1 - ink) + np.array(pen) * ink
    if light is not None:
        y, x = np.mgrid[0 : ink.shape[0], 0 : ink.shape[1]] / np.reshape(ink.shape[:2], (2, 1, 1))
        colours *= light(y, x)[..., None]
    colours += np.random.default_rng(seed).normal(0, 1, colours.shape) * noise
    return np.uint8(colours.clip(0, 255))


def half_in_shadow(y, x):
    """A gradient, and a shadow with a soft edge over the lower right of it."""
    return (1 - 0.25 * y) * (1 - 0.35 / (1 + np.exp(-(x + y - 1) / 0.02)))


CONDITIONS = {
    "clean": {},
    "light on dark": {"paper": (30, 40, 36), "pen": (225, 230, 228)},
    "colours of the same brightness": {"paper": (120, 190, 110), "pen": (225, 70, 90)},
    "pencil": {"pen": (165, 165, 165), "noise": 4},
    "shadow and gradient": {"light": half_in_shadow, "noise": 6},
    "noise": {"noise": 20},
    "left": {"angle": 10, "noise": 5},
    "right": {"angle": -10, "noise": 5},
}


def centres(found, shape, angle=0.0):
    """Where the digits are in the sheet before it was rotated: (row, column) numbers of its squares."""
    boxes = np.array([each.box for each in found], float)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.divide(shape[:2], 2)
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return middles @ np.array([[cosine, -sine], [sine, cosine]])


@pytest.mark.parametrize(("font", "condition"), [*zip([*FONTS] * 2, CONDITIONS, strict=False)])
def test_digits_are_found_in_reading_order(font, condition):
    options = CONDITIONS[condition]
    picture = sheet(drawings("01234", "56789", "31415", font=font, size=60), pitch=100, **options)
    found = digits_in(picture)
    assert len(found) == 15
    y, x = centres(found, picture.shape, options.get("angle", 0.0)).T
    assert [round(each) for each in y / 100] == [-1] * 5 + [0] * 5 + [1] * 5
    assert [round(each) for each in x / 100] == [-2, -1, 0, 1, 2] * 3


def test_a_digit_becomes_what_mnist_is():
    drawing = coverage("serif", "4", 300)
    (digit,) = digits_in(sheet([[drawing]], pitch=500, light=half_in_shadow, noise=5))
    rows, columns = np.flatnonzero(digit.image.any(axis=1)), np.flatnonzero(digit.image.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    drawn = np.flatnonzero(drawing.any(axis=0))
    assert height == 20
    assert width == pytest.approx(20 * (drawn[-1] - drawn[0] + 1) / len(drawing), abs=1)
    assert digit.image.dtype == np.uint8 and digit.image.max() == 255
    mass = digit.image.sum()
    y, x = np.mgrid[0:28, 0:28]
    assert (digit.image * y).sum() / mass == pytest.approx(14, abs=0.5)
    assert (digit.image * x).sum() / mass == pytest.approx(14, abs=0.5)
    # and what is so already stays so
    (again,) = digits_in(np.repeat(digit.image[..., None], 3, axis=2))
    assert np.abs(again.image.astype(int) - digit.image).mean() < 2


def test_a_thin_pen_is_thickened_to_what_mnist_has():
    y, x = np.mgrid[-100:101, -70:71]
    ring = (np.abs(np.hypot(x / 60, y / 90) - 1) < 0.015).astype(float)
    (thin,) = digits_in(sheet([[ring]], pitch=300))
    assert np.count_nonzero(thin.image[14] > 127) >= 4  # two strokes, each two pixels or so
    (thick,) = digits_in(sheet([[coverage("sans", "0", 200)]], pitch=300))
    assert thin.image.sum() < thick.image.sum()


def lines(picture, step, color=(150, 170, 215), tilt=0.0, squared=False):
    """The picture on ruled or squared paper."""
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    line = (y + tilt * x) % step < 2
    if squared:
        line |= (x - tilt * y) % step < 2
    return np.where(line[..., None], np.minimum(picture, np.array(color, np.uint8)), picture)


def on_a_table(picture, angle=6, pad=40):
    """The picture as a page that lies askew on a brown table."""
    page = np.pad(np.ones(picture.shape[:2]), pad)
    page, ink = (
        rotate(each, angle, resize=True)[..., None] for each in (page, np.pad(picture[..., 0] / 255, pad, mode="edge"))
    )
    noise = np.random.default_rng(0).normal(0, 4, page.shape)
    colours = page * ink * np.array((255, 255, 240)) + (1 - page) * np.array((120, 85, 60)) + noise
    return np.uint8(np.pad(colours, ((pad, pad), (pad, pad), (0, 0)), mode="edge").clip(0, 255))


def specked(picture):
    """The picture with dust on it."""
    picture, random = picture.copy(), np.random.default_rng(0)
    for y, x in random.integers(5, np.array(picture.shape[:2]) - 5, (40, 2)):
        picture[y : y + 3, x : x + 3] = PEN
    return picture


def two_rows():
    return sheet(drawings("01234", "56789"), pitch=140, noise=4)


def blank(**options):
    return sheet([[np.zeros((9, 9))] * 3] * 2, **options)


def broken_strokes():
    five, eight = coverage("sans", "5", 150), coverage("sans", "8", 150)
    five[int(0.16 * len(five)) : int(0.21 * len(five))] = 0  # the bar apart
    eight[int(0.47 * len(eight)) : int(0.51 * len(eight))] = 0
    return sheet([[five, eight, five]], pitch=200)


def cut_to(digit):
    return np.uint8(230 - 200 * coverage("sans", digit)[..., None]) * np.ones(3, np.uint8)


PICTURES = {
    "ruled paper": (10, lambda: lines(two_rows(), 45)),
    "squared paper, askew": (10, lambda: lines(two_rows(), 30, tilt=0.04, squared=True)),
    "specks": (10, lambda: specked(two_rows())),
    "a page on a table": (10, lambda: on_a_table(two_rows())),
    "a scanner's edge": (10, lambda: np.pad(two_rows(), ((0, 0), (30, 0), (0, 0)))),
    "broken strokes": (3, broken_strokes),
    "close lines": (4, lambda: sheet(drawings("36", "58", size=120), 100)),
    **{f"cut to its digit {digit}": (1, partial(cut_to, digit)) for digit in "0147"},
    "nothing but white": (0, lambda: np.full((300, 400, 3), 255, np.uint8)),
    "one pixel": (0, lambda: np.zeros((1, 1, 3), np.uint8)),
    "noise": (0, lambda: blank(noise=15)),
    "a gradient": (0, lambda: blank(noise=4, light=lambda y, x: 1 - 0.5 * x)),
    "a shadow": (0, lambda: blank(noise=4, light=half_in_shadow)),
    "ruled paper without digits": (0, lambda: lines(blank(noise=4), 40)),
    "squared paper without digits": (0, lambda: lines(blank(noise=4), 40, tilt=0.05, squared=True)),
    "a blank page on a table": (0, lambda: on_a_table(blank(noise=4))),
}


@pytest.mark.parametrize("name", PICTURES)
def test_digits_are_found_and_nothing_else(name):
    count, make = PICTURES[name]
    assert len(digits_in(make())) == count


def test_digits_that_touch_are_one_and_called_too_wide():
    both = np.hstack([coverage("sans", "3"), coverage("sans", "8")])
    both[len(both) // 2 : len(both) // 2 + 8, 30:90] = 1
    (found,) = digits_in(sheet([[both]], pitch=300))
    assert found.is_too_wide
    (alone,) = digits_in(sheet([[coverage("sans", "8")]], pitch=300))
    assert not alone.is_too_wide


def save_png16(picture, path):
    Image.fromarray(np.uint16(picture.convert("L")) * 16).save(path)  # 12 bits of 16


def save_turned(picture, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def save_transparent(picture, path):
    ink = Image.fromarray(np.uint8(255 - np.asarray(picture.convert("L"))))
    Image.merge("LA", [Image.new("L", picture.size), ink]).save(path)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("grey.png", lambda picture, path: picture.convert("L").save(path)),
        ("bits.png", lambda picture, path: picture.convert("1", dither=0).save(path)),
        ("bits.tif", save_png16),
        ("deep.png", save_png16),
        ("palette.gif", lambda picture, path: picture.quantize(16).save(path)),
        ("cmyk.jpg", lambda picture, path: picture.convert("CMYK").save(path)),
        ("turned.jpg", save_turned),
        ("transparent.png", save_transparent),
        ("transparent.webp", lambda picture, path: picture.convert("RGBA").save(path)),
        ("float.tif", lambda picture, path: picture.convert("F").save(path)),
        ("huge.jpg", lambda picture, path: picture.resize((4000, 2000)).save(path)),
        ("huge.png", lambda picture, path: picture.quantize(16).resize((4000, 2000)).save(path)),
        ("huge.tif", lambda picture, path: save_png16(picture.resize((4000, 2000)), path)),
    ],
)
def test_every_kind_of_picture_is_read_alike(tmp_path, name, save):
    picture = sheet(drawings("7143", "2580", size=60), pitch=100)
    expected = digits_in(picture)
    save(Image.fromarray(picture), tmp_path / name)
    pixels = read_picture(tmp_path / name)[0]
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and max(pixels.shape) <= WORK_SIDE
    found = digits_in(pixels)
    assert len(found) == 8
    for digit, same in zip(found, expected, strict=True):
        # the whole of one may lie a pixel aside: its mass is centred to whole pixels
        assert np.abs(digit.image.astype(int) - same.image).mean() < 20


def test_a_turned_picture_keeps_its_direction_when_it_is_huge(tmp_path):
    left = np.full((3000, 2000, 3), 255, np.uint8)
    left[:, :200] = 0
    for name in ("turned.jpg", "turned.png", "turned.tif"):
        save_turned(Image.fromarray(left), tmp_path / name)
        pixels = read_picture(tmp_path / name)[0]
        assert pixels.shape == (1200, 800, 3)
        assert pixels[:, :60].max() < 30 and pixels[:, 100:].min() > 225


def test_a_huge_picture_of_16_bits_is_reduced_before_it_is_converted(tmp_path):
    side = 4000
    values = np.zeros((side, side), np.uint16)
    values[1000:3000, 1000:3000] = 4095
    Image.fromarray(values).save(tmp_path / "huge.png")
    del values
    tracemalloc.start()
    try:
        pixels = read_picture(tmp_path / "huge.png")[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * side**2  # bytes: less than one copy in float64
    assert pixels[600, 600].tolist() == [255] * 3 and pixels[10, 10].tolist() == [0] * 3


def png(width, height):
    """A PNG that says to be so large, and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, b"IDAT")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg():
    file = io.BytesIO()
    Image.fromarray(sheet([[coverage("sans", "7")]], noise=20)).save(file, "JPEG")
    return file.getvalue()


def picture_result(path, pixels, digits=()):
    notes = () if digits else ("no digit: nothing stands out from the paper",)
    return PictureResult(path, pixels, digits=digits, probabilities=np.eye(10)[: len(digits)], notes=notes)


@pytest.mark.parametrize("name", ["cost_$5_or_$6.jpg", "数字.jpg"])
def test_any_name_is_drawn(tmp_path, recwarn, name):
    """Dollars are no formula, and letters that the font lacks are no warning."""
    pixels = sheet([[coverage("sans", "7")]])
    for found in (digits_in(pixels), []):
        recognize.write_picture([picture_result(tmp_path / name, pixels, found)], tmp_path / "predictions.png")
    assert (tmp_path / "predictions.png").exists() and not recwarn.list


def test_a_long_list_of_pictures_fits_a_jpeg(tmp_path, monkeypatch):
    """JPEG holds 65,535 pixels of height: here the bound is 2,000, and ten pictures would take 4,026."""
    monkeypatch.setattr(recognize, "_MOST_PIXELS", 2000)
    result = picture_result(tmp_path / "a.jpg", np.full((40, 40, 3), 255, np.uint8))
    recognize.write_picture([result] * 10, tmp_path / "predictions.jpg")
    with Image.open(tmp_path / "predictions.jpg") as picture:
        assert 1900 < picture.height <= 2000


@pytest.mark.parametrize("side", [28, 56, 300])
@pytest.mark.parametrize("is_light_on_dark", [True, False])
@pytest.mark.parametrize("method", ["NEAREST", "BICUBIC"])
def test_a_picture_in_mnists_form_is_taken_as_it_is(side, is_light_on_dark, method):
    for image in digits.sample().test_images[:10]:
        grey = Image.fromarray(image if is_light_on_dark else 255 - image).resize(
            (side, side), Image.Resampling[method]
        )
        (digit,), notes = find_digits(np.asarray(grey.convert("RGB")))
        assert (digit.box, notes) == ((0, 0, side, side), [])
        assert np.abs(digit.image.astype(int) - image).mean() < 8 * (side > 28) * (method != "NEAREST") + 1e-9


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b"label,pixel0\n7,0\n", "is no picture that can be read: save it as PNG or JPEG"),
        (jpeg()[:3000], "is damaged"),
        (png(9, 9), "is damaged"),
        (png(20_000, 20_000), "has more than 89 million pixels: save it smaller"),
        (png(10_000, 10_000), "has more than 89 million pixels"),
    ],
)
def test_what_is_no_whole_picture_is_refused(tmp_path, content, words):
    path = tmp_path / "seven.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as refusal:
        read_picture(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="is a folder: name a picture in it"):
        read_picture(tmp_path)
