"""A run folder of another version opens, or says what it lacks: for each program that reads one."""
import json

import pytest

import experiments
import expr_classifier.run as classifier_script
import metric_vae.run as vae_script
import run
from benchmarks import compare
from metric_vae import space
from stress import runs
from training import storage
from training.files import write_json
from training.settings import constants

QUICK = [*runs.FACES, "classifier.STEPS=1", "vae.STEPS=1", "vae.Z_DIM=8", "vae.METRIC_DIMS=4"]
READERS = {                     # what opens run 0
    "RESUME": lambda: run.main(["RESUME=0"]), "CLASSIFIER": lambda: run.main(["CLASSIFIER=0", *QUICK]),
    "experiments": lambda: experiments.open_run(storage.find_run(0), "cpu"), "space": lambda: space.load(0).sample(1),
    "compare": lambda: compare.main(["RUNS=0"])}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which runs/0 is a small finished run."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("old")
        patch.chdir(home)
        patch.setattr(storage, "RUNS", home / "runs")
        runs.write_faces(home)
        run.main(QUICK)
        of_model = dict(error=1.0, spearman=0.5)
        write_json(home / "runs" / "0" / "scores.json", dict(split="test", no_dist_reg=of_model,
                                                             dist_reg=of_model))
        yield home


@pytest.fixture
def change(home):
    """change(reader, function): settings.json changed by a function of its content, for a reader."""
    path = home / "runs" / "0" / "settings.json"
    whole = path.read_text()

    def changed(reader, function):
        settings = json.loads(whole) | dict(finished=reader != "RESUME")
        function(settings)
        path.write_text(json.dumps(settings))
    yield changed
    path.write_text(whole)


def refused(reader, user_error, *words):
    """A reader refuses run 0, or compare leaves it out."""
    if reader == "compare":
        words = ["none of these"]
    user_error(READERS[reader], *words)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("number", [None, 0, 99])
def test_another_format_is_refused_with_the_commit(reader, number, change, user_error):
    change(reader, lambda settings: settings.update(format=number, git_commit="abc123"))
    refused(reader, user_error, f"format {number}", "abc123")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("entry", ["device", "precision", "faces"])
def test_a_missing_entry_is_named(reader, entry, change, user_error):
    change(reader, lambda settings: settings.pop(entry))
    refused(reader, user_error, f"an entry {entry}")


@pytest.mark.parametrize("reader", ["RESUME", "CLASSIFIER", "experiments"])
def test_every_missing_constant_is_named(reader, change, user_error):
    """Also those that another script has, too: STEPS."""
    for part, script in ("run", run), ("classifier", classifier_script), ("vae", vae_script):
        for name in constants(script):
            if part == "run" or name not in constants(run):
                change(reader, lambda settings: settings[part].pop(name))
                refused(reader, user_error, f"none of {name}" if part == "run" else f"none of {part}.{name}")


@pytest.mark.parametrize("reader", ["space", "compare"])
def test_what_a_reader_does_not_need_may_be_missing(reader, change, capsys):
    change(reader, lambda settings: settings["vae"].pop("STEPS"))
    READERS[reader]()


@pytest.mark.parametrize("reader", READERS)
def test_constants_that_this_version_no_longer_has_do_no_harm(reader, change):
    def more(settings):
        settings["vae"] |= {"OLD": 1, "not a name": [1, 2, 3], "finished": None}
        settings["more"] = 5
    change(reader, more)
    READERS[reader]()


@pytest.mark.parametrize("reader", ["RESUME", "CLASSIFIER", "experiments"])
@pytest.mark.parametrize("part, name, value", [
    ("vae", "BETA", [1.0]), ("vae", "BETA", ["a", "b"]), ("vae", "Z_DIM", "8"), ("vae", "STEPS", True),
    ("classifier", "FLIP", None), ("run", "DATA", 5)])
def test_a_constant_of_another_type_is_refused(reader, part, name, value, change, user_error):
    change(reader, lambda settings: settings[part].update({name: value}))
    refused(reader, user_error, name, "a value like")


@pytest.mark.parametrize("reader", ["RESUME", "CLASSIFIER", "experiments"])
def test_a_script_without_constants_is_refused(reader, change, user_error):
    for function in (lambda settings: settings.update(vae=5), lambda settings: settings.pop("vae")):
        change(reader, function)
        refused(reader, user_error, "the constants of vae")
