"""Reads a picture file of any usual kind as RGB pixels."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from digit_recognizer.files import UserError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM")  # others start programs, or are rare
WORK_SIDE = 1200  # pixels; larger pictures are scaled down to it
_MIN_SIDE = 280  # pixels; smaller ones, such as MNIST's own, are scaled up: gaps of a pixel close


def read_picture(path: Path) -> np.ndarray:
    """Returns the picture in a file as uint8 (height, width, 3).

    It is upright, on white where it is transparent, and at most WORK_SIDE high and wide.

    Raises UserError for anything but a whole picture.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the pictures in it, such as {path / '*.jpg'}")
    if not path.is_file():
        raise UserError(f"{path} is missing: name a picture that is there")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty: copy or save it again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                picture = _on_white(_reduce(file))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = Image.MAX_IMAGE_PIXELS // 10**6
        raise UserError(f"{path} has more than {most} million pixels: save it smaller") from None
    except Image.UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise UserError(f"{path} is no picture that can be read: save it as one of {known}") from None
    except PermissionError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): change its permissions") from None
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged ({what}): copy or save it again") from None
    if max(picture.size) < _MIN_SIDE:
        picture = ImageOps.contain(picture, (_MIN_SIDE, _MIN_SIDE))
    return np.asarray(picture)


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
    """Returns a picture of 16 bits or more as 8 bits, from its lowest to its highest value.

    Not all of the bits may be used. Blocks of pixels are averaged first: a copy of all pixels in a wider
    number format would take gigabytes.
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


def _on_white(picture: Image.Image) -> Image.Image:
    """Returns a picture of any mode as RGB, on white where it is transparent."""
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")
