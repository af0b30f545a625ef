"""Your own arrays.

In: an .npz with images, labels and, where known, identities, split and classes, the names of the labels; or a folder
with images.npy (read from the disk as needed, so it may be larger than the memory), labels.npy, and if known
identities.npy, split.npy and classes.npy.
Out: Faces, in the order of the rows. Shapes and values: see checked in data/faces.py.
"""
import os
from pathlib import Path

import numpy as np

from data.faces import checked
from data.labels import EXPRESSIONS, decoded, named_labels, plain_labels
from data.layouts import names_of
from data.pixels import squares
from training.errors import UserError

NEEDED = ("images", "labels")
OPTIONAL = ("identities", "split", "classes")


def found(path):
    """Whether path is an .npz, a folder with images.npy, or images.npy itself."""
    path = Path(path)
    return path.suffix.lower() == ".npz" or path.name == "images.npy" or os.path.lexists(path / "images.npy")


def load(path, image_size, seed, options):
    """Faces of the arrays at path; images of another size are resized to image_size pixels.

    A missing split is drawn from the seed, without sharing identities where they are known. No face is left out, so
    that rows stay those of a metric file. options: see data/options.py.
    Raises UserError for an array that is missing, damaged, pickled, misshapen or out of range, and for black faces.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        content, others = _read_npz(path)
    else:
        path = path if path.is_dir() else path.parent
        content = {name: _read_npy(path / f"{name}.npy", "r" if name == "images" else None)
                   for name in NEEDED + OPTIONAL if os.path.lexists(path / f"{name}.npy")}
        others = sorted(file.stem for file in path.glob("*.npy") if file.stem not in NEEDED + OPTIONAL)
    missing = [name for name in NEEDED if name not in content]
    if missing:
        raise UserError(path.absolute(), "arrays images and labels",
                        f"no {' and no '.join(missing)}" + (f", but {', '.join(others)}" if others else ""),
                        _how_to_name(missing, others)
                        + "labels are a number or name for each face, -1 for an unlabelled one")
    if others:
        print(f"warning: {path}: not read: {', '.join(others)}; arrays are named " + ", ".join(NEEDED + OPTIONAL))
    name = path.stem if path.is_file() else path.resolve().name
    images = squares(content["images"], image_size, path, options.COLOUR)
    labels, classes = plain_labels(content["labels"], len(images), path), EXPRESSIONS
    if options.CLASS_NAMES is not None:
        labels = _named(labels, options.CLASS_NAMES, path)
    elif "classes" in content:
        classes = tuple(map(str, decoded(content["classes"]).ravel()))
        if labels.dtype.kind != "U":
            numbers, names = named_labels(labels, classes, len(images), path)
            labels = np.array([*names, "unlabelled"])[numbers]                  # -1 is the last
    faces = checked(images, labels, content.get("identities"), content.get("split"), name, path, seed, classes=classes)
    if labels.dtype.kind != "U" and set(faces.classes) & set(EXPRESSIONS):
        meanings = ", ".join(f"{number} {name}" for number, name in enumerate(EXPRESSIONS))
        print(f"{path}: labels are numbers: taken as {meanings}; CLASS_NAMES or an array classes names others")
    return faces


def _how_to_name(missing, others):
    """How to save arrays of other names as images and labels, for a message."""
    if not len(missing) == len(others) == 2:
        return "save both under these names: numpy.savez(file, images=..., labels=...); "
    images, labels = others
    return (f"rename them, for example: f = numpy.load(file); numpy.savez(new_file, images=f[{images!r}], "
            f"labels=f[{labels!r}]); ")


def _named(labels, class_names, where):
    """The names that CLASS_NAMES gives to labels, whole numbers (N,) or (N, 1), -1 unlabelled."""
    if labels.dtype.kind not in "iu":
        raise UserError(where, "labels that are whole numbers, which CLASS_NAMES names", labels.dtype,
                        "save labels.astype(int)" if labels.dtype.kind == "f" else "leave CLASS_NAMES out")
    named = names_of(class_names, np.unique(labels[labels != -1]).tolist() or [0], where) | {-1: "unlabelled"}
    return np.array([named[label] for label in labels.ravel().tolist()])


def _read_npz(path):
    """The arrays of an .npz that have a meaning here, as a dict, and the names of the others."""
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in NEEDED + OPTIONAL if name in file}
            return content, [name for name in file if name not in content]
    except Exception as error:                                      # numpy and zipfile raise half a dozen kinds here
        raise _damaged(path, error) from None


def _read_npy(path, mmap_mode):
    """One .npy."""
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:
        raise _damaged(path, error) from None
    if not isinstance(array, np.ndarray):
        with array:
            first, file = min(array, default=""), path.name
            raise UserError(path.absolute(), "one array, as numpy.save saves it",
                            f"several, as in an .npz: {', '.join(array)}",
                            f"take one out: numpy.save({file!r}, numpy.load({file!r})[{first!r}])")
    return array


def _damaged(path, error):
    if isinstance(error, OSError) and error.strerror:           # not of what is in it
        remedies = {FileNotFoundError: "put the file there, or remove the link to it",
                    PermissionError: "change its permissions",
                    IsADirectoryError: "save the array as a file in its place"}
        return UserError(path.absolute(), "a file of numpy.save or numpy.savez", error.strerror,
                         remedies.get(type(error), "copy the file anew"))
    return UserError(path.absolute(), "arrays of numbers as numpy saves them", f"{type(error).__name__}: {error}",
                     "save it again with numpy.save or numpy.savez, without object arrays; it may be cut off")
