"""Puts the pieces of ink in a picture together to digits, and the digits in reading order."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels, the last two exclusive

_NEAR, _CRACK = 0.15, 0.09  # gaps between pieces of a stroke, as parts of the digit's height
_DUST = 0.02  # of a digit's area: no piece of it


def box_of(points: np.ndarray) -> Box:
    """Returns the box around pixels, int (n, 2)."""
    return (*points.min(axis=0).tolist(), *(points.max(axis=0) + 1).tolist())


def size_of(box: Box) -> int:
    """Returns the height or the width of a box, whichever is larger."""
    top, left, bottom, right = box
    return max(bottom - top, right - left)


def weighted_median(values: ArrayLike, weights: ArrayLike) -> float:
    """Returns the median of the values, weighted."""
    return float(np.quantile(np.asarray(values), 0.5, weights=np.asarray(weights), method="inverted_cdf"))


def join_pieces(pieces: list[Any]) -> list[np.ndarray]:
    """Returns the pixels, int (n, 2), of each digit: a gap in a stroke, or the bar of a 5, makes pieces of one.

    `pieces` are scikit-image's regions of connected ink.
    """
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
    usual = weighted_median(heights, area)
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
