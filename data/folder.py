"""Faces that are image files in folders named after their classes (FER2013 in folders, RAF-DB, AffectNet, CK+, ...).

In: a folder with train|val|test/<class>/*, with only <class>/*, or with pictures alone, which are unlabelled; or a
folder that holds just one such. Out: Faces, in the order of the paths.
"""
import re
from pathlib import Path

import numpy as np
from PIL import Image

from data.faces import checked, class_name
from data.splits import draw_missing_parts
from data.layouts import NUMBERS, PARTS, Layout, names_of, recognise
from data.pixels import read_pictures
from training.errors import UserError

ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".rar", ".7z")
NO_IMAGES = (".txt", ".csv", ".json", ".md", ".db", ".ini", ".html", ".xml", ".pdf", ".py", ".mat", ".npy", ".npz",
             ".pts", ".pkl", *ARCHIVES)


def load(path, image_size, seed, options):
    """Faces of image files of any size, format and colour, made square and image_size pixels large, and grey unless
    COLOUR is set.

    Where there is no val or no test folder it is drawn from train, a tenth of it, stratified, from the seed; where
    there is none of the three the whole split is drawn. Files that cannot be read and faces of one grey level are
    left out with a count. options: see data/options.py.
    Raises UserError for a numbered folder that CLASS_NAMES does not explain, and where no images or no train are.
    """
    path = Path(path)
    if not path.is_dir():
        archive = path.suffix.lower() in ARCHIVES
        raise UserError(path.absolute(), "a folder, .npz, images.npy, .csv or .mat",
                        "an archive" if archive else "a file of another kind",
                        "unpack it and give the folder" if archive else "data/README.md lists what can be read")
    path = _descend(path)
    pictures = [file for file in _files(path) if _may_be_image(file)]
    layout = recognise(path, pictures, options)
    if layout is None:
        layout = _by_folders(path, pictures, options.CLASS_NAMES)
    else:
        print(f"{path}: recognised as {layout.name}")
    if options.IDENTITY_PATTERN is not None:
        layout.people = _people(path, layout.files, options.IDENTITY_PATTERN)
    images, read = read_pictures(Image.open, layout.files, image_size, path, options.COLOUR)
    labels = np.array([class_name(name) or "" for name in layout.classes])[read]
    people = np.full(len(labels), -1)
    if layout.people is not None:
        names = sorted({name for name in layout.people if name is not None})
        numbers = {None: -1} | {name: number for number, name in enumerate(names)}
        people = np.array([numbers[name] for name in layout.people])[read]
    split = None
    if layout.parts is not None:
        split = np.array([PARTS[part] for part in layout.parts])[read]
        if not (split == 0).any():
            raise UserError(path.absolute(), "a folder train with faces", "none",
                            "add one, or give a folder of classes without train, val and test")
        draw_missing_parts(np.unique(labels, return_inverse=True)[1], people, split, seed, path)
    return checked(images, labels, people, split, layout.name, path, seed, constant="leave out")


def _descend(path):
    """The folder itself, or if it holds no pictures and only one folder, in which there are folders, that one."""
    inside = _folders(path)
    if len(inside) == 1 and inside[0].name.lower() not in PARTS and not any(map(_may_be_image, _entries(path))) and (
            _folders(inside[0])):
        print(f"{path}: taken: {inside[0].name}/")
        return _descend(inside[0])
    return path


def _files(folder, above=()):
    """The files in a folder and in those below it, sorted. Links are followed, but not in circles."""
    real = folder.resolve()
    if real in above:
        return []
    files = []
    for entry in _entries(folder):
        files += _files(entry, (*above, real)) if entry.is_dir() else [entry]
    return files


def _entries(folder):
    """What is in a folder, sorted. Raises UserError where it may not be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(folder.absolute(), "a folder that can be read", error.strerror,
                        "change its permissions, or move it away") from None


def _by_folders(path, pictures, class_names):
    """The Layout of part/class/*, of only class/*, or of pictures without folders, which are unlabelled."""
    folders = _folders(path)
    parts = {folder: folder.name.lower() for folder in folders if folder.name.lower() in PARTS}
    tops = list(parts) or [path]
    inside = {folder: [] for top in tops for folder in _folders(top)}           # a class each: its pictures
    for file in pictures:
        for folder in file.parents:
            if folder in inside:
                inside[folder].append(file)
    files = [file for of_class in inside.values() for file in of_class]
    names = _names([folder for folder, of_class in inside.items() if of_class], class_names)
    classes = [names[folder] for folder, of_class in inside.items() for _ in of_class]
    of_parts = [parts.get(folder.parent) for folder, of_class in inside.items() for _ in of_class]
    stray = [file for file in pictures if file.parent in (path, *tops)]
    if not files and stray:
        files = [file for top in tops for file in stray if file.parent == top]
        classes, of_parts, stray = ["unlabelled"] * len(files), [parts.get(file.parent) for file in files], []
        print(f"{path}: no folders of classes: {len(files)} pictures without labels")
    if not files:
        raise UserError(path.absolute(), "image files in folders named after their classes",
                        f"{', '.join(sorted(file.name for file in path.iterdir())[:6]) or 'an empty folder'}",
                        "give the folder that holds train/, val/ and test/, or angry/, happy/, ...; unpack archives; "
                        "or save an .npz of arrays (data/README.md)")
    others = [folder.name for folder in folders if parts and folder not in parts]
    if stray or others:
        print(f"warning: {path}: not read: {len(stray)} files outside the folders of classes"
              + (f"; folders next to train: {', '.join(others)}" if others else ""))
    return Layout(path.resolve().name, files, classes, None, of_parts if parts else None)


def _folders(path):
    """The folders in a folder, sorted, without hidden ones."""
    return sorted(folder for folder in _entries(path) if folder.is_dir() and not folder.name.startswith((".", "__")))


def _may_be_image(file):
    """Whether a file is worth a try: not hidden, and not plainly something else."""
    hidden = any(part.startswith(".") for part in file.parts[-2:] if part != "..")
    return not hidden and file.suffix.lower() not in NO_IMAGES and file.is_file()


def _names(folders, class_names):
    """{folder: name of its class}: its name, or what its number means."""
    numbered = [folder for folder in folders if folder.name.isdecimal()]
    if numbered and class_names is None:
        raise UserError(numbered[0].absolute(), "folders named after their classes",
                        "numbers, which mean other classes in each data set",
                        "say which: CLASS_NAMES=" + " or ".join(NUMBERS) + ', or CLASS_NAMES="anger,disgust,..."')
    named = names_of(class_names, [int(folder.name) for folder in numbered], numbered[0].parent) if numbered else {}
    return {folder: named[int(folder.name)] if folder in numbered else folder.name for folder in folders}


def _people(path, files, pattern):
    """The name of the person in each file, by IDENTITY_PATTERN, None where it does not match."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"IDENTITY_PATTERN={pattern}", "a regular expression", error, r'for example "^(S\d+)_"') from None
    found = [compiled.search(file.name) or compiled.search(file.relative_to(path).as_posix()) for file in files]
    people = [match and match[min(1, compiled.groups)] for match in found]
    missing = [file for file, person in zip(files, people) if person is None]
    if len(missing) == len(files):
        raise UserError(f"IDENTITY_PATTERN={pattern}", "a pattern in names of files", f"none in {len(files)}, e.g. "
                        f"{files[0].relative_to(path)}", r'for example "^(S\d+)_" for S010_1.png')
    print(f"{path}: {len(set(people) - {None})} people, by IDENTITY_PATTERN"
          + (f"; {len(missing)} files without, e.g. {missing[0].relative_to(path)}" if missing else ""))
    return people
