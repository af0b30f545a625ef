"""Public data sets by name, downloaded on first use: torchvision's for image classification; Olivetti and LFW.

In: "torchvision:FashionMNIST" or another of SETS, "olivetti" or "lfw". Out: Faces; the files stay in data/torchvision
and data/scikit_learn.
"""
from pathlib import Path

import numpy as np

from data.faces import checked
from data.pixels import read_pictures, squares
from data.splits import SPLITS, draw_missing_parts
from training.errors import UserError, check_choice

FOLDER = Path(__file__).parent          # holds the folders of downloads
PICTURES_EACH = 20                      # people of LFW with fewer pictures are left out

BY_TRAIN = {"train": dict(train=True), "test": dict(train=False)}
BY_SPLIT = {"train": dict(split="train"), "test": dict(split="test")}
SETS = {                                # {name in torchvision.datasets: {part: the arguments that choose it}}
    **dict.fromkeys(("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "USPS", "CIFAR10", "CIFAR100"), BY_TRAIN),
    "EMNIST": {part: dict(split="balanced", **chosen) for part, chosen in BY_TRAIN.items()},
    **dict.fromkeys(("SVHN", "STL10", "GTSRB", "Food101"), BY_SPLIT),
    **dict.fromkeys(("Flowers102", "DTD", "FGVCAircraft", "RenderedSST2"), {part: dict(split=part) for part in SPLITS}),
    "Country211": {"train": dict(split="train"), "val": dict(split="valid"), "test": dict(split="test")},
    "OxfordIIITPet": {"train": dict(split="trainval"), "test": dict(split="test")},
    "CLEVRClassification": {part: dict(split=part) for part in ("train", "val")},
    "Imagenette": {part: dict(split=part, size="160px") for part in ("train", "val")},
    **dict.fromkeys(("EuroSAT", "SEMEION", "Caltech101", "Caltech256", "FakeData"), {"train": {}})}


def found(name):
    """Whether name is that of a public data set, rather than a path."""
    return name in ("olivetti", "lfw") or str(name).startswith("torchvision:")


def load(name, image_size, seed, options):
    """Faces, or other pictures, of a public data set: squares of image_size pixels, grey unless COLOUR is set.

    The split is the set's own. A val or test that it does not have is a tenth of train each, stratified, from the seed.
    The classes of Olivetti and LFW are people; so that each person is in all parts, identities are unknown (-1).
    Pictures of one grey level are left out. options: see data/options.py.
    Raises UserError for a name that is not in SETS, and where neither the files nor a network are there.
    """
    if name == "olivetti":
        return _olivetti(image_size, seed)
    if name == "lfw":
        return _lfw(image_size, seed, options.COLOUR)
    return _torchvision(str(name).partition(":")[2], image_size, seed, options.COLOUR)


def _torchvision(name, image_size, seed, colour):
    """Faces of one of SETS."""
    from torch.utils.data import ConcatDataset                      # here: torchvision is slow to import
    from torchvision import datasets
    check_choice("DATA=torchvision:NAME", name, SETS)
    folder, where = FOLDER / "torchvision", f"torchvision:{name}"
    kind, parts = getattr(datasets, name), []
    fake = name == "FakeData"                                       # drawn, not downloaded
    for chosen in SETS[name].values():
        parts.append(kind(**chosen) if fake else _fetch(
            where, folder, lambda download: kind(folder, download=download, **chosen)))
    split = np.repeat([SPLITS.index(part) for part in SETS[name]], [len(part) for part in parts])
    if all(hasattr(part, "data") for part in parts):                # uint8 (N, H, W), (N, H, W, 3) or (N, 3, H, W)
        images = np.concatenate([np.asarray(part.data) for part in parts])
        labels = np.concatenate([_labels(part) for part in parts])
        if name == "EMNIST":
            images = images.swapaxes(1, 2)                          # its files hold one column after the other
        images = squares(images, image_size, where, colour)
    else:
        pictures, labels = ConcatDataset(parts), np.full(len(split), -1)

        def picture(row):
            image, labels[row] = pictures[row]
            return image
        threads = 1 if fake else None                               # it draws from torch's global random numbers
        images, read = read_pictures(picture, range(len(split)), image_size, where, colour, threads)
        labels, split = labels[read], split[read]
    classes = getattr(parts[0], "classes", None) or getattr(parts[0], "categories", None) or range(labels.max() + 1)
    classes = tuple(of[0] if isinstance(of, tuple) else str(of) for of in classes)      # the first of several names
    draw_missing_parts(labels, np.full(len(labels), -1), split, seed, where)
    return checked(images, labels, None, split, name, where, seed, drop_flat=True, classes=classes)


def _labels(part):
    """Labels (N,) of a data set that holds them as an array or a list."""
    labels = np.asarray(part.targets if hasattr(part, "targets") else part.labels)
    return labels if labels.ndim == 1 else labels[:, 0]             # QMNIST: the class, then who wrote it, and more


def _olivetti(image_size, seed):
    """Faces of 40 people, 10 pictures each of 64x64 pixels (AT&T Laboratories Cambridge)."""
    from sklearn.datasets import fetch_olivetti_faces
    folder = FOLDER / "scikit_learn"
    content = _fetch("olivetti", folder, lambda download: fetch_olivetti_faces(
        data_home=folder, download_if_missing=download))
    images = squares(content.images, image_size, "olivetti")
    classes = tuple(map(str, range(content.target.max() + 1)))
    return checked(images, content.target, None, None, "Olivetti", "olivetti", seed, drop_flat=True,
                   classes=classes)


def _lfw(image_size, seed, colour):
    """Labeled Faces in the Wild (Huang et al. 2007), funneled: people with at least PICTURES_EACH pictures."""
    from sklearn.datasets import fetch_lfw_people
    folder = FOLDER / "scikit_learn"
    face = slice(70, 195), slice(62, 187)                           # rows and columns of the 250x250 pixels
    resize = 0.5 if image_size <= 62 else None                      # to 62x62, or none: much faster to load
    content = _fetch("lfw", folder, lambda download: fetch_lfw_people(
        data_home=folder, min_faces_per_person=PICTURES_EACH, slice_=face, resize=resize, color=True,
        download_if_missing=download))
    people = tuple(map(str, content.target_names))
    print(f"lfw: {len(content.images)} pictures of the {len(people)} people with at least {PICTURES_EACH}")
    images = squares(content.images, image_size, "lfw", colour)
    return checked(images, content.target, None, None, "LFW", "lfw", seed, drop_flat=True, classes=people)


def _fetch(name, folder, fetch):
    """What fetch(download=False) gives, or where it fails fetch(True). Raises UserError where this fails too."""
    try:
        return fetch(False)
    except Exception:                                               # each set has its own for files that are missing
        print(f"{name}: downloading to {folder}")
    try:
        return fetch(True)
    except Exception as error:                                      # urllib, zipfile, joblib, ... raise a dozen kinds
        raise UserError(folder, f"the files of {name}, or a network to download them",
                        " ".join(f"{type(error).__name__}: {error}".split()),
                        f"run it once with a network; or elsewhere python -m data {name}, and copy that folder here; "
                        "delete files of a download that was cut off") from None
