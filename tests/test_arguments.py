"""Impossible settings are refused before anything is loaded, and what depends on the data before training."""
import numpy as np
import pytest

import experiments
import run
from conftest import draw_small_images
from training import storage

IMPOSSIBLE = ("DEVICE=meta", "DEVICE=tpu", "IMAGE_SIZE=50", "FOLD=9", "FOLD=-1", "SEED=-1", "PRECISION=fp16",
              "RECIPE=mine", "classifier.WEIGHT_DECAY=-1", "classifier.TURN=inf", "classifier.TURN=nan",
              "classifier.ZOOM=1", "classifier.SMOOTHING=2", "classifier.BALANCE=nan", "classifier.STEPS=0", "classifier.LEARNING_RATE=-1",
              "classifier.LEARNING_RATE=inf", "vae.BETA=1e39", "vae.BETA=1e400", "vae.BETA=nan", "vae.ALPHA=-1",
              "vae.MEAN_OF=0", "vae.AVERAGE=-3", "vae.DUAL_RATE=2", "vae.Z_DIM=1000000000", "vae.Z_DIM=0",
              "vae.METRIC_DIMS=128", "vae.METRIC_NORM=0.5", "vae.WARM_UP=nan", "vae.ADAM_BETA2=1", "vae.MAX_GRADIENT=0",
              "vae.CONSISTENCY=-1", "vae.SHIFT=-1", "vae.BATCH=1", "vae.STEPS=-5", "LOG=wandb")


@pytest.fixture
def home(tmp_path, monkeypatch):
    np.savez(tmp_path / "faces.npz", images=draw_small_images(), labels=np.arange(70) % 7)
    monkeypatch.setattr(storage, "RUNS", tmp_path / "runs")
    return tmp_path


@pytest.mark.parametrize("argument", IMPOSSIBLE)
def test_an_impossible_value_is_refused_and_leaves_no_run_folder(argument, home, user_error):
    constant = argument.partition("=")[0].rpartition(".")[2]
    user_error(lambda: run.main([f"DATA={home / 'faces.npz'}", *(["IMAGE_SIZE=16"] if constant != "IMAGE_SIZE" else []),
                                 argument]), constant)
    assert not (home / "runs").exists()


@pytest.mark.parametrize("argument", ["vae.BATCH=60", "classifier.BATCH=60"])
def test_a_batch_larger_than_the_training_faces_is_refused_before_training(argument, home, user_error):
    user_error(lambda: run.main([f"DATA={home / 'faces.npz'}", "IMAGE_SIZE=16", argument]), argument, "56")
    assert not (home / "runs").exists()


@pytest.mark.parametrize("argument", ["SEED=-1", "SAMPLE=0", "STEPS=1", "PATHS=0", "SHOWN=0", "JUDGE_STEPS=0",
                                      "SPLIT=train", "EDIT_PART=all", "SAMPLES_FROM=nothing", "JUDGE_RATE=nan",
                                      "DEVICE=meta", "JUDGE_ARCHITECTURE=big"])
def test_an_impossible_value_of_experiments_is_refused(argument, home, user_error):
    storage.make_folder(home / "runs" / "0")
    storage.start_settings(home / "runs" / "0", data={}, device="cpu", precision="fp32")
    user_error(lambda: experiments.main([argument]), argument.split("=")[0])
