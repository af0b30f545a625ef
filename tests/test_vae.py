"""metric_vae/model.py and loss.py: shapes, losses by hand, the terms, and weights that set themselves."""
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn

import metric_vae.run
from metric_vae.loss import Loss, Pairs, Terms, consistency_loss
from metric_vae.metrics import Function, Points, SparseMatrix
from metric_vae.model import ARCHITECTURES, VAE, kl_divergence, squared_error
from metric_vae.regularizers import REGULARIZERS, stress
from training.devices import autocast
from training.settings import default_settings

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = replace(default_settings(metric_vae.run), STEPS=8, BATCH=16, Z_DIM=8, METRIC_DIMS=4, BETA=(10.0, 10.0),
                CONSISTENCY=(0.0, 0.0), REGULARIZER="stress", ALPHA=(0.1, 0.1))


def loss_of(metric=None, **changes):
    """The Loss of SMALL with these changes."""
    return Loss(replace(SMALL, **changes), metric, CPU)


def brightness(x):
    return x.mean((1, 2, 3))[:, None]


def few_distances(count, *pairs):
    """The SparseMatrix of faces of which these pairs have a distance, 1, 2, 3, ...."""
    matrix = scipy.sparse.lil_matrix((count, count))
    for d, (i, j) in enumerate(pairs, 1):
        matrix[i, j] = matrix[j, i] = d
    return SparseMatrix(matrix.tocsr())


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
def test_the_consistency_loss_is_that_of_a_slow_loop_over_faces(count, dims):
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
        assert float(consistency_loss(model, mu, z)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_gradient_of_consistency_reaches_the_rest_of_z_and_of_the_decoder_only_how_the_metric_part_enters(name):
    torch.manual_seed(0)
    model, x = ARCHITECTURES[name](16, 8, 4), torch.rand(6, 1, 16, 16)
    if name == "light":
        nn.init.normal_(model.decoder[0].metric[-1].weight)
    metric = Points(torch.randn(6, 3))
    terms = loss_of(metric, CONSISTENCY=(1.0, 1.0))(model, torch.arange(6), x, torch.randn(6, 8), True)
    terms.consistency.backward()
    reached = {name: parameter.grad for name, parameter in model.named_parameters()
               if parameter.grad is not None and parameter.grad.any()}
    if name == "light":
        for entry in ("0.weight", "0.bias", "2.weight"):
            assert reached.pop(f"decoder.0.metric.{entry}").any()
    else:
        weight = reached.pop("decoder.0.weight")
        assert (weight[:, :4].abs().sum(1) > 0).any() and not weight[:, 4:].any()
    assert reached and all(name.startswith("encoder.") for name in reached)
    assert not any(name.startswith("encoder.metric.") for name in reached)      # light's branch of the metric part
    model.zero_grad()
    mu, z = torch.randn(6, 8, requires_grad=True), torch.randn(6, 8, requires_grad=True)
    consistency_loss(model, mu, z).backward()
    assert mu.grad is None and not z.grad[:, :4].any() and z.grad[::2, 4:].any()


def test_the_decoder_starts_without_the_metric_part_and_learns_to_use_it():
    torch.manual_seed(0)
    model, z = ARCHITECTURES["light"](16, 8, 4), torch.randn(5, 8)
    edited = torch.cat([z[:, :4] + 1, z[:, 4:]], 1)
    assert torch.equal(model.decode(z), model.decode(edited))
    model.decode(z).square().sum().backward()
    weight = model.decoder[0].metric[-1].weight
    weight.data -= weight.grad
    assert not torch.allclose(model.decode(z), model.decode(edited))
    joined = model.decoder[0](z)
    torch.testing.assert_close(joined, model.decoder[0].rest(z[:, 4:]) + model.decoder[0].metric(z[:, :4]))


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
    nn.Sequential(nn.Linear(8, 256, bias=False), nn.Unflatten(1, (1, 16, 16))),
    nn.Sequential(nn.Linear(8, 256), nn.SiLU(), nn.Unflatten(1, (1, 16, 16)))])
def test_any_decoder_takes_the_consistency_loss_whose_gradient_reaches_the_rest_of_z(decoder):
    torch.manual_seed(0)
    model = VAE(nn.Sequential(nn.Flatten(), nn.Linear(256, 16)), decoder, 4)
    z = torch.randn(6, 8, requires_grad=True)
    torch.testing.assert_close(model.decode_edited(z), model.decode(z))
    consistency_loss(model, torch.randn(6, 8), z).backward()
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
