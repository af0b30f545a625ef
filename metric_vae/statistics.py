"""How well distances, faces and edits come out: numbers only.

In: numpy arrays, and functions that decode latents or judge faces. Out: scores, each [value, low, high] with a 95 %
bootstrap interval over faces: a face that is drawn twice counts twice, by itself and in every pair that it is part of,
but never makes a pair with itself.

Symbols: n faces; e (n, n) latent and d (n, n) given distances, symmetric with a zero diagonal; labels int64 (n,), -1
unlabelled; w (n,) how often each face counts; judge: a function of faces float (n, H, W) to probabilities (n, classes).
"""
import numpy as np
from scipy.spatial.distance import cdist, pdist, squareform

RESAMPLES = 200         # bootstrap draws of n faces
NEIGHBOURS = 12         # of trustworthiness and continuity
VOTERS = 15             # neighbours, at most, that vote for a class
TRIPLETS = 100_000      # drawn at random
ACTIVE = 0.01           # variance of mu above which a unit is active


# --- intervals

def interval(score, count, seed=0, resamples=RESAMPLES):
    """[value, low, high]: score(w) with each of count faces once, and the 2.5 and 97.5 % points of its bootstrap.

    score: a function of w, float (count,), whose sum is count, to a number (Efron 1979; the percentile interval).
    Draws that give NaN, for lack of a rare class, are left out.
    """
    rng = np.random.default_rng(seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(score(np.ones(count)))
        draws = np.array([score(np.bincount(rng.integers(0, count, count), minlength=count).astype(float))
                          for _ in range(resamples)])
    draws = draws[np.isfinite(draws)]
    return [value, *np.percentile(draws, (2.5, 97.5)).tolist()] if len(draws) else [value, value, value]


def mean_score(values, seed=0, resamples=RESAMPLES):
    """The mean of one value a face, (n,), with its interval."""
    values = np.asarray(values, float)
    return interval(lambda w: w @ values / w.sum(), len(values), seed, resamples)


def ratio(values, others):
    """The sum of one value a face, (n,), over that of another, with its interval."""
    return interval(lambda w: (w @ values) / (w @ others), len(values))


def finite(scores):
    """The scores of a dict that are numbers."""
    return {name: score for name, score in scores.items() if np.isfinite(score).all()}


def stratified_rows(labels, count, seed=0):
    """Sorted row numbers of at most count faces, with each label (-1 too) as often as among all, but at least once,
    which may be more than count.
    """
    if len(labels) <= count:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]         # by label, at random within
    places = (np.arange(count) + .5) * len(labels) / count          # evenly spaced
    firsts = np.unique(labels[order], return_index=True)[1]
    chosen = np.union1d(places.astype(int), firsts)
    spare = np.setdiff1d(chosen, firsts)                            # what may go to keep to count
    drop = rng.permutation(spare)[:len(chosen) - count]
    return np.sort(order[np.setdiff1d(chosen, drop)])


# --- the posterior

def active_units(mu):
    """How many dimensions of mu (n, Z) vary by more than ACTIVE over faces (Burda et al. 2016, section 5.2)."""
    mu = np.asarray(mu, float) - np.mean(mu, 0)
    squares = mu ** 2
    return interval(lambda w: np.sum(w @ squares / w.sum() - (w @ mu / w.sum()) ** 2 > ACTIVE), len(mu))


# --- distances

def euclidean(points):
    """Distances (n, n), float64, of points (n, k)."""
    return squareform(pdist(np.asarray(points, float).reshape(len(points), -1)))


def pearson(e, d, weights):
    """The correlation of two vectors (m,) whose entries count weights (m,) times; NaN where one does not vary."""
    total = weights.sum()
    e, d = e - (weights * e).sum() / total, d - (weights * d).sum() / total     # sums, since BLAS threads are slower
    weighted = weights * e
    with np.errstate(invalid="ignore"):
        return (weighted * d).sum() / np.sqrt((weighted * e).sum() * (weights * d * d).sum())


def stress(e, d, weights=1.):
    """Kruskal's stress-1 with the best scale, of vectors (m,): sqrt(sum (s e - d)^2 / sum d^2).

    s = sum(e d) / sum(e^2): the scale of the latent space is free (Kruskal, Psychometrika 29, 1964, with metric
    disparities; the root of the regulariser's value).
    """
    scale = best_scale(e, d, weights)
    return np.sqrt((weights * (scale * e - d) ** 2).sum() / (weights * d ** 2).sum())


def best_scale(e, d, weights=1.):
    """s = sum(e d) / sum(e^2), the scale that takes latent distances (m,) nearest to given ones."""
    weighted = weights * e
    with np.errstate(invalid="ignore"):                         # without pairs it is NaN
        return (weighted * d).sum() / (weighted * e).sum()


def spearman(e, d):
    """Spearman's rank correlation of two vectors (m,), as a function of weights (m,).

    Ranks are taken anew under the weights, ties at their middle; the sorting is done once.
    """
    (_, place_e), (_, place_d) = (np.unique(values, return_inverse=True) for values in (e, d))

    def ranks(place, weights):
        counts = np.bincount(place, weights)
        return (np.cumsum(counts) - counts / 2)[place]
    return lambda weights: pearson(ranks(place_e, weights), ranks(place_d, weights), weights)


def trustworthiness_of_faces(d, e):
    """How far the NEIGHBOURS nearest faces by e are neighbours by d: a value a face, (n,); their mean is the score.

    1 - 2 / (k (2n - 3k - 1)) sum over these of max(rank by d - k, 0) (Venna and Kaski 2001). With d and e exchanged
    it is continuity. The bootstrap draws faces with their neighbourhoods among all n.
    """
    n = len(d)
    k = min(NEIGHBOURS, (n - 1) // 2)
    ranks, near = _neighbours(d).argsort(1), _neighbours(e)[:, :k]      # a face itself comes last
    beyond = np.maximum(np.take_along_axis(ranks, near, 1) + 1 - k, 0).sum(1)
    return 1 - 2 / (k * (2 * n - 3 * k - 1)) * beyond


def has_ties(d):
    """Whether for most faces the NEIGHBOURS nearest by d (n, n) are ambiguous, as where d is 0 within each class."""
    k = min(NEIGHBOURS, (len(d) - 1) // 2)
    near = np.sort(d + np.diag(np.full(len(d), np.inf)), 1)
    return (near[:, k - 1] == near[:, k]).mean() > .5


def neighbours_agree(e, labels, voters):
    """Whether the nearest other faces, voters of them, vote for the face's own label, bool (n,); all faces labelled.

    Of labels with as many votes the smallest wins.
    """
    votes = labels[_neighbours(e)[:, :voters]]
    return (votes[:, :, None] == np.arange(labels.max() + 1)).sum(1).argmax(1) == labels


def _neighbours(distances):
    """Row numbers (n, n) of the faces from near to far of each face, itself last."""
    return np.argsort(distances + np.diag(np.full(len(distances), np.inf)), 1, kind="stable")


def triplets(e, d, count=TRIPLETS, seed=0, resamples=RESAMPLES):
    """The share of triplets of faces (i, j, k) with d(i, j) < d(i, k) for which e(i, j) < e(i, k) too.

    count triplets are drawn at random; .5 is chance (Agarwal et al. 2007 name them generalised non-metric scaling).
    Those of which d is not given, NaN, are left out.
    """
    n = len(e)
    rng = np.random.default_rng(seed)
    i = rng.integers(0, n, count)
    j = (i + rng.integers(1, n, count)) % n
    k = rng.integers(0, n, count)
    keep = (k != i) & (k != j) & (np.abs(d[i, j] - d[i, k]) > 0)       # False for NaN
    i, j, k = i[keep], j[keep], k[keep]
    same = np.where(d[i, j] < d[i, k], e[i, j] < e[i, k], e[i, k] < e[i, j])

    def share(w):
        weights = w[i] * w[j] * w[k]
        return (weights * same).sum() / weights.sum()
    return interval(share, n, resamples=resamples)


def distance_scores(e, d, labels, resamples=RESAMPLES):
    """All scores of latent distances e against given ones d, both (n, n): a dict of [value, low, high].

    Pairs whose d is not given, NaN, are left out; then trustworthiness and continuity are, too, since they need all,
    and where d does not say which faces are the nearest.
    resamples: bootstrap draws. spearman_within and spearman_between take pairs of the same and of different classes.
    What cannot be computed, for lack of faces or labels, is left out.
    """
    n = len(e)
    i, j = np.triu_indices(n, 1)
    given = np.isfinite(d[i, j])
    complete = given.all()
    i, j = i[given], j[given]
    if len(i) < 6:                                                  # the pairs of 4 faces
        return {}

    def on_pairs(make, keep=slice(None)):
        a, b = i[keep], j[keep]
        score = make(e[a, b], d[a, b])
        return interval(lambda w: score(w[a] * w[b]), n, resamples=resamples)

    scores = {"pearson": on_pairs(lambda e, d: lambda weights: pearson(e, d, weights)), "spearman": on_pairs(spearman)}
    known = (labels[i] >= 0) & (labels[j] >= 0)
    for name, keep in (("spearman_within", known & (labels[i] == labels[j])),
                       ("spearman_between", known & (labels[i] != labels[j]))):
        if keep.sum() > 10 and np.ptp(d[i[keep], j[keep]]) > 0:
            scores[name] = on_pairs(spearman, keep)
    scores["stress"] = on_pairs(lambda e, d: lambda weights: stress(e, d, weights))
    if complete and not has_ties(d):
        scores["trustworthiness"] = mean_score(trustworthiness_of_faces(d, e), resamples=resamples)
        scores["continuity"] = mean_score(trustworthiness_of_faces(e, d), resamples=resamples)
    scores["triplets"] = triplets(e, d, resamples=resamples)
    return finite(scores)                                           # where all mu are equal nothing correlates


def knn_accuracy(e, labels):
    """The share of labelled faces whose nearest other labelled faces vote for their class.

    There are as many voters as the rarest class has other faces, at most VOTERS: with more, the other classes would
    outvote it however well it is separated. A face that is the only one of its class is left out. NaN where no face is
    left.
    """
    counts = np.bincount(labels[labels >= 0], minlength=1)
    if counts.max() < 2:
        return [float("nan")] * 3
    labelled = np.flatnonzero(labels >= 0)
    rows = labelled[counts[labels[labelled]] > 1]
    voters = min(VOTERS, counts[counts > 1].min() - 1)
    return mean_score(neighbours_agree(e[np.ix_(rows, rows)], labels[rows], voters))


# --- edits

def class_means(mu, labels, classes):
    """m_a: the mean of mu (n, Z) over the faces of each class, (classes, Z); NaN where there is none."""
    rows = [mu[labels == a] for a in range(classes)]
    return np.array([some.mean(0) if len(some) else np.full(mu.shape[1], np.nan) for some in rows])


def edit(mu, source, target, means, dims=slice(None)):
    """z = mu - m_a + m_b in the dimensions dims, (n, Z): source a and target b int, one or (n,)."""
    z = np.array(mu, float)
    z[:, dims] += (means[target] - means[source])[..., dims]
    return z


def interpolate(start, end, steps):
    """Latents (n, steps, Z) on the straight line from start to end, (n, Z) each, both included."""
    t = np.linspace(0, 1, steps)[None, :, None]
    return (1 - t) * start[:, None] + t * end[:, None]


def edit_hits(edit, judge, labels, targets, classes):
    """Whether the judge takes each face's edit to each of targets for that class, float (n, classes).

    NaN for a face's own class, and for those that are not among targets. edit: a function of places int64 (m,)
    among the n faces and a class to faces (m, H, W).
    """
    hits = np.full((len(labels), classes), np.nan)
    for target in targets:
        places = np.flatnonzero(labels != target)
        if len(places):
            hits[places, target] = judge(edit(places, target)).argmax(1) == target
    return hits


def edit_success(hits, labels):
    """The share of edits that the judge recognises as the target class, averaged over pairs of classes.

    hits from edit_hits; labels (n,) of the faces before. Each pair weighs the same, whatever the number of its faces.
    """
    faces_of = _faces_of(labels, hits.shape[1])
    possible = np.isfinite(hits).astype(float)
    found = np.where(possible > 0, hits, 0)

    def share(w):
        with np.errstate(invalid="ignore"):
            return np.nanmean((faces_of * w) @ found / ((faces_of * w) @ possible))
    return interval(share, len(labels))


def accuracy(probabilities, labels):
    """The share of faces whose largest of probabilities (n, classes) is that of their label."""
    return mean_score(probabilities.argmax(1) == labels)


def balanced_accuracy(probabilities, labels):
    """The mean over classes of the share of their faces that is recognised: each weighs the same, as each pair does
    in edit_success.
    """
    faces_of, right = _faces_of(labels, probabilities.shape[1]), probabilities.argmax(1) == labels
    return interval(lambda w: np.nanmean(faces_of @ (w * right) / (faces_of @ w)), len(labels))


def _faces_of(labels, classes):
    """Which faces have each class: float (classes, n)."""
    return (labels == np.arange(classes)[:, None]).astype(float)


def identity_kept(edits, sources, people, faces):
    """The share of edits whose nearest real face, by an identity embedding, is of the same person.

    edits (m, k): embeddings of the edited faces; faces (n, k): of real ones; sources int64 (m,): the rows of faces
    that were edited, and which do not count as nearest; people int64 (n,), -1 unknown. Faces without another one of
    their person are left out; NaN where none is left.
    """
    others = ((people == people[:, None]) & (people >= 0)).sum(1) - 1
    keep = others[sources] > 0
    if not keep.any():
        return [float("nan")] * 3
    edits, sources = edits[keep], sources[keep]
    distances = cdist(edits, faces)
    distances[np.arange(len(sources)), sources] = np.inf
    same = people[distances.argmin(1)] == people[sources]
    kept, edited = (np.bincount(sources, weights, len(people)) for weights in (same, None))
    drawn = np.flatnonzero(edited)                              # the bootstrap draws faces, each with all its edits
    return interval(lambda w: (w @ kept[drawn]) / (w @ edited[drawn]), len(drawn))


def monotonicity(probabilities):
    """How steadily the judge's probability of the target rises along paths (n, steps): its rise over its ups and downs.

    1 if it never falls, 0 if it ends where it began (or never moves), -1 if it only falls.
    """
    moves = np.diff(np.asarray(probabilities, float), axis=1)
    length = np.abs(moves).sum(1)
    return mean_score(np.divide(moves.sum(1), length, out=np.zeros(len(moves)), where=length > 0))


def path_ratio(points, norm=2.0):
    """Length of paths (n, steps, k) over distance of their ends, by the p-norm, summed over paths; 1 if straight."""
    length = np.linalg.norm(np.diff(points, axis=1), norm, axis=2).sum(1)
    straight = np.linalg.norm(points[:, -1] - points[:, 0], norm, axis=1)
    return interval(lambda w: (w @ length) / (w @ straight), len(points))
