"""A trained run in a user's hands: encode, decode, edit, interpolate and sample pictures, from its run folder alone.

    from metric_vae.space import load
    space = load("experiments/0")
    sad = space.edit("me.jpg", "sad")

In: a run folder, written by run.py or metric_vae/run.py; pictures. Out: arrays of latents and pictures.
"""
import importlib
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from data.batches import as_channels
from data.pixels import square, squares
from data.sources import load as load_faces
from metric_vae import statistics
from metric_vae.trained import decode, edit_dims, encode, load_summary, load_vae, metric_part
from training import storage
from training.devices import choose_device
from training.errors import UserError, check_choice
from training.files import make_folder
from training.settings import restored

CHANNELS = (1, 3, 4)    # of a picture: axes of these lengths are not numbers of pictures


class Nearest(NamedTuple):
    """Faces of the data near a picture, nearest first: rows int64 (count,), pictures uint8 (count, H, W), distances."""
    rows: np.ndarray
    pictures: np.ndarray
    distances: np.ndarray


def load(run="last", model="dist_reg", device="cpu"):
    """The Space of a finished run. run: its folder, its number, or "last", the newest; model: "dist_reg", the VAE with
    the regulariser, or "no_dist_reg".

    Raises UserError where there is no such run, or a file of it is missing or damaged.
    """
    folder = storage.find_run(run, finished=True, constants_of="vae")
    check_choice("model", model, ("dist_reg", "no_dist_reg"))
    return Space(folder, model, choose_device(device))


class _Call(torch.nn.Module):
    """A function as a module, as the ONNX exporter wants it."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, x):
        return self.function(x)


class Space:
    """The latent space of one VAE of a run.

    A picture is a path, a Pillow image, or an array (H, W) or (H, W, 3) of any size and usual type; it is cut to its
    middle square and resized (to the face: image.crop(data.crops.face_box(image)[0])). Methods take one picture, or
    several: a list, or an array (n, H, W) or (n, H, W, 3); of one they return the same without the first axis. Pictures
    that they return are float32 (n, H, W), in colour (n, H, W, 3), in 0..1. Latents are float32 (n, Z). Classes are
    named as in `classes`.
    """

    def __init__(self, folder, model="dist_reg", device=torch.device("cpu")):
        self.folder, self.model, self.device = Path(folder), model, device
        self.settings = storage.about_run(self.folder)
        storage.warn_of_changed_code(self.settings, self.folder)
        self.classes = tuple(self.settings["data"]["classes"])
        self.size, self.channels = (self.settings["data"][name] for name in ("size", "channels"))
        self.vae = load_vae(self.folder, model, device)
        self.summary = load_summary(self.folder / f"{model}_latents.npz")

    # --- pictures to latents and back

    def pictures(self, pictures):
        """The pictures as the networks see them: float32 (n, H, W) or (n, H, W, 3)."""
        return self._each(pictures, lambda x: x)

    def encode(self, pictures):
        """The mean latents mu (n, Z) of pictures."""
        return self._each(pictures, self._mu)

    def decode(self, z):
        """The pictures of latents (n, Z), or of one (Z,)."""
        z, dims = np.asarray(z, np.float32), self.summary.class_means.shape[1]
        if z.shape[-1:] != (dims,) or z.ndim > 2:
            raise UserError("z", f"latents (n, {dims})", f"shape {z.shape}", "take them from encode")
        x = decode(self.vae, np.atleast_2d(z), self.device).clip(0, 1)
        return x[0] if z.ndim == 1 else x

    # --- what the latent space is for

    def edit(self, pictures, to, amount=1.0, own=None, part="metric"):
        """The pictures with another class: z + amount (m_to - m_own), m: the mean latents of the training faces of a
        class.

        to: name of a class; own: that of the pictures (one name, or one each), None: what classify() says. part: which
        dimensions of z move, "metric": those that keep the metric, "rest" or "both".
        """
        def edited(x):
            names = [own] * len(x) if own is None or isinstance(own, str) else list(own)
            if own is None:
                names = [max(found, key=found.get) for found in self._classify(x)]
            if len(names) != len(x):
                raise UserError("own", f"one class, or {len(x)}, one a picture", names, "name as many")
            source = np.array([self._mean_of(name) for name in names])
            z, dims = self._mu(x), edit_dims(self.vae, self.model, part)
            z[:, dims] += amount * (self._mean_of(to) - source)[:, dims]
            return self.decode(z)
        return self._each(pictures, edited)

    def interpolate(self, a, b, steps=10, part="both"):
        """Pictures (steps, H, W) from one to another, in equal steps of z; part: which dimensions move, see edit."""
        (start, end), dims = self.encode([a, b]), edit_dims(self.vae, self.model, part)
        path = np.repeat(start[None], steps, 0)
        path[:, dims] = statistics.interpolate(start[None], end[None], steps)[0][:, dims]
        return self.decode(path)

    def sample(self, count, of=None, seed=0):
        """New pictures (count, H, W), from the density of the training faces' latents, of all classes or of one."""
        if of is not None:
            self._mean_of(of)
        return self.decode(self.summary.density.sample(count, None if of is None else self.classes.index(of), seed))

    def distances(self, pictures):
        """(n, n) latent distances, times the run's best scale, so that they are in the unit of the given metric."""
        z = self.encode(pictures)
        if z.ndim == 1:
            raise UserError("distances", "several pictures", "one", "give a list")
        z = z[:, metric_part(self.vae, self.model)]
        return self.summary.scale * statistics.euclidean(z)

    def nearest(self, picture, count=5):
        """The faces of the run's data that are Nearest to a picture, uint8 as they lie there.

        Raises UserError where that data is not there.
        """
        part, z = metric_part(self.vae, self.model), self.encode(picture)
        if z.ndim > 1 or count < 1:
            raise UserError("nearest", "one picture, and a count of at least 1",
                            f"{1 if z.ndim == 1 else len(z)} and {count}", "call it for each picture")
        distances = np.linalg.norm(self._mu_of_faces[:, part] - z[part], axis=1)
        rows = np.argsort(distances, kind="stable")[:count]
        return Nearest(rows, self.faces.images[rows], self.summary.scale * distances[rows])

    def classify(self, pictures):
        """The probabilities that the run's classifier gives to each class: {name: probability}, or a list of these.

        Raises UserError where the run has no classifier.
        """
        return self._each(pictures, self._classify)

    def export(self, folder):
        """Write encoder.onnx (x to mu and sigma), decoder.onnx (z to x) and, where the run has a classifier,
        classifier.onnx (x to probabilities) to a folder; x float32 (n, C, H, W) in 0..1, n is free. Returns the paths.

        Raises UserError where onnx and onnxscript are not installed.
        """
        try:
            importlib.import_module("onnx")
            importlib.import_module("onnxscript")
        except ImportError as error:
            raise UserError("export", "onnx and onnxscript, which it needs", error,
                            "pip install onnx onnxscript") from None
        x, z = torch.zeros(2, self.channels, self.size, self.size), torch.zeros(2, self.summary.class_means.shape[1])
        parts = {"encoder": (self.vae.encode, x, "x", ["mu", "sigma"]), "decoder": (self.vae.decode, z, "z", ["x"])}
        if (self.folder / "classifier.pt").exists():
            classifier = self._classifier
            parts["classifier"] = (lambda x: classifier(x).softmax(1), x, "x", ["probabilities"])
        make_folder(Path(folder))
        paths = []
        for name, (function, example, of, names) in parts.items():
            paths.append(Path(folder) / f"{name}.onnx")
            torch.onnx.export(_Call(function), (example.to(self.device),), paths[-1], input_names=[of],
                              output_names=names, dynamic_shapes=({0: torch.export.Dim("n")},), external_data=False,
                              dynamo=True, verbose=False)
        return paths

    # --- the run's own data

    @cached_property
    def faces(self):
        """The Faces that the run was trained on. Raises UserError where they are gone, or not the same."""
        of_script = self.settings.get("run") or self.settings["vae"]
        faces = load_faces(*(of_script[name] for name in ("DATA", "IMAGE_SIZE", "FOLD", "SEED")),
                           restored(self.settings["faces"]))
        storage.check_same_data(self.folder, faces.about())
        return faces

    @cached_property
    def _mu_of_faces(self):
        return encode(self.vae, self.faces, np.arange(len(self.faces)), self.device)[0]

    # --- inside

    def _each(self, pictures, function):
        """function of pictures as float arrays, of several, or of one as its only result."""
        if torch.is_tensor(pictures):
            pictures = pictures.numpy(force=True)
        stack = isinstance(pictures, np.ndarray) and (
            pictures.ndim == 4 or pictures.ndim == 3 and pictures.shape[2] not in CHANNELS
            and not (self.channels == 3 and pictures.shape[0] in CHANNELS))
        several = stack or not isinstance(pictures, (str, Path, Image.Image, np.ndarray))
        pictures = pictures if stack or not several else list(pictures)
        if several and not len(pictures):
            raise UserError("pictures", "at least one picture", "none", "give one")
        if stack:                                               # their values are scaled by the largest of all
            x = squares(pictures, self.size, "pictures", self.channels == 3)
        else:
            x = map(self._read, pictures if several else [pictures])
        result = function(np.stack(list(map(self._in_colour, x))) / np.float32(255))
        return result if several else result[0]

    def _in_colour(self, x):
        """A picture (H, W) or (H, W, 3), of a run in colour (H, W, 3)."""
        return np.repeat(x[..., None], 3, -1) if self.channels == 3 and x.ndim == 2 else x

    def _read(self, picture):
        """uint8 (H, W) of one picture, or of one in colour in a run in colour (H, W, 3)."""
        colour = self.channels == 3
        if isinstance(picture, (str, Path)):
            try:
                with Image.open(Path(picture).expanduser()) as image:
                    return square(image, self.size, colour)[0]
            except Exception as error:                          # Pillow raises half a dozen kinds here
                raise UserError(picture, "a picture that can be read", error, "check the path") from None
        if isinstance(picture, Image.Image):
            return square(picture, self.size, colour)[0]
        return squares(np.asarray(picture)[None], self.size, "picture", colour)[0]

    def _mu(self, x):
        with torch.no_grad():
            return self.vae.encode(self._tensor(x))[0].cpu().numpy()

    def _tensor(self, x):
        return as_channels(torch.from_numpy(x)).to(self.device)

    def _mean_of(self, name):
        """m of a class, (Z,)."""
        if not self.classes:
            raise UserError(f"class {name}", "a run whose faces have classes", "none has", "train with labelled faces")
        check_choice("class", name, self.classes)
        mean = self.summary.class_means[self.classes.index(name)]
        if not np.isfinite(mean).all():
            raise UserError(f"class {name}", "a class with training faces", "none", "choose another one")
        return mean

    def _classify(self, x):
        with torch.no_grad():
            probabilities = self._classifier(self._tensor(x)).softmax(1).cpu().numpy()
        return [dict(zip(self.classes, map(float, row))) for row in probabilities]

    @cached_property
    def _classifier(self):
        path = self.folder / "classifier.pt"
        if not path.exists():
            raise UserError(path, "the classifier of this run", "none: it was trained without one",
                            "name the pictures' class: edit(..., own=\"happy\")")
        try:                                                    # the VAE is also used without that package
            return importlib.import_module("expr_classifier.train").load_classifier(path, self.device)
        except ImportError as error:
            raise UserError("expr_classifier", "the package of the classifier beside metric_vae", error,
                            "name the pictures' class: edit(..., own=\"happy\")") from None
