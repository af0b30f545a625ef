"""The real scripts, run as a user runs them, in a copy of the project, on a few small faces."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import metric_vae.run
from data.batches import Images
from data.sources import load
from expr_classifier.train import load_classifier
from metric_vae import train as vae
from metric_vae.trained import load_summary, load_vae
from metric_vae.loss import Loss
from training.checkpoints import load_checkpoint
from training.log import read_log
from training.settings import parse_one

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("DATA=faces.npz", "IMAGE_SIZE=16", "SEED=1", "DEVICE=cpu", "PRECISION=fp32", "classifier.STEPS=14",
         "classifier.BATCH=16", "vae.STEPS=18", "vae.BATCH=16", "vae.Z_DIM=8", "vae.METRIC_DIMS=4")

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


TINY = (*SMALL, "classifier.STEPS=1", "vae.STEPS=1", "vae.METRIC=pixels")


def start(house, *arguments, shell="", **environment):
    """Start python with these arguments in the house; shell: commands before it, and where its output goes."""
    command = ["sh", "-c", shell, "sh"] if shell else []
    return subprocess.Popen([*command, sys.executable, *arguments], cwd=house, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE,             # one thread is quick for small faces
                            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment)


def call(house, *arguments, code=0, **more):
    """Run python with these arguments in the house; returns what it printed, both streams."""
    process = start(house, *arguments, **more)
    out, error = process.communicate(timeout=200)
    assert process.returncode == code, out + error
    return out + error


def newest(house):
    """The newest run folder."""
    return max((house / "experiments").iterdir(), key=lambda path: int(path.name))


def timeless(folder):
    """The log without its times, a stage after the other."""
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")}
            for line in sorted(read_log(folder), key=lambda line: line["stage"])]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the project with 140 small faces in faces.npz, and run 0 in experiments/."""
    house = tmp_path_factory.mktemp("house")
    for path in ROOT.iterdir():
        if path.suffix == ".py":
            shutil.copy(path, house)
    for package in ("data", "expr_classifier", "metric_vae", "training"):
        (house / package).mkdir()
        for path in (ROOT / package).glob("*.py"):
            shutil.copy(path, house / package)
    shutil.copytree(ROOT / "metric_vae" / "page", house / "metric_vae" / "page")
    from conftest import draw_small_images
    images = draw_small_images(people=20)
    row = np.arange(140)
    np.savez(house / "faces.npz", images=images, labels=row % 7, identities=row // 7,
             split=np.array([0] * 14 + [1] * 2 + [2] * 4)[row // 7])
    call(house, "run.py", *SMALL)
    return house


def test_a_run_leaves_every_file_with_its_numbers(house):
    folder = house / "experiments" / "0"
    assert {path.name for path in folder.iterdir()} >= {"settings.json", "log.jsonl", "embeddings.npy", "classifier.pt",
                                                        "no_dist_reg.pt", "dist_reg.pt", "no_dist_reg_latents.npz",
                                                        "dist_reg_latents.npz"}
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["finished"] and settings["vae"]["Z_DIM"] == 8 and settings["run"]["IMAGE_SIZE"] == 16
    assert settings["data"]["count"] == 140 and settings["precision"] == "fp32"
    assert np.load(folder / "embeddings.npy", allow_pickle=False).shape == (140, 7)
    assert [(line["stage"], line["epoch"]) for line in timeless(folder)] == \
        [("classifier", 1), ("classifier", 2)] + [(m, e) for m in ("dist_reg", "no_dist_reg") for e in (1, 2, 3)]
    assert not list(folder.glob(".*"))


def test_experiments_writes_scores_and_figures_of_the_run(house):
    printed = call(house, "experiments.py")
    folder = house / "experiments" / "0"
    scores = json.loads((folder / "scores.json").read_text())
    for model in ("no_dist_reg", "dist_reg"):
        for name in ("error", "psnr", "ssim", "kl", "active_units", "pearson", "spearman", "stress", "knn_accuracy",
                     "high_frequencies"):
            value, low, high = scores[model][name]
            assert low <= value <= high and name in printed
        assert scores[model]["frechet"] > 0 and scores[model]["frechet_prior"] > 0
    assert "accuracy" in scores["classifier"] and scores["controls"]
    for name in ("last", "second_last", "softmax", "intensities", "ordered", "confusion", "shepard", "losses", "edits",
                 *(f"{m}/{f}" for m in ("no_dist_reg", "dist_reg") for f in (
                     "latent", "interpolate", "change", "reconstructions", "samples"))):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000, name


def take_newest(house):
    """The settings.json of the newest run, which must be finished; removes it, as other tests count the runs."""
    settings = json.loads((newest(house) / "settings.json").read_text())
    assert settings["finished"]
    shutil.rmtree(newest(house))
    return settings


def test_a_reader_that_goes_away_does_not_end_a_run_and_ascii_terminals_get_escapes(house):
    (house / "möbel").mkdir()
    shutil.copy(house / "faces.npz", house / "möbel" / "fäces.npz")
    process = start(house, "run.py", *TINY, "DATA=möbel/fäces.npz", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert r"m\udcc3\udcb6bel/f\udcc3\udca4ces.npz: " in process.stdout.readline()       # UTF-8's bytes
    process.stdout.close()                                      # as: python run.py | head -1
    error = process.stderr.read()
    assert process.wait() == 0 and not error, error
    assert take_newest(house)["run"]["DATA"] == str(house / "möbel" / "fäces.npz").encode().decode(
        "ascii", "surrogateescape")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_one_stream_and_another_that_is_closed_do_not_end_a_run(house):
    call(house, "run.py", *TINY, shell='exec "$@" >/dev/full 2>&- <&-')
    take_newest(house)


NO_SHARED_MEMORY = "mount -t tmpfs -o ro,size=1m tmpfs /dev/shm"


def test_nothing_is_shared_between_processes_by_dev_shm(house):
    """As in containers, where it is small: here a program may not even write there."""
    ways = [flags for flags in ("-m", "-rm") if shutil.which("unshare") and not subprocess.run(
        ["unshare", flags, "sh", "-c", NO_SHARED_MEMORY], capture_output=True).returncode]
    if not ways:
        pytest.skip("needs unshare, and a user who may mount")
    both = ("import sys, run, experiments; run.main(sys.argv[1:]); "
            "experiments.main(['JUDGE_STEPS=1', 'IDENTITY_STEPS=1', 'SAMPLE=5', 'SHOWN=2', 'DEVICE=cpu'])")
    call(house, "-c", both, *TINY, shell=f'exec unshare {ways[0]} sh -c \'{NO_SHARED_MEMORY} && exec "$@"\' sh "$@"')
    take_newest(house)


def test_a_killed_run_goes_on_to_the_same_numbers(house):
    process = start(house, "run.py", *SMALL)
    folder = house / "experiments" / "1"
    while not (folder / "dist_reg.pt").exists():                # killed while it trains the last model
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    call(house, "run.py", "RESUME=last")
    assert timeless(folder) == timeless(house / "experiments" / "0")
    for name in ("classifier", "no_dist_reg", "dist_reg"):
        a, b = (torch.load(house / "experiments" / run / f"{name}.pt", weights_only=True)["model"] for run in "01")
        assert all(torch.equal(a[key], b[key]) for key in a)
    for name in vae.MODELS:
        a, b = (load_summary(house / "experiments" / run / f"{name}_latents.npz") for run in "01")
        assert (a.density.sample(20) == b.density.sample(20)).all() and a.scale == b.scale > 0
    assert (folder / "embeddings.npy").read_bytes() == (house / "experiments" / "0" / "embeddings.npy").read_bytes()
    assert "unfinished run last" in call(house, "run.py", "RESUME=last", code=1)


def test_the_vae_runs_without_the_classifier_on_points_of_the_user(house, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(house, alone, ignore=shutil.ignore_patterns("experiments", "expr_classifier"))
    np.save(alone / "points.npy", np.random.default_rng(0).normal(size=(140, 3)))
    call(alone, "-m", "metric_vae.run", *(a.removeprefix("vae.") for a in SMALL if not a.startswith("classifier")),
         "METRIC=points.npy")
    assert (alone / "experiments" / "0" / "dist_reg.pt").exists()


def test_the_classifier_runs_alone(house):
    printed = call(house, "-m", "expr_classifier.run",
                   *(a.removeprefix("classifier.") for a in SMALL if not a.startswith("vae")))
    assert "test accuracy" in printed
    assert json.loads((newest(house) / "settings.json").read_text())["finished"]


@pytest.mark.parametrize("arguments, words", [
    (["run.py", "STEPS=3"], "vae.STEPS"), (["run.py", "DATA=nowhere"], "nowhere"),
    (["run.py", "vae.STEPS=many"], "vae.STEPS=many"), (["run.py", "vae.REGULARIZER=strss"], "stress"),
    (["run.py", "RESUME=77"], "77"), (["experiments.py", "RUN=77"], "77"),
    (["run.py", "IMAGE_SIZE=50"], "multiple of 8"), (["run.py", "SEED=-1"], "SEED"),
    (["run.py", "vae.METRIC_NORM=euclid"], "METRIC_NORM"), (["experiments.py", "STEPS=1"], "STEPS"),
    (["experiments.py", "SPLIT=train"], "SPLIT"), (["experiments.py", "SAMPLES_FROM=posterior"], "SAMPLES_FROM"),
    (["-m", "metric_vae.run", "METRIC=none.npy", *SMALL[:2]], "none.npy"),
    (["-m", "data", "nowhere"], "nowhere")])
def test_a_users_mistake_ends_with_one_message_and_no_new_run(house, arguments, words):
    before = sorted((house / "experiments").iterdir())
    printed = call(house, *arguments, code=1)
    assert words in printed and "expected:" in printed and "remedy:" in printed and "Traceback" not in printed
    assert sorted((house / "experiments").iterdir()) == before


def test_a_damaged_data_file_ends_with_one_message(house):
    (house / "cut.npz").write_bytes((house / "faces.npz").read_bytes()[:5000])
    printed = call(house, "run.py", "DATA=cut.npz", code=1)
    assert "cut.npz" in printed and "Traceback" not in printed


def assert_stopped(process, remark):
    """A process has ended as one that was stopped, with one line."""
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and error.strip().startswith("stopped.") and remark in error, error
    assert error.count("\n") == 2, error                        # an empty line comes first, after a progress bar


def test_a_run_that_is_stopped_ends_with_130_and_says_how_to_continue(house):
    before = newest(house)
    process = start(house, "run.py", *SMALL, "classifier.STEPS=100000")
    try:
        while newest(house) == before or not (newest(house) / "classifier.pt").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)                      # SIGTERM: below
        time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        assert_stopped(process, "RESUME=last")
    finally:
        process.kill()


STOPPED_WHILE_SAVING = """
import os, runpy, sys, time
import matplotlib.figure, torch

class File:
    def __init__(self, file):
        self.file, self.writes = file, 0

    def write(self, part):
        self.writes += 1
        if self.writes == 5:                    # twice, half way
            for _ in range(2):
                os.kill(os.getpid(), {number})
                time.sleep(0.001)
        return self.file.write(part)

    def __getattr__(self, name):
        return getattr(self.file, name)

saved, save, savefig = [], torch.save, matplotlib.figure.Figure.savefig
torch.save = lambda state, file: (saved.append(0), save(state, File(file) if len(saved) == 2 else file))
matplotlib.figure.Figure.savefig = lambda figure, file, **more: savefig(figure, File(file), **more)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_run_that_is_stopped_while_it_saves_goes_on_to_the_same_numbers(house):
    process = start(house, "-c", STOPPED_WHILE_SAVING.format(number=int(signal.SIGTERM)), "run.py", *SMALL)
    assert_stopped(process, "RESUME=last")
    folder, first = newest(house), house / "experiments" / "0"
    assert load_checkpoint(folder / "classifier.pt")["epoch"] == 2 and not list(folder.glob(".*"))
    call(house, "run.py", "RESUME=last")
    assert timeless(folder) == timeless(first)
    for name in ("classifier", "no_dist_reg", "dist_reg"):
        a, b = (load_checkpoint(path / f"{name}.pt")["model"] for path in (folder, first))
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_an_analysis_that_is_stopped_while_it_draws_leaves_whole_figures(house):
    code = STOPPED_WHILE_SAVING.format(number=int(signal.SIGINT)).replace("len(saved) == 2", "False")
    process = start(house, "-c", code, "experiments.py", "RUN=0", "JUDGE_STEPS=1", "IDENTITY_STEPS=0", "SAMPLE=20",
                    "SHOWN=2")
    assert_stopped(process, "")
    assert "dist_reg" in json.loads((house / "experiments" / "0" / "scores.json").read_text())
    figure, = (house / "experiments" / "0" / "figures").iterdir()
    assert figure.read_bytes().endswith(b"IEND\xaeB`\x82")


# --- several processes

def assert_same_log(folder, other):
    """The losses in both logs are the same within 1e-4, and every other number within 1e-4 of the loss."""
    for line, line2 in zip(timeless(folder), timeless(other), strict=True):
        assert line.keys() == line2.keys()
        for name, value in line.items():
            same = value == line2[name]                         # also names, and None where nothing was measured
            assert same or abs(value - line2[name]) < 1e-4 * line["loss"]


def test_two_processes_give_the_numbers_of_one(house):
    uneven = [*SMALL, "classifier.BATCH=97", "vae.BATCH=15"]    # 98 faces: of the last one a process gets none
    logs = []
    for launcher in ((), TORCHRUN):
        call(house, *launcher, "run.py", *uneven)
        logs.append(newest(house))
    one, two = (np.load(folder / "embeddings.npy") for folder in logs)
    assert_same_log(*logs)
    assert two == pytest.approx(one, abs=1e-3)
    assert json.loads((logs[1] / "settings.json").read_text())["processes"] == 2


def test_two_processes_with_batch_norm_keep_one_network(house):
    """98 training faces in batches of 16 leave two, one a process, of which batch norm has no variance."""
    call(house, *TORCHRUN, "run.py", *SMALL, "classifier.ARCHITECTURE=original", "vae.ARCHITECTURE=original",
         "classifier.STEPS=1", "vae.STEPS=1")
    folder = newest(house)
    model = load_classifier(folder / "classifier.pt", "cpu")
    x = torch.from_numpy(np.load(house / "faces.npz")["images"])[:, None] / 255
    assert np.load(folder / "embeddings.npy") == pytest.approx(model(x).numpy(), abs=1e-4)
    faces, cpu = load(str(house / "faces.npz"), 16, seed=1), torch.device("cpu")
    loss = Loss(parse_one(["BATCH=16", "Z_DIM=8", "METRIC_DIMS=4"], metric_vae.run), None, cpu)
    loss.schedule(1)
    means = vae.validate(load_vae(folder, "no_dist_reg", cpu), loss, Images(faces, cpu), faces.rows("val"), 1,
                         "fp32")
    assert means["val_error"] == pytest.approx(read_log(folder, "no_dist_reg")[-1]["val_error"], rel=1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_process_that_dies_ends_the_run_and_one_process_goes_on_with_it(house):
    parent = start(house, *TORCHRUN, "run.py", *SMALL)
    before = newest(house)
    while newest(house) == before or not (newest(house) / "no_dist_reg.pt").exists():
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.01)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    out, error = parent.communicate(timeout=100)
    assert parent.returncode != 0 and "RESUME" in error
    printed = call(house, "run.py", "RESUME=last")
    assert "warning: 2 processes before, 1 now: the last digits may differ" in printed
    assert_same_log(newest(house), house / "experiments" / "0")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_the_processes_of_a_launcher_that_is_killed_end_with_it(house, tmp_path):
    before = newest(house)
    parent = start(house, *TORCHRUN, "run.py", *SMALL, "classifier.STEPS=100000", TMPDIR=str(tmp_path))
    while newest(house) == before or not (newest(house) / "classifier.pt").exists():
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.01)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.kill()
    try:
        parent.communicate(timeout=10)                          # until they have closed their output, too
    except subprocess.TimeoutExpired:
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        raise
    left = [path.name for path in tmp_path.iterdir()]           # torchrun's own folder, torch's cache
    assert not [name for name in left if not name.startswith(("torchelastic_", "torchinductor_"))]
