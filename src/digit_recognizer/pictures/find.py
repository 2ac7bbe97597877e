"""Finds the digits in a picture, and makes each into what MNIST's digits are: START HERE.

Digits have to stand apart: digits that touch are found as one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from scipy.ndimage import binary_dilation, binary_fill_holes, distance_transform_edt
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from skimage.measure import label, regionprops

from digit_recognizer.pictures.ink import find_walls, ink_contrast, ink_threshold, least_contrast, sides_met
from digit_recognizer.pictures.normalize import BOX, mnist_image, normalize_digit

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels, the last two exclusive

_MIN_SIDE = 280  # pixels; smaller pictures are scaled up: gaps of a pixel close
_MIN_SIZE = 0.01  # of a digit, as a part of the picture: 3 mm on a photographed page of A4
_MIN_HEIGHT = 0.35  # of a digit, as a part of what most digits of the picture have
_NEAR, _CRACK = 0.15, 0.09  # gaps between pieces of a stroke, as parts of the digit's height
_DUST = 0.02  # of a digit's area: no piece of it

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
    # walls are looked for among paler ink, too: they may be printed unevenly
    ink = contrast > max(least_contrast(contrast), ink_threshold(contrast) / 2)
    walls = find_walls(ink)
    contrast = np.where(binary_dilation(walls, iterations=2) & ~(ink & ~walls), 0, contrast)  # with their soft edges
    least = least_contrast(contrast)
    regions = regionprops(label(contrast > ink_threshold(contrast), connectivity=2))
    groups, left_out = _select_digits(regions, darkness, least / 2)
    digits = []
    for points in groups:
        box = (*points.min(axis=0).tolist(), *(points.max(axis=0) + 1).tolist())
        image = normalize_digit(contrast, least, points, _margin(box))
        digits.append(Digit(tuple(round(edge / scale) for edge in box), image))
    # beside digits, lines and frames belong to the paper
    left_out[_LINE] = 0 if digits else left_out[_LINE] + label(walls, connectivity=2).max()
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    notes = [f"ink was left out: {reasons}"] if reasons else []
    if not digits:
        return [], [f"no digit: {notes[0] if notes else 'nothing stands out from the paper'}"]
    return [digits[index] for index in reading_order(np.array([digit.box for digit in digits]))], notes


def _select_digits(regions: list[Any], darkness: np.ndarray, step: float) -> tuple[list[np.ndarray], Counter]:
    """Returns the pixels, int (n, 2), of each digit, and how many pieces of ink were left out for which reason.

    `regions` are scikit-image's regions of connected ink, `darkness` is float (height, width), and `step` is that of
    darkness from paper to ink beside it.
    """
    shape = darkness.shape
    left_out: Counter[str] = Counter()

    def keep(reason: str, items: list[Any], is_kept: Callable[[Any], bool]) -> list[Any]:
        kept_items = [item for item in items if is_kept(item)]
        left_out[reason] += len(items) - len(kept_items)
        return kept_items

    least = max(4, _MIN_SIZE * max(shape))
    # specks and dust are not worth a note, unless there is nothing else
    marks = [region for region in regions if _size_of(region.bbox) >= least / 2] or regions
    pieces = keep(_SMALL, marks, lambda region: _size_of(region.bbox) >= least)
    pieces = keep(_LINE, pieces, lambda piece: not _encloses_any(piece, pieces, shape))
    pieces = keep(_SHADOW, pieces, lambda piece: _stands_out(piece, darkness, step))
    # a scanner's edge meets more than one side of the picture; a digit only if the picture is cut to it
    large = [piece for piece in pieces if _size_of(piece.bbox) > max(shape) / 2]
    pieces = keep(_EDGE, pieces, lambda piece: sides_met(piece.bbox, shape) < 2) or large
    digits = keep(_LINE, join_pieces(pieces), lambda points: _height(points) > _height(points[:, ::-1]) / 5)
    if digits:
        least = _MIN_HEIGHT * _weighted_median([*map(_height, digits)], [*map(len, digits)])
        digits = keep(_SMALL, digits, lambda points: _height(points) >= least)
    return digits, left_out


def _encloses_any(frame: Any, pieces: list[Any], shape: tuple[int, int]) -> bool:
    """Returns whether a region, or it and the edges of the picture, enclose a piece that is not small beside it."""
    top, left, bottom, right = frame.bbox
    starts = [piece.coords[0] - (top, left) for piece in pieces if _size_of(piece.bbox) > _size_of(frame.bbox) / 4]
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


def join_pieces(pieces: list[Any]) -> list[np.ndarray]:
    """Joins regions of ink that gaps in a stroke separate; returns the pixels of each digit, int (n, 2)."""
    if not pieces:
        return []
    top, left, bottom, right = np.array([piece.bbox for piece in pieces]).T
    height, width, area = bottom - top, right - left, np.array([piece.area for piece in pieces])
    # of each pair of pieces
    low, high = np.minimum.outer(height, height), np.maximum.outer(height, height)
    both = np.maximum.outer(bottom, bottom) - np.minimum.outer(top, top)
    down = low + high - both  # how far they overlap; a gap if negative
    across = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    overlap = across / np.minimum.outer(width, width)
    gap = np.full(both.shape, np.inf)
    for one, other in np.argwhere(np.triu(np.minimum(down, across) >= -_NEAR * high, 1)):
        gap[one, other] = KDTree(pieces[one].coords).query(pieces[other].coords)[0].min()
    is_flat = height < width  # whole digits are taller than wide
    small = (low < 0.5 * high) & (gap <= _NEAR * high)
    halves = np.logical_and.outer(is_flat, is_flat) & (overlap > 0.5) & (gap <= _NEAR * high)
    cracked = np.logical_or.outer(is_flat, is_flat) & (overlap > 0.5) & (gap <= _CRACK * both)
    is_large = np.minimum.outer(area, area) > _DUST * np.maximum.outer(area, area)
    links = (small | halves | cracked) & is_large
    # the height of most digits, if only these pieces belong together
    groups = [np.flatnonzero(row) for row in _same_group(links)]
    heights = np.array([bottom[group].max() - top[group].min() for group in groups])
    usual = _weighted_median(heights, area)
    one_digit = (both < 1.2 * usual) & (low < 0.75 * both)
    links |= one_digit & (overlap > 0.25) & is_large
    links |= one_digit & (low < 0.6 * usual) & (gap <= _CRACK * usual) & is_large
    digits = {tuple(np.flatnonzero(row)) for row in _same_group(links)}
    return [np.concatenate([pieces[index].coords for index in group]) for group in sorted(digits)]


def _same_group(links: np.ndarray) -> np.ndarray:
    """Returns which pairs are linked over any number of links; of `links`, bool (n, n), the upper half counts."""
    group = connected_components(np.triu(links, 1), directed=False)[1]
    return group[:, None] == group


def reading_order(boxes: np.ndarray) -> np.ndarray:
    """Returns the indices of the boxes, int (n, 4), by rows, from left to right; rows may all slope alike."""
    top, left, bottom, right = boxes.T
    y, x, height = (top + bottom) / 2, (left + right) / 2, np.median(bottom - top)
    # the slope from each box to the next one on its right that stands beside it
    slopes = []
    for index in range(len(boxes)):
        beside = np.flatnonzero((x > x[index]) & (np.abs(y - y[index]) < height / 2))
        if len(beside):
            other = beside[np.argmin(x[beside])]
            slopes.append((y[other] - y[index]) / (x[other] - x[index]))
    level = y - x * np.median(slopes) if slopes else y
    order = np.argsort(level)
    row = np.zeros(len(boxes), int)
    row[order[1:]] = np.cumsum(np.diff(level[order]) > height / 2)
    return np.lexsort((x, row))


def _size_of(box: Box) -> int:
    """Returns the height or the width of a box, whichever is larger."""
    return max(box[2] - box[0], box[3] - box[1])


def _height(points: np.ndarray) -> int:
    return int(np.ptp(points[:, 0])) + 1


def _margin(box: Box) -> int:
    """Returns the pixels from a digit's border, where its ink is half as dark, to paper."""
    return 1 + _size_of(box) // BOX


def _weighted_median(values: ArrayLike, weights: ArrayLike) -> float:
    return float(np.quantile(np.asarray(values), 0.5, weights=np.asarray(weights), method="inverted_cdf"))
