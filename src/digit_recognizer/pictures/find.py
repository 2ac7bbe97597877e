"""Finds the digits in a picture, and makes each into what MNIST's digits are.

Digits have to stand apart: digits that touch are found as one.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops

from digit_recognizer.pictures.contrast import ink_contrast, paint_over_table, sides_met
from digit_recognizer.pictures.normalize import BOX, normalize_digit

_MIN_CONTRAST = 0.1  # of ink, as a part of what the paper's brightness allows
_MIN_SIZE = 0.01  # of a digit, as a part of the picture: 3 mm on a photographed page of A4
_MAX_HOLES = 4  # in a digit: an 8 has two, and noise may make more; squared paper has many

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels, the last two exclusive


@dataclass(frozen=True)
class FoundDigit:
    """A digit in a picture: its `box`, and the `image` that a network takes, uint8 (28, 28)."""

    box: Box
    image: np.ndarray

    @property
    def too_wide(self) -> bool:
        """True if no digit is as wide: probably several digits touch."""
        top, left, bottom, right = self.box
        return right - left > 1.3 * (bottom - top)


def find_digits(pixels: np.ndarray) -> list[FoundDigit]:
    """Returns the digits in a picture, uint8 (height, width, 3), in reading order; none without ink."""
    page = paint_over_table(pixels)
    # what looked like a page may be a thick stroke
    return (_find_on_paper(page) if page is not None else []) or _find_on_paper(pixels)


def _find_on_paper(pixels: np.ndarray) -> list[FoundDigit]:
    contrast, darkness = ink_contrast(pixels)
    noise = 1.4826 * np.median(np.abs(contrast))  # the standard deviation, were it normal
    least = max(_MIN_CONTRAST, 6 * noise)
    candidates = contrast[contrast > least]
    if not len(candidates):
        return []
    # Ruled lines are paler than what is written on them: half of what is darkest is the border.
    strong = candidates[candidates >= threshold_otsu(candidates)]
    regions = regionprops(label(contrast > max(least, strong.mean() / 2), connectivity=2))
    found = []
    for points in _select_digits(regions, darkness, least / 2):
        box = _box(points)
        found.append(FoundDigit(box, normalize_digit(contrast, least, points, _margin(box))))
    order = _reading_order(np.array([digit.box for digit in found])) if found else []
    return [found[index] for index in order]


def _select_digits(regions: list, darkness: np.ndarray, step: float) -> list[np.ndarray]:
    """Returns the pixels, int (n, 2), of each digit among scikit-image's connected regions of ink.

    Specks, lines, shadows and frames are left out. `darkness` is float (height, width); ink differs from the
    paper beside it by a `step` of it at least.
    """
    least = max(4, _MIN_SIZE * max(darkness.shape))
    pieces = [
        region
        for region in regions
        if _size(region.bbox) >= least
        and 1 - region.euler_number <= _MAX_HOLES
        and _stands_out(region, darkness, step)
    ]
    # A ruled line or a scanner's edge meets more than one side of the picture; a digit only where the
    # picture is cut to it.
    pieces = [piece for piece in pieces if sides_met(piece.bbox, darkness.shape) < 2] or [
        piece for piece in pieces if _size(piece.bbox) > max(darkness.shape) / 2
    ]
    digits = [np.concatenate([piece.coords for piece in group]) for group in _join_pieces(pieces)]
    digits = [points for points in digits if not _is_line(_box(points))]
    if not digits:
        return []
    sizes = np.array([_size(_box(points)) for points in digits])
    # the size of the digit that has the middle one of all pixels of ink, sorted by size
    usual = np.sort(np.repeat(sizes, [len(points) for points in digits]))[sum(map(len, digits)) // 2]
    return [points for points, size in zip(digits, sizes, strict=True) if size >= usual / 4]


def _stands_out(region, darkness: np.ndarray, step: float) -> bool:
    """Returns whether close by the paper is lighter by `step` on nearly all sides; not so at a shadow."""
    reach = _margin(region.bbox)
    distance, nearest = distance_transform_edt(~np.pad(region.image, reach), return_indices=True)
    around = np.argwhere((distance > reach - 1) & (distance > 0) & (distance <= reach))
    inside = nearest[:, *around.T].T
    corner = np.array(region.bbox[:2]) - reach
    in_picture = ((around + corner >= 0) & (around + corner < darkness.shape)).all(axis=1)
    around, inside = (around + corner)[in_picture].T, (inside + corner)[in_picture].T
    steps = darkness[tuple(inside)] - darkness[tuple(around)]
    return np.count_nonzero(steps > step) >= 0.8 * len(steps) > 0


def _margin(box: Box) -> int:
    """Returns the pixels from a digit's border, where its ink is half as dark, to paper."""
    return 1 + _size(box) // BOX


def _size(box: Box) -> int:
    top, left, bottom, right = box
    return max(bottom - top, right - left)


def _is_line(box: Box) -> bool:
    top, left, bottom, right = box
    return right - left > 5 * (bottom - top)


def _box(points: np.ndarray) -> Box:
    return (*points.min(axis=0).tolist(), *(points.max(axis=0) + 1).tolist())


def _join_pieces(pieces: list) -> list[list]:
    """Returns regions in groups, one a digit: a gap in a stroke, or the bar of a 5, makes pieces of one."""
    if not pieces:
        return []
    top, left, bottom, right = np.array([piece.bbox for piece in pieces]).T
    height, area = bottom - top, np.array([piece.area for piece in pieces])
    # of each pair
    reach = 0.15 * np.maximum.outer(height, height)
    down = np.maximum.outer(top, top) - np.minimum.outer(bottom, bottom)  # a gap where positive
    across = np.maximum.outer(left, left) - np.minimum.outer(right, right)
    part = np.divide.outer(area, area)
    fragment = (np.divide.outer(height, height) < 0.5) & (part > 0.02)
    half = height < right - left  # whole digits of two close lines are taller than wide
    stacked = (
        np.logical_and.outer(half, half)
        & (down > -0.1 * reach)
        & (-across > np.minimum.outer(right - left, right - left) / 2)
    )
    near = (np.maximum(down, across) <= reach) & (fragment | fragment.T | stacked)
    for one, other in np.argwhere(np.triu(near, 1)):
        gap = KDTree(pieces[one].coords).query(pieces[other].coords)[0].min()
        near[one, other] = gap <= reach[one, other]
    count, group = connected_components(np.triu(near, 1), directed=False)
    return [
        [piece for piece, of in zip(pieces, group, strict=True) if of == number] for number in range(count)
    ]


def _reading_order(boxes: np.ndarray) -> np.ndarray:
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
