"""The scores of a trained VAE on held-out faces: it is encoded, decoded and edited here, and statistics.py counts.

In: a VAE, its metric, Faces and, for edits, a judge: a classifier with layers(x) as expr_classifier/model.py has it.
Out: dicts of score: [value, low, high].
"""
from dataclasses import dataclass
from typing import Callable

import numpy as np
import torch
from torch.nn import functional

from data import synthetic
from data.batches import as_channels
from data.figures import MOST
from metric_vae import fidelity, statistics
from metric_vae.metrics import Function
from metric_vae.model import kl_divergence
from metric_vae.trained import Summary, decode, edit_dims, encode, metric_part
from training.errors import check_choice

CHUNK = 2048            # faces decoded and scored in one go
SAMPLES = 100           # of each class, for the judge


@dataclass
class Latents:
    """What is known of held-out faces in one VAE: rows of the data, their pixels x in 0..1 and labels, mu, the
    Summary of the training faces, a function from z to faces in 0..1, and which dimensions keep the metric and which
    ones edits move.
    """
    name: str
    rows: np.ndarray
    x: np.ndarray
    labels: np.ndarray
    mu: np.ndarray
    summary: Summary
    decode: Callable
    metric_dims: slice
    edit_dims: slice

    @property
    def means(self):
        """The mean mu of the training faces of each class, (classes, Z)."""
        return self.summary.class_means

    def editable(self, labels):
        """Those of these labels that faces can be edited to and from: their classes have training faces."""
        return [label for label in labels if np.isfinite(self.means[label]).all()]

    def distances(self):
        """Latent distances (n, n)."""
        return statistics.euclidean(self.mu[:, self.metric_dims])

    def samples(self, count, source, of=None, seed=0):
        """New faces float32 (count, H, W) from source: "density", of all classes or one, or "prior", N(0, I)."""
        if source == "density":
            return self.decode(self.summary.density.sample(count, of, seed))
        return self.decode(np.random.default_rng(seed).standard_normal((count, self.mu.shape[1])))

    def rows_of_samples(self, count, source, seed=0):
        """Samples (R, count, H, W) and the labels of the rows: from "density" a row a class, of MOST classes at most;
        from "prior", or where no face is labelled, seven rows of any and None.
        """
        labels = self.summary.density.labelled()[:MOST] if source == "density" else []
        if len(labels):
            return np.stack([self.samples(count, source, of, seed) for of in labels]), labels
        samples = self.samples(7 * count, source, seed=seed)
        return samples.reshape(7, count, *samples.shape[1:]), None

    def edit(self, rows, target):
        """The faces of these places with another class: int, or one a face."""
        return self.decode(statistics.edit(self.mu[rows], self.labels[rows], target, self.means, self.edit_dims))


def latents_of(name, vae, faces, rows, device, summary, edit_part="both"):
    """The Latents of these held-out faces in a VAE; edit_part: see edit_dims in metric_vae/trained.py."""
    mu, _ = encode(vae, faces, rows, device)
    return Latents(name, rows, faces.images[rows] / np.float32(255), faces.labels[rows], mu, summary,
                   lambda z: decode(vae, z, device).clip(0, 1), metric_part(vae, name), edit_dims(vae, name, edit_part))


def score_reconstructions(vae, faces, rows, device, seed=0):
    """error, psnr, ssim and high_frequencies of x_hat, kl and active_units on the faces of these rows.

    x_hat is decoded from sampled z, as in training. The error is the decoder's own, as in the loss; the other scores
    see faces cut to 0..1, as pictures show them.
    """
    rng = np.random.default_rng(seed)
    mu, sigma = encode(vae, faces, rows, device)
    parts = []
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        x = faces.images[rows[part]] / np.float32(255)
        x_hat = decode(vae, mu[part] + sigma[part] * rng.standard_normal(mu[part].shape), device)
        cut = x_hat.clip(0, 1)
        parts.append((fidelity.squared_errors(x_hat, x), fidelity.psnr(cut, x), fidelity.ssim(cut, x),
                      fidelity.high_energy(cut), fidelity.high_energy(x)))
    errors, psnrs, ssims, energies_hat, energies = map(np.concatenate, zip(*parts))
    kl = kl_divergence(torch.from_numpy(mu).double(), torch.from_numpy(sigma).double()).numpy()
    return {"error": statistics.mean_score(errors), "psnr": statistics.mean_score(psnrs),
            "ssim": statistics.mean_score(ssims), "high_frequencies": statistics.ratio(energies_hat, energies),
            "kl": statistics.mean_score(kl), "active_units": statistics.active_units(mu)}


def pair_of(faces, start=None, end=None):
    """The labels (a, b) of the two classes that are shown as an example: those of these names, or happy and sad, or the
    two with the most faces; None where there are no two. Raises UserError for an unknown name.
    """
    for constant, name in (("FROM", start), ("TO", end)):
        if name is not None:
            check_choice(constant, name, faces.classes)
    if len(faces.classes) < 2:
        return None
    usual = [faces.classes.index(name) for name in ("happy", "sad") if name in faces.classes]
    if len(usual) < 2:
        counts = np.bincount(faces.labels[faces.labels >= 0], minlength=len(faces.classes))
        usual = np.argsort(-counts, kind="stable")[:2].tolist()
    a, b = (None if name is None else faces.classes.index(name) for name in (start, end))
    if a is None:
        a = usual[0] if b != usual[0] else usual[1]
    if b is None:
        b = usual[1] if a != usual[1] else usual[0]
    return (a, b) if a != b else None


def score_edits(latents, judge, identifier, metric, faces, device, pair, steps=10, paths=50, seed=0):
    """What the judge says of reconstructions, edits, interpolations and samples, and what the truth is where known.

    frechet is that of samples from the density of the latents, frechet_prior of those from the prior N(0, I);
    judge_on_samples: the share of the density's samples of a class that the judge takes for it.

    identifier: a network with layers(x) whose second-last layer tells people apart, or None; pair: the labels of the
    classes between which faces are interpolated, or None; steps: of an interpolation, its
    ends included; paths: how many interpolations at most; seed: of what is drawn.
    """
    probabilities = lambda x: apply(lambda x: judge.layers(x)["softmax"], x, device)
    features = lambda x: apply(lambda x: judge.layers(x)["second_last"], x, device)
    targets = np.flatnonzero(np.isfinite(latents.means[:, 0]))
    known = np.flatnonzero(np.isin(latents.labels, targets))
    scores = score_editing(latents.edit, latents.rows, known, latents.decode(latents.mu[known]), targets, judge,
                           identifier, faces, device, pair, seed)
    of_all = features(latents.x)
    for score, source in (("frechet", "density"), ("frechet_prior", "prior")):
        samples = latents.samples(len(latents.x), source, seed=seed)
        scores[score] = fidelity.frechet(features(samples), of_all)
    sampled = latents.summary.density.labelled()
    if len(sampled):
        samples = np.concatenate([latents.samples(SAMPLES, "density", of, seed) for of in sampled])
        scores["judge_on_samples"] = statistics.accuracy(probabilities(samples), np.repeat(sampled, SAMPLES))
    people = faces.identities[latents.rows]
    starts, ends = pairs_of(latents, people, *pair, paths, seed) if pair else ([], [])
    if len(starts):
        path = statistics.interpolate(latents.mu[starts], latents.mu[ends], steps)
        decoded = latents.decode(path.reshape(-1, path.shape[2]))
        scores["interpolation_monotonicity"] = statistics.monotonicity(
            probabilities(decoded)[:, pair[1]].reshape(path.shape[:2]))
        if isinstance(metric, Function) and metric.norm != "cosine":
            points = apply(lambda x: metric.points(x).flatten(1), decoded, device)
            scores["interpolation_path_ratio"] = statistics.path_ratio(
                points.reshape(*path.shape[:2], -1), metric.norm)
    return statistics.finite(scores)


def other_classes(labels, possible, rng):
    """One of the possible classes for each of labels (n,), all of them possible, drawn at random but never its own;
    None where there are no labels or no other class.
    """
    if len(possible) < 2 or not len(labels):
        return None
    places = np.searchsorted(possible, labels)
    return possible[(places + rng.integers(1, len(possible), len(labels))) % len(possible)]


def score_editing(edit, rows, known, x_hat, targets, judge, identifier, faces, device, pair=None, seed=0):
    """The scores of reconstructions and edits that need no latents, so that other models can be compared by them.

    rows: of the data, (n,); known: the places among them of the faces that can be edited; x_hat: their reconstructions;
    targets: the classes that they can get; edit: a function of places and targets, one or one a face, to faces. All
    faces are float (., H, W) in 0..1. judge, identifier, seed: see score_edits.
    """
    probabilities = lambda x: apply(lambda x: judge.layers(x)["softmax"], x, device)
    x, labels = faces.images[rows[known]] / np.float32(255), faces.labels[rows[known]]
    of_faces = probabilities(x)
    hits = statistics.edit_hits(lambda places, target: edit(known[places], target), probabilities, labels, targets,
                                len(faces.classes))
    scores = {"judge_on_faces": statistics.accuracy(of_faces, labels),
              "judge_on_faces_balanced": statistics.balanced_accuracy(of_faces, labels),
              "judge_on_reconstructions": statistics.accuracy(probabilities(x_hat), labels),
              "edit_success": statistics.edit_success(hits, labels)}
    if pair is not None and pair[1] in targets and (labels == pair[0]).any():
        name = "edit_success_{}_to_{}".format(*(faces.classes[label] for label in pair))
        scores[name] = statistics.mean_score(hits[labels == pair[0], pair[1]])
    target = other_classes(labels, targets, np.random.default_rng(seed))
    if target is not None:
        edits = edit(known, target)
        scores["high_frequencies_of_edits"] = fidelity.high_frequencies(edits, x)
        if faces.factors is not None:
            truth = synthetic.with_expression(faces, rows[known], target) / 255
            scores["edit_error"] = statistics.mean_score(fidelity.squared_errors(edits, truth))
            scores["edit_error_to_truth"] = fidelity.edit_error_to_truth(edits, truth, x_hat, x)
    if identifier is not None and len(known):
        scores |= score_identity(edit, rows, known, targets, identifier, faces, device)
    return scores


def score_identity(edit, rows, known, targets, identifier, faces, device):
    """identity_kept: the share of edits, of the faces at the places known to every other one of targets, whose nearest
    other real face is of the same person; identity_on_faces: the same of these faces before.
    """
    points = lambda x: apply(lambda x: functional.normalize(identifier.layers(x)["second_last"]), x, device)
    labels, people = faces.labels[rows], faces.identities[rows]
    places, target = (part.ravel() for part in np.meshgrid(known, targets, indexing="ij"))
    places, target = places[labels[places] != target], target[labels[places] != target]
    edits = [points(edit(places[i:i + CHUNK], target[i:i + CHUNK])) for i in range(0, len(places), CHUNK)]
    real = points(faces.images[rows] / np.float32(255))
    return {"identity_on_faces": statistics.identity_kept(real[known], known, people, real),
            "identity_kept": statistics.identity_kept(np.concatenate(edits), places, people, real)}


def pairs_of(latents, people, a, b, count, seed=0):
    """Places of up to count faces of class a and as many of b, drawn at random, no face twice.

    people int64 (n,): whose faces the latents are, -1 unknown. Pairs of one person come first.
    """
    rng = np.random.default_rng(seed)
    starts, ends = (rng.permutation(np.flatnonzero(latents.labels == label)) for label in (a, b))
    pairs, free = [], list(ends)
    for start in starts:
        same = [end for end in free if people[end] == people[start] >= 0]
        if same:
            pairs.append((start, same[0]))
            free.remove(same[0])
    lonely = [start for start in starts if start not in {s for s, _ in pairs}]
    pairs = (pairs + list(zip(lonely, free)))[:count]
    return np.array(pairs, int).reshape(-1, 2).T


@torch.no_grad()
def apply(function, faces, device, batch_size=256):
    """A function of x (B, C, H, W) to (B, k), for float faces (n, H, W) or (n, H, W, 3): float32 (n, k)."""
    x = as_channels(torch.from_numpy(np.asarray(faces, np.float32)))
    return torch.cat([function(part.to(device)).float().cpu() for part in x.split(batch_size)]).numpy()
