"""Impossible settings are refused before anything is loaded, and what depends on the data before training."""
import numpy as np
import pytest

import expr_classifier.run as classifier_script
import metric_vae.run as vae_script
import run
from conftest import draw_small_images
from stress import arguments

IMPOSSIBLE = {
    "run":
        "DEVICE=meta DEVICE=tpu IMAGE_SIZE=50 IMAGE_SIZE=1000000000 FOLD=9 FOLD=-1 SEED=-1 SEED=4294967296 "
        "PRECISION=fp16 RECIPE=mine LOG=wandb CLASSIFIER=1 RESUME=7 LEFT_OUT=nobody ANGLES=up CLASS_NAMES=a "
        "classifier.WEIGHT_DECAY=-1 classifier.TURN=inf classifier.TURN=nan classifier.ZOOM=1 classifier.SMOOTHING=2 "
        "classifier.BALANCE=nan classifier.STEPS=0 classifier.LEARNING_RATE=-1 classifier.LEARNING_RATE=inf "
        "classifier.LEARNING_RATE=2 classifier.SHIFT=1000000000 classifier.BATCH=60 vae.BETA=1e39 vae.BETA=1e400 "
        "vae.BETA=nan vae.BETA=(1,) vae.ALPHA=-1 vae.MEAN_OF=0 vae.AVERAGE=-3 vae.DUAL_RATE=2 vae.Z_DIM=1000000000 "
        "vae.Z_DIM=0 vae.METRIC_DIMS=128 vae.METRIC_DIMS=() vae.METRIC_NORM=0.5 vae.METRIC_NORM=1e9 vae.WARM_UP=nan "
        "vae.ADAM_BETA2=1 vae.MAX_GRADIENT=0 vae.CONSISTENCY=-1 vae.SHIFT=-1 vae.BATCH=1 vae.BATCH=60 vae.STEPS=-5 "
        "vae.TARGET_STRESS=2 vae.SEES_LIGHT=(1,) vae.METRIC_BATCH=1000000000 vae.METRIC_BATCH=3 vae.TURN=1e9 "
        "vae.MOVE=nan",
    "expr_classifier.run": "BATCH=60 STEPS=inf",
    "metric_vae.run": "BATCH=60 METRIC=embeddings REGULARIZER=stres",
    "experiments":
        "SEED=-1 SEED=4294967296 SAMPLE=0 STEPS=1 STEPS=1000000000 PATHS=0 SHOWN=0 JUDGE_STEPS=0 SPLIT=train "
        "EDIT_PART=all SAMPLES_FROM=nothing JUDGE_RATE=nan JUDGE_SEED=-1 DEVICE=meta JUDGE_ARCHITECTURE=big "
        "FROM=nobody RUN=7",
    "benchmarks.compare": "RUNS=7 X=beauty SPLIT=train",
    "benchmarks.regularizers": "SEEDS=0, SEEDS=4294967296 POINTS=all,none TRAINING_FACES=0 W_DIM=0 ADVERSARY=-1",
    "benchmarks.scale": "COUNTS=many COUNTS=0 STEPS=0",
    "benchmarks.speed": "PARTS=all MATRIX=0 ROUNDS=0"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        arguments.prepare(home, patch)
        yield home


@pytest.mark.parametrize("script, argument", [(script, argument) for script, all_of in IMPOSSIBLE.items()
                                              for argument in all_of.split()])
def test_an_impossible_value_is_refused_and_leaves_no_run_folder(script, argument, home, user_error):
    module, usual, _ = arguments.SCRIPTS[script]
    name, _, value = argument.partition("=")
    text = user_error(lambda: module.main([*usual, argument]))
    assert name.rpartition(".")[2] in text or name in ("RUN", "RUNS", "RESUME", "CLASSIFIER") and value in text
    assert [path.name for path in (home / "runs").iterdir()] == ["0"]


def test_every_constant_of_every_script_takes_a_value_or_refuses_it(home):
    found = {case: arguments.problem(*case) for case in list(arguments.cases())[::3]}   # all: python -m tests.stress
    assert not {case: problem for case, problem in found.items() if problem} and len(found) > 1500


@pytest.mark.parametrize("script, argument", [
    (run, "classifier.ARCHITECTURE=original classifier.BATCH=3"), (classifier_script, "ARCHITECTURE=original BATCH=3"),
    (classifier_script, "DATA=one.npz"), (vae_script, "METRIC=distances.npy REGULARIZER=pointwise")])
def test_faces_or_a_metric_that_do_not_suffice_are_refused_before_the_run_folder(script, argument, home, user_error):
    np.savez(home / "one.npz", images=draw_small_images(), labels=np.zeros(70, int))
    np.save(home / "distances.npy", 1 - np.eye(70))
    user_error(lambda: script.main([*arguments.SMALL, *argument.split()]))
