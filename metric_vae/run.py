"""Trains the VAE without and with a distance regulariser, alone or as the last stages of run.py.

In: Faces and a metric on them. Out, in a run folder: no_dist_reg.pt, dist_reg.pt, the density of
each one's latents as .npz, and lines of log.jsonl.
Alone, with distances or points of your own: python -m metric_vae.run DATA=data/my_faces METRIC=my_points.npy
"""
import sys
import time
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch

import training
from data.batches import Images, batches, join
from data.faces import EXPRESSIONS, load
from metric_vae import density
from metric_vae.evaluate import stratified_rows
from metric_vae.metrics import Matrix, check_norm, load_metric
from metric_vae.model import ARCHITECTURES, kl_divergence, squared_error
from metric_vae.regularizers import REGULARIZERS, TINY, expected_distances, pairwise_distances
from training import UserError, storage
from training.beside import beside
from training.processes import (PROCESS, PROCESSES, add_up, add_up_gradients, average_buffers, first_process_first,
                                gather, join_processes, own_part)

# --- the network
ARCHITECTURE = "light"          # one of metric_vae/model.py
Z_DIM = 128                     # dimensions of the latent space

# --- the metric d_D that is given
METRIC = "embeddings"           # of the classifier (run.py only), "pixels", "labels", "action_units" (those that drew a
                                # synthetic face), points.npy, matrix.npy, or
                                # "my_file.py:function" of faces (B, 1, H, W) to points (B, k)
METRIC_NORM: float | str = 2.0  # the p-norm between points, or "cosine"

# --- the loss: squared error summed over pixels + alpha KL + beta regulariser + consistency; each weight is that of
# --- the first and of the last step, linear between
ALPHA: tuple | str = (0.03, 0.03)       # or "optimal": twice the error per pixel, the decoder's variance (sigma-VAE)
REGULARIZER = "stress"          # one of metric_vae/regularizers.py, or "none"
BETA = (10000.0, 10000.0)
TARGET_STRESS: float | None = None      # tunes BETA, from its first value on: raised while the stress is above this
REGULARIZE_ON: str | None = None        # "mu", "z", "expected" (E|zi - zj|^2); None: what each regulariser says
METRIC_DIMS: int | None = 16    # the first dimensions of z keep the metric; None: the whole of z
CONSISTENCY = (0.0, 1.0)        # what the encoder does not see of the metric part in faces that got another one's, as a
                                # share of that part's variance; 1: losing all of it costs as much as the squared
                                # error. From the middle of training to its end: pixels come first, and it takes time

# --- training
STEPS = 2200                    # batches, in whole epochs, of which there is at least one
BATCH = 16                      # faces: small ones make many steps, which counts most in a short training
LEARNING_RATE = (3e-3, 1e-4)    # Adam's, at the first and the last step, linear between
MAX_GRADIENT: float | None = 100.0      # larger norms of the whole gradient are scaled down to it; None: never
FLIP = True                     # mirror every other training face
SHIFT = 0                       # pixels that a training face is moved by at most
UNLABELLED = True               # train on unlabelled faces too

# --- when run alone (run.py has its own)
DATA = "auto"                   # "auto", "synthetic", "tfd", "fer2013" or a path: see data/README.md
IMAGE_SIZE = 48                 # pixels
FOLD = 0                        # 0..4, of TFD's five
SEED = 0
DEVICE = "auto"                 # "auto", "cpu", "cuda", ...
PRECISION = "auto"              # "auto", "fp32", "bf16"

# --- weights that are tuned automatically
AVERAGE = 0.05                  # share of the newest batch in the running mean behind ALPHA="optimal"
DUAL_RATE = 0.02                # largest change of log BETA in a step towards TARGET_STRESS

MEAN_OF = 4096                  # training faces at most that make the mean face, evenly spaced: data lie by expression
LEAST = 4                       # faces of a batch; a last one of fewer joins the one before: if two faces have nearly
                                # equal metric parts, their variance is tiny and the lost share of it explodes

MODELS = ("no_dist_reg", "dist_reg")        # without and with the regulariser: the names of their files


def check_settings():
    """Raise UserError for a constant that cannot be."""
    training.check_choice("ARCHITECTURE", ARCHITECTURE, ARCHITECTURES)
    training.check_choice("REGULARIZER", REGULARIZER, ("none", *REGULARIZERS))
    training.check_choice("REGULARIZE_ON", REGULARIZE_ON, (None, "mu", "z", "expected"))
    training.check_at_least(1, STEPS=STEPS, Z_DIM=Z_DIM)
    training.check_at_least(LEAST, BATCH=BATCH)
    training.check_at_least(0, SHIFT=SHIFT)
    check_norm(METRIC_NORM)
    training.check_schedules(BETA=BETA, CONSISTENCY=CONSISTENCY, LEARNING_RATE=LEARNING_RATE)
    if isinstance(ALPHA, str):
        training.check_choice("ALPHA", ALPHA, ("optimal",))
    else:
        training.check_schedules(ALPHA=ALPHA)
    if METRIC_DIMS is not None and not 1 <= METRIC_DIMS < Z_DIM:
        raise UserError("METRIC_DIMS", f"at least 1 and less than Z_DIM={Z_DIM}, or None for all of z", METRIC_DIMS,
                        "change it, or set it to None")
    if REGULARIZE_ON == "expected" and REGULARIZER != "none" and REGULARIZERS[REGULARIZER][1] == "points":
        raise UserError("REGULARIZE_ON", f'"mu" or "z" with REGULARIZER "{REGULARIZER}", which has no distances',
                        "expected", "set it to None, or choose a regulariser of pairs, e.g. stress")
    if TARGET_STRESS is not None and (REGULARIZER != "stress" or TARGET_STRESS <= 0):
        raise UserError("TARGET_STRESS", 'a number above 0, with REGULARIZER "stress"',
                        f"{TARGET_STRESS} with {REGULARIZER}", "set it to None, or REGULARIZER to stress")
    if TARGET_STRESS is not None and BETA[0] == 0:
        raise UserError("BETA", "a first value above 0, from which TARGET_STRESS raises it", BETA,
                        "BETA = (10000.0, 10000.0)")
    if MAX_GRADIENT is not None and MAX_GRADIENT <= 0:
        raise UserError("MAX_GRADIENT", "a number above 0, or None", MAX_GRADIENT, "set it to 100, say")


def check_metric(metric):
    """Raise UserError where the metric (or None) does not have what the loss needs of it."""
    if REGULARIZER != "none" and REGULARIZERS[REGULARIZER][1] == "points" and isinstance(metric, Matrix):
        raise UserError(f"REGULARIZER={REGULARIZER}", "a metric with points", "a matrix of distances",
                        "choose a regulariser of pairs, e.g. stress")


# --- the loss

class Terms(NamedTuple):
    """The terms of the loss of one batch, unweighted; scalars. Of several processes: the share of one of them."""
    error: torch.Tensor                 # squared error summed over pixels, sampled z
    kl: torch.Tensor
    regularizer: torch.Tensor
    consistency: torch.Tensor


class Weights:
    """The weights of the terms: scheduled, or set by themselves step by step."""

    def __init__(self, device):
        self.alpha, self.beta = torch.ones(2, device=device)

    def schedule(self, progress):
        """Set the weights of a step; progress: from 0, the first step, to 1, the last."""
        if ALPHA != "optimal":
            self.alpha = torch.full_like(self.alpha, training.scheduled(ALPHA, progress))
        if TARGET_STRESS is None or progress == 0:
            self.beta = torch.full_like(self.beta, training.scheduled(BETA, progress))
        self.consistency = training.scheduled(CONSISTENCY, 2 * progress - 1) if progress > .5 else 0

    def total(self, terms, error):
        """The loss that is minimised. The consistency is a share, so its unit is the error itself, held fixed, of all
        processes.
        """
        return terms.error + self.alpha * terms.kl + self.beta * terms.regularizer + (
            self.consistency * error * terms.consistency)

    @torch.no_grad()
    def update(self, terms, pixels):
        """Take a step with the weights that set themselves.

        alpha: twice the optimal variance of the decoder, the squared error per pixel (sigma-VAE: Rybkin, Daniilidis and
        Levine 2021): alpha = 2 s^2 turns error / (2 s^2) + KL into error + alpha KL. beta: dual ascent on its
        logarithm towards stress <= TARGET_STRESS (GECO: Rezende and Viola 2018), up to 1e8 where that is out of reach.
        """
        if ALPHA == "optimal":
            self.alpha = torch.lerp(self.alpha, 2 * terms.error / pixels, AVERAGE)
        if TARGET_STRESS is not None:
            excess = terms.regularizer.sqrt() / TARGET_STRESS - 1
            self.beta = (self.beta * (DUAL_RATE * excess.clamp(-1, 1)).exp()).clamp(max=1e8)


def regularize(given, mu, sigma, z):
    """The value of REGULARIZER for one batch, on the first METRIC_DIMS of the latents (B, Z)."""
    function, kind, latent = REGULARIZERS[REGULARIZER]
    latent = REGULARIZE_ON or latent
    mu, sigma, z = mu[:, :METRIC_DIMS], sigma[:, :METRIC_DIMS], z[:, :METRIC_DIMS]
    if kind == "points":
        return function(mu if latent == "mu" else z, given.points)
    if latent == "expected":
        return function(expected_distances(mu, sigma), given.distances)
    return function(pairwise_distances(mu if latent == "mu" else z), given.distances)


def measure_consistency(vae, mu, z):
    """The share of the metric part's variance that the encoder, its weights held fixed, does not see in edited faces.

    mu, z (B, Z), of the whole batch: every other face is decoded with the next one's metric part, which the encoder
    should see. The gradient reaches only the weights by which the metric part enters the decoder: were all of the
    decoder to follow it, reconstructions would pay for edits.
    """
    dims = METRIC_DIMS or Z_DIM
    mu, z = mu.detach(), z.detach()
    edited = torch.cat([z.roll(-1, 0)[:, :dims], z[:, dims:]], 1)[::2]
    wanted = mu.roll(-1, 0)[::2, :dims]
    own = own_part(len(edited))
    seen = vae.see_part(vae.decode_part(edited[own], dims), dims)
    variance = mu[:, :dims].var(0, correction=0).sum().clamp(min=TINY)
    return (seen - wanted[own]).square().sum() / len(edited) / variance


def measure_terms(vae, metric, rows, x, noise, consistent=True):
    """Terms of the faces x (b, 1, H, W), the own part of rows (B,); noise (B, Z) standard normal; consistent: whether
    to spend time on the consistency.

    Without processes b = B; each of several computes its own b of the faces, and its share of each term. Without a
    metric, or of a single face (a ragged last batch of one has no pairs): error and KL alone.
    """
    count = len(rows)
    mu, sigma = vae.encode(x)                                   # (b, Z), (b, Z)
    z = mu + sigma * noise[own_part(count)]
    x_hat = vae.decode(z)                                       # (b, 1, H, W)
    error, kl = squared_error(x_hat, x).sum() / count, kl_divergence(mu, sigma).sum() / count
    distance = lost = torch.zeros((), device=x.device)
    if metric is not None and count > 1:
        given = metric(rows, x)
        mu, sigma, z = gather(torch.stack([mu, sigma, z], 1), count).unbind(1)      # (B, Z) each
        if REGULARIZER != "none":
            distance = regularize(given, mu, sigma, z) / PROCESSES
        if consistent and max(CONSISTENCY) > 0:
            lost = measure_consistency(vae, mu, z)
    return Terms(error, kl, distance, lost)


# --- training

def set_mean_face(mean_face, images, rows):
    """Set a MeanFace to the mean of the faces of these rows, MEAN_OF of them at most."""
    some = rows[::-(-len(rows) // MEAN_OF)]
    mean_face.face.copy_(images(torch.as_tensor(some)).mean(0))


def train(name, faces, metric, folder, seed, device, precision):
    """Train the VAE called name on the training faces; returns it, in eval mode.

    name: "no_dist_reg" trains on error and KL alone, "dist_reg" on the metric too. Goes on from folder/name.pt where
    there is one. Raises UserError where the metric or the faces do not suffice, or a loss is not finite.
    """
    check_metric(metric)
    if name == "no_dist_reg":
        metric = None
    labelled = not UNLABELLED or METRIC == "labels"
    train_rows, val_rows = faces.rows("train", labelled), faces.rows("val", labelled)
    training.check_batch(BATCH, len(train_rows), faces.name)
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    layout = training.layout(ARCHITECTURE, device, precision)
    vae = ARCHITECTURES[ARCHITECTURE](faces.size, Z_DIM, METRIC_DIMS).to(device, memory_format=layout)
    least = max(training.least_batch(vae), LEAST)
    training.check_at_least(least, BATCH=BATCH)
    optimizer = torch.optim.Adam(vae.parameters(), fused=True)
    weights = Weights(device)
    checkpoint = folder / f"{name}.pt"
    done, state = storage.resume(checkpoint, vae, optimizer, generator)
    if done:
        weights.alpha, weights.beta = state["alpha"], state["beta"]
    images = Images(faces, device, layout)
    if vae.mean_face is not None and not done:
        set_mean_face(vae.mean_face, images, train_rows)

    steps = len(batches(train_rows, BATCH, least=least))
    epochs = training.epochs_for(STEPS, steps)
    for epoch in training.epochs(name, done, epochs):
        start = time.perf_counter()
        vae.train()
        sums = torch.zeros(len(Terms._fields) + 1, device=device)       # of each term and the loss, over faces
        measured = 0                                            # faces whose consistency was measured
        for step, rows in enumerate(batches(train_rows, BATCH, generator, least), epoch * steps):
            progress = step / max(epochs * steps - 1, 1)
            weights.schedule(progress)
            optimizer.param_groups[0]["lr"] = rate = training.scheduled(LEARNING_RATE, progress)
            x = images(rows, generator, FLIP, SHIFT, part=own_part(len(rows)))
            noise = torch.randn(len(rows), Z_DIM, generator=generator, device=device)
            with training.autocast(device, precision):
                terms = measure_terms(vae, metric, rows, x, noise, weights.consistency > 0)
            of_all = Terms(*add_up(torch.stack(terms)))
            loss = weights.total(terms, of_all.error)
            optimizer.zero_grad()
            loss.backward()
            add_up_gradients(vae)
            if MAX_GRADIENT is not None:
                torch.nn.utils.clip_grad_norm_(vae.parameters(), MAX_GRADIENT)
            optimizer.step()
            sums += torch.stack([*of_all, weights.total(of_all, of_all.error)]) * len(rows)
            if weights.consistency > 0:
                measured += len(rows)
            weights.update(of_all, x[0].numel())
        average_buffers(vae)
        means = dict(zip((*Terms._fields, "loss"), (sums / len(train_rows)).tolist()))
        if metric is not None and max(CONSISTENCY) > 0:
            means["consistency"] = means["consistency"] * len(train_rows) / measured if measured else None
        seconds = time.perf_counter() - start
        means |= validate(vae, metric, weights, images, val_rows, seed, precision)
        training.check_finite(means, name, epoch + 1, checkpoint)
        storage.write_log(folder, name, epoch + 1, **means, alpha=float(weights.alpha), beta=float(weights.beta),
                          learning_rate=rate, seconds=seconds, images_per_second=len(train_rows) / seconds)
        storage.save_checkpoint(checkpoint, vae, optimizer, generator, epoch + 1, architecture=ARCHITECTURE,
                                size=faces.size, z_dim=Z_DIM, metric_dims=METRIC_DIMS, alpha=weights.alpha,
                                beta=weights.beta)
    vae.eval().requires_grad_(False)
    latent_density(vae, name, faces, folder, seed, device)
    return vae


def train_both(faces, metric, folder, seed, device, precision, side_by_side=True):
    """Train MODELS, without and with the regulariser; side_by_side: at once, where beside.py can."""
    without = ("no_dist_reg", faces, None, folder, seed, device, precision)
    with beside(faces, device, train, *without) if side_by_side else nullcontext(False) as begun:
        if begun:
            print("no_dist_reg is trained beside dist_reg, by a process of its own")
        else:
            train(*without)
        train("dist_reg", faces, metric, folder, seed, device, precision)
    if begun:
        train(*without)                                         # what is left to do: as a rule nothing


@torch.no_grad()
def validate(vae, metric, weights, images, rows, seed, precision):
    """The means over rows of every term and of the loss that is minimised, as val_error, ...; None of no rows.

    Always with the same noise and in the same batches, of faces drawn at random as in training: data often lie by
    expression, and pairs of one expression are harder to keep.
    """
    vae.eval()
    generator = torch.Generator(images.device).manual_seed(seed)
    sums = torch.zeros(len(Terms._fields) + 1, device=images.device)
    for batch in batches(rows, BATCH, torch.Generator().manual_seed(seed), LEAST):
        x = images(batch, part=own_part(len(batch)))
        noise = torch.randn(len(batch), Z_DIM, generator=generator, device=images.device)
        with training.autocast(images.device, precision):
            terms = Terms(*add_up(torch.stack(measure_terms(vae, metric, batch, x, noise))))
        sums += torch.stack([*terms, weights.total(terms, terms.error)]) * len(batch)
    means = (sums / len(rows)).tolist() if len(rows) else [None] * len(sums)
    return dict(zip((f"val_{term}" for term in (*Terms._fields, "loss")), means))


def load_vae(folder, name, device):
    """The trained VAE of a run folder, in eval mode; name "no_dist_reg" or "dist_reg"."""
    state = storage.load_checkpoint(folder / f"{name}.pt", device)
    vae = ARCHITECTURES[state["architecture"]](state["size"], state["z_dim"], state["metric_dims"])
    vae.load_state_dict(state["model"])
    return vae.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def latent_density(vae, name, faces, folder, seed, device):
    """The Density of a trained VAE's latents, read from folder/name_density.npz, or fitted and written there.

    It is fitted to z = mu + sigma noise of the training faces, density.FACES at most. Of several processes the first
    fits it; the others get None.
    """
    path = folder / f"{name}_density.npz"
    if PROCESS > 0:
        return None
    if not path.exists():
        start = time.perf_counter()
        rows = faces.rows("train", not UNLABELLED or METRIC == "labels")
        rows = rows[stratified_rows(faces.labels[rows], density.FACES, seed)]
        mu, sigma = encode(vae, faces, rows, device)
        z = mu + sigma * np.random.default_rng(seed).standard_normal(mu.shape, np.float32)
        density.fit(z, faces.labels[rows], len(EXPRESSIONS)).save(path)
        print(f"{name}: fitted the density of its latents in {time.perf_counter() - start:.1f} s")
    return density.load(path)


@torch.no_grad()
def encode(vae, faces, rows, device, batch_size=256):
    """mu and sigma of these rows, float32 (len(rows), Z) arrays."""
    images = Images(faces, device)
    parts = (torch.stack(vae.encode(images(part)), 1) for part in batches(rows, batch_size))
    return tuple(side.contiguous().cpu().numpy() for side in join(parts, len(rows)).unbind(1))


@torch.no_grad()
def decode(vae, z, device, batch_size=256):
    """Faces float32 (N, H, W) in about 0..1 of latents (N, Z)."""
    parts = torch.as_tensor(np.asarray(z, np.float32)).split(batch_size)
    return torch.cat([vae.decode(part.to(device))[:, 0].cpu() for part in parts]).numpy()


def main():
    module = sys.modules[__name__]
    training.override(sys.argv[1:], {"": module})
    check_settings()
    if METRIC == "embeddings":
        raise UserError("METRIC", 'when run alone: "pixels", "labels" or the path of an .npy', "embeddings",
                        "METRIC=experiments/0/embeddings.npy, or python run.py, which trains the classifier too")
    device = training.choose_device(DEVICE)
    join_processes(device)
    precision = training.choose_precision(PRECISION, device)
    with first_process_first():
        faces = load(DATA, IMAGE_SIZE, FOLD, SEED)
    metric = load_metric(METRIC, faces, device, METRIC_NORM)
    folder = storage.new_run_folder()
    storage.start_settings(folder, data=faces.about(), vae=training.constants(module), device=str(device),
                           precision=precision)
    train_both(faces, metric, folder, SEED, device, precision)
    storage.finish_settings(folder)
    print(f"wrote {', '.join(MODELS)} to {folder}")


if __name__ == "__main__":
    training.run_script(main)
