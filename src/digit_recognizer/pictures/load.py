"""Reads a picture file of any usual kind as RGB pixels."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from digit_recognizer.files import UserError, reading

try:
    import pillow_heif

    pillow_heif.register_heif_opener()
except ImportError:
    pass

# others start programs, or are rare; AVIF needs Pillow 11.3, HEIF needs pillow-heif
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "MPO", "AVIF", "HEIF")
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # in a file's first bytes
_MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 0  # Pillow refuses larger pictures
WORK_SIDE = 1200  # pixels; larger pictures are scaled down to it


@contextmanager
def picture_warnings() -> Iterator[None]:
    """Makes an error of Pillow's warning of a huge picture, and hides others. Enter it before threads that read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_picture(path: Path) -> tuple[np.ndarray, float]:
    """Returns a file's picture, upright, uint8 (height, width, 3), and how many pixels of the file one of them shows.

    It is at most WORK_SIDE high and wide, on a ground that shows its ink. Raises UserError unless it is a whole
    picture.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a picture in it")
    with reading(path, "copy or save it again"):
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty: copy or save it again")
        try:
            with picture_warnings(), Image.open(path, formats=_formats()) as file:
                longest = max(file.size)
                pixels = np.asarray(_on_ground(_reduce(file)))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise UserError(f"{path} has more than {_MOST_PIXELS // 10**6} million pixels: save it smaller") from None
        except Image.UnidentifiedImageError:
            with path.open("rb") as file:
                start = file.read(12)
            if start[4:8] == b"ftyp" and start[8:] in _HEIC and "HEIF" not in _formats():
                advice = "pip install pillow-heif, or save it as JPEG"
                raise UserError(f"{path} is a HEIC picture, which needs pillow-heif: {advice}") from None
            raise UserError(f"{path} is no picture that can be read: save it as PNG or JPEG") from None
    return pixels, longest / max(pixels.shape)


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def picture_endings() -> list[str]:
    """Returns the endings of the names of picture files."""
    formats = _formats()
    known = [ending for ending, name in Image.registered_extensions().items() if name in formats]
    return sorted({*known, ".heic", ".heif"})


def _reduce(file: Image.Image) -> Image.Image:
    """Returns the picture upright and scaled down to WORK_SIDE, before anything else needs memory."""
    file.draft(None, (2 * WORK_SIDE, 2 * WORK_SIDE))  # a JPEG is decoded no larger than that
    ImageOps.exif_transpose(file, in_place=True)
    if file.mode.startswith(("I", "F")):
        picture = _eight_bits(file)
    elif file.mode in ("1", "P", "PA") or "transparency" in file.info:
        # of colours in a palette there is no mean
        picture = file.convert("RGBA" if file.has_transparency_data else "RGB")
    else:
        picture = file
    picture.thumbnail((WORK_SIDE, WORK_SIDE), Image.Resampling.BOX)
    return picture


def _eight_bits(file: Image.Image) -> Image.Image:
    """Returns a picture of 16 bits or more as 8 bits, from its lowest to its highest value: not all bits may be used.

    Blocks of pixels are averaged first: a copy of all pixels in a wider number format would take gigabytes.
    """
    values = np.asarray(file)
    step = max(1, max(values.shape) // WORK_SIDE)
    height, width = (max(1, side // step) for side in values.shape)
    blocks = values[: height * step, : width * step]
    if step > 1 and min(values.shape) >= step:
        blocks = blocks.reshape(height, step, width, step).mean(axis=(1, 3), dtype=np.float32)
    blocks = blocks.astype(np.float64)
    span = np.ptp(blocks) or 1.0
    return Image.fromarray(((blocks - blocks.min()) * (255 / span)).astype(np.uint8))


def _on_ground(picture: Image.Image) -> Image.Image:
    """Returns a picture of any mode as RGB.

    If less than half of it is opaque, what is opaque is ink: dark ink lies on white, light ink on black. Otherwise it
    is paper, and what is transparent gets the paper's colour.
    """
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    opacity = np.asarray(picture.getchannel("A")) / 255
    if opacity.mean() > 0.5:
        colour = np.median(np.asarray(picture)[opacity > 0.5][:, :3], axis=0).astype(np.uint8)
    else:
        light = (np.asarray(picture.convert("L")) * opacity).sum() > 127 * opacity.sum()
        colour = np.full(3, 0 if light else 255, np.uint8)
    return Image.alpha_composite(Image.new("RGBA", picture.size, (*colour.tolist(), 255)), picture).convert("RGB")
