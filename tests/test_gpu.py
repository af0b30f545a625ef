"""Training, scoring and opening runs on a GPU; skipped where there is none. test_fake_gpu.py has what needs none."""
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import data.batches
import metric_vae.run as vae_script
from data.batches import Images
from layouts import memory_mapped
from metric_vae import space, train as vae
from metric_vae.loss import Loss
from metric_vae.metrics import Points
from test_pipeline import SMALL, TORCHRUN, call, house, newest       # noqa: F401, a fixture
from training import checkpoints
from training.log import read_log
from training.settings import default_settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
ON_GPU = [argument for argument in SMALL if not argument.startswith(("DEVICE", "PRECISION"))]


def test_the_scripts_take_the_gpu_by_themselves_and_its_run_opens_on_both(house, monkeypatch):
    call(house, "run.py", *ON_GPU)
    folder = newest(house)
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["device"] == "cuda:0"
    assert settings["precision"] == ("bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32")
    call(house, "experiments.py", "JUDGE_STEPS=5", "IDENTITY_STEPS=5", "SAMPLE=20", "SHOWN=2")
    assert "dist_reg" in json.loads((folder / "scores.json").read_text())
    assert (folder / "figures" / "edits.png").exists()
    monkeypatch.chdir(house)
    on_gpu, on_cpu = space.load(folder, device="cuda"), space.load(folder, device="cpu")
    pictures = list(np.load(house / "faces.npz")["images"][:9])
    assert on_gpu.encode(pictures) == pytest.approx(on_cpu.encode(pictures), abs=0.02)
    assert on_gpu.decode(on_cpu.encode(pictures)) == pytest.approx(on_cpu.decode(on_cpu.encode(pictures)), abs=0.02)


def test_torchrun_with_one_process_gives_the_losses_of_none(house):
    logs = []
    for launcher in ((), (*TORCHRUN[:-1], "--nproc_per_node=1")):
        call(house, *launcher, "run.py", *ON_GPU, "DEVICE=cuda", "PRECISION=fp32")
        logs.append([line["loss"] for line in read_log(newest(house))])
    assert logs[1] == pytest.approx(logs[0], rel=0.01)


def test_more_processes_than_gpus_are_refused(house):
    many = (*TORCHRUN[:-1], f"--nproc_per_node={torch.cuda.device_count() + 1}")
    assert "one process per GPU" in call(house, *many, "run.py", *ON_GPU, code=1)


def test_loss_and_gradient_are_those_of_the_cpu(small_faces, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    settings = replace(default_settings(vae_script), Z_DIM=16)
    points, rows = np.random.default_rng(0).normal(size=(70, 3)), torch.arange(20)
    noise = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for device in (CPU, GPU):
        torch.manual_seed(0)
        model = vae.build(settings, small_faces).to(device)
        loss = Loss(settings, Points(points, 2.0, device), device)
        loss.schedule(1.0)
        total = loss.total(loss(model, rows.to(device), Images(small_faces, device)(rows), noise.to(device), True))
        total.backward()
        found.append([total.item(), *(parameter.grad.norm().item() for parameter in model.parameters())])
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_stopped_training_goes_on_with_the_same_random_numbers(small_faces, tmp_path, monkeypatch):
    settings = replace(default_settings(vae_script), STEPS=12, Z_DIM=16)
    metric = Points(np.random.default_rng(0).normal(size=(70, 3)), 2.0, GPU)
    train = lambda folder: vae.train("dist_reg", small_faces, metric, settings, folder, 0, GPU, "fp32")
    save = checkpoints.save_checkpoint

    def save_and_stop(*rest, **more):
        save(*rest, **more)
        raise KeyboardInterrupt

    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts")
    train(tmp_path / "parts")
    whole, parts = ([line["loss"] for line in read_log(tmp_path / name)] for name in ("whole", "parts"))
    assert len(whole) > 1 and parts == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("limit", [2 ** 32, 10])
def test_memory_mapped_faces_are_augmented_on_the_gpu(small_faces, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(data.batches, "ON_GPU", limit)
    mapped, rows = Images(memory_mapped(small_faces, tmp_path / "images.npy"), GPU), torch.arange(9, device=GPU)
    assert torch.allclose(mapped(rows).cpu(), Images(small_faces, CPU)(rows.cpu()))
    draw = lambda images: images(rows, torch.Generator(GPU).manual_seed(0), True, 2, 12.0, 0.1, 2.0)
    assert torch.equal(draw(mapped), draw(Images(small_faces, GPU)))
