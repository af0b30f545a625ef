"""The Faces record: checks, splits, sizes, fingerprint, summary."""

import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from data import __main__ as command
from data import faces as module, leaks
from data.faces import Faces, checked, summary, without_classes
from data.labels import EXPRESSIONS, named_labels
from data.figures import contact_sheet
from data.sources import load
from conftest import draw_small_images
from layouts import memory_mapped, write_folder
from training import errors
from training.errors import UserError


def check(images, labels, identities=None, split=None, **more):
    return checked(images, labels, identities, split, "name", "some/path.npz", seed=0, **more)


# --- checks

def test_good_arrays_become_faces_of_the_documented_types(images, labels, identities):
    faces = check(images, labels.astype(float)[:, None], identities.astype(np.uint8))
    assert faces.images.dtype == np.uint8 and faces.size == 16 and len(faces) == 70
    for array in (faces.labels, faces.identities, faces.split):
        assert array.dtype == np.int64 and array.shape == (70,)
    assert (faces.labels == labels).all() and (faces.identities == identities).all()


@pytest.mark.parametrize("shape", [(70, 16), (70, 16, 16, 2), (70, 16, 24), (70, 20, 20), (0, 16, 16)])
def test_wrong_image_shapes_are_refused(shape, labels, user_error):
    user_error(lambda: check(np.zeros(shape, np.uint8), labels), "some/path.npz", shape, "multiple of 8")


def test_images_that_are_not_uint8_are_refused_and_nan_is_counted(images, labels, user_error):
    values = images / 255
    values[3, 2, :2] = np.nan
    user_error(lambda: check(values, labels), "some/path.npz", "uint8", "2 NaN", "drop faces with NaN")
    user_error(lambda: check(images.astype(int), labels), "int64")


@pytest.mark.parametrize("bad, found", [(-2, "-2 in row 5"), (2.5, "not whole"), (np.nan, "1 NaN, rows 5"),
                                        (np.inf, "not whole")])
def test_labels_out_of_range_are_refused(bad, found, images, labels, user_error):
    labels = labels.astype(type(bad))
    labels[5] = bad
    user_error(lambda: check(images, labels), "some/path.npz", "labels (70,), whole numbers >= -1", found)


def test_labels_of_the_wrong_length_or_shape_are_refused(images, labels, user_error):
    user_error(lambda: check(images, labels[:-1]), "labels (70,)", "(69,)")
    user_error(lambda: check(images, np.array(["happy"] * 69)), "labels (70,)", "(69,)")
    user_error(lambda: check(images, np.ones((70, 2, 2), int)), "labels (70,)", "(70, 2, 2)")


@pytest.mark.parametrize("values, classes, expected", [
    ([3, 4, -1], None, ("happy", "sad")),                       # numbers of expressions, those that are there
    ([0, 7, 7], None, ("anger", "contempt")),
    ([0, 10, 2], None, ("0", "2", "10")),                       # more than the expressions: classes by themselves
    ([0, 1, -1], ("cat", "dog"), ("cat", "dog")),
    (["Sadness", "joy", "unknown"], None, ("happy", "sad")), (["b", "a", "10", "9"], None, ("9", "10", "a", "b")),
    (["dog", "happy", "dog"], None, ("happy", "dog")),
    ([[1, 0, 0], [0, 0, 1], [0, 0, 0]], ("x", "y", "z"), ("x", "z"))])                     # one-hot
def test_classes_come_from_the_labels(values, classes, expected):
    labels, found = named_labels(np.array(values), classes or EXPRESSIONS, len(values), "here")
    assert found == expected and labels.dtype == np.int64


def test_each_face_keeps_the_class_that_it_was_given():
    names = np.array(["b", "unlabelled", "a", "b", "happiness"])
    labels, classes = named_labels(names, EXPRESSIONS, 5, "here")
    assert [classes[label] if label >= 0 else None for label in labels] == ["b", None, "a", "b", "happy"]
    labels, classes = named_labels(np.array([[0, 1], [1, 0], [0, 0]]), ("x", "y"), 3, "here")
    assert labels.tolist() == [1, 0, -1]
    labels, classes = named_labels(np.array([12, 3, -1, 12]), EXPRESSIONS, 4, "here")
    assert classes == ("3", "12") and labels.tolist() == [1, 0, -1, 1]


def test_names_that_are_no_utf_8_are_shown_with_escapes(images, labels, tmp_path):
    faces = checked(images, np.array(["tr\udcfcb", *"abcdef"])[labels], None, None, "f\udcfc", "here", seed=0)
    assert faces.classes == (*"abcdef", "tr\\udcfcb") and faces.name == "f\\udcfc"
    contact_sheet(tmp_path / "sheet.png", faces)


def test_left_out_takes_unlabelled_faces_and_leaves_some(small_faces, user_error, capsys):
    small_faces.labels[:3] = -1
    for name in ("unlabelled", "unknown"):
        left = without_classes(small_faces, f"{name},Angry")
        assert (left.labels >= 0).all() and len(left) == 70 - 3 - 9 and "anger" not in left.classes
    user_error(lambda: without_classes(small_faces, ",".join(EXPRESSIONS[:7]) + ",unknown"), "all 70 faces")
    user_error(lambda: without_classes(small_faces, "contempt"), "neutral, unlabelled", "found:    contempt")
    assert "warning" not in capsys.readouterr().out


def test_a_label_that_the_named_classes_do_not_have_is_refused(user_error):
    user_error(lambda: named_labels(np.array([0, 2]), ("cat", "dog"), 2, "here"), "2 in row 1", "2 classes")


def test_identities_below_minus_one_are_refused(images, labels, identities, user_error):
    identities[69] = -7
    user_error(lambda: check(images, labels, identities), "identities (70,)", "-7 in row 69", "-1 for unknown")


def test_splits_are_taken_as_names_or_numbers(images, labels):
    numbers = np.arange(70) % 3
    names = np.array(["train", "val", "test"])[numbers]
    assert (check(images, labels, None, names).split == numbers).all()
    assert (check(images, labels, None, numbers.astype(np.uint8)).split == numbers).all()


def test_bad_splits_are_refused(images, labels, user_error):
    user_error(lambda: check(images, labels, None, np.full(70, "holdout")), "split (70,)", "holdout")
    user_error(lambda: check(images, labels, None, np.full(70, 3)), "[3]")
    user_error(lambda: check(images, labels, None, np.zeros(69, int)), "(69,)")
    user_error(lambda: check(images, labels, None, np.arange(70) % 2), "none in test")


def test_faces_of_one_grey_level_are_refused_by_default(images, labels, user_error):
    images[[4, 30]] = [[[0]], [[200]]]
    text = user_error(lambda: check(images, labels), "some/path.npz", "2, rows 4, 30", "keep = ")
    remedy = text.partition("keep = ")[2].partition(", and")[0]
    for form in (images, np.float32(images / 255)):
        assert np.flatnonzero(~eval(remedy, {"images": form, "len": len})).tolist() == [4, 30]


def test_faces_of_one_grey_level_are_left_out_with_a_count_if_asked(images, labels, identities, capsys):
    images[[4, 30]] = 0
    faces = check(images, labels, identities, np.arange(70) % 3, drop_flat=True)
    keep = np.delete(np.arange(70), [4, 30])
    assert "left out 2 of 70" in capsys.readouterr().out
    assert (faces.images == images[keep]).all() and (faces.labels == labels[keep]).all()
    assert (faces.identities == identities[keep]).all() and (faces.split == keep % 3).all()


def test_one_grey_level_everywhere_is_refused(images, labels, user_error):
    user_error(lambda: check(images * 0, labels, drop_flat=True), "70 images, each of one grey level")


def test_constant_faces_are_found_in_every_chunk(images, labels, user_error, monkeypatch):
    monkeypatch.setattr(leaks, "CHUNK", 9)
    images[[0, 8, 9, 69]] = 50
    user_error(lambda: check(images, labels), "rows 0, 8, 9, 69")


# --- fingerprint and summary

def test_the_fingerprint_is_that_of_the_content(small_faces, tmp_path):
    def copy(**changes):
        arrays = {name: getattr(small_faces, name).copy() for name in ("images", "labels", "identities", "split")}
        for name, index in changes.items():
            arrays[name][index] ^= 1
        return Faces(**arrays, name="another name").fingerprint
    same = small_faces.fingerprint
    assert copy() == same and memory_mapped(small_faces, tmp_path / "images.npy").fingerprint == same
    prints = {same, copy(images=(69, 15, 15)), copy(labels=0), copy(identities=0), copy(split=0)}
    assert len(prints) == 5


def test_the_fingerprint_ignores_memory_order_and_chunks(small_faces, monkeypatch):
    same = small_faces.fingerprint
    monkeypatch.setattr(module, "CHUNK", 13)
    fortran = Faces(np.asfortranarray(small_faces.images), small_faces.labels, small_faces.identities,
                    small_faces.split, "")
    assert fortran.fingerprint == same


def test_the_summary_counts_by_split_expression_and_identity(small_faces):
    small_faces.labels[0], small_faces.identities[63] = -1, -1
    lines = {line.split()[0]: line.split()[1:] for line in summary(small_faces).splitlines()}
    assert lines["train"] == ["val", "test"]
    assert lines["anger"] == ["7", "1", "1"] and lines["neutral"] == ["8", "1", "1"]
    assert lines["unlabelled"] == ["1", "0", "0"] and lines["identities"] == ["8", "1", "1"]
    assert lines["1"] == "faces of unknown identity".split() and "warning:" not in lines


def test_identities_in_more_than_one_part_are_warned_of_and_counted_once(small_faces, capsys):
    check = lambda identities: checked(small_faces.images, small_faces.labels, identities, small_faces.split, "small",
                                       "small", 0)
    check(small_faces.identities)
    assert "warning" not in capsys.readouterr().out
    small_faces.identities[[0, 60]] = 9                         # person 9 is test; now also in train and val
    check(small_faces.identities)
    assert "1 identities are in more than one of train, val and test" in capsys.readouterr().out
    small_faces.identities[0] = 0                               # now in val only
    check(small_faces.identities)
    assert "1 identities are in" in capsys.readouterr().out
    small_faces.identities[[0, 60]] = 0, 1                      # person 1 in train and val, none shared with test
    check(small_faces.identities)
    assert "1 identities are in" in capsys.readouterr().out


def test_the_contact_sheet_shows_faces_upright_pixel_by_pixel(small_faces, tmp_path):
    contact_sheet(tmp_path / "sheet.png", small_faces)
    sheet = np.array(Image.open(tmp_path / "sheet.png").convert("L"))
    top = 0
    for label in range(7):                                      # rows of faces in the order of EXPRESSIONS
        tile = small_faces.images[label].repeat(2, 0).repeat(2, 1)
        places = [(y, x) for y, x in np.argwhere(sheet[:-31, :-31] == tile[0, 0])
                  if np.array_equal(sheet[y:y + 32, x:x + 32], tile)]
        assert len(places) == 1 and places[0][0] > top
        top = places[0][0]


def test_the_check_prints_the_summary_and_draws_the_faces(small_faces, tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "mine.npz", images=small_faces.images, labels=small_faces.labels)
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    command.main([str(tmp_path / "mine.npz")])
    assert "mine: 70 faces of 48x48 pixels" in capsys.readouterr().out
    assert Image.open(tmp_path / "contact_sheet.png").size[0] > 480


def test_the_check_takes_the_size_and_the_names_that_run_has(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    write_folder(tmp_path / "faces", draw_small_images())
    command.main([str(tmp_path / "faces"), "IMAGE_SIZE=24", "faces.LEFT_OUT=sad"])
    assert "60 faces of 24x24 pixels" in capsys.readouterr().out


def test_the_check_says_so_where_it_may_not_write(small_faces, tmp_path, monkeypatch, user_error):
    monkeypatch.setattr(command, "load", lambda *arguments: small_faces)
    monkeypatch.setattr(command, "FOLDER", tmp_path / "nowhere")
    user_error(lambda: command.main(["synthetic"]), tmp_path / "nowhere" / "contact_sheet.png", "can be written")


def test_the_check_wants_one_argument_or_shows_its_help(user_error, capsys):
    user_error(lambda: command.main([]), "python -m data PATH", "no arguments")
    with pytest.raises(SystemExit):
        command.main(["--help"])
    printed = capsys.readouterr().out
    assert "python -m data PATH" in printed and "LEFT_OUT" in printed


# --- load

def test_a_path_with_nothing_there_is_refused(tmp_path, user_error):
    user_error(lambda: load(tmp_path / "no_such"), tmp_path / "no_such", "nothing there", "check DATA")


@pytest.mark.parametrize("size", [0, 4, 50, -8])
def test_image_sizes_that_are_no_multiple_of_8_are_refused(size, user_error):
    user_error(lambda: load("synthetic", image_size=size), "IMAGE_SIZE", size)


def refuse():
    raise UserError("here", "this", "that", "do so")


@pytest.mark.parametrize("fail, message", [
    (refuse, "error: here\n  expected: this\n  found:    that\n  remedy:   do so"),
    (lambda: torch.empty(2 ** 50),
     "error: memory\n  expected: enough of it\n  found:    .*allocate.*\n  remedy:   smaller .*"),
    (lambda: bytearray(2 ** 60),
     "error: memory\n  expected: enough of it\n  found:    MemoryError\n  remedy:   smaller .*")])
def test_a_user_error_and_too_little_memory_are_no_tracebacks(fail, message, monkeypatch):
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))             # run_script replaces them
    monkeypatch.setattr(errors, "listen", lambda **_: None)
    with pytest.raises(SystemExit) as caught:
        errors.run_script(fail)
    assert re.fullmatch(message, str(caught.value))


def test_training_faces_that_are_also_held_out_are_counted(images, labels, capsys):
    split = np.array([0] * 56 + [1] * 7 + [2] * 7)
    check(images, labels, None, split)
    assert "byte-identical" not in capsys.readouterr().out
    images[[3, 4]], images[5] = images[60], images[69]
    check(images, labels, None, split)
    printed = capsys.readouterr().out
    assert "3 training faces are byte-identical to held-out ones" in printed and "rows 3, 4, 5\n" in printed


def test_leaving_classes_out_repeats_no_warning(images, labels, capsys):
    images[3] = images[69]
    faces = check(images, labels, None, [0] * 56 + [1] * 7 + [2] * 7)
    assert "byte-identical" in capsys.readouterr().out
    without_classes(faces, "anger")
    assert "byte-identical" not in capsys.readouterr().out


# --- splits

@pytest.mark.parametrize("people", [1, 2])
def test_too_few_identities_to_hold_any_out_are_refused(people, images, labels, user_error):
    user_error(lambda: check(images, labels, np.arange(70) % people), "some/path.npz", "three identities",
               f"{people} identities", "split of your own")


def test_rows_are_those_of_a_split_and_of_labelled_faces(small_faces):
    small_faces.labels[[0, 60]] = -1
    assert small_faces.rows().tolist() == list(range(70))
    assert small_faces.rows("val").tolist() == list(range(56, 63))
    assert small_faces.rows("val", labelled=True).tolist() == [56, 57, 58, 59, 61, 62]
    assert small_faces.rows(labelled=True).tolist() == [*range(1, 60), *range(61, 70)]
