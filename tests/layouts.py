"""Small files in the layouts that users have, for the tests of several sources."""
from dataclasses import replace

import numpy as np
from PIL import Image

from data import options
from data.faces import Faces
from training.settings import default_settings

NAMES = ("angry", "disgusted", "Fear", "happiness", "sad", "Surprise", "neutral")      # as folders may be called

USAGES = ["Training"] * 5 + ["PublicTest", "PrivateTest"]


def fer_rows(images):
    """(emotion, pixels, Usage) of each face, as in the public file; labels i % 7, a seventh of the faces val, test."""
    return [(str(i % 7), " ".join(map(str, image.ravel())), USAGES[i // 7 % 7]) for i, image in enumerate(images)]


def write_fer(path, rows):
    with open(path, "w", newline="") as file:
        file.write("emotion,pixels,Usage\n")
        file.writelines(f"{emotion},{pixels},{usage}\n" for emotion, pixels, usage in rows)
    return path


def write_folder(path, images, parts=("train", "val", "test"), names=NAMES):
    """PNGs path/part/name/n.png: persons 0..7 in the first part, 8 in the second, 9 in the third; label n % 7."""
    for n, image in enumerate(images):
        part = parts[max(n // 7 - 7, 0)] if parts else "."
        (path / part / names[n % 7]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / part / names[n % 7] / f"{n:03d}.png")
    return path


def save_arrays(path, **content):
    for name, array in content.items():
        np.save(path / f"{name}.npy", array)
    return path


def memory_mapped(faces, path):
    """These faces, their images read from path, an .npy."""
    np.save(path, faces.images)
    return Faces(np.load(path, mmap_mode="r"), faces.labels, faces.identities, faces.split, faces.name)


def loaded(source, path, size=48, seed=0, **changes):
    """Faces of a path, by one of the sources in data/, with these constants of data/options.py."""
    return source.load(path, size, seed, replace(default_settings(options), **changes))
