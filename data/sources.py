"""Which source a data set's name or path means.

In: a name or a path. Out: Faces, read by one of the other files in this folder, each with a function load, most with
found(path): a new kind of source is such a file, a branch in _load below, and a name in NAMES if it has no path.
"""
from pathlib import Path

from data import arrays, fer2013, folder, options as options_script, public, synthetic, tfd
from data.faces import without_classes
from data.layouts import check_angles
from training.errors import LARGEST_SEED, UserError
from training.settings import default_settings

LARGEST_SIZE = 1024                 # pixels of a side
FOLDER = Path(__file__).parent      # where "auto", "tfd" and "fer2013" look
NAMES = ("auto", "synthetic", "tfd", "fer2013", "olivetti", "lfw", "torchvision:MNIST")     # and others like the last


def load(data="auto", image_size=48, fold=0, seed=0, options=None):
    """Faces of "auto", "synthetic", "tfd", "fer2013", a public data set (data/public.py) or a path (data/README.md).

    image_size: pixels, a multiple of 8. fold: 0..4 of TFD's five. seed: of the synthetic faces and of drawn splits.
    options: the settings of data/options.py, None: as they stand there.
    Raises UserError for anything that cannot be used.
    """
    options = options or default_settings(options_script)
    try:
        faces = _load(data, image_size, fold, seed, options)
    except PermissionError as error:
        raise UserError(error.filename, "a file or folder that can be read", error.strerror, "change its permissions") \
            from None
    if options.COLOUR and faces.channels == 1:
        print(f"{faces.name}: these faces are grey, COLOUR or not")
    for constant, value, usual, source in (("FOLD", fold, 0, "TFD"), ("ANGLES", options.ANGLES, "S", "KDEF"),
                                           ("FER_PLUS", options.FER_PLUS, True, "FER2013")):
        if value != usual and not faces.name.startswith(source):
            print(f"warning: {constant}={value} has no effect: {faces.name} is not {source}")
    if options.LEFT_OUT is not None:
        faces = without_classes(faces, options.LEFT_OUT)
    return faces


def _load(data, image_size, fold, seed, options):
    if not 8 <= image_size <= LARGEST_SIZE or image_size % 8:
        raise UserError("IMAGE_SIZE", f"a multiple of 8, at most {LARGEST_SIZE}", image_size, "set it to 48, 64, ...")
    if fold not in range(tfd.FOLDS):
        raise UserError("FOLD", "0 to 4, one of TFD's five", fold, "set it to 0")
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError("SEED", "0 to 2^32 - 1", seed, "set it to 0, 1, ...")
    check_angles(options.ANGLES)
    if isinstance(data, str) and not data.strip():
        raise UserError("DATA", f"{', '.join(NAMES)} or a path", "an empty text", "for example DATA=synthetic")
    if data == "auto":
        data = "tfd" if tfd.found(FOLDER) else "fer2013" if fer2013.found(FOLDER) else "synthetic"
        print(f'DATA="auto": {data}, ' + (f"found in {FOLDER}" if data != "synthetic" else
              f"since neither TFD nor FER2013 lies in {FOLDER} (data/README.md says how to get them)"))
    if data == "synthetic":
        refuse(options, "synthetic faces", "CLASS_NAMES", "IDENTITY_PATTERN")
        return synthetic.load(image_size, seed)
    if public.found(data):
        refuse(options, "a public data set", "CLASS_NAMES", "IDENTITY_PATTERN")
        return public.load(data, image_size, seed, options)
    if data in ("tfd", "fer2013"):
        path = FOLDER
    else:
        try:
            path = Path(data).expanduser()
            problem = None if path.exists() else "nothing there"
        except (OSError, RuntimeError, ValueError) as error:        # no permission, too long, no such user, a null byte
            path, problem = data, getattr(error, "strerror", None) or str(error)
        if problem:
            raise UserError(path, f"{', '.join(NAMES)} or a path that exists", problem, "check DATA")
        if path.is_dir():
            folder.entries(path)                                # refused here where it may not be read
    if data == "tfd" or data != "fer2013" and tfd.found(path):
        refuse(options, "TFD", "CLASS_NAMES", "IDENTITY_PATTERN")
        return tfd.load(path, image_size, fold, seed)
    if data == "fer2013" or fer2013.found(path):
        refuse(options, "FER2013", "CLASS_NAMES", "IDENTITY_PATTERN")
        return fer2013.load(path, image_size, seed, options)
    if arrays.found(path):
        refuse(options, "arrays", "IDENTITY_PATTERN")
        return arrays.load(path, image_size, seed, options)
    return folder.load(path, image_size, seed, options)


def refuse(options, source, *constants):
    """Raise UserError where one of these constants of data/options.py is set, which have no meaning for this source."""
    for constant in constants:
        value = getattr(options, constant)
        if value is not None:
            raise UserError(f"{constant}={value}", "pictures in folders" if constant == "IDENTITY_PATTERN" else
                            "numbered folders, or arrays", source, "leave it out")
