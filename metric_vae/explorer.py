"""explorer.html: the held-out faces of a run in one page that a browser opens without network or server.

In: arrays, the Latents of each VAE and its network. Out: an HTML file of about LIMIT bytes at most: page/explorer.html
with its style, its script and the data, as JSON. The page contains the light decoder, as 8-bit weights, and runs it:
there are too many possible edits and interpolations to render them all. For other decoders, reconstructions and some
edits are rendered.
"""
import base64
import io
import json
import re
from pathlib import Path

import numpy as np
from matplotlib.markers import MarkerStyle
from PIL import Image
from torch import nn

from data.figures import area, largest, style, tsne
from metric_vae import statistics
from metric_vae.figures import NAMES, SOURCES
from training.files import write_atomically

FACES = 600                 # at most; of more, a random sample in which the classes keep their proportions
SIDE = 96                   # pixels of a face at most; larger ones are shrunk
PAIRS = 3000                # in the Shepard diagrams
WORST = 12                  # pairs in each list of the worst kept ones
SAMPLES = 8                 # of each class
DECODERS = 4_500_000        # bytes of all decoders at most; larger ones are left out
EDITED = 4_000_000          # pixels of edits that are rendered instead
LIMIT = 8_000_000           # bytes of the page
QUALITIES = (90, 75, 50, 25)    # of JPEG: the first with which the page keeps to LIMIT
DARK = "#1B1F24"            # the ground of a diagram in dark mode, as in explorer.css
CONTRAST = 4                # of marks to that ground
PAGE = Path(__file__).parent / "page"


def write(path, title, faces, rows, latents=(), vaes=None, d=None, metric="", last=None, source="density", seed=0):
    """Write the page of these held-out faces, atomically.

    rows int64 (n,) of faces; latents: those of these rows in each VAE; vaes: name -> VAE; d: given distances (n, n),
    NaN where they are not given, called metric; last (n, classes): the classifier's last layer, or None; source: of
    samples, one of SOURCES.
    """
    keep = statistics.stratified_rows(faces.labels[rows], FACES, seed)
    shown, labels = largest(faces.labels[rows[keep]]), faces.labels[rows[keep]]
    content = dict(
        title=title, metric=metric, source=SOURCES[source], size=faces.size, channels=faces.channels,
        rows=rows[keep].tolist(), names=list(faces.classes), labels=labels.tolist(),
        people=faces.identities[rows[keep]].tolist(), classes=[mark_of(label, faces.classes) for label in shown],
        faces=faces.images[rows[keep]], maps=maps_of(latents, last, keep, seed), models=[], given=None, pairs=[],
        predicted=None if last is None else last[keep].argmax(1).tolist())
    pairs = np.zeros((0, 2), int)
    if d is not None:
        d = d[np.ix_(keep, keep)]
        pairs = np.stack(np.triu_indices(len(d), 1), 1)
        pairs = pairs[np.isfinite(d[tuple(pairs.T)])]
    if len(pairs) > 2:
        drawn = np.random.default_rng(seed).permutation(len(pairs))[:PAIRS]
        content |= dict(given=packed(d), pairs=pairs[drawn].tolist())
    decoders = [decoder_of(vaes[of.name]) for of in latents]
    too_large = None in decoders or sum(len(json.dumps(decoder)) for decoder in decoders) > DECODERS
    for of, decoder in zip(latents, decoders):
        model = model_of(of, keep, shown, faces.classes, source, seed) | distances_of(of, keep, d, pairs)
        if too_large:
            model |= rendered(of, keep, shown, len(latents), seed)
        content["models"].append(model | dict(decoder=None if too_large else decoder))
    for quality in QUALITIES:
        page = filled(content, quality)
        if len(page) <= LIMIT:
            break
    write_atomically(path, lambda file: file.write(page))


def maps_of(latents, last, keep, seed):
    """The t-SNE maps: a list of their titles and points. They are computed of all faces, as in the figures."""
    given = []
    for of in latents:
        if of.metric_dims.stop is not None:
            given.append((f"{NAMES[of.name]}: the {of.metric_dims.stop} metric dimensions of z",
                          of.mu[:, of.metric_dims]))
        given.append((f"{NAMES[of.name]}: all of z", of.mu))
    if last is not None:
        given.append(("classifier: its last layer", last))
    maps = []
    for title, points in given:
        found = tsne(points, seed=seed)
        low, high = found.min(0), found.max(0)
        maps.append(dict(title=title, points=packed(((found - low) / np.maximum(high - low, 1e-9))[keep].T)))
    return maps


def model_of(latents, keep, shown, classes, source, seed):
    """What the page holds of a VAE: latents, how they are edited, and samples."""
    mu, dims = latents.mu[keep], latents.metric_dims
    known = latents.editable(shown)
    samples, of = latents.rows_of_samples(SAMPLES, source, seed)
    return dict(name=NAMES[latents.name], mu=packed(mu), dims=mu[:, dims].shape[1], known=known,
                edit_dims=list(latents.edit_dims.indices(mu.shape[1]))[:2],
                means=packed(latents.means[known]) if known else None,
                samples=dict(faces=samples.reshape(-1, *samples.shape[2:]), count=SAMPLES,
                             of=None if of is None else [classes[label] for label in of]))


def distances_of(latents, keep, d, pairs):
    """The best scale of a VAE's distances, their scores, and the worst kept of the pairs (m, 2) with given distances d.
    """
    if len(pairs) < 3:
        return dict(scale=1., worst=[])
    e, given = statistics.euclidean(latents.mu[keep][:, latents.metric_dims])[tuple(pairs.T)], d[tuple(pairs.T)]
    if not e.any():                                             # all mu are equal: there is no scale
        return dict(scale=1., worst=[])
    scale = float(statistics.best_scale(e, given))
    scores = dict(spearman=float(statistics.spearman(e, given)(np.ones(len(e)))),
                  stress=float(statistics.stress(e, given)))
    return dict(scale=scale, worst=worst_pairs(pairs, np.abs(scale * e - given)).tolist(), **statistics.finite(scores))


def worst_pairs(pairs, errors, count=WORST):
    """The count pairs (m, 2) with the largest errors (m,), worst first, no face in two of them."""
    chosen, taken = [], set()
    for pair in pairs[np.argsort(-errors, kind="stable")].tolist():
        if len(chosen) < count and not taken & set(pair):
            chosen.append(pair)
            taken |= set(pair)
    return np.array(chosen, int).reshape(-1, 2)


def rendered(latents, keep, shown, models, seed):
    """The reconstructions of all faces, and the edits to each class of as many as EDITED allows for all models."""
    targets = latents.editable(shown)
    known = np.flatnonzero(np.isin(latents.labels[keep], targets))
    count = EDITED // (models * max(len(targets), 1) * min(latents.x.shape[1], SIDE) ** 2)
    known = known[statistics.stratified_rows(latents.labels[keep][known], count, seed)] if count else known[:0]
    pictures = dict(reconstructions=latents.decode(latents.mu[keep]), edited=known.tolist(), edits=None)
    if len(known):
        edits = np.stack([latents.edit(keep[known], target) for target in targets], 1)
        pictures["edits"] = edits.reshape(-1, *edits.shape[2:])
    return pictures


# --- how it is packed

def packed(matrix, bits=16):
    """A matrix (r, k) as whole numbers of so many bits and a scale for each row, in base64; NaN is the least number."""
    matrix = np.asarray(matrix, np.float32)
    matrix = matrix.reshape(len(matrix), -1)
    most = 2 ** (bits - 1) - 1
    scale = np.nanmax(np.abs(matrix), 1, initial=1e-30) / most
    whole = np.where(np.isnan(matrix), -most - 1, np.round(np.nan_to_num(matrix) / scale[:, None])
                     ).astype(f"<i{bits // 8}")
    text = lambda array: base64.b64encode(array.tobytes()).decode()
    return dict(bits=bits, columns=matrix.shape[1], scale=text(scale.astype("<f4")), values=text(whole))


def decoder_of(vae):
    """The decoder of a VAE as explorer.js runs it, a list of its layers, the mean face last; None where it has layers
    that explorer.js does not know. With 8 bits a weight, pixels are off by less than a grey level or so.
    """
    layers = layers_of(vae.decoder) if type(vae.decoder) is nn.Sequential else None
    if layers and vae.mean_face is not None:
        layers.append(dict(kind="MeanFace", bias=packed(vae.mean_face.face.numpy(force=True).reshape(1, -1))))
    return layers


def layers_of(network):
    """The layers of an nn.Sequential, see decoder_of; of Joined: those of its metric network, and its layer rest."""
    layers = []
    for layer in network:
        kind, more = type(layer).__name__, {}
        if kind in ("Linear", "ConvTranspose2d"):
            bias = np.zeros(1) if layer.bias is None else layer.bias.numpy(force=True)
            more = dict(weight=packed(layer.weight.numpy(force=True), 8), bias=packed(bias[None]))
        if kind == "ConvTranspose2d":
            kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
            plain = [(kernel,) * 2, (stride,) * 2, (padding,) * 2, (0, 0), (1, 1), 1, 0]
            if plain != [layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation,
                         layer.groups, layer.in_channels % 4]:
                return None
            more |= dict(inputs=layer.in_channels, outputs=layer.out_channels, kernel=kernel, stride=stride,
                         padding=padding)
        elif kind == "Joined":
            more = dict(dims=layer.metric_dims, metric=layers_of(layer.metric), rest=layers_of([layer.rest])[0])
        elif kind not in ("Linear", "SiLU", "ReLU", "Unflatten"):
            return None
        layers.append(dict(kind=kind, **more))
    return layers


def sheet(faces, quality):
    """Faces (n, H, W) or (n, H, W, 3), uint8 or floats in 0..1, side by side in a JPEG, as a data URI."""
    if faces.dtype != np.uint8:
        faces = (np.clip(faces, 0, 1) * 255 + .5).astype(np.uint8)
    side = faces.shape[1]
    if side > SIDE:
        faces = np.stack([np.asarray(Image.fromarray(face).resize((SIDE, SIDE))) for face in faces])
        side = SIDE
    across = int(np.ceil(np.sqrt(len(faces))))
    grid = np.zeros((across * across, *faces.shape[1:]), np.uint8)
    grid[:len(faces)] = faces
    grid = grid.reshape(across, across, side, side, -1).swapaxes(1, 2).reshape(across * side, across * side, -1)
    file = io.BytesIO()
    # sides are multiples of JPEG's blocks of 8 pixels, so that no face runs into the next
    Image.fromarray(grid.squeeze(2) if grid.shape[2] == 1 else grid).save(file, "JPEG", quality=quality, subsampling=0)
    return dict(uri="data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(), across=across, side=side)


def mark_of(label, classes):
    """The label, name, colours and mark of a class, those of the figures: its outline is an SVG path in pixels."""
    colour, marker = style(label, classes)
    shape = MarkerStyle(marker)
    corners = shape.get_path().transformed(shape.get_transform()).to_polygons()[0] * 1.8 * np.sqrt(area(marker))
    outline = "M" + "L".join(f"{x:.2f} {-y:.2f}" for x, y in corners) + "Z"         # in a page y points down
    return dict(label=label, name=classes[label], colour=colour, dark=lightened(colour), outline=outline)


def lightened(colour):
    """A colour "#RRGGBB" with as much white as it needs to be told from DARK (WCAG 2.2's contrast)."""
    rgb = lambda text: np.array([int(text[k:k + 2], 16) for k in (1, 3, 5)])

    def luminance(values):
        s = values / 255
        return np.where(s <= .04045, s / 12.92, ((s + .055) / 1.055) ** 2.4) @ (.2126, .7152, .0722) + .05
    for white in np.linspace(0, 1, 21):
        mixed = ((1 - white) * rgb(colour) + white * 255).round()
        if luminance(mixed) >= CONTRAST * luminance(rgb(DARK)):
            break
    return "#" + "".join(f"{int(value):02X}" for value in mixed)


def filled(content, quality):
    """The page with its style, script and content, as bytes; arrays in the content are faces, which become sheets."""
    text = json.dumps(content, allow_nan=False, default=lambda faces: sheet(faces, quality), separators=(",", ":"))
    parts = {name: (PAGE / name).read_text("utf-8") for name in ("explorer.css", "explorer.js")}
    parts["data"] = text.replace("<", r"\u003c")                # a name may not end the element that it stands in
    page = (PAGE / "explorer.html").read_text("utf-8")
    return re.sub(r"\{\{(.*?)\}\}", lambda match: parts[match[1]], page).encode()
