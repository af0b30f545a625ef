"""How every figure draws faces and points: grids of faces without blur, scatter plots with one colour an expression.

In: arrays. Out: PNG files.
"""
import sys
from functools import lru_cache

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from data.labels import EXPRESSIONS
from training.errors import UserError
from training.files import write_atomically

# Okabe and Ito's colours, told apart with every common colour vision, and one more
COLOURS = dict(zip(EXPRESSIONS, ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#56B4E9", "#444444",
                                 "#8C510A")))
SHAPES = "v<P*^osXD>phd"      # of markers: those of EXPRESSIONS first
MOST = 20               # classes that a figure shows; of more, those with the most faces
DPI = 100
LETTER = 7.5            # pixels of one letter of a label, about
MARGIN = 10             # pixels around a grid
PERPLEXITY = 20         # of t-SNE, as in the reference implementation


def save(figure, path):
    """Write a figure as PNG, atomically. Between two $ there is no formula: names of classes and folders have them."""
    for text in figure.findobj(Text):                           # not yet those of log axes, which are formulas
        if text.get_text() and r"\mathdefault" not in text.get_text():
            text.set_parse_math(False)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=DPI))


def draw(function, path, *arguments):
    """function(path, *arguments), which draws a figure. One that fails is warned of, and costs no other and no score.

    Raises UserError, for example where the disk is full.
    """
    try:
        function(path, *arguments)
    except UserError:
        raise
    except Exception as error:
        print(f"warning: no {path.name}: {type(error).__name__}: {error}", file=sys.stderr)


def face_grid(path, faces, rows=None, columns=None, title="", scale=2, gap=2, breaks=()):
    """Write a grid of faces as PNG, each of their pixels scale x scale pixels of the picture.

    faces: (R, C, H, W), or in colour (R, C, H, W, 3), uint8 or floats in 0..1, NaN for an empty place. rows, columns:
    their labels, R and C strings. breaks: columns before which a wider gap stands.
    """
    count_r, count_c, size = faces.shape[:3]
    if faces.dtype != np.uint8:
        faces = np.where(np.isnan(faces), 255, np.clip(faces, 0, 1) * 255 + .5).astype(np.uint8)
    if faces.ndim == 4:
        faces = faces[..., None].repeat(3, -1)                  # as RGB: a colour map would be off by a grey level
    side = size * scale
    left = MARGIN + int(LETTER * max((len(text) for text in rows or [""]), default=0))
    lines = max(text.count("\n") + 1 for text in columns) if columns else 0
    titles = title.count("\n") + 1 if title else 0
    top = MARGIN + 17 * titles + 15 * lines
    xs = [left + c * (side + gap) + 4 * gap * sum(b <= c for b in breaks) for c in range(count_c)]
    ys = [top + r * (side + gap) for r in range(count_r)]
    longest = int(LETTER * max(len(line) for line in title.split("\n"))) + 2 * MARGIN
    width, height = max(xs[-1] + side + MARGIN, longest), ys[-1] + side + MARGIN
    canvas = np.full((height, width, 3), 255, np.uint8)
    for r, y in enumerate(ys):
        for c, x in enumerate(xs):
            canvas[y:y + side, x:x + side] = faces[r, c].repeat(scale, 0).repeat(scale, 1)
    figure = Figure((width / DPI, height / DPI), dpi=DPI)
    figure.figimage(canvas)
    text = lambda x, y, words, **kw: figure.text(x / width, 1 - y / height, words, **kw)
    text(left, MARGIN - 4, title, va="top", fontsize=9.5, weight="bold")
    for words, x in zip(columns or (), xs):
        text(x + side / 2, top - 3, words, ha="center", va="bottom", fontsize=8)
    for words, y in zip(rows or (), ys):
        text(left - 5, y + side / 2, words, ha="right", va="center", fontsize=8)
    save(figure, path)


def contact_sheet(path, faces, count=10, seed=0):
    """Write a sheet of random faces: a row for each class (and unlabelled ones), count faces each."""
    rng = np.random.default_rng(seed)
    shown = largest(faces.labels)
    rows = [*shown, -1] if (faces.labels < 0).any() else shown
    sheet = np.full((len(rows), count, *faces.images.shape[1:]), np.nan)
    for row, label in enumerate(rows):
        found = np.flatnonzero((faces.labels == label) & (faces.split == 0))
        some = np.sort(rng.permutation(found)[:count])
        sheet[row, :len(some)] = faces.images[some] / 255
    names = [faces.classes[label] if label >= 0 else "unlabelled" for label in rows]
    title = f"{faces.name}: training faces drawn at random" + omitted(shown, faces.classes)
    face_grid(path, sheet, rows=names, title=title)


def largest(labels, most=MOST):
    """The classes with the most faces, most at most, as a sorted list of labels."""
    counts = np.bincount(labels[labels >= 0])
    return sorted(int(label) for label in np.argsort(-counts, kind="stable")[:most] if counts[label])


def omitted(shown, classes):
    """What a title says where not all classes are shown."""
    return f"\n(the {len(shown)} largest of {len(classes)} classes)" if len(shown) < len(classes) else ""


def style(label, classes):
    """The (colour, marker) of a class: expressions have their own, others those of their place in the order."""
    if set(classes) <= set(EXPRESSIONS):
        label = EXPRESSIONS.index(classes[label])
    colours = list(COLOURS.values())
    return colours[label % len(colours)], SHAPES[(label + label // len(colours)) % len(SHAPES)]


def area(marker):
    """The area of a marker in a scatter plot, in squared points: stars and crosses are thin."""
    return 40 if marker in "*P" else 22


def scatter(axes, points, labels, title, classes):
    """Draw (N, 2) points with a colour and marker for each class; labels int64 (N,), unlabelled ones in grey below."""
    axes.scatter(*points[labels < 0].T, s=5, c="#CCCCCC", linewidths=0)
    shown = largest(labels)
    for label in shown:
        colour, marker = style(label, classes)
        axes.scatter(*points[labels == label].T, s=area(marker), c=colour, marker=marker, linewidths=0, alpha=.8,
                     label=classes[label])
    axes.set(title=title + omitted(shown, np.unique(labels[labels >= 0])), xticks=[], yticks=[])


def draw_map(path, points, labels, title, classes, seed=0):
    """Draw the t-SNE map of points (n, k), one a face; labels int64 (n,)."""
    figure = Figure((7.5, 7.2), layout="constrained")
    scatter(figure.subplots(), tsne(points, seed=seed), labels, title, classes)
    class_legend(figure)
    save(figure, path)


def class_legend(figure):
    """One legend of the classes below all axes of a figure with constrained layout."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    if handles:
        across = max(1, min(len(names), 80 // (max(map(len, names)) + 3)))
        figure.legend(handles, names, loc="outside lower center", ncols=across, frameon=False, markerscale=1.5)


def tsne(points, perplexity=PERPLEXITY, seed=0):
    """The t-SNE map, (N, 2), of (N, k) points (van der Maaten and Hinton 2008; scikit-learn, Barnes-Hut).

    Fewer than five points, which have no such map, are shown by their first two coordinates.
    """
    points = np.asarray(points, np.float32)
    return _tsne(points.tobytes(), points.shape, perplexity, seed)


@lru_cache(maxsize=8)                                           # a map stands in a figure and in explorer.html
def _tsne(values, shape, perplexity, seed):
    from sklearn.manifold import TSNE
    points = np.frombuffer(values, np.float32).reshape(shape)
    points = np.pad(points, ((0, 0), (0, max(0, 2 - points.shape[1]))))     # it begins at two principal components
    if len(points) < 5:
        return points[:, :2]
    perplexity = min(perplexity, (len(points) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
