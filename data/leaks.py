"""Held-out faces that are also in training: the same person, the same picture, or nearly the same one.

In: images, identities and the split. Out: warnings.
"""
import numpy as np

CHUNK = 4096            # images looked at in one go
HELD_OUT = 1000         # held-out faces, and
TRAINING = 20000        # training faces that are looked at for nearly equal ones, at most, evenly spaced
SAME = 0.996            # correlation of two faces' grey levels, averaged over squares, from which they are nearly equal:
                        # frames of one video have more, faces of two people, or digits of one class, less
RARE = 0.01             # share of nearly equal ones that any large set may have


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


def warn_of_leaks(images, digests, identities, split, where):
    """Print a warning for each way in which held-out faces are also in training. digests: from look_at."""
    def warn(found, remedy):
        print(f"warning: {where}: {found}: scores will be too good; {remedy}")
    known = identities >= 0
    people = len(np.intersect1d(identities[(split < 2) & known], identities[(split == 2) & known]))
    if people:
        warn(f"{people} identities of test are also in train or val", "leave the split out: then no identity is in two")
    copies = np.isin(digests[split == 0], digests[split > 0]).sum()
    if copies:
        warn(f"{copies} training faces are byte-identical to held-out ones", "remove them")
    training, held_out = np.flatnonzero(split == 0), np.flatnonzero(split == 2)
    held_out = held_out[~np.isin(digests[held_out], digests[training])]
    training, held_out = _some(training, TRAINING), _some(held_out, HELD_OUT)
    if len(held_out):
        nearest = (_signatures(images[held_out]) @ _signatures(images[training]).T).max(1)
        near = int((nearest > SAME).sum())
        if near > RARE * len(held_out):
            warn(f"{near} of {len(held_out)} test faces are nearly equal to a training face, as frames of one video are",
                 "name the people: IDENTITY_PATTERN for folders, identities for arrays")


def _some(rows, count):
    """At most so many of the rows, evenly spaced."""
    return rows[::max(1, -(-len(rows) // count))]


def _signatures(images):
    """Unit vectors float32 (n, k) whose product is the correlation of faces, of squares of which there are k."""
    side = 16 if images.shape[1] % 16 == 0 else 8
    x = images.reshape(len(images), side, images.shape[1] // side, side, images.shape[1] // side, -1).mean((2, 4, 5))
    x = x.reshape(len(x), -1)
    x -= x.mean(1, keepdims=True)
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)).astype(np.float32)
