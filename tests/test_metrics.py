"""metric_vae/metrics.py: what each metric says of a batch, and what is refused."""
import json

import numpy as np
import pytest
import torch

from data import synthetic
from metric_vae import metrics
from metric_vae.metrics import Matrix, Points, load_metric

CPU = torch.device("cpu")
ROWS = torch.tensor([5, 2, 60, 2])


def slow_distances(points, distance):
    return np.array([[distance(a, b) for b in points] for a in points])


def save(path, array):
    np.save(path, array)
    return str(path)


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(70, 3)).astype(np.float32)


@pytest.mark.parametrize("norm, distance", [
    (2.0, lambda a, b: np.sqrt(((a - b) ** 2).sum())), (1.0, lambda a, b: np.abs(a - b).sum()),
    ("cosine", lambda a, b: 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))])
def test_points_of_a_file_have_their_distances(small_faces, points, tmp_path, norm, distance):
    metric = load_metric(save(tmp_path / "p.npy", points), small_faces, CPU, norm)
    given = metric(ROWS)
    assert np.allclose(given.points, points[ROWS])
    assert np.allclose(given.distances, slow_distances(points[ROWS], distance), atol=1e-6)


def test_a_matrix_of_a_file_is_read_by_the_rows_of_a_batch(small_faces, points, tmp_path):
    matrix = slow_distances(points, lambda a, b: np.linalg.norm(a - b)).astype(np.float32)
    metric = load_metric(save(tmp_path / "d.npy", matrix), small_faces, CPU)
    assert isinstance(metric, Matrix) and isinstance(metric.array, np.memmap)
    assert np.array_equal(metric(ROWS).distances, matrix[np.ix_(ROWS, ROWS)])
    assert metric(ROWS).points is None


def test_pixels_are_compared_as_the_vae_sees_them(small_faces):
    x = torch.rand(4, 1, 16, 16)
    given = load_metric("pixels", small_faces, CPU)(ROWS, x)
    assert np.allclose(given.distances, slow_distances(x.numpy(), lambda a, b: np.linalg.norm(a - b)), atol=1e-5)


def test_faces_of_one_label_are_at_distance_zero_and_others_equally_far(small_faces):
    distances = load_metric("labels", small_faces, CPU).distances(torch.tensor([0, 7, 3, 4]))
    far = np.sqrt(2)
    assert np.allclose(distances, [[0, 0, far, far], [0, 0, far, far], [far, far, 0, far], [far, far, far, 0]])


def test_a_function_of_a_file_is_a_metric(small_faces, tmp_path):
    (tmp_path / "mine.py").write_text("def brightness(x):\n    return x.mean((2, 3))\n")
    x = torch.rand(4, 1, 16, 16)
    given = load_metric(f"{tmp_path}/mine.py:brightness", small_faces, CPU)(ROWS, x)
    means = x.mean((1, 2, 3)).numpy()
    assert np.allclose(given.distances, np.abs(means[:, None] - means), atol=1e-6)


def test_large_points_stay_on_the_disk_and_say_the_same(small_faces, points, tmp_path, monkeypatch):
    path = save(tmp_path / "p.npy", points)
    memory = load_metric(path, small_faces, CPU)(ROWS)
    monkeypatch.setattr(metrics, "IN_MEMORY", 0)
    metric = load_metric(path, small_faces, CPU)
    assert isinstance(metric.array, np.memmap)
    assert torch.equal(metric(ROWS).distances, memory.distances)


def broken(matrix, what):
    matrix = matrix.copy()
    if what == "negative":
        matrix[3, 4] = matrix[4, 3] = -1
    elif what == "NaN":
        matrix[3, 4] = np.nan
    elif what == "symmetric":
        matrix[3, 4] += 1
    elif what == "diagonal":
        matrix[3, 3] = 1
    return matrix


@pytest.mark.parametrize("what, words", [("negative", "at least 0"), ("NaN", "finite"), ("symmetric", "symmetric"),
                                         ("diagonal", "zero diagonal")])
@pytest.mark.parametrize("large", [False, True])
def test_a_matrix_that_cannot_be_distances_is_refused(small_faces, user_error, tmp_path, monkeypatch, points, what,
                                                      words, large):
    if large:
        monkeypatch.setattr(metrics, "CHECKED", 10)
        monkeypatch.setattr(metrics, "SAMPLE", 70)
    matrix = slow_distances(points, lambda a, b: np.linalg.norm(a - b))
    path = save(tmp_path / "d.npy", broken(matrix, what))
    user_error(lambda: load_metric(path, small_faces, CPU), path, words)


def test_a_bad_entry_that_the_sample_missed_is_refused_as_it_is_read(small_faces, user_error, points):
    matrix = broken(slow_distances(points, lambda a, b: np.linalg.norm(a - b)), "negative")
    user_error(lambda: Matrix(matrix)(torch.tensor([3, 4])), "negative")


def test_points_with_a_nan_are_refused_by_row(small_faces, user_error, tmp_path, points):
    points[11, 1] = np.nan
    user_error(lambda: load_metric(save(tmp_path / "p.npy", points), small_faces, CPU), "row 11")


@pytest.mark.parametrize("shape", [(69, 3), (71, 71), (70,), (70, 3, 2)])
def test_a_wrong_shape_is_refused(small_faces, user_error, tmp_path, shape):
    path = save(tmp_path / "p.npy", np.zeros(shape))
    user_error(lambda: load_metric(path, small_faces, CPU), path, "70", shape)


def test_a_truncated_or_pickled_or_missing_file_is_refused(small_faces, user_error, tmp_path, points):
    path = tmp_path / "p.npy"
    user_error(lambda: load_metric(str(path), small_faces, CPU), path)
    np.save(path, points)
    path.write_bytes(path.read_bytes()[:-100])
    user_error(lambda: load_metric(str(path), small_faces, CPU), path)
    np.save(path, np.array([{}] * 70), allow_pickle=True)
    user_error(lambda: load_metric(str(path), small_faces, CPU), path)


def test_embeddings_of_other_faces_are_refused(small_faces, user_error, tmp_path, points):
    path = save(tmp_path / "embeddings.npy", points)
    for fingerprint in ("0" * 32, small_faces.fingerprint):
        (tmp_path / "settings.json").write_text(json.dumps(dict(data=dict(fingerprint=fingerprint))))
        if fingerprint == small_faces.fingerprint:
            assert isinstance(load_metric(path, small_faces, CPU), Points)
        else:
            user_error(lambda: load_metric(path, small_faces, CPU), small_faces.fingerprint, fingerprint)


@pytest.mark.parametrize("norm", [0.5, "euclid"])
def test_a_norm_that_is_none_is_refused(small_faces, user_error, norm):
    user_error(lambda: load_metric("pixels", small_faces, CPU, norm), "METRIC_NORM")


@pytest.mark.parametrize("result", ["x.mean((1, 2, 3))", "x.sum()", "x.numpy()"])
def test_a_function_without_a_row_a_face_is_refused(small_faces, user_error, tmp_path, result):
    (tmp_path / "mine.py").write_text(f"def f(x):\n    return {result}\n")
    user_error(lambda: load_metric(f"{tmp_path}/mine.py:f", small_faces, CPU), "mine.py:f", "(2, k)")


def test_points_that_are_not_finite_are_refused(small_faces, user_error, tmp_path):
    (tmp_path / "mine.py").write_text("def f(x):\n    return (x.mean((2, 3)) - 2).log()\n")
    user_error(lambda: load_metric(f"{tmp_path}/mine.py:f", small_faces, CPU), "mine.py:f", "NaN")


@pytest.mark.parametrize("result", ["x.mean((2, 3))", "torch.from_numpy(x.numpy().mean((2, 3)))"])
def test_a_function_may_leave_torch(small_faces, tmp_path, result):
    (tmp_path / "mine.py").write_text(f"import torch\n\n\ndef f(x):\n    return {result}\n")
    x = torch.rand(5, 1, 48, 48)
    distances = load_metric(f"{tmp_path}/mine.py:f", small_faces, CPU).distances(torch.arange(5), x)
    assert torch.allclose(distances, torch.cdist(x.mean((2, 3)), x.mean((2, 3))), atol=1e-6)


def test_a_metric_without_any_distance_is_refused(small_faces, tmp_path, user_error):
    for number, array in enumerate((np.ones((70, 3)), np.zeros((70, 70)), np.zeros((70, 0)))):
        user_error(lambda: load_metric(save(tmp_path / f"{number}.npy", array), small_faces, CPU), "0 between all")
    (tmp_path / "mine.py").write_text("def f(x):\n    return x[:, :1, 0, 0] * 0\n")
    user_error(lambda: load_metric(f"{tmp_path}/mine.py:f", small_faces, CPU), "0 between all")


def test_action_units_are_those_that_drew_synthetic_faces(small_faces, tmp_path, user_error):
    faces = synthetic.load(16, 0, 40, 10, tmp_path)
    units = faces.factors["action_units"][[3, 8, 8]]
    expected = slow_distances(units, lambda a, b: np.linalg.norm(a - b))
    assert np.allclose(load_metric("action_units", faces, CPU).distances(torch.tensor([3, 8, 8])), expected, atol=1e-6)
    user_error(lambda: load_metric("action_units", small_faces, CPU), "synthetic")


def test_points_and_distances_of_any_byte_order_and_with_rounding_are_taken(small_faces, tmp_path, points):
    rows = torch.arange(9)
    native = load_metric(save(tmp_path / "p.npy", points), small_faces, CPU).distances(rows)
    swapped = load_metric(save(tmp_path / "q.npy", points.astype(">f8")), small_faces, CPU).distances(rows)
    assert torch.equal(native, swapped)
    d = np.abs(points[:, :1] - points[:, 0])
    d[3, 5] = d[5, 3] = -1e-9
    assert load_metric(save(tmp_path / "d.npy", d), small_faces, CPU).distances(rows)[3, 5] == 0


def test_distances_are_those_of_fp32_within_autocast():
    x = torch.rand(6, 8)
    for norm in (2.0, "cosine"):
        with torch.autocast("cpu", torch.bfloat16):
            inside = metrics.distances_of(x, norm)
        assert torch.equal(inside, metrics.distances_of(x, norm)) and inside.dtype == torch.float32


def test_a_function_that_is_not_there_is_refused(small_faces, user_error, tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\n")
    user_error(lambda: load_metric(f"{tmp_path}/mine.py:distance", small_faces, CPU), "mine.py:distance")
    user_error(lambda: load_metric(f"{tmp_path}/none.py:distance", small_faces, CPU), "none.py")
