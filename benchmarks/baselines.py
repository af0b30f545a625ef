"""Two models that are given the labels, to compare their edits with ours: a conditional VAE and the CSVAE.

In: faces; the labelled ones train. Out: trained models, and the scores of their edits, for benchmarks/regularizers.py.
Network size and training are those of metric_vae/run.py. The label or w enters the decoder through a linear layer, as
z does, or "joined": through a small network, as our metric part does.
"""
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from data.batches import Images, batches
from metric_vae import scores as vae_scores, statistics
from metric_vae.model import MeanFace, gaussian, kl_divergence, light_decoder, light_encoder, squared_error
from metric_vae.train import set_mean_face
from training.devices import autocast
from training.errors import UserError, check_batch
from training.loops import EpochBar, check_finite, epochs_for, scheduled, set_learning_rate


def train_named(name, faces, settings, of_models, seed, device, precision):
    """Train "cvae", "csvae" or either with "_joined" added; returns it, in eval mode. Each has Z_DIM dimensions in all.

    settings: the constants of metric_vae/run.py; of_models: those of benchmarks/regularizers.py.
    """
    torch.manual_seed(seed)
    m, classes, joined = of_models, len(faces.classes), name.endswith("_joined")
    if m.W_DIM < classes:
        raise UserError("W_DIM", f"at least {classes}, the number of classes", m.W_DIM, "set it higher")
    if name.startswith("cvae"):
        model = ConditionalVAE(faces.size, settings.Z_DIM, m.LABEL_SCALE, classes, joined)
    else:
        model = CSVAE(faces.size, settings.Z_DIM - m.W_DIM, m.W_DIM, m.W_MEAN, m.W_KL, m.ADVERSARY, m.ADVERSARY_WIDTH,
                      classes, joined)
    return train(model, faces, settings, seed, device, precision, m.ADVERSARY_STEPS)


# --- the models

def one_hot(labels, classes):
    """float32 (B, classes)."""
    return functional.one_hot(labels, classes).float()


def with_label(x, labels, classes):
    """Faces (B, 1, H, W) and their labels as further channels, one a class, each 0 or 1 everywhere."""
    planes = one_hot(labels, classes)[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, planes], 1)


def sample(mu, sigma, generator):
    """z from N(mu, sigma^2), all (B, Z)."""
    return mu + sigma * torch.randn(mu.shape, generator=generator, device=mu.device)


def reconstruct(model, x, labels):
    """The faces decoded from mu."""
    return model.decode(model.encode(x, labels)[0], labels)


class ConditionalVAE(nn.Module):
    """q(z|x, y) = N(mu, sigma^2) and a decoder of z and the label y (Kingma et al. 2014, M2; Sohn et al. 2015).

    An edit encodes a face with its own label and decodes it with another one.
    """

    def __init__(self, size, z_dim, label_scale, classes=7, joined=False):
        super().__init__()
        self.label_scale, self.classes, self.joined = label_scale, classes, classes if joined else 0
        self.mean_face = MeanFace(size)
        self.encoder = light_encoder(size, 2 * z_dim, 1 + classes)
        self.decoder = light_decoder(size, z_dim + classes, metric_dims=self.joined)

    def encode(self, x, labels):
        """mu and sigma, float32 (B, z_dim) each, of x (B, 1, H, W) in 0..1 with labels int64 (B,)."""
        return gaussian(self.encoder(with_label(self.mean_face(x), labels, self.classes)))

    def kl(self, mu, sigma, labels):
        """KL(q(z|x, y) || p(z)), (B,)."""
        return kl_divergence(mu, sigma)

    def decode(self, z, labels):
        """Faces float32 (B, 1, H, W)."""
        told = self.label_scale * one_hot(labels, self.classes)
        latents = torch.cat([z, told], 1).roll(self.joined, 1)  # what is joined comes first
        return self.decoder(latents).float() + self.mean_face.face

    def edit(self, x, labels, target):
        """The faces with the classes target, int64 (B,), instead of labels."""
        return self.decode(self.encode(x, labels)[0], target)

    def loss(self, x, labels, alpha, generator):
        """The loss that is minimised, and the sampled z (B, z_dim)."""
        mu, sigma = self.encode(x, labels)
        z = sample(mu, sigma, generator)
        error = squared_error(self.decode(z, labels), x).mean()
        return error + alpha * self.kl(mu, sigma, labels).mean(), z


class CSVAE(nn.Module):
    """The conditional subspace VAE: q(z|x), q(w|x, y), p(w|y) and a decoder of z and w (Klys, Snell and Zemel 2018).

    The labels act only on w: an adversary q(y|z) learns to read them from z, and the encoder of z to leave it
    uncertain. An edit keeps z and takes the mean of p(w|y) of the other class. encode, decode and kl take z and w
    joined: latents (B, z_dim + w_dim), z first.

    p(w|y): one Gaussian per class, its mean and sigma learned. It starts as in the paper, where each label has a
    subspace of w: the mean is w_mean in the label's own dimensions and 0 in the others.
    """

    def __init__(self, size, z_dim, w_dim, w_mean, w_kl, adversary, adversary_width, classes=7, joined=False):
        super().__init__()
        self.classes, self.joined = classes, w_dim if joined else 0
        self.z_dim, self.w_kl, self.weight = z_dim, w_kl, adversary
        self.mean_face = MeanFace(size)
        self.z_encoder = light_encoder(size, 2 * z_dim)
        self.w_encoder = light_encoder(size, 2 * w_dim, 1 + classes)
        self.decoder = light_decoder(size, z_dim + w_dim, metric_dims=self.joined)
        self.prior_mu = nn.Parameter(w_mean * one_hot(torch.arange(w_dim) % classes, classes).T)     # (classes, w_dim)
        self.prior_log_sigma = nn.Parameter(torch.zeros(classes, w_dim))
        self.adversary = nn.Sequential(nn.Linear(z_dim, adversary_width), nn.SiLU(),
                                       nn.Linear(adversary_width, adversary_width), nn.SiLU(),
                                       nn.Linear(adversary_width, classes))

    def encode(self, x, labels):
        """mu and sigma of z and w joined, float32 (B, z_dim + w_dim) each."""
        x = self.mean_face(x)
        z, w = gaussian(self.z_encoder(x)), gaussian(self.w_encoder(with_label(x, labels, self.classes)))
        return torch.cat([z[0], w[0]], 1), torch.cat([z[1], w[1]], 1)

    def kl(self, mu, sigma, labels):
        """KL(q(z|x) || p(z)) + KL(q(w|x, y) || p(w|y)), (B,), the second one weighted."""
        k, prior_sigma = self.z_dim, self.prior_log_sigma[labels].exp()
        # the divergence stays the same where both Gaussians are moved and scaled alike
        w_mu, w_sigma = (mu[:, k:] - self.prior_mu[labels]) / prior_sigma, sigma[:, k:] / prior_sigma
        return kl_divergence(mu[:, :k], sigma[:, :k]) + self.w_kl * kl_divergence(w_mu, w_sigma)

    def decode(self, latents, labels):
        """Faces float32 (B, 1, H, W); the labels are in w."""
        return self.decoder(latents.roll(self.joined, 1)).float() + self.mean_face.face

    def edit(self, x, labels, target):
        """The faces with the classes target, int64 (B,), instead of labels."""
        mu = self.encode(x, labels)[0]
        return self.decode(torch.cat([mu[:, :self.z_dim], self.prior_mu[target]], 1), target)

    def loss(self, x, labels, alpha, generator):
        """The loss that is minimised, all but N, and the sampled latents (B, z_dim + w_dim)."""
        mu, sigma = self.encode(x, labels)
        latents = sample(mu, sigma, generator)
        error = squared_error(self.decode(latents, labels), x).mean()
        log_q = self.adversary(latents[:, :self.z_dim]).float().log_softmax(1)
        negative_entropy = (log_q.exp() * log_q).sum(1).mean()                                  # M2
        return error + alpha * self.kl(mu, sigma, labels).mean() + self.weight * negative_entropy, latents

    def adversary_loss(self, latents, labels):
        """-N: the cross entropy of q(y|z), which only the adversary minimises."""
        return functional.cross_entropy(self.adversary(latents[:, :self.z_dim].detach()).float(), labels)


# --- training

def train(model, faces, settings, seed, device, precision, adversary_steps=1):
    """Train a model on the labelled training faces; returns it, in eval mode.

    settings: the constants of metric_vae/run.py. Raises UserError where there are too few faces, or the loss is not
    finite.
    """
    rows = faces.rows("train", labelled=True)
    check_batch(settings.BATCH, len(rows), faces.name)
    generator = torch.Generator(device).manual_seed(seed)
    model.to(device, memory_format=torch.channels_last).train()
    images, all_labels = Images(faces, device), torch.from_numpy(faces.labels).to(device)
    set_mean_face(model.mean_face, images, rows, settings.MEAN_OF)
    of_vae = [p for name, p in model.named_parameters() if not name.startswith("adversary.")]
    of_adversary = [p for name, p in model.named_parameters() if name.startswith("adversary.")]
    betas = (0.9, settings.ADAM_BETA2)
    optimizer = torch.optim.Adam(of_vae, betas=betas, fused=True)
    adversary_optimizer = torch.optim.Adam(of_adversary, betas=betas, fused=True) if of_adversary else None

    steps = len(batches(rows, settings.BATCH))
    count = epochs_for(settings.STEPS, steps)
    bar = EpochBar(type(model).__name__, 0, count)
    for epoch in bar:
        losses = []
        for number, batch_rows in enumerate(batches(rows, settings.BATCH, generator), epoch * steps):
            progress = number / max(count * steps - 1, 1)
            alpha = scheduled(settings.ALPHA, progress)
            x, labels = images(batch_rows, generator, settings.FLIP, settings.SHIFT), all_labels[batch_rows]
            with autocast(device, precision):
                loss, latents = model.loss(x, labels, alpha, generator)
            set_learning_rate(optimizer, settings.LEARNING_RATE, progress, settings.WARM_UP)
            step(optimizer, loss, of_vae, settings.MAX_GRADIENT)
            for _ in range(adversary_steps if of_adversary else 0):
                with autocast(device, precision):
                    adversary_loss = model.adversary_loss(latents, labels)
                set_learning_rate(adversary_optimizer, settings.LEARNING_RATE, progress, settings.WARM_UP)
                step(adversary_optimizer, adversary_loss, of_adversary, settings.MAX_GRADIENT)
            losses.append(loss.detach())
        means = {"loss": float(torch.stack(losses).mean())}
        check_finite(means, type(model).__name__, epoch + 1, None)
        bar.finished(epoch + 1, means)
    return model.eval().requires_grad_(False)


def step(optimizer, loss, parameters, max_gradient):
    """Take a step of the optimizer; larger gradients are scaled down to the norm max_gradient.

    zero_grad comes first, so what another loss has left in these gradients is gone.
    """
    optimizer.zero_grad()
    loss.backward()
    if max_gradient is not None:
        torch.nn.utils.clip_grad_norm_(parameters, max_gradient)
    optimizer.step()


# --- scores

def score(model, faces, rows, labelled, judge, identifier, device, seed=0):
    """The scores of a trained model on held-out faces, a dict of [value, low, high]: error and kl on the rows labelled,
    those of score_editing on rows.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def error_and_kl(x, labels):
        mu, sigma = model.encode(x, labels)
        x_hat = model.decode(sample(mu, sigma, generator), labels)
        return torch.stack([squared_error(x_hat, x), model.kl(mu, sigma, labels)], 1)

    def clipped(function, places, *labels):
        return apply(function, faces, rows[places], device, *labels)[:, 0].clip(0, 1)

    def edit(places, target):
        return clipped(model.edit, places, faces.labels[rows[places]], np.broadcast_to(target, len(places)))

    error, kl = apply(error_and_kl, faces, labelled, device, faces.labels[labelled]).T
    scores = {"error": statistics.mean_score(error), "kl": statistics.mean_score(kl)}
    if judge is None:
        return statistics.finite(scores)
    targets = np.unique(faces.labels[faces.rows("train", labelled=True)])
    known = np.flatnonzero(np.isin(faces.labels[rows], targets))
    x_hat = clipped(partial(reconstruct, model), known, faces.labels[rows[known]])
    pair = vae_scores.pair_of(faces)
    scores |= vae_scores.score_editing(edit, rows, known, x_hat, targets, judge, identifier, faces, device, pair, seed)
    return statistics.finite(scores)


@torch.no_grad()
def apply(function, faces, rows, device, *labels, batch_size=256):
    """function(x, *labels) of these rows in batches, as an array; labels: int64 (len(rows),) each."""
    images, parts = Images(faces, device), []
    for places in torch.arange(len(rows)).split(batch_size):
        x = images(torch.from_numpy(rows)[places])
        parts.append(function(x, *(torch.tensor(some)[places].to(device) for some in labels)).cpu())
    return torch.cat(parts).numpy()
