"""metric_vae/fidelity.py against values worked by hand, slow loops and other libraries."""
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from metric_vae import fidelity

RNG = np.random.default_rng(0)


def points(count=40, dimensions=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimensions))


def test_squared_error_and_psnr_of_a_grey_difference():
    x = np.full((2, 16, 16), .5)
    assert fidelity.squared_errors(x + .1, x) == pytest.approx([2.56, 2.56])
    assert fidelity.psnr(x + .1, x) == pytest.approx([20, 20])


def test_ssim_is_1_for_the_same_face_and_falls_with_noise():
    x = RNG.random((3, 24, 24))
    assert fidelity.ssim(x, x) == pytest.approx([1, 1, 1])
    noisy = [fidelity.ssim(x + s * RNG.standard_normal(x.shape), x).mean() for s in (.05, .2, .8)]
    assert 1 > noisy[0] > noisy[1] > noisy[2]


def test_ssim_is_that_of_a_slow_loop_over_windows():
    a, b = RNG.random((2, 16, 16))
    line = np.exp(-np.arange(-5, 6) ** 2 / (2 * 1.5 ** 2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    values = []
    for i in range(6):
        for j in range(6):
            p, q = a[i:i + 11, j:j + 11], b[i:i + 11, j:j + 11]
            p_mean, q_mean = (window * p).sum(), (window * q).sum()
            p_var, q_var = (window * (p - p_mean) ** 2).sum(), (window * (q - q_mean) ** 2).sum()
            cov = (window * (p - p_mean) * (q - q_mean)).sum()
            values.append((2 * p_mean * q_mean + .0001) * (2 * cov + .0009)
                          / ((p_mean ** 2 + q_mean ** 2 + .0001) * (p_var + q_var + .0009)))
    assert fidelity.ssim(a[None], b[None]) == pytest.approx([np.mean(values)])


def test_ssim_takes_faces_smaller_than_its_window():
    x = RNG.random((1, 8, 8))
    assert fidelity.ssim(x, x) == pytest.approx([1])


def low_passed(count=5, size=16, seed=0):
    """Random faces (n, size, size) without frequencies above half of the Nyquist frequency."""
    u = np.abs(np.fft.fftfreq(size))
    low = np.maximum(u[:, None], u) <= .25
    return np.fft.ifft2(np.fft.fft2(np.random.default_rng(seed).random((count, size, size))) * low).real


def test_the_energy_at_high_frequencies_is_that_of_a_slow_loop():
    x, n = RNG.random((2, 8, 8)), 8
    window = [np.sin(np.pi * (i + .5) / n) ** 2 for i in range(n)]
    expected = np.zeros(2)
    for u in range(n):
        for v in range(n):
            if max(min(u, n - u), min(v, n - v)) > .75 * n / 2:
                wave = np.array([[window[i] * window[j] * np.exp(-2j * np.pi * (u * i + v * j) / n) for j in range(n)]
                                 for i in range(n)])
                expected += np.abs((x * wave).sum((1, 2))) ** 2 / n ** 2
    assert fidelity.high_energy(x) == pytest.approx(expected)


def test_high_frequencies_are_1_for_the_same_faces_and_0_for_faces_without_any():
    x = RNG.random((5, 16, 16))
    assert fidelity.high_frequencies(x, x) == [1, 1, 1]
    assert fidelity.high_frequencies(2 * x + 3, x) == pytest.approx([4, 4, 4])
    assert fidelity.high_frequencies(low_passed(), x) == pytest.approx([0, 0, 0], abs=1e-12)
    blurred = [fidelity.high_frequencies(gaussian_filter(x, (0, sigma, sigma)), x)[0] for sigma in (.3, .6, 1)]
    assert 1 > blurred[0] > blurred[1] > blurred[2]


@pytest.mark.parametrize("pattern", ["checkerboard", "rows"])
def test_a_pattern_of_two_pixels_raises_the_high_frequencies_by_its_own_energy(pattern):
    x, blurred, line = RNG.random((5, 16, 16)), low_passed(), (-1.0) ** np.arange(16)
    texture = .1 * np.outer(line, line if pattern == "checkerboard" else np.ones(16))
    energy = .1 ** 2 * (3 / 8 * 16) ** 2                        # the squares of a Hann window have the mean 3/8
    assert fidelity.high_energy(blurred + texture) == pytest.approx(np.full(5, energy))
    assert fidelity.high_frequencies(blurred + texture, x)[0] == pytest.approx(
        5 * energy / fidelity.high_energy(x).sum())


def test_the_error_to_the_truth_is_a_multiple_of_the_plain_error():
    x, truth = np.zeros((6, 8, 8)), np.ones((6, 8, 8))
    value = fidelity.edit_error_to_truth(truth - .2, truth, x + .1, x)
    assert value == pytest.approx([4, 4, 4])


def test_the_frechet_distance_of_equal_shifted_and_scaled_sets():
    a = points(500, 4)
    assert fidelity.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert fidelity.frechet(a, a + [3, 0, 4, 0]) == pytest.approx(25)
    centred = a - a.mean(0)
    assert fidelity.frechet(centred, 2 * centred) == pytest.approx(np.trace(np.cov(a.T, bias=True)))
    assert fidelity.frechet(points(5, 9), points(6, 9, seed=1)) > 0         # fewer faces than features
    assert fidelity.frechet(a[:, :1], a[:, :1] + 2) == pytest.approx(4)
