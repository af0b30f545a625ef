"""Pictures of the classifier: maps of its layers, how sure it is of each class, its confusions.

In: arrays of held-out faces. Out: PNG files. Labels are int64 (n,) into classes, their names, -1 unlabelled.
"""
import numpy as np
from matplotlib.figure import Figure

from data.figures import draw_map, face_grid, largest, omitted, save, style

SHOWN = 14              # faces of each class, as in the reference implementation
SURE = (.001, .01, .1, .5, .9, .99, .999, .9999)        # ticks of intensities.png
TITLES = {"last": "last layer, before the softmax", "second_last": "second-last layer", "softmax": "softmax"}


def layer_map(path, name, points, labels, classes, seed=0):
    """Draw the t-SNE map of a layer, points (n, k), called "last", "second_last" or "softmax"."""
    draw_map(path, points, labels, f"Classifier, {TITLES[name]}: t-SNE of {len(points)} held-out faces", classes, seed)


def spread(values, labels, count=SHOWN):
    """For each of the largest classes: the rows (up to count,) of its faces from the lowest to the highest value.

    values (n, classes), one per class; the rows are evenly spaced in rank, the lowest and the highest among them.
    """
    chosen = {}
    for label in largest(labels):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(values[rows, label], kind="stable")]
        chosen[label] = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    return chosen


def ordered(path, images, softmax, labels, classes):
    """Draw faces of each class by the softmax value of that class, lowest on the left.

    images (n, H, W) uint8, softmax (n, classes).
    """
    chosen = spread(softmax, labels)
    grid = np.full((len(chosen), SHOWN, *images.shape[1:]), np.nan)
    for place, rows in enumerate(chosen.values()):
        grid[place, :len(rows)] = images[rows] / 255
    face_grid(path, grid, rows=[classes[label] for label in chosen],
              title="Held-out faces of each class, ordered by the softmax value of that class: lowest on the left, "
                    "highest on the right" + omitted(list(chosen), classes))


def intensities(path, softmax, labels, classes):
    """Plot the softmax values of the faces that ordered() shows, on a log-odds axis."""
    figure = Figure((7.5, 5), layout="constrained")
    axes = figure.subplots()
    for label, rows in spread(softmax, labels).items():
        colour, marker = style(label, classes)
        values = np.clip(softmax[rows, label], SURE[0], SURE[-1])
        axes.plot(np.arange(1, len(rows) + 1), values, color=colour, marker=marker, label=classes[label])
    axes.set_yscale("logit")
    axes.set_yticks(SURE, [f"{value:g}" for value in SURE])
    axes.minorticks_off()
    axes.set(title="Softmax value of the true class: the held-out faces of ordered.png",
             xlabel="column of the face in ordered.png", xticks=range(1, SHOWN + 1),
             ylabel=f"softmax value of the true class,\nclipped to {SURE[0]}..{SURE[-1]}")
    axes.title.set_fontsize(10)
    axes.grid(alpha=.3)
    axes.legend(loc="lower right", ncols=2, fontsize=8)
    save(figure, path)


def confusion(path, labels, predicted, classes):
    """Draw the confusion matrix of labelled faces: rows true, columns predicted classes; both int64 (n,)."""
    count = len(classes)
    matrix = np.zeros((count, count), int)
    np.add.at(matrix, (labels, predicted), 1)
    totals = matrix.sum(1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)
    side = max(6.8, .45 * count)
    figure = Figure((side + 1.2, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(count, count):
        if matrix[i, j] and count <= 10:
            axes.text(j, i, f"{matrix[i, j]}\n{shares[i, j]:.0%}", ha="center", va="center", fontsize=9,
                      color="white" if shares[i, j] > .55 else "black")
    right = [f"{name}\n{shares[i, i]:.1%} of {totals[i, 0]}" if totals[i, 0] else f"{name}\nno faces"
             for i, name in enumerate(classes)]
    axes.set(title=f"Classifier accuracy on {len(labels)} held-out faces: {np.trace(matrix) / max(len(labels), 1):.1%}",
             xlabel="predicted class", ylabel="true class, its accuracy and number of faces",
             xticks=range(count), yticks=range(count), xticklabels=classes, yticklabels=right)
    axes.tick_params(axis="x", rotation=0 if count <= 10 else 90)
    figure.colorbar(image, ax=axes, label="share of the row's faces", shrink=.8)
    save(figure, path)
