"""Pictures of rows, with what the ensemble says of them, for the pages."""

import base64
import io
from collections.abc import Container, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from digit_recognizer.results.evaluation import Evaluation
from digit_recognizer.results.templating import percent

_MOST_LABELS = 3  # of which a picture has the probabilities
_LEAST = 0.0005  # of a probability that is told


@dataclass(frozen=True)
class Item:
    """A picture and its caption."""

    image: str  # data URI
    alt: str
    title: str
    lines: list[str]
    note: str = ""
    pair: str = ""  # "4-9" for label 4, predicted 9


def data_uri(image: np.ndarray) -> str:
    """Returns a picture uint8 (28, 28) as a PNG in an address, dark ink on white paper."""
    buffer = io.BytesIO()
    Image.fromarray(255 - image).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _probabilities(probabilities: np.ndarray, label: int | None = None) -> str:
    """The highest probabilities, float (10,), and that of `label`, in words."""
    order = np.argsort(-probabilities, kind="stable").tolist()
    told = [each for each in order[:_MOST_LABELS] if probabilities[each] >= _LEAST]
    if label is not None and label not in told:
        told = [*told[: _MOST_LABELS - 1], label]
    return ", ".join(f"{each}:\N{NO-BREAK SPACE}{percent(float(probabilities[each]))}" for each in told)


def training_items(
    evaluation: Evaluation, images: np.ndarray, rows: Iterable[int], marked: Container[int] = ()
) -> list[Item]:
    """Returns an item for each of these training rows, numbered from 0, that is wrong out of fold.

    `images` are uint8 (training rows, 28, 28). Rows in `marked` are likely mislabelled.
    """
    items = []
    for row in rows:
        label, probabilities = int(evaluation.dataset.train_labels[row]), evaluation.oof[row]
        predicted, votes = int(probabilities.argmax()), evaluation.votes[:, row]
        lines = [_probabilities(probabilities, label), f"row {row}"]
        if (votes >= 0).sum() > 1:
            lines.append(f"{(votes == predicted).sum()} of {(votes >= 0).sum()} members")
        items.append(
            Item(
                data_uri(images[row]),
                f"Training row {row}: label {label}, predicted {predicted}",
                f"{label} as {predicted}",
                lines,
                "label?" if int(row) in marked else "",
                f"{label}-{predicted}",
            )
        )
    return items


def test_items(evaluation: Evaluation, images: np.ndarray) -> list[Item]:
    """Returns an item for each test row that the ensemble is least sure of.

    `images` are uint8 (test rows, 28, 28).
    """
    members = len(evaluation.members)
    return [
        Item(
            data_uri(images[each["row"]]),
            f"Test row {each['id']}: predicted {each['predicted']}",
            str(each["predicted"]),
            [
                _probabilities(evaluation.test[each["row"]]),
                f"id {each['id']}",
                f"{each['votes']} of {members} members",
            ],
        )
        for each in evaluation.report["least_sure"]
    ]


def compared_items(
    images: np.ndarray,
    labels: np.ndarray,
    rows: Iterable[int],
    names: tuple[str, str],
    probabilities: tuple[np.ndarray, np.ndarray],
) -> list[Item]:
    """Returns an item for each of these training rows, numbered from 0, with what each of two runs says of it.

    `images` are uint8 (training rows, 28, 28), `labels` uint8 (training rows,), and the `probabilities` of each
    run, out of fold, float (training rows, 10).
    """
    items = []
    for row in rows:
        said = [f"{name}: {_probabilities(own[row])}" for name, own in zip(names, probabilities, strict=True)]
        alt = f"Training row {row}: label {labels[row]}"
        items.append(Item(data_uri(images[row]), alt, f"label {labels[row]}", [*said, f"row {row}"]))
    return items
