"""Makes a digit that was found in a picture into what MNIST's digits are."""

import numpy as np
from PIL import Image
from scipy.ndimage import center_of_mass, distance_transform_edt
from skimage.morphology import skeletonize
from skimage.transform import resize

from digit_recognizer import SIDE

BOX = 20  # pixels: MNIST scales a digit into a box of 20 x 20 in its 28 x 28
_MIN_STROKE = 2.0  # pixels in that box; MNIST's strokes are two to three wide, a pen's often less than one
_PLAIN = 32  # grey values: what MNIST's form may differ from black or white beside the digit, or in its colours
_OFF_CENTRE = 4  # pixels, of the mass of a digit in MNIST's form at most
_ENLARGED = 5  # grey values: what an enlarged picture may differ from its small one, enlarged, on average


def mnist_image(pixels: np.ndarray) -> np.ndarray | None:
    """Returns a picture, uint8 (height, width, 3), as MNIST's uint8 (28, 28) if it has that form, else None.

    That is a grey digit, light on black or dark on white, in the middle of 28 x 28 pixels, which may be enlarged.
    """
    image = _reduce_enlarged(pixels[..., 1])
    if image is None or np.ptp(pixels.astype(int), axis=2).max() > _PLAIN:
        return None
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    if np.median(rim) > 127:
        image, rim = 255 - image, 255 - rim
    if np.mean(rim > _PLAIN) > 0.2 or image.max() < 128:
        return None
    off = np.subtract(center_of_mass(image), (SIDE - 1) / 2)
    return image if np.abs(off).max() <= _OFF_CENTRE else None


def _reduce_enlarged(grey: np.ndarray) -> np.ndarray | None:
    """Returns a square picture, uint8 (side, side), as uint8 (28, 28) if it shows no more than that, else None."""
    if grey.shape[0] != grey.shape[1] or len(grey) < SIDE:
        return None
    picture = Image.fromarray(grey)
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    for method in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC):
        if np.abs(np.asarray(small.resize(picture.size, method), int) - grey).mean() <= _ENLARGED:
            return np.asarray(small)
    return None


def normalize_digit(contrast: np.ndarray, least: float, points: np.ndarray, margin: int) -> np.ndarray:
    """Returns the digit as MNIST has it, uint8 (28, 28): in a box of 20 x 20, its mass in the middle.

    `contrast` is float (height, width), how much each pixel of the picture is ink, and `least` that of the faintest
    ink. `points` are rows and columns, int (n, 2), of the digit's pixels. `margin` pixels lie from its border to paper.
    """
    # the threshold cut off the strokes' soft edges: the margin has them
    (top, left), (bottom, right) = points.min(axis=0), points.max(axis=0) + 1
    scale = BOX / max(bottom - top, right - left)
    top, left = max(0, top - margin), max(0, left - margin)
    window = contrast[top : bottom + margin, left : right + margin]
    mask = np.zeros(window.shape, bool)
    mask[tuple((points - (top, left)).T)] = True
    distance = distance_transform_edt(~mask)
    # A stroke is ink all through, as in MNIST; its edge is as soft as it will be in the box.
    ink = 0.5 + (window / np.percentile(window[mask], 75) - 0.5) * max(1, 0.5 / scale)
    ink = np.clip(ink, 0, 1) * (window > least) * (distance <= margin)
    missing = _MIN_STROKE / scale - mask.sum() / max(1, skeletonize(mask).sum())
    if missing > 1:
        ink = np.maximum(ink, np.clip(1 + missing / 2 - distance, 0, 1))
    # without empty rows and columns, BOX pixels high or wide
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shape = [max(1, round(length * BOX / max(ink.shape))) for length in ink.shape]
    small = resize(ink, shape, order=1, anti_aliasing=True)
    small /= small.max()
    # its centre of mass in the middle, to whole pixels
    image = np.zeros((SIDE, SIDE), np.uint8)
    start = [round(SIDE / 2 - centre) for centre in center_of_mass(small)]
    top, left = (min(max(0, at), SIDE - length) for at, length in zip(start, small.shape, strict=True))
    image[top : top + small.shape[0], left : left + small.shape[1]] = np.round(small * 255)
    return image
