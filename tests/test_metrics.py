"""metric_vae/metrics.py: what each metric says of a batch, and what is refused."""
import numpy as np
import pytest
import torch

from data import synthetic
from metric_vae import metrics
from metric_vae.metrics import Matrix, load_metric

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


def test_a_bad_entry_that_the_sample_missed_is_refused_as_it_is_read(small_faces, user_error, points):
    for entry in (-1, np.nan, 1e10):
        matrix = slow_distances(points, lambda a, b: np.linalg.norm(a - b))
        matrix[3, 4] = matrix[4, 3] = entry
        user_error(lambda: Matrix(matrix)(torch.tensor([3, 4])), "row 3, column 4")
    for i, j in ((3, 4), (3, 3)):                               # one triangle only, and the diagonal
        matrix = slow_distances(points, lambda a, b: np.linalg.norm(a - b))
        matrix[i, j] = 7
        user_error(lambda: Matrix(matrix)(torch.tensor([4, 3])), "symmetric" if i != j else "diagonal")


def test_a_matrix_that_is_accepted_is_accepted_in_every_batch(small_faces, tmp_path, points):
    matrix = slow_distances(points, lambda a, b: np.linalg.norm(a - b))
    matrix[0, 1:] = matrix[1:, 0] = 1000                        # tolerances are shares of the largest distance of all
    matrix[3, 4] += .05
    metric = load_metric(save(tmp_path / "d.npy", matrix), small_faces, CPU)
    assert metric.distances(torch.tensor([3, 4])).shape == (2, 2)


def test_points_without_a_direction_are_refused_by_the_cosine(small_faces, tmp_path, user_error, points):
    points = points.copy()
    points[5] = 0
    user_error(lambda: load_metric(save(tmp_path / "p.npy", points), small_faces, CPU, "cosine"), "row of zeros")


def test_a_norm_of_distances_has_no_effect_and_that_is_said(small_faces, tmp_path, capsys, points):
    path = save(tmp_path / "d.npy", slow_distances(points, lambda a, b: np.linalg.norm(a - b)))
    plain, cosine = (load_metric(path, small_faces, CPU, norm)(ROWS).distances for norm in (2.0, "cosine"))
    assert torch.equal(plain, cosine) and "METRIC_NORM=cosine has no effect" in capsys.readouterr().out


@pytest.mark.parametrize("norm", [0.5, "euclid"])
def test_a_norm_that_is_none_is_refused(small_faces, user_error, norm):
    user_error(lambda: load_metric("pixels", small_faces, CPU, norm), "METRIC_NORM")


def test_a_metric_without_any_distance_is_refused(small_faces, tmp_path, user_error):
    for number, array in enumerate((np.ones((70, 3)), np.zeros((70, 70)), np.zeros((70, 0)))):
        user_error(lambda: load_metric(save(tmp_path / f"{number}.npy", array), small_faces, CPU), "0 between all")
    (tmp_path / "mine.py").write_text("def f(x):\n    return x[:, :1, 0, 0] * 0\n")
    user_error(lambda: load_metric(f"{tmp_path}/mine.py:f", small_faces, CPU), "0 between all")
    collapsed = 1 + 1e-6 * np.random.default_rng(0).random((70, 3))     # as of a network that tells no faces apart
    path = save(tmp_path / "collapsed.npy", collapsed)
    user_error(lambda: load_metric(path, small_faces, CPU), "which is rounding")
    load_metric(save(tmp_path / "tiny.npy", 1e-6 * collapsed[:, :1] * np.arange(70)[:, None]), small_faces, CPU)


def test_action_units_are_those_that_drew_synthetic_faces(small_faces, tmp_path, user_error):
    faces = synthetic.load(16, 0, 40, 10, tmp_path)
    units = faces.factors["action_units"][[3, 8, 8]]
    expected = slow_distances(units, lambda a, b: np.linalg.norm(a - b))
    assert np.allclose(load_metric("action_units", faces, CPU).distances(torch.tensor([3, 8, 8])), expected, atol=1e-6)
    user_error(lambda: load_metric("action_units", small_faces, CPU), "synthetic")


def test_distances_are_those_of_fp32_within_autocast():
    x = torch.rand(6, 8)
    for norm in (2.0, "cosine"):
        with torch.autocast("cpu", torch.bfloat16):
            inside = metrics.distances_of(x, norm)
        assert torch.equal(inside, metrics.distances_of(x, norm)) and inside.dtype == torch.float32


def test_points_whose_distances_overflow_are_refused(small_faces, user_error, tmp_path, points):
    path = save(tmp_path / "p.npy", 1e7 * points)
    load_metric(path, small_faces, CPU)
    user_error(lambda: load_metric(path, small_faces, CPU, norm=16.0), "at most 1e+08", "inf", "divide")


def test_a_kind_that_is_none_or_of_no_file_is_refused(user_error):
    for kind, name in ((None, "pixels"), ("points", "p.npy"), ("distances", "d.csv")):
        metrics.check_kind(kind, name)
    user_error(lambda: metrics.check_kind("matrix", "p.npy"), "METRIC_KIND", "points", "distances")
    for name in ("embeddings", "pixels", "mine.py:f"):
        user_error(lambda: metrics.check_kind("points", name), "METRIC_KIND", name)
