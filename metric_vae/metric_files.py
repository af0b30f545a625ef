"""Files that hold a metric, as they come: points (N, k) or distances (N, N) as .npy, .npz, .csv or .pt, and distances
of some pairs as scipy.sparse.save_npz writes them.

In: a path. Out: a Table, whose numbers are not checked; then the checks, which raise UserError.
"""
import csv
import pickle
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch

from data.splits import SPLITS
from training.errors import UserError, described, first_few
from training.storage import read_json

KINDS = ("points", "distances")
INDEX_NAMES = ("", "index", "id", "unnamed: 0")     # a .csv's column with this heading is no number of the metric,
NUMBER_NAMES = ("n", "no", "no.", "nr", "number", "row")        # nor with this one, if it numbers the rows in any way
CHECKED = 4096          # rows checked at a time; of a matrix with more, a sample is checked before training,
SAMPLE = 256            # of this many rows, and the rest as it is read
ROUNDING = 1e-4         # tolerance for asymmetry, the diagonal and negative distances, as a share of the largest one
LARGEST = 1e8           # of a coordinate or distance: batchwise sums its fourth powers, in float32
TOO_LARGE = "divide all by the same number: powers of these overflow float32"


AS_THEY_STAND = "it is not compared with the faces, and the rows are taken as they stand"


class Table(NamedTuple):
    """What a file holds. array: of numpy, memory-mapped or not, or sparse of scipy; kind: one of KINDS or None, where
    the file does not say; taken: what was taken of it, for a message; names: the texts in its index column, else None.
    """
    array: Any
    kind: str | None = None
    taken: str = ""
    names: list | None = None


def read(path, kind, count):
    """The Table of a file; kind: METRIC_KIND; count: of faces, which tells a .csv's header from its first row.

    Raises UserError where it is missing, damaged, or holds more than one array.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise UserError(f"METRIC={path}", '"pixels", "labels", "action_units", "file.py:function" or a file that ends '
                        "in " + ", ".join(READERS), f"the ending {suffix}" if suffix else "another name",
                        "correct the name, or save the file as one of these")
    try:
        return READERS[suffix](path, kind, count)
    except UserError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"METRIC={path}", EXPECTED[suffix], error, "check the path") from None
    except Exception as error:                                  # numpy, zipfile, csv and torch raise a dozen kinds here
        objects = isinstance(error, pickle.UnpicklingError) or "pickle" in str(error)
        found = "objects instead of numbers, or another kind of file" if objects else described(error)
        raise UserError(f"METRIC={path}", EXPECTED[suffix], found,
                        "save it again, only numbers; it may be cut off") from None


# --- one reader for each kind of file

def _read_numpy(path, kind, count):
    content = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(content, np.ndarray):
        return Table(content)
    if {"format", "shape", "data"} <= set(content.files):
        return Table(_read_sparse(path), "distances", "sparse")
    name, of_name = _choose(content.files, kind, path)
    return Table(content[name], of_name, f"its array {name}")


def _read_sparse(path):
    """A matrix of scipy.sparse in the CSR format, its entries in order."""
    matrix = scipy.sparse.load_npz(path)
    if hasattr(matrix, "check_format"):                         # scipy follows indices out of the array
        matrix.check_format()
    matrix = matrix.tocsr()
    matrix.sum_duplicates()                                     # sorts, too
    return matrix


def _read_torch(path, kind, count):
    content = torch.load(path, map_location="cpu", weights_only=True)
    name, of_name = None, None
    if isinstance(content, dict):
        tensors = {key: value for key, value in content.items() if torch.is_tensor(value)}
        name, of_name = _choose([*tensors], kind, path)
        content = tensors[name]
    if not torch.is_tensor(content) or content.layout != torch.strided:
        found = f"a tensor of layout {content.layout}" if torch.is_tensor(content) else type(content).__name__
        raise UserError(f"METRIC={path}", EXPECTED[".pt"], found,
                        "save a dense tensor, or a sparse matrix with scipy.sparse.save_npz")
    content = content.detach()
    if content.dtype == torch.bfloat16:                         # numpy has none
        content = content.float()
    return Table(content.numpy(), of_name, "" if name is None else f"its tensor {name}")


def _choose(names, kind, path):
    """The name of the only array, or of the one that is called points or distances, and which of these it is or None.
    """
    known = [name for name in names if name in ((kind,) if kind else KINDS)]
    chosen = names if len(names) == 1 else known
    if len(chosen) != 1:
        raise UserError(f"METRIC={path}", 'exactly one array, or one called "points" or "distances"',
                        f"{len(names)} arrays: {first_few(names)}" if names else "no array",
                        "METRIC_KIND chooses one of them" if len(known) == 2 else "save only the metric, or rename it")
    return chosen[0], chosen[0] if chosen[0] in KINDS else None


def _read_csv(path, kind, count):
    """Cells between commas, semicolons or tabs; decimal commas where these are no commas. Lines with # are remarks."""
    text = path.read_text("utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise ValueError("no lines")
    delimiter = next((mark for mark in ";\t" if mark in lines[len(lines) // 2]), ",")
    if delimiter != ",":
        lines = [line.replace(",", ".") for line in lines]
    head = list(csv.reader(lines[:2], delimiter=delimiter))
    first = [cell.strip() for cell in head[0]]
    header = _is_header(first, head[-1][0], len(lines) == count + 1)
    if header:
        lines = lines[1:]
    firsts = []                                                 # the first cell of each row
    for row, cells in enumerate(csv.reader(lines, delimiter=delimiter)):
        if len(cells) != len(first):
            raise ValueError(f"{len(cells)} cells in row {row}, and {len(first)} in the first line")
        firsts.append(cells[0].strip())
    if not firsts:
        raise ValueError("no row below the header")
    numbers = [_number(cell) for cell in firsts]
    index = len(first) > 1 and _is_index(numbers, first[0] if header else None, square=len(first) == len(firsts))
    array = np.loadtxt(lines, delimiter=delimiter, comments=None, quotechar='"', ndmin=2, encoding=None,
                       converters={0: lambda cell: 0} if index else None)
    if index:
        array = array[:, 1:]
    left_out = " and ".join(name for name, there in (("header", header), ("index column", index)) if there)
    named = index and None in numbers
    if index and not named and numbers != sorted(numbers):
        print(f"warning: METRIC={path}: its index column is not in order: {AS_THEY_STAND}")
    return Table(array, None, f"without its {left_out}" if left_out else "", firsts if named else None)


def _number(cell):
    """The number in a cell, or None."""
    try:
        return float(cell)
    except ValueError:
        return None


def _is_header(first, below, one_more):
    """Whether the cells first of the first line are headings; below: the first cell of the next line; one_more:
    whether there is a line more than faces, as where pandas writes columns 0, 1, 2, ....
    """
    texts = [_number(cell) is None for cell in first]
    if any(texts[1:]) or texts[0] and (len(first) == 1 or not first[0] or _number(below) is not None):
        return True
    names = first[1:] if texts[0] else first                    # a text names the column of faces, or the first face
    return one_more and names == [str(column) for column in range(len(names))]


def _is_index(numbers, name, square):
    """Whether the first cells of all rows, numbers or None for text, number or name the rows. name: their heading, or
    None; square: whether there are as many columns as rows: of distances 0, 1, 2, ... may be the first column.
    """
    name = None if name is None else name.lower()
    if name in INDEX_NAMES or all(number is None for number in numbers):
        return True
    if None in numbers or square:
        return False
    if name in NUMBER_NAMES and len(set(numbers)) == len(numbers) and all(map(float.is_integer, numbers)):
        return True
    return sorted(numbers) in ([*range(len(numbers))], [*range(1, len(numbers) + 1)])


READERS = {".npy": _read_numpy, ".npz": _read_numpy, ".csv": _read_csv, ".pt": _read_torch}
EXPECTED = {".npy": "an array of numpy.save", ".npz": "an array of numpy.savez or a matrix of scipy.sparse.save_npz",
            ".csv": "a table of numbers, a row a face", ".pt": "a tensor, or a dict with one, of torch.save"}


# --- checks

def by_files(table, faces, kind, path):
    """The Table with its rows, and the columns of distances, in the order of the faces, where its index column has the
    names of their files: paths in the folder, or these without the folders, or without their endings, too, as far as
    these tell the faces apart. kind: METRIC_KIND.

    Raises UserError where some of the files are missing there, or are there more than once.
    """
    if table.names is None:
        return table
    short = (lambda name: name, lambda name: name.rpartition("/")[2],
             lambda name: name.rpartition("/")[2].rpartition(".")[0] or name.rpartition("/")[2])
    for key in short:
        files = [key(file) for file in faces.files or ()]
        names = [key(name.replace("\\", "/")) for name in table.names]
        if len(set(files)) == len(files) and set(files) & set(names):
            break
    else:
        none = f", none of a file of {faces.name}, e.g. {faces.files[0]}" if faces.files else ""
        print(f"warning: METRIC={path}: its index column is text{none}: {AS_THEY_STAND}")
        return table
    counts = Counter(names)
    bad = [file for file in files if counts[file] != 1]
    if bad:
        raise UserError(path, "one row for each face, by the name of its file",
                        f"{counts[bad[0]]} for {bad[0]}, and as wrong for {len(bad) - 1} others", "correct these rows")
    row_of = {name: row for row, name in enumerate(names)}
    rows, array = [row_of[file] for file in files], table.array
    array = array[np.ix_(rows, rows)] if array.shape[0] == array.shape[1] and kind != "points" else array[rows]
    return table._replace(array=array, taken=f"{table.taken}, whose names of files tell the faces")


def check_shape(table, faces, kind, path):
    """Raise UserError unless the array is one of real numbers, (N, k) or (N, N), with a row for each face."""
    array, count = table.array, len(faces)
    shapes = {"points": f"({count}, k) points", "distances": f"({count}, {count}) distances"}
    expected = (shapes[kind] if kind else " or ".join(shapes.values())) + f", one row a face of {faces.name}"
    found = ", ".join(filter(None, [f"{array.dtype} {array.shape}", table.taken]))
    if array.dtype.kind not in "biuf":
        raise UserError(path, expected, found, "save real numbers, e.g. float32")
    if scipy.sparse.issparse(array) and kind == "points":
        raise UserError(path, expected, found, "METRIC_KIND=None for distances; save points with numpy.save")
    if array.ndim != 2 or array.shape[0] != count or kind == "distances" and array.shape[1] != count:
        raise UserError(path, expected, found, _remedy_of_shape(array.shape, count, kind))
    settings = path.parent / "settings.json"
    if path.name == "embeddings.npy" and settings.exists():
        data = read_json(settings).get("data")
        made_of = data.get("fingerprint") if isinstance(data, dict) else None
        if made_of != faces.fingerprint:
            raise UserError(path, f"embeddings of these faces, fingerprint {faces.fingerprint}",
                            f"fingerprint {made_of}", "train a classifier on these faces, or load the others")


def _remedy_of_shape(shape, count, kind):
    """How to save an array of this shape as points or distances of count faces."""
    if max(shape, default=0) == np.prod(shape) == count * (count - 1) // 2 and kind != "points":        # of pdist
        return "save scipy.spatial.distance.squareform(array.ravel())"
    if shape == (count,) and kind != "distances":
        return "save array[:, None]"
    if len(shape) == 2 and shape[1] == count and kind != "distances":
        return "save array.T, if its columns are these faces, in their order"
    return "make it from these very faces, in their order"


def check_points(array, path):
    """Raise UserError for a coordinate that is not finite or too large; looks at all."""
    for start in range(0, len(array), CHECKED):
        largest = np.abs(array[start:start + CHECKED].astype(float)).max(1, initial=0)      # NaN where there is one
        bad = ~(largest <= LARGEST)
        if bad.any():
            row = bad.argmax()
            if np.isfinite(largest[row]):
                raise UserError(path, f"numbers of at most {LARGEST:g}", f"{largest[row]:g} in row {start + row}",
                                TOO_LARGE)
            raise UserError(path, "finite numbers", f"NaN or infinity in row {start + row}", "correct that row")


def check_distances(array, path):
    """Raise UserError where an array (N, N) cannot be distances; of a large one a sample of rows is looked at. Returns
    the largest.
    """
    rows = np.arange(len(array))
    if len(array) > CHECKED:                                    # a large file is never read whole
        rows = np.sort(np.random.default_rng(0).choice(len(array), SAMPLE, replace=False))
    return check_block(np.stack([array[row][rows] for row in rows]), rows, path)


def check_block(block, rows, path, largest=0.0):
    """Raise UserError where a block (n, n), these rows and columns of a matrix, cannot be distances. largest: that of
    the blocks before, for the tolerance; returns it with those of this block.
    """
    block = block.astype(float)
    largest = max(largest, np.abs(block[np.isfinite(block)]).max(initial=0))
    tolerance = ROUNDING * largest
    points = "; or if they are points, METRIC_KIND=points"
    one_triangle = not np.triu(block, 1).any() or not np.tril(block, -1).any()
    with np.errstate(invalid="ignore"):                         # inf - inf
        bads = ((~np.isfinite(block), "finite distances", "correct these entries"),
                (np.abs(block) > LARGEST, f"distances of at most {LARGEST:g}", TOO_LARGE),
                (block < -tolerance, "distances of at least 0", "save distances, not similarities"),
                (np.diag(np.abs(np.diag(block)) > tolerance), "a zero diagonal", "save distances, not similarities"),
                (np.abs(block - block.T) > tolerance, "a symmetric matrix",
                 "save d + d.T" if one_triangle else "save (d + d.T) / 2"))
    for bad, expected, remedy in bads:
        if bad.any():
            i, j = np.argwhere(bad)[0]
            raise UserError(path, expected, f"{block[i, j]} in row {rows[i]}, column {rows[j]}", remedy + points)
    return largest


def check_sparse(matrix, faces, path):
    """Raise UserError where a sparse matrix (N, N) cannot be distances of those pairs that are stored, or where none is
    stored of two training faces. Looks at all; returns the share of the pairs of training faces that is stored.
    """
    entries = matrix.tocoo()                                    # row by row, each in the order of its columns
    i, j, d = entries.row.astype(np.int64), entries.col.astype(np.int64), entries.data.astype(float)
    tolerance = ROUNDING * np.abs(d[np.isfinite(d)]).max(initial=0)
    place, mirrored = i * len(faces) + j, j * len(faces) + i
    at = np.searchsorted(place, mirrored).clip(max=len(place) - 1)
    unlike = (place[at] != mirrored) | ~(np.abs(d[at] - d) <= tolerance)
    for bad, expected, remedy in (
            (~np.isfinite(d), "finite distances", "leave out pairs whose distance is not known"),
            (np.abs(d) > LARGEST, f"distances of at most {LARGEST:g}", TOO_LARGE),
            (d < -tolerance, "distances of at least 0", "save distances, not similarities"),
            ((i == j) & (np.abs(d) > tolerance), "a zero diagonal, or none", "save distances, not similarities"),
            (unlike, "a symmetric matrix", "store each distance twice, at (i, j) and (j, i)")):
        if bad.any():
            first = bad.argmax()
            raise UserError(path, expected, f"{d[first]} in row {i[first]}, column {j[first]}", remedy)
    train = faces.split == SPLITS.index("train")
    known = train[i] & train[j] & (i < j)
    if not (d[known] > 0).any():
        raise UserError(path, "distances between training faces",
                        f"{known.sum()} stored pairs of them, none above 0", "store more pairs")
    return known.sum() / (train.sum() * (train.sum() - 1) / 2)
