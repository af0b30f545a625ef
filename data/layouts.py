"""The layouts in which data sets of the field come, recognised by names of files and folders.

In: a folder. Out: which pictures it holds, with their classes, people and split, or None where it is none of these.
"""
import re
from dataclasses import dataclass

from data.faces import EXPRESSIONS
from training.errors import UserError

NUMBERS = {                             # what numbered folders or labels mean
    "FER2013": dict(enumerate(EXPRESSIONS[:7])),
    "RAF-DB": dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"), start=1)),
    "AffectNet": dict(enumerate(("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")))}
RAF_LIST = "list_patition_label.txt"
CODES = dict(AN="anger", DI="disgust", FE="fear", AF="fear", HA="happy", NE="neutral", SA="sad", SU="surprise")
CK = re.compile(r"^(S\d{3})_\d{3}_\d{8}\.", re.IGNORECASE)                      # person, sequence, frame
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

    Raises UserError where a number has no name.
    """
    known = {name.lower(): named for name, named in NUMBERS.items()}
    names = [name.strip() for name in text.split(",")]
    first = 1 if min(numbers) == 1 and max(numbers) == len(names) else 0
    named = known.get(text.strip().lower(), dict(enumerate(names, first)))
    unnamed = sorted(set(numbers) - set(named))
    if unnamed:
        raise UserError(where, "numbers that CLASS_NAMES names: " + ", ".join(f"{k} {v}" for k, v in named.items()),
                        ", ".join(map(str, unnamed[:8])), "name them all, or LEFT_OUT")
    return {number: named[number] for number in numbers}


def recognise(path, files, options):
    """The Layout of a folder with these image files in it and below it, or None. options: see data/options.py."""
    layouts = [_ck, _jaffe, lambda path, files: _kdef(path, files, options.ANGLES), _raf_db]
    if options.CLASS_NAMES is None:
        layouts += [_raf_db_folders, _affectnet]
    for layout in layouts:
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


def _kdef(path, files, angles):
    """KDEF: AF01/AF01ANS.JPG: session, person, expression, angle."""
    if _all_match(KDEF, files):
        wanted = {angle.strip().upper() for angle in angles.split(",")}
        if not wanted <= set(KDEF_ANGLES):
            raise UserError(f"ANGLES={angles}", "some of " + ",".join(KDEF_ANGLES), angles, "ANGLES=S,HL,HR")
        taken = [file for file in files if KDEF.match(file.name)[3].upper() in wanted]
        print(f"{path}: KDEF: took {len(taken)} of {len(files)} pictures: ANGLES={angles}")
        found = [KDEF.match(file.name) for file in taken]
        return Layout("KDEF", taken, [CODES[match[2].upper()] for match in found],
                      [match[1].upper() for match in found])


def _raf_db(path, files):
    """RAF-DB as its authors ship it: Image/aligned/train_00001_aligned.jpg, EmoLabel/list_patition_label.txt."""
    listed = next((file for file in (path / "EmoLabel" / RAF_LIST, path / RAF_LIST) if file.exists()), None)
    if listed is None:
        return None
    expected, remedy = "lines of a file's name and 1 to 7: train_00001.jpg 5", "get the file anew"
    try:
        lines = [line.split() for line in listed.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(listed, expected, error, remedy) from None
    names = {line[0]: NUMBERS["RAF-DB"][int(line[1])] for line in lines if len(line) == 2 and line[1] in "1234567"}
    listed_as = {file: file.name.replace("_aligned", "") for file in files}
    known = [file for file in files if listed_as[file] in names]
    if not known:
        raise UserError(listed, expected, f"none of the {len(files)} pictures of {path}", remedy)
    if len(known) < len(files):
        print(f"{path}: left out {len(files) - len(known)} of {len(files)} pictures that are not in {RAF_LIST}")
    return Layout("RAF-DB", known, [names[listed_as[file]] for file in known], None,
                  ["test" if file.name.startswith("test") else "train" for file in known])


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
