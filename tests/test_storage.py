"""storage.py: atomic files, run folders, settings, logs, checkpoints."""
import json
import os
import subprocess
import sys
import types
from dataclasses import asdict, replace

import pytest
import torch

from expr_classifier.train import load_classifier
from metric_vae.trained import load_vae
from training import checkpoints, storage
from training.errors import UserError
from training.files import read_json, write_atomically, write_json
from training.log import read_log, write_log
from training.settings import freeze


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """Runs lie in tmp_path."""
    monkeypatch.setattr(storage, "RUNS", tmp_path)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically(path, lambda file: file.write(b"old"))

    def full(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    def full_under_torch(file):
        torch.save(torch.zeros(10), types.SimpleNamespace(write=lambda part: full(file)))
    for write in (full, full_under_torch):
        with pytest.raises(UserError, match="No space left"):
            write_atomically(path, write)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_program_that_is_stopped_as_torch_saves_is_stopped(tmp_path):
    written = []

    def stopped(part):
        written.append(part)
        if len(written) == 2:
            raise KeyboardInterrupt
        return len(part)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.pt", lambda file: torch.save(
            torch.zeros(10), types.SimpleNamespace(write=stopped, flush=lambda: None)))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_may_not_be_written_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(storage, "RUNS", tmp_path / "file")
    with pytest.raises(UserError, match="remedy"):
        storage.new_run_folder()


def test_run_folders_are_numbered_upwards_and_never_reused(tmp_path):
    (tmp_path / "7").mkdir()
    assert [storage.new_run_folder().name for _ in range(3)] == ["8", "9", "10"]


def test_find_run_takes_the_newest_finished_or_unfinished_run(tmp_path):
    for number, finished in ((0, True), (2, False), (9, False), (10, True), (11, True)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "settings.json").write_text(json.dumps(dict(finished=finished, run={})))
    assert storage.find_run("last", True, "run").name == "11"
    assert storage.find_run("last", False, "run").name == "9"
    assert storage.find_run(2, False, "run").name == "2"
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "settings.json").write_text(json.dumps(dict(finished=False, vae={})))
    assert storage.find_run("last", False, "vae").name == "12"
    with pytest.raises(UserError, match=r"\[2, 9\]"):
        storage.find_run(10, False, "run")
    assert [storage.find_run(which, None, "run").name for which in ("last", 9)] == ["11", "9"]
    (tmp_path / "0" / "settings.json").rename(tmp_path / "9" / "settings.json")         # a finished run, older than 12
    for number in ("10", "11"):
        (tmp_path / number / "settings.json").write_text(json.dumps(dict(finished=False, run={})))
    assert storage.find_run("last", None, "run").name == "9"


def test_find_run_takes_the_path_of_a_run_folder(tmp_path, user_error):
    write_json(tmp_path / "settings.json", dict(finished=False, data={}))
    assert storage.find_run(str(tmp_path)) == tmp_path
    user_error(lambda: storage.find_run(str(tmp_path), finished=True), tmp_path, "finished run")
    user_error(lambda: storage.find_run(str(tmp_path / "none")), tmp_path / "none")


def test_writing_a_line_again_drops_the_epochs_after_it(tmp_path):
    for epoch in (1, 2, 3):
        write_log(tmp_path, "a", epoch, loss=epoch)
    write_log(tmp_path, "b", 1, loss=5)
    write_log(tmp_path, "a", 2, loss=20)
    assert [line["loss"] for line in read_log(tmp_path, "a")] == [1, 20]
    assert [line["loss"] for line in read_log(tmp_path, "b")] == [5]


def test_a_checkpoint_brings_weights_optimiser_and_random_numbers_back(tmp_path):
    def parts():
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.Adam(model.parameters()), torch.Generator().manual_seed(1)
    model, optimizer, generator = parts()
    model(torch.randn(4, 3, generator=generator)).sum().backward()
    optimizer.step()
    checkpoints.save_checkpoint(tmp_path / "m.pt", model, optimizer, generator, 4, size=48)
    expected = torch.randn(3, generator=generator)
    model2, optimizer2, generator2 = parts()
    done, state = checkpoints.resume(tmp_path / "m.pt", model2, optimizer2, generator2)
    assert done == 4 and state["size"] == 48
    assert torch.equal(model.weight, model2.weight)
    assert torch.equal(torch.randn(3, generator=generator2), expected)
    assert torch.equal(optimizer2.state[model2.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"])


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_a_clear_error(tmp_path, content):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(UserError, match="m.pt"):
        checkpoints.load_checkpoint(tmp_path / "m.pt")


def test_a_checkpoint_is_never_unpickled_as_code(tmp_path):
    torch.save(types.SimpleNamespace(a=1), tmp_path / "m.pt")
    with pytest.raises(UserError):
        checkpoints.load_checkpoint(tmp_path / "m.pt")


def test_a_resumed_run_keeps_its_precision_and_its_kind_of_device(tmp_path, user_error, monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    write_json(tmp_path / "settings.json", dict(device="cuda:1", precision="bf16"))
    monkeypatch.setattr(storage, "choose_device", lambda name: cpu)                    # no GPU here
    user_error(lambda: storage.stored_device(tmp_path, "auto"), "cuda", "cpu")
    monkeypatch.setattr(storage, "choose_device", lambda name: cpu if name == "cpu" else gpu)
    assert storage.stored_device(tmp_path, "auto") == (gpu, "bf16")
    write_json(tmp_path / "settings.json", dict(device="cpu", precision="fp32"))
    assert storage.stored_device(tmp_path, "auto") == (cpu, "fp32")


def test_other_threads_or_processes_than_a_run_was_begun_with_are_named(tmp_path, capsys):
    now = torch.get_num_threads()
    said = f"warning: {now + 1} threads before, {now} now; 2 processes before, 1 now: the last digits may differ"
    for before, expected in ((dict(threads=now, processes=1), ""), (dict(threads=now + 1, processes=2), said),
                             ({}, "")):                         # the last: a run of an earlier version
        write_json(tmp_path / "settings.json", before)
        storage.warn_of_rounding(tmp_path)
        printed = capsys.readouterr().out
        assert printed.startswith(expected) and printed.count("\n") == bool(expected)


def test_a_run_folder_is_held_by_one_program_alone(tmp_path, user_error):
    def hold():
        with storage.hold(tmp_path):
            pass
    with storage.hold(tmp_path):
        user_error(hold, tmp_path, "another program")
    hold()


# --- damaged files

def save_model(path, model, **more):
    checkpoints.save_checkpoint(path, model, torch.optim.Adam(model.parameters()), torch.Generator(), 3, **more)


@pytest.mark.parametrize("damage", [lambda b: b[:len(b) // 2], lambda b: b"", lambda b: b"[]",
                                    lambda b: b.replace(b"\x00\x00\x80?", b"\x00\x00\x90?", 1)])
def test_a_damaged_checkpoint_is_refused_and_may_be_deleted(damage, tmp_path, user_error):
    path, model = tmp_path / "a.pt", torch.nn.Linear(2, 2)
    torch.nn.init.ones_(model.weight)
    save_model(path, model)
    path.write_bytes(damage(path.read_bytes()))                 # the last one: a single bit of a weight
    user_error(lambda: checkpoints.load_checkpoint(path), "a.pt", "delete it: RESUME trains that stage again")


def test_a_checkpoint_of_another_model_is_refused(tmp_path, user_error):
    path, model = tmp_path / "a.pt", torch.nn.Linear(2, 3)
    save_model(path, torch.nn.Linear(2, 2))
    user_error(lambda: checkpoints.resume(path, model, torch.optim.Adam(model.parameters()), torch.Generator()),
               "a checkpoint of this stage", "size mismatch")
    torch.save(dict(model=model.state_dict()), path)
    user_error(lambda: checkpoints.resume(path, model, torch.optim.Adam(model.parameters()), torch.Generator()),
               "optimizer")


def test_a_checkpoint_of_another_network_is_not_loaded_as_this_one(tmp_path, user_error):
    save_model(tmp_path / "a.pt", torch.nn.Linear(2, 2), architecture="light", size=16, channels=1)
    user_error(lambda: load_classifier(tmp_path / "a.pt", "cpu"), "a.pt", "KeyError: 'classes'")
    user_error(lambda: load_vae(tmp_path, "a", "cpu"), "a.pt", "KeyError: 'z_dim'")
    user_error(lambda: checkpoints.load_model(tmp_path / "a.pt", "cpu", lambda state: torch.nn.Linear(3, 2)),
               "size mismatch")


@pytest.mark.parametrize("content", ["", "[]", "3", '{"finished": tr'])
def test_one_damaged_settings_json_does_not_hide_other_runs(content, tmp_path, capsys, user_error):
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
        write_json(tmp_path / str(number) / "settings.json", dict(finished=False, run={}))
    (tmp_path / "1" / "settings.json").write_text(content)
    assert storage.find_run("last", False, "run").name == "0"
    assert f"passed over {tmp_path / '1'}" in capsys.readouterr().err
    user_error(lambda: storage.find_run(1, False, "run"), tmp_path / "1" / "settings.json")


def test_a_damaged_line_of_the_log_is_left_out_and_said_so(tmp_path, capsys):
    write_log(tmp_path, "a", 1, loss=1.0)
    write_log(tmp_path, "a", 2, loss=2.0)
    text = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(text[:-9] + b"\n[]\n3\n{}\n\xdb\x00\n")
    assert [line["epoch"] for line in read_log(tmp_path)] == [1]
    assert "left out line 2" in capsys.readouterr().err


def test_a_log_that_cannot_be_read_is_a_clear_error(tmp_path, user_error):
    (tmp_path / "log.jsonl").mkdir()
    user_error(lambda: read_log(tmp_path), "log.jsonl", "remove it")


def test_what_a_killed_program_left_half_written_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f".dist_reg.pt.{process}.tmp" for process in (ended.pid, os.getpid())] + [".mine.tmp"]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    with storage.hold(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == set(names[1:])     # of a program that runs, and another's


def test_paths_are_kept_absolute_and_keywords_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text("")
    for name in ("faces", "light", "tfd"):
        (tmp_path / name).mkdir()
    given = freeze(dict(DATA="faces", METRIC="my.py:function", ARCHITECTURE="light", REGULARIZER="my.py:f", STEPS=3))
    assert asdict(storage.absolute(given, ("tfd",))) == dict(
        DATA=str(tmp_path / "faces"), METRIC=f"{tmp_path / 'my.py'}:function", ARCHITECTURE="light",
        REGULARIZER=f"{tmp_path / 'my.py'}:f", STEPS=3)
    assert storage.absolute(replace(given, DATA="tfd"), ("tfd",)).DATA == "tfd"
    assert storage.absolute(freeze(dict(DATA="~nosuchuser/x")), ()).DATA == "~nosuchuser/x"


def test_the_command_is_kept_without_the_place_of_the_checkout(tmp_path, monkeypatch):
    for given, kept in ((str(storage.ROOT / "benchmarks" / "speed.py"), "benchmarks/speed.py"), ("run.py", "run.py"),
                        ("/elsewhere/run.py", "/elsewhere/run.py")):
        monkeypatch.setattr(storage.sys, "argv", [given, "SEED=1"])
        storage.start_settings(tmp_path)
        assert read_json(tmp_path / "settings.json")["command"] == [kept, "SEED=1"]


def test_the_users_own_code_is_kept_and_a_change_of_it_is_said(tmp_path, capsys):
    (tmp_path / "nets.py").write_text("first")
    storage.start_settings(tmp_path, vae=dict(ARCHITECTURE=f"{tmp_path / 'nets.py'}:net", METRIC="pixels", STEPS=3),
                           classifier=dict(ARCHITECTURE="light"), device="cpu")
    kept = read_json(tmp_path / "settings.json")
    assert kept["own_code"] == {str(tmp_path / "nets.py"): "first"}
    storage.warn_of_changed_code(kept, tmp_path)
    assert not capsys.readouterr().err
    (tmp_path / "nets.py").write_text("second")
    storage.warn_of_changed_code(kept, tmp_path)
    assert f"{tmp_path / 'nets.py'} has changed since" in capsys.readouterr().err


def test_a_run_of_another_format_or_without_an_entry_is_refused(tmp_path, user_error):
    storage.start_settings(tmp_path, data=dict.fromkeys(storage.OF_DATA), faces={}, device="cpu",
                           precision="fp32")
    settings = read_json(tmp_path / "settings.json")
    assert storage.read_settings(tmp_path, {}) == {}
    write_json(tmp_path / "settings.json", settings | dict(format=0))
    user_error(lambda: storage.read_settings(tmp_path, {}), "format 0", "check out the commit")
    for entry in ("device", "precision", "data", "faces"):
        write_json(tmp_path / "settings.json", settings | {entry: 5})
        user_error(lambda: storage.read_settings(tmp_path, {}), f"an entry {entry}")
    del settings["data"]["size"]
    write_json(tmp_path / "settings.json", settings)
    user_error(lambda: storage.read_settings(tmp_path, {}), "an entry data.size")
