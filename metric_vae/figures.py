"""Pictures of the VAE: its latent space, interpolations, edits, reconstructions, distances and losses.

In: arrays, faces float (..., H, W) in about 0..1. Out: PNG files. `of` names the model in titles.
"""
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from data.figures import draw_map, face_grid, save
from metric_vae import statistics

NAMES = {"no_dist_reg": "without the regulariser", "dist_reg": "with the regulariser"}
MODEL_COLOURS = {"no_dist_reg": "#D55E00", "dist_reg": "#0072B2", "classifier": "#444444"}
SOURCES = {"density": "Gaussians fitted to the latents of the training faces", "prior": "the prior N(0, I)"}
TERMS = {"error": "squared error, summed over pixels", "kl": "KL divergence, summed over dimensions",
         "regularizer": "distance regulariser", "consistency": "consistency loss",
         "loss": "total loss, weighted"}


def latent(path, of, mu, labels, classes, dims=None, seed=0):
    """Draw the t-SNE map of mu (n, Z), labels int64 (n,); of its first dims where that is not None."""
    what = "latent means" if dims is None else f"metric part ({dims} dimensions)\nof the latent means"
    draw_map(path, mu[:, :dims], labels, f"VAE {NAMES[of]}: t-SNE of the {what} of {len(mu)} held-out faces", classes,
             seed)


def interpolations(path, of, starts, decoded, ends, names, same=None):
    """Draw a row a pair: a face, the decoded way from its latent to that of another face, and that face.

    starts, ends (R, H, W); decoded (R, steps, H, W); names: of the two classes; same: bool (R,), whether both
    faces are of one person, or None where that is not known.
    """
    people = "" if same is None else f"\n({same.sum()} of the {len(same)} pairs are two faces of one person)"
    steps = decoded.shape[1]
    face_grid(path, np.concatenate([starts[:, None], decoded, ends[:, None]], 1), columns=_way(names, steps),
              breaks=(1, steps + 1),
              title=f"VAE {NAMES[of]}: {names[0]} to {names[1]}, decoded points on the line between the latents of "
                    f"two held-out faces{people}")


def _way(names, steps):
    """The headings of a face, the way to another one, and that."""
    return [f"input,\n{names[0]}", *(f"{k / (steps - 1):.0%}" for k in range(steps)), f"input,\n{names[1]}"]


def changes(path, of, blocks, moved=""):
    """Draw edits z - m_a + m_b: blocks of three columns, the face, its reconstruction and its edit.

    blocks: a list of (name of a, name of b, faces (3, R, H, W)); moved: which dimensions of z move, for the title.
    """
    rows = max(faces.shape[1] for *_, faces in blocks)
    grid = np.full((rows, 3 * len(blocks), *blocks[0][2].shape[2:]), np.nan)
    columns = []
    for k, (a, b, faces) in enumerate(blocks):
        grid[:faces.shape[1], 3 * k:3 * k + 3] = faces.swapaxes(0, 1)
        columns += [f"input,\n{a}", "recon-\nstruction", f"edited\nto {b}"]
    face_grid(path, grid, columns=columns, breaks=range(3, 3 * len(blocks), 3),
              title=f"VAE {NAMES[of]}: edits of held-out faces,\nz - m(before) + m(after), where m is the mean latent\n"
                    "of the training faces of a class" + (f";\n{moved}" if moved else ""))


def reconstructions(path, of, x, x_hat, samples, source, across=4):
    """Draw faces x, their reconstructions x_hat and samples from source, one of SOURCES; each (n, H, W)."""
    down = -(-len(x) // across)
    blocks = np.full((3, down * across, *x.shape[1:]), np.nan)
    blocks[:, :len(x)] = x, x_hat, samples
    columns = [name if c == 0 else "" for name in ("inputs", "reconstructions", "samples") for c in range(across)]
    face_grid(path, np.concatenate(blocks.reshape(3, down, across, *x.shape[1:]), 1), columns=columns,
              breaks=(across, 2 * across),
              title=f"VAE {NAMES[of]}: held-out faces, their reconstructions from mu, and samples\n"
                    f"from {SOURCES[source]}")


def samples(path, of, faces, names, source):
    """Draw samples (R, C, H, W) from source, one of SOURCES: a row a class, or all of any where names is None."""
    of_each = "samples" if names is None else "samples of each class"
    face_grid(path, faces, rows=names, title=f"VAE {NAMES[of]}: {of_each}\nfrom {SOURCES[source]}")


def edits(path, of, x, x_hat, edited, before, after, moved=""):
    """Draw a row a person: the face, its reconstruction, and its edits to other classes.

    x, x_hat (R, H, W); edited (R, C, H, W); before (R,), after (C,): names of classes; moved as in changes.
    """
    grid = np.concatenate([x[:, None], x_hat[:, None], edited], 1)
    face_grid(path, grid, rows=before, columns=["input", "recon-\nstruction", *after], breaks=(1, 2), scale=3,
              title=f"VAE {NAMES[of]}: one held-out face a row, edited to {len(after)} classes\n"
                    "(on the left: the class that it has)" + (f"; {moved}" if moved else ""))


def edits_of_both(path, x, x_hats, edits, before, after):
    """Draw the same edits by both models, a pair of rows a person.

    x (R, H, W); x_hats, edits: model -> (R, H, W), (R, C, H, W); before (R,), after (C,): names of classes.
    """
    grids = {of: np.concatenate([x[:, None], x_hats[of][:, None], edits[of]], 1) for of in x_hats}
    _pairs_of_rows(path, grids, before, columns=["input", "recon-\nstruction", *after], breaks=(1, 2),
                   title="Edits of held-out faces; upper rows: without the regulariser (all of z changes),\n"
                         "lower rows: with it; on the left: the true class")


def interpolations_of_both(path, starts, decoded, ends, names):
    """Draw the way between the same two faces in both models, a pair of rows each; decoded: model -> as in
    interpolations, which has the other arguments too.
    """
    grids = {of: np.concatenate([starts[:, None], way, ends[:, None]], 1) for of, way in decoded.items()}
    steps = next(iter(decoded.values())).shape[1]
    _pairs_of_rows(path, grids, [""] * len(starts), columns=_way(names, steps),
                   breaks=(1, steps + 1),
                   title=f"{names[0]} to {names[1]}: decoded points on the line between the latents of two held-out\n"
                         "faces; upper rows: without the regulariser, lower rows: with it")


def _pairs_of_rows(path, grids, rows, **more):
    """Draw face_grids of two models, (R, C, H, W) each, row by row; rows (R,): the pairs' names, or "" each."""
    grid = np.stack(list(grids.values()), 1)
    names = [f"{name},\n{NAMES[of].split()[0]}".lstrip(",\n") for name in rows for of in grids]
    face_grid(path, grid.reshape(-1, *grid.shape[2:]), rows=names, **more)


def shepard(path, panels, metric):
    """Draw latent against given distances of pairs of held-out faces, a panel a model with the same axes.

    panels: model -> latent and given distances, (m,) each. Latent ones are multiplied by the best scale, so that a
    perfect metric is the diagonal. metric: what d is, for the axis.
    """
    figure = Figure((5.5 * len(panels) + .5, 5.4), layout="compressed")
    all_axes = np.atleast_1d(figure.subplots(1, len(panels), sharex=True, sharey=True))
    scaled = {of: statistics.best_scale(e, d) * e for of, (e, d) in panels.items()}
    high = 1.02 * max(np.percentile(np.concatenate([scaled[of], panels[of][1]]), 99.9) for of in panels)
    drawn = []
    for axes, (of, (e, d)) in zip(all_axes, panels.items()):
        rho, stress = statistics.spearman(e, d)(np.ones(len(e))), statistics.stress(e, d)
        drawn.append(axes.hexbin(d, scaled[of], gridsize=55, extent=(0, high, 0, high), mincnt=1, bins="log",
                                 cmap="viridis", linewidths=0))
        axes.plot((0, high), (0, high), color="#D55E00", linewidth=1.5, label="metric kept exactly")
        axes.set(title=f"VAE {NAMES[of]}\nSpearman {rho:.3f}, stress {stress:.3f}", xlim=(0, high), ylim=(0, high),
                 xlabel=f"given distance, {metric}", aspect="equal")
    all_axes[0].set_ylabel("latent distance times the best scale s = Σed / Σe²")
    all_axes[-1].legend(loc="upper left")
    most = max(hexagons.get_array().max() for hexagons in drawn)
    for hexagons in drawn:                                      # one scale of colours, which the bar shows
        hexagons.set_clim(1, most)
    figure.colorbar(drawn[-1], ax=list(all_axes), label="pairs of held-out faces", shrink=.85)
    save(figure, path)


def losses(path, logs):
    """Plot every term over epochs: training drawn through, validation dashed.

    logs: stage -> list of log.jsonl's lines; a term of a VAE is a value that also has a val_ value.
    """
    vaes = {of: lines for of, lines in logs.items() if of in NAMES and lines}
    panels = []                                                 # title, {stage: its lines}, keys of both curves
    for term in dict.fromkeys(term for lines in vaes.values() for term in lines[-1] if f"val_{term}" in lines[-1]):
        of_term = {of: lines for of, lines in vaes.items() if any(line.get(term) for line in lines)}
        if of_term:
            panels.append((TERMS.get(term, term), of_term, term, f"val_{term}"))
    if logs.get("classifier"):
        panels.append(("classifier accuracy", {"classifier": logs["classifier"]}, "train_accuracy", "val_accuracy"))
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = Figure((4.3 * across, 3.4 * down + .5), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(down, across)).ravel()
    handles = {}
    for axes, (title, stages, training, validation) in zip(all_axes, panels):
        shown = []
        for of, lines in stages.items():
            for key, style, part in ((training, "-", "training"), (validation, "--", "validation")):
                points = [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]
                if points:
                    line, = axes.plot(*zip(*points), style, color=MODEL_COLOURS[of], linewidth=1.6,
                                      marker="o" if len(points) == 1 else None)
                    handles.setdefault(f"{NAMES.get(of, of)}, {part}", line)
                    shown += [value for _, value in points]
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if "accuracy" in training:
            axes.set_ylim(0, 1.02)
        elif shown and min(shown) > 0 and max(shown) > 4 * min(shown):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=.3)
    for axes in all_axes[len(panels):]:
        axes.set_axis_off()
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)
