"""metric_vae/regularizers.py against slow loops, values by hand and finite differences."""
import itertools

import numpy as np
import pytest
import torch

from metric_vae import regularizers
from metric_vae.regularizers import REGULARIZERS, expected_distances, find_regularizer, pairwise_distances

OF_PAIRS = [name for name, (_, kind, _) in REGULARIZERS.items() if kind == "distances"]


def points(count, dimensions, seed=0):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_pointwise(z, p):
    return np.mean([abs((p[i] ** 2).sum() - (z[i] ** 2).sum()) for i in range(len(z))])


def slow_expanding_pointwise(z, p):
    return np.mean([max((p[i] ** 2).sum() - (z[i] ** 2).sum() + 0.1, 0) for i in range(len(z))])


def slow_contracting_pointwise(z, p):
    return np.mean([max((z[i] ** 2).sum() - (p[i] ** 2).sum() + 0.1, 0) for i in range(len(z))])


def slow_batchwise(e, d):
    first, second = [], []
    for i, j in np.argwhere(~np.isnan(d)):
        first.append(e[i, j] ** 2)
        second.append(d[i, j] ** 2)
    m1, m2, v1, v2 = np.mean(first), np.mean(second), np.var(first), np.var(second)
    return np.mean([abs((a - m1) / v1 - (b - m2) / v2) for a, b in zip(first, second)])


def slow_pairs(e, d):
    return [(e[i, j], d[i, j]) for i in range(len(e)) for j in range(i + 1, len(e)) if not np.isnan(d[i, j])]


def slow_weighted(e, d, weight):
    pairs = slow_pairs(e, d)
    mean = np.mean([b for _, b in pairs])
    w = [weight(b, mean) for _, b in pairs]
    s = sum(u * a * b for u, (a, b) in zip(w, pairs)) / sum(u * a * a for u, (a, b) in zip(w, pairs))
    return sum(u * (s * a - b) ** 2 for u, (a, b) in zip(w, pairs)) / sum(u * b * b for u, (a, b) in zip(w, pairs))


def slow_stress(e, d):
    return slow_weighted(e, d, lambda b, mean: 1)


def slow_local_stress(e, d):
    return slow_weighted(e, d, lambda b, mean: 1 / max(b, 0.1 * mean))


def slow_correlation(e, d):
    return 1 - np.corrcoef(*zip(*slow_pairs(e, d)))[0, 1]


def slow_log_ratio(e, d):
    pairs = slow_pairs(e, d)
    mean = np.mean([b for _, b in pairs])
    return np.var([np.log(a / b) for a, b in pairs if b > 0.1 * mean])


def slow_triplet(e, d):
    pairs = slow_pairs(e, d)
    e, d = e / np.mean([a for a, _ in pairs]), d / np.mean([b for _, b in pairs])
    gaps = [max(e[i, j] - e[i, k] + d[i, k] - d[i, j], 0)
            for i, j, k in itertools.permutations(range(len(e)), 3) if d[i, j] < d[i, k]]
    return np.mean(gaps)


def arguments(name, count):
    """z and p, or e and d, of a batch."""
    z, p = points(count, 5), points(count, 3, seed=1)
    if REGULARIZERS[name][1] == "points":
        return z, p
    return pairwise_distances(z), pairwise_distances(p)


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("name", REGULARIZERS)
def test_each_regulariser_equals_a_slow_loop(name, count):
    if name == "triplet" and count == 2:
        pytest.skip("no triplet in two faces")
    if name == "correlation" and count == 2:
        pytest.skip("no correlation of one pair")
    latent, given = arguments(name, count)
    slow = globals()[f"slow_{name}"](latent.numpy(), given.numpy())
    assert float(REGULARIZERS[name][0](latent, given)) == pytest.approx(slow, rel=1e-9, abs=1e-12)


def some_pairs(count, share, seed=0):
    """bool (count, count), symmetric with a True diagonal: about this share of the pairs."""
    drawn = torch.rand(count, count, generator=torch.Generator().manual_seed(seed)).triu(1)
    return (drawn + drawn.T > 1 - share) | torch.eye(count, dtype=torch.bool)


@pytest.mark.parametrize("share", [0.2, 0.5, 1])
@pytest.mark.parametrize("name", OF_PAIRS)
def test_pairs_without_a_given_distance_are_left_out(name, share):
    z = points(9, 5).requires_grad_()
    known = some_pairs(9, share)
    d = pairwise_distances(points(9, 3, seed=1)).where(known, torch.nan)
    e = pairwise_distances(z)
    value = REGULARIZERS[name][0](e, d, known)
    slow = globals()[f"slow_{name}"](e.detach().numpy(), d.numpy())
    assert 3 < known.triu(1).sum() <= 36 and slow > 0
    assert float(value.detach()) == pytest.approx(slow, rel=1e-9)
    of_e, = torch.autograd.grad(value, e, retain_graph=True)
    assert torch.isfinite(of_e).all() and (of_e[~known] == 0).all()
    assert torch.autograd.gradcheck(lambda z: REGULARIZERS[name][0](pairwise_distances(z), d, known), z, eps=1e-7,
                                    atol=1e-5)


@pytest.mark.parametrize("name", OF_PAIRS)
def test_a_single_given_pair_gives_finite_gradients(name):
    known = torch.eye(5, dtype=torch.bool)
    known[1, 3] = known[3, 1] = True
    z = points(5, 4).requires_grad_()
    d = pairwise_distances(points(5, 3, seed=1)).where(known, torch.nan)
    value = REGULARIZERS[name][0](pairwise_distances(z), d, known)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(z.grad).all()


@pytest.mark.parametrize("name", REGULARIZERS)
def test_each_regulariser_has_the_gradient_of_its_value(name):
    function, kind, _ = REGULARIZERS[name]
    p = points(6, 3, seed=1)
    if kind == "points":
        value = lambda z: function(z, p)
    else:
        value = lambda z: function(pairwise_distances(z), pairwise_distances(p))
    assert torch.autograd.gradcheck(value, points(6, 5).requires_grad_(), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("name", ["stress", "local_stress", "correlation", "log_ratio", "triplet"])
def test_scale_free_regularisers_are_zero_for_a_scaled_metric_and_only_there(name):
    d = pairwise_distances(points(8, 3))
    function = REGULARIZERS[name][0]
    assert float(function(0.01 * d, d)) == pytest.approx(0, abs=1e-9)
    assert float(function(pairwise_distances(points(8, 3, seed=2)), d)) > 0.01
    other = pairwise_distances(points(8, 3, seed=2))
    assert float(function(other, d)) == pytest.approx(float(function(100 * other, d)))


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("count", [2, 3, 64])
def test_no_regulariser_gives_nan_where_faces_are_equal(name, count):
    z, p = points(count, 5), points(count, 3, seed=1)
    z[:count // 2 + 1], p[:count // 2 + 1] = z[0], p[0]         # all of two
    z.requires_grad_()
    function, kind, _ = REGULARIZERS[name]
    value = function(z, p) if kind == "points" else function(pairwise_distances(z), pairwise_distances(p))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(z.grad).all()


def test_stress_by_hand():
    """Three faces: e = (1, 1, 2), d = (1, 2, 2): s = 7/6, sum (s e - d)^2 = 1/36 + 25/36 + 4/36, sum d^2 = 9."""
    e = torch.tensor([[0., 1, 1], [1, 0, 2], [1, 2, 0]])
    d = torch.tensor([[0., 1, 2], [1, 0, 2], [2, 2, 0]])
    assert float(regularizers.stress(e, d)) == pytest.approx(30 / 36 / 9)


def test_expected_distances_are_those_of_many_samples():
    mu, sigma = points(4, 3), points(4, 3, seed=1).abs()
    noise = torch.randn(100_000, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    z = mu + sigma * noise
    sampled = (z[:, :, None] - z[:, None]).square().sum(-1).mean(0)
    assert torch.allclose(expected_distances(mu, sigma).square(), sampled, rtol=0.02)


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0, float("inf")])
def test_pairwise_distances_are_those_of_numpy(norm):
    x = points(5, 4)
    slow = [[np.linalg.norm(a - b, ord=norm) for b in x.numpy()] for a in x.numpy()]
    assert np.allclose(pairwise_distances(x, norm), slow)


# --- one of the user's own

def find_own(tmp_path, body, sparse=False):
    (tmp_path / "mine.py").write_text(f"import torch\n\n\ndef f(e, d, known=None):\n    {body}\n")
    return find_regularizer(f"{tmp_path}/mine.py:f", sparse)


def test_a_regulariser_of_the_users_own_is_found_and_takes_mu(tmp_path):
    function, kind, latent = find_own(tmp_path, "return ((e - d)[... if known is None else known] ** 2).mean()")
    assert (kind, latent) == ("distances", "mu")
    e, d = (pairwise_distances(points(4, 3, seed)) for seed in (0, 1))
    assert torch.equal(function(e, d), (e - d).square().mean())
    assert find_regularizer("none") is None and find_regularizer("stress") is REGULARIZERS["stress"]


def test_only_for_a_sparse_metric_a_regulariser_has_to_leave_out_what_is_not_given(tmp_path, user_error):
    body = "return (e - d).square().mean()"
    find_own(tmp_path, body)
    user_error(lambda: find_own(tmp_path, body, sparse=True), "nan", "where known is False")
    find_own(tmp_path, "return ((e - d)[... if known is None else known] ** 2).mean()", sparse=True)


@pytest.mark.parametrize("body, words", [
    ("return e - d", "scalar outputs"), ("return 1.0", "'float'"), ("return d.sum()", "does not require grad"),
    ("return e.no_such()", "mine.py, line 5"), ("return e.sum() / 0", "inf"), ("return e.sqrt().sum()", "of inf")])
def test_a_regulariser_that_fails_is_refused(tmp_path, user_error, body, words):
    user_error(lambda: find_own(tmp_path, body), f"REGULARIZER={tmp_path}/mine.py:f", words)
