"""Test-time augmentation: views of a picture, and the mean over them."""

import keras
import numpy as np
import pytest
from keras import ops

from digit_recognizer.named_recipes import named
from digit_recognizer.recipes import change
from digit_recognizer.training.predict import apply, predict_with_tta, views_of

PLAIN = change(named("fast"), dict.fromkeys(("rotation", "zoom", "shift", "shear"), 0.0))


class Corner(keras.Model):
    """Stands for a network: how bright the upper left pixel is."""

    def call(self, images, training=False):
        first = ops.cast(images[:, 0, 0], "float32") / 255
        return ops.stack([first, 1 - first, *[ops.zeros_like(first)] * 8], axis=-1)


@pytest.fixture
def disc():
    """A picture, uint8 (1, 28, 28), of a disc of a radius of 3 pixels, 6 pixels above the middle."""
    y, x = np.mgrid[:28, :28] - 13.5
    return (255 * np.clip(3.5 - np.hypot(y + 6, x), 0, 1)).round().astype(np.uint8)[None]


def centre(picture):
    """The centre of mass, (down, right) in pixels from the middle of a picture (28, 28)."""
    y, x = np.mgrid[:28, :28] - 13.5
    return np.array([(picture * y).sum(), (picture * x).sum()]) / picture.sum()


def centres(recipe, disc):
    return np.array([centre(apply(view, disc)[0]) for view in views_of(recipe)])


def test_the_mean_over_distorted_views(dataset):
    """Views of uncertain pictures, in whatever company."""
    images = np.maximum(dataset.test_images, 60)  # no corner is sure
    views = views_of(change(named("fast"), {"tta_views": 5}))
    corners = np.mean([apply(view, images)[:, 0, 0] / 255 for view in views], axis=0)
    found = predict_with_tta(Corner(), images, views)
    assert len(views) == 5 and found[:, 0] == pytest.approx(corners) and (corners < 0.23).any()
    assert (predict_with_tta(Corner(), images[3:4], views) == found[3]).all()


def test_views_are_few_and_always_the_same_ones(disc):
    recipe = named("best")
    first, again = ([apply(view, disc).tobytes() for view in views_of(recipe)] for _ in range(2))
    assert first == again and len(set(first)) == len(first) == recipe.tta_views == 16
    assert views_of(named("bn_cnn")) == [] and views_of(change(recipe, {"tta_views": 0})) == []


def test_views_lie_around_the_picture_in_pairs(disc):
    """Half as far as training moves it, and on both sides."""
    moved = centres(change(PLAIN, {"shift": 0.1, "tta_views": 64}), disc) - centre(disc[0])
    assert moved[::2] == pytest.approx(-moved[1::2], abs=0.05)
    assert np.abs(moved).max(axis=0) == pytest.approx([1.4, 1.4], abs=0.15)  # pixels


def test_views_turn_and_slant_half_as_much_as_training_does(disc):
    turned = centres(change(PLAIN, {"rotation": 15.0, "tta_views": 64}), disc)
    angles = np.degrees(np.arctan2(turned[:, 1], -turned[:, 0]))
    assert angles[::2] == pytest.approx(-angles[1::2], abs=0.2)
    assert np.abs(angles).max() == pytest.approx(7.5, abs=0.5)
    assert np.hypot(*turned.T) == pytest.approx(6, abs=0.1)
    slanted = centres(change(PLAIN, {"shear": 0.3, "tta_views": 64}), disc)
    assert slanted[:, 0] == pytest.approx(-6, abs=0.1)
    assert np.abs(slanted[:, 1]).max() == pytest.approx(6 * 0.15, abs=0.1)
