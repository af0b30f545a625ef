"""Training, encoding and scoring as a GPU would run them, without one: tensors of device "cuda" that have no numbers.

What mixes devices, fills a tensor from another device's generator, or gives numpy a tensor of a GPU fails here, too.
"""
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

import expr_classifier.run as classifier_script
import metric_vae.run as vae_script
from expr_classifier import train as classifier
from metric_vae import scores, train as vae, trained
from metric_vae.metrics import Function, Matrix, Points, SparseMatrix
from training import checkpoints
from training.devices import autocast
from training.settings import default_settings

GPU = torch.device("cuda", 0)
READ = {torch.Tensor.item: lambda x: 1.0, torch.Tensor.__float__: lambda x: 1.0, torch.Tensor.__bool__: lambda x: False,
        torch.Tensor.tolist: lambda x: np.ones(x.shape).tolist(),
        torch.Tensor.numpy: lambda x: np.ones(x.shape, str(x.dtype).removeprefix("torch."))}


class Generator(torch.Generator):
    """A generator that says it is of another device."""
    device = None

    def __new__(cls, device="cpu"):
        self = super().__new__(cls)
        self.device = torch.device(device)
        return self

    def manual_seed(self, seed):
        super().manual_seed(seed)
        return self


def backward(loss):
    """A gradient without numbers for each parameter that a loss depends on: torch's own needs a driver."""
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [parent for parent, _ in node.next_functions]
            if hasattr(node, "variable"):
                node.variable.grad = torch.empty_like(node.variable)


class Rules(TorchFunctionMode):
    """What a GPU refuses, and numbers, all 1, where they are read: of the host alone where numpy reads them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.backward:
            return backward(args[0])
        if function in READ:
            assert function is not torch.Tensor.numpy or args[0].device.type == "cpu", "numpy of a GPU's tensor"
            return READ[function](args[0])
        result = function(*args, **kwargs)
        generator = kwargs.get("generator")
        if generator is not None and torch.is_tensor(result):
            assert result.device.type == generator.device.type, "a generator of another device"
        return result


def move(module, device, memory_format=torch.preserve_format):
    """What nn.Module.to does, which these tensors do not allow."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(torch.empty_like(value, device=device))
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=device)
    return module


@pytest.fixture
def gpu(monkeypatch):
    """Within the test, tensors have no numbers, and those of GPU need none."""
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(nn.Module, "to", move)
    with FakeTensorMode(), Rules():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)       # autocast asks
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *rest: True)
        yield GPU


def test_the_rules_are_those_of_a_gpu(gpu):
    x = torch.zeros(3, device=gpu)
    with pytest.raises(AssertionError, match="numpy"):
        x.numpy()
    with pytest.raises(AssertionError, match="generator"):
        torch.randn(3, generator=torch.Generator(), device=gpu)
    with pytest.raises(Exception, match="device"):
        x + torch.zeros(3)
    assert x.cpu().numpy().tolist() == [1, 1, 1]
    with autocast(gpu, "bf16"):
        assert (torch.zeros(2, 2, device=gpu) @ torch.zeros(2, 2, device=gpu)).dtype == torch.bfloat16


@pytest.mark.parametrize("architecture, precision", [("light", "fp32"), ("original", "bf16"), ("judge", "bf16")])
def test_a_classifier_trains(gpu, architecture, precision, small_faces, tmp_path, monkeypatch):
    settings = replace(default_settings(classifier_script), ARCHITECTURE=architecture, STEPS=1)
    saved = []
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda *rest, **more: saved.append(more))
    model = classifier.train(small_faces, settings, tmp_path, 0, gpu, precision)
    assert saved and next(model.parameters()).device == gpu
    assert classifier.write_embeddings(model, small_faces, "last", tmp_path, gpu).shape == (70, 7)


def metric_of(kind, device):
    """A metric of the 70 faces."""
    import scipy.sparse
    points, distances = np.random.default_rng(0).normal(size=(70, 3)), 1 - np.eye(70)
    return dict(points=lambda: Points(points, 2.0, device), cosine=lambda: Points(points, "cosine", device),
                function=lambda: Function(lambda x: x), matrix=lambda: Matrix(distances, device),
                sparse=lambda: SparseMatrix(scipy.sparse.csr_matrix(distances), device))[kind]()


@pytest.mark.parametrize("architecture, kind, precision", [
    ("light", "points", "bf16"), ("light", "function", "fp32"), ("light", "cosine", "bf16"),
    ("light", "matrix", "fp32"), ("original", "sparse", "bf16")])
def test_a_vae_trains_and_is_scored(gpu, architecture, kind, precision, small_faces, tmp_path, monkeypatch):
    settings = replace(default_settings(vae_script), ARCHITECTURE=architecture, STEPS=1, Z_DIM=16, METRIC="pixels")
    saved = []
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda *rest, **more: saved.append(more))
    for name in vae.MODELS:
        model = vae.train(name, small_faces, metric_of(kind, gpu), settings, tmp_path, 0, gpu, precision)
    assert len(saved) == 2 and next(model.parameters()).device == gpu
    rows = np.arange(70)
    mu, sigma = trained.encode(model, small_faces, rows, gpu)
    assert mu.shape == sigma.shape == (70, 16) and trained.decode(model, mu, gpu).shape == (70, 16, 16)
    metric = metric_of(kind, gpu)
    assert trained.given_distances(metric, small_faces, rows, gpu).shape == (70, 70)
    judge = classifier.build(default_settings(classifier_script), small_faces).to(gpu).eval()
    summary = trained.load_summary(tmp_path / "dist_reg_latents.npz")
    latents = scores.latents_of("dist_reg", model, small_faces, rows, gpu, summary, "metric")
    assert "error" in scores.score_reconstructions(model, small_faces, rows, gpu, 0)
    assert "edit_success" in scores.score_edits(latents, judge, judge, metric, small_faces, gpu, (3, 4))
