"""The loss of one batch: squared error + alpha KL + beta regulariser + consistency x consistency loss.

In: a VAE, faces, their rows, and a metric on them. Out: the terms, and the total that is minimised. Terms are summed
over dimensions and averaged over faces.
"""
from typing import NamedTuple

import torch

from metric_vae.model import kl_divergence, squared_error
from metric_vae.regularizers import TINY, expected_distances, find_regularizer, pairwise_distances
from training.distributed import PROCESSES, gather, own_part
from training.loops import scheduled


class Terms(NamedTuple):
    """The terms of the loss of one batch, unweighted; scalars. With several processes: the share of one of them."""
    error: torch.Tensor                 # squared error summed over pixels, with sampled z
    kl: torch.Tensor
    regularizer: torch.Tensor
    consistency: torch.Tensor           # the consistency loss


class Pairs(NamedTuple):
    """Faces of which the regulariser takes the pairs: rows (B,), the pixels x (b, C, H, W) of the own part of them, and
    noise (B, k) standard normal.
    """
    rows: torch.Tensor
    x: torch.Tensor
    noise: torch.Tensor


class Loss:
    """The loss of a VAE and the weights of its terms, which follow a schedule or are tuned step by step.

    settings: the constants of metric_vae/run.py; metric: None for a VAE without one, whose loss is only error and KL.
    """

    def __init__(self, settings, metric, device):
        self.settings, self.metric = settings, metric
        self.regularizer = None if metric is None else find_regularizer(settings.REGULARIZER)
        self.alpha, self.beta = torch.ones(2, device=device)
        self.consistency = 0.0

    def schedule(self, progress):
        """Set the weights of a step; progress: from 0, the first step, to 1, the last."""
        s = self.settings
        if s.ALPHA != "optimal":
            self.alpha = torch.full_like(self.alpha, scheduled(s.ALPHA, progress))
        if s.TARGET_STRESS is None or progress == 0:
            self.beta = torch.full_like(self.beta, scheduled(s.BETA, progress))
        if self.has_consistency and progress > .5:
            self.consistency = scheduled(s.CONSISTENCY, 2 * progress - 1)

    @property
    def has_consistency(self):
        """Whether the consistency is ever part of this loss."""
        return self.metric is not None and max(self.settings.CONSISTENCY) > 0

    def __call__(self, vae, rows, x, noise, with_consistency, pairs=None):
        """The Terms of the faces rows (B,); x (b, C, H, W): the pixels of the own part of them; noise (B, Z) standard
        normal; with_consistency: whether to compute that term; pairs: the Pairs of the regulariser, which see
        only the metric branch; None: those of these faces.

        Without processes b = B. A single face has no pairs: its loss is only error and KL.
        """
        count = len(rows)
        own_mu, own_sigma = vae.encode(x)                       # (b, Z), (b, Z)
        own_z = sample(own_mu, own_sigma, noise)
        x_hat = vae.decode(own_z)                               # (b, C, H, W)
        error = squared_error(x_hat, x).sum() / count
        kl = kl_divergence(own_mu, own_sigma).sum() / count
        regularizer = consistency = torch.zeros((), device=x.device)
        if self.metric is not None and count > 1:
            if with_consistency and self.has_consistency:
                consistency = consistency_loss(vae, gather(own_mu, count), gather(own_z, count))
            if self.regularizer is not None:
                if pairs is not None:
                    rows, x = pairs.rows, pairs.x
                    own_mu, own_sigma = vae.encode_metric(x)
                    own_z = sample(own_mu, own_sigma, pairs.noise)
                own = torch.stack([own_mu, own_sigma, own_z], 1)[..., :vae.metric_dims]            # (b, 3, k)
                mu, sigma, z = gather(own, len(rows)).unbind(1)
                regularizer = self.regularize(self.metric(rows, x), mu, sigma, z) / PROCESSES
        return Terms(error, kl, regularizer, consistency)

    def regularize(self, given, mu, sigma, z):
        """The value of REGULARIZER for one batch, 0 where none of its pairs is given; mu, sigma, z (B, k): the latents
        that keep the metric.
        """
        function, kind, latent = self.regularizer
        latent = self.settings.REGULARIZE_ON or latent
        if kind == "points":
            return function(mu if latent == "mu" else z, given.points)
        if latent == "expected":
            e = expected_distances(mu, sigma)
        else:
            e = pairwise_distances(mu if latent == "mu" else z)
        if given.known is not None and not given.known.triu(1).any():
            return 0 * e.sum()
        return function(e, given.distances, given.known)

    def total(self, terms):
        """The loss that is minimised. Linear in the terms, so that processes can add up their shares."""
        return (terms.error + self.alpha * terms.kl + self.beta * terms.regularizer
                + self.consistency * terms.consistency)

    @torch.no_grad()
    def update(self, terms, pixels):
        """Tune the weights that are tuned, by the terms of a batch.

        alpha: twice the optimal variance of the decoder, the squared error per pixel (sigma-VAE: Rybkin, Daniilidis and
        Levine 2021): alpha = 2 s^2 turns error / (2 s^2) + KL into error + alpha KL. beta: dual ascent on its
        logarithm towards stress <= TARGET_STRESS (GECO: Rezende and Viola 2018), up to 1e8 where that is out of reach.
        """
        s = self.settings
        if s.ALPHA == "optimal":
            self.alpha = torch.lerp(self.alpha, 2 * terms.error / pixels, s.AVERAGE)
        if s.TARGET_STRESS is not None:
            excess = terms.regularizer.sqrt() / s.TARGET_STRESS - 1
            excess = torch.where(terms.regularizer > 0, excess, 0)      # 0: no pair of the batch is given
            self.beta = (self.beta * (s.DUAL_RATE * excess.clamp(-1, 1)).exp()).clamp(max=1e8)


def sample(mu, sigma, noise):
    """z = mu + sigma noise of the own part of a batch, (b, Z), as mu and sigma are; noise (B, Z): of all of it."""
    return mu + sigma * noise[own_part(len(noise))]


def consistency_loss(vae, mu, z):
    """The squared error with which the encoder, its weights held fixed, recovers the metric part of edited faces,
    divided by the variance of the metric part; 0: perfect, and it may exceed 1.

    mu, z (B, Z): in every second face the metric part is replaced by the next face's. The gradient reaches the weights
    through which the metric part enters the decoder, and the rest of z, which learns not to duplicate the metric part.
    If it reached the whole decoder, reconstructions would get worse for the sake of edits; if it reached the metric
    part, that could become easy to recover instead of correct (where the metric part has no branch, it changes with the
    weights that it shares with the rest). With several processes: the share of one.
    """
    dims = vae.metric_dims or z.shape[1]
    part = mu[:, :dims].detach()
    edited = torch.cat([z.detach().roll(-1, 0)[:, :dims], z[:, dims:]], 1)[::2]
    wanted = part.roll(-1, 0)[::2]
    own = own_part(len(edited))
    found = vae.recover_metric(vae.decode_edited(edited[own]))
    variance = part.var(0, correction=0).sum().clamp(min=TINY)
    return (found - wanted[own]).square().sum() / len(edited) / variance
