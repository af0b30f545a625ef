"""The figures are written, show what they say, and refuse what they cannot show; experiments.py on small runs."""
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import experiments
import expr_classifier.figures as classifier_figures
import expr_classifier.model
import expr_classifier.run
import metric_vae.figures as vae_figures
import metric_vae.run
from conftest import EXPRESSIONS
from data.faces import checked
from data.figures import COLOURS, face_grid, largest, save, style, tsne
from expr_classifier import judges
from metric_vae import density, fidelity, gallery, statistics
from metric_vae import train as vae
from metric_vae.metrics import Function, Points
from metric_vae.model import ARCHITECTURES
from metric_vae.scores import Latents, latents_of, other_classes, pair_of, pairs_of, score_reconstructions
from metric_vae.trained import decode, encode, load_vae, scale_of, summarize
from training import checkpoints
from training.settings import default_settings

CPU = torch.device("cpu")
HAPPY, SAD = 3, 4
pytestmark = pytest.mark.usefixtures("one_thread")
CLASSIFIER = replace(default_settings(expr_classifier.run), BATCH=16, STEPS=4)
VAE = replace(default_settings(metric_vae.run), METRIC_DIMS=4, Z_DIM=8)
SETTINGS = replace(default_settings(experiments), JUDGE_STEPS=4, JUDGE_BATCH=16, IDENTITY_STEPS=4,
                   JUDGE_ARCHITECTURE="light")
RNG = np.random.default_rng(0)
LABELS = np.arange(70) % 7
FACES = RNG.random((70, 16, 16))


def read(path, width=None, height=None):
    """A figure's pixels in grey, (H, W); fails where it has another size."""
    pixels = np.asarray(Image.open(path).convert("L"))
    assert width is None or pixels.shape == (height, width)
    return pixels


def count_shown(path, face, scale=2):
    """How often a face, uint8 or float in 0..1 (h, w), stands in a picture, each pixel as scale x scale pixels."""
    pixels = read(path).astype(int)
    if face.dtype != np.uint8:
        face = np.clip(face, 0, 1) * 255
    large = face.repeat(scale, 0).repeat(scale, 1).round().astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, large.shape)
    at = np.argwhere(np.abs(windows[:, :, 0, ::scale] - large[0, ::scale]).max(2) <= 1)
    return sum(np.abs(windows[r, c] - large).max() <= 1 for r, c in at)


def has_points(path, colour, legend=60):
    """Whether a scatter plot has points of a colour, "#RRGGBB", above its legend, pixels high."""
    wanted = .8 * np.array([int(colour[k:k + 2], 16) for k in (1, 3, 5)]) + .2 * 255
    return bool((np.abs(np.asarray(Image.open(path).convert("RGB"))[:-legend] - wanted).max(2) < 3).any())


def softmax_of(labels, sharpness=3):
    values = np.exp(RNG.standard_normal((len(labels), 7)) + sharpness * np.eye(7)[labels])
    return values / values.sum(1, keepdims=True)


# --- grids of faces

def test_a_face_in_a_grid_is_shown_pixel_by_pixel_without_blur(tmp_path):
    faces = RNG.integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    face_grid(tmp_path / "grid.png", faces, rows=["a", "b"], columns=["x", "y", "z"], title="T", scale=2)
    assert [count_shown(tmp_path / "grid.png", face) for face in faces.reshape(-1, 16, 16)] == [1] * 6
    assert count_shown(tmp_path / "grid.png", 255 - faces[0, 0]) == 0


def test_an_empty_place_in_a_grid_is_white(tmp_path):
    faces = np.zeros((1, 2, 16, 16))
    faces[0, 1] = np.nan
    face_grid(tmp_path / "grid.png", faces)
    pixels = np.asarray(Image.open(tmp_path / "grid.png").convert("L"))
    assert (pixels == 0).sum() == 32 * 32


# --- the classifier's figures

@pytest.mark.parametrize("name", ["last", "second_last", "softmax"])
def test_a_map_of_a_layer_has_points_of_each_expression_that_there_is(tmp_path, name):
    labels = np.where(LABELS == 2, 1, LABELS)
    classifier_figures.layer_map(tmp_path / "map.png", name, RNG.standard_normal((70, 7)), labels, EXPRESSIONS)
    read(tmp_path / "map.png", 750, 720)
    for label, expression in enumerate(EXPRESSIONS):
        assert has_points(tmp_path / "map.png", COLOURS[expression]) == (label != 2)


def test_spread_takes_each_expressions_own_faces_from_its_lowest_to_its_highest_value():
    labels = np.array([0] * 40 + [3] * 5 + [-1] * 5)
    values = RNG.random((50, 7))
    chosen = classifier_figures.spread(values, labels)
    assert set(chosen) == {0, 3} and len(chosen[0]) == 14 and len(chosen[3]) == 5
    for label, rows in chosen.items():
        assert (labels[rows] == label).all() and (np.diff(values[rows, label]) > 0).all()
        of_label = values[labels == label, label]
        assert values[rows[0], label] == of_label.min() and values[rows[-1], label] == of_label.max()


def test_ordered_faces_and_their_intensities_are_drawn_with_few_faces_and_a_missing_expression(tmp_path):
    labels = np.where(LABELS == 2, 1, LABELS)[:20]
    images = (FACES[:20] * 255).astype(np.uint8)
    classifier_figures.ordered(tmp_path / "ordered.png", images, softmax_of(labels), labels, EXPRESSIONS)
    classifier_figures.intensities(tmp_path / "intensities.png", softmax_of(labels), labels, EXPRESSIONS)
    assert [count_shown(tmp_path / "ordered.png", image) for image in images] == [1] * 20
    read(tmp_path / "intensities.png", 750, 500)


def test_confusion_is_drawn_and_refuses_other_lengths(tmp_path):
    classifier_figures.confusion(tmp_path / "confusion.png", LABELS, softmax_of(LABELS).argmax(1), EXPRESSIONS)
    read(tmp_path / "confusion.png", 800, 680)
    with pytest.raises((ValueError, IndexError)):
        classifier_figures.confusion(tmp_path / "wrong.png", LABELS, LABELS[:-1], EXPRESSIONS)
    assert not (tmp_path / "wrong.png").exists()


# --- the VAE's figures

def test_a_latent_map_is_written_for_unlabelled_faces_and_few_faces_and_refuses_nan(tmp_path):
    vae_figures.latent(tmp_path / "latent.png", "dist_reg", RNG.standard_normal((40, 8)), np.full(40, -1), EXPRESSIONS)
    read(tmp_path / "latent.png", 750, 720)
    for shape in ((1, 3), (3, 1), (5, 3), (30, 1)):
        assert tsne(RNG.standard_normal(shape)).shape == (shape[0], 2)
    with pytest.raises(ValueError):
        vae_figures.latent(tmp_path / "wrong.png", "dist_reg", np.full((40, 8), np.nan), np.zeros(40, int), EXPRESSIONS)
    assert not (tmp_path / "wrong.png").exists()


def test_grids_show_every_face_that_they_are_given(tmp_path):
    x, way, edited = FACES[:6], FACES[:60].reshape(6, 10, 16, 16), FACES[:42].reshape(6, 7, 16, 16)
    blocks = [("happy", "sad", FACES[:18].reshape(3, 6, 16, 16)),
              ("neutral", "happy", FACES[18:30].reshape(3, 4, 16, 16))]
    grid, same = FACES.reshape(7, 10, 16, 16), np.array([True, False] * 3)
    both = {name: FACES[48:54] for name in vae.MODELS}, {name: edited for name in vae.MODELS}
    for draw, count, scale in (
            (lambda path: vae_figures.interpolations(path, "dist_reg", FACES[60:66], way, FACES[64:70],
                                                     ("happy", "sad"), same), 70, 2),
            (lambda path: vae_figures.edits(path, "dist_reg", FACES[42:48], FACES[48:54], edited, EXPRESSIONS[:6],
                                            EXPRESSIONS), 54, 3),
            (lambda path: vae_figures.edits_of_both(path, FACES[42:48], *both, EXPRESSIONS[:6], EXPRESSIONS), 54, 2),
            (lambda path: vae_figures.interpolations_of_both(path, FACES[60:66], dict.fromkeys(vae.MODELS, way),
                                                             FACES[64:70], ("happy", "sad")), 70, 2),
            (lambda path: vae_figures.changes(path, "dist_reg", blocks), 30, 2),
            (lambda path: vae_figures.reconstructions(path, "dist_reg", FACES[:13], FACES[13:26], FACES[26:39],
                                                      "density"), 39, 2),
            (lambda path: vae_figures.reconstructions(path, "dist_reg", x[:1], x[1:2], x[2:3], "prior"), 3, 2),
            (lambda path: vae_figures.samples(path, "dist_reg", grid, EXPRESSIONS, "density"), 70, 2),
            (lambda path: vae_figures.samples(path, "dist_reg", grid[:1], None, "prior"), 10, 2)):
        draw(tmp_path / "grid.png")
        assert all(count_shown(tmp_path / "grid.png", face, scale) for face in FACES[:count])


def test_a_grid_refuses_faces_that_do_not_belong_together(tmp_path):
    with pytest.raises(ValueError):
        vae_figures.edits(tmp_path / "wrong.png", "dist_reg", FACES[:6], FACES[:5], np.stack([FACES[:6]] * 7, 1),
                          EXPRESSIONS[:6], EXPRESSIONS)
    assert not (tmp_path / "wrong.png").exists()


def test_shepard_is_written_for_one_and_for_two_models_and_refuses_other_lengths(tmp_path):
    d = RNG.random(500)
    panels = {"no_dist_reg": (RNG.random(500), d), "dist_reg": (3 * d, d)}
    vae_figures.shepard(tmp_path / "two.png", panels, "d_D")
    vae_figures.shepard(tmp_path / "one.png", {"dist_reg": panels["dist_reg"]}, "d_D")
    two, one = read(tmp_path / "two.png"), read(tmp_path / "one.png")
    assert two.shape[1] > one.shape[1]
    with pytest.raises(ValueError):
        vae_figures.shepard(tmp_path / "wrong.png", {"dist_reg": (d[:-1], d)}, "d_D")


def test_losses_are_drawn_of_any_terms_and_of_a_single_epoch(tmp_path):
    lines = [dict(stage="dist_reg", epoch=k + 1, error=9 / (k + 1), val_error=10 / (k + 1), new_term=1.0,
                  val_new_term=2.0, loss=3.0, val_loss=4.0, seconds=1.0) for k in range(3)]
    accuracy = [dict(epoch=1, train_accuracy=.5, val_accuracy=None)]
    vae_figures.losses(tmp_path / "losses.png", {"classifier": accuracy, "no_dist_reg": lines[:1], "dist_reg": lines})
    vae_figures.losses(tmp_path / "alone.png", {"classifier": [], "no_dist_reg": [], "dist_reg": lines})
    assert read(tmp_path / "losses.png").shape[0] > read(tmp_path / "alone.png").shape[0]


# --- experiments.py on runs with untrained networks

@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """make(stages): a run folder with untrained networks of 16x16 faces."""
    monkeypatch.setattr(expr_classifier.run, "BATCH", 16)       # of the judge, too

    def make(stages):
        torch.manual_seed(0)
        for stage in stages:
            model = expr_classifier.model.light(16, 7) if stage == "classifier" else ARCHITECTURES["light"](16, 8, 4)
            checkpoints.save_checkpoint(tmp_path / f"{stage}.pt", model, torch.optim.Adam(model.parameters()),
                                    torch.Generator(), 1, architecture="light", size=16, classes=7, z_dim=8,
                                    metric_dims=4, channels=1)
        return tmp_path
    return make


def run_in(folder, faces, **changes):
    """The Run in a folder; changes: of the VAE's settings."""
    return experiments.Run(folder, faces, 0, "fp32", CLASSIFIER, replace(VAE, **changes), CPU)


def people(images, labels, identities, test_labels):
    """Faces whose people 0..5 train, 6 validate and 7..9 test, these with other labels."""
    split = np.array([0] * 6 + [1] + [2] * 3)[identities]
    labels = labels.copy()
    labels[split == 2] = np.resize(test_labels, 21)
    return checked(images, labels, identities, split, "small", "small faces", seed=0)


ALL = [*(f"{name}.png" for name in ("last", "second_last", "softmax", "losses")), "shepard.png",
       *(f"{name}/{file}.png" for name in vae.MODELS for file in ("latent", "reconstructions", "samples"))]
OF_LABELLED = ["confusion.png", "ordered.png", "intensities.png"]
OF_PAIRS = [f"{name}/{file}.png" for name in vae.MODELS for file in ("interpolate", "change", "edits")]


@pytest.mark.parametrize("test_labels, expected", [
    (np.arange(7), ALL + OF_LABELLED + OF_PAIRS + ["edits.png", "interpolate.png"]),
    ([-1], ALL),
    ([0, 1, -1], ALL + OF_LABELLED + ["edits.png"] + [f"{name}/edits.png" for name in vae.MODELS])],
    ids=["all", "unlabelled", "three kinds"])
def test_experiments_draws_what_the_labels_allow(run_folder, images, labels, identities, test_labels, expected, capsys):
    faces = people(images, labels, identities, test_labels)
    folder = run_folder(("classifier", *vae.MODELS))
    scores = experiments.analyse(replace(run_in(folder, faces), precision="bf16"), SETTINGS)
    found = {str(path.relative_to(folder / "figures")) for path in folder.glob("figures/**/*.png")}
    assert found == set(expected) - {"losses.png"}
    for path in found:
        read(folder / "figures" / path)
    assert (folder / "explorer.html").exists()
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert set(scores) == {"split", "settings", "classifier", "controls", "ceiling", *vae.MODELS}
    assert scores["ceiling"]["spearman"][0] < 1                  # another seed
    named = {"error", "psnr", "ssim", "high_frequencies", "kl", "active_units", "pearson", "spearman", "stress",
             "trustworthiness", "continuity", "triplets"}
    if test_labels[0] == 0:
        named |= {"spearman_within", "spearman_between", "knn_accuracy", "edit_success", "judge_on_faces",
                  "judge_on_reconstructions", "high_frequencies_of_edits", "identity_kept", "identity_on_faces",
                  "frechet", "frechet_prior", "judge_on_samples"}
    assert named <= set(scores["dist_reg"])
    networks = ("judge", "identity", "second") if test_labels[0] == 0 else ("second",)
    states = {name: checkpoints.load_checkpoint(folder / f"{name}.pt") for name in networks}
    assert {name: json.loads(state["settings"])[2] for name, state in states.items()} == dict.fromkeys(networks, "bf16")
    assert (folder / "judge.pt").exists() == (test_labels[0] == 0)


@pytest.mark.parametrize("source", ["density", "prior"])
def test_samples_are_drawn_a_row_an_expression_from_the_density_and_in_one_block_from_the_prior(
        run_folder, small_faces, monkeypatch, source):
    drawn, settings = {}, replace(SETTINGS, SAMPLES_FROM=source)
    folder = run_folder(["dist_reg"])
    model = load_vae(folder, "dist_reg", CPU)
    summary = summarize(model, "dist_reg", small_faces, None, small_faces.rows("train"), folder, 0, CPU)
    latents = latents_of("dist_reg", model, small_faces, small_faces.rows("test"), CPU, summary)
    monkeypatch.setattr(vae_figures, "samples", lambda path, of, faces, names, source: drawn.update(locals()))
    gallery.draw_samples(None, latents, EXPRESSIONS, settings)
    assert drawn["faces"].shape == (7, settings.SHOWN, 16, 16) and drawn["source"] == source
    assert drawn["names"] == (list(EXPRESSIONS) if source == "density" else None)
    if source == "density":
        expected = decode(model, summary.density.sample(settings.SHOWN, SAD, settings.SEED), CPU).clip(0, 1)
        assert drawn["faces"][SAD] == pytest.approx(expected, abs=1e-5)


def test_a_run_without_a_summary_gets_one_of_its_training_faces_and_keeps_it(
        run_folder, small_faces, monkeypatch, capsys):
    given = []
    folder = run_folder(["dist_reg"])
    model = load_vae(folder, "dist_reg", CPU)
    fit = density.fit
    monkeypatch.setattr(density, "fit", lambda *arguments: given.append(arguments) or fit(*arguments))
    first, second = (summarize(model, "dist_reg", small_faces, Function(lambda x: x), small_faces.rows("train"), folder,
                               3, CPU) for _ in range(2))
    (z, labels, classes), = given                               # fitted once, then read
    assert (first.density.sample(9) == second.density.sample(9)).all() and "latents" in capsys.readouterr().out
    mu, sigma = encode(model, small_faces, small_faces.rows("train"), CPU)
    noise = (z - mu) / sigma
    assert (labels == small_faces.labels[small_faces.split == 0]).all() and classes == 7
    assert noise.mean() == pytest.approx(0, abs=.2) and noise.std() == pytest.approx(1, abs=.2)
    for label in range(7):
        of_label = small_faces.labels[small_faces.split == 0] == label
        assert second.class_means[label] == pytest.approx(mu[of_label].mean(0), abs=1e-6)
    val = small_faces.rows("val")
    e = statistics.euclidean(encode(model, small_faces, val, CPU)[0][:, :4])
    d = statistics.euclidean(small_faces.images[val] / 255)
    assert second.scale == pytest.approx((e * d).sum() / (e * e).sum(), rel=1e-4)
    labels = np.where(np.arange(70) == val[0], small_faces.labels, -1)      # one labelled face to validate on
    labels[small_faces.split == 0] = small_faces.labels[small_faces.split == 0]
    few, of_labels = replace(small_faces, labels=labels), np.eye(7)[small_faces.labels]
    scale = scale_of(model, "dist_reg", few, Points(of_labels), CPU)
    of_train = scale_of(model, "dist_reg", replace(few, split=np.where(few.split == 1, -1, few.split)),
                        Points(of_labels), CPU)
    assert scale == of_train > 0


def test_the_second_classifier_is_read_again_if_it_has_the_same_settings_else_trained(
        images, labels, identities, tmp_path, monkeypatch):
    faces = people(images, labels, identities, np.arange(7))
    second = lambda settings, precision="fp32": judges.train_network("second", faces, settings, tmp_path, 503, CPU,
                                                                     precision)
    first = second(CLASSIFIER)
    in_bf16 = second(CLASSIFIER, "bf16")
    longer = second(replace(CLASSIFIER, STEPS=8))
    for other in (in_bf16, longer):
        assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))
    monkeypatch.setattr(judges, "train", None)                  # no more training is needed
    again = second(replace(CLASSIFIER, STEPS=8))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), longer.parameters()))


def test_experiments_takes_a_run_of_the_vae_alone_and_one_of_the_classifier_alone(
        run_folder, images, labels, identities, capsys):
    faces = people(images, labels, identities, np.arange(7))
    settings = replace(SETTINGS, JUDGE_ARCHITECTURE="none")
    folder = run_folder(vae.MODELS)
    scores = experiments.analyse(run_in(folder, faces, METRIC="pixels"), settings)
    assert "no classifier.pt" in capsys.readouterr().out
    assert "classifier" not in scores and "edit_success" not in scores["dist_reg"]
    assert scores["dist_reg"]["spearman"] != scores["no_dist_reg"]["spearman"]
    for name in vae.MODELS:
        (folder / f"{name}.pt").unlink()
    run_folder(["classifier"])
    scores = experiments.analyse(run_in(folder, faces), settings)
    assert set(scores) == {"split", "settings", "classifier"} and (folder / "explorer.html").exists()


def test_stopped_while_it_draws_the_scores_are_kept(run_folder, images, labels, identities, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    folder = run_folder(["no_dist_reg"])
    monkeypatch.setattr(experiments.gallery, "draw_vae", stop)
    with pytest.raises(KeyboardInterrupt):
        experiments.analyse(run_in(folder, people(images, labels, identities, np.arange(7)), METRIC="pixels"),
                            replace(SETTINGS, JUDGE_ARCHITECTURE="none", EXPLORER=False))
    assert "error" in json.loads((folder / "scores.json").read_text())["no_dist_reg"]


def test_labels_as_the_metric_without_labelled_held_out_faces_leave_the_classifiers_figures(
        run_folder, images, labels, identities, capsys):
    faces = people(images, labels, identities, [-1])
    folder = run_folder(("classifier", *vae.MODELS))
    scores = experiments.analyse(run_in(folder, faces, METRIC="labels"), SETTINGS)
    assert "no labelled held-out faces" in capsys.readouterr().out
    assert set(scores) == {"split", "settings", "classifier"}


@pytest.mark.parametrize("split, people_in_it", [("val", [6]), ("test", [7, 8, 9])])
def test_the_faces_of_the_chosen_split_are_scored_and_named(
        run_folder, images, labels, identities, capsys, split, people_in_it):
    faces = people(images, labels, identities, np.arange(7))
    settings = replace(SETTINGS, JUDGE_ARCHITECTURE="none", SPLIT=split, EXPLORER=False)
    folder = run_folder(["dist_reg"])
    scores = experiments.analyse(run_in(folder, faces, METRIC="pixels"), settings)
    printed = capsys.readouterr().out
    rows = np.flatnonzero(np.isin(identities, people_in_it))
    mu, sigma = encode(load_vae(folder, "dist_reg", CPU), faces, rows, CPU)
    assert scores["split"] == split and not (folder / "explorer.html").exists()
    kl = (mu ** 2 + sigma ** 2 - 1 - 2 * np.log(sigma)).sum(1).mean() / 2
    assert scores["dist_reg"]["kl"][0] == pytest.approx(kl)
    assert f"{len(rows)} faces of its {split} split" in printed and f"VAEs, faces of the {split} split" in printed


@pytest.mark.parametrize("count", [1, 2, 3])
def test_experiments_takes_one_two_or_three_held_out_faces(run_folder, images, labels, identities, count, capsys):
    keep = np.r_[0:49, 49:49 + count]                           # person 7 alone is tested
    split = np.array([0] * 6 + [1, 2])[identities[keep]]
    faces = checked(images[keep], labels[keep], identities[keep], split, "small", "small faces", seed=0)
    scores = experiments.analyse(run_in(run_folder(("classifier", *vae.MODELS)), faces), SETTINGS)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert "error" in scores["dist_reg"] and "spearman" not in scores["dist_reg"]


def test_published_figures_are_those_of_the_readme(tmp_path, monkeypatch, capsys):
    for name in ("last.png", "softmax.png", "dist_reg/edits.png"):
        (tmp_path / "figures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "figures" / name).write_bytes(b"figure")
    monkeypatch.setattr(experiments, "IMAGES", tmp_path / "images")
    experiments.publish(tmp_path / "figures")
    found = {str(path.relative_to(tmp_path / "images")) for path in tmp_path.glob("images/**/*.png")}
    assert found == {"last.png", "dist_reg/edits.png"}


def test_pairs_are_of_one_person_first_and_take_no_face_twice(small_faces):
    rows = np.arange(70)
    latents = Latents("dist_reg", rows, None, small_faces.labels, None, None, None, None, None)
    happy, sad = pairs_of(latents, small_faces.identities, HAPPY, SAD, 99)
    assert len(set(happy)) == len(set(sad)) == 10
    assert (small_faces.identities[happy] == small_faces.identities[sad]).all()
    assert (small_faces.labels[happy] == 3).all() and (small_faces.labels[sad] == 4).all()
    small_faces.identities[:] = -1
    assert pairs_of(latents, small_faces.identities, HAPPY, SAD, 4).shape == (2, 4)


def test_every_other_possible_expression_is_drawn_and_never_the_own_one():
    labels = np.resize([1, 4, 6], 300)
    drawn = other_classes(labels, np.array([1, 4, 6]), np.random.default_rng(0))
    assert set(zip(labels, drawn)) == {(a, b) for a in (1, 4, 6) for b in (1, 4, 6) if a != b}
    assert other_classes(labels, np.array([1]), None) is None
    assert other_classes(labels[:0], np.array([1, 4]), None) is None


def test_high_frequencies_of_reconstructions_are_those_of_the_faces_in_one_go_and_in_chunks(
        run_folder, small_faces, monkeypatch):
    model, rows = load_vae(run_folder(["dist_reg"]), "dist_reg", CPU), small_faces.rows("train")
    mu, sigma = encode(model, small_faces, rows, CPU)
    z = mu + sigma * np.random.default_rng(0).standard_normal(mu.shape)
    x, x_hat = small_faces.images[rows] / 255, decode(model, z, CPU).clip(0, 1)
    expected = fidelity.high_frequencies(x_hat, x)
    for chunk in (2048, 7):
        monkeypatch.setattr(experiments.vae_scores, "CHUNK", chunk)
        scores = score_reconstructions(model, small_faces, rows, CPU)
        assert scores["high_frequencies"] == pytest.approx(expected, rel=1e-4)


def test_people_to_edit_are_of_all_expressions(small_faces):
    latents = Latents("dist_reg", np.arange(70), None, small_faces.labels, None, None, None, None, None)
    chosen = gallery.people_to_edit(latents, range(7), 10, np.random.default_rng(0))
    assert len(chosen) == 10
    assert set(small_faces.labels[chosen]) == set(range(len(EXPRESSIONS)))


@pytest.mark.parametrize("classes, counts, expected", [
    (EXPRESSIONS, [5, 5, 5, 1, 2, 5, 5], (3, 4)), (("a", "b", "c"), [1, 3, 2], (1, 2)),
    (("happy", "x", "y"), [1, 2, 3], (2, 1)), (("a",), [3], None), ((), [], None)])
def test_the_example_goes_from_happy_to_sad_or_between_the_two_largest_classes(small_faces, classes, counts, expected):
    labels = np.resize(np.repeat(np.arange(len(counts)), counts), sum(counts)) if counts else np.full(70, -1)
    faces = replace(small_faces, labels=labels, classes=classes)
    assert pair_of(faces) == expected
    if classes == ("a", "b", "c"):
        assert pair_of(faces, "a", "b") == (0, 1)
        assert pair_of(faces, "c") == (2, 1) and pair_of(faces, end="b") == (2, 1)      # one alone: the other as usual
        assert pair_of(faces, "a", "a") is None


def test_many_classes_have_their_own_colours_and_marks_and_the_largest_are_shown(tmp_path):
    names = tuple(f"class {k}" for k in range(30))
    assert len({style(label, names) for label in range(20)}) == 20
    labels = np.repeat(np.arange(30), np.arange(1, 31))
    assert largest(labels) == list(range(10, 30))
    classifier_figures.layer_map(tmp_path / "map.png", "last", RNG.standard_normal((len(labels), 7)), labels, names)
    assert has_points(tmp_path / "map.png", style(29, names)[0], legend=150)
    classifier_figures.confusion(tmp_path / "confusion.png", labels, labels, names)
    assert read(tmp_path / "confusion.png").shape[0] > 1000


def test_a_figure_that_fails_costs_no_other_and_no_score(run_folder, images, labels, identities, monkeypatch, capsys):
    def fail(*arguments):
        raise ValueError("no letters for this")
    monkeypatch.setattr(vae_figures, "latent", fail)
    monkeypatch.setattr(classifier_figures, "confusion", fail)
    folder = run_folder(("classifier", *vae.MODELS))
    scores = experiments.analyse(run_in(folder, people(images, labels, identities, np.arange(7))), SETTINGS)
    printed = capsys.readouterr().err
    assert "warning: no latent.png: ValueError: no letters" in printed and "no confusion.png" in printed
    assert "spearman" in scores["dist_reg"] and (folder / "figures" / "dist_reg" / "edits.png").exists()
    assert (folder / "figures" / "ordered.png").exists()


def test_dollars_in_names_are_no_formulas_and_those_of_log_axes_are(tmp_path):
    names = ("$_$", "a$b", "$\\x$", r"\\", "$$", "${", "}$")
    classifier_figures.layer_map(tmp_path / "map.png", "last", RNG.normal(size=(70, 4)), LABELS, names)
    classifier_figures.confusion(tmp_path / "confusion.png", LABELS, LABELS, names)
    face_grid(tmp_path / "grid.png", FACES[:7][None], rows=["$_$"], columns=names, title="$^$")
    figure = Figure()
    axes = figure.subplots()
    axes.set(xscale="log", xlim=(1, 1000), title="$_$")
    save(figure, tmp_path / "log.png")
    figure.draw_without_rendering()
    assert axes.get_xticklabels()[1].get_parse_math() and "mathdefault" in axes.get_xticklabels()[1].get_text()
    save(figure, tmp_path / "log.png")
    assert axes.get_xticklabels()[1].get_parse_math() and not axes.title.get_parse_math()
