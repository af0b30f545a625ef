"""Which source a path means."""
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix

import data.options
from data import sources, synthetic
from data.faces import without_classes
from layouts import fer_rows, save_arrays, write_fer, write_folder
from training.settings import default_settings


def test_load_finds_the_source_of_every_layout(content, toronto, fer_images, tmp_path):
    for name in ("tfd", "fer", "arrays", "folder"):
        (tmp_path / name).mkdir()
    savemat(tmp_path / "tfd" / "TFD_ranzato_48x48.mat", toronto)
    write_fer(tmp_path / "fer" / "fer2013.csv", fer_rows(fer_images))
    save_arrays(tmp_path / "arrays", **content)
    write_folder(tmp_path / "folder", fer_images)
    found = {name: len(sources.load(str(tmp_path / name), 48)) for name in ("tfd", "fer", "arrays", "folder")}
    assert found == dict(tfd=84, fer=70, arrays=70, folder=70)
    assert sources.load(tmp_path / "tfd", 48, fold=2).name == "TFD, fold 2"


def test_constants_of_another_source_are_said_to_have_no_effect(toronto, fer_images, tmp_path, capsys):
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    write_folder(tmp_path / "folder", fer_images)
    options = replace(default_settings(data.options), ANGLES="HL", FER_PLUS=False)

    def warned(path, **more):
        sources.load(path, 48, **more)
        return [line.split()[1] for line in capsys.readouterr().out.splitlines() if "has no effect" in line]
    assert warned(tmp_path / "folder", fold=2, options=options) == ["FOLD=2", "ANGLES=HL", "FER_PLUS=False"]
    assert warned(tmp_path, fold=2) == [] == warned(tmp_path / "folder")


def test_auto_takes_tfd_before_fer2013_before_synthetic_faces(toronto, fer_images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    monkeypatch.setattr(synthetic, "load", lambda size, seed: json.dumps([size, seed]))
    assert sources.load("auto", 48, seed=5) == "[48, 5]" and "data/README.md" in capsys.readouterr().out
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    assert sources.load("auto").name == "FER2013"
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    assert sources.load("auto").name == "TFD, fold 0" and sources.load("fer2013").name == "FER2013"


@pytest.mark.parametrize("data, found", [("~nosuchuser/x", "~nosuchuser"), ("x" * 300, "name too long"),
                                         ("nowhere", "nothing there")])
def test_a_path_that_cannot_be_is_refused(data, found, user_error):
    user_error(lambda: sources.load(data), found, "check DATA")


@pytest.mark.parametrize("data", ["", " "])
def test_an_empty_path_is_refused(data, user_error):
    user_error(lambda: sources.load(data), "DATA=synthetic")


LOAD = """
import sys
from data.sources import load
from training.errors import UserError
for path in sys.argv[1:]:
    try:
        load(path)
    except UserError as error:
        print(str(error).replace("\\n", " "))
"""


def test_folders_without_permissions_are_refused(fer_images, tmp_path):
    closed = []
    for mode in (0o000, 0o400, 0o100):                          # nothing; names alone; files alone
        for below in (".", "sad", "tfd"):
            path = write_folder(tmp_path / f"{mode}_{below.strip('.')}", fer_images[:14], parts=())
            (path / "tfd").mkdir()
            closed.append(path / below)
            closed[-1].chmod(mode)
    given = [path.parent if path.name in ("sad", "tfd") else path for path in closed]
    command = [sys.executable, "-c", LOAD, *map(str, given)]
    if os.geteuid() == 0:                                       # who may read all, unless this is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv, or another user than root")
        rights = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *command]
    result = subprocess.run(command, capture_output=True, text=True, cwd=sources.FOLDER.parent)
    for path in closed:
        path.chmod(0o700)
    lines = result.stdout.splitlines()
    assert len(lines) == len(closed) and result.stderr == "", result.stdout + result.stderr
    for path, line in zip(closed, lines):
        assert line.startswith(str(path)) and "Permission denied" in line and "change its permissions" in line


def broken(tmp_path, name):
    """A path with one thing wrong, and what the message must say."""
    labels, images = np.zeros(20, int), np.full((20, 16, 16), np.arange(16), np.uint8)
    if name == "text":
        np.savez(tmp_path / "a.npz", images=images.astype(str), labels=labels)
        return tmp_path / "a.npz", "<U"
    if name == "npz as npy":
        np.savez(tmp_path / "a.npz", images=images)
        (tmp_path / "a.npz").rename(tmp_path / "images.npy")
        np.save(tmp_path / "labels.npy", labels)
        return tmp_path, "as in an .npz"
    if name == "dangling":
        (tmp_path / "images.npy").symlink_to(tmp_path / "gone.npy")
        return tmp_path, "images.npy"
    if name == "sparse":
        content = dict(labs_ex=csc_matrix(np.full((20, 1), 9)), labs_id=np.arange(20)[:, None])
        savemat(tmp_path / "TFD_48x48.mat", content | dict(images=images.repeat(3, 1).repeat(3, 2)))
        return tmp_path, "others, e.g. 9"
    if name == "scalar":
        for file, key in (("tfd_data_array.npz", "images"), ("fau_levels.npz", "inds")):
            np.savez(tmp_path / file, **{key: np.array(3)})
        savemat(tmp_path / "TFD_ranzato_96x96.mat", dict(labs_ex=np.ones((20, 1)), labs_id=np.ones((20, 1))))
        return tmp_path / "tfd_data_array.npz", "shape ()"
    if name == "two of three":
        np.savez(tmp_path / "tfd_data_array.npz", images=images)
        np.savez(tmp_path / "fau_levels.npz", inds=labels)
        return tmp_path, "only some of them"
    (tmp_path / "A.NPZ").write_bytes(b"no archive")
    return tmp_path / "A.NPZ", "A.NPZ"


@pytest.mark.parametrize("name", ["text", "npz as npy", "dangling", "sparse", "scalar", "two of three", "capitals"])
def test_a_broken_data_set_is_refused_with_what_is_wrong(tmp_path, name, user_error):
    path, found = broken(tmp_path, name)
    user_error(lambda: sources.load(path), found)


# --- the constants of data/options.py

def test_classes_are_left_out_of_any_source(content, tmp_path, capsys, user_error):
    np.savez(tmp_path / "mine.npz", **content)
    options = replace(default_settings(data.options), LEFT_OUT="angry, sad")
    faces = sources.load(tmp_path / "mine.npz", 16, options=options)
    assert len(faces) == 50 and faces.classes == ("disgust", "fear", "happy", "surprise", "neutral")
    assert "left out 20 of 70" in capsys.readouterr().out
    kept = ~np.isin(content["labels"], (0, 4))
    assert np.array_equal(faces.images, content["images"][kept])
    user_error(lambda: sources.load(tmp_path / "mine.npz", 16, options=replace(options, LEFT_OUT="rage")),
               "LEFT_OUT=rage", "anger, disgust")


def test_synthetic_faces_without_a_class_keep_their_factors(tmp_path):
    whole = synthetic.load(16, 0, 70, 30, tmp_path)
    faces = without_classes(whole, "neutral")
    kept = whole.labels != 6
    assert 0 < len(faces) < 70 and np.array_equal(faces.factors["action_units"], whole.factors["action_units"][kept])


@pytest.mark.parametrize("change", [dict(CLASS_NAMES="a,b"), dict(IDENTITY_PATTERN="a")])
def test_a_constant_without_meaning_for_a_source_is_refused(change, user_error):
    name, = change
    user_error(lambda: sources.load("synthetic", 16, options=replace(default_settings(data.options), **change)),
               name, "synthetic faces", "leave it out")
