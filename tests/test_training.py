"""training: constants, overrides, precision, schedules."""
import importlib.util

import pytest
import torch

import metric_vae.run
import training
from training import UserError, storage


@pytest.fixture
def script(tmp_path):
    """A script with one constant of each kind, and one that it imports."""
    path = tmp_path / "script.py"
    path.write_text("""
from training import UserError as IMPORTED
from metric_vae.regularizers import TINY

DATA = "auto"
EPOCHS = 5
RATE = 0.5
NORM: float | str = 2.0
BETA = (1.0, 2.0)
ALPHA: tuple | str = (.1, .1)
FLIP = True
DIMS: int | None = 16
PATHS = ("a",)
lower = 1
""")
    spec = importlib.util.spec_from_file_location("script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imported_constants_are_not_a_scripts_own(script):
    assert list(training.constants(script)) == ["DATA", "EPOCHS", "RATE", "NORM", "BETA", "ALPHA", "FLIP", "DIMS"]


@pytest.mark.parametrize("argument, name, value", [
    ("DATA=data/x", "DATA", "data/x"), ("DATA=7", "DATA", "7"), ("EPOCHS=3", "EPOCHS", 3), ("RATE=2", "RATE", 2.0),
    ("RATE=1e-3", "RATE", 1e-3), ("NORM=inf", "NORM", float("inf")), ("NORM=cosine", "NORM", "cosine"),
    ("BETA=0", "BETA", (0.0, 0.0)), ("BETA=(3,4)", "BETA", (3.0, 4.0)),
    ("FLIP=False", "FLIP", False), ("ALPHA=0.2", "ALPHA", (0.2, 0.2)), ("ALPHA=optimal", "ALPHA", "optimal"),
    ("ALPHA=(1,0)", "ALPHA", (1.0, 0.0)),  ("DIMS=None", "DIMS", None), ("DIMS=4", "DIMS", 4)])
def test_an_override_sets_the_constant_with_its_type(script, argument, name, value):
    training.override([argument], {"": script})
    assert getattr(script, name) == value and type(getattr(script, name)) is type(value)


@pytest.mark.parametrize("argument", ["EPOCH=3", "EPOCHS=3.5", "EPOCHS=many", "FLIP=1", "BETA=(1,2,3)", "BETA=x",
                                      "EPOCHS", "lower=2", "PATHS=b", "vae.EPOCHS=3", "DIMS=a"])
def test_an_unknown_name_or_a_wrong_type_is_refused(script, argument):
    before = dict(vars(script))
    with pytest.raises(UserError) as error:
        training.override([argument], {"": script})
    assert argument in str(error.value) and vars(script) == before


def test_an_unknown_name_is_answered_with_the_names_there_are(script):
    with pytest.raises(UserError, match="DATA.*EPOCHS.*vae.Z_DIM"):
        training.override(["X=1"], {"": script, "vae": metric_vae.run})


def test_a_constant_that_the_first_script_has_too_is_neither_set_nor_kept_of_the_others(script):
    modules = {"": script, "vae": metric_vae.run}               # both have DATA
    with pytest.raises(UserError, match="unknown name 'vae.DATA'"):
        training.override(["vae.DATA=x"], modules)
    stored = storage.stored_constants(modules)
    assert stored["run"] == training.constants(script) and "Z_DIM" in stored["vae"] and "DATA" not in stored["vae"]


def test_constants_are_restored_as_they_were(script, tmp_path):
    storage.start_settings(tmp_path, **storage.stored_constants({"": script}), data={})
    script.BETA, script.DIMS = (5.0, 5.0), None
    storage.restore_constants(tmp_path, {"": script})
    assert script.BETA == (1.0, 2.0) and script.DIMS == 16


def test_a_resumed_run_takes_no_other_settings(script, tmp_path):
    with pytest.raises(UserError, match="EPOCHS=9"):
        storage.restore_constants(tmp_path, {"": script}, ["RESUME=3", "EPOCHS=9"])


def test_a_loss_that_is_not_finite_names_the_checkpoint_that_is_kept(tmp_path):
    (tmp_path / "m.pt").touch()
    with pytest.raises(UserError, match="keeps epoch 4"):
        training.check_finite(dict(loss=float("nan")), "dist_reg", 5, tmp_path / "m.pt")
    training.check_finite(dict(loss=1.0), "dist_reg", 5, tmp_path / "m.pt")


def test_a_schedule_is_linear_from_the_first_to_the_last_step():
    assert [training.scheduled((1.0, 0.0), progress) for progress in (0, .25, 1)] == [1, .75, 0]


def test_steps_are_rounded_to_whole_epochs_of_which_there_is_one_at_least():
    assert [training.epochs_for(steps, 10) for steps in (1, 14, 16, 100)] == [1, 1, 2, 10]


def test_bf16_is_taken_only_where_it_is_seen_to_be_faster(monkeypatch):
    cpu = torch.device("cpu")
    for seconds, expected in ((0.5, "bf16"), (2.0, "fp32")):
        monkeypatch.setattr(training, "_matmul_seconds", lambda dtype: seconds if dtype == torch.bfloat16 else 1.0)
        assert training.choose_precision("auto", cpu) == expected
    assert training.choose_precision("auto", torch.device("mps")) == "fp32"     # whatever the processor beside it
