"""What is ink in a picture: the contrast of each pixel with the paper, and the printed lines that are not written.

Nothing is assumed about the colours, only that ink makes strokes and that paper is wider than they are.
"""

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import approximate_polygon, label, regionprops
from skimage.transform import hough_line, resize

_MIN_CONTRAST = 0.1  # of ink, as a part of what the paper's brightness allows
_STEP = 4  # pixels: the noise of closer ones is alike
_SMALL = 300  # pixels, of the picture in which the direction of the colours is looked for

# To tell ink from paper: the least width of paper between strokes, as a part of the picture, and the side of the
# picture in pixels in which such strokes are looked for.
_GAPS = ((0.9, 300), (0.3, 300), (0.1, 900))
_MAX_WIDTH = 0.6  # of a stroke, as a part of its length: a bold 1
_NARROW = 0.5  # of a stroke's width, as a part of the paper's
_MIN_EDGE = 0.92  # of a stroke's outline: the part at which the picture has an edge

# Of walls: printed boxes, frames and ruled lines.
_SLOPES = np.pi / 2 + np.linspace(-0.14, 0.14, 57)  # radians, of a wall's normal: it may lean by 8 degrees
_LONG = 0.6  # of a wall, as a part of the height or width of what it belongs to
_THIN, _THIN_BOX, _THIN_TICK = 15, 9, 5  # length by width of a ruled line, the wall of a box, the tooth of a comb
_MAX_INK = 0.6  # of a box with what is written in it, as a part of its area
_CORNER = 0.06  # of a box, as a part of its side, that may be round


def ink_contrast(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the contrast and the darkness of each pixel of uint8 (height, width, 3), two float (height, width).

    The contrast is 0 for paper and up to about 1 for ink. The darkness is the same measure with the paper left in:
    shadows are dark, too. Light ink on dark paper counts as dark. Ink may have any colour: the difference from the
    paper is taken along the line through the colours in which neighbouring pixels differ most.
    """
    side = max(pixels.shape)
    colours = gaussian(pixels / np.float32(255), min(1.0, side / 400), channel_axis=2)
    small = _scaled(colours, _SMALL)
    reach = max(small.shape) // 4
    local = (small - ndimage.uniform_filter(small, (reach, reach, 0))).reshape(-1, 3)
    line = np.linalg.eigh(local.T @ local)[1][:, -1]
    line /= np.abs(line).sum()
    darkness = colours @ line - line[line < 0].sum()  # from 0 to 1
    _, width, is_light = max((*_find_strokes(abs(light - darkness)), light) for light in (0, 1))
    width = width or 0.1
    if is_light:
        darkness = 1 - darkness
    return _top_hat(darkness, round(3 * width * side)), darkness


def least_contrast(contrast: np.ndarray) -> float:
    """Returns the contrast of the faintest ink that noise does not hide."""
    steps = np.abs(contrast[_STEP:] - contrast[:-_STEP])
    noise = 1.05 * np.median(steps) if steps.size else 0.0  # the standard deviation, were it normal
    return max(_MIN_CONTRAST, 6 * noise)


def ink_threshold(contrast: np.ndarray) -> float:
    """Returns the contrast at the border of ink: half of the darkest ink's; ruled lines are paler than writing."""
    least = least_contrast(contrast)
    candidates = contrast[contrast > least]
    if not len(candidates):
        return least
    return max(least, candidates[candidates >= threshold_otsu(candidates)].mean() / 2)


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    """Returns the image, float (height, width, ...), at most `side` pixels high and wide."""
    scale = side / max(image.shape)
    shape = [max(1, round(length * scale)) for length in image.shape[:2]]
    return resize(image, shape, anti_aliasing=True) if scale < 1 else image


def _top_hat(darkness: np.ndarray, side: int) -> np.ndarray:
    """Returns the contrast of all that is dark and narrower than `side` pixels, float (height, width).

    The paper is what is left of the picture without that. Shadows stay in it, with edges as sharp as they are. A
    shadow dims paper and ink alike, so the difference is divided by what the paper's brightness allows.
    """
    reach = side // 2 + 1
    # beyond the picture its outermost pixels go on: a shadow or a table that reaches the edge is wide
    paper = ndimage.grey_opening(np.pad(darkness, reach, mode="edge"), size=(side, side))[reach:-reach, reach:-reach]
    contrast = (darkness - paper) / np.maximum(paper, 1 - paper)
    return contrast - np.percentile(contrast, 25)


def _find_strokes(darkness: np.ndarray) -> tuple[float, float]:
    """Returns a score of the strokes in the dark regions, and the widest stroke as a part of the picture's side.

    Ink looks the same beside any wide paper. What looks like ink only if the paper may be narrow counts less.
    """
    total, widest = 0.0, 0.0
    for gap, side in _GAPS:
        grey = _scaled(darkness, side)
        squares, width = _measure_strokes(grey, gap * max(grey.shape))
        total += np.sqrt(gap) * squares
        widest = max(widest, width)
    return total, widest


def _measure_strokes(darkness: np.ndarray, gap: float) -> tuple[float, float]:
    """Returns about how many squares the strokes would fill, and the width of the widest one.

    A stroke is long beside its width, narrow beside the `gap` in pixels, and has an edge all round. What else is
    dark may be pieces of paper between strokes of the other brightness: the number is less if there is much of it.
    """
    contrast, side = _top_hat(darkness, round(gap)), max(darkness.shape)
    ink = contrast > ink_threshold(contrast)
    distance = ndimage.distance_transform_edt(np.pad(ink, 1))[1:-1, 1:-1]
    steps = ndimage.grey_dilation(darkness, 5) - ndimage.grey_erosion(darkness, 5)
    squares, area = 0.0, 0.0
    widths: dict[bool, list[float]] = {True: [], False: [0.0]}
    for region in regionprops(label(ink, connectivity=2), np.dstack([distance, contrast, steps])):
        width, mean = 2 * region.intensity_max[0], region.intensity_mean[1]
        size = max(region.image.shape)
        if width > min(_MAX_WIDTH * size, _NARROW * gap) or size < max(6, 0.01 * side):
            continue
        outline = region.image_intensity[region.image_intensity[..., 0] == 1]
        share = np.mean(outline[:, 2] > mean / 4)
        area += region.area * share**8
        squares += region.area * share**8 * mean / width**2 / np.sqrt(width / side)
        is_sure = bool(share >= _MIN_EDGE) and sides_met(region.bbox, ink.shape) < 2
        widths[is_sure].append(width / side)
    # a scanner's edge or a table's meets more sides than one; so do lines with digits on them
    return squares * area / max(1, int(np.count_nonzero(ink))), max(widths[True] or widths[False])


def sides_met(box: tuple[int, int, int, int], shape: tuple[int, int]) -> int:
    """Returns how many sides of a picture of that shape the box (top, left, bottom, right) meets."""
    return sum([box[0] == 0, box[1] == 0, box[2] == shape[0], box[3] == shape[1]])


def find_walls(ink: np.ndarray) -> np.ndarray:
    """Returns the ink, bool (height, width), of boxes and ruled lines, without the strokes that touch them."""
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
    votes = ndimage.uniform_filter1d(votes.astype(float), 2 * reach + 1, axis=0) * (2 * reach + 1)
    row, column = np.unravel_index(votes.argmax(), votes.shape)
    return (angles[column], distances[row]) if votes[row, column] >= least else None
