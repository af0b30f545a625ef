"""Labels and identities of a source as numbers, and the names of classes.

In: arrays or names as people save them. Out: int64 (N,), -1 unlabelled or unknown, and the classes.
"""
import numpy as np

from training.errors import UserError, first_few

EXPRESSIONS = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
SYNONYMS = {"angry": "anger", "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "scared": "fear",
            "happiness": "happy", "joy": "happy", "sadness": "sad", "surprised": "surprise"}
UNLABELLED = ("unlabelled", "unlabeled", "unknown", "-1", "nan", "none", "")       # names of no class


def class_name(name):
    """The name of a class: for synonyms that of the expression, else the name itself; None for unlabelled faces."""
    name = readable(str(name).strip())
    lower = name.lower()
    if lower in UNLABELLED:
        return None
    return SYNONYMS.get(lower, lower if lower in EXPRESSIONS else name)


def readable(name):
    """A name of a file or folder without the surrogates that stand for bytes that are no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def ordered_classes(names):
    """Names of classes in their order: that of EXPRESSIONS, then numbers by value, then other names."""
    def place(name):
        expression = EXPRESSIONS.index(name) if name in EXPRESSIONS else len(EXPRESSIONS)
        return expression, (0, int(name), "") if name.isdecimal() else (1, 0, name)
    return tuple(sorted(set(names), key=place))


def named_labels(labels, classes, count, where):
    """Labels int64 (count,) into the classes that they have, and the names of these.

    labels: None; integers that index classes, -1 unlabelled (with EXPRESSIONS, if one is too large, each number is a
    class of its own); names, which must be in classes unless that is EXPRESSIONS; or one-hot (count, classes).
    Raises UserError for a wrong shape or value.
    """
    if labels is None:
        return np.full(count, -1), ()
    labels = plain_labels(labels, count, where)
    if labels.dtype.kind == "U":
        names = [class_name(name) for name in labels.tolist()]
        found = {name for name in names if name is not None}
        if classes is EXPRESSIONS:
            classes = ordered_classes(found)
        classes = list(dict.fromkeys(map(class_name, classes)))
        unknown = sorted(found - set(classes))
        if unknown:
            raise UserError(where, "labels that are in classes: " + ", ".join(map(str, classes[:8])),
                            ", ".join(unknown[:8]), "correct the labels, or name all classes")
        classes = tuple(name for name in classes if name in found)
        return np.array([-1 if name is None else classes.index(name) for name in names], np.int64), classes
    labels = whole_numbers(labels, count, "labels", where)
    if labels.max(initial=-1) >= len(classes):
        if classes is not EXPRESSIONS:
            bad = np.flatnonzero(labels >= len(classes))
            raise UserError(where, f"labels of -1 to {len(classes) - 1}, of {len(classes)} classes",
                            f"{labels[bad[0]]} in row {bad[0]}", "correct the labels, or name all classes")
        classes = None
    found, places = np.unique(labels, return_inverse=True)
    unlabelled = np.count_nonzero(found == -1)                  # it is the first, if there is one
    return places - unlabelled, tuple(str(label if classes is None else classes[label]) for label in found[unlabelled:])


def plain_labels(labels, count, where):
    """Labels as text (count,), or as numbers whose unlabelled faces are -1: from bytes, from one-hot (count, classes),
    and from an unsigned type, where -1 has become the largest number.
    """
    labels = decoded(labels)
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.shape[0] == count and set(np.unique(labels)) <= {0, 1}:
        several = np.flatnonzero(labels.sum(1) > 1)
        if len(several):
            raise UserError(where, "one-hot labels with at most one 1 a row",
                            f"{len(several)} rows with more, rows {first_few(several)}",
                            "give one number a face, -1 for those of several classes")
        return np.where(labels.any(1), labels.argmax(1), -1)
    if labels.dtype.kind == "U":
        if labels.size != count:
            raise UserError(where, f"labels ({count},)", f"shape {labels.shape}", "give one label a face")
        return labels.reshape(count)
    if labels.dtype.kind == "u" and labels.size:
        largest = np.iinfo(labels.dtype).max
        wrapped = labels == largest
        if wrapped.any() and not (labels == largest - 1).any():
            print(f"{where}: {wrapped.sum()} labels {largest} of type {labels.dtype}: taken as -1, unlabelled")
            return np.where(wrapped, -1, labels.astype(np.int64))
    return labels


def decoded(values):
    """values as an array, bytes as text."""
    values = np.asarray(values)
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values


def numbered_people(identities, count, where):
    """identities int64 (count,) of whole numbers or of names, -1 for those of nobody."""
    identities = None if identities is None else decoded(identities)
    if identities is None or identities.dtype.kind != "U":
        return whole_numbers(identities, count, "identities", where)
    names, numbers = np.unique(identities, return_inverse=True)
    nobody = [name.strip().lower() in UNLABELLED for name in names.tolist()]
    return whole_numbers(np.where(nobody, -1, np.arange(len(names)))[numbers].reshape(identities.shape), count,
                          "identities", where)


def whole_numbers(values, count, what, where):
    """values as int64 (count,) of at least -1; -1 for all where values is None."""
    if values is None:
        return np.full(count, -1)
    values = np.asarray(values)
    span = f"{what} ({count},), whole numbers >= -1"
    if values.shape == (count, 1):
        values = values[:, 0]
    if values.shape != (count,):
        raise UserError(where, span, f"shape {values.shape}", "give one number a face")
    if values.dtype.kind == "f" and np.isnan(values).any():
        rows = np.flatnonzero(np.isnan(values))
        raise UserError(where, span, f"{len(rows)} NaN, rows {first_few(rows)}",
                        f"use -1 instead of NaN: numpy.nan_to_num({what}, nan=-1)")
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or (values != np.round(values)).any():
        raise UserError(where, span, f"{values.dtype} that are not whole numbers", "save them as int64")
    bad = np.flatnonzero((values < -1) | (values > 2 ** 63 - 1))
    if len(bad):
        raise UserError(where, span, f"{len(bad)} out of range, e.g. {values[bad[0]]} in row {bad[0]}",
                        f"use -1 for {'unlabelled' if what == 'labels' else 'unknown'}")
    return values.astype(np.int64)
