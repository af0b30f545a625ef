"""metric_vae/model.py, loss.py and train.py: shapes, losses by hand, the terms, and weights that set themselves."""
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn

import metric_vae.run
from data.batches import Images
from data.faces import checked
from metric_vae import statistics
from metric_vae import train as vae
from metric_vae.loss import Loss, Pairs, Terms, edit_error
from metric_vae.metrics import Function, Matrix, PairFunction, Points, SparseMatrix
from metric_vae.model import ARCHITECTURES, VAE, kl_divergence, squared_error
from metric_vae.regularizers import REGULARIZERS, stress
from metric_vae.statistics import euclidean
from metric_vae.trained import encode, load_vae
from training.devices import autocast
from training.errors import UserError
from training.settings import default_settings
from training.storage import read_log

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = replace(default_settings(metric_vae.run), STEPS=8, BATCH=16, Z_DIM=8, METRIC_DIMS=4, BETA=(10.0, 10.0),
                CONSISTENCY=(0.0, 0.0), REGULARIZER="stress", ALPHA=(0.1, 0.1))


def train(name, faces, metric, folder, **changes):
    """The VAE called name, trained with SMALL and these changes."""
    return vae.train(name, faces, metric, replace(SMALL, **changes), folder, 0, CPU, "fp32")


def loss_of(metric=None, **changes):
    """The Loss of SMALL with these changes."""
    return Loss(replace(SMALL, **changes), metric, CPU)


def brightness(x):
    return x.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize("size", [16, 48, 64])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_faces_come_back_in_their_size_for_every_architecture(name, size):
    model = ARCHITECTURES[name](size, 10)
    mu, sigma = model.encode(torch.rand(3, 1, size, size))
    assert mu.shape == sigma.shape == (3, 10) and (sigma > 0).all()
    assert model.decode(mu).shape == (3, 1, size, size)


def test_the_original_has_the_layers_of_the_reference():
    model = ARCHITECTURES["original"](48, 512)
    kernels = [tuple(m.weight.shape) for m in model.modules() if hasattr(m, "weight") and m.weight.ndim > 1]
    assert kernels == [(64, 1, 5, 5), (128, 64, 5, 5), (256, 128, 5, 5), (1024, 9216), (9216, 512),
                       (256, 256, 5, 5), (256, 128, 5, 5), (128, 32, 5, 5), (1, 32, 5, 5)]


def test_a_face_of_the_light_vae_does_not_depend_on_its_batch():
    model = ARCHITECTURES["light"](16, 4).train()
    x = torch.rand(5, 1, 16, 16)
    assert torch.allclose(model.encode(x)[0][:1], model.encode(x[:1])[0], atol=1e-6)


def test_kl_is_zero_for_a_standard_normal_and_right_by_hand_elsewhere():
    assert (kl_divergence(torch.zeros(4, 3), torch.ones(4, 3)) == 0).all()
    mu, sigma = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    assert kl_divergence(mu, sigma).tolist() == pytest.approx([0.5 + (4 - 1 - 2 * np.log(2)) / 2])


def test_kl_is_that_of_torch_distributions():
    mu, sigma = torch.randn(6, 4), torch.rand(6, 4) + .1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mu, sigma), normal(0, 1)).sum(1)
    assert kl_divergence(mu, sigma).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_squared_error_is_summed_over_the_pixels_of_each_face():
    x = torch.zeros(2, 1, 8, 8)
    x_hat = x.clone()
    x_hat[0] = 0.5
    assert squared_error(x_hat, x).tolist() == pytest.approx([64 * 0.25, 0])


def test_stress_is_measured_on_the_metric_part_of_mu():
    torch.manual_seed(0)
    model, x, noise = ARCHITECTURES["light"](16, 8, 2), torch.rand(6, 1, 16, 16), torch.randn(6, 8)
    metric = Points(torch.randn(6, 3))
    given = metric(torch.arange(6)).distances
    mu, sigma = model.encode(x)
    terms = loss_of(metric)(model, torch.arange(6), x, noise, False)
    assert torch.equal(terms.regularizer, stress(torch.cdist(mu[:, :2], mu[:, :2]), given))
    z = mu + sigma * noise
    terms = loss_of(metric, REGULARIZE_ON="z")(model, torch.arange(6), x, noise, False)
    assert torch.allclose(terms.regularizer, stress(torch.cdist(z[:, :2], z[:, :2]), given))


def test_a_batch_of_one_face_has_no_pairs_and_finite_terms():
    torch.manual_seed(0)
    model, loss = ARCHITECTURES["light"](16, 8, 4), loss_of(Function(brightness), CONSISTENCY=(1.0, 1.0))
    for count in (1, 2, 3):
        x, noise = torch.rand(count, 1, 16, 16), torch.randn(count, 8)
        with torch.no_grad():
            terms = loss(model, torch.arange(count), x, noise, True)
        assert all(torch.isfinite(term) and term < 1e5 for term in terms), (count, terms)
        assert (float(terms.regularizer) < 1e-6) == (count < 3)         # the best scale fits a single pair


def few_distances(count, *pairs):
    """The SparseMatrix of faces of which these pairs have a distance, 1, 2, 3, ...."""
    matrix = scipy.sparse.lil_matrix((count, count))
    for d, (i, j) in enumerate(pairs, 1):
        matrix[i, j] = matrix[j, i] = d
    return SparseMatrix(matrix.tocsr())


@pytest.mark.parametrize("on", ["mu", "z", "expected"])
@pytest.mark.parametrize("name", [name for name, (_, kind, _) in REGULARIZERS.items() if kind == "distances"])
def test_a_batch_without_a_given_pair_has_no_regulariser_and_no_gradient_of_it(name, on):
    torch.manual_seed(0)
    model, x, noise = ARCHITECTURES["light"](16, 8, 4), torch.rand(5, 1, 16, 16), torch.randn(5, 8)
    loss = loss_of(few_distances(9, (0, 1), (5, 6)), REGULARIZER=name, REGULARIZE_ON=on)
    regularizer = loss(model, torch.arange(1, 6), x, noise, False).regularizer
    assert float(regularizer.detach()) == 0
    regularizer.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and not any(gradient.any() or gradient.isnan().any() for gradient in gradients)


def test_only_the_given_pairs_of_a_batch_are_regularised():
    torch.manual_seed(0)
    model, x, noise = ARCHITECTURES["light"](16, 8, 2), torch.rand(4, 1, 16, 16), torch.randn(4, 8)
    loss = loss_of(few_distances(9, (2, 3), (3, 8), (2, 8), (0, 1)))
    mu = model.encode(x)[0][:3, :2]
    regularizer = loss(model, torch.tensor([2, 3, 8, 5]), x, noise, False).regularizer
    assert torch.allclose(regularizer, stress(torch.cdist(mu, mu), torch.tensor([[0., 1, 3], [1, 0, 2], [3, 2, 0]])))


def test_terms_in_bf16_are_those_of_fp32_within_its_rounding():
    torch.manual_seed(0)
    model, loss = ARCHITECTURES["light"](16, 8, 4), loss_of(Points(torch.randn(16, 3)), CONSISTENCY=(1.0, 1.0))
    x, noise = torch.rand(16, 1, 16, 16), torch.randn(16, 8)
    terms = []
    for precision in ("fp32", "bf16"):
        with autocast(CPU, precision), torch.no_grad():
            terms.append(loss(model, torch.arange(16), x, noise, True))
    for name, a, b in zip(Terms._fields, *terms):
        assert b.dtype == torch.float32 and float(b) == pytest.approx(float(a), rel=.02), name
    assert float(terms[0].error) != float(terms[1].error)


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


@pytest.mark.parametrize("dims", [None, 3])
def test_the_metric_part_of_the_light_vae_comes_first_and_sees_no_contrast(dims):
    torch.manual_seed(0)
    model = ARCHITECTURES["light"](16, 8, dims)
    x = torch.rand(4, 1, 16, 16)
    (mu, _), (brighter, _) = model.encode(x), model.encode(x * 0.5 + 0.3)
    change = (brighter - mu).norm(dim=0) / mu.norm(dim=0)
    assert mu.shape == (4, 8) and change[3:].mean() > 0.1
    if dims:
        assert torch.allclose(mu[:, :3], model.encoder.metric(x)[:, :3])
        assert change[:3].max() < 0.03


def test_the_rest_is_told_the_metric_part_and_does_not_pull_at_it():
    model = ARCHITECTURES["light"](16, 8, 3)
    x = torch.rand(4, 1, 16, 16)
    before = model.encode(x)[0]
    torch.nn.init.ones_(model.encoder.told.weight)
    after = model.encode(x)[0]
    assert torch.allclose(after[:, 3:] - before[:, 3:], before[:, :3].sum(1, keepdim=True).expand(-1, 5), atol=1e-5)
    after[:, 3:].sum().backward()
    assert not any(parameter.grad.any() for parameter in model.encoder.metric.parameters())
    assert model.encoder.told.weight.grad.abs().max() > 0


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("dims", [3, None])
def test_the_edit_error_is_that_of_a_slow_loop_over_faces(count, dims):
    torch.manual_seed(0)
    model, x, noise = ARCHITECTURES["light"](16, 8, dims), torch.rand(count, 1, 16, 16), torch.randn(count, 8)
    with torch.no_grad():
        mu, sigma = model.encode(x)
        z = mu + sigma * noise
        part, gaps = mu[:, :dims], []
        for i in range(0, count, 2):
            j = (i + 1) % count
            edited = z[i].clone()
            edited[:dims] = z[j, :dims]
            gaps.append(model.encode(model.decode(edited[None]))[0][0, :dims] - part[j])
        variance = sum((row - part.mean(0)).square().sum() for row in part) / count
        expected = sum(gap.square().sum() for gap in gaps) / len(gaps) / variance
        assert float(edit_error(model, mu, z)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_gradient_of_consistency_reaches_the_rest_of_z_and_of_the_decoder_only_how_the_metric_part_enters(name):
    torch.manual_seed(0)
    model, x = ARCHITECTURES[name](16, 8, 4), torch.rand(6, 1, 16, 16)
    metric = Points(torch.randn(6, 3))
    terms = loss_of(metric, CONSISTENCY=(1.0, 1.0))(model, torch.arange(6), x, torch.randn(6, 8), True)
    terms.consistency.backward()
    reached = {name: parameter.grad for name, parameter in model.named_parameters()
               if parameter.grad is not None and parameter.grad.any()}
    weight = reached.pop("decoder.0.weight")
    assert (weight[:, :4].abs().sum(1) > 0).any() and not weight[:, 4:].any()
    assert reached and all(name.startswith("encoder.") for name in reached)
    assert not any(name.startswith("encoder.metric.") for name in reached)      # light's branch of the metric part
    model.zero_grad()
    mu, z = torch.randn(6, 8, requires_grad=True), torch.randn(6, 8, requires_grad=True)
    edit_error(model, mu, z).backward()
    assert mu.grad is None and not z.grad[:, :4].any() and z.grad[::2, 4:].any()


class Decoder(nn.Module):
    """A user's own, which is no nn.Sequential."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 256)

    def forward(self, z):
        return self.linear(z).view(-1, 1, 16, 16)


class Own(nn.Sequential):
    """A user's own, which no slice can be taken of."""

    def __init__(self, pixels, size):
        super().__init__(nn.Linear(8, pixels), nn.Unflatten(1, (1, size, size)))

    def get_extra_state(self):
        return dict(a=1)


@pytest.mark.parametrize("decoder", [
    Decoder(), Own(256, 16),
    nn.Sequential(nn.Unflatten(1, (8, 1)), nn.Flatten(), nn.Linear(8, 256), nn.Unflatten(1, (1, 16, 16))),
    nn.Sequential(nn.Linear(8, 256, bias=False), nn.Unflatten(1, (1, 16, 16)))])
def test_any_decoder_takes_the_edit_error_whose_gradient_reaches_the_rest_of_z(decoder):
    torch.manual_seed(0)
    model = VAE(nn.Sequential(nn.Flatten(), nn.Linear(256, 16)), decoder, 4)
    z = torch.randn(6, 8, requires_grad=True)
    torch.testing.assert_close(model.decode_part(z), model.decode(z))
    edit_error(model, torch.randn(6, 8), z).backward()
    assert z.grad[::2, 4:].any()
    reached = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    if "decoder.0.weight" in reached:
        assert not reached.pop("decoder.0.weight")[:, 4:].any()
    assert not any(name.startswith("decoder.") for name in reached)


def test_beta_rises_while_the_stress_is_above_its_target_and_falls_below():
    weights = loss_of(TARGET_STRESS=0.2)
    weights.schedule(0)
    zero = torch.zeros(())
    for square, rises in ((0.09, True), (0.01, False)):
        before = float(weights.beta)
        weights.update(Terms(zero, zero, torch.tensor(square), zero), 64)
        assert (float(weights.beta) > before) == rises
    kept = float(weights.beta)
    weights.update(Terms(zero, zero, zero, zero), 64)           # of a batch without a given pair
    weights.schedule(1)
    assert float(weights.beta) == kept


def test_the_optimal_alpha_is_twice_the_error_per_pixel():
    weights, zero = loss_of(ALPHA="optimal"), torch.zeros(())
    for _ in range(500):
        weights.update(Terms(torch.tensor(6.4), zero, zero, zero), 64)
    assert float(weights.alpha) == pytest.approx(2 * 0.1)


def test_the_total_weighs_every_term():
    weights = loss_of(Function(brightness), ALPHA=(2.0, 2.0), BETA=(3.0, 5.0), CONSISTENCY=(0.0, 7.0))
    weights.schedule(1)
    terms = Terms(*torch.tensor([2.0, 10, 100, 3]))
    assert float(weights.total(terms)) == 2 + 2 * 10 + 5 * 100 + 7 * 3


def test_training_lowers_the_loss_and_logs_every_term(small_faces, tmp_path):
    train("dist_reg", small_faces, Function(brightness), tmp_path, STEPS=16)
    lines = read_log(tmp_path, "dist_reg")
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4] and lines[-1]["loss"] < lines[0]["loss"]
    for line in lines:
        for prefix in ("", "val_"):
            terms = [line[prefix + term] for term in Terms._fields]
            weights = (1, line["alpha"], line["beta"], 0)
            assert line[prefix + "loss"] == pytest.approx(np.dot(weights, terms), rel=1e-4)


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
    write_log = vae.storage.write_log

    def stop(*arguments, **values):
        write_log(*arguments, **values)
        if len(read_log(tmp_path / "b")) < 3 and stop.tries < 2:
            stop.tries += 1
            raise KeyboardInterrupt                             # between the log line and the checkpoint
    stop.tries = 0
    monkeypatch.setattr(vae.storage, "write_log", stop)
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


def test_what_a_metric_cannot_give_is_refused(small_faces, user_error):
    for metric in (Matrix(np.zeros((70, 70))), few_distances(70, (0, 1)), PairFunction(brightness)):
        vae.check_faces(SMALL, small_faces, metric)
        points_wanted = replace(SMALL, REGULARIZER="pointwise")
        user_error(lambda: vae.check_faces(points_wanted, small_faces, metric), "pointwise")


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


# --- what the metric branch sees in training

def test_the_regulariser_takes_the_pairs_that_it_is_given_and_reaches_the_metric_branch_alone():
    torch.manual_seed(0)
    model, x, other = ARCHITECTURES["light"](16, 8, 2), torch.rand(6, 1, 16, 16), torch.rand(9, 1, 16, 16)
    pairs, metric = Pairs(torch.arange(9), other, torch.randn(9, 2)), Function(brightness)
    given = metric(pairs.rows, other).distances
    mu, sigma = (of[:, :2] for of in model.encode(other))
    terms = loss_of(metric)(model, torch.arange(6), x, torch.randn(6, 8), False, pairs)
    assert torch.allclose(terms.regularizer, stress(torch.cdist(mu, mu), given))
    terms.regularizer.backward()
    reached = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert reached and all(name.startswith("encoder.metric.") for name in reached)
    z = mu + sigma * pairs.noise
    terms = loss_of(metric, REGULARIZE_ON="z")(model, torch.arange(6), x, torch.randn(6, 8), False, pairs)
    assert torch.allclose(terms.regularizer, stress(torch.cdist(z, z), given))


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
    write_log = vae.storage.write_log

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
        stopped.setattr(vae.storage, "write_log", stop)
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
    assert torch.allclose(blind.see_part(x), blind.see_part(x / 2 + .2), atol=1e-2)
    assert not torch.allclose(sees.see_part(x), sees.see_part(x / 2 + .2), atol=1e-2)
    assert torch.isfinite(sees.see_part(torch.full((1, 1, 16, 16), .3))).all()
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
