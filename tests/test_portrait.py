"""metric_vae/portrait.py and data/crops.py: the figure of a user's own pictures."""
import sys
import types

import numpy as np
import pytest
from PIL import Image

import experiments
import run
from conftest import draw_small_images
from data.crops import face_box
from metric_vae.portrait import SCALE, open_pictures
from training import storage


@pytest.fixture
def picture(tmp_path):
    """A path of a photograph of 90x60 pixels, of which 30..46, 20..36 is a face of the data."""
    photograph = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    photograph[20:36, 30:46] = draw_small_images()[3][..., None]
    Image.fromarray(photograph).save(tmp_path / "me.png")
    return tmp_path / "me.png"


def test_without_opencv_the_middle_square_is_taken_and_said_so(picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    box, how = face_box(Image.open(picture))
    assert box == (15, 0, 75, 60) and "middle square" in how
    assert face_box(Image.new("L", (40, 100)))[0] == (0, 30, 40, 70)


@pytest.mark.parametrize("found, box", [([(5, 6, 10, 10), (30, 20, 16, 17)], (30, 20, 46, 37)), ([], (15, 0, 75, 60))])
def test_with_opencv_the_largest_face_is_taken(picture, monkeypatch, found, box):
    class Detector:
        def __init__(self, path):
            assert path.endswith("haarcascade_frontalface_default.xml")

        def detectMultiScale(self, grey, minNeighbors, minSize):
            assert grey.shape == (60, 90)
            return np.array(found)
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(
        CascadeClassifier=Detector, data=types.SimpleNamespace(haarcascades="/")))
    assert face_box(Image.open(picture))[0] == box


@pytest.mark.parametrize("crop", ["1,2,3", "a,b,c,d", "10,10,10,20", "0,0,91,60", "-1,0,5,5"])
def test_a_crop_that_is_no_part_of_the_picture_is_refused(picture, crop, user_error):
    user_error(lambda: face_box(Image.open(picture), crop), f"CROP={crop}", "90x60", "CROP=15,0,75,60")


def test_what_is_no_picture_and_more_than_two_are_refused(picture, tmp_path, user_error):
    (tmp_path / "text.jpg").write_text("no picture")
    user_error(lambda: open_pictures([tmp_path / "text.jpg"]), "text.jpg")
    user_error(lambda: open_pictures([picture] * 3), "3 pictures")
    user_error(lambda: open_pictures([picture], ["1,2,3,4", "1,2,3,4"]), "2 crops")


def test_pictures_go_through_experiments_and_the_figure_shows_the_face_as_it_was_cut(
        picture, tmp_path, monkeypatch, capsys, one_thread):
    np.savez(tmp_path / "faces.npz", images=draw_small_images(), labels=np.arange(70) % 7)
    monkeypatch.setattr(storage, "RUNS", tmp_path / "runs")
    quick = ["IMAGE_SIZE=16", "DEVICE=cpu", "PRECISION=fp32", "classifier.STEPS=1", "vae.STEPS=1"]
    run.main([f"DATA={tmp_path / 'faces.npz'}", *quick])
    (tmp_path / "faces.npz").unlink()                           # the run folder is enough
    experiments.main([f"PICTURE={picture}", "CROP=30,20,46,36", "DEVICE=cpu"])
    path = tmp_path / "runs" / "0" / "pictures" / "me.png"
    assert f"wrote {path}" in capsys.readouterr().out
    drawn = np.asarray(Image.open(path).convert("L")).astype(int)
    face = draw_small_images()[3].repeat(SCALE, 0).repeat(SCALE, 1)
    windows = np.lib.stride_tricks.sliding_window_view(drawn, face.shape)
    assert np.abs(windows[:150] - face).max((2, 3)).min() <= 1         # somewhere above the edits
    experiments.main([f"PICTURE={picture}, {picture}", "TO=sad", "CROP=30,20,46,36;0,0,60,60", "DEVICE=cpu"])
    assert (path.parent / "me_me.png").exists()
