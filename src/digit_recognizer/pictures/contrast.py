"""How much each pixel of a picture is ink: its difference from the paper around it.

Nothing is assumed of colours, only that most of the picture, or of its rim, is paper.
"""

import numpy as np
from skimage.filters import gaussian, rank, threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import disk, erosion, opening
from skimage.transform import resize

_PAPER_SIDE = 64  # pixels, to estimate the paper in: light changes slowly


def ink_contrast(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the contrast and the darkness of each pixel of uint8 (height, width, 3), two float (height, width).

    The contrast is 0 for paper and up to about 1 for ink. The darkness is the same measure with the paper
    left in, so shadows are dark too.

    Ink may have any colour. The difference from the paper is taken along the line through the colours in
    which the picture differs most, towards the side where the values have their tail.
    """
    height, width, _ = pixels.shape
    colours = gaussian(pixels / np.float32(255), min(1.0, max(height, width) / 400), channel_axis=2)
    paper = _paper_colour(colours)
    # a shadow dims paper and ink alike
    difference = ((colours - paper) / np.maximum(paper, 1 - paper)).reshape(-1, 3)
    line = np.linalg.eigh(difference.T @ difference)[1][:, -1]
    line /= np.abs(line).sum()
    contrast = difference @ line
    if (contrast**3).sum() < 0:
        contrast, line = -contrast, -line
    return contrast.reshape(height, width), colours @ line


def _paper_colour(colours: np.ndarray) -> np.ndarray:
    """Returns the colour that each pixel of float (height, width, 3) would have without ink.

    The median of a wide window comes first. A narrow window then follows light and shadow, whose regions
    are broad; pixels that differ from the first median in strokes do not count in it.
    """
    height, width, _ = colours.shape
    scale = min(1.0, _PAPER_SIDE / max(height, width))
    small = resize(colours, (max(1, round(height * scale)), max(1, round(width * scale))), anti_aliasing=True)
    small, side = np.uint8(small * 255), max(small.shape)
    wide = _window_medians(small, side // 3, np.ones(small.shape[:2], np.uint8))
    off = np.abs(small - wide.astype(float)).max(axis=2)
    off = off > threshold_otsu(off)
    strokes = off & ~opening(off, disk(max(1, side // 8)))
    narrow = _window_medians(small, max(1, side // 8), np.uint8(~strokes))
    return resize(np.where(narrow > 0, narrow, wide) / 255, colours.shape, order=1)


def _window_medians(image: np.ndarray, reach: int, mask: np.ndarray) -> np.ndarray:
    """Returns the median of each pixel's window, uint8 (height, width, 3).

    Args:
        image: uint8 (height, width, 3).
        reach: pixels from the middle of a window to its border.
        mask: uint8 (height, width), 1 for the pixels that count; a window without any has the median 0.
    """
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    # beyond the border of the picture its outermost pixels go on
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    mask = np.pad(mask, reach, mode="edge")
    medians = [rank.median(padded[..., channel], window, mask=mask) for channel in range(3)]
    return np.stack(medians, axis=2)[reach:-reach, reach:-reach]


def paint_over_table(pixels: np.ndarray) -> np.ndarray | None:
    """Returns uint8 (height, width, 3) with the table around a page in the page's colour; None if no page is seen.

    A page is convex, meets no side of the picture, fills at least a fifth of it and is mostly paper.
    """
    height, width, _ = pixels.shape
    step = max(1, max(height, width) // 200)
    small = pixels[::step, ::step].astype(float)
    colours = small.reshape(-1, 3) - small.mean(axis=(0, 1))
    grey = (colours @ np.linalg.eigh(colours.T @ colours)[1][:, -1]).reshape(small.shape[:2])
    light = grey > threshold_otsu(grey)
    for region in (each for mask in (light, ~light) for each in regionprops(label(mask))):
        if (
            region.area_filled > 0.2 * grey.size
            and region.area > 0.7 * region.area_filled
            and region.area_filled > 0.95 * region.area_convex
            and not sides_met(region.bbox, grey.shape)
        ):
            inside = np.zeros(grey.shape, bool)
            inside[region.slice] = erosion(np.pad(region.image_filled, 2), disk(2))[2:-2, 2:-2]
            inside = np.kron(inside, np.ones((step, step), bool))[:height, :width, None]
            page_colour = np.median(small[light == light[*region.coords[0]]], axis=0)
            return np.where(inside, pixels, np.uint8(page_colour))
    return None


def sides_met(box: tuple[int, int, int, int], shape: tuple[int, int]) -> int:
    """Returns how many sides of a picture of that shape the box (top, left, bottom, right) meets."""
    return sum([box[0] == 0, box[1] == 0, box[2] == shape[0], box[3] == shape[1]])
