"""Faces that are image files in folders named after their classes (FER2013 in folders, RAF-DB, AffectNet, CK+, ...).

In: a folder with train|val|test/<class>/*, with only <class>/*, or with pictures alone, which are unlabelled; or a
folder that holds just one such. Out: Faces, in the order of the paths.
"""
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

from data import arrays, fer2013, tfd
from data.faces import checked
from data.labels import EXPRESSIONS, class_name
from data.layouts import NUMBERS, PARTS, Layout, names_of, recognise
from data.pixels import read_pictures
from data.splits import draw_missing_parts
from training.errors import UserError

ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".rar", ".7z")
TEXTS = ("readme", "license")            # files without an ending
HIDDEN = (".", "__")                    # folders that begin so are not read
NO_IMAGES = (".txt", ".csv", ".json", ".md", ".db", ".ini", ".html", ".xml", ".pdf", ".py", ".mat", ".npy", ".npz",
             ".pts", ".pkl", *ARCHIVES)


def load(path, image_size, seed, options):
    """Faces of image files of any size, format and colour, made square and image_size pixels large, and grey unless
    COLOUR is set.

    Where there is no val or no test folder it is drawn from train, a tenth of it, stratified, from the seed; where
    there is none of the three the whole split is drawn. Files that cannot be read and faces of one grey level are
    left out with a count. options: see data/options.py.
    Raises UserError for a numbered folder that CLASS_NAMES does not explain, where no images or no train are, and where
    the folders of classes lie deeper.
    """
    path = Path(path)
    if not path.is_dir():
        archive = path.suffix.lower() in ARCHIVES
        raise UserError(path.absolute(), "a folder, .npz, images.npy, .csv or .mat",
                        "an archive" if archive else "a file of another kind",
                        "unpack it and give the folder" if archive else "data/README.md lists what can be read")
    path = _descend(path)
    pictures = [file for file in _files(path) if _may_be_image(file, path)]
    if not any(file.suffix for file in pictures):
        _refuse_data_set_inside(path)
    layout = recognise(path, pictures, options)
    if layout is None:
        layout = _by_folders(path, pictures, options.CLASS_NAMES)
    else:
        print(f"{path}: recognised as {layout.name}")
        if options.CLASS_NAMES is not None:
            print(f"warning: CLASS_NAMES={options.CLASS_NAMES} has no effect: {layout.name} has its own names")
    if options.IDENTITY_PATTERN is not None:
        layout.people = _people(path, layout.files, options.IDENTITY_PATTERN)
    images, read = read_pictures(Image.open, layout.files, image_size, path, options.COLOUR)
    labels = np.array([class_name(name) or "" for name in layout.classes])[read]
    unread = set(layout.classes) - set(np.array(layout.classes)[read])
    if unread:
        print(f"warning: {path}: no picture could be read in {', '.join(sorted(unread))}: no such classes")
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
    files = [layout.files[row].relative_to(path).as_posix() for row in np.flatnonzero(read)]
    return checked(images, labels, people, split, layout.name, path, seed, drop_flat=True, files=files)


def _descend(path, above=()):
    """The folder itself, or if it holds no pictures and only one folder, in which there are folders, that one."""
    inside, above = _folders(path), (*above, path.resolve())
    if len(inside) == 1 and inside[0].name.lower() not in PARTS and inside[0].resolve() not in above and (
            _folders(inside[0]) and not any(_may_be_image(file, path) for file in entries(path))):
        print(f"{path}: using its folder {inside[0].name}/")
        return _descend(inside[0], above)
    return path


def _files(folder, above=()):
    """The files in a folder and in those below it, sorted. Links are followed, but not in circles."""
    real = folder.resolve()
    if real in above:
        return []
    files = []
    for entry in entries(folder):
        files += _files(entry, (*above, real)) if entry.is_dir() else [entry]
    return files


def entries(folder):
    """What is in a folder, sorted. Raises UserError where it may not be read."""
    try:
        if not os.access(folder, os.X_OK):                      # its files have names, and cannot be opened
            raise PermissionError(13, "Permission denied")
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(folder.absolute(), "a folder that can be read", error.strerror,
                        "change its permissions, or move it away") from None


def _refuse_data_set_inside(path):
    """Raise UserError where a folder holds what another source reads, for example Kaggle's train.csv."""
    for entry in entries(path):
        if entry.is_dir() or entry.suffix.lower() in (".npz", ".mat"):
            found = any(source.found(entry) for source in (tfd, fer2013, arrays))
        else:
            found = entry.is_file() and fer2013.has_header(entry)
        if found:
            raise UserError(path.absolute(), "image files in folders named after their classes", entry.name,
                            f"give the path of {entry.name}: {entry.absolute()}")


def _by_folders(path, pictures, class_names):
    """The Layout of part/class/*, of only class/*, or of pictures without folders, which are unlabelled."""
    folders = _folders(path)
    parts = _parts(path, folders, pictures)
    tops = list(parts) or [path]
    inside = {folder: [] for top in tops for folder in _folders(top)}           # a class each: its pictures
    for file in pictures:
        for folder in file.parents:
            if folder in inside:
                inside[folder].append(file)
    empty = {folder.name for folder, of_class in inside.items() if not of_class}
    inside = {folder: of_class for folder, of_class in inside.items() if of_class}
    empty -= {folder.name for folder in inside}                 # of other parts
    if inside and empty:
        print(f"warning: {path}: no pictures in {', '.join(sorted(empty))}: no such classes")
    _refuse_deeper_classes(path, inside)
    files = [file for of_class in inside.values() for file in of_class]
    names = _names(path, list(inside), class_names)
    classes = [names[folder] for folder, of_class in inside.items() for _ in of_class]
    of_parts = [parts.get(folder.parent) for folder, of_class in inside.items() for _ in of_class]
    if not files:
        files = [file for top in tops for file in pictures if file.parent == top]
        classes, of_parts = ["unlabelled"] * len(files), [parts.get(file.parent) for file in files]
        if files:
            print(f"{path}: no folders of classes: {len(files)} pictures without labels")
    if not files:
        raise UserError(path.absolute(), "image files in folders named after their classes",
                        f"{', '.join(file.name for file in entries(path)[:6]) or 'an empty folder'}",
                        "give the folder that holds train/, val/ and test/, or angry/, happy/, ...; unpack archives; "
                        "or save an .npz of arrays (data/README.md)")
    _warn_of_unread(path, pictures, files, tops, [folder.name for folder in folders if parts and folder not in parts])
    return Layout(path.resolve().name, files, classes, None, of_parts if parts else None)


def _parts(path, folders, pictures):
    """{folder: its name} of those named train, val, test, ...; none where these are classes (car, bus, train): they
    hold no folders, and others beside them hold pictures.
    """
    parts = {folder: folder.name.lower() for folder in folders if folder.name.lower() in PARTS}
    with_pictures = {file.parent for file in pictures}
    others = [folder.name for folder in folders if folder not in parts and folder in with_pictures]
    if parts and others and not any(_folders(folder) for folder in parts):
        print(f"warning: {path}: {', '.join(folder.name for folder in parts)}: a class like {others[0]}, not a part of "
              "the split, since it holds pictures and no folders")
        return {}
    return parts


def _refuse_deeper_classes(path, inside):
    """Raise UserError where folders hold train/<class>/, or nothing but folders of expressions: they are no classes.

    inside: {folder: the pictures in it and below it}.
    """
    of_expressions = {}
    for folder, pictures in inside.items():
        below = sorted({file.parent.relative_to(folder).parts for file in pictures})
        for names in below:
            part = next((place for place, name in enumerate(names) if name.lower() in PARTS), None)
            if part is not None and part < len(names) - 1:
                raise UserError(path.absolute(), "folders of classes, or train/, val/ and test/ with these in them",
                                "/".join((folder.name, *names)), f"give {folder.joinpath(*names[:part]).absolute()}; "
                                f"or if {folder.name} is a class, give {names[part]} another name")
            if part is not None:
                print(f"warning: {path}: {'/'.join((folder.name, *names))} is not taken for a part: "
                      f"name it {names[part]}/{folder.name} if it is one")
        if class_name(folder.name) not in EXPRESSIONS and all(
                names and class_name(names[-1]) in EXPRESSIONS for names in below):
            of_expressions[folder] = below[0][-1]
    if of_expressions:
        folder, name = next(iter(of_expressions.items()))
        raise UserError(path.absolute(), "folders named after their classes",
                        f"folders of expressions in {folder.relative_to(path)}/, which would be a class",
                        f"give {folder.absolute()}" if len(of_expressions) == 1 else
                        f"classes first: rename {folder.name}/{name} to {name}/{folder.name}, and so on; where "
                        f'{folder.name} is a person, add IDENTITY_PATTERN="([^/]+)/[^/]+$"')


def _warn_of_unread(path, pictures, files, tops, beside_parts):
    """Print how many pictures are in no folder of a class, or in a hidden one where those of classes are."""
    files = set(files)
    unread = [file for file in pictures if file not in files]
    for top in {path, *tops}:
        for hidden in entries(top):
            if hidden.is_dir() and hidden.name.startswith(HIDDEN):
                unread += [file for file in _files(hidden) if _may_be_image(file, hidden)
                           and file.suffix.lower() in Image.registered_extensions()]
    if unread or beside_parts:
        print(f"warning: {path}: not read: {len(unread)} files outside the folders of classes"
              + (f", e.g. {unread[0].relative_to(path)}" if unread else "")
              + (f"; folders next to train: {', '.join(beside_parts)}" if beside_parts else ""))


def _folders(path):
    """The folders in a folder, sorted, without hidden ones."""
    return [folder for folder in entries(path) if folder.is_dir() and not folder.name.startswith(HIDDEN)]


def _may_be_image(file, top):
    """Whether a file below the folder top is worth a try: not hidden, and not plainly something else. Links that lead
    nowhere are: they count as unreadable.
    """
    above = file.relative_to(top).parts[:-1]
    hidden = file.name.startswith(".") or any(name.startswith(HIDDEN) for name in above)
    other = file.suffix.lower() in NO_IMAGES or file.name.lower() in TEXTS
    return not hidden and not other and (file.is_file() or not file.exists())


def _names(path, folders, class_names):
    """{folder: name of its class}: its name, or what its number means; the same for names that differ in letter case
    alone.
    """
    numbered = [folder for folder in folders if folder.name.isdecimal()]
    if numbered and class_names is None:
        raise UserError(numbered[0].absolute(), "folders named after their classes",
                        "numbers, which mean other classes in each data set",
                        "say which: CLASS_NAMES=" + " or ".join(NUMBERS) + ', or CLASS_NAMES="anger,disgust,..."')
    if not numbered and class_names is not None:
        print(f"warning: {path}: CLASS_NAMES={class_names} has no effect: no folder is a number")
    named = names_of(class_names, [int(folder.name) for folder in numbered], numbered[0].parent) if numbered else {}
    names, spelt = {}, {}
    for folder in folders:
        name = unicodedata.normalize("NFC", named[int(folder.name)] if folder in numbered else folder.name)
        spellings = spelt.setdefault(name.casefold(), [])       # a Mac may write an accent as a letter of its own
        if name not in spellings:
            spellings.append(name)
        names[folder] = spellings[0]
    for spellings in spelt.values():
        if len(set(map(class_name, spellings))) > 1:
            print(f"{path}: taken as one class: {', '.join(spellings)}")
    return names


def _people(path, files, pattern):
    """The name of the person in each file, by IDENTITY_PATTERN, None where it does not match."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"IDENTITY_PATTERN={pattern}", "a regular expression", error,
                        r'for example "^(S\d+)_"') from None
    found = [compiled.search(file.name) or compiled.search(file.relative_to(path).as_posix()) for file in files]
    people = [match and match[min(1, compiled.groups)] for match in found]
    missing = [file for file, person in zip(files, people) if person is None]
    if len(missing) == len(files):
        raise UserError(f"IDENTITY_PATTERN={pattern}", "a pattern in names of files", f"none in {len(files)}, e.g. "
                        f"{files[0].relative_to(path)}", r'for example "^(S\d+)_" for S010_1.png')
    print(f"{path}: {len(set(people) - {None})} people, by IDENTITY_PATTERN"
          + (f"; {len(missing)} files without, e.g. {missing[0].relative_to(path)}" if missing else ""))
    return people
