"""Held-out faces that are also in training: the same person, the same picture, or nearly the same one.

In: images, identities and the split. Out: warnings.
"""
import numpy as np

from data.batches import evenly_spaced
from data.splits import SPLITS
from training.errors import first_few

CHUNK = 4096            # images looked at in one go
HELD_OUT = 1000         # to find near-duplicates, at most this many test faces are compared
TRAINING = 20000        # with at most this many training faces, both evenly spaced
SAME = 0.996            # faces are near-duplicates if their grey levels, averaged over squares, correlate more: frames
                        # of one video do, faces of two people or digits of one class do not
STILL = 1.0             # squares with a smaller standard deviation between images (in grey levels) are left out
RARE = 0.01             # share of near-duplicates that is tolerated: any large set may have some


def look_at(images):
    """Which images (N, H, W) or (N, H, W, 3) are of one colour, bool (N,), and a hash of each, int64 (N,).

    Reads them once: they may be on the disk.
    """
    flat, digests = [], []
    for start in range(0, len(images), CHUNK):
        part = np.ascontiguousarray(images[start:start + CHUNK])
        flat.append(np.ptp(part, axis=(1, 2)).reshape(len(part), -1).max(1) == 0)
        digests += [hash(image.tobytes()) for image in part]
    return np.concatenate(flat), np.array(digests, np.int64)


def warn_of_leaks(images, digests, identities, split, where, files=None):
    """Print a warning for each way in which held-out faces are also in training. digests: from look_at; files: those of
    the faces, to name them.
    """
    def warn(found, remedy):
        print(f"warning: {where}: {found}: scores will be too good; {remedy}")
    people = [np.unique(identities[(split == part) & (identities >= 0)]) for part in range(len(SPLITS))]
    shared = np.count_nonzero(np.unique(np.concatenate(people), return_counts=True)[1] > 1)
    if shared:
        warn(f"{shared} identities are in more than one of train, val and test",
             "remove the split array or folders: a split drawn at random keeps each person in one part")
    copies = np.flatnonzero((split == 0) & np.isin(digests, digests[split > 0]))
    if len(copies):
        warn(f"{len(copies)} training faces are byte-identical to held-out ones",
             f"remove them: {first_few([files[row] for row in copies]) if files else f'rows {first_few(copies)}'}")
    training, held_out = np.flatnonzero(split == 0), np.flatnonzero(split == 2)
    held_out = held_out[~np.isin(digests[held_out], digests[training])]
    training, held_out = evenly_spaced(training, TRAINING), evenly_spaced(held_out, HELD_OUT)
    if len(held_out):
        correlations = _correlations(images[held_out], images[training])
        nearest = training[correlations.argmax(1)]
        known = (identities[held_out] >= 0) & (identities[nearest] >= 0)
        apart = known & (identities[held_out] != identities[nearest])
        near = np.count_nonzero((correlations.max(1) > SAME) & ~apart)
        if near > RARE * len(held_out):
            warn(f"{near} of {len(held_out)} test faces are nearly equal to a training face, as frames of a video are",
                 "name the people: IDENTITY_PATTERN for folders, identities for arrays")


def _correlations(some, others):
    """Correlations (n, m) of the grey levels of two sets of images, averaged over squares: those that differ between
    images, since all faces on one ground are alike there.
    """
    squares = _squares(some), _squares(others)
    varied = np.concatenate(squares).std(0) > STILL
    unit = []
    for x in squares:
        x = x[:, varied]
        x = x - x.mean(1, keepdims=True)
        unit.append((x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)).astype(np.float32))
    return unit[0] @ unit[1].T


def _squares(images):
    """The means (n, k) of the k squares of each image."""
    side = 16 if images.shape[1] % 16 == 0 else 8
    x = images.reshape(len(images), side, images.shape[1] // side, side, images.shape[1] // side, -1).mean((2, 4, 5))
    return x.reshape(len(x), -1)
