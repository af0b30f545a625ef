"""run.py and experiments.py, called in this process as a notebook calls them, with every kind of metric."""
import importlib
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

import experiments
import expr_classifier.run as classifier_script
import metric_vae.run as vae_script
import run
from conftest import SCRIPTS, draw_small_images
from data.faces import Faces
from metric_vae import space, train as vae
from metric_vae.metrics import Function
from metric_vae.model import light
from metric_vae.scores import latents_of
from metric_vae.trained import load_vae, summarize
from training import checkpoints, storage
from training.log import read_log
from training.settings import constants

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ("IMAGE_SIZE=16", "DEVICE=cpu", "PRECISION=fp32", "classifier.STEPS=1", "vae.STEPS=1")
SCORED = ("JUDGE_STEPS=1", "JUDGE_BATCH=16", "IDENTITY_STEPS=0", "SAMPLE=20", "SHOWN=2", "DEVICE=cpu")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with faces.npz, my_points.npy, my_distances.npy and my_file.py; runs go to its experiments/."""
    labels = np.arange(70) % 7
    points = np.random.default_rng(0).normal(size=(70, 3))
    np.savez(tmp_path / "faces.npz", images=draw_small_images(), labels=labels, identities=np.arange(70) // 7)
    np.save(tmp_path / "my_points.npy", points)
    np.save(tmp_path / "my_distances.npy", np.linalg.norm(points[:, None] - points, axis=2))
    (tmp_path / "my_file.py").write_text("def function(x):\n    return x.mean((2, 3))\n")
    monkeypatch.setattr(storage, "RUNS", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_describes_the_script_and_its_constants(script, capsys):
    module = importlib.import_module(script)
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    printed = capsys.readouterr().out
    assert not end.value.code and module.__doc__.split("\n")[0] in printed and "set by NAME=VALUE" in printed


def test_every_kind_of_metric_goes_through_both_scripts(home):
    stresses = {}
    for number, metric in enumerate(("pixels", "labels", "my_points.npy", "my_distances.npy", "my_file.py:function")):
        run.main(["DATA=faces.npz", *QUICK, f"vae.METRIC={metric}"])
        experiments.main([*SCORED, "EDIT_PART=both"])
        folder = home / "experiments" / str(number)
        assert "ceiling" not in json.loads((folder / "scores.json").read_text())
        stresses[metric] = read_log(folder, "dist_reg")[-1]["val_regularizer"]
    assert stresses["my_points.npy"] == pytest.approx(stresses.pop("my_distances.npy"), rel=1e-3)
    assert len({round(stress, 4) for stress in stresses.values()}) == 4


def test_a_classifier_that_tells_no_faces_apart_is_no_metric(home, monkeypatch, user_error):
    same = Function(lambda x: torch.ones(len(x), 3) + 1e-7 * x.mean((1, 2, 3))[:, None])
    monkeypatch.setattr(run, "metric_of", lambda *layer: same)
    user_error(lambda: run.main(["DATA=faces.npz", *QUICK]), "METRIC=embeddings", "train the classifier longer")
    folder = home / "experiments" / "0"
    assert (folder / "classifier.pt").exists() and not (folder / "no_dist_reg.pt").exists()


def test_the_reference_recipe_goes_through_both_scripts(home):
    run.main(["DATA=faces.npz", "RECIPE=reference", *QUICK, "vae.Z_DIM=8", "vae.BATCH=32", "classifier.BATCH=32"])
    experiments.main([*SCORED])
    folder = home / "experiments" / "0"
    settings, scores = (json.loads((folder / name).read_text()) for name in ("settings.json", "scores.json"))
    assert settings["vae"]["REGULARIZER"] == "batchwise" and settings["classifier"]["LOSS"] == "squared_error"
    assert settings["vae"]["Z_DIM"] == 8                        # arguments come after the recipe
    assert {line["beta"] for line in read_log(folder, "dist_reg")} == {1e5}
    assert "spearman" in scores["dist_reg"] and "ceiling" in scores


def test_two_calls_do_not_see_each_others_arguments(home):
    run.main(["DATA=faces.npz", *QUICK, "vae.METRIC=pixels", "vae.Z_DIM=9", "SEED=3"])
    run.main(["DATA=faces.npz", *QUICK, "vae.METRIC=pixels"])
    first, second = (json.loads((home / "experiments" / name / "settings.json").read_text()) for name in "01")
    assert (first["vae"]["Z_DIM"], first["run"]["SEED"]) == (9, 3)
    assert (second["vae"]["Z_DIM"], second["run"]["SEED"]) == (128, 0)


def test_a_stopped_run_is_analysed_as_far_as_it_got_and_ends_with_the_same_latents(home, monkeypatch, capsys):
    run.main(["DATA=faces.npz", *QUICK, "vae.STEPS=8"])
    save, saved = checkpoints.save_checkpoint, []

    def stop(path, *rest, **more):
        save(path, *rest, **more)
        saved.append(path.name)
        if path.name == "dist_reg.pt":
            raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "save_checkpoint", stop)
        run.main(["DATA=faces.npz", *QUICK, "vae.STEPS=8"])
    whole, folder = home / "experiments" / "0", home / "experiments" / "1"
    capsys.readouterr()
    experiments.main([*SCORED, "RUN=1"])
    assert "is not finished" in capsys.readouterr().out and not (folder / "dist_reg_latents.npz").exists()
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["stopped"] and {*vae.MODELS, "ceiling"} < set(scores)
    run.main(["RESUME=1"])
    a, b = (np.load(path / "dist_reg_latents.npz") for path in (whole, folder))
    assert saved.count("dist_reg.pt") == 1 and all((a[key] == b[key]).all() for key in a)


def test_a_run_and_its_faces_may_be_moved(home, user_error, capsys):
    run.main(["DATA=faces.npz", *QUICK, "vae.METRIC=pixels"])
    (home / "experiments" / "0").rename(home / "kept")
    (home / "faces.npz").rename(home / "moved.npz")
    user_error(lambda: experiments.main([*SCORED, "RUN=kept"]), "faces.npz")
    experiments.main([*SCORED, "RUN=kept", "DATA=moved.npz"])
    assert "dist_reg" in json.loads((home / "kept" / "scores.json").read_text())
    np.savez(home / "other.npz", images=draw_small_images(seed=1), labels=np.arange(70) % 7)
    user_error(lambda: experiments.main([*SCORED, "RUN=kept", "DATA=other.npz"]), "the faces of that run")


def test_a_call_changes_neither_the_next_nor_what_a_notebook_has_set(home):
    def state():
        return (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), dict(matplotlib.rcParams),
                sys.stdout, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
                [constants(script) for script in (run, experiments, classifier_script, vae_script)])
    before = state()
    quick = ["DATA=faces.npz", *QUICK, "vae.STEPS=8"]
    run.main(quick)
    experiments.main([*SCORED])
    run.main(["DATA=faces.npz", *QUICK, "vae.METRIC=labels", "vae.ALPHA=optimal", "SEED=3", "RECIPE=reference",
              "vae.Z_DIM=8", "vae.BATCH=32", "classifier.BATCH=32"])
    experiments.main([*SCORED, "SPLIT=val", "SEED=4"])
    torch.manual_seed(5)
    np.random.seed(5)
    run.main(quick)
    experiments.main([*SCORED])
    first, last = (home / "experiments" / number for number in "02")
    assert_same_run(first, last)
    assert (first / "scores.json").read_text() == (last / "scores.json").read_text()
    assert state() == before


def test_a_package_of_the_users_own_that_stands_before_ours_is_named(tmp_path):
    def start(code):
        return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
                              capture_output=True, text=True)
    (tmp_path / "data").mkdir()                                 # a folder of pictures is in nobody's way
    assert start("import metric_vae.train, expr_classifier.train, experiments").returncode == 0
    for name, code in (("training.py", "import run"), ("data/__init__.py", "import experiments")):
        (tmp_path / name).write_text("")
        done = start(code)
        (tmp_path / name).unlink()
        assert done.returncode == 1 and f"finds {tmp_path / name}, not that in {ROOT}" in done.stderr


@pytest.mark.parametrize("part, moved", [("metric", [0, 1, 2]), ("rest", [3, 4, 5]), ("both", [0, 1, 2, 3, 4, 5])])
def test_edits_move_the_chosen_part_of_z(small_faces, tmp_path, part, moved):
    torch.manual_seed(0)
    model, cpu = light(16, 6, 3).eval(), torch.device("cpu")
    summary = summarize(model, "dist_reg", small_faces, None, small_faces.rows("train"), tmp_path, 0, cpu)
    latents = latents_of("dist_reg", model, small_faces, np.arange(8), cpu, summary, part)
    latents.decode = lambda z: z
    change = latents.edit(np.arange(7), 6)[:6] - latents.mu[:6]
    assert np.flatnonzero(np.abs(change).max(0) > 0).tolist() == moved


@pytest.mark.parametrize("names, example", [("ba", "a_to_b"), (("cat", "sad", "happy"), "happy_to_sad")])
def test_other_classes_go_through_both_scripts(home, names, example):
    labels = np.array(names)[np.arange(70) % 7 % len(names)] if isinstance(names, tuple) else np.array(list(names))[
        np.arange(70) % 2]
    np.savez(home / "other.npz", images=draw_small_images(), labels=labels, identities=np.arange(70) // 7)
    run.main(["DATA=other.npz", *QUICK])
    experiments.main(list(SCORED))
    folder = home / "experiments" / "0"
    scores = json.loads((folder / "scores.json").read_text())
    assert np.load(folder / "embeddings.npy").shape == (70, len(names))
    assert f"edit_success_{example}" in scores["dist_reg"] and "ceiling" in scores
    assert (folder / "figures" / "dist_reg" / "edits.png").exists()


def test_faces_without_labels_get_a_vae_that_keeps_their_pixels(home, capsys):
    np.savez(home / "bare.npz", images=draw_small_images(), labels=np.full(70, -1))
    run.main(["DATA=bare.npz", *QUICK])
    assert "warning: no labels: no classifier, so METRIC=pixels" in capsys.readouterr().out
    experiments.main(list(SCORED))
    folder = home / "experiments" / "0"
    assert json.loads((folder / "settings.json").read_text())["vae"]["METRIC"] == "pixels"
    assert not (folder / "classifier.pt").exists()
    scores = json.loads((folder / "scores.json").read_text())
    assert "spearman" in scores["dist_reg"] and "edit_success" not in scores["dist_reg"]


def test_a_class_without_training_faces_can_be_left_out_for_a_classifier():
    labels, split = np.arange(70) % 3, np.where(np.arange(70) % 3 == 2, 2, np.arange(70) // 7 % 3)
    faces = Faces(draw_small_images(), labels, np.full(70, -1), split, "mine", ("happy", "not sure", "sad"))
    assert run.without_untrained(faces, None).endswith(": LEFT_OUT=sad")
    assert run.without_untrained(faces, "fear, joy").endswith(": 'LEFT_OUT=fear, joy,sad'")
    faces.split[labels == 1] = 2
    assert run.without_untrained(faces, None) == ""             # one class is too few for a classifier


def test_networks_and_a_regularizer_of_the_users_own_go_through_both_scripts_from_any_folder(home, monkeypatch, capsys):
    (home / "my_nets.py").write_text("""
from __future__ import annotations
from dataclasses import dataclass

from torch import nn
from expr_classifier.model import Classifier
from metric_vae.model import VAE


@dataclass
class Sizes:                    # dataclasses look up the module of such an annotation
    width: int = 64


def vae(size, z_dim, metric_dims, channels):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(size * size, Sizes().width), nn.SiLU(), nn.Linear(64, 2 * z_dim))
    decoder = nn.Sequential(nn.Linear(z_dim, 64), nn.SiLU(), nn.Linear(64, size * size),
                            nn.Unflatten(1, (1, size, size)))
    return VAE(encoder, decoder, metric_dims)


def classifier(size, classes, channels):
    return Classifier([nn.Conv2d(1, 4, 3, 2, 1)], nn.Sequential(nn.Linear(size * size, 16), nn.SiLU()), 16, classes)


def error_of_distances(e, d, known=None):
    return (e - d).square().mean()
""")
    own = ["DATA=faces.npz", *QUICK, "vae.ARCHITECTURE=my_nets.py:vae", "vae.REGULARIZER=my_nets.py:error_of_distances",
           "classifier.ARCHITECTURE=my_nets.py:classifier"]
    run.main(own)
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(home / "experiments")
        experiments.main(list(SCORED))
        model = load_vae(home / "experiments" / "0", "dist_reg", torch.device("cpu"))
    assert [type(layer).__name__ for layer in model.encoder] == ["Flatten", "Linear", "SiLU", "Linear"]
    capsys.readouterr()
    run.main(["CLASSIFIER=0", *own])
    assert "classifier.pt, embeddings.npy, judge.pt, second.pt, no_dist_reg.pt\n" in capsys.readouterr().out
    (home / "my_nets.py").write_text((home / "my_nets.py").read_text() + "# changed")
    space.load(home / "experiments" / "0")
    assert "my_nets.py has changed since that run" in capsys.readouterr().err


def test_a_network_that_is_not_there_is_refused(home, user_error):
    user_error(lambda: run.main(["vae.ARCHITECTURE=nowhere.py:vae"]), "nowhere.py")
    user_error(lambda: run.main(["vae.ARCHITECTURE=big"]), "light, original", "my_file.py:function")


WRONG_NETS = """
from torch import nn
from expr_classifier.model import Classifier
from metric_vae.model import VAE


def vae(outputs, pixels):
    return VAE(nn.Sequential(nn.Flatten(), nn.Linear(256, outputs)), nn.Sequential(nn.Linear(8, pixels)), 4)


def encoder(size, z_dim, metric_dims, channels):
    return vae(z_dim, 256)


def flat(size, z_dim, metric_dims, channels):
    return vae(2 * z_dim, 256)


def deaf(size, z_dim, metric_dims, channels):
    decoder = nn.Sequential(nn.Linear(z_dim, 256), nn.Unflatten(1, (1, 16, 16)))
    return VAE(nn.Sequential(nn.Flatten(), nn.Linear(256, 2 * z_dim)), decoder)


class Own(VAE):
    def decode(self, z):
        return super().decode(z).sigmoid()


def subclass(size, z_dim, metric_dims, channels):
    return Own(nn.Flatten(), nn.Linear(8, 256), metric_dims)


def module(*sizes):
    return nn.Linear(256, 2)


def few(size):
    pass


def classes(size, classes, channels):
    return Classifier([nn.Flatten()], nn.Linear(256, 16), 16, classes + 1)
"""


@pytest.mark.parametrize("name, found", [
    ("vae.ARCHITECTURE=nets.py:encoder", "mu (4, 4)"), ("vae.ARCHITECTURE=nets.py:flat", "x_hat (4, 256)"),
    ("vae.ARCHITECTURE=nets.py:deaf", "metric_part (4, 8)"), ("vae.ARCHITECTURE=nets.py:subclass", "its own encode"),
    ("vae.ARCHITECTURE=nets.py:module", "Linear, not VAE"), ("vae.ARCHITECTURE=nets.py:few", "few() takes 1"),
    ("classifier.ARCHITECTURE=nets.py:module", "Linear, not Classifier"),
    ("classifier.ARCHITECTURE=nets.py:classes", "last (4, 8)")])
def test_networks_with_other_outputs_are_refused_before_anything_is_trained(home, user_error, name, found):
    (home / "nets.py").write_text(WRONG_NETS)
    arguments = ["DATA=faces.npz", *QUICK, "vae.Z_DIM=8", "vae.METRIC_DIMS=4", name]
    user_error(lambda: run.main(arguments), "ARCHITECTURE=", found)
    assert not (home / "experiments").exists()


# --- the classifier of another run

def assert_same_run(folder, other):
    """Two run folders have the same weights, embeddings, densities and losses, bit by bit."""
    for name in ("classifier", *vae.MODELS):
        a, b = (torch.load(path / f"{name}.pt", weights_only=True)["model"] for path in (folder, other))
        assert all(torch.equal(a[key], b[key]) for key in a)
    for name in ("embeddings.npy", "no_dist_reg_latents.npz", "dist_reg_latents.npz"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    a, b = ([{key: value for key, value in line.items() if key not in ("seconds", "images_per_second")}
             for line in read_log(path)] for path in (folder, other))
    assert a == b


@pytest.mark.parametrize("architecture", ["light", "original"])
def test_a_run_with_the_classifier_of_another_is_that_which_trains_its_own(home, capsys, architecture):
    quick = ["DATA=faces.npz", *QUICK, "vae.STEPS=8", f"vae.ARCHITECTURE={architecture}",
             f"classifier.ARCHITECTURE={architecture}", "vae.Z_DIM=8", "vae.METRIC_DIMS=4"]
    changed = ["vae.BETA=7", "vae.METRIC=pixels", "vae.METRIC_NORM=1.0", "vae.REGULARIZER=local_stress",
               "vae.REGULARIZE_ON=z", "vae.CONSISTENCY=0", "vae.DUAL_RATE=0.01", "vae.METRIC_BATCH=20", "vae.TURN=3",
               "vae.ZOOM=0", "vae.MOVE=0", "vae.LOOKED_UP=1.0", "vae.SEES_LIGHT=False"]
    assert {name.partition("=")[0].removeprefix("vae.") for name in changed} == \
        {*vae.OF_METRIC} - {"METRIC_KIND", "TARGET_STRESS"}     # these two do not go with the others
    run.main([*quick, "vae.BETA=5"])
    run.main([*quick, *changed])
    capsys.readouterr()
    run.main(["CLASSIFIER=0", *quick, *changed])
    assert "classifier.pt, embeddings.npy, no_dist_reg.pt\n" in capsys.readouterr().out
    first, own, taken = (home / "experiments" / number for number in "012")
    assert_same_run(taken, own)
    assert read_log(first, "no_dist_reg") == read_log(taken, "no_dist_reg")    # its seconds, too
    assert read_log(first, "dist_reg")[-1]["loss"] != read_log(taken, "dist_reg")[-1]["loss"]
    assert json.loads((taken / "settings.json").read_text())["classifier_of"] == dict(folder=str(first), SEED=0)


def test_no_dist_reg_is_trained_where_the_code_of_a_users_network_has_changed(home, capsys):
    code = ("from torch import nn\nfrom metric_vae.model import VAE\n\n\n"
            "def own(size, z_dim, metric_dims, channels):\n"
            "    encoder = nn.Sequential(nn.Flatten(), nn.Linear(256, 2 * z_dim))\n"
            "    return VAE(encoder, nn.Sequential(nn.Linear(z_dim, 256), nn.Unflatten(1, (1, 16, 16))), "
            "metric_dims)\n")
    arguments = ["DATA=faces.npz", *QUICK, "vae.ARCHITECTURE=nets.py:own"]
    (home / "nets.py").write_text(code)
    assert run.main(arguments) == home / "experiments" / "0"
    run.main(["CLASSIFIER=0", *arguments])
    assert "no_dist_reg.pt" in capsys.readouterr().out
    (home / "nets.py").write_text(code.replace("nn.Flatten(), ", "nn.Flatten(), nn.Tanh(), "))
    run.main(["CLASSIFIER=0", *arguments])
    first = home / "experiments" / "0"
    assert f"no_dist_reg is trained, not taken from {first}: code differ" in capsys.readouterr().out


def test_a_stopped_run_with_the_classifier_of_another_ends_with_the_same_numbers(home, monkeypatch):
    run.main(["DATA=faces.npz", *QUICK, "vae.STEPS=8"])

    def stop(*rest):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(vae, "check_finite", stop)
        run.main(["CLASSIFIER=last", "DATA=faces.npz", *QUICK, "vae.STEPS=8"])
    (home / "experiments" / "0").rename(home / "kept")
    run.main(["RESUME=1"])
    assert_same_run(home / "experiments" / "1", home / "kept")


@pytest.mark.parametrize("argument, named", [
    ("vae.SHIFT=1", "SHIFT"), ("vae.METRIC_DIMS=5", "METRIC_DIMS"), ("vae.METRIC=labels", "UNLABELLED"),
    ("PRECISION=bf16", "PRECISION")])
def test_no_dist_reg_is_trained_where_a_setting_that_matters_to_it_differs(home, capsys, argument, named):
    labels = np.arange(70) % 7
    labels[:3] = -1
    np.savez(home / "faces.npz", images=draw_small_images(), labels=labels, split=np.array([0] * 8 + [1, 2]).repeat(7))
    run.main(["DATA=faces.npz", *QUICK])
    run.main(["CLASSIFIER=0", "DATA=faces.npz", *QUICK, argument])
    assert f"no_dist_reg is trained, not taken from {home / 'experiments' / '0'}: {named} differ" in \
        capsys.readouterr().out
    a, b = (torch.load(home / "experiments" / number / "no_dist_reg.pt", weights_only=True)["model"] for number in "01")
    assert any(a[key].shape != b[key].shape or not torch.equal(a[key], b[key]) for key in a)


def test_the_settings_of_a_classifier_that_is_taken_follow_it_or_are_refused(home, capsys, user_error):
    run.main(["DATA=faces.npz", *QUICK, "classifier.SHIFT=1"])
    without = [argument for argument in QUICK if not argument.startswith("classifier")]
    run.main(["CLASSIFIER=experiments/0", "DATA=faces.npz", *without])
    assert "classifier.STEPS=1, classifier.SHIFT=1" in capsys.readouterr().out
    kept = json.loads((home / "experiments" / "1" / "settings.json").read_text())["classifier"]
    assert (kept["STEPS"], kept["SHIFT"]) == (1, 1)
    before = sorted((home / "experiments").iterdir())
    user_error(lambda: run.main(["CLASSIFIER=0", "DATA=faces.npz", *QUICK, "classifier.SHIFT=3"]),
               "that classifier: classifier.SHIFT=1", "classifier.SHIFT=3")
    user_error(lambda: run.main(["CLASSIFIER=0", "DATA=faces.npz", *QUICK, "RECIPE=reference"]), "squared_error")
    np.savez(home / "other.npz", images=draw_small_images(seed=1), labels=np.arange(70) % 7)
    user_error(lambda: run.main(["CLASSIFIER=0", "DATA=other.npz", *QUICK]), "the faces of that run")
    (home / "experiments" / "0" / "embeddings.npy").unlink()
    user_error(lambda: run.main(["CLASSIFIER=0", "DATA=faces.npz", *QUICK]), "no embeddings.npy")
    assert sorted((home / "experiments").iterdir()) == before


def test_a_classifier_that_was_trained_alone_is_taken(home):
    classifier_script.main(["DATA=faces.npz", "IMAGE_SIZE=16", "DEVICE=cpu", "PRECISION=fp32", "STEPS=1", "SEED=3"])
    run.main(["CLASSIFIER=0", "DATA=faces.npz", *QUICK, "SEED=3"])
    run.main(["DATA=faces.npz", *QUICK, "SEED=3"])
    assert_same_run(home / "experiments" / "1", home / "experiments" / "2")


# --- TensorBoard

class Recorder:
    """What a SummaryWriter would have written: (tag, epoch): value."""
    written = {}

    def __init__(self, folder):
        self.folder = folder

    def add_scalar(self, tag, value, epoch):
        self.written[tag, epoch] = value

    add_image = add_scalar

    def flush(self):
        pass


def test_tensorboard_gets_every_loss_and_pictures_and_changes_no_number(home, monkeypatch):
    quick = ["DATA=faces.npz", *QUICK, "vae.STEPS=8"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)           # an import of it would fail
    run.main(quick)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Recorder))
    run.main([*quick, "LOG=tensorboard"])
    assert_same_run(home / "experiments" / "0", home / "experiments" / "1")
    for line in read_log(home / "experiments" / "1"):
        stage, epoch = line["stage"], line["epoch"]
        names = set(line) - {"stage", "epoch", "seconds", "images_per_second"}
        assert {name: Recorder.written[f"{stage}/{name}", epoch] for name in names if line[name] is not None} == \
            {name: line[name] for name in names if line[name] is not None}
    picture = Recorder.written["dist_reg/reconstructions", 2]
    assert picture.shape[0] == 3 and picture.shape[1] < picture.shape[2] and 0 <= picture.min() < picture.max() <= 1


def test_tensorboard_that_is_not_installed_is_a_clear_error(home, monkeypatch, user_error):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for script in (run, classifier_script, vae_script):
        user_error(lambda: script.main(["LOG=tensorboard"]), "pip install tensorboard")
    user_error(lambda: run.main(["LOG=wandb"]), "tensorboard")
    assert not (home / "experiments").exists()
