"""Splits into train, val and test that are drawn: stratified by label, disjoint in identity.

In: labels and identities. Out: a part for each face, the same with every version of every library: the random numbers
are those of numpy's RandomState, which numpy keeps as they are.
"""
import numpy as np

from training.errors import UserError

SPLITS = ("train", "val", "test")
FRACTION = 10                       # one part in FRACTION each for val and test


def split_faces(labels, identities, seed, where="data"):
    """Split int64 (N,) into train, val and test, 8 : 1 : 1, stratified by label.

    Faces of one known identity stay together; faces of unknown identity (-1) are taken one by one. Each label keeps a
    face in train, unless val or test would then be empty.
    Raises UserError with fewer than three identities and fewer than three faces of unknown identity.
    """
    split = np.zeros(len(labels), np.int64)
    known, unknown = np.flatnonzero(identities >= 0), np.flatnonzero(identities < 0)
    people = len(np.unique(identities[known]))
    for rows, units in ((known, people), (unknown, len(unknown))):
        count = min(FRACTION, units)
        if count < len(SPLITS):
            continue                                            # too few to hold any out: they train
        if rows is known:
            folds = folds_of_groups(labels[rows], identities[rows], count, seed)
        else:
            folds = folds_of_faces(labels[rows], count, seed)
        parts = [np.flatnonzero(folds == fold) for fold in range(count)]
        parts = [part for part in parts if len(part)]
        if count < FRACTION or max(map(len, parts[:2])) > 2 * len(rows) / FRACTION:
            parts.sort(key=len)                                 # few people, or some with many faces: these train
        split[rows[parts[0]]], split[rows[parts[1]]] = 2, 1
    if len(np.unique(split)) < len(SPLITS):
        raise UserError(where, "at least three identities or three faces of unknown identity, to hold some out",
                        f"{people} identities and {len(unknown)} faces of unknown identity",
                        "add faces" if people == 0 else "add people; or for folders leave IDENTITY_PATTERN out; "
                        "in arrays give a split of your own, or set identities to -1 (unknown)")
    _keep_in_train(labels, identities, split)
    return split


def _keep_in_train(labels, identities, split):
    """Bring a face of each label that has none in train back there, in place, with all faces of its person.

    Where val or test would then be empty, a face or person that train can spare takes its place; where there is none,
    the label stays as it is.
    """
    units = np.where(identities < 0, -1 - np.arange(len(split)), identities)    # a person, or a face of an unknown one
    sizes = dict(zip(*np.unique(units, return_counts=True)))

    def without(unit):                                          # first all of it back, then with another one instead
        back = np.where(units == unit, 0, split)
        yield back
        for other in sorted(set(units[split == 0]), key=lambda other: (sizes[other], other)):
            yield np.where(units == other, split[units == unit][0], back)

    for label in np.unique(labels[labels >= 0]):
        trained = set(labels[split == 0])
        if label not in trained:
            better = (changed for unit in np.unique(units[labels == label]) for changed in without(unit)
                      if len(np.unique(changed)) == len(SPLITS) and {label, *trained} <= set(labels[changed == 0]))
            split[:] = next(better, split)


def draw_missing_parts(labels, identities, split, seed, where):
    """Fill, in split, a val or test that no face is in with a tenth of train each, drawn by split_faces.

    labels, identities, split: int64 (N,); split is changed in place. where: the path shown.
    """
    train = np.flatnonzero(split == 0)
    missing = [part for part in (1, 2) if not (split == part).any()]
    if missing:
        drawn = split_faces(labels[train], identities[train], seed, where)
        for part in missing:
            rows = train[drawn == part]
            split[rows] = part
            print(f"{where}: no {SPLITS[part]} set: {len(rows)} of the {len(train)} train faces are held out as it")


def folds_of_faces(labels, count, seed):
    """A fold 0..count - 1 for each face, int64 (N,), each with its share of every label.

    As scikit-learn's StratifiedKFold with shuffle.
    """
    random = np.random.RandomState(seed)
    first, inverse = np.unique(labels, return_index=True, return_inverse=True)[1:]
    labels = np.argsort(np.argsort(first))[inverse]             # numbered as they appear
    in_order = np.sort(labels)
    folds = np.empty(len(labels), np.int64)
    for label in range(len(first)):
        shares = [np.count_nonzero(in_order[fold::count] == label) for fold in range(count)]
        of_label = np.repeat(np.arange(count), shares)
        random.shuffle(of_label)
        folds[labels == label] = of_label
    return folds


def folds_of_groups(labels, groups, count, seed):
    """A fold 0..count - 1 for each face, int64 (N,), the same for all faces of a group.

    Groups with the most uneven labels come first; each joins the fold that leaves the labels spread most evenly over
    the folds, of equally good ones that with the fewest faces. As scikit-learn's StratifiedGroupKFold, from version
    1.8 on, with shuffle.
    """
    labels = np.unique(labels, return_inverse=True)[1]
    groups = np.unique(groups, return_inverse=True)[1]
    counts = np.zeros((groups.max() + 1, labels.max() + 1))     # faces of a group with a label
    np.add.at(counts, (groups, labels), 1)
    order = np.arange(len(counts))
    np.random.RandomState(seed).shuffle(order)
    order = order[np.argsort(-counts[order].std(1), kind="stable")]
    of_labels = counts.sum(0)
    in_fold = np.zeros((count, counts.shape[1]))
    folds = np.empty(len(counts), np.int64)
    for group in order:
        joined = in_fold + np.eye(count)[:, :, None] * counts[group]            # (fold joined, fold, label)
        spread = (joined / of_labels).std(1).mean(1)
        best = 0
        for fold in range(1, count):
            fewer = in_fold[fold].sum() < in_fold[best].sum()
            if spread[fold] < spread[best] or np.isclose(spread[fold], spread[best]) and fewer:
                best = fold
        in_fold[best] += counts[group]
        folds[group] = best
    return folds[groups]
