"""metric_vae/train.py: the training loop of the VAE, what it refuses, resumes, draws and validates."""
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn

from data.batches import Images
from data.faces import checked
from metric_vae import statistics
from metric_vae import train as vae
from metric_vae.loss import Loss, Terms
from metric_vae.metrics import Function, Matrix, PairFunction, Points, SparseMatrix
from metric_vae.model import ARCHITECTURES, VAE
from metric_vae.regularizers import REGULARIZERS
from metric_vae.statistics import euclidean
from metric_vae.trained import encode, load_vae
from training.errors import UserError
from training.log import read_log
from test_vae import CPU, SMALL, brightness, few_distances, loss_of

pytestmark = pytest.mark.usefixtures("one_thread")


def train(name, faces, metric, folder, **changes):
    """The VAE called name, trained with SMALL and these changes."""
    return vae.train(name, faces, metric, replace(SMALL, **changes), folder, 0, CPU, "fp32")


def test_a_last_batch_of_too_few_faces_joins_the_one_before(small_faces, tmp_path):
    """56 training faces in batches of 9: six batches and two faces."""
    sizes = []

    def watched(x):
        sizes.append(len(x))
        return brightness(x)
    train("dist_reg", small_faces, Function(watched), tmp_path, STEPS=1, BATCH=9, METRIC_DIMS=None)
    assert sizes[:6] == [9, 9, 9, 9, 9, 11]


def test_validation_mixes_faces_that_lie_by_expression(images):
    """In the order of the data each batch would be faces of one label, at distance 0."""
    labels = np.repeat(np.arange(7), 10)
    faces = checked(images, labels, None, np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 2] * 7), "sorted", "sorted", seed=0)
    model, loss = ARCHITECTURES["light"](16, 8, 4), loss_of(Points(np.eye(7)[labels]), BATCH=8)
    loss.schedule(0)
    validate = lambda rows: vae.validate(model, loss, Images(faces, CPU), rows, 0, "fp32")
    assert validate(faces.rows("val"))["val_regularizer"] > .01
    assert set(validate(np.array([], int)).values()) == {None}


def test_training_lowers_the_loss_and_logs_every_term(small_faces, tmp_path):
    train("dist_reg", small_faces, Function(brightness), tmp_path, STEPS=16)
    lines = read_log(tmp_path, "dist_reg")
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4] and lines[-1]["loss"] < lines[0]["loss"]
    for line in lines:
        for prefix in ("", "val_"):
            terms = [line[prefix + term] for term in Terms._fields]
            weights = (1, line["alpha"], line["beta"], 0)
            assert line[prefix + "loss"] == pytest.approx(np.dot(weights, terms), rel=1e-4)


def test_a_decoder_that_the_consistency_loss_cannot_enter_is_named(small_faces, tmp_path, monkeypatch, capsys):
    def own(size, z_dim, metric_dims, channels):
        decoder = nn.Sequential(nn.Identity(), nn.Linear(z_dim, size ** 2), nn.Unflatten(1, (1, size, size)))
        return VAE(nn.Sequential(nn.Flatten(), nn.Linear(size ** 2, 2 * z_dim)), decoder, metric_dims)
    monkeypatch.setitem(ARCHITECTURES, "own", own)
    for folder, changes, said in (("own", dict(ARCHITECTURE="own"), True), ("light", {}, False),
                                  ("without", dict(ARCHITECTURE="own", CONSISTENCY=(0.0, 0.0)), False)):
        (tmp_path / folder).mkdir()
        changes = dict(CONSISTENCY=(0.5, 1.0)) | changes
        train("dist_reg", small_faces, Function(brightness), tmp_path / folder, STEPS=1, **changes)
        assert ("consistency loss reaches the encoder alone" in capsys.readouterr().out) == said


def test_consistency_is_logged_of_the_second_half_of_training_alone(small_faces, tmp_path):
    """Three epochs of four steps: the last two of the second epoch's steps and all of the third's measure it."""
    train("dist_reg", small_faces, Function(brightness), tmp_path, STEPS=12, CONSISTENCY=(0.5, 1.0),
          LEARNING_RATE=(0.0, 0.0), FLIP=False)
    first, second, third = (line["consistency"] for line in read_log(tmp_path))
    assert first is None and second == pytest.approx(third, rel=.5)


def test_a_gradient_is_cut_to_max_gradient(small_faces, tmp_path, monkeypatch):
    norms, models, light = [], [], ARCHITECTURES["light"]
    step = torch.optim.Adam.step

    def watched(optimizer, *args):
        parameters = optimizer.param_groups[0]["params"]
        branch = {id(p) for p in models[-1].encoder.metric.parameters()}
        for part in ([p for p in parameters if id(p) in branch], [p for p in parameters if id(p) not in branch]):
            norms.append(float(torch.cat([p.grad.flatten() for p in part]).norm()))
        return step(optimizer, *args)

    def make(*arguments):
        models.append(light(*arguments))
        return models[-1]

    monkeypatch.setitem(ARCHITECTURES, "light", make)
    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    for name, most in (("free", None), ("cut", 0.5)):
        (tmp_path / name).mkdir()
        norms.clear()
        train("dist_reg", small_faces, Function(brightness), tmp_path / name, MAX_GRADIENT=most, STEPS=4)
        for of_part in (norms[::2], norms[1::2]):               # of the metric branch, and of all else
            assert max(of_part) > 1 if most is None else max(of_part) == pytest.approx(most, rel=1e-4)


@pytest.mark.parametrize("alpha, target", [((0.1, 0.5), None), ("optimal", 0.2)])
def test_training_resumed_after_each_epoch_ends_with_the_same_numbers(small_faces, tmp_path, monkeypatch, alpha,
                                                                      target):
    changes = dict(STEPS=12, ALPHA=alpha, TARGET_STRESS=target)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = train("dist_reg", small_faces, Function(brightness), tmp_path / "a", **changes)
    write_log = vae.write_log

    def stop(*arguments, **values):
        write_log(*arguments, **values)
        if len(read_log(tmp_path / "b")) < 3 and stop.tries < 2:
            stop.tries += 1
            raise KeyboardInterrupt                             # between the log line and the checkpoint
    stop.tries = 0
    monkeypatch.setattr(vae, "write_log", stop)
    for _ in range(3):
        try:
            again = train("dist_reg", small_faces, Function(brightness), tmp_path / "b", **changes)
        except KeyboardInterrupt:
            pass
    for a, b in zip(whole.parameters(), again.parameters()):
        assert torch.equal(a, b)
    timeless = lambda folder: [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")}
                               for line in read_log(folder)]
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b") and len(timeless(tmp_path / "b")) == 3


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(small_faces, tmp_path, user_error):
    calls = []

    def breaks_in_the_second_epoch(x):
        calls.append(1)
        return x.mean((1, 2, 3))[:, None] * (float("nan") if len(calls) > 6 else 1)
    text = user_error(lambda: train("dist_reg", small_faces, Function(breaks_in_the_second_epoch), tmp_path, STEPS=12),
                      "epoch 2", "dist_reg.pt keeps epoch 1")
    assert "regularizer" in text
    model = load_vae(tmp_path, "dist_reg", CPU)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("values, word", [
    (dict(REGULARIZER="strss"), "stress"), (dict(METRIC_DIMS=9), "METRIC_DIMS"), (dict(STEPS=0), "STEPS"),
    (dict(ALPHA="best"), "optimal"), (dict(TARGET_STRESS=.1, REGULARIZER="none"), "TARGET_STRESS"),
    (dict(ARCHITECTURE="big"), "light"), (dict(METRIC_NORM=.5), "METRIC_NORM"),
    (dict(METRIC_KIND="matrix"), "distances"), (dict(METRIC_KIND="points"), "embeddings"), (dict(BATCH=2), "BATCH"),
    (dict(METRIC_BATCH=3), "METRIC_BATCH"), (dict(LOOKED_UP=2.0), "LOOKED_UP"),
    (dict(SHIFT=-1), "SHIFT"), (dict(WARM_UP=2.0), "WARM_UP"), (dict(ADAM_BETA2=1.0), "ADAM_BETA2"),
    (dict(METRIC_DIMS=8), "METRIC_DIMS"), (dict(BETA=5.0), "BETA"),
    (dict(CONSISTENCY=(-1.0, 0.0)), "CONSISTENCY"), (dict(LEARNING_RATE=(1e-3,)), "LEARNING_RATE"),
    (dict(MAX_GRADIENT=0.0), "MAX_GRADIENT"), (dict(ALPHA=0.1), "ALPHA"),
    (dict(BETA=(0.0, 1.0), TARGET_STRESS=.1), "TARGET_STRESS"),
    (dict(REGULARIZE_ON="expected", REGULARIZER="pointwise"), "REGULARIZE_ON")])
def test_a_constant_that_cannot_be_is_refused(user_error, values, word):
    user_error(lambda: vae.check_settings(replace(SMALL, **values)), word)


def test_what_a_metric_cannot_give_is_refused(small_faces, tmp_path, user_error):
    for metric in (Matrix(np.zeros((70, 70))), few_distances(70, (0, 1)), PairFunction(brightness)):
        vae.check_faces(SMALL, small_faces, metric)
        points_wanted = replace(SMALL, REGULARIZER="pointwise")
        user_error(lambda: vae.check_faces(points_wanted, small_faces, metric), "pointwise")
    (tmp_path / "mine.py").write_text("def all_pairs(e, d, known):\n    return (e - d).square().mean()\n")
    own = replace(SMALL, REGULARIZER=f"{tmp_path}/mine.py:all_pairs")
    vae.check_faces(own, small_faces, PairFunction(brightness))
    user_error(lambda: vae.check_faces(own, small_faces, few_distances(70, (0, 1))), "where known is False")


@pytest.mark.parametrize("name", REGULARIZERS)
def test_each_regularizer_falls_through_the_real_loop(small_faces, tmp_path, name):
    beta = (1e4, 1e4) if name == "batchwise" else (100.0, 100.0)
    points = Points(np.random.default_rng(0).normal(size=(7, 3))[small_faces.labels])
    train("dist_reg", small_faces, points, tmp_path, STEPS=40, REGULARIZER=name, BETA=beta)
    values = [line["val_regularizer"] for line in read_log(tmp_path)]
    assert values[-1] < .8 * values[0] or values[-1] < .01


def test_only_the_regularized_model_keeps_distances_that_are_not_in_the_pixels(small_faces, tmp_path):
    """Points at random for each expression: which of them are near says nothing of their bars."""
    points = np.random.default_rng(0).normal(size=(7, 3))[small_faces.labels]
    rows = small_faces.rows("test")
    scores = {}
    for name in vae.MODELS:
        model = train(name, small_faces, Points(points), tmp_path, STEPS=120, CONSISTENCY=(0.0, 1.0),
                      BETA=(100.0, 100.0))
        mu, _ = encode(model, small_faces, rows, CPU)
        dims = slice(model.metric_dims if name == "dist_reg" else None)
        e, d = euclidean(mu[:, dims]), euclidean(points[rows])
        scores[name] = statistics.distance_scores(e, d, small_faces.labels[rows])
    assert scores["dist_reg"]["spearman"][0] > .9 > .6 > scores["no_dist_reg"]["spearman"][0]
    assert scores["dist_reg"]["stress"][0] < .15 < scores["no_dist_reg"]["stress"][0]


def test_fewer_faces_than_a_batch_are_refused(small_faces, tmp_path, user_error):
    user_error(lambda: train("dist_reg", small_faces, Function(brightness), tmp_path, BATCH=64), "BATCH=64")


def test_pairs_are_of_training_faces_which_are_warped_less_where_the_metric_cannot_follow(small_faces):
    rows, images = small_faces.rows("train"), Images(small_faces, CPU)
    looked_up = Points(np.random.default_rng(0).normal(size=(70, 2)))

    def change(metric, **settings):
        settings = replace(SMALL, FLIP=False, METRIC_BATCH=600, **settings)
        groups = torch.from_numpy(metric.drawn(rows))
        pairs = vae.draw_pairs(images, groups, metric, settings, torch.Generator().manual_seed(0))
        assert set(pairs.rows.tolist()) == set(rows.tolist()) and pairs.noise.shape == (600, 4)
        return float((pairs.x - images(pairs.rows)).abs().mean())
    assert change(looked_up, LOOKED_UP=0.0) == pytest.approx(0, abs=1e-6)
    assert change(looked_up, LOOKED_UP=1.0) == change(Function(brightness), LOOKED_UP=0.0)
    assert 0.01 < change(looked_up) < 0.8 * change(Function(brightness))


def test_of_a_sparse_matrix_the_stored_pairs_of_training_faces_are_drawn(small_faces):
    rows, images = small_faces.rows("train"), Images(small_faces, CPU)
    a, b, c, d, held_out = *rows[:4].tolist(), small_faces.rows("val")[0]
    i, j = np.array([a, b, a, c]), np.array([b, d, held_out, held_out])
    metric = SparseMatrix(scipy.sparse.csr_array((np.ones(8), (np.append(i, j), np.append(j, i))), (70, 70)))
    groups = torch.from_numpy(metric.drawn(rows))
    pairs = vae.draw_pairs(images, groups, metric, replace(SMALL, METRIC_BATCH=41), torch.Generator())
    assert len(pairs.rows) == 40 and {(a, b), (b, d)} == set(map(tuple, pairs.rows.view(-1, 2).tolist()))
    few = SparseMatrix(scipy.sparse.csr_array((np.ones(2), ([a, held_out], [held_out, a])), (70, 70)))
    with pytest.raises(UserError, match="store more pairs"):
        vae.check_faces(SMALL, small_faces, few)


@pytest.mark.parametrize("changes", [dict(), dict(METRIC_DIMS=None), dict(ARCHITECTURE="original")])
def test_a_sparse_matrix_is_trained_and_validated_on_stored_pairs_by_any_network(small_faces, tmp_path, changes):
    stored, d = np.zeros((70, 70), bool), euclidean(small_faces.images / 255)
    for rows in (small_faces.rows("train"), small_faces.rows("val")):
        stored[rows[:-1], rows[1:]] = stored[rows[1:], rows[:-1]] = True
    metric = SparseMatrix(scipy.sparse.csr_array(np.where(stored, d, 0)))
    settings = replace(SMALL, METRIC_BATCH=400, STEPS=1, **changes)
    loss, val = Loss(settings, metric, CPU), small_faces.rows("val")
    model = vae.build(settings, small_faces).eval()
    assert vae.groups_of(loss, model, val, CPU).shape == (len(val) - 1, 2)
    loss.schedule(0)
    e = euclidean(encode(model, small_faces, val, CPU)[0][:, :settings.METRIC_DIMS])
    places = np.arange(len(val) - 1)
    of_all = statistics.stress(e[places, places + 1], d[val[:-1], val[1:]])     # of every stored pair once
    found = vae.validate(model, loss, Images(small_faces, CPU), val, 0, "fp32")["val_regularizer"]
    assert found == pytest.approx(of_all ** 2, rel=.2)
    assert vae.validate(model, loss, Images(small_faces, CPU), val[::2], 0, "fp32")["val_regularizer"] is None
    train("dist_reg", small_faces, metric, tmp_path, **{**changes, "METRIC_BATCH": 8, "STEPS": 1})
    assert read_log(tmp_path)[0]["regularizer"] > 0


def test_a_network_with_dropout_resumes_to_the_same_numbers(small_faces, tmp_path, monkeypatch):
    def dropout(size, z_dim, metric_dims=None, channels=1):
        decoder = nn.Sequential(nn.Linear(z_dim, 256), nn.Dropout(.5), nn.Unflatten(1, (1, 16, 16)))
        return VAE(nn.Sequential(nn.Flatten(), nn.Linear(256, 2 * z_dim)), decoder, metric_dims)
    monkeypatch.setitem(ARCHITECTURES, "dropout", dropout)
    changes = dict(ARCHITECTURE="dropout", STEPS=12)
    write_log = vae.write_log

    def stop(*arguments, **values):
        write_log(*arguments, **values)
        if values["loss"] and stop.tries == 1:
            raise KeyboardInterrupt
        stop.tries += 1
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole = train("dist_reg", small_faces, Function(brightness), tmp_path / "a", **changes)
    stop.tries = 0
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(vae, "write_log", stop)
        train("dist_reg", small_faces, Function(brightness), tmp_path / "b", **changes)
    again = train("dist_reg", small_faces, Function(brightness), tmp_path / "b", **changes)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters()))


def test_without_the_regulariser_or_a_branch_no_pairs_are_drawn(small_faces, tmp_path):
    for name, changes in (("no_dist_reg", {}), ("dist_reg", dict(METRIC_DIMS=None)),
                          ("dist_reg", dict(REGULARIZER="none"))):
        logs = []
        for count in (8, 24):
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            train(name, small_faces, Function(brightness), folder, METRIC_BATCH=count, **changes)
            logs.append([line["loss"] for line in read_log(folder)])
        assert logs[0] == logs[1]


def test_the_metric_branch_sees_light_where_the_metric_depends_on_it_and_not_with_embeddings(small_faces, tmp_path):
    torch.manual_seed(0)
    x = torch.rand(4, 1, 16, 16)
    blind, sees = (ARCHITECTURES["light"](16, 8, 2, sees_light=light).eval() for light in (False, True))
    assert torch.allclose(blind.recover_metric(x), blind.recover_metric(x / 2 + .2), atol=1e-2)
    assert not torch.allclose(sees.recover_metric(x), sees.recover_metric(x / 2 + .2), atol=1e-2)
    assert torch.isfinite(sees.recover_metric(torch.full((1, 1, 16, 16), .3))).all()
    found = {}
    for name, metric, changes in (("dist_reg", Function(brightness), dict(METRIC="pixels")),
                                  ("dist_reg", Function(brightness), dict(METRIC="embeddings")),
                                  ("dist_reg", Points(np.eye(70)), dict(METRIC="my.npy")),
                                  ("dist_reg", Points(np.eye(70)), dict(METRIC="my.npy", SEES_LIGHT=False)),
                                  ("dist_reg", Function(brightness), dict(METRIC="pixels", ARCHITECTURE="original")),
                                  ("no_dist_reg", Function(brightness), dict(METRIC="pixels"))):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        trained = train(name, small_faces, metric, folder, **changes)
        found[len(found)] = torch.load(folder / f"{name}.pt", weights_only=True)["sees_light"]
        assert torch.allclose(load_vae(folder, name, CPU).encode(x)[0], trained.encode(x)[0], atol=1e-5)
    assert list(found.values()) == [True, False, True, False, False, False]
