"""metric_vae/space.py: a run folder is enough to encode, decode, edit, interpolate and sample."""
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import run
from conftest import draw_small_images
from data.sources import load as load_faces
from metric_vae import statistics
from metric_vae.metrics import Function
from metric_vae.space import load
from metric_vae.trained import encode, given_distances, load_vae
from training import storage

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with faces.npz and a run of it, runs/0."""
    path = tmp_path_factory.mktemp("home")
    before, threads = storage.RUNS, torch.get_num_threads()
    storage.RUNS = path / "runs"
    torch.set_num_threads(1)
    np.savez(path / "faces.npz", images=draw_small_images(), labels=np.arange(70) % 7, identities=np.arange(70) // 7)
    quick = ("IMAGE_SIZE=16", "DEVICE=cpu", "PRECISION=fp32", "classifier.STEPS=20", "vae.STEPS=20", "vae.Z_DIM=8",
             "vae.METRIC_DIMS=3")
    run.main([f"DATA={path / 'faces.npz'}", *quick])
    run.main([f"DATA={path / 'faces.npz'}", *quick, "vae.METRIC=pixels", "LEFT_OUT=neutral"])
    yield path
    storage.RUNS = before
    torch.set_num_threads(threads)


@pytest.fixture
def space(home):
    return load(home / "runs" / "0")


@pytest.fixture
def images():
    return draw_small_images()


def test_pictures_of_every_kind_are_encoded_as_the_faces_of_the_data(space, home, images, tmp_path):
    faces = load_faces(str(home / "faces.npz"), 16)
    expected, _ = encode(load_vae(home / "runs" / "0", "dist_reg", CPU), faces, np.arange(3), CPU)
    for n in range(3):
        Image.fromarray(images[n]).save(tmp_path / f"{n}.png")
    paths = [str(tmp_path / f"{n}.png") for n in range(3)]
    for pictures in (paths, [Image.open(path) for path in paths], list(images[:3]), list(images[:3] / 255),
                     [image[..., None].repeat(3, -1) for image in images[:3]]):
        assert space.encode(pictures) == pytest.approx(expected, abs=1e-5)
    assert space.encode(paths[0]) == pytest.approx(expected[0], abs=1e-5)
    assert space.pictures(paths) == pytest.approx(images[:3] / 255, abs=1e-6)


def test_an_array_of_pictures_is_several_pictures(space, images):
    expected = space.encode(list(images[:3]))
    for array in (images[:3], images[:3, :, :, None].repeat(3, -1), torch.from_numpy(images[:3])):
        assert space.encode(array) == pytest.approx(expected)
    assert space.encode(images[:2]).shape == (2, 8) and space.encode(images[0]).shape == (8,)
    assert space.encode(image for image in images[:3]) == pytest.approx(expected)
    dark = np.stack([images[0], images[1] // 16]).astype(np.uint16) * 256
    assert space.pictures(dark)[1].max() < .1                   # one scale for all of them


@pytest.mark.parametrize("call, words", [
    (lambda s, x: s.encode([]), "at least one picture"), (lambda s, x: s.decode(np.zeros((2, 64))), "latents (n, 8)"),
    (lambda s, x: s.edit(x[0], "sad", part="all"), "metric, rest, both"),
    (lambda s, x: s.interpolate(x[0], x[1], part="all"), "metric, rest, both"),
    (lambda s, x: s.decode(np.zeros((2, 2, 8))), "latents (n, 8)"),
    (lambda s, x: s.edit(x[:2], "sad", own=["happy"]), "one a picture"),
    (lambda s, x: s.distances(x[0]), "several pictures"), (lambda s, x: s.distances("me.png"), "me.png"),
    (lambda s, x: s.nearest(x[:2]), "one picture"), (lambda s, x: s.nearest(x[0], -1), "1 and -1"),
    (lambda s, x: load("99999"), "99999")])
def test_wrong_arguments_get_a_clear_error(space, images, user_error, call, words):
    user_error(lambda: call(space, images), words)


def test_larger_pictures_are_cut_and_resized(space, images):
    large = np.pad(images[0].repeat(3, 0).repeat(3, 1), ((0, 0), (10, 10)))
    assert space.pictures(large).shape == (16, 16)
    assert space.pictures(large) == pytest.approx(images[0] / 255, abs=.15)


def test_decoding_gives_pictures_in_0_to_1_one_or_several(space, images):
    z = space.encode(list(images[:4]))
    x = space.decode(z)
    assert x.shape == (4, 16, 16) and 0 <= x.min() and x.max() <= 1
    assert space.decode(z[1]) == pytest.approx(x[1], abs=1e-6)
    with torch.no_grad():
        slow = space.vae.decode(torch.from_numpy(z))[:, 0].clamp(0, 1).numpy()
    assert x == pytest.approx(slow, abs=1e-6)


@pytest.mark.parametrize("part, dims", [("metric", slice(3)), ("rest", slice(3, None)), ("both", slice(None))])
def test_an_edit_is_z_minus_the_mean_of_the_own_class_plus_that_of_the_other(space, home, images, part, dims):
    faces = load_faces(str(home / "faces.npz"), 16)
    mu, _ = encode(space.vae, faces, faces.rows("train"), CPU)
    labels = faces.labels[faces.rows("train")]
    change = np.zeros(8)
    change[dims] = (mu[labels == 4].mean(0) - mu[labels == 3].mean(0))[dims]
    for amount in (0.5, 2):
        expected = space.decode(space.encode(images[3]) + amount * change)
        assert space.edit(images[3], "sad", amount, own="happy", part=part) == pytest.approx(expected, abs=1e-4)


def test_the_own_class_is_what_the_classifier_says(space, images):
    names = [max(found, key=found.get) for found in space.classify(list(images[:7]))]
    told = space.edit(list(images[:7]), "sad", own=names)
    assert space.edit(list(images[:7]), "sad") == pytest.approx(told)
    assert space.classify(images[0]) == space.classify([images[0]])[0]
    assert sum(space.classify(images[0]).values()) == pytest.approx(1, abs=1e-5)
    assert list(space.classify(images[0])) == list(space.classes)


def test_an_interpolation_begins_and_ends_with_the_reconstructions(space, images):
    path = space.interpolate(images[3], images[4], steps=5)
    assert path.shape == (5, 16, 16)
    assert path[[0, -1]] == pytest.approx(space.decode(space.encode([images[3], images[4]])), abs=1e-5)
    z = space.encode([images[3], images[4]])
    half = z[0].copy()
    half[:3] = (z[0] + z[1])[:3] / 2
    assert space.interpolate(images[3], images[4], 3, "metric")[1] == pytest.approx(space.decode(half), abs=1e-5)


def test_samples_are_those_of_the_density(space):
    assert space.sample(4).shape == (4, 16, 16)
    happy = space.decode(space.summary.density.sample(4, 3, 7))
    assert np.array_equal(space.sample(4, "happy", seed=7), happy)
    assert not np.array_equal(space.sample(4, "happy", seed=8), happy)


def test_distances_are_in_the_unit_of_the_metric(home):
    space = load(home / "runs" / "1")                           # METRIC=pixels
    faces = space.faces
    rows = faces.rows("val")
    d = given_distances(Function(lambda x: x), faces, rows, CPU)
    e = space.distances(list(faces.images[rows]))
    scale = statistics.best_scale(e[e > 0], d[e > 0], np.ones((e > 0).sum()))
    assert scale == pytest.approx(1, rel=1e-3)                  # no better scale than the one that it has


def test_the_nearest_faces_of_a_face_begin_with_itself(space, images):
    found = space.nearest(images[20], 3)
    assert found.rows[0] == 20 and found.distances[0] == pytest.approx(0, abs=1e-4)
    assert np.array_equal(found.pictures, space.faces.images[found.rows])
    assert (np.diff(found.distances) >= 0).all()
    every = space.distances([images[20], images[found.rows[2]]])[0, 1]
    assert found.distances[2] == pytest.approx(every, rel=1e-3)


def test_both_models_and_several_runs_are_open_at_once(home, images):
    spaces = [load(home / "runs" / "0"), load(home / "runs" / "0", "no_dist_reg"), load(home / "runs" / "1")]
    assert len({tuple(space.encode(images[0])) for space in spaces}) == 3
    assert spaces[1].edit(images[0], "sad").shape == (16, 16)   # moves all of z
    assert spaces[2].classes == spaces[0].classes[:6]
    assert load().folder.name == "1"                            # the newest


def test_a_run_folder_alone_is_enough(home, images, tmp_path):
    shutil.copytree(home / "runs" / "0", tmp_path / "copied")
    settings = (tmp_path / "copied" / "settings.json").read_text().replace("faces.npz", "gone.npz")
    (tmp_path / "copied" / "settings.json").write_text(settings)
    space, before = load(tmp_path / "copied"), load(home / "runs" / "0")
    assert np.array_equal(space.edit(images[0], "sad"), before.edit(images[0], "sad"))
    assert np.array_equal(space.sample(2), before.sample(2))


def test_what_is_missing_is_a_users_error(home, images, tmp_path, user_error, monkeypatch):
    space = load(home / "runs" / "0")
    user_error(lambda: space.encode(tmp_path / "none.png"), "none.png", "check the path")
    user_error(lambda: space.edit(images[0], "rage", own="happy"), "anger, disgust", "rage")
    user_error(lambda: load(home / "runs" / "7"), "settings.json")
    user_error(lambda: load(99), "finished run 99")
    user_error(lambda: load(home / "runs" / "0", "vae"), "dist_reg, no_dist_reg")
    shutil.copytree(home / "runs" / "0", tmp_path / "bare")
    (tmp_path / "bare" / "classifier.pt").unlink()
    user_error(lambda: load(tmp_path / "bare").classify(images[0]), "classifier.pt", "own=")
    settings = (tmp_path / "bare" / "settings.json").read_text().replace("faces.npz", "gone.npz")
    (tmp_path / "bare" / "settings.json").write_text(settings)
    user_error(lambda: load(tmp_path / "bare").nearest(images[0]), "gone.npz")
    monkeypatch.setitem(sys.modules, "expr_classifier.train", None)         # as if it were not there
    user_error(lambda: space.classify(images[0]), "expr_classifier", "own=")


def test_exported_networks_give_the_same_as_ours(space, images, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    paths = space.export(tmp_path / "onnx")
    assert [path.name for path in paths] == ["encoder.onnx", "decoder.onnx", "classifier.onnx"]
    encoder, decoder, classifier = (runtime.InferenceSession(str(path)) for path in paths)
    x = images[:5, None] / np.float32(255)
    mu, sigma = encoder.run(None, {"x": x})
    assert mu == pytest.approx(space.encode(list(images[:5])), abs=1e-4) and (sigma > 0).all()
    assert decoder.run(None, {"z": mu})[0][:, 0].clip(0, 1) == pytest.approx(space.decode(mu), abs=1e-4)
    probabilities = [list(found.values()) for found in space.classify(list(images[:5]))]
    assert classifier.run(None, {"x": x})[0] == pytest.approx(np.array(probabilities), abs=1e-4)


def test_exporting_without_onnx_says_what_to_install(space, tmp_path, user_error, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    user_error(lambda: space.export(tmp_path), "pip install onnx onnxscript")
