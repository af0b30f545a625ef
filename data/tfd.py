"""TFD, the Toronto Face Database (Susskind, Anderson and Hinton 2010).

In: a folder with one of its .mat files (RAW), or such a file itself, or a folder with the three files that the
reference implementation read (PROCESSED). Out: Faces. Labels 1..7 become 0..6.
"""
from pathlib import Path

import numpy as np

from data.faces import checked
from data.pixels import squares
from training.errors import UserError

RAW = {"TFD_ranzato_48x48.mat": 48, "TFD_ranzato_96x96.mat": 96, "TFD_48x48.mat": 48, "TFD_96x96.mat": 96}  # pixels
PROCESSED = ("tfd_data_array.npz", "fau_levels.npz", "TFD_ranzato_96x96.mat")   # images, rows used, labels
SUBFOLDERS = ("", "tfd", "TFD")         # of the given folder, looked at in this order
FOLDS = 5
PARTS = np.array([-1, 0, 1, 2])         # a fold's 0 unlabelled, 1 train, 2 valid, 3 test as an index of SPLITS
RESAVE = ("in MATLAB: s = load('{0}'); save('{0}', '-struct', 's', '-v7'); or read it with h5py and save an .npz "
          "of your own arrays (data/README.md)")


def found(path):
    """Whether TFD lies in the folder path, or path is one of its files."""
    path = Path(path)
    return (path.suffix.lower() == ".mat" or path.name == PROCESSED[0] or _choose(path, None) is not None
            or any((path / folder / name).is_file() for folder in SUBFOLDERS for name in PROCESSED[:2]))


def load(path, image_size=48, fold=0, seed=0):
    """Faces of TFD; path as in the head of this file, image_size in pixels.

    The split is that of fold 0..4 where the file has folds, else drawn from the seed without sharing identities.
    Faces that no fold names (unlabelled ones) train, unless their identity is known and held out: then they go with
    it. The processed files are split by position, 80 % train, 10 % test, the rest val, as the reference did, so
    their identities are shared. Faces of one grey level (unlabelled TFD faces, all black) are left out.
    Raises UserError for files that are missing, damaged, of MATLAB's v7.3 or misshapen.
    """
    path = Path(path)
    file = path if path.is_file() else _choose(path, image_size)
    if file is None and found(path):
        raise UserError(path.absolute(), "all of " + ", ".join(PROCESSED), "only some of them",
                        "put the others there too")
    if file is None:
        raise UserError(path.absolute(), "one of " + ", ".join(RAW), "none of them",
                        "put one there (data/README.md says where TFD comes from)")
    print(f"reading {file}")
    if file.name == PROCESSED[0]:
        images, labels, identities, split = _read_processed(file.parent)
        name = "TFD, split by position"
    else:
        images, labels, identities, split = _read_raw(file, fold)
        name = "TFD, drawn split" if split is None else f"TFD, fold {fold}"
    faces = checked(images, labels, identities, split, name, file, seed, drop_flat=True)
    faces.images = squares(faces.images, image_size, file)
    return faces


def _choose(path, image_size):
    """The file to read in a folder: of image_size pixels, else the processed ones, else the largest; or None.

    Of two of one size the one with Ranzato's folds is taken.
    """
    for folder in (path / name for name in SUBFOLDERS):
        raw = [name for name in RAW if (folder / name).is_file()]
        exact = [name for name in raw if RAW[name] == image_size]
        if exact:
            return folder / exact[0]
        if all((folder / name).is_file() for name in PROCESSED):
            return folder / PROCESSED[0]
        if raw:
            return folder / max(raw, key=lambda name: ("ranzato" in name, RAW[name]))
    return None


def _read_raw(path, fold):
    """images (N, H, W) in C order, labels (N,) -1..6, identities (N,), split (N,) or None where there are no folds."""
    content = _read_mat(path, ("images", "labs_ex", "labs_id"), ("folds",))
    images = np.ascontiguousarray(content.pop("images"))            # MATLAB's order is Fortran's
    labels, identities = _labels(path, content, len(images))
    if "folds" not in content:
        print(f"{path.name} has no folds: the split is drawn")
        return images, labels, identities, None
    folds = content["folds"]
    if folds.shape != (len(images), FOLDS) or not np.isin(folds, range(len(PARTS))).all():
        raise UserError(path, f"folds ({len(images)}, {FOLDS}) of 0 unlabelled, 1 train, 2 valid, 3 test",
                        f"shape {folds.shape}, values {np.unique(folds)[:6].tolist()}", "get the file anew")
    split = PARTS[folds[:, fold].astype(int)]
    free = split < 0
    held_out = {part: np.isin(identities, identities[(split == part) & (identities >= 0)]) for part in (1, 2)}
    split[free] = np.select([held_out[2], held_out[1]], [2, 1], 0)[free]
    return images, labels, identities, split


def _read_processed(folder):
    """images, labels, identities, split of the rows that the reference implementation used, in its order."""
    images, rows = _read_npz(folder / PROCESSED[0], "images"), _read_npz(folder / PROCESSED[1], "inds").ravel()
    path = folder / PROCESSED[2]
    labels, identities = _labels(path, _read_mat(path, ("labs_ex", "labs_id")), len(images))
    if rows.dtype.kind not in "iu" or not ((rows >= 0) & (rows < len(images))).all() or not len(rows):
        raise UserError(folder / PROCESSED[1], f"inds: row numbers 0 to {len(images) - 1}",
                        f"{rows.dtype}, {len(rows)} of them, e.g. {rows[:3].tolist()}",
                        "take the three files of one set")
    count = len(rows)
    split = np.full(count, 1)
    split[:int(.9 * count)], split[:int(.8 * count)] = 2, 0
    print("split by position, 80 % train, 10 % test, 10 % val, as the reference did: identities are shared")
    return images[rows], labels[rows], identities[rows], split


def _labels(path, content, count):
    """labs_ex, 1..7 or -1, as labels (N,) 0..6 or -1; labs_id as identities (N,). count: of the images, N too."""
    labels, identities = content["labs_ex"].ravel(), content["labs_id"].ravel()
    if not len(labels) == len(identities) == count:
        raise UserError(path, "one label and one identity an image (images (N, H, W), labs_ex and labs_id (N, 1))",
                        f"{count} images, {len(labels)} labels, {len(identities)} identities",
                        "get the files anew, all of one set")
    bad = labels[~np.isin(labels, (-1, *range(1, 8)))]
    if len(bad):
        raise UserError(path, "labs_ex of 1 to 7, or -1 unlabelled", f"{len(bad)} others, e.g. {bad[0]}",
                        "get the file anew, or correct these labels")
    return np.where(labels > 0, labels.astype(np.int64) - 1, -1), identities


def _read_mat(path, fields, optional=()):
    """A dict of the named arrays of a .mat file."""
    from scipy.io import loadmat
    from scipy.sparse import issparse
    try:
        content = loadmat(path, variable_names=(*fields, *optional))
    except NotImplementedError:
        raise UserError(path, "a .mat file of MATLAB's version 7 or older", "version 7.3 (HDF5)",
                        RESAVE.format(path.name)) from None
    except Exception as error:                                      # scipy raises half a dozen kinds here
        raise UserError(path, "a .mat file of TFD", f"damaged: {error}", "get the file anew, it may be cut off") \
            from None
    missing = [name for name in fields if name not in content]
    if missing:
        names = [name for name in content if not name.startswith("__")]
        raise UserError(path, "fields " + ", ".join(fields),
                        f"no {', '.join(missing)}" + (f" among {', '.join(names)}" if names else ""),
                        "take a .mat file of TFD, or give your own arrays as .npz (data/README.md)")
    content = {name: array.toarray() if issparse(array) else array for name, array in content.items()}
    for name in fields:
        _check_numbers(path, name, content[name])
    return content


def _read_npz(path, key):
    """One array of an .npz."""
    try:
        with np.load(path, allow_pickle=False) as content:
            array = content[key]
    except Exception as error:                                      # numpy and zipfile raise half a dozen kinds here
        raise UserError(path, f"an .npz with {key}", f"{type(error).__name__}: {error}", "get the file anew") from None
    _check_numbers(path, key, array)
    return array


def _check_numbers(path, name, array):
    """Raise UserError unless this is an array of numbers."""
    if not isinstance(array, np.ndarray) or array.ndim == 0 or array.dtype.kind not in "buif":
        found = f"{array.dtype}, shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise UserError(path, f"{name}: an array of numbers", found, "get the file anew")
