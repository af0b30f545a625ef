"""FER2013 (Goodfellow et al. 2013), from fer2013.csv or icml_face_data.csv.

In: the csv, or a folder that holds it, or holds it in fer2013/. Out: Faces, with the official split.

torchvision.datasets.FER2013 reads the same files, but joins PublicTest and PrivateTest and takes five times as long;
from it we take the file names, the places and the checksums.
"""
import csv
import hashlib
import warnings
from pathlib import Path

import numpy as np

from data.faces import checked
from data.labels import EXPRESSIONS, class_name
from data.pixels import squares
from data.splits import draw_missing_parts
from training.errors import UserError

FILES = ("fer2013.csv", "icml_face_data.csv")
CHECKSUMS = ("f8428a1edbd21e88f42c73edd2a14f95", "b114b9e04e6949e5fe8b6a98b3892b1d",     # of FILES and of Kaggle's
             "3f0dfb3d3fd99c811a1299cb947e3131")                                        # train.csv, as in torchvision
FER_PLUS = "fer2013new.csv"             # ten votes a face, beside one of FILES, row by row (Barsoum et al. 2016)
VOTED = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
SUBFOLDERS = ("", "fer2013")            # of the given folder, looked at in this order
SIZE = 48                               # pixels
CLASSES = 8                             # EXPRESSIONS, in that order; only Kaggle's ckextended.csv has contempt
NO_LABELS = ("pixels", "usage", "", "index", "id", "unnamed: 0")       # columns, of a csv that may lack emotion
USAGE = {"Training": 0, "PublicTest": 1, "PrivateTest": 2}      # an index of SPLITS


def found(path):
    """Whether path is a csv, or a folder with FER2013's."""
    path = Path(path)
    return path.is_file() and (path.suffix.lower() == ".csv" or has_header(path)) or _choose(path) is not None


def has_header(path):
    """Whether a file begins as these csv files do, whatever its name."""
    try:
        with open(path, "rb") as file:
            return b"pixels" in file.read(64).lower().split(b"\n")[0]
    except OSError:
        return False


def load(path, image_size, seed, options):
    """Faces of FER2013; image_size in pixels, PublicTest is val and PrivateTest is test.

    A csv without a Usage column (Kaggle's train.csv) gets a split drawn from the seed; one without PublicTest or
    PrivateTest gets a tenth of Training as it. Without a column emotion faces are unlabelled. Faces of one grey level,
    of which FER2013 has a few, are left out. options: see data/options.py.
    Raises UserError where there is no csv, a column is missing, or a row is malformed (it names the line).
    """
    path = Path(path)
    file = path if path.is_file() else _choose(path)
    if file is None:
        raise UserError(path.absolute(), " or ".join(FILES), "neither",
                        "put one there (data/README.md says where it comes from); where the faces are image files, "
                        "give the folder that holds train/ and test/")
    print(f"reading {file}")
    try:
        checksum = hashlib.md5(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(file, "a csv that can be read", error.strerror, "change its permissions") from None
    if checksum not in CHECKSUMS:
        print(f"warning: {file.name} is not the public file (its checksum differs), read all the same")
    images, labels, split = _read(file)
    votes = file.with_name(FER_PLUS)
    if options.FER_PLUS and votes.is_file():
        labels = _majority(votes, len(images))
        kept = labels >= 0
        print(f"{votes}: labels of FER+, the majority of ten votes; left out {(~kept).sum()} of {len(kept)} faces "
              "without one")
        images, labels, split = images[kept], labels[kept], None if split is None else split[kept]
    if split is not None:
        if not (split == 0).any():
            raise UserError(file, "rows with Usage Training", "none",
                            "delete the column Usage: then the split is drawn")
        draw_missing_parts(labels, np.full(len(labels), -1), split, seed, file)
    faces = checked(images, labels, None, split, "FER2013", file, seed, drop_flat=True)
    faces.images = squares(faces.images, image_size, file)
    return faces


def _majority(path, count):
    """Labels int64 (count,) into EXPRESSIONS: the expression with more than half of the votes; -1 where none has."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        votes = np.array([[int(row[name]) for name in VOTED] for row in rows]).reshape(-1, len(VOTED))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(path, "the votes of FER+: columns " + ", ".join(VOTED), f"{type(error).__name__}: {error}",
                        "get the file anew, or FER_PLUS=False for FER2013's own labels") from None
    if len(votes) != count:
        raise UserError(path, f"{count} rows, as many as faces", len(votes),
                        "get the file anew, or FER_PLUS=False for FER2013's own labels")
    labels = np.array([EXPRESSIONS.index(class_name(name)) for name in VOTED[:8]] + [-1, -1])
    return np.where(votes.max(1) > votes.sum(1) / 2, labels[votes.argmax(1)], -1)


def _choose(path):
    """The csv to read in a folder, or None."""
    return next((path / folder / name for folder in SUBFOLDERS for name in FILES
                 if (path / folder / name).is_file()), None)


def _read(path):
    """images uint8 (N, 48, 48), labels int64 (N,), split int64 (N,) or None, in the order of the rows."""
    images, labels, split = [], [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file, warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)      # what older numpy says of text that is no number
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]    # icml_face_data.csv has blanks there
            if "pixels" not in header:
                raise UserError(path, "columns emotion, pixels, Usage", f"columns {', '.join(header)[:80] or 'none'}",
                                "take fer2013.csv or icml_face_data.csv as it comes")
            if "emotion" not in header:
                if not set(header) <= set(NO_LABELS):
                    raise UserError(path, "columns emotion, pixels, Usage", f"columns {', '.join(header)[:80]}",
                                    "rename the column of labels to emotion; delete it for unlabelled faces")
                print(f"{path}: no emotion column: unlabelled")
            for row in filter(None, reader):
                image, label, part = _parse(row, header, f"{path}, line {reader.line_num}")
                images.append(image)
                labels.append(label)
                split.append(part)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(path, "a csv file", error, "get the file anew") from None
    if not images:
        raise UserError(path, "rows of faces", "a header only", "get the file anew")
    return np.stack(images), np.array(labels), np.array(split) if "usage" in header else None


def _parse(row, header, where):
    """One row's image uint8 (48, 48), label and part."""
    if len(row) != len(header):
        raise UserError(where, f"{len(header)} columns", f"{len(row)}", "get the file anew, it may be cut off")
    row = dict(zip(header, row))
    try:
        pixels = np.fromstring(row["pixels"], np.int64, sep=" ")
    except (DeprecationWarning, ValueError):
        raise UserError(where, f"pixels: {SIZE * SIZE} numbers", f"{row['pixels'][:40]!r}...",
                        "correct the line or get the file anew") from None
    if len(pixels) != SIZE * SIZE or pixels.min() < 0 or pixels.max() > 255:
        span = f" from {pixels.min()} to {pixels.max()}" if len(pixels) else ""
        raise UserError(where, f"{SIZE * SIZE} pixels from 0 to 255", f"{len(pixels)}{span}",
                        "correct the line or get the file anew, it may be cut off")
    label = row.get("emotion", "-1").strip()                    # a test.csv has no labels
    if label not in map(str, range(CLASSES)) and "emotion" in row:
        raise UserError(where, f"emotion 0 to {CLASSES - 1}", repr(label), "correct the line")
    usage = row.get("usage", "Training").strip()
    if usage not in USAGE:
        raise UserError(where, "Usage " + ", ".join(USAGE), repr(usage), "correct the line")
    return pixels.astype(np.uint8).reshape(SIZE, SIZE), int(label), USAGE[usage]
