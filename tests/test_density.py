"""metric_vae/density.py: what it is fitted to, what it samples, what its file keeps."""
import numpy as np
import pytest
from scipy.stats import chi2

from metric_vae import density
from metric_vae.trained import Summary, load_summary

RNG = np.random.default_rng(0)


def clouds(counts, dimensions=3, apart=100.0, seed=0):
    """Latents (n, Z) and labels of classes 0, 1, ... of so many faces, standard normal about points far apart."""
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).standard_normal((len(labels), dimensions))
    return noise + apart * labels[:, None], labels


def test_a_class_has_its_mean_and_the_shrunk_covariance_of_a_slow_loop():
    z = RNG.standard_normal((14, 3)) * [1, 2, 3] + [5, 6, 7]
    labels = np.repeat([0, 1], [10, 4])
    means = [sum(z[labels == a]) / (labels == a).sum() for a in (0, 1)]
    scatters = [sum(np.outer(row - means[a], row - means[a]) for row in z[labels == a]) for a in (0, 1)]
    shared = (scatters[0] + scatters[1] + 3 * np.eye(3)) / (14 + 3)
    fitted = density.fit(z, labels, 2)
    for a, count in ((0, 10), (1, 4)):
        expected = (scatters[a] + 3 * shared) / (count + 3)
        assert fitted.factors[a] @ fitted.factors[a].T == pytest.approx(expected, rel=1e-5)
    assert fitted.means == pytest.approx(np.array(means), rel=1e-6)
    assert fitted.weights == pytest.approx([10 / 14, 4 / 14])


def test_samples_have_the_mean_and_covariance_of_the_latents_they_were_fitted_to():
    mixing = np.array([[1, 0, 0], [2, 1, 0], [0, -1, .5]])
    z = RNG.standard_normal((20_000, 3)) @ mixing.T + [1, 2, 3]
    samples = density.fit(z, np.full(len(z), -1), 7).sample(50_000, seed=1)
    assert samples.dtype == np.float32
    assert samples.mean(0) == pytest.approx([1, 2, 3], abs=.05)
    assert np.cov(samples.T) == pytest.approx(np.cov(z.T), abs=.1)


def test_samples_of_a_class_lie_where_its_faces_do_and_those_of_all_as_often_as_among_them():
    z, labels = clouds([300, 100, 600])
    fitted = density.fit(z, labels, 3)
    for label in range(3):
        nearest = (fitted.sample(500, label, seed=2) / 100).mean(1).round()
        assert (nearest == label).all()
    found = np.bincount((fitted.sample(20_000) / 100).mean(1).round().astype(int)) / 20_000
    assert found == pytest.approx([.3, .1, .6], abs=.02)


def test_a_class_of_fewer_faces_than_dimensions_gets_the_spread_of_the_others_in_the_directions_it_lacks():
    z, labels = clouds([2000, 5], dimensions=40)
    rare = density.fit(z, labels, 2).sample(4000, 1, seed=3)
    variances = np.linalg.eigvalsh(np.cov(rare.T))
    assert .6 < variances.min() and variances.max() < 2.5       # all 1; of five faces alone 36 are 0, 4 about 8
    squares = ((rare - z[labels == 1].mean(0)) ** 2).sum(1)
    assert np.mean(squares < chi2(40).ppf(.5)) == pytest.approx(.5, abs=.2)


@pytest.mark.parametrize("counts", [[1], [1, 1], [2, 1], [40, 9, 0, 3]])
def test_single_faces_few_faces_and_classes_without_faces_are_fitted(counts):
    z, labels = clouds(counts)
    fitted = density.fit(z, labels, len(counts) + 2)
    assert fitted.labelled().tolist() == [label for label, count in enumerate(counts) if count]
    assert np.isfinite(fitted.sample(50)).all() and fitted.weights.sum() == pytest.approx(1)
    assert fitted.sample(0).shape == (0, 3)
    with pytest.raises(ValueError, match="class"):
        fitted.sample(1, len(counts))


def test_unlabelled_faces_are_in_the_samples_of_all_and_of_no_class():
    z, labels = clouds([200, 100])
    fitted = density.fit(z, labels - 1, 1)
    assert fitted.labelled().tolist() == [0]
    assert (fitted.sample(300, 0).mean(1) > 50).all()
    assert np.mean(fitted.sample(5000).mean(1) < 50) == pytest.approx(2 / 3, abs=.03)


def summary():
    return Summary(density.fit(*clouds([200, 100]), 2), np.full((2, 3), 1, np.float32), 2.5)


def test_the_file_gives_the_same_samples_and_a_seed_the_same_ones_again(tmp_path):
    summary().save(tmp_path / "latents.npz")
    again, fitted = load_summary(tmp_path / "latents.npz"), summary()
    assert all(a.dtype in (np.float32, np.int64) for a in vars(again.density).values())
    assert (again.density.sample(40, 1, seed=7) == fitted.density.sample(40, 1, seed=7)).all()
    assert (again.density.sample(40, 1, seed=8) != fitted.density.sample(40, 1, seed=7)).any()
    assert again.scale == 2.5 and np.array_equal(again.class_means, fitted.class_means)
    assert [path.name for path in tmp_path.iterdir()] == ["latents.npz"]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:100]), lambda path: path.unlink(),
                                    lambda path: np.savez(path, scale=1.0)])
def test_a_damaged_file_is_a_users_error(damage, tmp_path, user_error):
    path = tmp_path / "latents.npz"
    summary().save(path)
    damage(path)
    user_error(lambda: load_summary(path), "latents.npz", "delete")
