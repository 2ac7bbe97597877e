"""A person's own pictures of digits, made into what MNIST is: the ink found, cropped, scaled and centred.

Nothing is assumed of colours, only that most of the picture, or of its rim, is paper: ink is what differs
from the paper around it. Digits have to stand apart: those that touch are found as one.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import center_of_mass, distance_transform_edt
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from skimage.filters import gaussian, rank, threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import disk, erosion, opening, skeletonize
from skimage.transform import resize

from digit_recognizer.data.digits import SIDE
from digit_recognizer.errors import UserError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM")  # others start programs, or are rare
WORK_SIDE = 1200  # pixels; larger pictures are scaled down to it
_LEAST_SIDE = 280  # pixels; smaller ones, such as MNIST's own, are scaled up: gaps of a pixel close

_PAPER_SIDE = 64  # pixels, to estimate the paper in: light changes slowly
_LEAST_CONTRAST = 0.1  # of ink, as a part of what the paper's brightness allows
_LEAST_SIZE = 0.01  # of a digit, as a part of the picture: 3 mm on a photographed page of A4
_MOST_HOLES = 4  # in a digit: an 8 has two, and noise may make more; squared paper has many

_BOX = 20  # pixels: MNIST scales a digit into a box of 20 x 20 in its 28 x 28
_LEAST_STROKE = 2.0  # pixels in that box; MNIST's strokes are two to three wide, a pen's often less than one


@dataclass(frozen=True)
class Ink:
    """A digit in a picture: where it is, and what a network takes.

    `box` is (top, left, bottom, right) in pixels, the last two exclusive; `image` is uint8 (28, 28).
    """

    box: tuple[int, int, int, int]
    image: np.ndarray

    @property
    def too_wide(self) -> bool:
        """True if no digit is so wide: probably several that touch."""
        top, left, bottom, right = self.box
        return right - left > 1.3 * (bottom - top)


def read(path: Path) -> np.ndarray:
    """The picture in a file as uint8 (height, width, 3), upright, over white, scaled to at most WORK_SIDE.

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
                picture = _over_white(ImageOps.exif_transpose(file))
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
    picture.thumbnail((WORK_SIDE, WORK_SIDE), Image.Resampling.BOX)
    if max(picture.size) < _LEAST_SIDE:
        picture = ImageOps.contain(picture, (_LEAST_SIDE, _LEAST_SIDE))
    return np.asarray(picture)


def _over_white(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB."""
    if picture.mode.startswith(("I", "F")):  # 16 bits or more, of which not all may be used
        values = np.asarray(picture, np.float64)
        span = np.ptp(values) or 1.0
        picture = Image.fromarray(((values - values.min()) * (255 / span)).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def find(pixels: np.ndarray) -> list[Ink]:
    """The digits in a picture, uint8 (height, width, 3), in reading order; none where there is no ink."""
    page = _page(pixels)
    # what looked like a page may be a thick stroke
    return (_find(page) if page is not None else []) or _find(pixels)


def _page(pixels: np.ndarray) -> np.ndarray | None:
    """The picture with the table around a page painted in the page's colour; None where no page is seen.

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
            and not _sides(region.bbox, grey.shape)
        ):
            inside = np.zeros(grey.shape, bool)
            inside[region.slice] = erosion(np.pad(region.image_filled, 2), disk(2))[2:-2, 2:-2]
            inside = np.kron(inside, np.ones((step, step), bool))[:height, :width, None]
            return np.where(
                inside, pixels, np.uint8(np.median(small[light == light[*region.coords[0]]], axis=0))
            )
    return None


def _find(pixels: np.ndarray) -> list[Ink]:
    contrast, darkness = _contrast(pixels)
    noise = 1.4826 * np.median(np.abs(contrast))  # the standard deviation, were it normal
    least = max(_LEAST_CONTRAST, 6 * noise)
    candidates = contrast[contrast > least]
    if not len(candidates):
        return []
    # Ruled lines are paler than what is written on them: half of what is darkest is the border.
    strong = candidates[candidates >= threshold_otsu(candidates)]
    regions = regionprops(label(contrast > max(least, strong.mean() / 2), connectivity=2))
    found = [_normalise(contrast, least, points) for points in _digits(regions, darkness, least / 2)]
    order = _reading_order(np.array([each.box for each in found])) if found else []
    return [found[number] for number in order]


def _contrast(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much each pixel is ink, 0 for paper and up to about 1; and the same with the paper left in.

    Ink may be of any colour: the difference from the paper is taken along the line through the colours in
    which the picture differs most, in the direction to which it has its tail.
    """
    height, width, _ = pixels.shape
    colours = gaussian(pixels / np.float32(255), min(1.0, max(height, width) / 400), channel_axis=2)
    paper = _paper(colours)
    # a shadow dims paper and ink alike
    difference = ((colours - paper) / np.maximum(paper, 1 - paper)).reshape(-1, 3)
    line = np.linalg.eigh(difference.T @ difference)[1][:, -1]
    line /= np.abs(line).sum()
    contrast = difference @ line
    if (contrast**3).sum() < 0:
        contrast, line = -contrast, -line
    return contrast.reshape(height, width), colours @ line


def _paper(colours: np.ndarray) -> np.ndarray:
    """What the paper's colour would be at each pixel of float (height, width, 3), were there no ink.

    The median of a wide window first. What differs from it in strokes counts no more in the narrow window that
    follows light and shadow, whose regions are broad.
    """
    height, width, _ = colours.shape
    scale = min(1.0, _PAPER_SIDE / max(height, width))
    small = resize(colours, (max(1, round(height * scale)), max(1, round(width * scale))), anti_aliasing=True)
    small, side = np.uint8(small * 255), max(small.shape)
    wide = _medians(small, side // 3, np.ones(small.shape[:2], np.uint8))
    off = np.abs(small - wide.astype(float)).max(axis=2)
    off = off > threshold_otsu(off)
    strokes = off & ~opening(off, disk(max(1, side // 8)))
    narrow = _medians(small, max(1, side // 8), np.uint8(~strokes))
    return resize(np.where(narrow > 0, narrow, wide) / 255, colours.shape, order=1)


def _medians(image: np.ndarray, reach: int, mask: np.ndarray) -> np.ndarray:
    """Of uint8 (height, width, 3), over windows that reach so far, of the pixels in the mask; 0 where none is."""
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    # the rim counts for what lies beyond it
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    mask = np.pad(mask, reach, mode="edge")
    medians = [rank.median(padded[..., channel], window, mask=mask) for channel in range(3)]
    return np.stack(medians, axis=2)[reach:-reach, reach:-reach]


def _digits(regions: list, darkness: np.ndarray, step: float) -> list[np.ndarray]:
    """The pixels, int (n, 2), of each digit among the regions of ink: no specks, lines, shadows or frames."""
    least = max(4, _LEAST_SIZE * max(darkness.shape))
    pieces = [
        region
        for region in regions
        if _size(region.bbox) >= least
        and 1 - region.euler_number <= _MOST_HOLES
        and _stands_out(region, darkness, step)
    ]
    # A ruled line or a scanner's edge meets more than one side of the picture; a digit only where the
    # picture is cut to it.
    pieces = [piece for piece in pieces if _sides(piece.bbox, darkness.shape) < 2] or [
        piece for piece in pieces if _size(piece.bbox) > max(darkness.shape) / 2
    ]
    digits = [np.concatenate([piece.coords for piece in group]) for group in _join(pieces)]
    digits = [points for points in digits if not _is_line(_box(points))]
    if not digits:
        return []
    sizes = np.array([_size(_box(points)) for points in digits])
    # of the digit in which the middle pixel of all ink lies
    usual = np.sort(np.repeat(sizes, [len(points) for points in digits]))[sum(map(len, digits)) // 2]
    return [points for points, size in zip(digits, sizes, strict=True) if size >= usual / 4]


def _stands_out(region, darkness: np.ndarray, step: float) -> bool:
    """True if the paper is lighter by `step` on nearly all sides, close by: that of a shadow or a table is not."""
    reach = _margin(region.bbox)
    distance, nearest = distance_transform_edt(~np.pad(region.image, reach), return_indices=True)
    around = np.argwhere((distance > reach - 1) & (distance > 0) & (distance <= reach))
    inside = nearest[:, *around.T].T
    corner = np.array(region.bbox[:2]) - reach
    in_picture = ((around + corner >= 0) & (around + corner < darkness.shape)).all(axis=1)
    around, inside = (around + corner)[in_picture].T, (inside + corner)[in_picture].T
    steps = darkness[tuple(inside)] - darkness[tuple(around)]
    return np.count_nonzero(steps > step) >= 0.8 * len(steps) > 0


def _margin(box: tuple[int, int, int, int]) -> int:
    """Pixels from a digit's border, where its ink is half as dark, to paper."""
    return 1 + _size(box) // _BOX


def _size(box: tuple[int, int, int, int]) -> int:
    top, left, bottom, right = box
    return max(bottom - top, right - left)


def _sides(box: tuple[int, int, int, int], shape: tuple[int, int]) -> int:
    """How many sides of the picture a box meets."""
    return sum([box[0] == 0, box[1] == 0, box[2] == shape[0], box[3] == shape[1]])


def _is_line(box: tuple[int, int, int, int]) -> bool:
    top, left, bottom, right = box
    return right - left > 5 * (bottom - top)


def _box(points: np.ndarray) -> tuple[int, int, int, int]:
    return (*points.min(axis=0).tolist(), *(points.max(axis=0) + 1).tolist())


def _join(pieces: list) -> list[list]:
    """Regions in groups, one a digit: a gap in a stroke, or the bar of a 5, makes pieces of one."""
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
        [piece for piece, number in zip(pieces, group, strict=True) if number == each]
        for each in range(count)
    ]


def _normalise(contrast: np.ndarray, least: float, points: np.ndarray) -> Ink:
    """The digit of those pixels as MNIST has it: in a box of 20 x 20, its mass in the middle of 28 x 28."""
    box = _box(points)
    margin = _margin(box)  # what the threshold cut off the strokes' soft edges
    top, left = max(0, box[0] - margin), max(0, box[1] - margin)
    window = contrast[top : box[2] + margin, left : box[3] + margin]
    mask = np.zeros(window.shape, bool)
    mask[tuple((points - (top, left)).T)] = True
    distance = distance_transform_edt(~mask)
    scale = _BOX / _size(box)
    # A stroke is ink all through, as in MNIST; its edge is as soft as it will be in the box.
    ink = 0.5 + (window / np.percentile(window[mask], 75) - 0.5) * max(1, 0.5 / scale)
    ink = np.clip(ink, 0, 1) * (window > least) * (distance <= margin)
    missing = _LEAST_STROKE / scale - mask.sum() / max(1, skeletonize(mask).sum())
    if missing > 1:
        ink = np.maximum(ink, np.clip(1 + missing / 2 - distance, 0, 1))
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shape = [max(1, round(length * _BOX / max(ink.shape))) for length in ink.shape]
    small = resize(ink, shape, order=1, anti_aliasing=True)
    small /= small.max()
    image = np.zeros((SIDE, SIDE), np.uint8)
    middle = [round(SIDE / 2 - centre) for centre in center_of_mass(small)]
    row, column = (min(max(0, start), SIDE - length) for start, length in zip(middle, shape, strict=True))
    image[row : row + shape[0], column : column + shape[1]] = np.round(small * 255)
    return Ink(box, image)


def _reading_order(boxes: np.ndarray) -> np.ndarray:
    """The numbers of the boxes, int (n, 4), by rows, from left to right; rows may all slope alike."""
    top, left, bottom, right = boxes.T
    y, x, height = (top + bottom) / 2, (left + right) / 2, np.median(bottom - top)
    # the slope from each box to the next one on its right that stands beside it
    slopes = []
    for number in range(len(boxes)):
        beside = np.flatnonzero((x > x[number]) & (np.abs(y - y[number]) < height / 2))
        if len(beside):
            other = beside[np.argmin(x[beside])]
            slopes.append((y[other] - y[number]) / (x[other] - x[number]))
    level = y - x * np.median(slopes) if slopes else y
    order = np.argsort(level)
    row = np.zeros(len(boxes), int)
    row[order[1:]] = np.cumsum(np.diff(level[order]) > height / 2)
    return np.lexsort((x, row))
