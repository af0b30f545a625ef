"""Trains the VAE without and with a distance regulariser, alone or as the last stages of run.py.

In: Faces and a metric on them. Out, in a run folder: no_dist_reg.pt, dist_reg.pt and lines of log.jsonl.
Alone, with distances or points of your own: python -m metric_vae.run DATA=data/my_faces METRIC=my_points.npy
"""
import sys
import time

import numpy as np
import torch
from tqdm import tqdm

import training
from data.faces import Images, batches, load
from metric_vae.metrics import load_metric
from metric_vae.model import ARCHITECTURES, kl_divergence, squared_error
from metric_vae.regularizers import REGULARIZERS, TINY, expected_distances, pairwise_distances
from training import UserError

# --- the network
ARCHITECTURE = "light"          # one of metric_vae/model.py
Z_DIM = 128                     # dimensions of the latent space

# --- the metric d_D that is given
METRIC = "embeddings"           # of the classifier (run.py only), "pixels", "labels", points.npy, matrix.npy, or
                                # "my_file.py:function" of faces (B, 1, H, W) to points (B, k)
METRIC_NORM: float | str = 2.0  # the p-norm between points, or "cosine"

# --- the loss: squared error summed over pixels + alpha KL + beta regulariser + consistency; each weight is that of
# --- the first and of the last epoch, linear between
ALPHA: tuple | str = (0.1, 0.1) # or "optimal": 2 x the decoder's variance (sigma-VAE), which is the error per pixel
REGULARIZER = "stress"          # one of metric_vae/regularizers.py, or "none"
BETA = (1000.0, 1000.0)
TARGET_STRESS: float | None = None      # BETA that finds itself: raised while Kruskal's stress is above this
REGULARIZE_ON: str | None = None        # "mu", "z", "expected" (E|zi - zj|^2); None: what each regulariser says
METRIC_DIMS: int | None = 16    # the first dimensions of z keep the metric; None: the whole of z
CONSISTENCY = (0.0, 0.0)        # of the layers of d_D's function between x_hat and x: lost share of their variance
EDIT_CONSISTENCY = (0.0, 0.0)   # of its last layer, between a face decoded with another's metric part and that other

# --- training
EPOCHS = 15
BATCH = 64                      # faces
LEARNING_RATE = (1e-3, 1e-3)    # Adam's, at the first and the last epoch, linear between
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

MODELS = ("no_dist_reg", "dist_reg")        # without and with the regulariser: the names of their files

TERMS = ("error", "kl", "regularizer", "consistency", "edit_consistency", "loss")


def check_settings():
    """Raise UserError for a constant that cannot be."""
    training.check_choice("ARCHITECTURE", ARCHITECTURE, ARCHITECTURES)
    training.check_choice("REGULARIZER", REGULARIZER, ("none", *REGULARIZERS))
    training.check_positive(EPOCHS=EPOCHS, BATCH=BATCH, Z_DIM=Z_DIM)


def regularize(given, mu, sigma, z):
    """The value of REGULARIZER for one batch, on the first METRIC_DIMS of the latents (B, Z); 0 for a single face."""
    if len(mu) < 2:
        return torch.zeros((), device=mu.device)                # a ragged last batch of one has no pairs
    function, kind, latent = REGULARIZERS[REGULARIZER]
    latent = REGULARIZE_ON or latent
    mu, sigma, z = mu[:, :METRIC_DIMS], sigma[:, :METRIC_DIMS], z[:, :METRIC_DIMS]
    if kind == "points":
        return function(mu if latent == "mu" else z, given.points)
    if latent == "expected":
        return function(expected_distances(mu, sigma), given.distances)
    return function(pairwise_distances(mu if latent == "mu" else z), given.distances)


def lost_share(layers_hat, layers):
    """The squared difference of layers as a share of their variance over the batch, mean over layers."""
    def share(a, b):
        return (a.float() - b).square().sum() / (b - b.mean(0)).square().sum().clamp(min=TINY)
    return torch.stack([share(a, b) for a, b in zip(layers_hat, layers)]).mean()


def train(name, faces, metric, folder, seed, device, precision):
    """Train the VAE called name, "no_dist_reg" or "dist_reg", on the training faces; returns it, in eval mode.

    Goes on from folder/name.pt where there is one.
    """
    regularized = name == "dist_reg" and REGULARIZER != "none"
    rows_of = {split: faces.rows(split, labelled=not UNLABELLED or METRIC == "labels") for split in ("train", "val")}
    training.check_batch(BATCH, len(rows_of["train"]), faces.name)
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    vae = ARCHITECTURES[ARCHITECTURE](faces.size, Z_DIM).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), fused=True)
    checkpoint = folder / f"{name}.pt"
    done, _ = training.resume(checkpoint, vae, optimizer, generator)
    images = Images(faces, device)

    def terms(rows, x, noise):
        """The terms of the loss of one batch, unweighted."""
        mu, sigma = vae.encode(x)
        z = mu + sigma * noise
        x_hat = vae.decode(z)
        error, kl = squared_error(x_hat, x), kl_divergence(mu, sigma)
        distance = lost = edit_lost = torch.zeros((), device=device)
        if regularized:
            given = metric(rows, x)
            distance = regularize(given, mu, sigma, z)
            if CONSISTENCY[1]:
                lost = lost_share(metric.layers(x_hat), given.layers)
            if EDIT_CONSISTENCY[1]:                             # the metric part of the next face of the batch
                edited = torch.cat([z.roll(1, 0)[:, :METRIC_DIMS], z[:, METRIC_DIMS:]], 1)[::2]
                edit_lost = lost_share(metric.layers(vae.decode(edited))[-1:], [given.layers[-1].roll(1, 0)[::2]])
        return error, kl, distance, lost, edit_lost

    for epoch in tqdm(range(done, EPOCHS), name, EPOCHS, initial=done, disable=None, unit="epoch"):
        start = time.perf_counter()
        alpha, beta, gamma, delta, rate = (training.linear(schedule, epoch, EPOCHS) for schedule in (
            ALPHA, BETA, CONSISTENCY, EDIT_CONSISTENCY, LEARNING_RATE))
        optimizer.param_groups[0]["lr"] = rate
        means = {}
        for split in ("train", "val"):                              # validation: the same loss, no step
            vae.train(split == "train")
            total = torch.zeros(len(TERMS), device=device)
            with torch.set_grad_enabled(split == "train"):
                for rows in batches(rows_of[split], BATCH, generator if split == "train" else None):
                    x = images(rows, generator if split == "train" else None, FLIP, SHIFT)
                    noise = torch.randn(len(rows), Z_DIM, generator=generator, device=device)
                    with training.autocast(device, precision):
                        error, kl, distance, lost, edit_lost = terms(rows, x, noise)
                    loss = error + alpha * kl + beta * distance + gamma * lost + delta * edit_lost
                    if split == "train":
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                    total += torch.stack([error, kl, distance, lost, edit_lost, loss]).detach() * len(rows)
            prefix = "val_" if split == "val" else ""
            for term, value in zip(TERMS, (total / len(rows_of[split])).tolist()):
                means[prefix + term] = value
            if split == "train":
                seconds = time.perf_counter() - start
        training.check_finite(means, name, epoch + 1, checkpoint)
        training.write_log(folder, name, epoch + 1, **means, alpha=alpha, beta=beta, learning_rate=rate,
                           seconds=seconds, images_per_second=len(rows_of["train"]) / seconds)
        training.save_checkpoint(checkpoint, vae, optimizer, generator, epoch + 1, architecture=ARCHITECTURE,
                                 size=faces.size, z_dim=Z_DIM)
    return vae.eval().requires_grad_(False)


def load_vae(folder, name, device):
    """The trained VAE of a run folder, in eval mode; name "no_dist_reg" or "dist_reg"."""
    state = training.load_checkpoint(folder / f"{name}.pt", device)
    vae = ARCHITECTURES[state["architecture"]](state["size"], state["z_dim"])
    vae.load_state_dict(state["model"])
    return vae.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


@torch.no_grad()
def encode(vae, faces, rows, device, batch_size=256):
    """mu and sigma of these rows, float32 (len(rows), Z) arrays."""
    images = Images(faces, device)
    parts = [vae.encode(images(part)) for part in batches(rows, batch_size)]
    return tuple(torch.cat(side).cpu().numpy() for side in zip(*parts))


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
    precision = training.choose_precision(PRECISION, device)
    faces = load(DATA, IMAGE_SIZE, FOLD, SEED)
    metric = load_metric(METRIC, faces, device, METRIC_NORM)
    folder = training.new_run_folder()
    training.start_settings(folder, data=faces.about(), vae=training.constants(module), device=str(device),
                            precision=precision)
    for name in MODELS:
        train(name, faces, metric, folder, SEED, device, precision)
    training.finish_settings(folder)
    print(f"wrote {', '.join(MODELS)} to {folder}")


if __name__ == "__main__":
    training.run_script(main)
