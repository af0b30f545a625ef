"""The synthetic faces: the same pixels for the same seed, action units, truth for edits, cache."""
import hashlib
from dataclasses import replace

import numpy as np
import pytest

from data import rendering, synthetic
from data.faces import without_classes
from data.synthetic import (ACTION_UNITS, IDENTITY_PARAMETERS, NUISANCE_PARAMETERS, PROTOTYPES, expected_action_units,
                            load, render, sample, sample_action_units, with_expression)
from training.errors import UserError

# of 16 faces at 48 and 4 at 64 pixels, seed 0; when pixels are meant to change, change these and VERSION
DIGESTS = {(16, 48): "04fd529345bf05c5b5dc26790777eb99009cc16a0682e502bf996b723532f77b",
           (4, 64): "127df1c8fa6e14753e85e0838979aa514105cd927eb6b259863bb260141b9b09"}
NEUTRAL, HAPPY, SURPRISE = 6, 3, 5


def generator(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def drawn(count, size=48, seed=0):
    """The first faces of a stream of people, expressions and nuisance."""
    rng = generator(seed)
    labels = np.arange(count) % 7
    return render(sample(IDENTITY_PARAMETERS, count, rng), sample_action_units(labels, rng),
                  sample(NUISANCE_PARAMETERS, count, rng), size)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return load(48, seed=3, count=140, identities=20, cache=tmp_path_factory.mktemp("cache"))


# --- pixels

@pytest.mark.parametrize("count, size", DIGESTS)
def test_pixels_are_those_of_every_other_machine(count, size):
    assert hashlib.sha256(drawn(count, size).tobytes()).hexdigest() == DIGESTS[count, size]


def test_other_seeds_give_other_faces():
    assert (drawn(2, seed=0) != drawn(2, seed=1)).mean() > .9


def test_a_face_does_not_depend_on_its_chunk_or_on_threads(monkeypatch):
    images = drawn(13)
    monkeypatch.setattr(synthetic, "CHUNK", 3)
    monkeypatch.setattr(synthetic, "THREADS", 1)
    assert (drawn(13) == images).all()


@pytest.mark.parametrize("size", [8, 24, 64, 96])
def test_any_multiple_of_8_is_drawn_and_shows_the_same_face(size):
    images = drawn(4, size)
    assert images.shape == (4, size, size) and images.dtype == np.uint8
    coarse, expected = (x.reshape(4, 8, x.shape[1] // 8, 8, x.shape[1] // 8).mean((2, 4)) for x in (images, drawn(4)))
    assert np.corrcoef(coarse.ravel(), expected.ravel())[0, 1] > (.9 if size == 8 else .99)


@pytest.mark.parametrize("size", [0, 47, -8])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserError, match="multiple of 8"):
        drawn(1, size)


def test_no_faces_are_drawn_for_no_rows():
    assert drawn(0).shape == (0, 48, 48)


def test_noise_has_mean_0_and_variance_1_and_no_correlation_between_pixels_or_seeds():
    x = rendering.noise(np.arange(40, dtype=np.float32).reshape(-1, 1, 1), 48)
    assert abs(x.mean()) < .02 and abs(x.var() - 1) < .02
    for a, b in ((x[:, :, 1:], x[:, :, :-1]), (x[:, 1:], x[:, :-1]), (x[1:], x[:-1])):
        assert abs((a * b).mean()) < .02


# --- parameters

@pytest.mark.parametrize("table", [IDENTITY_PARAMETERS, NUISANCE_PARAMETERS])
def test_parameters_keep_to_their_table(table):
    values = sample(table, 20000, generator())
    assert values.dtype == np.float32 and values.shape == (20000, len(table))
    for column, (name, (rate, low, high, _)) in zip(values.T, table.items()):
        active = column[column != 0] if rate < 1 else column
        assert low - 1e-5 <= active.min() and active.max() <= high + 1e-5 * abs(high), name
        assert abs(active.mean() - (low + high) / 2) < .03 * (high - low), name
        assert abs(len(active) / len(column) - rate) < .02, name
        assert (column == np.floor(column)).all() == name.endswith("_seed"), name


def test_core_units_are_always_on_and_optional_ones_at_their_rates():
    for label, units in enumerate(PROTOTYPES):
        values = sample_action_units(np.full(4000, label), generator(label))
        assert values.min() >= 0 and values.max() <= 1
        for column, unit in zip(values.T, ACTION_UNITS):
            rate, low, _ = units.get(unit, (0, 1, 1))
            on = (column >= min(low, synthetic.TWITCH + 1e-6)).mean()
            assert on == rate if rate in (0, 1) else abs(on - rate) < .03, (label, unit)
            assert rate < 1 or column.min() >= low


def test_expected_action_units_are_the_mean_of_many_samples():
    for label in range(7):
        samples = sample_action_units(np.full(40000, label), generator(label))
        expected = expected_action_units([label])
        assert expected.dtype == np.float32 and expected.shape == (1, len(ACTION_UNITS))
        assert np.abs(samples.mean(0) - expected[0]).max() < .01


# --- the data set

def test_the_same_seed_gives_the_same_data_set_and_another_seed_another(tmp_path):
    first, again, other = (load(16, seed, 60, 15, tmp_path / name)
                           for seed, name in ((3, "first"), (3, "again"), (4, "other")))
    assert again.fingerprint == first.fingerprint != other.fingerprint


def test_the_record_has_the_documented_shapes(faces):
    assert faces.images.shape == (140, 48, 48) and faces.images.dtype == np.uint8
    for array in (faces.labels, faces.identities, faces.split):
        assert array.shape == (140,) and array.dtype == np.int64
    widths = {"identity": len(IDENTITY_PARAMETERS), "action_units": len(ACTION_UNITS),
              "nuisance": len(NUISANCE_PARAMETERS)}
    assert {name: array.shape for name, array in faces.factors.items()} == {k: (140, v) for k, v in widths.items()}
    assert all(array.dtype == np.float32 for array in faces.factors.values())


def test_labels_are_balanced_and_every_person_makes_several_expressions(faces):
    assert (np.bincount(faces.labels, minlength=7) == 20).all()
    for person in range(20):
        assert len(set(faces.labels[faces.identities == person])) == 7
        assert len(np.unique(faces.factors["identity"][faces.identities == person], axis=0)) == 1


def test_few_faces_have_fewer_people_who_still_make_several_expressions(tmp_path):
    faces = load(8, count=30, cache=tmp_path)
    people = np.unique(faces.identities)
    assert len(people) == 7
    assert all(len(set(faces.labels[faces.identities == person])) >= 4 for person in people)


def test_no_person_is_in_two_splits(faces):
    people = [set(faces.identities[faces.split == part]) for part in range(3)]
    assert all(people) and sum(map(len, people)) == 20 == len(set.union(*people))


def test_the_stored_factors_draw_the_stored_faces(faces):
    rows = np.array([0, 7, 139])
    assert (render(*(faces.factors[name][rows] for name in ("identity", "action_units", "nuisance")))
            == faces.images[rows]).all()


# --- edits

def changed(faces, rows, table, factor, name):
    """Which pixels of neutral faces change with one parameter, bool (n, H, W)."""
    shifted = faces.factors[factor].copy()
    shifted[:, list(table).index(name)] += .3
    labels = np.full(len(rows), NEUTRAL)
    return (with_expression(replace(faces, factors={**faces.factors, factor: shifted}), rows, labels)
            != with_expression(faces, rows, labels))


def test_an_edit_keeps_the_background_and_changes_the_mouth(faces):
    rows = np.arange(40)
    neutral, happy = (with_expression(faces, rows, np.full(40, label)) for label in (NEUTRAL, HAPPY))
    background = (changed(faces, rows, NUISANCE_PARAMETERS, "nuisance", "background")
                  & ~changed(faces, rows, IDENTITY_PARAMETERS, "identity", "skin")
                  & ~changed(faces, rows, IDENTITY_PARAMETERS, "identity", "hair"))
    assert background.sum() > 500
    assert (happy[background] == neutral[background]).all()
    mouth = np.abs(happy.astype(int) - neutral)[:, 32:42, 16:32]
    assert (mouth.max((1, 2)) > 20).all() and mouth.mean() > 8


def test_an_edit_to_surprise_opens_a_dark_mouth(faces):
    rows = np.arange(40)
    neutral, surprise = (with_expression(faces, rows, np.full(40, label)) for label in (NEUTRAL, SURPRISE))
    assert (surprise[:, 36:41, 21:27].mean((1, 2)) < neutral[:, 36:41, 21:27].mean((1, 2)) - 5).mean() > .9


def test_edits_take_a_label_a_row_and_none_for_no_rows(faces):
    both = with_expression(faces, [5, 2], [NEUTRAL, HAPPY])
    assert (both[1] == with_expression(faces, [2], [HAPPY])[0]).all()
    assert with_expression(faces, [], []).shape == (0, 48, 48)


def test_the_true_face_has_the_expression_of_its_name_where_classes_are_left_out(faces):
    few = without_classes(faces, "anger, fear")
    rows = np.arange(10)
    kept = np.flatnonzero(~np.isin(faces.labels, [0, 2]))[rows]
    happy = with_expression(few, rows, np.full(10, few.classes.index("happy")))
    assert (happy == with_expression(faces, kept, np.full(10, HAPPY))).all()


# --- the cache

def test_cached_faces_equal_fresh_ones(tmp_path, monkeypatch):
    fresh = load(16, count=60, cache=tmp_path)
    monkeypatch.setattr(synthetic, "make", None)                # drawing anew would fail
    cached = load(16, count=60, cache=tmp_path)
    assert cached.fingerprint == fresh.fingerprint
    assert all((cached.factors[name] == fresh.factors[name]).all() for name in fresh.factors)


@pytest.mark.parametrize("change", [dict(image_size=24), dict(seed=1), dict(count=61), dict(identities=14)])
def test_other_settings_are_cached_in_other_files(change, tmp_path):
    for settings in ({}, change):
        load(**{"image_size": 16, "count": 60, "identities": 15, "cache": tmp_path, **settings})
    assert len(list(tmp_path.iterdir())) == 2


def test_another_version_of_the_renderer_is_cached_in_another_file(tmp_path, monkeypatch):
    load(16, count=60, cache=tmp_path)
    monkeypatch.setattr(synthetic, "VERSION", -1)
    load(16, count=60, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:len(data) // 2], lambda data: b"x" * 99,
                                    lambda data: data[:5000] + bytes([data[5000] ^ 255]) + data[5001:]])
def test_a_damaged_cache_is_drawn_again(damage, tmp_path, capsys):
    fresh = load(16, count=60, cache=tmp_path)
    path, = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = load(16, count=60, cache=tmp_path)
    assert "drawn again" in capsys.readouterr().out
    assert again.fingerprint == fresh.fingerprint
    load(16, count=60, cache=tmp_path)
    assert capsys.readouterr().out == ""


def test_a_cache_that_cannot_be_written_costs_a_line_only(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    faces = load(16, count=60, cache=tmp_path / "file")
    assert len(faces) == 60 and capsys.readouterr().out.count("\n") == 1
