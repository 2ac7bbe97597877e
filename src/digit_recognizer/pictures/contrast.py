"""How much each pixel of a picture is ink: its difference from the paper around it.

Nothing is assumed about the colours, only that ink makes strokes and that paper is wider than they are.
"""

import numpy as np
from scipy.ndimage import (
    distance_transform_edt,
    grey_closing,
    grey_dilation,
    grey_erosion,
    grey_opening,
    uniform_filter,
)
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label, regionprops
from skimage.transform import resize

_MIN_CONTRAST = 0.1  # of ink, as a part of what the paper's brightness allows
_SHARE = 0.8
_STEP = 4  # pixels; the noise of closer ones is alike
_SMALL = 300  # pixels, of the picture in which strokes are looked for first
_WIDEST = 0.4  # of a stroke, as a part of its length: a bold 1
_GAPS = (0.9, 0.3, 0.1)  # between strokes, as parts of the picture, that are tried
_NARROW = 0.35  # of a stroke's width, as a part of the paper's


def ink_contrast(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the contrast and the darkness of each pixel of uint8 (height, width, 3), two float (height, width).

    The contrast is 0 for paper and up to about 1 for ink. The darkness is the same measure with the paper
    left in: shadows are dark, too. Light ink on dark paper counts as dark.

    Ink may have any colour. The difference from the paper is taken along the line through the colours in
    which neighbouring pixels differ most.
    """
    colours = gaussian(pixels / np.float32(255), min(1.0, max(pixels.shape) / 400), channel_axis=2)
    scale = min(1.0, _SMALL / max(pixels.shape))
    shape = [max(1, round(length * scale)) for length in colours.shape[:2]]
    small = resize(colours, shape, anti_aliasing=True) if scale < 1 else colours
    side = max(shape)
    local = (small - uniform_filter(small, (side // 4, side // 4, 0))).reshape(-1, 3)
    line = np.linalg.eigh(local.T @ local)[1][:, -1]
    line /= np.abs(line).sum()
    grey = small @ line
    range_ = grey_dilation(grey, 5) - grey_erosion(grey, 5)
    tries = []
    for direction in (line, -line):
        measured = [
            _measure_strokes(_top_hat(small, direction, round(part * side)), range_, part * side) for part in _GAPS
        ]
        # ink looks the same beside any wide paper; what looks like ink beside narrow paper alone may be paper
        total = sum(np.sqrt(part) * squares for part, (squares, _) in zip(_GAPS, measured, strict=True))
        tries.append((total, max(measured)[1], direction))
    _, width, line = max(tries, key=lambda each: each[0])
    if not width:  # a digit as bold as it is high: the rim of the picture is paper
        grey, rim = (small @ line, np.concatenate([small[[0, -1]].reshape(-1, 3), small[:, [0, -1]].reshape(-1, 3)]))
        line, width = line * np.sign(((grey - np.median(rim @ line)) ** 3).sum() or 1), side / 4
    contrast = _top_hat(colours, line, round(3 * width / scale))
    return contrast, colours @ line


def least_contrast(contrast: np.ndarray) -> float:
    """Returns the contrast of the faintest ink that noise does not hide."""
    steps = np.abs(contrast[_STEP:] - contrast[:-_STEP])
    noise = 1.05 * np.median(steps) if steps.size else 0.0  # the standard deviation, were it normal
    return max(_MIN_CONTRAST, 6 * noise)


def ink_threshold(contrast: np.ndarray) -> float:
    """Returns the contrast at the border of ink: half of what the darkest of it has.

    Ruled lines are paler than what is written on them.
    """
    least = least_contrast(contrast)
    candidates = contrast[contrast > least]
    if not len(candidates):
        return least
    return max(least, candidates[candidates >= threshold_otsu(candidates)].mean() / 2)


def _top_hat(colours: np.ndarray, line: np.ndarray, side: int) -> np.ndarray:
    """Returns the contrast, float (height, width), of all that is darker along `line` and narrower than `side` pixels.

    The paper is what is left of the picture without that: shadows stay in it, with edges as sharp as they are. A
    shadow dims paper and ink alike, so the difference is divided by what the paper's brightness allows.
    """
    # beyond the picture its outermost pixels go on: a shadow or a table that reaches the edge is wide
    reach = side // 2 + 1
    contrast = np.zeros(colours.shape[:2], np.float32)
    for channel, share in enumerate(line):
        values = colours[..., channel]
        padded = np.pad(values, reach, mode="edge")
        paper = (grey_opening if share > 0 else grey_closing)(padded, size=(side, side))
        paper = paper[reach:-reach, reach:-reach]
        contrast += (values - paper) / np.maximum(paper, 1 - paper) * share
    return contrast - np.percentile(contrast, 25)


def _measure_strokes(contrast: np.ndarray, range_: np.ndarray, gap: float) -> tuple[float, float]:
    """Returns how many squares the strokes of a picture would fill, and the width of the widest one in pixels.

    A stroke is long beside its width, and narrow beside the `gap`: what is as wide as the paper may be is probably
    a piece of paper between strokes of the other brightness. The number is less if such pieces stand out, too.
    """
    ink = contrast > ink_threshold(contrast)
    distance = distance_transform_edt(np.pad(ink, 1))[1:-1, 1:-1]
    squares, area, widths = 0.0, 0.0, {True: [], False: [0.0]}
    for region in regionprops(label(ink, connectivity=2), np.dstack([distance, contrast, range_])):
        width, size = 2 * region.intensity_max[0], max(region.image.shape)
        if width < min(_WIDEST * size, _NARROW * gap) and size >= 0.02 * max(ink.shape):
            rim = region.image_intensity[..., 0] == 1
            share = np.mean(region.image_intensity[rim, 2] > 0.25 * region.intensity_mean[1])
            if share < _SHARE:
                continue
            squares += region.area * region.intensity_mean[1] / width**2.5
            area += region.area
            widths[sides_met(region.bbox, ink.shape) < 2].append(width)
    # a scanner's edge or a table's meets more sides than one; so do lines with digits on them
    return squares * area / max(1, np.count_nonzero(ink)), max(widths[True] or widths[False])


def sides_met(box: tuple[int, int, int, int], shape: tuple[int, int]) -> int:
    """Returns how many sides of a picture of that shape the box (top, left, bottom, right) meets."""
    return sum([box[0] == 0, box[1] == 0, box[2] == shape[0], box[3] == shape[1]])
