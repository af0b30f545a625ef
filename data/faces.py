"""The Faces record and its checks.

In: arrays of one source. Out: Faces.
"""
import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from data.leaks import CHUNK, look_at, warn_of_leaks
from data.splits import SPLITS, split_faces
from training.errors import UserError, first_few

EXPRESSIONS = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
SYNONYMS = {"angry": "anger", "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "scared": "fear",
            "happiness": "happy", "joy": "happy", "sadness": "sad", "surprised": "surprise"}
UNLABELLED = ("unlabelled", "unlabeled", "unknown", "-1", "nan", "none", "")       # names of no class


@dataclass
class Faces:
    """Faces of one source.

    images uint8 (N, H, W), or in colour (N, H, W, 3), H = W a multiple of 8, may be memory-mapped; labels int64 (N,)
    into classes, -1 unlabelled; identities int64 (N,), -1 unknown; split int64 (N,) into SPLITS, -1 not used; classes:
    their names; factors: what drew synthetic faces, a dict of arrays (N, ...), else None; files: the paths of the N
    pictures in a folder, else None.
    """
    images: np.ndarray
    labels: np.ndarray
    identities: np.ndarray
    split: np.ndarray
    name: str
    classes: tuple = EXPRESSIONS[:7]
    factors: dict | None = None
    files: tuple | None = None

    def __len__(self):
        return len(self.images)

    @property
    def size(self):
        """The side of a face in pixels."""
        return self.images.shape[1]

    @property
    def channels(self):
        """1, or 3 of faces in colour."""
        return 1 if self.images.ndim == 3 else 3

    def rows(self, split=None, labelled=False):
        """Row numbers int64 of one split ("train", "val", "test") or of all, of labelled faces only if asked."""
        keep = np.ones(len(self), bool) if split is None else self.split == SPLITS.index(split)
        return np.flatnonzero(keep & (self.labels >= 0) if labelled else keep)

    @cached_property
    def fingerprint(self):
        """A hexadecimal digest of the images, labels, identities and split, in their order."""
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, len(self), CHUNK):
            digest.update(np.ascontiguousarray(self.images[start:start + CHUNK]))
        for array in (self.labels, self.identities, self.split):
            digest.update(np.ascontiguousarray(array, dtype="<i8"))
        return digest.hexdigest()

    def images_on(self, device):
        """The images as a uint8 tensor on a device, copied there once."""
        copies = self.__dict__.setdefault("_copies", {})
        if device not in copies:
            images = np.array(self.images) if isinstance(self.images, np.memmap) else self.images
            copies[device] = torch.from_numpy(images).to(device)
        return copies[device]

    def about(self):
        """What settings.json says of the data."""
        counts = np.bincount(self.split[self.split >= 0], minlength=len(SPLITS)).tolist()
        return dict(name=self.name, count=len(self), size=self.size, channels=self.channels,
                    split=dict(zip(SPLITS, counts)), classes=list(self.classes),
                    labelled=int((self.labels >= 0).sum()), fingerprint=self.fingerprint)


# --- making and checking

def checked(images, labels, identities, split, name, where, seed, constant="refuse", classes=EXPRESSIONS, files=None):
    """Faces from arrays, after every check; labels, identities, split and files may be None.

    labels, classes: see named_labels. identities: whole numbers or names. where: the path shown in errors. constant:
    faces of a single grey level, for example black, are refused ("refuse") or left out with a count printed ("leave
    out"). A missing split is drawn by split_faces.
    Raises UserError for a wrong shape, dtype, length or range.
    """
    grey_or_colour = images.ndim == 3 or images.ndim == 4 and images.shape[3] == 3
    if not grey_or_colour or images.shape[1] != images.shape[2] or images.shape[1] % 8 or not images.size:
        raise UserError(where, "images (N, H, W) or (N, H, W, 3) with H = W a multiple of 8", f"shape {images.shape}",
                        "cut or pad the faces to a square, e.g. 48x48")
    if images.dtype != np.uint8:
        bad = f", {np.isnan(images).sum()} NaN" if images.dtype.kind == "f" else ""
        raise UserError(where, "images uint8, 0 to 255", f"{images.dtype}{bad}",
                        "drop faces with NaN, scale to 0..255 and save images.round().astype(numpy.uint8)")
    count = len(images)
    labels, classes = named_labels(labels, classes, count, where)
    identities = _numbered(identities, count, where)
    if split is not None:
        split = _split_numbers(split, count, where)
    flat, digests = look_at(images)
    if flat.any() and constant == "refuse":
        rows = np.flatnonzero(flat)
        raise UserError(where, "faces that are not black or of one grey level", f"{len(rows)}, rows {first_few(rows)}",
                        "keep = images.reshape(len(images), -1).std(1) > 0.002, and save images[keep], labels[keep], "
                        "...")
    if flat.all():
        raise UserError(where, "faces", f"{count} images, each of one grey level",
                        "check the pictures: none shows a face")
    if flat.any():
        print(f"{where}: left out {flat.sum()} of {count} faces that are black or of one grey level")
        images, labels, identities, digests = images[~flat], labels[~flat], identities[~flat], digests[~flat]
        split = None if split is None else split[~flat]
        files = None if files is None else [file for file, left_out in zip(files, flat) if not left_out]
    if split is None:
        split = split_faces(labels, identities, seed, where)
    _check_parts(split, where)
    warn_of_leaks(images, digests, identities, split, where, files)
    return Faces(images, labels, identities, split, readable(name), classes, None, files and tuple(files))


def without_classes(faces, names):
    """The faces without those of these classes, names with commas between; "unlabelled" for faces of none. Raises
    UserError for an unknown name, and where too few faces are left.
    """
    out, where = {class_name(name) for name in names.split(",")}, f"LEFT_OUT={names}"
    unknown = sorted(out - {None, *faces.classes})
    if unknown:
        raise UserError(where, "some of " + ", ".join([*faces.classes, "unlabelled"]), ", ".join(unknown),
                        "correct the names")
    numbers = [number for number, name in enumerate(faces.classes) if name in out]
    rows = np.flatnonzero(~np.isin(faces.labels, numbers + [-1] if None in out else numbers))
    if not len(rows):
        raise UserError(where, "classes of which some faces are left", f"all {len(faces)} faces", "leave fewer out")
    print(f"{where}: left out {len(faces) - len(rows)} of {len(faces)} faces")
    labels, classes = named_labels(faces.labels[rows], faces.classes, len(rows), where)
    split = faces.split[rows]
    _check_parts(split, where)
    factors = None if faces.factors is None else {name: values[rows] for name, values in faces.factors.items()}
    files = faces.files and tuple(faces.files[row] for row in rows)
    return Faces(faces.images[rows], labels, faces.identities[rows], split, faces.name, classes, factors, files)


def class_name(name):
    """The name of a class: for synonyms that of the expression, else the name itself; None for unlabelled faces."""
    name = readable(str(name).strip())
    lower = name.lower()
    if lower in UNLABELLED:
        return None
    return SYNONYMS.get(lower, lower if lower in EXPRESSIONS else name)


def readable(name):
    """A name of a file or folder without the surrogates that stand for bytes that are no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def ordered_classes(names):
    """Names of classes in their order: that of EXPRESSIONS, then numbers by value, then other names."""
    def place(name):
        expression = EXPRESSIONS.index(name) if name in EXPRESSIONS else len(EXPRESSIONS)
        return expression, (0, int(name), "") if name.isdecimal() else (1, 0, name)
    return tuple(sorted(set(names), key=place))


def named_labels(labels, classes, count, where):
    """Labels int64 (count,) into the classes that they have, and the names of these.

    labels: None; integers that index classes, -1 unlabelled (with EXPRESSIONS, if one is too large, each number is a
    class of its own); names, which must be in classes unless that is EXPRESSIONS; or one-hot (count, classes).
    Raises UserError for a wrong shape or value.
    """
    if labels is None:
        return np.full(count, -1), ()
    labels = plain_labels(labels, count, where)
    if labels.dtype.kind == "U":
        names = [class_name(name) for name in labels.tolist()]
        found = {name for name in names if name is not None}
        if classes is EXPRESSIONS:
            classes = ordered_classes(found)
        classes = list(dict.fromkeys(map(class_name, classes)))
        unknown = sorted(found - set(classes))
        if unknown:
            raise UserError(where, "labels that are in classes: " + ", ".join(map(str, classes[:8])),
                            ", ".join(unknown[:8]), "correct the labels, or name all classes")
        classes = tuple(name for name in classes if name in found)
        return np.array([-1 if name is None else classes.index(name) for name in names], np.int64), classes
    labels = _whole_numbers(labels, count, "labels", where)
    if labels.max(initial=-1) >= len(classes):
        if classes is not EXPRESSIONS:
            bad = np.flatnonzero(labels >= len(classes))
            raise UserError(where, f"labels of -1 to {len(classes) - 1}, of {len(classes)} classes",
                            f"{labels[bad[0]]} in row {bad[0]}", "correct the labels, or name all classes")
        classes = None
    found, places = np.unique(labels, return_inverse=True)
    unlabelled = np.count_nonzero(found == -1)                  # it is the first, if there is one
    return places - unlabelled, tuple(str(label if classes is None else classes[label]) for label in found[unlabelled:])


def plain_labels(labels, count, where):
    """Labels as text (count,), or as numbers whose unlabelled faces are -1: from bytes, from one-hot (count, classes),
    and from an unsigned type, where -1 has become the largest number.
    """
    labels = decoded(labels)
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.shape[0] == count and set(np.unique(labels)) <= {0, 1}:
        several = np.flatnonzero(labels.sum(1) > 1)
        if len(several):
            raise UserError(where, "one-hot labels with at most one 1 a row",
                            f"{len(several)} rows with more, rows {first_few(several)}",
                            "give one number a face, -1 for those of several classes")
        return np.where(labels.any(1), labels.argmax(1), -1)
    if labels.dtype.kind == "U":
        if labels.size != count:
            raise UserError(where, f"labels ({count},)", f"shape {labels.shape}", "give one label a face")
        return labels.reshape(count)
    if labels.dtype.kind == "u" and labels.size:
        largest = np.iinfo(labels.dtype).max
        wrapped = labels == largest
        if wrapped.any() and not (labels == largest - 1).any():
            print(f"{where}: {wrapped.sum()} labels {largest} of type {labels.dtype}: taken as -1, unlabelled")
            return np.where(wrapped, -1, labels.astype(np.int64))
    return labels


def decoded(values):
    """values as an array, bytes as text."""
    values = np.asarray(values)
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values


def _numbered(identities, count, where):
    """identities int64 (count,) of whole numbers or of names, -1 for those of nobody."""
    identities = None if identities is None else decoded(identities)
    if identities is None or identities.dtype.kind != "U":
        return _whole_numbers(identities, count, "identities", where)
    names, numbers = np.unique(identities, return_inverse=True)
    nobody = [name.strip().lower() in UNLABELLED for name in names.tolist()]
    return _whole_numbers(np.where(nobody, -1, np.arange(len(names)))[numbers].reshape(identities.shape), count,
                          "identities", where)


def _check_parts(split, where):
    """Raise UserError unless there are faces in train, val and test."""
    for number, part in enumerate(SPLITS):
        if not (split == number).any():
            raise UserError(where, "faces in each of train, val and test", f"none in {part}",
                            "add some, or remove the split array or folders: the split is then drawn at random")


def _whole_numbers(values, count, what, where):
    """values as int64 (count,) of at least -1; -1 for all where values is None."""
    if values is None:
        return np.full(count, -1)
    values = np.asarray(values)
    span = f"{what} ({count},), whole numbers >= -1"
    if values.shape == (count, 1):
        values = values[:, 0]
    if values.shape != (count,):
        raise UserError(where, span, f"shape {values.shape}", "give one number a face")
    if values.dtype.kind == "f" and np.isnan(values).any():
        rows = np.flatnonzero(np.isnan(values))
        raise UserError(where, span, f"{len(rows)} NaN, rows {first_few(rows)}",
                        f"use -1 instead of NaN: numpy.nan_to_num({what}, nan=-1)")
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or (values != np.round(values)).any():
        raise UserError(where, span, f"{values.dtype} that are not whole numbers", "save them as int64")
    bad = np.flatnonzero((values < -1) | (values > 2 ** 63 - 1))
    if len(bad):
        raise UserError(where, span, f"{len(bad)} out of range, e.g. {values[bad[0]]} in row {bad[0]}",
                        f"use -1 for {'unlabelled' if what == 'labels' else 'unknown'}")
    return values.astype(np.int64)


def _split_numbers(split, count, where):
    """split as int64 (count,) from names or 0, 1, 2."""
    split = decoded(split)
    expected = f'split ({count},) of "train", "val", "test" or 0, 1, 2'
    if split.shape != (count,):
        raise UserError(where, expected, f"shape {split.shape}", "give one value a face")
    numbers = {**{name: i for i, name in enumerate(SPLITS)}, **{i: i for i in range(len(SPLITS))}}
    unknown = [value for value in np.unique(split).tolist() if value not in numbers]
    if unknown:
        raise UserError(where, expected, f"{unknown[:5]}", "rename these values")
    return np.array([numbers[value] for value in split.tolist()], np.int64)


def summary(faces):
    """What was found, as text: counts by split, class and identity."""
    width = max(12, *(len(name) + 2 for name in faces.classes)) if faces.classes else 12
    colour = " in colour" if faces.channels == 3 else ""
    lines = [f"{faces.name}: {len(faces)} faces of {faces.size}x{faces.size} pixels{colour}, "
             f"fingerprint {faces.fingerprint}", f"{'':{width}}" + "".join(f"{part:>8}" for part in SPLITS)]
    for label, name in [*enumerate(faces.classes), (-1, "unlabelled")]:
        counts = [((faces.labels == label) & (faces.split == part)).sum() for part in range(len(SPLITS))]
        lines.append(f"{name:{width}}" + "".join(f"{count:8d}" for count in counts))
    people = [np.unique(faces.identities[(faces.split == part) & (faces.identities >= 0)])
              for part in range(len(SPLITS))]
    lines.append(f"{'identities':{width}}" + "".join(f"{len(p):8d}" for p in people))
    lines.append(f"{(faces.identities < 0).sum()} faces of unknown identity")
    return "\n".join(lines)
