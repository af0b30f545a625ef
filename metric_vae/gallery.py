"""Which faces the figures of a VAE show: reconstructions, samples, interpolations and edits of held-out faces.

In: Latents of held-out faces, Faces, the settings of experiments.py (SHOWN, STEPS, SAMPLES_FROM, SEED). Out: PNG files.
"""
import numpy as np

from data.figures import draw, largest
from metric_vae import figures, statistics
from metric_vae.scores import pairs_of
from training.files import make_folder


def draw_vae(latents, faces, pair, settings, folder):
    """Draw the figures of one VAE into a new folder; pair: the labels of the example."""
    make_folder(folder)
    name, people, seed = latents.name, faces.identities[latents.rows], settings.SEED
    rng = np.random.default_rng(seed)
    draw(figures.latent, folder / "latent.png", name, latents.mu, latents.labels, faces.classes,
         latents.metric_dims.stop, seed)
    some = rng.permutation(len(latents.rows))[:32]
    samples = latents.samples(len(some), settings.SAMPLES_FROM, seed=seed)
    draw(figures.reconstructions, folder / "reconstructions.png", name, latents.x[some],
         latents.decode(latents.mu[some]), samples, settings.SAMPLES_FROM)
    draw_samples(folder / "samples.png", latents, faces.classes, settings)
    starts, ends = pairs_of(latents, people, *pair, settings.SHOWN, seed) if pair else ([], [])
    if len(starts):
        same = (people[starts] == people[ends]) & (people[starts] >= 0) if (people >= 0).any() else None
        draw(figures.interpolations, folder / "interpolate.png", name, latents.x[starts],
             decoded_way(latents, starts, ends, settings.STEPS), latents.x[ends],
             [faces.classes[label] for label in pair], same)
    count, edited = latents.mu.shape[1], range(latents.mu.shape[1])[latents.edit_dims]
    moved = f"only {len(edited)} of the {count} dimensions of z move" if len(edited) < count else ""
    blocks = []
    for a, b in (pair, pair[::-1]) if pair else ():
        of_a = rng.permutation(np.flatnonzero(latents.labels == a))[:settings.SHOWN]
        if len(of_a) and len(latents.editable([a, b])) == 2:
            blocks.append((faces.classes[a], faces.classes[b],
                           np.stack([latents.x[of_a], latents.decode(latents.mu[of_a]), latents.edit(of_a, b)])))
    if blocks:
        draw(figures.changes, folder / "change.png", name, blocks, moved)
    shown = edited_classes(latents, faces, settings)
    some = people_to_edit(latents, shown, settings.SHOWN, rng)
    if len(some) and len(shown) > 1:
        edited = np.stack([latents.edit(some, b) for b in shown], 1)
        draw(figures.edits, folder / "edits.png", name, latents.x[some], latents.decode(latents.mu[some]), edited,
             [faces.classes[label] for label in latents.labels[some]], [faces.classes[label] for label in shown], moved)
    missing = [file for file in ("interpolate", "change", "edits") if not (folder / f"{file}.png").exists()]
    if missing:
        print(f"{name}: too few labelled faces for " + ", ".join(missing))


def edited_classes(latents, faces, settings):
    """The labels of the largest classes, SHOWN at most, that have training faces."""
    return latents.editable(largest(faces.labels, settings.SHOWN))


def decoded_way(latents, starts, ends, steps):
    """Decoded points on the lines between the latents of faces, (R, steps, H, W); starts, ends: their places (R,)."""
    path = statistics.interpolate(latents.mu[starts], latents.mu[ends], steps)
    return latents.decode(path.reshape(-1, path.shape[2])).reshape(*path.shape[:2], *latents.x.shape[1:])


def draw_both(folder, both, faces, pair, settings):
    """Draw the same edits and interpolations of a few faces by both VAEs, where there are two.

    both: their Latents; pair: the labels of the example.
    """
    if len(both) < 2:
        return
    one, count, names = both[0], settings.SHOWN // 2, lambda labels: [faces.classes[label] for label in labels]
    shown = edited_classes(one, faces, settings)
    some = people_to_edit(one, shown, count, np.random.default_rng(settings.SEED))
    if len(some) and len(shown) > 1:
        draw(figures.edits_of_both, folder / "edits.png", one.x[some], {of.name: of.decode(of.mu[some]) for of in both},
             {of.name: np.stack([of.edit(some, b) for b in shown], 1) for of in both},
             names(one.labels[some]), names(shown))
    starts, ends = pairs_of(one, faces.identities[one.rows], *pair, count, settings.SEED) if pair else ([], [])
    if len(starts):
        draw(figures.interpolations_of_both, folder / "interpolate.png", one.x[starts],
             {of.name: decoded_way(of, starts, ends, settings.STEPS) for of in both}, one.x[ends], names(pair))


def draw_samples(path, latents, classes, settings):
    """Draw samples: a row for each class from the density; of no class from the prior, or where no face is labelled."""
    samples, labels = latents.rows_of_samples(settings.SHOWN, settings.SAMPLES_FROM, settings.SEED)
    names = None if labels is None else [classes[label] for label in labels]
    draw(figures.samples, path, latents.name, samples, names, settings.SAMPLES_FROM)


def people_to_edit(latents, classes, count, rng):
    """Places of up to count faces, of each of these classes in turn, drawn at random."""
    known = rng.permutation(np.flatnonzero(np.isin(latents.labels, classes)))
    turn = np.zeros(len(known), int)
    for label in classes:
        of_label = latents.labels[known] == label
        turn[of_label] = np.arange(of_label.sum())
    chosen = known[np.argsort(turn, kind="stable")][:count]
    return chosen[np.argsort(latents.labels[chosen], kind="stable")]
