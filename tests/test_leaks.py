"""data/leaks.py: held-out faces that are also in training are counted and warned of."""
import numpy as np
import pytest
from PIL import Image

from data import folder, leaks
from layouts import loaded


def warnings_of(capsys, images, split, identities=None):
    flat, digests = leaks.look_at(images)
    leaks.warn_of_leaks(images, digests, np.full(len(images), -1) if identities is None else identities,
                        np.asarray(split), "here")
    return capsys.readouterr().out


def frames(count, each, size=48, seed=0):
    """uint8 (count each, size, size): smooth random pictures, each in frames that differ by noise and light."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 220, (count, 6, 6))
    still = np.stack([np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((size, size), Image.BICUBIC))
                      for picture in coarse]).repeat(each, 0)
    light = np.tile(1 - .05 * np.arange(each), count)[:, None, None]
    return (still * light + rng.normal(0, 3, still.shape)).clip(0, 255).astype(np.uint8)


def test_frames_of_one_video_in_train_and_test_are_counted(capsys):
    apart = np.repeat([0, 0, 0, 1, 2], 12)                      # each video's three frames in one part
    assert warnings_of(capsys, frames(20, 3), apart) == ""
    mixed = np.tile([0, 0, 2], 20)
    assert "20 of 20 test faces are nearly equal to a training face" in warnings_of(capsys, frames(20, 3), mixed)


def test_identical_faces_are_counted_and_not_as_nearly_equal(capsys):
    images = frames(20, 1)
    images[18], images[19] = images[0], images[1]
    printed = warnings_of(capsys, images, [0] * 16 + [1] * 2 + [2] * 2)
    assert "2 training faces are byte-identical to held-out ones" in printed and "nearly" not in printed


def test_faces_that_are_held_out_in_thousands_are_sampled(capsys, monkeypatch):
    monkeypatch.setattr(leaks, "HELD_OUT", 7)
    assert "of 7 test faces" in warnings_of(capsys, frames(20, 3), np.tile([0, 0, 2], 20))


def test_colours_and_every_size_are_compared(capsys):
    for size in (8, 24, 48):
        coloured = frames(20, 3, size)[..., None].repeat(3, 3)
        assert "nearly equal" in warnings_of(capsys, coloured, np.tile([0, 0, 2], 20))


@pytest.mark.parametrize("pattern", [None, r"^(S\d+)_"])
def test_naming_the_people_of_videos_in_folders_ends_the_warning(pattern, tmp_path, capsys):
    for row, picture in enumerate(frames(40, 3)):
        path = tmp_path / "ab"[row // 3 % 2] / f"S{row // 3}_{row}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    loaded(folder, tmp_path, 48, IDENTITY_PATTERN=pattern)
    assert ("nearly equal" in capsys.readouterr().out) == (pattern is None)


def test_frames_of_people_that_are_known_and_apart_are_not_counted(capsys):
    images, split = frames(20, 3), np.tile([0, 0, 2], 20)
    assert warnings_of(capsys, images, split, np.arange(60)) == ""
    some = np.where(np.arange(60) < 30, np.arange(60), -1)      # those of the other 10 test faces are unknown
    assert "10 of 20 test faces are nearly equal" in warnings_of(capsys, images, split, some)


def test_faces_on_one_white_ground_are_not_nearly_equal(capsys):
    images = np.full((60, 48, 48), 255, np.uint8)
    images[:, 18:30, 18:30] = frames(60, 1, 24)[:, ::2, ::2] // 8               # small and dark: the ground dominates
    split = np.tile([0, 0, 2], 20)
    assert warnings_of(capsys, images, split) == ""
    images[2::3, 18:30, 18:30] = images[1::3, 18:30, 18:30] + 2                 # now with a lighter copy in training
    assert "20 of 20 test faces" in warnings_of(capsys, images, split)
