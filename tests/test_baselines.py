"""benchmarks/baselines.py: the two objectives, who moves in which step, edits on a toy problem, scores by hand."""
from copy import deepcopy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

import metric_vae.run
from benchmarks import baselines
from benchmarks.baselines import CSVAE, ConditionalVAE
from data.faces import Faces
from training.settings import default_settings

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = replace(default_settings(metric_vae.run), STEPS=12 * 14, BATCH=16, LEARNING_RATE=(2e-3, 1e-4),
                   ALPHA=(1., 1.), MAX_GRADIENT=100., FLIP=False, SHIFT=0)


def models(size=16):
    torch.manual_seed(0)
    return [model for joined in (False, True) for model in (
        ConditionalVAE(size, 12, 8., joined=joined), CSVAE(size, 12, 7, 8., 1., 5., 16, joined=joined))]


def csvae(**settings):
    torch.manual_seed(0)
    defaults = dict(size=16, z_dim=4, w_dim=7, w_mean=1., w_kl=1., adversary=1., adversary_width=16)
    return CSVAE(**{**defaults, **settings})


@pytest.fixture
def batch():
    """x (12, 1, 16, 16) whose brightness is its label, and labels."""
    labels = torch.arange(12) % 7
    return labels[:, None, None, None] / 7 + 0.05 * torch.rand(12, 1, 16, 16), labels


def brightness_faces(count=280):
    """Faces whose label is their brightness, whatever the slope from left to right, which has nothing to do with it."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 7
    slope = rng.uniform(-20, 20, (count, 1, 1)) * np.linspace(-1, 1, 16)
    images = (60 + 20 * labels[:, None, None] + slope + np.zeros((count, 16, 16))).round().astype(np.uint8)
    split = np.where(np.arange(count) < count * 3 // 4, 0, 1)
    return Faces(images, labels, np.full(count, -1), split, "brightness")


def test_kl_is_that_of_torch_distributions_with_a_prior_each_label():
    model = csvae(w_kl=2.)
    torch.nn.init.normal_(model.prior_mu)
    torch.nn.init.normal_(model.prior_log_sigma)
    mu, sigma, labels = torch.randn(6, 11), torch.rand(6, 11) + 0.1, torch.tensor([0, 1, 2, 6, 6, 3])
    normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
    of_z = kl(normal(mu[:, :4], sigma[:, :4]), normal(0, 1)).sum(1)
    prior = normal(model.prior_mu[labels], model.prior_log_sigma[labels].exp())
    of_w = kl(normal(mu[:, 4:], sigma[:, 4:]), prior).sum(1)
    assert model.kl(mu, sigma, labels).tolist() == pytest.approx((of_z + 2 * of_w).tolist(), rel=1e-4)


def test_each_label_has_its_own_part_of_the_prior_mean_at_first():
    expected = 3 * torch.cat([torch.eye(7), torch.eye(7)], 1)
    assert torch.equal(csvae(w_dim=14, w_mean=3.).prior_mu, expected)


def test_the_loss_is_error_plus_alpha_kl_plus_the_negative_entropy(batch):
    x, labels = batch
    model = csvae(adversary=5.)
    torch.nn.init.zeros_(model.adversary[-1].weight)
    torch.nn.init.zeros_(model.adversary[-1].bias)              # q(y|z) = 1/7: its negative entropy is -log 7
    mu, sigma = model.encode(x, labels)
    latents = mu + sigma * torch.randn(mu.shape, generator=torch.Generator().manual_seed(3))
    error = (model.decode(latents, labels) - x).square().sum() / 12
    loss, sampled = model.loss(x, labels, 0.5, torch.Generator().manual_seed(3))
    assert torch.equal(sampled, latents)
    expected = error + 0.5 * model.kl(mu, sigma, labels).mean() - 5 * np.log(7)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert model.adversary_loss(latents, labels).item() == pytest.approx(np.log(7))


def test_the_encoder_makes_the_adversary_uncertain_and_only_the_adversary_learns_labels(batch):
    x, labels = batch
    model = csvae(adversary=1e6)                                # next to which error and KL count for nothing
    of_adversary = list(model.adversary.parameters())
    of_vae = [p for name, p in model.named_parameters() if not name.startswith("adversary.")]
    of_both = {"adversary": of_adversary, "vae": of_vae}
    sampled = lambda: model.loss(x, labels, 0., torch.Generator().manual_seed(0))[1]

    def entropy():
        log_q = model.adversary(sampled()[:, :4]).log_softmax(1)
        return -(log_q.exp() * log_q).sum(1).mean().item()

    def moved(part, optimizer, loss):
        before = {name: deepcopy(parameters) for name, parameters in of_both.items()}
        baselines.step(optimizer, loss, of_both[part], None)
        return {name for name, parameters in of_both.items() if not all(map(torch.equal, parameters, before[name]))}

    optimizer, guess = torch.optim.Adam(of_adversary), model.adversary_loss(sampled(), labels).item()
    for _ in range(30):
        assert moved("adversary", optimizer, model.adversary_loss(sampled(), labels)) == {"adversary"}
    assert model.adversary_loss(sampled(), labels).item() < guess
    optimizer, before = torch.optim.Adam(of_vae), entropy()
    for _ in range(3):
        loss, _ = model.loss(x, labels, 0., torch.Generator().manual_seed(0))
        assert moved("vae", optimizer, loss) == {"vae"}
    assert entropy() > before


def test_z_of_the_csvae_does_not_see_the_label_but_w_does(batch):
    x, labels = batch
    model = csvae()
    difference = (model.encode(x, labels)[0] - model.encode(x, (labels + 1) % 7)[0]).abs()
    assert (difference[:, :4] == 0).all() and (difference[:, 4:] > 0).any()


def test_an_edit_of_the_cvae_to_the_own_label_is_the_reconstruction(batch):
    x, labels = batch
    model = models()[0]
    assert torch.equal(model.edit(x, labels, labels), baselines.reconstruct(model, x, labels))
    assert not torch.allclose(model.edit(x, labels, (labels + 1) % 7), baselines.reconstruct(model, x, labels))


def test_an_edit_of_the_csvae_keeps_z_and_takes_the_prior_mean_of_the_target(batch):
    x, labels = batch
    model = csvae()
    z, target = model.encode(x, labels)[0][:, :4], (labels + 3) % 7
    expected = model.decode(torch.cat([z, torch.eye(7)[target]], 1), target)
    assert torch.equal(model.edit(x, labels, target), expected)


def test_what_the_label_changes_is_what_is_joined():
    """Its small network starts with outputs of 0."""
    x, labels, z = torch.rand(5, 1, 16, 16), torch.arange(5), torch.randn(5, 12)
    *_, cvae, csvae = models()
    assert torch.equal(cvae.decode(z, labels), cvae.decode(z, labels + 1))
    assert not torch.allclose(cvae.decode(z, labels), cvae.decode(z + 1, labels))
    assert torch.equal(csvae.edit(x, labels, labels), csvae.edit(x, labels, labels + 1))
    latents = torch.cat([z, torch.randn(5, 7)], 1)
    assert torch.equal(csvae.decode(latents, labels), csvae.decode(torch.cat([z, torch.randn(5, 7)], 1), labels))
    assert not torch.allclose(csvae.decode(latents, labels), csvae.decode(latents + 1, labels))


@pytest.mark.parametrize("number", range(4))
def test_edits_change_the_brightness_where_it_is_all_that_labels_change(number):
    faces = brightness_faces()
    model = baselines.train(models()[number], faces, SETTINGS, 0, CPU, "fp32")
    rows = faces.rows("val")
    labels, x = faces.labels[rows], faces.images[rows] / 255
    target = (labels + 3) % 7
    truth = x + 20 / 255 * (target - labels)[:, None, None]
    edits = baselines.apply(model.edit, faces, rows, CPU, labels, target)[:, 0]
    assert np.square(edits - truth).sum((1, 2)).mean() < 0.1 * np.square(x - truth).sum((1, 2)).mean()


@pytest.mark.parametrize("number", [0, 1])
def test_unlabelled_faces_do_not_train_and_a_last_batch_of_one_does(number):
    short = replace(SETTINGS, STEPS=2 * 14)
    faces = brightness_faces(44)                                # 33 of them train: two batches and one face
    with_others = deepcopy(faces)
    with_others.images = np.concatenate([faces.images, 255 - faces.images[:3]])
    with_others.labels, with_others.identities = np.append(faces.labels, [-1] * 3), np.full(47, -1)
    with_others.split = np.append(faces.split, [0] * 3)
    first, second = (baselines.train(models()[number], some, short, 0, CPU, "fp32").state_dict()
                     for some in (faces, with_others))
    assert all(torch.equal(first[name], second[name]) for name in first)
    fewer = deepcopy(faces)
    fewer.split[32] = 2                                         # the last face to train
    third = baselines.train(models()[number], fewer, short, 0, CPU, "fp32").state_dict()
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_a_function_gives_the_same_in_ragged_batches():
    faces, model = brightness_faces(7), models()[1]
    rows = np.array([6, 0, 3, 5, 1])
    whole = baselines.apply(partial(baselines.reconstruct, model), faces, rows, CPU, faces.labels[rows])
    parts = baselines.apply(partial(baselines.reconstruct, model), faces, rows, CPU, faces.labels[rows],
                            batch_size=2)
    x = torch.from_numpy(faces.images[rows] / np.float32(255))[:, None]
    alone = baselines.reconstruct(model, x, torch.from_numpy(faces.labels[rows])).detach().numpy()
    assert whole == pytest.approx(alone, abs=1e-5)
    assert parts == pytest.approx(whole, abs=1e-5)


class Known:
    """Adds 0.1 to each pixel; its edits have the target's brightness, but those to 2 that of 3."""

    def encode(self, x, labels):
        return x.flatten(1), torch.full((len(x), 256), 1e-9)

    def kl(self, mu, sigma, labels):
        return labels.float()

    def decode(self, z, labels):
        return z.view(-1, 1, 16, 16) + 0.1

    def edit(self, x, labels, target):
        return torch.where(target == 2, 3, target)[:, None, None, None].expand_as(x) * (20 / 255) + 60 / 255


def test_scores_are_those_of_a_model_that_is_known():
    faces = brightness_faces()
    brightest = lambda x: ((x.mean((1, 2, 3)) * 255 - 60) / 20).round().long().clamp(0, 6)
    judge = SimpleNamespace(layers=lambda x: {"softmax": one_hot(brightest(x), 7)})
    rows = faces.rows("val")
    scores = baselines.score(Known(), faces, rows[:35], rows, judge, None, CPU)
    assert scores["error"] == pytest.approx([256 * 0.01] * 3, rel=1e-4)
    assert scores["kl"][0] == pytest.approx(3)                  # the mean label
    assert scores["judge_on_faces"][0] == 1
    assert scores["judge_on_reconstructions"][0] == pytest.approx(1 / 7)    # 25 grey levels brighter: the next label
    assert scores["edit_success"][0] == pytest.approx(6 / 7)
    assert set(baselines.score(Known(), faces, rows, rows, None, None, CPU)) == {"error", "kl"}      # no judge
