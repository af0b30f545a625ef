"""Whether the numbers of a file are a metric: points (N, k) or distances (N, N), some or all of them.

In: a Table of metric_files.py, or its array. Out: UserError where they are none.
"""
import numpy as np
import scipy.sparse

from data.splits import SPLITS
from training.errors import UserError
from training.files import read_json

CHECKED = 4096          # rows checked at a time; of a matrix with more, a sample is checked before training,
SAMPLE = 256            # of this many rows, and the rest as it is read
ROUNDING = 1e-4         # tolerance for asymmetry, the diagonal and negative distances, as a share of the largest one
LARGEST = 1e8           # of a coordinate or distance: batchwise sums its fourth powers, in float32
TOO_LARGE = "divide all by the same number: powers of these overflow float32"


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
            (unlike, "a symmetric matrix", "store the same distance at (i, j) and at (j, i)")):
        if bad.any():
            first = bad.argmax()
            raise UserError(path, expected, f"{d[first]} in row {i[first]}, column {j[first]}", remedy)
    train = faces.split == SPLITS.index("train")
    known = train[i] & train[j] & (i < j)
    if not (d[known] > 0).any():
        raise UserError(path, "distances between training faces",
                        f"{known.sum()} stored pairs of them, none above 0", "store more pairs")
    return known.sum() / (train.sum() * (train.sum() - 1) / 2)
