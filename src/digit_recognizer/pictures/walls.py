"""Finds printed boxes, frames and ruled lines among the ink of a picture: long straight walls, and what encloses."""

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.spatial import ConvexHull, QhullError
from skimage.measure import approximate_polygon, label, regionprops
from skimage.transform import hough_line

_SLOPES = np.pi / 2 + np.linspace(-0.14, 0.14, 57)  # radians, of a wall's normal: it may lean by 8 degrees
_LONG = 0.6  # of a wall, as a part of the height or width of what it belongs to
_THIN, _THIN_BOX, _THIN_TICK = 15, 9, 5  # length by width of a ruled line, the wall of a box, the tooth of a comb
_MAX_INK = 0.6  # of a box with what is written in it, as a part of its area
_CORNER = 0.06  # of a box, as a part of its side, that may be round


def find_walls(ink: np.ndarray) -> np.ndarray:
    """Returns which pixels of the ink, bool (height, width), are walls of boxes and tables or ruled lines.

    Strokes that cross a wall or touch it are no part of it.
    """
    walls, (height, width) = np.zeros_like(ink), ink.shape
    for region in regionprops(label(ink, connectivity=2)):
        top, left, bottom, right = region.bbox
        if max(bottom - top, right - left) < 16:
            continue
        is_box = _is_box(region)
        across = right - left > min(0.98 * width, 1.2 * (bottom - top))
        down = bottom - top > 0.98 * height
        image = region.image.copy()
        if is_box or across:
            image ^= _level_lines(image, _THIN_BOX if is_box else _THIN)
        ticks = _level_lines(image.T, _THIN_TICK).T
        if across and ticks.sum() > 0.8 * image.sum() and label(ticks).max() > 2:
            image ^= ticks  # a comb, with nothing written on it
        if is_box or down:
            image ^= _level_lines(image.T, _THIN_BOX if is_box else _THIN).T
        walls[region.slice] |= region.image & ~image
    return walls


def _is_box(region) -> bool:
    """Returns whether a region's outline, or most of what it encloses, are boxes with thin walls."""
    if region.area > _MAX_INK * region.area_filled:
        return False
    if region.area_filled > 0.95 * region.area_convex and _has_four_corners(region.coords):
        return True
    cells = regionprops(label(region.image_filled & ~region.image, connectivity=1))
    cells = [cell for cell in cells if cell.area > 0.01 * region.area_filled]
    share = sum(cell.area_convex for cell in cells if _has_four_corners(cell.coords))
    return share > 0.6 * region.area_filled


def _has_four_corners(points: np.ndarray) -> bool:
    """Returns whether the convex hull of points, int (n, 2), is a quadrilateral."""
    try:
        hull = ConvexHull(points)
    except QhullError:  # all on one line
        return False
    ring = points[[*hull.vertices, hull.vertices[0]]]
    start = np.argmax(((ring - ring.mean(axis=0)) ** 2).sum(axis=1))  # a corner
    ring = np.vstack([ring[start:-1], ring[: start + 1]])
    return len(approximate_polygon(ring, _CORNER * np.sqrt(hull.volume))) == 5  # the first one twice


def _level_lines(image: np.ndarray, least_ratio: float) -> np.ndarray:
    """Returns the pixels of bool (height, width) on lines that are nearly level and long beside the image's width."""
    height, width = image.shape
    rows = np.arange(height)[:, None]
    # of each pixel: the first and the last row of the run of ink above and below it
    first = np.maximum.accumulate(np.where(image, -1, rows), axis=0) + 1
    last = np.minimum.accumulate(np.where(image, height, rows)[::-1], axis=0)[::-1] - 1
    run, centre = last - first + 1, (first + last) / 2
    middle = image & (rows == (first + last) // 2)
    lines, y, x = np.zeros_like(image), *np.nonzero(image)
    thickest = height
    while middle.any():
        thickness = np.bincount(run[middle]).argmax()  # of most lines
        thickest = min(thickest, 2 * thickness + 2)
        thin = middle & (run <= 1.5 * thickness + 1)
        tolerance = max(1.0, thickness / 2, width / 250)
        line = _longest_line(thin, int(tolerance), max(_LONG * width, least_ratio * thickness))
        if line is None or thickness > thickest:
            break
        away = x * np.cos(line[0]) + centre[y, x] * np.sin(line[0]) - line[1]
        near = (np.abs(away) <= tolerance + 1) & (run[y, x] <= 1.5 * thickness + 1)
        lines[y[near], x[near]] = True
        middle &= ~lines
    return lines


def _longest_line(points: np.ndarray, reach: int, least: float) -> tuple[float, float] | None:
    """Returns the angle of the normal and the distance from the corner of the line that meets most points.

    None if it meets fewer than `least`. A point of bool (height, width) counts up to `reach` pixels beside the line.
    """
    votes, angles, distances = hough_line(points, _SLOPES)
    votes = uniform_filter1d(votes.astype(float), 2 * reach + 1, axis=0) * (2 * reach + 1)
    row, column = np.unravel_index(votes.argmax(), votes.shape)
    return (angles[column], distances[row]) if votes[row, column] >= least else None
