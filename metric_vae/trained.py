"""A trained VAE: read from its run folder, faces encoded and decoded, and the summary of its latents.

In: a run folder, Faces, a metric. Out: latents and faces as arrays; name_latents.npz, with which a run folder is enough
to edit and sample: class means, the density, and the scale of distances.
"""
import time
from dataclasses import dataclass

import numpy as np
import torch

from data.batches import Images, as_pictures, batches, join
from metric_vae import density
from metric_vae.model import build_vae
from metric_vae.statistics import best_scale, class_means, euclidean, stratified_rows
from training import checkpoints
from training.distributed import PROCESS, of_first_process, own_part
from training.errors import UserError, check_choice
from training.files import write_atomically

FACES = 20_000          # that the density is fitted to, at most
PAIRED = 600            # faces whose pairs give the scale, at most


def load_vae(folder, name, device):
    """The trained VAE of a run folder, in eval mode; name: "no_dist_reg" or "dist_reg"."""
    vae = checkpoints.load_model(folder / f"{name}.pt", device, lambda state: build_vae(
        *(state[part] for part in ("architecture", "size", "z_dim", "metric_dims", "channels")),
        state.get("sees_light", False)))
    return vae.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


@torch.no_grad()
def encode(vae, faces, rows, device, batch_size=256):
    """mu and sigma of these rows, float32 (len(rows), Z) arrays."""
    images = Images(faces, device)
    parts = (torch.stack(vae.encode(images(part)), 1) for part in batches(rows, batch_size))
    return tuple(side.contiguous().cpu().numpy() for side in join(parts, len(rows)).unbind(1))


@torch.no_grad()
def decode(vae, z, device, batch_size=256):
    """Faces float32 (N, H, W), in colour (N, H, W, 3), in about 0..1 of latents (N, Z)."""
    parts = torch.as_tensor(np.asarray(z, np.float32)).split(batch_size)
    return torch.cat([as_pictures(vae.decode(part.to(device))).cpu() for part in parts]).numpy()


def given_distances(metric, faces, rows, device):
    """d_D (n, n), float64, of these rows; NaN where it is not given."""
    places = torch.from_numpy(rows).to(device)
    x = Images(faces, device)(places, part=own_part(len(rows)))
    return metric.distances(places, x).cpu().numpy().astype(float)


def metric_part(vae, name):
    """The dimensions of z whose distances are compared with the metric: all of z where none was trained to keep it."""
    return slice(vae.metric_dims if name == "dist_reg" else None)


def edit_dims(vae, name, part="metric"):
    """The dimensions of z that edits move, as a slice: "metric": those of metric_part, "rest": the others, "both": all.
    """
    check_choice("part", part, ("metric", "rest", "both"))
    k = metric_part(vae, name).stop
    return {"metric": slice(k), "rest": slice(k, None) if k else slice(None), "both": slice(None)}[part]


# --- the summary of its latents

@dataclass
class Summary:
    """What is kept of the latents of a VAE's training faces.

    density: of z; class_means float32 (classes, Z): the mean of mu over the faces of each class, NaN where there are
    none; scale: what latent distances are multiplied by to be nearest to the given ones, NaN without a metric.
    """
    density: density.Density
    class_means: np.ndarray
    scale: float

    def save(self, path):
        """Write it as .npz, atomically."""
        write_atomically(path, lambda file: np.savez(file, class_means=self.class_means, scale=self.scale,
                                                     **vars(self.density)))


def load_summary(path):
    """The Summary in a file; raises UserError where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays}
        return Summary(class_means=kept.pop("class_means"), scale=float(kept.pop("scale")),
                       density=density.Density(**kept))
    except Exception as error:                                  # numpy and zipfile raise half a dozen kinds here
        raise UserError(path, "the summary of a VAE's latents", str(error).split("\n")[0],
                        "delete the file: python experiments.py writes it again") from None


def summarize(vae, name, faces, metric, rows, folder, seed, device):
    """The Summary of a trained VAE, read from folder/name_latents.npz, or made and written there.

    rows: of the faces that it was trained on. metric: None where there is none. With several processes the first one
    makes it; the others get None.
    """
    path, start = folder / f"{name}_latents.npz", time.perf_counter()
    there = of_first_process(path.exists())
    scale = None if there else scale_of(vae, name, faces, metric, device)       # by all processes together
    if PROCESS > 0:
        return None
    if not there:
        labelled = faces.rows("train", labelled=True)
        some = rows[stratified_rows(faces.labels[rows], FACES, seed)]
        mu, sigma = encode(vae, faces, some, device)
        z = mu + sigma * np.random.default_rng(seed).standard_normal(mu.shape, np.float32)
        fitted = density.fit(z, faces.labels[some], len(faces.classes))
        if not np.array_equal(some, labelled):
            mu = encode(vae, faces, labelled, device)[0] if len(labelled) else mu[:0]
        means = class_means(mu, faces.labels[labelled], len(faces.classes)).reshape(-1, z.shape[1])
        Summary(fitted, means, scale).save(path)
        print(f"{name}: summed up its latents in {time.perf_counter() - start:.1f} s")
    return load_summary(path)


def scale_of(vae, name, faces, metric, device):
    """The best scale of latent distances, of the pairs of labelled validation faces, or where there are too few, of
    labelled training faces; of unlabelled ones only where there are no others, since METRIC=labels is none of these.
    """
    for split, labelled in (("val", True), ("train", True), ("val", False), ("train", False)):
        rows = faces.rows(split, labelled=labelled)
        rows = rows[stratified_rows(faces.labels[rows], PAIRED, 0)]
        if metric is None or len(rows) < 3:
            continue
        d = given_distances(metric, faces, rows, device)
        e = euclidean(encode(vae, faces, rows, device)[0][:, metric_part(vae, name)])
        there = np.isfinite(d)
        return float(best_scale(e[there], d[there]))
    return float("nan")
