"""Finds the digits in a picture, and makes each into what MNIST's digits are: START HERE.

Digits have to stand apart: digits that touch are found as one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, binary_fill_holes, distance_transform_edt
from skimage.measure import label, regionprops

from digit_recognizer.pictures.contrast import ink_contrast, ink_threshold, least_contrast, sides_met
from digit_recognizer.pictures.normalize import BOX, mnist_image, normalize_digit
from digit_recognizer.pictures.pieces import Box, box_of, join_pieces, reading_order, size_of, weighted_median
from digit_recognizer.pictures.walls import find_walls

_MIN_SIDE = 280  # pixels; smaller pictures are scaled up: gaps of a pixel close
_MIN_SIZE = 0.01  # of a digit, as a part of the picture: 3 mm on a photographed page of A4
_MIN_HEIGHT = 0.35  # of a digit, as a part of what most digits of the picture have

# why ink is left out
_LINE, _SHADOW = "in lines or frames", "with a soft border, as shadows have"
_EDGE, _SMALL = "along the edge of the picture", "far smaller than a digit"


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Digit:
    """A digit in a picture: its `box`, and the `image` that a network takes, uint8 (28, 28)."""

    box: Box
    image: np.ndarray

    @property
    def is_too_wide(self) -> bool:
        """True if no digit is as wide: probably several digits touch."""
        top, left, bottom, right = self.box
        return right - left > 1.3 * (bottom - top)


def find_digits(pixels: np.ndarray) -> tuple[list[Digit], list[str]]:
    """Returns the digits in a picture, uint8 (height, width, 3), in reading order, and notes on ink that is no digit.

    A picture of 28 x 28 in MNIST's form, also enlarged, is one digit, as it is. Without a digit, a note says why.
    """
    image = mnist_image(pixels)
    if image is not None:
        return [Digit((0, 0, *pixels.shape[:2]), image)], []
    scale = max(1.0, _MIN_SIDE / max(pixels.shape))
    if scale > 1:
        height, width, _ = pixels.shape
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    contrast, darkness = ink_contrast(pixels)
    contrast, walls = _without_walls(contrast)
    least = least_contrast(contrast)
    regions = regionprops(label(contrast > ink_threshold(contrast), connectivity=2))
    groups, left_out = _select_digits(regions, darkness, least / 2)
    digits = []
    for points in groups:
        box = box_of(points)
        image = normalize_digit(contrast, least, points, _margin(box))
        digits.append(Digit(tuple(round(edge / scale) for edge in box), image))
    if digits:
        del left_out[_LINE]  # they are on the paper
        digits = [digits[index] for index in reading_order(np.array([digit.box for digit in digits]))]
    else:
        left_out[_LINE] += walls
    return digits, _notes(bool(digits), left_out)


def _notes(has_digits: bool, left_out: Counter) -> list[str]:
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    if has_digits:
        return [f"ink was left out: {reasons}"] if reasons else []
    return [f"no digit: ink was left out: {reasons}" if reasons else "no digit: nothing stands out from the paper"]


def _without_walls(contrast: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the contrast, float (height, width), with walls and ruled lines as paper, and the number of them.

    They are looked for among paler ink, too: a wall may be printed unevenly.
    """
    ink = contrast > max(least_contrast(contrast), ink_threshold(contrast) / 2)
    walls = find_walls(ink)
    soft_edges = binary_dilation(walls, iterations=2) & ~(ink & ~walls)
    return np.where(soft_edges, 0, contrast), label(walls, connectivity=2).max()


def _select_digits(regions: list[Any], darkness: np.ndarray, step: float) -> tuple[list[np.ndarray], Counter]:
    """Returns the pixels, int (n, 2), of each digit, and how many pieces of ink were left out for which reason.

    Args:
        regions: scikit-image's regions of connected ink.
        darkness: float (height, width).
        step: of darkness, from paper to ink beside it.
    """
    shape = darkness.shape
    left_out: Counter[str] = Counter()

    def keep(reason: str, items: list[Any], is_kept: Callable[[Any], bool]) -> list[Any]:
        kept_items = [item for item in items if is_kept(item)]
        left_out[reason] += len(items) - len(kept_items)
        return kept_items

    least = max(4, _MIN_SIZE * max(shape))
    # specks and dust are not worth a note, unless there is nothing else
    marks = [region for region in regions if size_of(region.bbox) >= least / 2] or regions
    pieces = keep(_SMALL, marks, lambda region: size_of(region.bbox) >= least)
    pieces = keep(_LINE, pieces, lambda piece: not _encloses_any(piece, pieces, shape))
    pieces = keep(_SHADOW, pieces, lambda piece: _stands_out(piece, darkness, step))
    # a scanner's edge meets more than one side of the picture; a digit only if the picture is cut to it
    large = [piece for piece in pieces if size_of(piece.bbox) > max(shape) / 2]
    pieces = keep(_EDGE, pieces, lambda piece: sides_met(piece.bbox, shape) < 2) or large
    digits = keep(_LINE, join_pieces(pieces), lambda points: _height(points) > _height(points[:, ::-1]) / 5)
    if digits:
        least = _MIN_HEIGHT * weighted_median([*map(_height, digits)], [*map(len, digits)])
        digits = keep(_SMALL, digits, lambda points: _height(points) >= least)
    return digits, left_out


def _height(points: np.ndarray) -> int:
    return int(np.ptp(points[:, 0])) + 1


def _encloses_any(frame: Any, pieces: list[Any], shape: tuple[int, int]) -> bool:
    """Returns whether a region, or it and the edges of the picture, enclose a piece that is not small beside it."""
    top, left, bottom, right = frame.bbox
    starts = [piece.coords[0] - (top, left) for piece in pieces if size_of(piece.bbox) > size_of(frame.bbox) / 4]
    starts = [(y, x) for y, x in starts if 0 < y < bottom - top and 0 < x < right - left]
    if not starts:
        return False
    closed = frame.image.copy()
    closed[0] |= top < 3
    closed[-1] |= bottom > shape[0] - 3
    closed[:, 0] |= left < 3
    closed[:, -1] |= right > shape[1] - 3
    inside = binary_fill_holes(closed) & ~closed
    return any(inside[start] for start in starts)


def _stands_out(region: Any, darkness: np.ndarray, step: float) -> bool:
    """Returns whether close by the paper is lighter by `step` on nearly all sides; not so at a shadow."""
    reach = _margin(region.bbox)
    distance, nearest = distance_transform_edt(~np.pad(region.image, reach), return_indices=True)
    around = np.argwhere((distance > reach - 1) & (distance > 0) & (distance <= reach))
    inside = nearest[:, *around.T].T
    corner = np.array(region.bbox[:2]) - reach
    in_picture = ((around + corner >= 0) & (around + corner < darkness.shape)).all(axis=1)
    around, inside = (around + corner)[in_picture].T, (inside + corner)[in_picture].T
    steps = darkness[tuple(inside)] - darkness[tuple(around)]
    return len(steps) > 0 and bool(np.mean(steps > step) >= 0.8)


def _margin(box: Box) -> int:
    """Returns the pixels from a digit's border, where its ink is half as dark, to paper."""
    return 1 + size_of(box) // BOX
