"""The distance regularisers: each a function of latent and given quantities of one batch, to be minimised.

Pointwise ones take latents z (B, Z) and points p (B, k) of the metric. Pairwise ones take latent distances e (B, B)
and given distances d (B, B), both symmetric with a zero diagonal; and known, bool (B, B), symmetric with a True
diagonal: which entries of d are given, at least one pair. The others are NaN, and left out. None: all are given.
"""
import torch

from training.errors import UserError
from training.plugins import choose, is_plugin, what_failed

MARGIN = 0.1            # of the reference's expanding and contracting pointwise regularisers
NEAR = 0.1              # share of the mean distance below which a pair counts as near
TINY = 1e-12            # no division by less
OWN = "a function of (e, d, known), as in metric_vae/regularizers.py, to a finite scalar with a gradient"


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


def batchwise(e, d, known=None):
    """mean | (e^2 - m1)/v1 - (d^2 - m2)/v2 | over all B^2 pairs that are given, the diagonal too.

    m and v are mean and variance of the squared distances. Dividing by the variance, not by its root, is the
    reference's; it makes the value fall with the scale of e, hence its weight of 1e5.
    """
    def scaled(squares):
        return (squares - squares.mean()) / squares.var(correction=0).clamp(min=TINY)
    if known is not None:
        e, d = e[known], d[known]
    return (scaled(e.square()) - scaled(d.square())).abs().mean()


# --- free of scale: the latent space may have any

def stress(e, d, known=None):
    """sum (s e - d)^2 / sum d^2 over pairs i < j, with the best scale s = sum(e d) / sum(e^2); 0 to 1.

    The square of Kruskal's stress-1 (Psychometrika 29, 1964).
    """
    e, d = pairs(e, known), pairs(d, known)
    return weighted_stress(e, d, torch.ones_like(d))


def local_stress(e, d, known=None):
    """stress with weights 1/d, so that near pairs weigh more (Sammon, IEEE Trans. Computers C-18, 1969).

    Distances under NEAR of the mean weigh as if they were that far, so that equal faces do not weigh everything.
    """
    e, d = pairs(e, known), pairs(d, known)
    return weighted_stress(e, d, 1 / d.clamp(min=(NEAR * d.mean()).clamp(min=TINY)))


def weighted_stress(e, d, w):
    """sum w (s e - d)^2 / sum w d^2 with the best scale s = sum(w e d) / sum(w e^2); vectors of one length."""
    scale = (w * e * d).sum() / (w * e.square()).sum().clamp(min=TINY)
    return (w * (scale * e - d).square()).sum() / (w * d.square()).sum().clamp(min=TINY)


def correlation(e, d, known=None):
    """1 - Pearson's correlation of e and d over pairs i < j; 0 to 2. Blind to an offset between e and d."""
    e, d = pairs(e, known), pairs(d, known)
    e, d = e - e.mean(), d - d.mean()
    return 1 - (e * d).sum() / (e.norm() * d.norm()).clamp(min=TINY)


def log_ratio(e, d, known=None):
    """Var log(e / d) over pairs i < j (SPAE: Singh and Nag 2021), those nearer than NEAR of the mean left out."""
    e, d = pairs(e, known), pairs(d, known)
    kept = (d > NEAR * d.mean()).float()
    ratio = (e.clamp(min=TINY) / d.clamp(min=TINY)).log()
    mean = (kept * ratio).sum() / kept.sum().clamp(min=1)
    return (kept * (ratio - mean).square()).sum() / kept.sum().clamp(min=1)


def triplet(e, d, known=None):
    """mean max(gap, 0), gap = (e_ij - e_ik) / mean e + (d_ik - d_ij) / mean d, over i, j, k with d_ij < d_ik.

    A hinge on the order of each triplet, as in generalised non-metric scaling (Agarwal et al. 2007), with the given gap
    as its margin: 0 where each latent gap is at least as wide as the given one.
    """
    e, d = e / pairs(e, known).mean().clamp(min=TINY), d / pairs(d, known).mean().clamp(min=TINY)
    margin = d[:, None, :] - d[:, :, None]                      # (i, j, k); NaN, so never > 0, unless both are given
    different = ~torch.eye(len(d), dtype=torch.bool, device=d.device)
    count = (margin > 0) & different[:, :, None] & different[:, None, :] & different[None]
    hinge = (e[:, :, None] - e[:, None, :] + margin).clamp(min=0)
    return torch.where(count, hinge, 0).sum() / count.sum().clamp(min=1)


# --- distances

def pairs(distances, known=None):
    """The entries i < j of (B, B), as one vector; known, bool (B, B): of these only, None: of all."""
    i, j = torch.triu_indices(*distances.shape, offset=1, device=distances.device)
    values = distances[i, j]
    return values if known is None else values[known[i, j]]


def pairwise_distances(points, norm=2.0):
    """(B, B) distances between the rows of (B, k) by the p-norm; the gradient at distance 0 is 0, never NaN."""
    return torch.cdist(points, points, norm, compute_mode="donot_use_mm_for_euclid_dist")


def expected_distances(mu, sigma):
    """(B, B) root of E|z_i - z_j|^2 = |mu_i - mu_j|^2 + sum(sigma_i^2 + sigma_j^2); the diagonal is 0."""
    variance = sigma.square().sum(1)
    squares = pairwise_distances(mu).square() + variance[:, None] + variance
    return squares.sqrt() * ~torch.eye(len(mu), dtype=torch.bool, device=mu.device)


# name: (function, what it compares, the latent that it takes unless REGULARIZE_ON says another)
REGULARIZERS = {
    "pointwise": (pointwise, "points", "z"),
    "expanding_pointwise": (expanding_pointwise, "points", "z"),
    "contracting_pointwise": (contracting_pointwise, "points", "z"),
    "batchwise": (batchwise, "distances", "z"),
    "stress": (stress, "distances", "mu"),
    "local_stress": (local_stress, "distances", "mu"),
    "correlation": (correlation, "distances", "mu"),
    "log_ratio": (log_ratio, "distances", "mu"),
    "triplet": (triplet, "distances", "mu"),
}
OF_POINTS = [name for name, (_, kind, _) in REGULARIZERS.items() if kind == "points"]


def find_regularizer(name, sparse=False):
    """The entry of REGULARIZERS called name, or one like it of the user's "my_file.py:function", a function of
    (e, d, known) as above; None for "none".

    Raises UserError where there is none, or the user's, tried on five faces, is no finite scalar with a gradient;
    sparse: tried also where only one pair is given.
    """
    found = choose(name, {"none": None, **REGULARIZERS}, "REGULARIZER", OWN)
    if not is_plugin(name):
        return found
    z, p = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    one = torch.eye(5, dtype=torch.bool)
    one[0, 1] = one[1, 0] = True
    for known in (None, one) if sparse else (None,):
        e, d = pairwise_distances(z).requires_grad_(), pairwise_distances(p)
        try:
            value = found(e, d if known is None else d.where(known, torch.nan), known)
            value.backward()
            finite = value.isfinite() and e.grad.isfinite().all()
            wrong = None if finite else f"{value.item():g} with a gradient of {e.grad.norm():g}"
        except Exception as error:
            wrong = what_failed(error)
        if wrong is not None:
            raise UserError(f"REGULARIZER={name}", OWN, wrong, "correct the function" if known is None else
                            "leave out the entries of d that METRIC does not give: they are NaN, where known is False")
    return found, "distances", "mu"
