"""COLOUR=True: three channels from the data set to the figures; grey stays one."""
import json

import numpy as np
import pytest
import torch
from PIL import Image

import expr_classifier.model
import experiments
import metric_vae.model
import run
from conftest import draw_small_images
from data import arrays, folder
from data.batches import Images, as_channels, as_pictures
from data.faces import Faces, summary
from data.pixels import squares
from data.sources import load
from layouts import loaded
from metric_vae import fidelity
from training import storage

CPU = torch.device("cpu")


@pytest.fixture
def colours():
    """uint8 (70, 16, 16, 3): the small images, in each channel another one's."""
    images = draw_small_images()
    return np.stack([images, np.roll(images, 1, 0), np.roll(images, 30, 0)], -1)


@pytest.mark.parametrize("form", [lambda a: a, lambda a: np.moveaxis(a, 3, 1), lambda a: a / 255.,
                                  lambda a: np.concatenate([a, np.full((*a.shape[:3], 1), 255, np.uint8)], 3)])
def test_colours_in_every_form_are_kept_where_asked_for(colours, form):
    colours[0, 0, 0, 0] = 255
    found = squares(form(colours), 16, "here", colour=True)
    assert found.shape == colours.shape and np.abs(found.astype(int) - colours).max() <= 1


def test_grey_pictures_stay_grey(images):
    assert squares(images, 16, "here", colour=True) is images
    assert squares(images[..., None], 16, "here", colour=True).shape == images.shape


def test_transparent_pixels_show_the_ground_in_every_channel(colours):
    hidden = np.concatenate([colours, np.zeros((*colours.shape[:3], 1), np.uint8)], 3)
    assert (squares(hidden, 16, "here", colour=True) == 128).all()


def test_pictures_in_folders_and_arrays_keep_their_colours(colours, tmp_path):
    for row, picture in enumerate(colours):
        (tmp_path / "folder" / "ab"[row % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "folder" / "ab"[row % 2] / f"{row:02d}.png")
    np.savez(tmp_path / "mine.npz", images=colours, labels=np.arange(70) % 2)
    kept, of_arrays = loaded(folder, tmp_path / "folder", 16, COLOUR=True), loaded(arrays, tmp_path / "mine.npz", 16,
                                                                                  COLOUR=True)
    assert kept.channels == of_arrays.channels == kept.about()["channels"] == 3 and "in colour" in summary(kept)
    assert np.array_equal(kept.images, np.concatenate([colours[::2], colours[1::2]]))
    assert np.array_equal(of_arrays.images, colours) and loaded(folder, tmp_path / "folder", 16).channels == 1


def test_pictures_of_one_colour_are_refused(colours, tmp_path, user_error):
    colours[3] = 10, 200, 90
    np.savez(tmp_path / "mine.npz", images=colours, labels=np.arange(70) % 2)
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16, COLOUR=True), "rows 3")


def test_batches_have_the_colours_as_channels_and_are_mirrored_and_moved_as_grey_ones(colours):
    whole = Faces(colours, *[np.zeros(70, int)] * 3, "colours")
    x = Images(whole, CPU)(torch.arange(5))
    assert np.array_equal(as_pictures(x).numpy(), colours[:5] / np.float32(255))
    assert torch.equal(as_channels(as_pictures(x)), x)
    rows = torch.arange(20)
    draw = lambda faces: Images(faces, CPU)(rows, torch.Generator().manual_seed(1), True, 2, 12., .1)
    red = Faces(np.ascontiguousarray(colours[..., 0]), *[np.zeros(70, int)] * 3, "red")
    assert torch.allclose(draw(whole)[:, :1], draw(red), atol=1e-6)


@pytest.mark.parametrize("name", expr_classifier.model.ARCHITECTURES)
def test_every_classifier_takes_colours(name):
    model = expr_classifier.model.ARCHITECTURES[name](16, 5, 3).eval()
    assert model(torch.rand(4, 3, 16, 16)).shape == (4, 5)


@pytest.mark.parametrize("name", metric_vae.model.ARCHITECTURES)
def test_every_vae_takes_colours(name):
    model = metric_vae.model.ARCHITECTURES[name](16, 8, 2, 3).eval()
    x = torch.rand(4, 3, 16, 16)
    assert model.decode(model.encode(x)[0]).shape == x.shape and model.recover_metric(x).shape == (4, 2)


def test_the_metric_branch_sees_colours_and_not_only_grey_levels():
    torch.manual_seed(0)
    model = metric_vae.model.light(16, 8, 2, 3).eval()
    x = torch.rand(4, 3, 16, 16)
    assert not torch.allclose(model.recover_metric(x), model.recover_metric(x.flip(1)), atol=1e-4)


def test_scores_of_equal_channels_are_those_of_grey_faces(images):
    x, x_hat = images[:8] / 255, images[1:9] / 255
    thrice = lambda a: a[..., None].repeat(3, 3)
    for score, factor in ((fidelity.squared_errors, 3), (fidelity.psnr, 1), (fidelity.ssim, 1)):
        assert score(thrice(x_hat), thrice(x)) == pytest.approx(factor * score(x_hat, x))
    assert fidelity.high_energy(thrice(x)) == pytest.approx(3 * fidelity.high_energy(x))


def test_faces_in_colour_go_through_both_scripts(colours, tmp_path, monkeypatch, one_thread):
    np.savez(tmp_path / "faces.npz", images=colours, labels=np.arange(70) % 7, identities=np.arange(70) // 7)
    monkeypatch.setattr(storage, "RUNS", tmp_path / "experiments")
    run.main([f"DATA={tmp_path / 'faces.npz'}", "COLOUR=True", "IMAGE_SIZE=16", "DEVICE=cpu", "PRECISION=fp32",
              "classifier.STEPS=1", "vae.STEPS=1"])
    experiments.main(["JUDGE_STEPS=1", "JUDGE_BATCH=16", "IDENTITY_STEPS=0", "SAMPLE=20", "SHOWN=2", "DEVICE=cpu"])
    done = tmp_path / "experiments" / "0"
    scores = json.loads((done / "scores.json").read_text())["dist_reg"]
    assert {"error", "ssim", "high_frequencies", "frechet", "edit_success"} <= set(scores)
    picture = np.asarray(Image.open(done / "figures" / "dist_reg" / "edits.png").convert("RGB")).astype(int)
    assert np.ptp(picture, axis=2).max() > 50                   # in colour


def test_synthetic_faces_stay_grey_and_say_so(monkeypatch, tmp_path, capsys):
    from dataclasses import replace

    from data import options, synthetic
    from training.settings import default_settings
    drawn = synthetic.load(16, 0, 70, 30, tmp_path)
    monkeypatch.setattr(synthetic, "load", lambda *arguments: drawn)
    assert load("synthetic", 16, options=replace(default_settings(options), COLOUR=True)).channels == 1
    assert "these faces are grey" in capsys.readouterr().out
