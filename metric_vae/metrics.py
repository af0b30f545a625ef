"""The given metric d_D on faces: embeddings, any (N, k) points, an (N, N) matrix, pixels, labels, action units of
synthetic faces, or a function.

A metric is called with the faces of a batch, by their row numbers and their pixels, and answers with Given.
"""
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch.nn import functional

from data.batches import Images
from metric_vae import metric_checks, metric_files
from metric_vae.metric_checks import LARGEST, TOO_LARGE
from metric_vae.metric_files import KINDS
from metric_vae.metric_functions import load_user_function
from metric_vae.regularizers import pairwise_distances
from training.errors import UserError, check_choice
from training.plugins import is_plugin
from training.distributed import gather, own_part

NAMES = ("embeddings", "pixels", "labels", "action_units")     # what METRIC may be besides files and functions
SAMPLE = 256            # faces between which there must be a distance
IN_MEMORY = 2 ** 30     # bytes; larger points stay on the disk
ROUNDING = 1e-5         # of points in float32, as a share of the largest: distances up to this mean nothing
PAIRS = 4096            # pairs of faces that a function of two gets in one call


class Given(NamedTuple):
    """What a metric says of a batch: distances (B, B); points (B, k) or None; known, bool (B, B), its diagonal True:
    which distances are given, the others are NaN; None: all.
    """
    distances: torch.Tensor
    points: torch.Tensor | None = None
    known: torch.Tensor | None = None


class Metric:
    """metric(rows, x) is Given for the faces rows int64 (B,); x: the pixels of the own part, as the VAE sees them."""
    has_points = True
    sees_faces = False                                          # whether it is of the pixels x, or looked up by rows
    sample = SAMPLE

    def distances(self, rows, x=None):
        """(B, B)"""
        return self(rows, x).distances

    def drawn(self, rows):
        """Groups of faces, of which the regulariser draws at random: an array (M, k) of rows (N,); each face alone."""
        return rows[:, None]


class Points(Metric):
    """d = ||p_i - p_j|| by the p-norm, or 1 - cos(p_i, p_j), of points (N, k), one a face."""

    def __init__(self, array, norm=2.0, device="cpu"):
        mapped = isinstance(array, np.memmap)
        self.array = array if mapped else torch.as_tensor(array, dtype=torch.float32).to(device)
        self.norm, self.device = norm, device

    def __call__(self, rows, x=None):
        if torch.is_tensor(self.array):
            points = self.array[rows]
        else:
            points = torch.from_numpy(self.array[rows.cpu().numpy()].astype(np.float32)).to(self.device)
        return Given(distances_of(points, self.norm), points)


class Function(Metric):
    """d = ||f(x_i) - f(x_j)|| of a function f of the faces' pixels (B, C, H, W) in 0..1 to points (B, k).

    It sees each face as the VAE does, so that d follows the face's augmentation.
    """
    sees_faces = True

    def __init__(self, points, norm=2.0):
        self.points, self.norm = points, norm

    @torch.no_grad()
    def __call__(self, rows, x):
        points = gather(self.points(x).float().flatten(1), len(rows))       # several processes share the work
        return Given(distances_of(points, self.norm), points)


class PairFunction(Metric):
    """d = a function of the pixels (B, C, H, W) in 0..1 of two faces each to distances (B,), symmetric and 0 for the
    same face.

    It is called with all pairs of a batch, each in one order, at most PAIRS in one call, as the VAE sees the faces.
    """
    has_points, sees_faces = False, True
    sample = 32                                                 # faces have 496 pairs

    def __init__(self, distance):
        self.distance = distance

    @torch.no_grad()
    def __call__(self, rows, x):
        count = len(rows)
        x = gather(x, count)
        i, j = torch.triu_indices(count, count, 1, device=x.device)
        own = own_part(len(i))                                  # several processes share the work
        values = [self.distance(x[a], x[b]) for a, b in zip(i[own].split(PAIRS), j[own].split(PAIRS)) if len(a)]
        distances = x.new_zeros(count, count)
        distances[i, j] = gather(torch.cat([x.new_zeros(0), *values]), len(i))
        return Given(distances + distances.T)


class Matrix(Metric):
    """d = a given matrix (N, N), memory-mapped or not, read by the rows of a batch."""
    has_points = False

    def __init__(self, array, device="cpu", path="METRIC", largest=0.0):
        self.array, self.device, self.path, self.largest = array, device, path, largest

    def __call__(self, rows, x=None):
        rows = rows.cpu().numpy()
        order = np.argsort(rows)                                # a file is read fastest from its beginning
        block = np.empty((len(rows), len(rows)), np.float32)
        for place in order:
            block[place] = self.array[rows[place]][rows]
        self.largest = metric_checks.check_block(block, rows, self.path, self.largest)
        return Given(torch.from_numpy(block.clip(0)).to(self.device))


class SparseMatrix(Metric):
    """d = a given sparse matrix (N, N) of scipy, in the CSR format: the distances of those pairs that are stored."""
    has_points = False

    def __init__(self, matrix, device="cpu"):
        self.matrix, self.device = matrix.astype(np.float32), device

    def __call__(self, rows, x=None):
        rows = rows.cpu().numpy()
        part = self.matrix[rows][:, rows].tocoo()
        block = np.full((len(rows), len(rows)), np.nan, np.float32)
        block[part.row, part.col] = part.data.clip(0)
        block[rows[:, None] == rows] = 0
        known = ~np.isnan(block)
        return Given(torch.from_numpy(block).to(self.device), None,
                     None if known.all() else torch.from_numpy(known).to(self.device))

    def drawn(self, rows):
        """The pairs that are stored, each once: few of them would be among faces drawn one by one."""
        part = scipy.sparse.triu(self.matrix[rows][:, rows], 1)
        return rows[np.stack([part.row, part.col], 1)]


def distances_of(points, norm=2.0):
    """(B, B) distances of points (B, k): the p-norm for a number, 1 - cosine for "cosine"."""
    if norm == "cosine":
        unit = functional.normalize(points, dim=1)
        with torch.autocast(unit.device.type, enabled=False):   # in bf16 near points would all be as far
            return (1 - unit @ unit.T).clamp(min=0).fill_diagonal_(0)
    return pairwise_distances(points, norm)


def check_norm(norm):
    """Raise UserError unless norm is a p-norm (1.0, 2.0, inf) or "cosine"."""
    if norm not in ("cosine", float("inf")) and not (isinstance(norm, (int, float)) and 1 <= norm <= 16):
        raise UserError("METRIC_NORM", 'a number from 1 to 16, inf or "cosine"',      # float32 has no larger powers
                        repr(norm), "set it to 2.0")


def check_kind(kind, name):
    """Raise UserError unless METRIC_KIND is None, or METRIC is a file and METRIC_KIND one of KINDS."""
    check_choice("METRIC_KIND", kind, (None, *KINDS))
    if kind is not None and (name in NAMES or is_plugin(name)):
        raise UserError(f"METRIC_KIND={kind}", "METRIC_KIND=None, since METRIC is no file", f"METRIC={name}",
                        "leave METRIC_KIND out")


def load_metric(name, faces, device, norm=2.0, kind=None):
    """The metric "pixels", "labels", "action_units", of a function, "file.py:function", or of a file: see
    metric_files.py.

    norm: a p-norm (1.0, 2.0, inf) or "cosine", for points; kind: of a file, "points" or "distances"; None: an (N, N)
    one is of distances, any other of points. Raises UserError for a file that is missing, damaged, of other faces, or
    no metric, for a function that fails, and where all faces are at distance 0, or too far apart for float32.
    """
    check_norm(norm)
    metric = _load_any(name, faces, device, norm, kind)
    if norm != 2 and isinstance(metric, (Matrix, SparseMatrix, PairFunction)):
        print(f"warning: METRIC_NORM={norm} has no effect: METRIC={name} gives distances, not points")
    if isinstance(metric, SparseMatrix):                        # of which a sample may have no distance
        return metric
    if norm == "cosine" and isinstance(metric, Points) and not (metric.array != 0).any(1).all():
        raise UserError(f"METRIC={name}", "points other than 0, which has no direction", "a row of zeros",
                        "METRIC_NORM=2.0, or other points")
    check_spread(metric, name, faces, device)
    return metric


def check_spread(metric, name, faces, device):
    """Raise UserError where a metric called name has no distances between a sample of faces above rounding, or too
    large ones for float32.
    """
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(faces))[:metric.sample]).to(device)
    distances, points, _ = metric(rows, Images(faces, device)(rows, part=own_part(len(rows))))
    if not (distances <= LARGEST).all():
        raise UserError(f"METRIC={name}", f"distances of at most {LARGEST:g} between faces", f"{distances.max():g}",
                        TOO_LARGE)
    scaled = points is not None and points.numel() and metric.norm != "cosine"
    rounding = ROUNDING * float(points.abs().max()) if scaled else 0
    if not (distances > rounding).any():
        found = f"at most {distances.max():g}, which is rounding," if distances.any() else "0"
        raise UserError(f"METRIC={name}", "distances between faces", f"{found} between all of {len(rows)} faces",
                        "give points or distances that differ from face to face, or train the classifier longer")


def _load_any(name, faces, device, norm, kind):
    if name == "pixels":
        return Function(lambda x: x, norm)
    if name == "labels":
        one_hot = np.eye(max(len(faces.classes), 1), dtype=np.float32)[faces.labels]
        return Points(one_hot, norm, device)
    if name == "action_units":
        if faces.factors is None:
            raise UserError("METRIC=action_units", "synthetic faces, whose action units are known", faces.name,
                            "DATA=synthetic, or another METRIC")
        return Points(faces.factors["action_units"], norm, device)
    if is_plugin(str(name)):
        function, of_pairs = load_user_function(str(name), Images(faces, device)(torch.arange(3)))
        print(f"METRIC={name}: a function of " + ("two faces to their distance" if of_pairs else "faces to points"))
        return PairFunction(function) if of_pairs else Function(function, norm)
    return _load_file(Path(name).expanduser(), faces, device, norm, kind)


def _load_file(path, faces, device, norm, kind):
    """Points, Matrix or SparseMatrix of a file, checked; says which."""
    table = metric_files.by_files(metric_files.read(path, kind, len(faces)), faces, kind, path)
    array, kind = table.array, kind or table.kind
    metric_checks.check_shape(table, faces, kind, path)
    square = array.shape == (len(faces), len(faces))
    remarks = [f"METRIC={path}: {'points' if kind == 'points' or not square else 'distances'} {array.shape}"]
    if table.taken:
        remarks.append(table.taken)
    if square and kind is None:
        remarks.append("since there are as many columns as faces (METRIC_KIND=points takes them as points)")
    if scipy.sparse.issparse(array):
        share = metric_checks.check_sparse(array, faces, path)
        remarks.append(f"of {100 * share:.3g} % of the pairs of training faces, the others are left out")
        metric = SparseMatrix(array, device)
    elif square and kind != "points":
        metric = Matrix(array, device, path, metric_checks.check_distances(array, path))
    else:
        metric_checks.check_points(array, path)
        mapped = isinstance(array, np.memmap) and array.nbytes > IN_MEMORY
        metric = Points(array if mapped else np.array(array, np.float32), norm, device)
    print(", ".join(remarks))
    return metric
