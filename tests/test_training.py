"""training.py: overrides, atomic files, run folders, logs, checkpoints."""
import importlib.util
import json
import types

import pytest
import torch

import training
from training import UserError


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
    with pytest.raises(UserError, match="DATA.*EPOCHS.*vae.BETA"):
        training.override(["X=1"], {"": script, "vae": script})


def test_constants_are_restored_as_they_were(script, tmp_path):
    training.start_settings(tmp_path, **training.stored_constants({"": script, "vae": script}), data={})
    script.BETA, script.DIMS = (5.0, 5.0), None
    training.restore_constants(tmp_path, {"": script})
    assert script.BETA == (1.0, 2.0) and script.DIMS == 16


def test_a_resumed_run_takes_no_other_settings(script, tmp_path):
    with pytest.raises(UserError, match="EPOCHS=9"):
        training.restore_constants(tmp_path, {"": script}, ["RESUME=3", "EPOCHS=9"])


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.bin"
    training.write_atomically(path, lambda file: file.write(b"old"))

    def full(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    def full_under_torch(file):
        torch.save(torch.zeros(10), types.SimpleNamespace(write=lambda part: full(file)))
    for write in (full, full_under_torch):
        with pytest.raises(UserError, match="No space left"):
            training.write_atomically(path, write)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_may_not_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="remedy"):
        training.new_run_folder(tmp_path / "file")


def test_run_folders_are_numbered_upwards_and_never_reused(tmp_path):
    (tmp_path / "7").mkdir()
    assert [training.new_run_folder(tmp_path).name for _ in range(3)] == ["8", "9", "10"]


def test_find_run_takes_the_newest_finished_or_unfinished_run(tmp_path):
    for number, finished in ((0, True), (2, False), (9, False), (10, True), (11, True)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "settings.json").write_text(json.dumps(dict(finished=finished, run={})))
    assert training.find_run("last", True, "run", tmp_path).name == "11"
    assert training.find_run("last", False, "run", tmp_path).name == "9"
    assert training.find_run(2, False, "run", tmp_path).name == "2"
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "settings.json").write_text(json.dumps(dict(finished=False, vae={})))
    assert training.find_run("last", False, "vae", tmp_path).name == "12"
    with pytest.raises(UserError, match=r"\[2, 9\]"):
        training.find_run(10, False, "run", tmp_path)


def test_writing_a_line_again_drops_the_epochs_after_it(tmp_path):
    for epoch in (1, 2, 3):
        training.write_log(tmp_path, "a", epoch, loss=epoch)
    training.write_log(tmp_path, "b", 1, loss=5)
    training.write_log(tmp_path, "a", 2, loss=20)
    assert [line["loss"] for line in training.read_log(tmp_path, "a")] == [1, 20]
    assert [line["loss"] for line in training.read_log(tmp_path, "b")] == [5]


def test_a_checkpoint_brings_weights_optimiser_and_random_numbers_back(tmp_path):
    def parts():
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.Adam(model.parameters()), torch.Generator().manual_seed(1)
    model, optimizer, generator = parts()
    model(torch.randn(4, 3, generator=generator)).sum().backward()
    optimizer.step()
    training.save_checkpoint(tmp_path / "m.pt", model, optimizer, generator, 4, size=48)
    expected = torch.randn(3, generator=generator)
    model2, optimizer2, generator2 = parts()
    done, state = training.resume(tmp_path / "m.pt", model2, optimizer2, generator2)
    assert done == 4 and state["size"] == 48
    assert torch.equal(model.weight, model2.weight)
    assert torch.equal(torch.randn(3, generator=generator2), expected)
    assert torch.equal(optimizer2.state[model2.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"])


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_a_clear_error(tmp_path, content):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(UserError, match="m.pt"):
        training.load_checkpoint(tmp_path / "m.pt")


def test_a_checkpoint_is_never_unpickled_as_code(tmp_path):
    torch.save(types.SimpleNamespace(a=1), tmp_path / "m.pt")
    with pytest.raises(UserError):
        training.load_checkpoint(tmp_path / "m.pt")


def test_a_loss_that_is_not_finite_names_the_checkpoint_that_is_kept(tmp_path):
    (tmp_path / "m.pt").touch()
    with pytest.raises(UserError, match="keeps epoch 4"):
        training.check_finite(dict(loss=float("nan")), "dist_reg", 5, tmp_path / "m.pt")
    training.check_finite(dict(loss=1.0), "dist_reg", 5, tmp_path / "m.pt")


def test_a_schedule_is_linear_from_the_first_to_the_last_epoch():
    assert [training.scheduled((1.0, 0.0), epoch, 5) for epoch in range(5)] == [1, .75, .5, .25, 0]
    assert training.scheduled((3.0, 0.0), 0, 1) == 3
    assert [training.scheduled((0.0, 1.0), epoch, 3, power=2) for epoch in range(3)] == [0, .25, 1]


def test_a_resumed_run_keeps_its_precision_and_its_kind_of_device(tmp_path, user_error, monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    training.write_json(tmp_path / "settings.json", dict(device="cuda:1", precision="bf16"))
    monkeypatch.setattr(training, "choose_device", lambda name: cpu)                    # no GPU here
    user_error(lambda: training.stored_device(tmp_path, "auto"), "cuda", "cpu")
    monkeypatch.setattr(training, "choose_device", lambda name: cpu if name == "cpu" else gpu)
    assert training.stored_device(tmp_path, "auto") == (gpu, "bf16")
    training.write_json(tmp_path / "settings.json", dict(device="cpu", precision="fp32"))
    assert training.stored_device(tmp_path, "auto") == (cpu, "fp32")


def test_a_run_folder_is_held_by_one_program_alone(tmp_path, user_error):
    training.hold(tmp_path)
    user_error(lambda: training.hold(tmp_path), tmp_path, "another program")


def test_bf16_is_taken_only_where_it_is_seen_to_be_faster(monkeypatch):
    cpu = torch.device("cpu")
    for seconds, expected in ((0.5, "bf16"), (2.0, "fp32")):
        monkeypatch.setattr(training, "_matmul_seconds", lambda dtype: seconds if dtype == torch.bfloat16 else 1.0)
        assert training.choose_precision("auto", cpu) == expected
    assert training.choose_precision("auto", torch.device("mps")) == "fp32"     # whatever the processor beside it
