"""The distance regularisers: each a function of latent and given quantities of one batch, to be minimised.

Pointwise ones take latents z (B, Z) and points p (B, k) of the metric. Pairwise ones take latent distances e (B, B)
and given distances d (B, B), both symmetric with a zero diagonal.
"""
import torch

MARGIN = 0.1            # of the reference's expanding and contracting pointwise regularisers


# --- the reference implementation's (jackklys/MetricVAE), on sampled z

def pointwise(z, p):
    """mean | |p|^2 - |z|^2 |: each latent as far from the origin as its point."""
    return (p.square().sum(1) - z.square().sum(1)).abs().mean()


def expanding_pointwise(z, p):
    """mean max(|p|^2 - |z|^2 + MARGIN, 0): each latent at least as far out as its point."""
    return (p.square().sum(1) - z.square().sum(1) + MARGIN).clamp(min=0).mean()


def contracting_pointwise(z, p):
    """mean max(|z|^2 - |p|^2 + MARGIN, 0): each latent at most as far out as its point."""
    return (z.square().sum(1) - p.square().sum(1) + MARGIN).clamp(min=0).mean()


def batchwise(e, d):
    """mean | (e^2 - m1)/v1 - (d^2 - m2)/v2 | over all B^2 pairs, the diagonal too.

    m and v are mean and variance of the squared distances. Dividing by the variance, not by its root, is the
    reference's; it makes the value fall with the scale of e, hence its weight of 1e5.
    """
    def scaled(squares):
        return (squares - squares.mean()) / squares.var(correction=0)
    return (scaled(e.square()) - scaled(d.square())).abs().mean()


# --- ours

def stress(e, d):
    """sum (s e - d)^2 / sum d^2 over pairs i < j, with the best scale s = sum(e d) / sum(e^2).

    The square of Kruskal's stress-1 (Psychometrika 29, 1964) with the roles of e and d exchanged: the latent space
    may have any scale. It lies in 0..1.
    """
    e, d = pairs(e), pairs(d)
    scale = (e * d).sum() / e.square().sum()
    return (scale * e - d).square().sum() / d.square().sum()


# --- distances

def pairs(distances):
    """The entries i < j of (B, B), as one vector."""
    i, j = torch.triu_indices(*distances.shape, offset=1, device=distances.device)
    return distances[i, j]


def pairwise_distances(points, norm=2.0):
    """(B, B) distances between the rows of (B, k) by the p-norm; the gradient at distance 0 is 0, never NaN."""
    return torch.cdist(points, points, norm, compute_mode="donot_use_mm_for_euclid_dist")


# name: (function, kind, the latent that it takes by default)
REGULARIZERS = {
    "pointwise": (pointwise, "points", "z"),
    "expanding_pointwise": (expanding_pointwise, "points", "z"),
    "contracting_pointwise": (contracting_pointwise, "points", "z"),
    "batchwise": (batchwise, "distances", "z"),
    "stress": (stress, "distances", "mu"),
}
