"""metric_vae/metric_functions.py: functions of the user's file, of faces or of pairs, and what is refused."""
import sys

import pytest
import torch

from metric_vae import metrics
from metric_vae.metrics import Function, PairFunction, load_metric

CPU = torch.device("cpu")
HEAD = """import torch


def euclid(x1, x2):
    return (x1 - x2).flatten(1).norm(dim=1)


"""


@pytest.fixture
def load(small_faces, tmp_path):
    """load(source, name="f"): the metric that is the function of this name in a file of this source."""
    def load(source, name="f"):
        (tmp_path / "mine.py").write_text(HEAD + source)
        return load_metric(f"{tmp_path}/mine.py:{name}", small_faces, CPU)
    return load


def test_a_function_of_two_batches_gives_the_distances_of_all_pairs(load, monkeypatch):
    metric = load("", "euclid")
    x = torch.rand(6, 1, 16, 16)
    expected = torch.cdist(x.flatten(1), x.flatten(1))
    assert isinstance(metric, PairFunction) and not metric.has_points
    given = metric(torch.arange(6), x)
    assert torch.allclose(given.distances, expected, atol=1e-5) and given.points is None and given.known is None
    sizes = []
    monkeypatch.setattr(metrics, "PAIRS", 4)
    distance = metric.distance
    metric.distance = lambda x1, x2: [sizes.append(len(x1)), distance(x1, x2)][1]
    assert torch.equal(metric.distances(torch.arange(6), x), given.distances) and sizes == [4, 4, 4, 3]
    assert metric.distances(torch.arange(1), x[:1]).tolist() == [[0]]


@pytest.mark.parametrize("source, kind", [
    ("def f(x, scale=2):\n    return scale * x.mean((2, 3))", Function),
    ("def f(x1, x2, scale=2):\n    return scale * euclid(x1, x2)", PairFunction),
    ("f = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3))", Function),
    ("class Net(torch.nn.Module):\n    def forward(self, a, b):\n        return euclid(a, b)\n\n\nf = Net()",
     PairFunction)])
def test_the_required_parameters_tell_points_from_distances(load, source, kind):
    metric = load(source)
    assert isinstance(metric, kind)
    assert not metric(torch.arange(4), torch.rand(4, 1, 16, 16)).distances.requires_grad


@pytest.mark.parametrize("source, words", [
    ("def f(a, b, c):\n    return a", "3 required parameters: a, b, c"), ("def f():\n    return 1", "0 required"),
    ("def f(*x):\n    return x[0]", "0 required"), ("def f(x, *, scale):\n    return x", "x, scale"), ("f = 3", "int"),
    ("1 / 0", "ZeroDivisionError: division by zero"),
    ("def f(x):\n    raise KeyError('age')", "KeyError: 'age'"), ("def f(x):\n    return {}['age']", "mine.py, line 9"),
    ("def f(x):\n    return x.reshape(2, -1)", "(3, k)"), ("def f(x):\n    return x.reshape(1, -1)", "shape (1, 512)"),
    ("def f(x):\n    assert len(x) == 2, 'two'\n    return x", "AssertionError: two"),
    ("def f(x):\n    return x.flatten(1) @ x.flatten(1).T", "(2, 2) and (3, 3)"),
    ("def f(x):\n    return torch.fft.fft(x.flatten(1))", "complex64"),
    ("def f(x):\n    return x.mean((2, 3)) * 1e20", "e+19"),
    ("def f(x):\n    return x.mean((2, 3)).double() * 1e200", "infinity"),
    ("def f(a, b):\n    return euclid(a, b)[:, None]", "shape (1, 1)"), ("def f(a, b):\n    return 0.5", "float"),
    ("def f(a, b):\n    return -euclid(a, b)", "at least 0"), ("def f(a, b):\n    return euclid(a, b) / 0 * 0", "NaN"),
    ("def f(a, b):\n    return euclid(a, b) * 1j", "complex64"),
    ("def f(a, b):\n    return a.mean((1, 2, 3)) + euclid(a, b)", "d(x2, x1)"),
    ("def f(a, b):\n    return torch.exp(-euclid(a, b))", "d(x, x) = 0"),
    ("def f(a, b):\n    return 0 * euclid(a, b)", "0 between all"),
    ("def f(a, b):\n    return euclid(a[:2], b[:2])", "shape (2,)"),
    ("drop = torch.nn.Dropout()\n\n\ndef f(x):\n    return drop(x).flatten(1)", "every call and batch"),
    ("norm = torch.nn.BatchNorm2d(1)\n\n\ndef f(x):\n    return norm(x).flatten(1)", "every call and batch"),
    ("drop = torch.nn.Dropout()\n\n\ndef f(a, b):\n    return euclid(drop(a), b)", "every call and batch")])
def test_a_function_that_is_no_metric_is_refused_before_training(load, user_error, source, words):
    text = user_error(lambda: load(source + "\n"), "METRIC=", "mine.py:f", words)
    assert "Traceback" not in text


def test_a_network_without_a_seed_has_the_same_weights_in_every_process(load):
    source = "net = torch.nn.Linear(256, 2)\n\n\ndef f(x):\n    return net(x.flatten(1))\n"
    x, after = torch.rand(2, 1, 16, 16), []
    torch.manual_seed(5)
    first, after[:1] = load(source)(torch.arange(2), x).points, [torch.rand(1)]
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after[0])                 # torch's own numbers go on as if nothing had been drawn
    assert torch.equal(load(source)(torch.arange(2), x).points, first)


def test_a_function_that_fails_later_is_refused_then(load, user_error):
    metric = load("def f(x):\n    return x.mean((2, 3)) / (len(x) != 5)\n")
    metric(torch.arange(4), torch.rand(4, 1, 16, 16))
    user_error(lambda: metric(torch.arange(5), torch.rand(5, 1, 16, 16)), "mine.py:f", "infinity")


def test_a_function_computes_in_fp32_in_a_training_in_bf16(load):
    metric = load("def f(x):\n    return torch.from_numpy((x.flatten(1) @ torch.eye(256)).numpy())\n")
    x = torch.rand(4, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(metric(torch.arange(4), x).points, x.flatten(1))


def test_rounding_below_0_is_taken_for_0(load):
    metric = load("def f(a, b):\n    return euclid(a, b) - 1e-7\n")
    x = torch.rand(2, 1, 16, 16)
    x[1] = x[0]
    assert metric.distances(torch.arange(2), x).tolist() == [[0, 0], [0, 0]]


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


def test_a_function_that_is_not_there_is_refused_with_those_that_are(load, small_faces, user_error, tmp_path):
    user_error(lambda: load("", "distance"), "mine.py:distance", "no distance in the file, but euclid")
    for name in ("none", "x" * 300, "null\0"):
        user_error(lambda: load_metric(f"{tmp_path}/{name}.py:distance", small_faces, CPU), "no file", f"{name}.py")


@pytest.mark.parametrize("source, words", [
    ("import no_such_module", "No module named 'no_such_module'"), ("raise SystemExit(2)", "SystemExit: 2"),
    ("def f(:", "SyntaxError")])
def test_a_file_whose_own_import_fails_says_so_with_the_cause(load, user_error, source, words):
    text = user_error(lambda: load(source), "mine.py:f", "it fails as it is imported", words)
    assert "line 8" in text and ("__main__" in text) == ("SystemExit" in text)


def test_a_function_that_ends_the_program_is_refused(load, user_error):
    user_error(lambda: load("def f(x):\n    raise SystemExit('bye')\n"), "SystemExit: bye", "mine.py, line 9")


def test_a_class_instead_of_an_object_is_refused(load, user_error):
    source = "class Mean(torch.nn.Module):\n    def forward(self, x):\n        return x.mean((2, 3))\n\n\n"
    user_error(lambda: load(source, "Mean"), "a class, Mean", "write f = Mean() in that file")
    assert isinstance(load(source + "f = Mean()\n"), Function)


def test_a_file_may_import_others_of_its_folder(load, tmp_path):
    (tmp_path / "beside_my_metric.py").write_text("SCALE = 3\n")
    before = list(sys.path)
    metric = load("from beside_my_metric import SCALE\n\n\ndef f(x):\n    return SCALE * x.mean((2, 3))\n")
    assert isinstance(metric, Function) and sys.path == before
