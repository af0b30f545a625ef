"""The training loop of the VAE.

In: Faces, a metric on them and the settings of metric_vae/run.py. Out, in a run folder: no_dist_reg.pt, dist_reg.pt,
the summary of each one's latents as .npz, and lines of log.jsonl.
"""
import time
from dataclasses import asdict, replace

import torch

from data.batches import Images, batches, evenly_spaced
from metric_vae.loss import Loss, Pairs, Terms
from metric_vae.metrics import SparseMatrix, check_kind, check_norm
from metric_vae.model import find_architecture, tried_vae
from metric_vae.regularizers import OF_POINTS, find_regularizer
from metric_vae.trained import summarize
from training import checkpoints
from training.devices import autocast, layout
from training.distributed import add_up, add_up_gradients, average_buffers, own_part
from training.errors import UserError, check_at_least, check_batch, check_between, check_choice, check_schedules
from training.log import write_log
from training.loops import EpochBar, check_finite, epochs_for, least_batch, set_learning_rate
from training.tensorboard import Board

MODELS = ("no_dist_reg", "dist_reg")        # without and with the regulariser: the names of their files
OF_METRIC = ("METRIC", "METRIC_NORM", "METRIC_KIND", "REGULARIZER", "BETA", "TARGET_STRESS", "REGULARIZE_ON",
             "CONSISTENCY", "DUAL_RATE", "METRIC_BATCH", "TURN", "ZOOM", "MOVE", "LOOKED_UP",
             "SEES_LIGHT")                                      # settings that only dist_reg uses; METRIC_DIMS shapes
                                                                # both networks
LEAST = 4               # faces of a batch; a smaller last one joins the one before: if both faces of two get nearly
                        # equal metric parts, their variance is tiny and the consistency loss explodes
SHOWN = 8               # faces at most in the pictures for TensorBoard


def check_settings(settings):
    """Raise UserError for a constant of metric_vae/run.py with an impossible value."""
    s = settings
    find_architecture(s.ARCHITECTURE)
    find_regularizer(s.REGULARIZER)
    check_choice("REGULARIZE_ON", s.REGULARIZE_ON, (None, "mu", "z", "expected"))
    check_at_least(1, s, "STEPS", "MEAN_OF")
    check_at_least(LEAST, s, "BATCH")
    check_between(LEAST, 4096, s, "METRIC_BATCH")               # its pairs are (METRIC_BATCH, METRIC_BATCH)
    check_between(1, 4096, s, "Z_DIM")                          # the covariance of each class is (Z, Z)
    check_between(0, 1, s, "WARM_UP", "AVERAGE", "DUAL_RATE", "LOOKED_UP")
    check_between(0, 180, s, "TURN")
    check_between(0, .9, s, "ZOOM")
    check_between(0, 1e3, s, "SHIFT", "MOVE")
    check_norm(s.METRIC_NORM)
    check_kind(s.METRIC_KIND, s.METRIC)
    check_schedules(s, "BETA", "CONSISTENCY")
    check_schedules(s, "LEARNING_RATE", most=1)
    if isinstance(s.ALPHA, str):
        check_choice("ALPHA", s.ALPHA, ("optimal",))
    else:
        check_schedules(s, "ALPHA")
    if not 0 <= s.ADAM_BETA2 < 1:
        raise UserError("ADAM_BETA2", "at least 0 and less than 1", s.ADAM_BETA2, "for example 0.99")
    if s.METRIC_DIMS is not None and not 1 <= s.METRIC_DIMS < s.Z_DIM:
        raise UserError("METRIC_DIMS", f"at least 1 and less than Z_DIM={s.Z_DIM}, or None for all of z", s.METRIC_DIMS,
                        "change it, or set it to None")
    if s.REGULARIZE_ON == "expected" and s.REGULARIZER in OF_POINTS:
        raise UserError("REGULARIZE_ON", f'"mu" or "z" with REGULARIZER "{s.REGULARIZER}", which has no distances',
                        "expected", "set it to None, or choose a regulariser of pairs, e.g. stress")
    if s.TARGET_STRESS is not None and (s.REGULARIZER != "stress" or not 0 < s.TARGET_STRESS <= 1):
        raise UserError("TARGET_STRESS", 'a number above 0, at most 1, with REGULARIZER "stress"',
                        f"{s.TARGET_STRESS} with {s.REGULARIZER}", "set it to None, or REGULARIZER to stress")
    if s.TARGET_STRESS is not None and s.BETA[0] == 0:
        raise UserError("BETA", "a first value above 0, from which TARGET_STRESS raises it", s.BETA,
                        "BETA = (10000.0, 10000.0)")
    if s.MAX_GRADIENT is not None and not s.MAX_GRADIENT > 0:
        raise UserError("MAX_GRADIENT", "a number above 0, or None", s.MAX_GRADIENT, "for example 100")


def settings_without_metric(settings):
    """All settings that no_dist_reg depends on, a dict."""
    kept = {name: value for name, value in asdict(settings).items() if name not in OF_METRIC}
    return {**kept, "UNLABELLED": settings.UNLABELLED and settings.METRIC != "labels"}      # see training_rows


# --- training

def training_rows(faces, settings, split="train"):
    """The rows of a split that the VAE is trained or validated on: labelled ones only where the settings ask for it."""
    return faces.rows(split, labelled=not settings.UNLABELLED or settings.METRIC == "labels")


def sees_light(name, settings):
    """Whether the metric branch sees how bright a face is: see SEES_LIGHT. Only that of the light network can."""
    if name != "dist_reg" or settings.ARCHITECTURE != "light" or settings.METRIC_DIMS is None:
        return False
    return settings.METRIC != "embeddings" if settings.SEES_LIGHT is None else settings.SEES_LIGHT


def build(settings, faces, light=False):
    """The VAE, untrained, that these settings describe for these faces; light: see sees_light."""
    return tried_vae(settings.ARCHITECTURE, faces.size, settings.Z_DIM, settings.METRIC_DIMS, faces.channels, light)


def check_faces(settings, faces, metric, constant=None):
    """Raise UserError where the faces or the metric (or None) do not suffice to train with these settings; constant:
    as in check_batch.
    """
    name = settings.REGULARIZER
    if name in OF_POINTS and metric is not None and not metric.has_points:
        raise UserError(f"REGULARIZER={name}", "a metric with points", "one of distances alone",
                        "choose a regulariser of pairs, e.g. stress")
    if isinstance(metric, SparseMatrix):
        find_regularizer(name, sparse=True)
    rows = training_rows(faces, settings)
    check_batch(settings.BATCH, len(rows), faces.name, constant)
    if metric is not None and not len(metric.drawn(rows)):
        raise UserError(f"METRIC={settings.METRIC}", "distances between the faces that the VAE is trained on", "none",
                        "store more pairs, or set UNLABELLED to True")
    check_at_least(least_batch(build(settings, faces)), settings, "BATCH")


def set_mean_face(mean_face, images, rows, most):
    """Set a MeanFace to the mean of at most so many of the faces of these rows, evenly spaced."""
    mean_face.face.copy_(images(torch.as_tensor(evenly_spaced(rows, most))).mean(0))


def draw_pairs(images, groups, metric, settings, generator, augment=True):
    """The Pairs of a step: METRIC_BATCH faces, in groups of (M, k) drawn at random; if augment, mirrored at random,
    turned, stretched and moved.
    """
    s, device = settings, images.device
    count, dims = s.METRIC_BATCH // groups.shape[1], s.METRIC_DIMS or s.Z_DIM
    rows = groups[torch.randint(len(groups), (count,), generator=generator, device=device)].flatten()
    part, share = own_part(len(rows)), 1 if metric.sees_faces else s.LOOKED_UP
    changes = (generator, s.FLIP, s.SHIFT, share * s.TURN, share * s.ZOOM, share * s.MOVE) if augment else ()
    x = images(rows, *changes, part=part)
    return Pairs(rows, x, torch.randn(len(rows), dims, generator=generator, device=device))


def groups_of(loss, vae, rows, device):
    """The groups of faces among rows (N,), int64 (M, k), from which draw_pairs draws; None where the regulariser takes
    the faces of the batch: where a network without a metric branch has to encode them, unless few pairs are stored.
    """
    if loss.regularizer is None:
        return None
    groups = torch.as_tensor(loss.metric.drawn(rows), device=device)
    return groups if vae.has_branch or groups.shape[1] > 1 else None


def train(name, faces, metric, settings, folder, seed, device, precision, board=Board()):
    """Train the VAE called name on the training faces; returns it, in eval mode.

    name: "no_dist_reg" trains only on error and KL, "dist_reg" on the metric too. Continues from folder/name.pt where
    there is one. Raises UserError where check_faces does, or a loss is not finite.
    """
    check_faces(settings, faces, metric)
    train_rows, val_rows = training_rows(faces, settings), training_rows(faces, settings, "val")
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    memory_format = layout(settings.ARCHITECTURE, device, precision)
    light = sees_light(name, settings)
    vae = build(settings, faces, light).to(device, memory_format=memory_format)
    least = max(least_batch(vae), LEAST)
    optimizer = torch.optim.Adam(vae.parameters(), betas=(0.9, settings.ADAM_BETA2), fused=True)
    if name == "dist_reg":
        loss = Loss(settings, metric, device)
        if loss.has_consistency and not vae.has_entry:
            print(f"{name}: the consistency loss reaches the encoder alone, since the decoder is no nn.Sequential that "
                  "begins with Joined or a linear layer")
    else:
        loss = Loss(replace(settings, BETA=(0.0, 0.0), TARGET_STRESS=None), None, device)
    checkpoint = folder / f"{name}.pt"
    done, state = checkpoints.resume(checkpoint, vae, optimizer, generator)
    images = Images(faces, device, memory_format)
    if done:
        loss.alpha, loss.beta = state["alpha"], state["beta"]
    elif vae.mean_face is not None:
        set_mean_face(vae.mean_face, images, train_rows, settings.MEAN_OF)

    groups = groups_of(loss, vae, train_rows, device)
    steps = len(batches(train_rows, settings.BATCH, least=least))
    count = epochs_for(settings.STEPS, steps)
    bar = EpochBar(name, done, count)
    for epoch in bar:
        start = time.perf_counter()
        vae.train()
        torch.manual_seed(seed * 1000 + epoch)                  # dropout draws from torch's own generator
        sums = torch.zeros(len(Terms._fields) + 1, device=device)       # of each term and the total, over faces
        seen = measured = 0                                     # faces, and those whose consistency was measured
        for step, rows in enumerate(batches(train_rows, settings.BATCH, generator, least), epoch * steps):
            progress = step / max(count * steps - 1, 1)
            loss.schedule(progress)
            rate = set_learning_rate(optimizer, settings.LEARNING_RATE, progress, settings.WARM_UP)
            x = images(rows, generator, settings.FLIP, settings.SHIFT, part=own_part(len(rows)))
            noise = torch.randn(len(rows), settings.Z_DIM, generator=generator, device=device)
            pairs = None if groups is None else draw_pairs(images, groups, metric, settings, generator)
            with autocast(device, precision):
                terms = loss(vae, rows, x, noise, loss.consistency > 0, pairs)
            optimizer.zero_grad()
            loss.total(terms).backward()
            add_up_gradients(vae)
            if settings.MAX_GRADIENT is not None:
                for parameters in vae.parameter_groups():
                    torch.nn.utils.clip_grad_norm_(parameters, settings.MAX_GRADIENT)
            optimizer.step()
            of_all = Terms(*add_up(torch.stack(terms)))         # the sums over the processes
            sums += torch.stack([*of_all, loss.total(of_all)]) * len(rows)
            seen += len(rows)
            bar.running(Terms._fields, sums, seen)
            if loss.consistency > 0:
                measured += len(rows)
            loss.update(of_all, x.shape[1:].numel())
        average_buffers(vae)
        means = dict(zip((*Terms._fields, "loss"), (sums / len(train_rows)).tolist()))
        if loss.has_consistency:
            means["consistency"] = means["consistency"] * len(train_rows) / measured if measured else None
        seconds = time.perf_counter() - start
        means |= validate(vae, loss, images, val_rows, seed, precision)
        check_finite(means, name, epoch + 1, checkpoint)
        weights = dict(alpha=float(loss.alpha), beta=float(loss.beta), learning_rate=rate)
        write_log(folder, name, epoch + 1, **means, **weights, seconds=seconds,
                  images_per_second=len(train_rows) / seconds)
        checkpoints.save_checkpoint(
            checkpoint, vae, optimizer, generator, epoch + 1, architecture=settings.ARCHITECTURE, size=faces.size,
            z_dim=settings.Z_DIM, metric_dims=settings.METRIC_DIMS, channels=faces.channels, sees_light=light,
            alpha=loss.alpha, beta=loss.beta)
        board.write(name, epoch + 1, means | weights,
                    lambda: reconstruct(vae, images, val_rows if len(val_rows) else train_rows))
        bar.finished(epoch + 1, {term: means[term] for term in (*Terms._fields, "loss", "val_loss")})
    vae.eval().requires_grad_(False)
    summarize(vae, name, faces, metric, train_rows, folder, seed, device)
    return vae


@torch.no_grad()
def validate(vae, loss, images, rows, seed, precision):
    """The means over rows of every term and of the total that is minimised, as val_error, ...; None of no rows.

    Always with the same noise and in the same batches, of faces drawn at random as in training: data often lie sorted
    by class, and pairs of one class are harder to keep. With a metric branch they have METRIC_BATCH faces, since the
    regulariser is larger over more pairs. Of a sparse matrix stored pairs are drawn, as in training.
    """
    vae.eval()
    settings, device = loss.settings, images.device
    size = settings.METRIC_BATCH if loss.metric is not None and vae.has_branch else settings.BATCH
    generator = torch.Generator(device).manual_seed(seed)
    groups = groups_of(loss, vae, rows, device)
    stored = groups is not None and groups.shape[1] > 1
    sums = torch.zeros(len(Terms._fields) + 1, device=device)
    for batch in batches(rows, size, torch.Generator().manual_seed(seed), LEAST):
        x = images(batch, part=own_part(len(batch)))
        noise = torch.randn(len(batch), settings.Z_DIM, generator=generator, device=device)
        pairs = draw_pairs(images, groups, loss.metric, settings, generator, False) if stored and len(groups) else None
        with autocast(device, precision):
            terms = Terms(*add_up(torch.stack(loss(vae, batch, x, noise, True, pairs))))
        sums += torch.stack([*terms, loss.total(terms)]) * len(batch)
    means = (sums / len(rows)).tolist() if len(rows) else [None] * len(sums)
    means = dict(zip((f"val_{term}" for term in (*Terms._fields, "loss")), means))
    return means | (dict(val_regularizer=None, val_loss=None) if stored and not len(groups) else {})


@torch.no_grad()
def reconstruct(vae, images, rows):
    """At most SHOWN of the faces of these rows, evenly spaced, and their reconstructions from mu, (b, C, H, W) each."""
    x = images(torch.as_tensor(evenly_spaced(rows, SHOWN)))
    return x, vae.decode(vae.encode(x)[0])
