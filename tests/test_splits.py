"""Drawn splits: 8 : 1 : 1, stratified, disjoint in identity, the same with every version of every library."""
import numpy as np
import pytest

from data.splits import split_faces


def test_a_drawn_split_shares_no_identity(labels, identities):
    split = split_faces(labels, identities, seed=0)
    people = [set(identities[split == part]) for part in range(3)]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert [len(p) for p in people] == [8, 1, 1]


def test_a_drawn_split_without_identities_is_stratified(labels):
    split = split_faces(labels, np.full(70, -1), seed=0)
    for label in range(7):
        assert np.bincount(split[labels == label]).tolist() == [8, 1, 1]


def test_a_drawn_split_depends_on_the_seed_alone(labels):
    unknown = np.full(70, -1)
    assert (split_faces(labels, unknown, 3) == split_faces(labels, unknown, 3)).all()
    assert (split_faces(labels, unknown, 3) != split_faces(labels, unknown, 4)).any()


def test_two_faces_are_too_few(user_error):
    user_error(lambda: split_faces(np.array([0, 1]), np.array([-1, -1]), 0), "2 faces")


def test_three_faces_go_one_to_each_part():
    assert sorted(split_faces(np.array([0, 1, 2]), np.full(3, -1), 0)) == [0, 1, 2]


def test_fewer_faces_of_every_label_than_parts_still_split(labels):
    people = np.arange(63) // 3                                 # 9 faces of each label, 21 people, 10 parts
    split = split_faces(labels[:63], people, 0)
    assert set(split) == {0, 1, 2} and not set(people[split == 0]) & set(people[split == 2])


def test_few_faces_of_unknown_identity_beside_known_ones_train(labels, identities):
    identities[[0, 69]] = -1
    assert (split_faces(labels, identities, 0)[[0, 69]] == 0).all()


def test_with_few_people_the_one_with_the_most_faces_trains(labels):
    people = np.repeat([0, 1, 2], [10, 50, 10])
    assert (split_faces(labels, people, 0)[people == 1] == 0).all()


@pytest.mark.parametrize("sizes", [[500] + [9] * 14, [200, 200] + [20] * 14])
def test_of_many_people_those_with_far_more_faces_than_a_part_train(sizes):
    people = np.repeat(np.arange(len(sizes)), sizes)
    split = split_faces(np.arange(len(people)) % 7, people, 0)
    assert (split[people == 0] == 0).all() and set(split) == {0, 1, 2}
    assert max((split == 1).sum(), (split == 2).sum()) <= .2 * len(people)
    assert not set(people[split == 0]) & set(people[split == 2])


@pytest.mark.parametrize("known", [False, True])
def test_each_label_keeps_a_face_in_train_however_few_it_has(known):
    for seed in range(10):
        labels = np.r_[np.zeros(60, int), np.repeat(np.arange(1, 21), 1), 21, 21]
        people = np.arange(82) // 2 if known else np.full(82, -1)
        split = split_faces(labels, people, seed)
        assert set(labels[split == 0]) == set(range(22)) and set(split) == {0, 1, 2}
        assert not known or not set(people[split == 0]) & set(people[split > 0])


def test_who_alone_has_a_label_trains_in_place_of_another_person():
    labels, people = np.r_[0, 1, 0, 1, 0, 1, 2, 3], np.arange(8) // 2              # the last person alone has 2 and 3
    for seed in range(10):
        split = split_faces(labels, people, seed)
        assert set(labels[split == 0]) == {0, 1, 2, 3} and set(split) == {0, 1, 2}


def test_labels_with_fewer_faces_than_parts_are_stratified(labels):
    labels = np.arange(63) % 7                                  # 9 faces of each, ten parts
    for seed in range(10):
        split = split_faces(labels, np.full(63, -1), seed)
        for part in (1, 2):
            assert np.bincount(labels[split == part], minlength=7).max() == 1 and (split == part).sum() in (6, 7)


def test_people_who_are_too_few_can_be_left_out(user_error):
    user_error(lambda: split_faces(np.arange(20) % 2, np.arange(20) % 2, 0), "2 identities",
               "add people; or for folders leave IDENTITY_PATTERN out")


def test_the_rows_of_a_drawn_split_stay_the_same(labels, identities):
    # literal: a newer scikit-learn or numpy must not change them
    alone = split_faces(labels, np.full(70, -1), 0)
    together = split_faces(np.arange(60) % 3, np.arange(60) ** 2 % 17, 5)
    assert np.flatnonzero(alone == 2).tolist() == [39, 43, 44, 52, 56, 68, 69]
    assert np.flatnonzero(alone == 1).tolist() == [5, 10, 15, 20, 28, 32, 37]
    assert np.flatnonzero(together == 2).tolist() == [0, 17, 34, 51]
    assert np.flatnonzero(together == 1).tolist() == [4, 13, 21, 30, 38, 47, 55]
