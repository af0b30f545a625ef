"""The figure of a user's own pictures: what the networks see of them, their edits, and the way from one to the other.

In: a Space, paths of pictures. Out: a PNG.
"""
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from data.crops import face_box
from data.figures import DPI, LETTER, MOST, save
from training.errors import UserError

AMOUNTS = (0.5, 1.0, 1.5)       # of an edit
SCALE = 2                       # pixels of the figure for each of a face
GAP, LINE, LABEL = 6, 16, 84    # pixels between faces, of a line of text, and left of a row
PHOTOGRAPH = 200                # pixels of the longer side of a photograph


def open_pictures(paths, crops=None):
    """(name, Pillow image, box, how) of each path: see face_box. crops: one each, or one for all, or None.

    Raises UserError for what is no picture, and for other than one or two.
    """
    crops = crops or [None]
    if len(paths) > 2 or len(crops) not in (1, len(paths)):
        raise UserError("PICTURE", "one picture, or two with a comma between, and CROP for all or each",
                        f"{len(paths)} pictures, {len(crops)} crops", "PICTURE=me.jpg,you.jpg")
    opened = []
    for path, crop in zip(map(Path, paths), crops * (len(paths) // len(crops))):
        try:
            with Image.open(path.expanduser()) as image:
                image = ImageOps.exif_transpose(image).convert("RGB")
        except Exception as error:                              # Pillow raises half a dozen kinds here
            raise UserError(f"PICTURE={path}", "a picture", error, "check the path") from None
        opened.append((path.name, image, *face_box(image, crop)))
    return opened


def draw(path, space, opened, steps=10):
    """Draw the figure of pictures from open_pictures in a Space; of two also their interpolation.

    A picture has a row of photograph, input and reconstruction, and a row for each of AMOUNTS with its edits to every
    class (of more than MOST, to the most probable ones), above which its probability stands. Without a classifier there
    are no edits.
    """
    faces = [image.crop(box) for _, image, box, _ in opened]
    x, x_hat = space.pictures(faces), space.decode(space.encode(faces))
    side = space.size * SCALE
    has_classifier = (space.folder / "classifier.pt").exists()
    sheet = _Sheet(side)
    for k, (name, image, box, how) in enumerate(opened):
        sheet.text(f"{name}: {how}", weight="bold")
        sheet.photograph(image, box, [(x[k], "as the network\nsees it"), (x_hat[k], "recon-\nstruction")])
        if has_classifier:
            found = space.classify(faces[k])
            own = max(found, key=found.get)
            possible = np.isfinite(space.summary.class_means).all(1)
            probable = sorted((name for name, there in zip(space.classes, possible) if there), key=found.get)[-MOST:]
            shown = [name for name in space.classes if name in probable]
            sheet.text(f"edits, z - m({own}) + m(class); above, the probability of each class for the picture itself")
            for amount in AMOUNTS:
                above = [f"{to}\n{found[to]:.0%}" if amount == AMOUNTS[0] else "" for to in shown]
                edits = [space.edit(faces[k], to, amount, own) for to in shown]
                sheet.faces(list(zip(edits, above)), f"amount {amount:g}")
    if len(opened) == 2:
        sheet.text(f"from {opened[0][0]} to {opened[1][0]}")
        for part, label in (("metric", "metric part\nof z"), ("both", "all of z")):
            between = space.interpolate(*faces, steps, part)
            sheet.faces([(face, "") for face in between], label)
    sheet.save(path)


class _Sheet:
    """Rows of faces, one below the other, each pixel of a face SCALE x SCALE pixels of the figure."""

    def __init__(self, side):
        self.side, self.y, self.width = side, GAP, 0
        self.images, self.texts = [], []        # (x, y, width, height, pixels, box or None); (x, y, words, style)

    def text(self, words, **style):
        self.y += 2 * GAP
        self.texts.append((GAP, self.y, words, dict(va="top", fontsize=9, **style)))
        self.width = max(self.width, int(LETTER * len(words)))
        self.y += LINE + GAP

    def photograph(self, image, box, row):
        """A photograph with its box, and on its right a row of faces."""
        scale = PHOTOGRAPH / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        self.images.append((GAP, self.y, width, height, np.asarray(image.resize((width, height))),
                            [corner * scale for corner in box]))
        bottom = self.y + height + GAP
        self.faces(row, left=width + 3 * GAP)
        self.y = max(self.y, bottom)

    def faces(self, row, label="", left=LABEL):
        """A row of (face, words above it)."""
        self.y += LINE * max(words.count("\n") + 1 if words else 0 for _, words in row)
        self.texts.append((GAP, self.y + self.side / 2, label, dict(va="center", fontsize=8)))
        for k, (face, words) in enumerate(row):
            x = left + k * (self.side + GAP)
            self.images.append((x, self.y, self.side, self.side, face, None))
            self.texts.append((x + self.side / 2, self.y - 2, words, dict(va="bottom", ha="center", fontsize=8)))
        self.width = max(self.width, left + len(row) * (self.side + GAP))
        self.y += self.side + GAP

    def save(self, path):
        width, height = self.width + GAP, self.y
        figure = Figure((width / DPI, height / DPI), dpi=DPI)
        for x, y, w, h, pixels, box in self.images:
            axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1 if pixels.dtype.kind == "f" else 255,
                        interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            if box is not None:
                left, top, right, bottom = box
                axes.add_patch(Rectangle((left - .5, top - .5), right - left, bottom - top, fill=False,
                                         edgecolor="#D55E00", linewidth=2))
        for x, y, words, style in self.texts:
            figure.text(x / width, 1 - y / height, words, **style)
        save(figure, path)
