"""Files that hold a metric, as they come: points (N, k) or distances (N, N) as .npy, .npz, .csv or .pt, and distances
of some pairs as scipy.sparse.save_npz writes them.

In: a path. Out: a Table, whose numbers metric_checks.py checks.
"""
import csv
import pickle
from collections import Counter
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch

from training.errors import UserError, described, first_few

KINDS = ("points", "distances")
INDEX_NAMES = ("", "index", "id", "unnamed: 0")     # a .csv's column with this heading is no number of the metric,
NUMBER_NAMES = ("n", "no", "no.", "nr", "number", "row")        # nor with this one, if it numbers the rows in any way
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


# --- which row is which face

def by_files(table, faces, kind, path):
    """The Table with its rows, and the columns of distances, in the order of the faces, where its index column has the
    names of their files: paths that end with those in the folder, or these without their endings, the folders, or both,
    as far as these tell the faces apart. kind: METRIC_KIND.

    Raises UserError where some or all of the files are missing there, or are there more than once.
    """
    if table.names is None:
        return table
    of_faces = list(map(PurePosixPath, faces.files or ()))
    of_rows = [PurePosixPath(name.replace("\\", "/")) for name in table.names]
    depth = max((len(file.parts) for file in of_faces), default=1)
    tail = lambda path: PurePosixPath(*path.parts[-depth:])
    for key in (str, tail, lambda path: tail(path).parent / path.stem, lambda path: path.name, lambda path: path.stem):
        files, names = list(map(key, of_faces)), list(map(key, of_rows))
        if len(set(files)) == len(files) and set(files) & set(names):
            break
    else:
        if faces.files:
            raise UserError(path, f"in its index column the names of the files of {faces.name}, e.g. {faces.files[0]}",
                            f"other names, e.g. {table.names[0]}",
                            "correct them, or remove that column: the rows are then taken in the order of the faces")
        print(f"warning: METRIC={path}: its index column is text: {AS_THEY_STAND}")
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
