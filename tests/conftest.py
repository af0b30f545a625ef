"""Ground that the tests share: the repo on the path, a small Faces, and the check of a user's error."""
import os
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:         # pytest -n 2: each worker has one core
    os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.faces import checked     # noqa: E402, after the path
from data.labels import EXPRESSIONS as ALL_EXPRESSIONS     # noqa: E402, after the path
from training.errors import UserError           # noqa: E402

EXPRESSIONS = ALL_EXPRESSIONS[:7]
PEOPLE = 10
SCRIPTS = ("run", "experiments", "expr_classifier.run", "metric_vae.run", "benchmarks.regularizers",
           "benchmarks.compare", "benchmarks.speed", "benchmarks.scale")
WITH_CONSTANTS = (*SCRIPTS, "data.options")


def draw_small_images(size=16, people=PEOPLE, seed=0):
    """uint8 (7 people, size, size), a face of each label and person: bars by label, brightness by person, noise."""
    rng = np.random.default_rng(seed)
    images = np.empty((len(EXPRESSIONS) * people, size, size), np.uint8)
    line = np.arange(size)
    for row in range(len(images)):
        label, person = row % len(EXPRESSIONS), row // len(EXPRESSIONS)
        bars = 60 * np.sin((label + 1) * line / size * np.pi)[:, None] + 3 * line      # rows and columns differ
        images[row] = np.clip(100 + 5 * person + bars + rng.normal(0, 5, (size, size)), 0, 255)
    return images


@pytest.fixture
def images():
    """uint8 (70, 16, 16): face i has label i % 7 and person i // 7."""
    return draw_small_images()


@pytest.fixture
def labels():
    """int64 (70,)."""
    return np.arange(len(EXPRESSIONS) * PEOPLE) % len(EXPRESSIONS)


@pytest.fixture
def identities():
    """int64 (70,)."""
    return np.arange(len(EXPRESSIONS) * PEOPLE) // len(EXPRESSIONS)


@pytest.fixture
def small_faces(images, labels, identities):
    """70 faces of 16x16 pixels, 10 people with each expression once; persons 0..7 train, 8 val, 9 test."""
    split = np.array([0] * 8 + [1, 2])[identities]
    return checked(images, labels, identities, split, "small", "small faces", seed=0)


@pytest.fixture
def toronto():
    """TFD's four fields for 84 faces of 48x48 pixels: 70 labelled ones of 10 people, then 14 unlabelled ones.

    In fold f person p is part (p + f) % 10: 0..6 train, 7 and 8 valid, 9 test.
    """
    images = draw_small_images(48, people=12)
    labels = np.where(np.arange(84) < 70, np.arange(84) % 7 + 1, -1).astype(np.int16)
    identities = np.where(labels > 0, np.arange(84) // 7, -1).astype(np.int16)
    place = (identities[:, None] + np.arange(5)) % 10
    folds = np.where(labels[:, None] < 0, 0, np.where(place < 7, 1, np.where(place < 9, 2, 3))).astype(np.uint8)
    return dict(images=images, labs_ex=labels[:, None], labs_id=identities[:, None], folds=folds)


@pytest.fixture
def fer_images():
    return draw_small_images(48)


@pytest.fixture
def content(images, labels, identities):
    split = np.array(["train"] * 8 + ["val", "test"])[identities]
    return dict(images=images, labels=labels, identities=identities, split=split)


@pytest.fixture
def user_error():
    """user_error(call, *words): call() must raise a UserError of four filled parts with these words; its text."""
    def check(call, *words):
        with pytest.raises(UserError) as caught:
            call()
        text = str(caught.value)
        where, rest = text.split("\n  expected: ")
        expected, rest = rest.split("\n  found:    ")
        found, remedy = rest.split("\n  remedy:   ")
        assert where and expected and found and remedy, text
        for word in words:
            assert str(word) in text, f"{word!r} is not in: {text}"
        return text
    return check


@pytest.fixture
def one_thread():
    """Networks as small as the tests' are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
