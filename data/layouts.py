"""The layouts in which data sets of the field come, recognised by names of files and folders.

In: a folder. Out: which pictures it holds, with their classes, people and split, or None where it is none of these.
"""
import re
from dataclasses import dataclass

import numpy as np

from data.labels import EXPRESSIONS
from training.errors import UserError

NUMBERS = {                             # what numbered folders or labels mean
    "FER2013": dict(enumerate(EXPRESSIONS[:7])),
    "RAF-DB": dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"), start=1)),
    "AffectNet": dict(enumerate(("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")))}
PARTS = {                               # names of folders: the index of a part in SPLITS
    "train": 0, "training": 0, "train_set": 0, "training_set": 0,
    "val": 1, "valid": 1, "validation": 1, "val_set": 1, "validation_set": 1, "dev": 1, "eval": 1,
    "test": 2, "testing": 2, "test_set": 2}
AFFECTNET_PARTS = dict(train_set="train", val_set="val")
BRACKETS = tuple("[({\"'")              # with which no name of a class begins
RAF_LIST = "list_patition_label.txt"
CODES = dict(AN="anger", DI="disgust", FE="fear", AF="fear", HA="happy", NE="neutral", SA="sad", SU="surprise")
SHARE = 0.95                            # of the pictures in a folder must have the names of a data set
CK = re.compile(r"^((S\d{3})_\d{3})_\d{8}[._]", re.IGNORECASE)                 # sequence, person
CK_NUMBERS = dict(enumerate(("anger", "contempt", "disgust", "fear", "happy", "sad", "surprise"), start=1))
CK_FRAMES = 3                           # the last ones of a sequence are taken, as in CK+48
JAFFE = re.compile(r"^([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d+\.\d+\.tiff?$", re.IGNORECASE)     # person, expression
KDEF_ANGLES = ("S", "HL", "HR", "FL", "FR")
KDEF = re.compile(r"^[AB]([FM]\d\d)(AF|AN|DI|HA|NE|SA|SU)(FL|FR|HL|HR|S)\.jpe?g$", re.IGNORECASE)     # ..., angle


@dataclass
class Layout:
    """name: of the data set; files, a list of paths, with the name of each one's class, of its person (None: unknown)
    and of its part (train, val or test, or another name for it; None: to be drawn).
    """
    name: str
    files: list
    classes: list
    people: list | None = None
    parts: list | None = None


def names_of(text, numbers, where):
    """{number: name} for these numbers by CLASS_NAMES: a name in NUMBERS, or names with commas between.

    The first name is that of 0, or of 1 if there is no 0. Raises UserError where a number has no name.
    """
    where_set = f"{where}, CLASS_NAMES={text}"
    known = {name.lower(): named for name, named in NUMBERS.items()}
    names = [name.strip() for name in text.split(",")]
    if "" in names or any(name.startswith(BRACKETS) for name in names):
        raise UserError(where_set, "names with commas between, without brackets and quotes", repr(text),
                        'for example CLASS_NAMES="anger,disgust,fear"')
    first = 1 if min(numbers) >= 1 else 0
    named = known.get(text.strip().lower(), dict(enumerate(names, first)))
    unnamed = sorted(set(numbers) - set(named))
    if unnamed and len(names) == 1 and text.strip().lower() not in known:
        raise UserError(where_set, ", ".join(NUMBERS) + ", or names with commas between", "one other name",
                        "CLASS_NAMES=" + " or ".join(NUMBERS) + ', or CLASS_NAMES="anger,disgust,..."')
    if unnamed:
        raise UserError(where_set, f"a name for each number; there are {_listed(named)}",
                        "no name for " + ", ".join(map(str, unnamed[:8])),
                        f"give the names of all numbers from {first} to {max(numbers)}")
    named = {number: named[number] for number in sorted(set(numbers))}
    print(f"{where}: CLASS_NAMES: {_listed(named)}")
    return named


def _listed(named):
    return ", ".join(f"{number} {name}" for number, name in named.items())


def recognise(path, files, options):
    """The Layout of a folder with these image files in it and below it, or None. options: see data/options.py."""
    found = (_ck(path, files) or _jaffe(path, files) or _kdef(path, files, options.ANGLES) or _raf_db(path, files)
             or _affectnet_annotations(path, files))
    if found or options.CLASS_NAMES is not None:
        return found
    return _raf_db_folders(path, files) or _numbered(path, files, "AffectNet")


def _matching(name, pattern, path, files):
    """{file: match} of the files with names of this pattern, where at least SHARE of them have one; else none."""
    found = {file: match for file in files if (match := pattern.match(file.name))}
    if len(found) < SHARE * len(files):
        return {}
    _say_left_out(path, files, found, f"that are not named as {name}'s are")
    return found


def _say_left_out(path, files, taken, which):
    """Print how many of the files are not among those taken; which: what they are."""
    taken = set(taken)
    others = [file for file in files if file not in taken]
    if others:
        print(f"{path}: left out {len(others)} of {len(files)} files {which}, e.g. {others[0].relative_to(path)}")


def _ck(path, files):
    """CK+48: <expression>/S010_004_00000017.png, three frames a sequence."""
    found = _matching("CK+", CK, path, files)
    if found and all(re.fullmatch(r"\d{3}", file.parent.name) for file in found):
        return _ck_sequences(path, found)
    if found:
        return Layout("CK+", list(found), [file.parent.name for file in found],
                      [match[2].upper() for match in found.values()])


def _ck_sequences(path, found):
    """CK+ as its authors ship it: whole sequences, cohn-kanade-images/S005/001/S005_001_00000001.png, and for some of
    them a label, Emotion/S005/001/S005_001_00000011_emotion.txt. Their last CK_FRAMES frames are taken.
    """
    labels = {}
    for file in [*path.rglob("*_emotion.txt"), *(path.parent / "Emotion").rglob("*_emotion.txt")]:
        if CK.match(file.name):
            try:
                labels[CK.match(file.name)[1].upper()] = CK_NUMBERS[int(float(file.read_text()))]
            except (OSError, ValueError, KeyError) as error:
                raise UserError(file, "a number from 1 to 7", f"{type(error).__name__}: {error}", "get the file anew") \
                    from None
    frames = {}
    for file, match in found.items():
        frames.setdefault(match[1].upper(), []).append(file)
    labelled = sorted(set(frames) & set(labels))
    if not labelled:
        raise UserError(path.absolute(), "the labels of CK+: Emotion/S005/001/S005_001_00000011_emotion.txt, ...",
                        f"none for {len(frames)} sequences",
                        "unpack them too, and give the folder that holds cohn-kanade-images and Emotion")
    taken = [(file, sequence) for sequence in labelled
             for file in sorted(frames[sequence], key=lambda file: file.name)[-CK_FRAMES:]]
    print(f"{path}: CK+: took the last {CK_FRAMES} frames of each of the {len(labelled)} sequences with a label, of "
          f"{len(frames)}")
    return Layout("CK+", [file for file, _ in taken], [labels[sequence] for _, sequence in taken],
                  [sequence[:4] for _, sequence in taken])


def _jaffe(path, files):
    """JAFFE: KA.AN1.39.tiff."""
    found = _matching("JAFFE", JAFFE, path, files)
    if found:
        return _coded("JAFFE", found)


def _kdef(path, files, angles):
    """KDEF: AF01/AF01ANS.JPG: session, person, expression, angle."""
    found = _matching("KDEF", KDEF, path, files)
    if found:
        wanted = check_angles(angles)
        taken = {file: match for file, match in found.items() if match[3].upper() in wanted}
        print(f"{path}: KDEF: took {len(taken)} of {len(found)} pictures: ANGLES={angles}")
        return _coded("KDEF", taken)


def _coded(name, found):
    """The Layout of {file: match} whose groups are the person and one of CODES."""
    return Layout(name, list(found), [CODES[match[2].upper()] for match in found.values()],
                  [match[1].upper() for match in found.values()])


def check_angles(angles):
    """The set of angles that ANGLES names. Raises UserError for one that KDEF does not have."""
    wanted = {angle.strip().upper() for angle in angles.split(",")}
    if not wanted <= set(KDEF_ANGLES):
        raise UserError(f"ANGLES={angles}", "some of " + ",".join(KDEF_ANGLES), repr(angles), "ANGLES=S,HL,HR")
    return wanted


def _raf_db(path, files):
    """RAF-DB as its authors ship it: Image/aligned/train_00001_aligned.jpg, EmoLabel/list_patition_label.txt."""
    places = [folder / below / RAF_LIST for folder in (path, path.parent) for below in ("EmoLabel", "")]
    listed = next((file for file in places if file.exists()), None)
    if listed is None:
        return None
    expected, remedy = "lines of a file's name and 1 to 7: train_00001.jpg 5", "get the file anew"
    try:
        lines = [line.split() for line in listed.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(listed, expected, error, remedy) from None
    numbers = {str(number): name for number, name in NUMBERS["RAF-DB"].items()}
    names = {line[0]: numbers[line[1]] for line in lines if len(line) == 2 and line[1] in numbers}
    listed_as = {file: file.name.replace("_aligned", "") for file in files}
    known = [file for file in files if listed_as[file] in names]
    if not known:
        raise UserError(listed, expected, f"none of the {len(files)} pictures of {path}", remedy)
    if len(known) < len(files):
        print(f"{path}: left out {len(files) - len(known)} of {len(files)} pictures that are not in {RAF_LIST}")
    aligned = {listed_as[file] for file in known if file.name != listed_as[file]}
    taken = [file for file in known if file.name != listed_as[file] or file.name not in aligned]
    if len(taken) < len(known):
        print(f"{path}: left out {len(known) - len(taken)} original pictures that are there aligned, too")
    return Layout("RAF-DB", taken, [names[listed_as[file]] for file in taken], None,
                  ["test" if file.name.startswith("test") else "train" for file in taken])


def _raf_db_folders(path, files):
    """RAF-DB as on Kaggle: DATASET/train/1..7 with train_labels.csv beside DATASET or in it."""
    if any((folder / "train_labels.csv").is_file() for folder in (path, path.parent)):
        return _numbered(path, files, "RAF-DB")


def _affectnet_annotations(path, files):
    """AffectNet as its authors ship it: train_set/images/5.jpg, train_set/annotations/5_exp.npy with its number."""
    folders = {folder for folder in {file.parent for file in files} if folder.name == "images"
               and folder.parent.name in AFFECTNET_PARTS and (folder.parent / "annotations").is_dir()}
    pictures = [file for file in files if file.parent in folders]
    if not pictures or len(pictures) < SHARE * len(files):
        return None
    labels = {}
    for file in pictures:
        annotation = file.parent.parent / "annotations" / f"{file.stem}_exp.npy"
        if annotation.is_file():
            try:
                labels[file] = NUMBERS["AffectNet"][int(np.load(annotation, allow_pickle=False).item())]
            except Exception as error:                              # numpy raises half a dozen kinds here
                raise UserError(annotation, "a number from 0 to 7, as numpy saves it",
                                f"{type(error).__name__}: {error}", "get the file anew, or remove it") from None
    if not labels:
        raise UserError(path.absolute(), "annotations/5_exp.npy for images/5.jpg", f"none for {len(files)} pictures",
                        "unpack the annotations too")
    if len(labels) < len(files):
        print(f"{path}: left out {len(files) - len(labels)} of {len(files)} pictures without annotations/*_exp.npy")
    return Layout("AffectNet", list(labels), list(labels.values()), None,
                  [AFFECTNET_PARTS[file.parent.parent.name] for file in labels])


def _numbered(path, files, name):
    """part/number/*, with exactly the numbers of the data set of this name."""
    places = {file: file.relative_to(path).parts for file in files}
    numbers = {str(number): named for number, named in NUMBERS[name].items()}
    fits = {file: len(place) == 3 and place[0].lower() in PARTS for file, place in places.items()}
    taken = [file for file in files if fits[file]]
    if len(taken) < SHARE * len(files) or {places[file][1] for file in taken} != set(numbers):
        return None
    _say_left_out(path, files, taken, "outside the folders of classes")
    return Layout(name, taken, [numbers[places[file][1]] for file in taken], None,
                  [places[file][0].lower() for file in taken])
