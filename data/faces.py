"""The Faces record and its checks.

In: arrays of one source. Out: Faces.
"""
import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from data.labels import EXPRESSIONS, class_name, decoded, named_labels, numbered_people, readable
from data.leaks import CHUNK, look_at, warn_of_leaks
from data.splits import SPLITS, split_faces
from training.errors import UserError, first_few


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

def checked(images, labels, identities, split, name, where, seed, drop_flat=False, classes=EXPRESSIONS, files=None):
    """Faces from arrays, after every check; labels, identities, split and files may be None.

    labels, classes: see named_labels. identities: whole numbers or names. where: the path shown in errors. drop_flat:
    faces of a single grey level, for example black, are left out and counted instead of refused. A missing split is
    drawn by split_faces.
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
    identities = numbered_people(identities, count, where)
    if split is not None:
        split = _split_numbers(split, count, where)
    flat, digests = look_at(images)
    if flat.any() and not drop_flat:
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


def _check_parts(split, where):
    """Raise UserError unless there are faces in train, val and test."""
    for number, part in enumerate(SPLITS):
        if not (split == number).any():
            raise UserError(where, "faces in each of train, val and test", f"none in {part}",
                            "add some, or remove the split array or folders: the split is then drawn at random")


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
