"""A person's own pictures: what is found in them, what a network sees of it, and what it reads."""

import io
import os
import struct
import zlib

import matplotlib
import numpy as np
import pytest
from conftest import THREADS
from PIL import Image, ImageDraw, ImageFont
from skimage.transform import resize, rotate

from digit_recognizer import digits, pictures, recipes
from digit_recognizer.errors import UserError
from digit_recognizer.folds import members, split
from digit_recognizer.run import Run, write_json

FONTS = {
    "sans": "DejaVuSans.ttf",
    "mono": "DejaVuSansMono.ttf",
    "serif": "DejaVuSerif.ttf",
    "stix": "STIXGeneral.ttf",
    "cm": "cmr10.ttf",
}
PAPER, PEN = (236, 232, 220), (40, 42, 66)


def coverage(font, text, size=120):
    """The text in one of matplotlib's fonts: how much of each pixel is ink, float (height, width)."""
    path = f"{matplotlib.get_data_path()}/fonts/ttf/{FONTS[font]}"
    face = ImageFont.truetype(path, size)
    left, top, right, bottom = face.getbbox(text)
    image = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), text, 255, face)
    return np.asarray(image) / 255


def scaled(image, factor=10):
    """A row of a CSV, uint8 (28, 28), as a smooth drawing."""
    return resize(image / 255, (28 * factor, 28 * factor), order=3).clip(0, 1)


def sheet(rows, pitch=200, paper=PAPER, pen=PEN, angle=0.0, light=None, noise=0.0, seed=0):
    """A picture, uint8 (height, width, 3), of rows of drawings, each in the middle of a square of `pitch`."""
    ink = np.zeros((pitch * len(rows), pitch * max(map(len, rows))))
    for row, drawings in enumerate(rows):
        for column, drawing in enumerate(drawings):
            height, width = drawing.shape
            top, left = row * pitch + (pitch - height) // 2, column * pitch + (pitch - width) // 2
            ink[top : top + height, left : left + width] = drawing
    ink = rotate(ink, angle, resize=True)[..., None]
    colours = np.array(paper) * (1 - ink) + np.array(pen) * ink
    if light is not None:
        y, x = np.mgrid[0 : ink.shape[0], 0 : ink.shape[1]] / np.reshape(ink.shape[:2], (2, 1, 1))
        colours *= light(y, x)[..., None]
    colours += np.random.default_rng(seed).normal(0, 1, colours.shape) * noise
    return np.uint8(colours.clip(0, 255))


def half_in_shadow(y, x):
    """A gradient, and a shadow with a soft edge over the lower right of it."""
    return (1 - 0.25 * y) * (1 - 0.35 / (1 + np.exp(-(x + y - 1) / 0.02)))


CONDITIONS = {
    "clean": {},
    "light on dark": {"paper": (30, 40, 36), "pen": (225, 230, 228)},
    "colours of the same brightness": {"paper": (120, 190, 110), "pen": (225, 70, 90)},
    "pencil": {"pen": (165, 165, 165), "noise": 4},
    "shadow and gradient": {"light": half_in_shadow, "noise": 6},
    "noise": {"noise": 20},
    "left": {"angle": 10, "noise": 5},
    "right": {"angle": -10, "noise": 5},
}
