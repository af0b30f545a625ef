"""metric_vae/statistics.py against values worked by hand, slow loops and other libraries."""
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier

from metric_vae import statistics

RNG = np.random.default_rng(0)


def points(count=40, dimensions=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimensions))


def vectors(count=30):
    """Latent and given distances of the pairs i < j, and both as matrices."""
    e, d = statistics.euclidean(points(count)), statistics.euclidean(points(count, 2, seed=1) + points(count)[:, :2])
    i, j = np.triu_indices(count, 1)
    return e[i, j], d[i, j], e, d


# --- intervals and samples

def test_an_interval_of_a_constant_is_that_constant():
    assert statistics.mean_score(np.full(20, 3.0)) == [3, 3, 3]


def test_a_bootstrap_interval_of_a_mean_covers_it_about_95_times_in_100():
    covered = 0
    for seed in range(200):
        _, low, high = statistics.mean_score(np.random.default_rng(seed).standard_normal(50), seed=seed)
        covered += low <= 0 <= high
    assert 178 <= covered <= 199


def test_a_bootstrap_over_faces_is_wider_than_one_over_pairs():
    e, d, e_matrix, d_matrix = vectors()
    value, low, high = statistics.distance_scores(e_matrix, d_matrix, np.full(30, -1))["pearson"]
    assert value == pytest.approx(pearsonr(e, d)[0])
    over_pairs = statistics.interval(lambda w: statistics.pearson(e, d, w), len(e))
    assert high - low > 1.5 * (over_pairs[2] - over_pairs[1])


def test_weights_are_the_same_as_repeated_faces_without_pairs_of_a_face_and_its_copy():
    w = np.array([2, 1, 1, 0, 3, 1])
    rows = np.repeat(np.arange(6), w)
    i, j = np.triu_indices(len(rows), 1)
    distinct = rows[i] != rows[j]
    i, j = rows[i[distinct]], rows[j[distinct]]
    e, d = statistics.euclidean(points(6)), statistics.euclidean(points(6, seed=1))
    a, b = np.triu_indices(6, 1)
    weights = (w[a] * w[b]).astype(float)
    ones = np.ones(len(i))
    assert statistics.pearson(e[a, b], d[a, b], weights) == pytest.approx(pearsonr(e[i, j], d[i, j])[0])
    assert statistics.spearman(e[a, b], d[a, b])(weights) == pytest.approx(spearmanr(e[i, j], d[i, j])[0])
    assert statistics.stress(e[a, b], d[a, b], weights) == pytest.approx(statistics.stress(e[i, j], d[i, j], ones))


@pytest.mark.parametrize("count", [1, 7, 10, 50, 99, 100, 200])
def test_a_stratified_sample_keeps_to_its_count_and_has_every_label(count):
    labels = np.repeat([-1, 0, 3, 6], [50, 40, 9, 1])
    rows = statistics.stratified_rows(labels, count)
    assert len(rows) == len(np.unique(rows)) <= max(count, 4) and len(rows) >= min(count, 100)
    assert set(labels[rows]) == {-1, 0, 3, 6}
    if count == 50:
        assert abs((labels[rows] == -1).sum() - 25) <= 1 and abs((labels[rows] == 0).sum() - 20) <= 1


# --- the posterior

def test_active_units_are_those_that_vary_over_faces():
    mu = np.stack([points(500)[:, 0], .2 * points(500)[:, 1], .02 * points(500)[:, 2], np.full(500, 7.0)], 1)
    assert statistics.active_units(mu)[0] == 2


# --- distances

def test_unweighted_correlations_are_scipys_with_ties_too():
    e, d, *_ = vectors()
    ones = np.ones(len(e))
    assert statistics.pearson(e, d, ones) == pytest.approx(pearsonr(e, d)[0])
    assert statistics.spearman(e, d)(ones) == pytest.approx(spearmanr(e, d)[0])
    assert statistics.spearman(e.round(), d.round())(ones) == pytest.approx(spearmanr(e.round(), d.round())[0])


def test_stress_is_that_of_a_slow_loop_and_no_scale_does_better():
    e, d, *_ = vectors()
    ones = np.ones(len(e))

    def at(scale):
        return np.sqrt(sum((scale * a - b) ** 2 for a, b in zip(e, d)) / sum(b ** 2 for b in d))
    s = sum(a * b for a, b in zip(e, d)) / sum(a ** 2 for a in e)
    assert statistics.stress(e, d, ones) == pytest.approx(at(s))
    assert at(s) < min(at(.99 * s), at(1.01 * s))
    assert statistics.stress(5 * e, d, ones) == pytest.approx(at(s))


def test_a_metric_that_is_kept_scores_1_and_stress_0():
    e = statistics.euclidean(points(60))
    scores = statistics.distance_scores(3 * e, e, RNG.integers(0, 7, 60))
    assert set(scores) == {"pearson", "spearman", "spearman_within", "spearman_between", "stress", "trustworthiness",
                           "continuity", "triplets"}
    for name, (value, low, high) in scores.items():
        assert (value, low, high) == pytest.approx((0,) * 3 if name == "stress" else (1,) * 3, abs=1e-7), name


def test_spearman_within_and_between_take_the_right_pairs():
    _, _, e, d = vectors()
    labels = np.repeat([0, 1, -1], 10)
    scores = statistics.distance_scores(e, d, labels)
    within = [(i, j) for i in range(20) for j in range(i) if labels[i] == labels[j]]
    between = [(i, j) for i in range(20) for j in range(i) if labels[i] != labels[j]]
    for name, pairs in (("within", within), ("between", between)):
        i, j = np.array(pairs).T
        assert scores[f"spearman_{name}"][0] == pytest.approx(spearmanr(e[i, j], d[i, j])[0])


def test_pairs_without_a_given_distance_are_left_out_and_scores_that_need_all():
    _, _, e, d = vectors()
    labels = np.repeat([0, 1, -1], 10)
    missing = np.triu(np.random.default_rng(0).random((30, 30)) < .5, 1)
    given = np.where(missing | missing.T, np.nan, d)
    scores = statistics.distance_scores(e, given, labels)
    pairs = [(i, j) for i in range(30) for j in range(i + 1, 30) if not missing[i, j]]
    i, j = np.array(pairs).T
    assert set(scores) == {"pearson", "spearman", "spearman_within", "spearman_between", "stress", "triplets"}
    assert scores["pearson"][0] == pytest.approx(pearsonr(e[i, j], d[i, j])[0])
    assert scores["spearman"][0] == pytest.approx(spearmanr(e[i, j], d[i, j])[0])
    assert scores["stress"][0] == pytest.approx(statistics.stress(e[i, j], d[i, j], np.ones(len(i))))
    i, j = i[same := (labels[i] == labels[j]) & (labels[i] >= 0)], j[same]
    assert scores["spearman_within"][0] == pytest.approx(spearmanr(e[i, j], d[i, j])[0])


def test_triplets_without_both_distances_are_left_out():
    e, d = statistics.euclidean(points(8)), statistics.euclidean(points(8, seed=1))
    d[0, 1:] = d[1:, 0] = d[3, 5] = d[5, 3] = np.nan
    kept = [e[i, j] < e[i, k] for i in range(8) for j in range(8) for k in range(8)
            if len({i, j, k}) == 3 and d[i, j] < d[i, k]]
    assert statistics.triplets(e, d)[0] == pytest.approx(np.mean(kept), abs=.01)


def test_no_given_distance_gives_no_scores():
    e = statistics.euclidean(points(8))
    assert statistics.distance_scores(e, np.where(np.eye(8), 0, np.nan), np.full(8, -1)) == {}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_few_faces_or_no_labels_give_fewer_scores_and_no_error(count):
    e = statistics.euclidean(points(count))
    scores = statistics.distance_scores(e, e, np.full(count, -1))
    assert "spearman_within" not in scores
    assert all(np.isfinite(value[0]) for value in scores.values())


def test_neighbourhoods_get_no_scores_where_distances_do_not_say_which_are_the_nearest():
    e, labels = statistics.euclidean(points(60)), np.arange(60) % 3
    of_labels, shuffled = ((labels[:, None] != labels).astype(float), statistics.euclidean(points(60, seed=1)))
    neighbours = {"trustworthiness", "continuity"}
    assert not neighbours & set(statistics.distance_scores(e, of_labels, labels))
    shuffled[:5, :] = shuffled[:, :5] = 1                       # ambiguous for a few faces alone
    np.fill_diagonal(shuffled, 0)
    assert neighbours < set(statistics.distance_scores(e, shuffled, labels))


def test_trustworthiness_is_scikit_learns_and_continuity_exchanges_the_roles():
    x, y = points(50, 5), points(50, 2, seed=1)
    d, e = statistics.euclidean(x), statistics.euclidean(y)
    expected = trustworthiness(d, y, n_neighbors=statistics.NEIGHBOURS, metric="precomputed")
    assert statistics.trustworthiness_of_faces(d, e).mean() == pytest.approx(expected)
    assert statistics.trustworthiness_of_faces(d, d) == pytest.approx(np.ones(50))
    scores = statistics.distance_scores(e, d, np.full(50, -1))
    assert scores["trustworthiness"][0] == pytest.approx(expected)
    assert scores["continuity"][0] == pytest.approx(
        trustworthiness(e, x, n_neighbors=statistics.NEIGHBOURS, metric="precomputed"))


def test_triplets_are_those_of_brute_force():
    e, d = statistics.euclidean(points(8)), statistics.euclidean(points(8, seed=1))
    kept = [e[i, j] < e[i, k] for i in range(8) for j in range(8) for k in range(8)
            if len({i, j, k}) == 3 and d[i, j] < d[i, k]]
    assert statistics.triplets(e, d)[0] == pytest.approx(np.mean(kept), abs=.01)


def test_triplets_of_a_constant_latent_are_never_kept_and_equal_distances_do_not_count():
    e, d = np.ones((8, 8)) - np.eye(8), statistics.euclidean(points(8))
    assert statistics.triplets(e, d)[0] == 0
    labels = np.repeat([0, 1], 4)
    d = (labels[:, None] != labels).astype(float)
    assert statistics.triplets(d, d)[0] == 1


@pytest.mark.parametrize("voters", [1, 2, 15])
def test_neighbours_vote_as_in_scikit_learn_without_the_face_itself(voters):
    x, labels = points(60), np.random.default_rng(0).integers(0, 7, 60)
    right = statistics.neighbours_agree(statistics.euclidean(x), labels, voters)
    for i in range(60):
        others = np.arange(60) != i
        model = KNeighborsClassifier(voters).fit(x[others], labels[others])
        assert right[i] == (model.predict(x[i:i + 1])[0] == labels[i])


def test_15_neighbours_vote_where_every_expression_has_16_faces_and_as_many_as_it_has_others_where_one_has_fewer():
    for counts, voters in (((16, 40), 15), ((4, 40), 3), ((2, 40), 1), ((1, 40), 15), ((1, 4, 40), 3)):
        labels = np.repeat(np.arange(len(counts)), counts)
        e = statistics.euclidean(points(len(labels)))
        rows = np.flatnonzero(np.array(counts)[labels] > 1)
        expected = statistics.neighbours_agree(e[np.ix_(rows, rows)], labels[rows], voters).mean()
        assert statistics.knn_accuracy(e, labels)[0] == pytest.approx(expected)


@pytest.mark.parametrize("counts", [(2, 3, 5), (2, 2), (3, 3, 3), (5, 30), (2, 1, 1), (7, 7, 7, 7, 7, 7, 7)])
def test_small_classes_that_lie_apart_are_all_recognised(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    x = 100 * np.eye(7)[labels] + points(len(labels), 7)
    assert statistics.knn_accuracy(statistics.euclidean(x), labels) == [1, 1, 1]


def test_single_faces_of_their_expression_are_left_out_of_the_neighbours_accuracy():
    x = np.array([[0.], [1], [10], [11], [2]])                  # the last one would be the nearest of the second
    assert statistics.knn_accuracy(statistics.euclidean(x), np.array([0, 0, 1, 1, 2])) == [1, 1, 1]
    for labels in ([0, 1, 2, 3, 4], [-1] * 5, [-1, -1, 3, -1, -1]):
        assert np.isnan(statistics.knn_accuracy(statistics.euclidean(x), np.array(labels))).all()


def test_twenty_faces_of_each_expression_that_lie_apart_are_all_recognised():
    apart = np.repeat(np.eye(7) * 100, 20, axis=0) + points(140, 7)
    assert statistics.knn_accuracy(statistics.euclidean(apart), np.repeat(np.arange(7), 20)) == [1, 1, 1]


def test_unlabelled_faces_do_not_vote():
    x = np.concatenate([np.zeros((20, 2)), np.zeros((200, 2))]) + points(220, 2) * .01
    labels = np.concatenate([np.full(20, 3), np.full(200, -1)])
    assert statistics.knn_accuracy(statistics.euclidean(x), labels)[0] == 1


# --- edits: faces whose pixel (0, b) is the value of expression b

def decode(z):
    faces = np.zeros((len(z), 8, 8))
    faces[:, 0, :7] = z[:, :7]
    return faces


def judge(faces):
    return faces[:, 0, :7]


def test_edits_move_by_the_difference_of_means_in_the_given_dimensions():
    mu, means = points(4, 3), points(7, 3, seed=1)
    source, target = np.array([0, 1, 2, 3]), np.array([4, 4, 5, 6])
    expected = np.stack([mu[i] - means[source[i]] + means[target[i]] for i in range(4)])
    assert statistics.edit(mu, source, target, means) == pytest.approx(expected)
    part = statistics.edit(mu, 3, 4, means, slice(2))
    assert part[:, :2] == pytest.approx((mu - means[3] + means[4])[:, :2]) and (part[:, 2] == mu[:, 2]).all()


def test_interpolations_begin_and_end_at_the_ends():
    start, end = points(3), points(3, seed=1)
    path = statistics.interpolate(start, end, 5)
    assert path.shape == (3, 5, 3)
    assert path[:, 0] == pytest.approx(start) and path[:, -1] == pytest.approx(end)
    assert path[:, 2] == pytest.approx((start + end) / 2)


def test_edits_that_work_always_score_1_and_those_that_change_nothing_score_0():
    labels = np.repeat(np.arange(7), 5)
    mu = np.eye(7)[labels] + .01 * points(35, 7)
    means = statistics.class_means(mu, labels, 7)

    def edit(places, target):
        return decode(statistics.edit(mu[places], labels[places], target, means))
    hits = statistics.edit_hits(edit, judge, labels, range(7), 7)
    assert np.isnan(hits[np.arange(35), labels]).all() and np.isfinite(hits).sum() == 35 * 6
    assert statistics.edit_success(hits, labels) == [1, 1, 1]
    hits = statistics.edit_hits(lambda places, target: decode(mu[places]), judge, labels, range(7), 7)
    assert statistics.edit_success(hits, labels) == [0, 0, 0]


def test_edit_success_weighs_pairs_of_expressions_alike_and_takes_missing_ones():
    labels = np.array([0, 0, 0, 1])
    found = np.array([[9, 1], [9, 1], [9, 0], [0, 9]])          # what the judge sees in each face's edit to 0 and to 1
    hits = statistics.edit_hits(lambda places, target: found[places, target], lambda faces: np.eye(7)[faces], labels,
                                [0, 1], 7)
    assert np.array_equal(hits[:, :2], [[np.nan, 1], [np.nan, 1], [np.nan, 0], [1, np.nan]], equal_nan=True)
    assert np.isnan(hits[:, 2:]).all()
    assert statistics.edit_success(hits, labels)[0] == pytest.approx((2 / 3 + 1) / 2)


def test_an_expression_without_faces_has_no_mean():
    means = statistics.class_means(points(3), np.array([0, 0, -1]), 7)
    assert means[0] == pytest.approx(points(3)[:2].mean(0)) and np.isnan(means[1:]).all()


def test_identity_is_kept_where_the_nearest_other_face_is_of_the_same_person():
    faces = np.array([[0, 0], [0, 1], [9, 0], [9, 1], [50, 50]], float)
    people = np.array([0, 0, 1, 1, 2])
    sources = np.array([0, 2, 4])                               # the last one has no other face: left out
    assert statistics.identity_kept(faces[sources], sources, people, faces)[0] == 1
    assert statistics.identity_kept(faces[[2, 0, 4]], sources, people, faces)[0] == 0
    assert statistics.identity_kept(faces[[0, 0, 4]], sources, people, faces)[0] == .5
    two_of_one = statistics.identity_kept(faces[[1, 1, 0]], np.array([0, 0, 2]), people, faces)
    assert two_of_one == pytest.approx([2 / 3, 0, 1])           # by faces: both edits of face 0 are drawn, or none
    unknown = np.array([-1, -1, 1, 1, 2])
    assert statistics.identity_kept(faces[[0, 2, 4]], sources, unknown, faces)[0] == 1
    assert np.isnan(statistics.identity_kept(faces[:2], np.arange(2), unknown, faces)).all()


def test_monotonicity_of_rising_falling_still_and_wavering_paths():
    assert statistics.monotonicity([[0, .1, .9, 1]])[0] == 1
    assert statistics.monotonicity([[1, .5, 0, 0]])[0] == -1
    assert statistics.monotonicity([[.3, .3, .3, .3]])[0] == 0
    assert statistics.monotonicity([[0, .6, .3, .5]])[0] == pytest.approx(.5 / 1.1)


def test_the_path_ratio_is_1_for_a_line_and_the_root_of_2_for_a_corner():
    line, corner = [[0, 0], [1, 1], [3, 3]], [[0, 0], [0, 1], [1, 1]]
    assert statistics.path_ratio(np.array([line], float))[0] == pytest.approx(1)
    assert statistics.path_ratio(np.array([corner], float))[0] == pytest.approx(2 ** .5)
    assert statistics.path_ratio(np.array([corner], float), 1)[0] == pytest.approx(1)


def test_balanced_accuracy_is_the_mean_of_each_expressions_share():
    labels = np.array([0, 0, 0, 0, 1, 1])
    said = np.eye(7)[[0, 0, 0, 1, 1, 0]]                        # 3 of 4 and 1 of 2; five expressions have no face
    assert statistics.balanced_accuracy(said, labels)[0] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert statistics.accuracy(said, labels)[0] == pytest.approx(4 / 6)
