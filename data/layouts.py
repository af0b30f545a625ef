"""The layouts in which data sets of the field come, recognised by names of files and folders.

In: a folder. Out: which pictures it holds, with their classes, people and split, or None where it is none of these.
"""
import re
from dataclasses import dataclass

NUMBERS = {                             # what numbered folders or labels mean
    "RAF-DB": dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"), start=1)),
    "AffectNet": dict(enumerate(("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")))}
CODES = dict(AN="anger", DI="disgust", FE="fear", AF="fear", HA="happy", NE="neutral", SA="sad", SU="surprise")
CK = re.compile(r"^(S\d{3})_\d{3}_\d{8}\.", re.IGNORECASE)                      # person, sequence, frame
JAFFE = re.compile(r"^([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d+\.\d+\.tiff?$", re.IGNORECASE)     # person, expression
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


def recognise(path, files):
    """The Layout of a folder with these image files in it and below it, or None."""
    for layout in (_ck, _jaffe, _kdef, _raf_db, _raf_db_folders, _affectnet):
        found = layout(path, files)
        if found:
            return found


def _all_match(pattern, files):
    return len(files) > 0 and all(pattern.match(file.name) for file in files)


def _ck(path, files):
    """CK+48: <expression>/S010_004_00000017.png, three frames a sequence."""
    if _all_match(CK, files):
        return Layout("CK+", files, [file.parent.name for file in files],
                      [CK.match(file.name)[1].upper() for file in files])


def _jaffe(path, files):
    """JAFFE: KA.AN1.39.tiff."""
    if _all_match(JAFFE, files):
        found = [JAFFE.match(file.name) for file in files]
        return Layout("JAFFE", files, [CODES[match[2].upper()] for match in found],
                      [match[1].upper() for match in found])


def _kdef(path, files):
    """KDEF: AF01/AF01ANS.JPG: session, person, expression, angle; straight views only."""
    if _all_match(KDEF, files):
        straight = [file for file in files if KDEF.match(file.name)[3].upper() == "S"]
        print(f"{path}: KDEF: took {len(straight)} straight views of {len(files)} pictures")
        found = [KDEF.match(file.name) for file in straight]
        return Layout("KDEF", straight, [CODES[match[2].upper()] for match in found],
                      [match[1].upper() for match in found])


def _raf_db(path, files):
    """RAF-DB as its authors ship it: Image/aligned/train_00001_aligned.jpg, EmoLabel/list_patition_label.txt."""
    listed = next((file for file in (path / "EmoLabel" / "list_patition_label.txt", path / "list_patition_label.txt")
                   if file.is_file()), None)
    if listed is None:
        return None
    numbers = dict(line.split()[:2] for line in listed.read_text().splitlines() if len(line.split()) >= 2)
    named = {file: file.name.replace("_aligned", "") for file in files}
    known = [file for file in files if named[file] in numbers and numbers[named[file]] in "1234567"]
    if known:
        return Layout("RAF-DB", known, [NUMBERS["RAF-DB"][int(numbers[named[file]])] for file in known], None,
                      ["test" if named[file].startswith("test") else "train" for file in known])


def _raf_db_folders(path, files):
    """RAF-DB as on Kaggle: DATASET/train/1..7 with train_labels.csv beside DATASET or in it."""
    if any((folder / "train_labels.csv").is_file() for folder in (path, path.parent)):
        return _numbered(path, files, "RAF-DB", {"train", "test"})


def _affectnet(path, files):
    """AffectNet: train and val with folders 0..7."""
    return _numbered(path, files, "AffectNet", {"train", "val"})


def _numbered(path, files, name, parts):
    """part/number/*, with exactly the numbers of the data set of this name."""
    places = [file.relative_to(path).parts for file in files]
    numbers = {str(number) for number in NUMBERS[name]}
    if all(len(place) == 3 and place[0] in parts for place in places) and {place[1] for place in places} == numbers:
        return Layout(name, files, [NUMBERS[name][int(place[1])] for place in places], None,
                      [place[0] for place in places])
