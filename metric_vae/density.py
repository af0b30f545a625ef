"""The density of a VAE's latents, from which new faces are sampled: a Gaussian of each class.

In: latents z of training faces and their labels. Out: samples of z, of all classes or of one.
The latents of classes lie apart, so the prior N(0, I) has much of its mass where the decoder has seen no face.
"""
from dataclasses import dataclass

import numpy as np


@dataclass
class Density:
    """A mixture of K Gaussians, one a class: classes int64 (K,), -1 that of unlabelled faces, the rest float32.

    weights (K,), the share of faces in each; means (K, Z); factors (K, Z, Z), lower triangular: covariance = factor
    factor^T.
    """
    classes: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray

    def sample(self, count, of=None, seed=0):
        """Latents float32 (count, Z) of all classes, as often as among the faces of the fit, or of one class only.

        Raises ValueError for a class that had no faces.
        """
        if of is not None and of not in self.classes:
            raise ValueError(f"no density of class {of}: it had no training faces")
        rng = np.random.default_rng(seed if of is None else [seed, of + 1])     # classes do not share their noise
        weights = self.weights.astype(float) if of is None else (self.classes == of).astype(float)
        drawn = rng.choice(len(weights), count, p=weights / weights.sum())
        z = rng.standard_normal((count, self.means.shape[1]), np.float32)
        for k in np.unique(drawn):
            z[drawn == k] = self.means[k] + z[drawn == k] @ self.factors[k].T
        return z

    def labelled(self):
        """The classes that it has samples of, sorted."""
        return np.unique(self.classes[self.classes >= 0])


def fit(z, labels, classes):
    """The Density of latents z (n, Z) with labels int64 (n,) in 0..classes - 1, -1 unlabelled.

    A Gaussian of each class that has faces, and of the unlabelled faces. A class may have fewer faces than z has
    dimensions, so its covariance is shrunk towards the one that all share within their classes, S, as in regularised
    discriminant analysis (Friedman 1989): (sum r r^T + Z S) / (n + Z) over its n residuals r = z - mean. S itself is
    shrunk in the same way towards I, the covariance of the VAE's prior.
    """
    z = np.asarray(z, float)
    present = np.array([label for label in range(-1, classes) if (labels == label).any()])
    parts = [z[labels == label] for label in present]
    residuals = [part - part.mean(0) for part in parts]
    shared = shrunk(np.concatenate(residuals), np.eye(z.shape[1]))
    return Density(present, np.array([len(part) / len(z) for part in parts], np.float32),
                   np.array([part.mean(0) for part in parts], np.float32),
                   np.array([np.linalg.cholesky(shrunk(r, shared)) for r in residuals], np.float32))


def shrunk(residuals, prior):
    """The covariance (Z, Z) of residuals (n, Z), in which a prior one counts as that of Z further faces."""
    dimensions = residuals.shape[1]
    return (residuals.T @ residuals + dimensions * prior) / (len(residuals) + dimensions)
