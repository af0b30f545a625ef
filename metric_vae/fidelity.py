"""How near faces are to others: reconstructions to inputs, edits to the truth, samples to the data.

In: arrays of faces, float (n, H, W), or in colour (n, H, W, 3), in 0..1, or of features of them. Out: a number a face,
or a score [value, low, high].
"""
import numpy as np
from scipy.ndimage import gaussian_filter

from metric_vae import statistics

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5        # pixels; an 11x11 window
SSIM_C1, SSIM_C2 = 0.01 ** 2, 0.03 ** 2
HIGH = 0.75             # frequencies above this share of the Nyquist frequency are high


def squared_errors(x_hat, x):
    """Squared error summed over pixels, (n,); both (n, H, W) or (n, H, W, 3)."""
    return np.square(np.asarray(x_hat, float) - x).reshape(len(x), -1).sum(1)


def psnr(x_hat, x):
    """Peak signal-to-noise ratio in dB, (n,): -10 log10(mean squared error); both (n, H, W), range 0..1."""
    return -10 * np.log10(squared_errors(x_hat, x) / x[0].size + 1e-12)


def ssim(x_hat, x):
    """Structural similarity, (n,), of faces (n, H, W) or (n, H, W, 3) in 0..1, averaged over channels and the places of
    a whole 11x11 window.

    Gaussian window with sigma 1.5 pixels, K1 = .01, K2 = .03 (Wang et al. 2004, eq. 13). Faces of less than 11 pixels
    are mirrored at their border.
    """
    def blur(image):
        return gaussian_filter(image, (0, 0, SSIM_SIGMA, SSIM_SIGMA), radius=(0, 0, SSIM_RADIUS, SSIM_RADIUS))
    a, b = planes(np.asarray(x_hat, float)), planes(np.asarray(x, float))
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a ** 2, blur(b * b) - mean_b ** 2, blur(a * b) - mean_a * mean_b
    similarity = ((2 * mean_a * mean_b + SSIM_C1) * (2 * cov + SSIM_C2)
                  / ((mean_a ** 2 + mean_b ** 2 + SSIM_C1) * (var_a + var_b + SSIM_C2)))
    r = SSIM_RADIUS if a.shape[2] > 2 * SSIM_RADIUS else 0
    return similarity[:, :, r:a.shape[2] - r, r:a.shape[3] - r].mean((1, 2, 3))


def high_energy(x):
    """The energy of faces (n, H, W) or (n, H, W, 3) at high spatial frequencies, (n,), in units of squared pixels
    summed over a face and its channels.

    sum |F(w x)|^2 / (H W) over the frequencies (u, v) of the 2-D Fourier transform F, in cycles per pixel, with
    max(|u|, |v|) > HIGH / 2. w is a Hann window (Harris 1978), which is 0 at the borders: without it half of this
    energy would be the step between opposite borders, which F takes for neighbours.
    """
    rows, columns = (np.sin(np.pi * (np.arange(size) + .5) / size) ** 2 for size in x.shape[1:3])
    u, v = (np.abs(np.fft.fftfreq(size)) for size in x.shape[1:3])
    high = np.maximum(u[:, None], v) > HIGH / 2                 # (H, W)
    spectrum = np.fft.fft2(planes(x) * np.outer(rows, columns))[:, :, high]
    return np.square(np.abs(spectrum)).sum((1, 2)) / high.size


def high_frequencies(x_hat, x):
    """high_energy of faces x_hat as a multiple of that of faces x, each (n, H, W), summed over faces.

    1: as much fine texture as in x; less: blurred; more: texture of the network's own, such as the checkerboard that
    strided layers leave.
    """
    return statistics.ratio(high_energy(x_hat), high_energy(x))


def edit_error_to_truth(edits, truth, x_hat, x):
    """Squared error of edits to the true faces, as a multiple of that of the reconstructions of the same faces.

    All (n, H, W) in 0..1: the edit, that person rendered with that class, reconstruction and face before.
    """
    return statistics.ratio(squared_errors(edits, truth), squared_errors(x_hat, x))


def frechet(a, b):
    """The Frechet distance of two sets of features (n, k), (m, k), taken for Gaussians.

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) (Dowson and Landau 1982; Heusel et al. 2017, eq. 6). It falls
    with the number of faces, so compare it for equal ones; resampling would raise it, hence no interval.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    s_a, s_b = np.cov(a, rowvar=False, bias=True), np.cov(b, rowvar=False, bias=True)
    values, vectors = np.linalg.eigh(np.atleast_2d(s_a))
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T            # S_a^(1/2)
    both = np.sqrt(np.clip(np.linalg.eigvalsh(root @ np.atleast_2d(s_b) @ root), 0, None)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.atleast_2d(s_a + s_b)) - 2 * both)


def planes(x):
    """(n, C, H, W) of faces (n, H, W) or (n, H, W, 3)."""
    return x[:, None] if x.ndim == 3 else np.moveaxis(x, 3, 1)
