"""The given metric d_D on faces: embeddings, any (N, k) points, an (N, N) matrix, pixels, labels, action units of
synthetic faces, or a function.

A metric is called with the faces of a batch, by their row numbers and their pixels, and answers with Given.
"""
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from data.batches import Images
from metric_vae.regularizers import pairwise_distances
from training.errors import UserError
from training.plugins import is_plugin, load_function
from training.distributed import gather, own_part
from training.storage import read_json

CHECKED = 4096          # rows looked at in one go; of a matrix with more, a sample is looked at before training,
SAMPLE = 256            # of this many rows, and the rest as it is read
IN_MEMORY = 2 ** 30     # bytes; larger points stay on the disk
ROUNDING = 1e-4         # what a matrix may miss of distances, as a share of the largest


class Given(NamedTuple):
    """What a metric says of a batch: distances (B, B); points (B, k) or None."""
    distances: torch.Tensor
    points: torch.Tensor | None = None


class Metric:
    """metric(rows, x) is Given for the faces rows int64 (B,); x: the pixels of the own part, as the VAE sees them."""

    def distances(self, rows, x=None):
        """(B, B)"""
        return self(rows, x).distances


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
    """d = ||f(x_i) - f(x_j)|| of a function f of the faces' pixels (B, 1, H, W) in 0..1 to points (B, k).

    It sees each face as the VAE does, so that d follows the face's augmentation.
    """

    def __init__(self, points, norm=2.0):
        self.points, self.norm = points, norm

    @torch.no_grad()
    def __call__(self, rows, x):
        points = gather(self.points(x).float().flatten(1), len(rows))       # several processes share the work
        return Given(distances_of(points, self.norm), points)


class Matrix(Metric):
    """d = a given matrix (N, N), memory-mapped or not, read by the rows of a batch."""

    def __init__(self, array, device="cpu", path="METRIC"):
        self.array, self.device, self.path = array, device, path

    def __call__(self, rows, x=None):
        rows = rows.cpu().numpy()
        order = np.argsort(rows)                                # a file is read fastest from its beginning
        block = np.empty((len(rows), len(rows)), np.float32)
        for place in order:
            block[place] = self.array[rows[place]][rows]
        if not (block >= -ROUNDING * np.abs(block).max()).all():                        # NaN too
            raise UserError(self.path, "distances of at least 0", "a negative or NaN in " + str(rows), "correct it")
        return Given(torch.from_numpy(block.clip(0)).to(self.device))


def distances_of(points, norm=2.0):
    """(B, B) distances of points (B, k): the p-norm for a number, 1 - cosine for "cosine"."""
    if norm == "cosine":
        unit = functional.normalize(points, dim=1)
        with torch.autocast(unit.device.type, enabled=False):   # in bf16 near points would all be as far
            return (1 - unit @ unit.T).clamp(min=0).fill_diagonal_(0)
    return pairwise_distances(points, norm)


def check_norm(norm):
    """Raise UserError unless norm is a p-norm (1.0, 2.0, inf) or "cosine"."""
    if norm != "cosine" and not (isinstance(norm, (int, float)) and norm >= 1):
        raise UserError("METRIC_NORM", 'a number of at least 1, or "cosine"', repr(norm), "set it to 2.0")


def load_metric(name, faces, device, norm=2.0):
    """The metric "pixels", "labels", "action_units", or of a path: an (N, k) or (N, N) .npy, or "file.py:function".

    norm: a p-norm (1.0, 2.0, inf) or "cosine", for points. Raises UserError for a file that is missing, damaged, of
    other faces, or no metric, and where all faces are at distance 0.
    """
    check_norm(norm)
    metric = _load_any(name, faces, device, norm)
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(faces))[:SAMPLE]).to(device)
    x = Images(faces, device)(rows, part=own_part(len(rows)))
    if not (metric.distances(rows, x) > 0).any():
        raise UserError(f"METRIC={name}", "distances between faces", f"0 between all of {len(rows)} faces",
                        "give points or distances that differ from face to face")
    return metric


def _load_any(name, faces, device, norm):
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
        points = load_function(str(name), "METRIC", "a function of faces (B, 1, H, W) to points (B, k)")
        x = Images(faces, device)(torch.arange(2))
        with torch.no_grad():
            found = points(x)
        if not torch.is_tensor(found) or found.ndim < 2 or len(found) != 2:
            raise UserError(f"METRIC={name}", "points (2, k) for two faces (2, 1, H, W)",
                            f"shape {tuple(found.shape)}" if torch.is_tensor(found) else type(found).__name__,
                            "return a tensor with one row a face, e.g. x.mean((2, 3))")
        if not torch.isfinite(found).all():
            raise UserError(f"METRIC={name}", "finite points", "NaN or infinity for the first two faces",
                            "correct the function")
        return Function(points, norm)
    return _load_array(Path(name).expanduser(), faces, device, norm)


def _load_array(path, faces, device, norm):
    """Points or Matrix of an .npy file, checked."""
    count = len(faces)
    expected = f"({count}, k) points or ({count}, {count}) distances, one row a face of {faces.name}"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"METRIC={path}", 'an .npy, "pixels", "labels", "action_units" or "file.py:function"', error,
                        "check the path; save with numpy.save") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu" or len(array) != count:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an .npz"
        raise UserError(path, expected, found, "make it from these very faces, in their order")
    settings = path.parent / "settings.json"
    if path.name == "embeddings.npy" and settings.exists():
        made_of = read_json(settings)["data"]["fingerprint"]
        if made_of != faces.fingerprint:
            raise UserError(path, f"embeddings of these faces, fingerprint {faces.fingerprint}",
                            f"fingerprint {made_of}", "train a classifier on these faces, or load the others")
    if array.shape == (count, count):
        rows = np.arange(count)
        if count > CHECKED:                                     # a large file is never read whole
            rows = np.sort(np.random.default_rng(0).choice(count, SAMPLE, replace=False))
        _check_distances(np.stack([array[row][rows] for row in rows]), rows, path)
        return Matrix(array, device, path)
    for start in range(0, count, CHECKED):
        bad = ~np.isfinite(array[start:start + CHECKED]).all(1)
        if bad.any():
            raise UserError(path, "finite numbers", f"NaN or infinity in row {start + bad.argmax()}",
                            "correct that row")
    return Points(array if array.nbytes > IN_MEMORY else np.array(array, np.float32), norm, device)


def _check_distances(block, rows, path):
    """Raise UserError where a (B, B) block, of the file's rows and columns rows, cannot be distances."""
    tolerance = ROUNDING * np.abs(block[np.isfinite(block)]).max(initial=0)
    for bad, expected, remedy in (
            (~np.isfinite(block), "finite distances", "correct these entries"),
            (block < -tolerance, "distances of at least 0", "save distances, not similarities"),
            (np.diag(np.abs(np.diag(block)) > tolerance), "a zero diagonal", "save distances, not similarities"),
            (np.abs(block - block.T) > tolerance, "a symmetric matrix", "save (d + d.T) / 2")):
        if bad.any():
            i, j = np.argwhere(bad)[0]
            raise UserError(path, expected, f"{block[i, j]} in row {rows[i]}, column {rows[j]}", remedy)
