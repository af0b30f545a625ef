"""training/: settings from constants and arguments, precision, schedules."""
import dataclasses
import importlib.util
import io
import sys
import types

import pytest
import torch

import expr_classifier.run
import metric_vae.run
from training import devices, loops, storage
from training.errors import UserError, check_batch
from training.settings import constants, default_settings, parse, parse_one, restored, stored

SCRIPT = '''"""Does nothing.

python script.py
"""
from training.errors import UserError

# --- a group
DATA = "auto"       # where the faces are
EPOCHS = 5
RATE = 0.5
NORM: float | str = 2.0
BETA = (1.0, 2.0)
ALPHA: tuple | str = (.1, .1)
FLIP = True
DIMS: int | None = 16
PATHS = ("a",)
lower = 1


def main(arguments):
    pass
'''


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A script with one constant of each kind."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    spec = importlib.util.spec_from_file_location("script", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "script", module)
    spec.loader.exec_module(module)
    return module


def test_the_settings_of_a_script_are_its_plain_constants_and_frozen(script):
    settings = default_settings(script)
    assert list(dataclasses.asdict(settings)) == ["DATA", "EPOCHS", "RATE", "NORM", "BETA", "ALPHA", "FLIP", "DIMS"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.EPOCHS = 6
    assert dataclasses.replace(settings, EPOCHS=6).EPOCHS == 6 and settings.EPOCHS == 5


@pytest.mark.parametrize("argument, name, value", [
    ("DATA=data/x", "DATA", "data/x"), ("DATA=7", "DATA", "7"), ("EPOCHS=3", "EPOCHS", 3), ("RATE=2", "RATE", 2.0),
    ("RATE=1e-3", "RATE", 1e-3), ("NORM=inf", "NORM", float("inf")), ("NORM=cosine", "NORM", "cosine"),
    ("BETA=0", "BETA", (0.0, 0.0)), ("BETA=(3,4)", "BETA", (3.0, 4.0)),
    ("FLIP=False", "FLIP", False), ("ALPHA=0.2", "ALPHA", (0.2, 0.2)), ("ALPHA=optimal", "ALPHA", "optimal"),
    ("ALPHA=(1,0)", "ALPHA", (1.0, 0.0)),  ("DIMS=None", "DIMS", None), ("DIMS=4", "DIMS", 4)])
def test_an_argument_sets_the_constant_with_its_type_and_leaves_the_script_alone(script, argument, name, value):
    before = constants(script)
    found = getattr(parse_one([argument], script), name)
    assert found == value and type(found) is type(value)
    assert constants(script) == before


@pytest.mark.parametrize("argument", ["EPOCH=3", "EPOCHS=3.5", "EPOCHS=many", "FLIP=1", "BETA=(1,2,3)", "BETA=x",
                                      "EPOCHS", "lower=2", "PATHS=b", "vae.EPOCHS=3", "DIMS=a"])
def test_an_unknown_name_or_a_wrong_type_is_refused(script, argument):
    with pytest.raises(UserError) as error:
        parse_one([argument], script)
    assert argument in str(error.value)


def test_a_value_that_is_neither_true_nor_false_is_answered_with_both(script):
    with pytest.raises(UserError, match="write FLIP=True or FLIP=False"):
        parse_one(["FLIP=false"], script)


def test_too_large_a_batch_names_its_constant_as_it_is_set():
    for where, constant in (("vae.BATCH", "vae.BATCH"), ("BATCH", "BATCH"), (None, "BATCH")):
        with pytest.raises(UserError, match=f"lower {constant}$"):
            check_batch(60, 59, "FER2013", where)
    check_batch(60, 60, "FER2013")


def test_a_wrong_type_names_the_script_whose_constant_it_is(script):
    with pytest.raises(UserError, match="metric_vae/run.py"):
        parse(["vae.Z_DIM=many"], {"": script, "vae": metric_vae.run})


def test_an_unknown_name_is_answered_with_the_names_there_are(script):
    with pytest.raises(UserError, match="DATA.*EPOCHS.*vae.Z_DIM"):
        parse(["X=1"], {"": script, "vae": metric_vae.run})


def test_a_constant_that_the_first_script_has_too_is_neither_set_nor_kept_of_the_others(script):
    scripts = {"": script, "vae": metric_vae.run}               # both have DATA
    with pytest.raises(UserError, match="unknown name 'vae.DATA'"):
        parse(["vae.DATA=x"], scripts)
    kept = stored(parse([], scripts))
    assert kept["run"] == constants(script) and "Z_DIM" in kept["vae"] and "DATA" not in kept["vae"]


def test_a_constant_that_one_script_has_needs_no_prefix_and_others_do(script):
    scripts = {"": script, "vae": metric_vae.run, "classifier": expr_classifier.run}
    assert parse(["Z_DIM=7"], scripts)["vae"].Z_DIM == 7
    with pytest.raises(UserError, match="classifier.STEPS"):    # the VAE and the classifier have it
        parse(["STEPS=7"], scripts)


def test_two_parses_do_not_see_each_others_arguments(script):
    assert parse_one(["EPOCHS=7"], script).EPOCHS == 7
    assert parse_one([], script).EPOCHS == 5


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_what_the_script_does_and_every_constant_with_its_remark(script, capsys, flag):
    with pytest.raises(SystemExit) as end:
        parse([flag], {"": script, "vae": metric_vae.run})
    printed = capsys.readouterr().out
    assert end.value.code == 0 and "Does nothing." in printed and "vae.NAME=VALUE" in printed
    assert 'DATA = "auto"       # where the faces are' in printed and "# dimensions of the latent space" in printed
    for name in constants(script):
        assert f"\n{name}" in printed
    assert "when run alone" not in printed and "import" not in printed and "def main" not in printed


def test_settings_come_back_from_a_run_folder_as_they_were(script, tmp_path):
    settings = parse(["BETA=(5,6)", "DIMS=None"], {"": script})
    storage.start_settings(tmp_path, **stored(settings), data=dict.fromkeys(storage.OF_DATA), faces={},
                           device="cpu", precision="fp32")
    again = storage.read_settings(tmp_path, {"": script})
    assert dataclasses.asdict(again[""]) == dataclasses.asdict(settings[""]) and list(again) == [""]
    assert restored({"BETA": [5.0, 6.0]}).BETA == (5.0, 6.0)


def test_a_run_that_lacks_constants_says_which_and_of_what_commit_it_is(script, tmp_path, user_error):
    kept = stored(parse([], {"": script}))
    del kept["run"]["EPOCHS"]
    storage.start_settings(tmp_path, **kept, data=dict.fromkeys(storage.OF_DATA), faces={},
                           device="cpu", precision="fp32")
    user_error(lambda: storage.read_settings(tmp_path, {"": script}), tmp_path, "none of EPOCHS", storage.git_commit())


def test_a_schedule_may_stand_as_a_list_at_the_top_of_a_script():
    script = types.ModuleType("script")
    script.BETA, script.NAMES = [0, 1e4], ["a", "b"]
    assert constants(script) == dict(BETA=(0, 1e4))


def test_a_resumed_run_takes_no_other_settings():
    with pytest.raises(UserError, match="EPOCHS=9"):
        storage.refuse_more_than_resume(["RESUME=3", "EPOCHS=9"])
    storage.refuse_more_than_resume(["RESUME=3"])


def test_a_loss_that_is_not_finite_names_the_checkpoint_that_is_kept(tmp_path):
    (tmp_path / "m.pt").touch()
    with pytest.raises(UserError, match="keeps epoch 4"):
        loops.check_finite(dict(loss=float("nan")), "dist_reg", 5, tmp_path / "m.pt")
    loops.check_finite(dict(loss=1.0), "dist_reg", 5, tmp_path / "m.pt")
    with pytest.raises(UserError, match="nothing was saved yet"):
        loops.check_finite(dict(loss=float("nan")), "CSVAE", 1, None)


def test_a_schedule_is_linear_from_the_first_to_the_last_step():
    assert [loops.scheduled((1.0, 0.0), progress) for progress in (0, .25, 1)] == [1, .75, 0]


def test_the_learning_rate_rises_over_the_warm_up_and_then_follows_its_schedule():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    rates = [loops.set_learning_rate(optimizer, (1.0, 0.0), progress, .5) for progress in (0, .25, .5, .75, 1)]
    assert rates == [0, .75 / 2, .5, .25, 0] and optimizer.param_groups[0]["lr"] == 0
    assert loops.set_learning_rate(optimizer, (1.0, 0.0), 0) == 1


def test_steps_are_rounded_to_whole_epochs_of_which_there_is_one_at_least():
    assert [loops.epochs_for(steps, 10) for steps in (1, 14, 16, 100)] == [1, 1, 2, 10]


@pytest.mark.parametrize("maker, flags, expected", [
    ("AuthenticAMD", "fpu avx512f avx512_bf16", "bf16"), ("GenuineIntel", "fpu amx_bf16 avx512_bf16", "bf16"),
    ("GenuineIntel", "fpu avx512f avx512_bf16", "fp32"), ("AuthenticAMD", "fpu avx2", "fp32")])
def test_precision_follows_what_the_processor_has(monkeypatch, tmp_path, maker, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nvendor_id : {maker}\nflags : {flags}\n")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    assert devices.choose_precision("auto", torch.device("cpu")) == expected
    assert devices.choose_precision("auto", torch.device("mps")) == "fp32"      # whatever the processor beside it


def test_precision_is_fp32_where_the_processor_does_not_say_what_it_has(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "none")
    assert devices.choose_precision("auto", torch.device("cpu")) == "fp32"
    assert devices.choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_group_norm_is_that_of_fp32_within_autocast():
    torch.manual_seed(0)
    norm, x = devices.GroupNorm(2, 4), (100 + torch.randn(3, 4, 5, 5)).bfloat16()
    groups = x.double().view(3, 2, 2 * 25)
    expected = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + norm.eps).sqrt()
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double().view(3, 2, 50), expected, atol=1e-4, rtol=0)


def test_each_process_gets_a_gpu_for_itself(monkeypatch, user_error):
    taken = []
    for name, value in (("is_available", lambda: True), ("device_count", lambda: 2), ("set_device", taken.append),
                        ("get_device_capability", lambda device: (7, 5))):
        monkeypatch.setattr(torch.cuda, name, value)
    for process in (0, 1):
        monkeypatch.setattr(devices, "LOCAL_PROCESS", process)
        assert devices.choose_device("auto") == torch.device("cuda", process) == taken[-1]
        assert devices.choose_precision("auto", taken[-1]) == "fp32"
    monkeypatch.setattr(devices, "LOCAL_PROCESS", 2)
    user_error(lambda: devices.choose_device("cuda"), "nproc_per_node", "at most 2")
    monkeypatch.setattr(devices, "PROCESSES", 2)
    user_error(lambda: devices.choose_device("cuda:1"), "DEVICE=cuda:1", "a GPU for each process")
    assert devices.choose_device(torch.device("cuda:1")) == torch.device("cuda:1")      # of a run that is resumed


# --- the losses that are shown

def test_where_the_output_is_no_terminal_an_epoch_is_a_line_at_most_one_a_second(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loops.time, "monotonic", lambda: now[0])
    bar = loops.EpochBar("dist_reg", 1, 5)
    for epoch in bar:
        bar.running(("error",), None, 0)                        # nothing to be seen: the sums stay on their device
        now[0] = (0, 1.1, 2.2, 3.0, 3.1)[epoch]
        bar.finished(epoch + 1, dict(error=12.3456 + epoch, consistency=0.0, val_loss=None))
    assert capsys.readouterr().out.splitlines() == [
        f"dist_reg, epoch {epoch} of 5: error {error}" for epoch, error in ((2, 13.35), (3, 14.35), (5, 16.35))]


def test_the_bar_shows_running_means_at_most_once_a_second(monkeypatch):
    now, shown = [0.0], io.StringIO()
    monkeypatch.setattr(loops.time, "monotonic", lambda: now[0])
    tqdm = loops.tqdm
    monkeypatch.setattr(loops, "tqdm", lambda *given, **more: tqdm(*given, **{**more, "file": shown, "disable": False,
                                                                              "ncols": 90}))
    bar = loops.EpochBar("dist_reg", 0, 1)
    for epoch in bar:
        for now[0], error in ((0.5, 10.0), (1.5, 40.0), (2.0, 80.0)):
            bar.running(("error",), torch.tensor([error, 0.0]), 2)
        bar.finished(1, dict(error=50.0))
    text = shown.getvalue()
    assert "error 20" in text and "error 50" in text and "error 5," not in text and "error 40" not in text
