"""Scores and figures of a finished run, on held-out faces.

In: experiments/N/ as run.py, or one of the packages alone, left it. Out: its scores.json and figures/.
python experiments.py, or for another run: python experiments.py RUN=3
"""
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch

import expr_classifier.figures as classifier_figures
import expr_classifier.run as classifier
import metric_vae.figures as vae_figures
import metric_vae.run as vae
import run
import training
from data import synthetic
from data.faces import EXPRESSIONS, Images, load
from expr_classifier.model import ARCHITECTURES
from metric_vae import evaluate
from metric_vae.metrics import Function, load_metric

RUN: int | str = "last"     # the number of a finished run, or "last", the newest
PUBLISH = False             # also copy the README's figures to images/
SAMPLE = 600                # held-out faces at most for t-SNE, pair scores and edits; a random sample in which the
                            # expressions keep their proportions
SEED = 0                    # of that sample, of noise, prior samples, t-SNE and the faces that are shown
DEVICE = "auto"             # "auto", "cpu", "cuda", ...

# --- edits and interpolations
EDIT_PART = "both"          # what they move: the first vae.METRIC_DIMS of z ("metric"), the others ("rest"), or "both"
STEPS = 10                  # of an interpolation, its ends included
SHOWN = 10                  # people or pairs in a figure
PATHS = 50                  # interpolations that are scored

# --- the judge: a classifier that neither the VAE nor its metric has seen, kept in the run folder as judge.pt
JUDGE_ARCHITECTURE = "judge"    # one of expr_classifier/model.py; "none": no scores of edits
JUDGE_EPOCHS = 6
JUDGE_SEED = 1000               # added to the run's seed

IMAGES = Path(__file__).parent / "images"
HAPPY, SAD, NEUTRAL = (EXPRESSIONS.index(name) for name in ("happy", "sad", "neutral"))
PUBLISHED = ("last.png", "shepard.png", "losses.png")      # and all figures of the two VAEs
CHUNK = 2048                # faces decoded and scored in one go


@dataclass
class Latents:
    """What is known of the test faces in one VAE: rows of the data, their pixels x in 0..1 and labels, mu, the
    mean latents of the training expressions (7, Z), a function from z to faces in 0..1, and which dimensions keep
    the metric and which ones edits move.
    """
    name: str
    rows: np.ndarray
    x: np.ndarray
    labels: np.ndarray
    mu: np.ndarray
    means: np.ndarray
    decode: Callable
    metric_dims: slice
    edit_dims: slice

    def distances(self):
        """Latent distances (n, n)."""
        return evaluate.euclidean(self.mu[:, self.metric_dims])

    def edit(self, rows, target):
        """The faces of these places with another expression: int, or one a face."""
        return self.decode(evaluate.edit(self.mu[rows], self.labels[rows], target, self.means, self.edit_dims))


def main():
    module = sys.modules[__name__]
    training.override(sys.argv[1:], {"": module})
    training.check_choice("EDIT_PART", EDIT_PART, ("both", "metric", "rest"))
    training.check_positive(SAMPLE=SAMPLE, STEPS=STEPS, SHOWN=SHOWN, PATHS=PATHS, JUDGE_EPOCHS=JUDGE_EPOCHS)
    start = time.perf_counter()
    folder = training.find_run(RUN, finished=True, constants_of="vae")
    device = training.choose_device(DEVICE)
    faces, seed = load_faces(folder)
    scores = analyse(folder, faces, seed, device)
    training.write_json(folder / "scores.json", scores)
    print_tables(scores)
    if PUBLISH:
        publish(folder / "figures")
    print(f"wrote scores.json and figures/ to {folder} in {time.perf_counter() - start:.0f} s")


def load_faces(folder):
    """Restore a run's constants and load its faces: (faces, the run's seed).

    Raises UserError where the data is not what the run saw.
    """
    settings = training.read_json(folder / "settings.json")
    scripts = {"": run, "classifier": classifier, "vae": vae}
    present = {prefix: script for prefix, script in scripts.items() if (prefix or "run") in settings}
    training.restore_constants(folder, present)
    script = next(iter(present.values()))                       # the one that was started
    faces = load(script.DATA, script.IMAGE_SIZE, script.FOLD, script.SEED)
    training.check_same_data(folder, faces.about())
    return faces, script.SEED


def analyse(folder, faces, seed, device):
    """Draw all figures of a run folder and return what scores.json holds."""
    clock = Clock()
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for path in figures.glob("**/*.png"):                       # none that this run's faces no longer allow
        path.unlink()
    test, rows = faces.rows("test"), sample_rows(faces)
    print(f"{folder}: {faces.name}, {len(test)} held-out faces" + (
        f"; of these a sample of {len(rows)} for t-SNE, pair scores and edits" if len(rows) < len(test) else ""))
    scores = {}
    C = None
    if (folder / "classifier.pt").exists():
        C = classifier.load_classifier(folder / "classifier.pt", device)
        scores["classifier"] = analyse_classifier(C, faces, test, rows, figures, device)
        clock("classifier")
    else:
        print("no classifier.pt in this run: without its figures")
    models = {name: vae.load_vae(folder, name, device) for name in vae.MODELS if (folder / f"{name}.pt").exists()}
    judge = None
    if models and (faces.labels[rows] >= 0).any():
        judge = train_judge(faces, folder, seed + JUDGE_SEED, device)
        clock("judge")
    if models:
        scores.update(analyse_vaes(models, C, judge, faces, test, rows, figures, device, clock))
    stages = {stage: training.read_log(folder, stage) for stage in ("classifier", *vae.MODELS)}
    if any(stages.values()):
        vae_figures.losses(figures / "losses.png", stages)
    print("seconds: " + ", ".join(f"{part} {seconds:.0f}" for part, seconds in clock.parts.items()))
    return scores


def sample_rows(faces):
    """The rows of the held-out faces for t-SNE, pair scores and edits: SAMPLE of them at most."""
    test = faces.rows("test")
    return test[evaluate.stratified_rows(faces.labels[test], SAMPLE, SEED)]


class Clock:
    """Seconds of each part: clock("name") ends a part."""

    def __init__(self):
        self.parts, self.last = {}, time.perf_counter()

    def __call__(self, part):
        now = time.perf_counter()
        self.parts[part], self.last = self.parts.get(part, 0) + now - self.last, now


# --- the classifier

def analyse_classifier(model, faces, test, rows, figures, device):
    """Draw the classifier's figures; returns its scores."""
    for name in ("last", "second_last", "softmax"):
        points = classifier.layer(model, faces, rows, device, name)
        classifier_figures.layer_map(figures / f"{name}.png", name, points, faces.labels[rows], SEED)
    labelled = test[faces.labels[test] >= 0]
    if len(labelled) == 0:
        print("no labelled held-out faces: no accuracy, no confusion.png, ordered.png and intensities.png")
        return {}
    labels, softmax = faces.labels[labelled], classifier.layer(model, faces, labelled, device, "softmax")
    classifier_figures.ordered(figures / "ordered.png", faces.images[labelled], softmax, labels)
    classifier_figures.intensities(figures / "intensities.png", softmax, labels)
    classifier_figures.confusion(figures / "confusion.png", labels, softmax.argmax(1))
    return {"accuracy": evaluate.accuracy(softmax, labels)}


def train_judge(faces, folder, seed, device):
    """The judge: a classifier of JUDGE_ARCHITECTURE, trained on the same faces or read from folder/judge.pt.

    None where there is no such architecture, or too few faces to train it.
    """
    if JUDGE_ARCHITECTURE not in ARCHITECTURES:
        print(f"JUDGE_ARCHITECTURE={JUDGE_ARCHITECTURE}: no judge, no scores of edits")
        return None
    path = folder / "judge.pt"
    state = training.load_checkpoint(path) if path.exists() else {}
    if (state.get("architecture"), state.get("epoch")) != (JUDGE_ARCHITECTURE, JUDGE_EPOCHS):
        settings = training.constants(classifier)
        classifier.ARCHITECTURE, classifier.EPOCHS = JUDGE_ARCHITECTURE, JUDGE_EPOCHS
        try:
            with tempfile.TemporaryDirectory() as scratch:
                classifier.train(faces, Path(scratch), seed, device, "fp32")
                training.write_atomically(path, lambda file: file.write((Path(scratch) / "classifier.pt").read_bytes()))
        except training.UserError as error:
            print(f"no judge, no scores of edits: {error}")
            return None
        finally:
            classifier.ARCHITECTURE, classifier.EPOCHS = settings["ARCHITECTURE"], settings["EPOCHS"]
    return classifier.load_classifier(path, device)


# --- the VAEs

def analyse_vaes(models, C, judge, faces, test, rows, figures, device, clock):
    """Draw the VAEs' figures; returns their scores and those of the controls."""
    if vae.METRIC == "embeddings" and C is not None:
        metric = Function(classifier.metric_layers(C), vae.METRIC_NORM)
    else:
        name = figures.parent / "embeddings.npy" if vae.METRIC == "embeddings" else vae.METRIC
        metric = load_metric(name, faces, device, vae.METRIC_NORM)
    if vae.METRIC == "labels":                                  # it says nothing of unlabelled faces
        rows = rows[faces.labels[rows] >= 0]
    labels = faces.labels[rows]
    d = given_distances(metric, faces, rows, device)
    others = np.random.default_rng(SEED).permutation(len(rows))
    controls = {"pixels": evaluate.euclidean(faces.images[rows] / 255), "shuffled": d[others][:, others]}
    scores = {"controls": {name: {} for name in controls}}
    panels = {}
    for name, model in models.items():
        latents = encode(name, model, faces, rows, device)
        scores[name] = score_reconstructions(name, model, faces, test, device)
        e = latents.distances()
        scores[name].update(evaluate.distance_scores(e, d, labels))
        if (labels >= 0).sum() > 1:
            scores[name]["knn_accuracy"] = evaluate.knn_accuracy(e, labels)
        if len(rows) > 2:
            i, j = np.triu_indices(len(rows), 1)
            panels[name] = (e[i, j], d[i, j])
        clock(f"{name} scores")
        for control, given in controls.items():
            scores["controls"][control][name] = evaluate.distance_scores(e, given, labels)
        clock("controls")
        if judge is not None:
            scores[name].update(score_edits(latents, judge, metric, faces, device))
            clock(f"{name} edits")
        (figures / name).mkdir(exist_ok=True)
        draw_vae(latents, faces, figures / name)
        clock(f"{name} figures")
    if panels:
        vae_figures.shepard(figures / "shepard.png", panels, metric_name())
    if judge is not None:
        features = apply(lambda x: judge.layers(x)["last"], faces.images[rows] / 255, device)
        scores["controls"]["other_classifier"] = {
            "given": evaluate.distance_scores(evaluate.euclidean(features), d, labels)}
        clock("controls")
    return scores


def given_distances(metric, faces, rows, device):
    """d_D (n, n), float64, of these rows."""
    places = torch.from_numpy(rows).to(device)
    return metric.distances(places, Images(faces, device)(places)).cpu().numpy().astype(float)


def metric_name():
    """What the given distance is, for an axis."""
    return "d_D = ||C(x1) - C(x2)||" if vae.METRIC == "embeddings" else f"METRIC={Path(str(vae.METRIC)).name}"


def encode(name, model, faces, rows, device):
    """The Latents of these test faces in a VAE."""
    regularized = name == "dist_reg" and vae.METRIC_DIMS is not None        # else all of z is compared and moved
    k = vae.METRIC_DIMS if regularized else None
    parts = {"both": slice(None), "metric": slice(k), "rest": slice(k, None) if regularized else slice(None)}
    mu, _ = vae.encode(model, faces, rows, device)
    train = faces.rows("train", labelled=True)
    means = np.full((len(EXPRESSIONS), mu.shape[1]), np.nan)
    if len(train):
        means = evaluate.expression_means(vae.encode(model, faces, train, device)[0], faces.labels[train])
    return Latents(name, rows, faces.images[rows] / np.float32(255), faces.labels[rows], mu, means,
                   lambda z: vae.decode(model, z, device).clip(0, 1), slice(k), parts[EDIT_PART])


def score_reconstructions(name, model, faces, test, device):
    """error, psnr, ssim (of faces decoded from sampled z), kl and active_units on all test faces.

    The error is the decoder's own, as in the loss; psnr and ssim see faces cut to 0..1, as pictures show them.
    """
    rng = np.random.default_rng(SEED)
    mu, sigma = vae.encode(model, faces, test, device)
    errors, psnrs, ssims = [], [], []
    for start in range(0, len(test), CHUNK):
        part = slice(start, start + CHUNK)
        x = faces.images[test[part]] / np.float32(255)
        x_hat = vae.decode(model, mu[part] + sigma[part] * rng.standard_normal(mu[part].shape), device)
        errors.append(evaluate.squared_errors(x_hat, x))
        psnrs.append(evaluate.psnr(x_hat.clip(0, 1), x))
        ssims.append(evaluate.ssim(x_hat.clip(0, 1), x))
    return {"error": evaluate.mean_score(np.concatenate(errors)), "psnr": evaluate.mean_score(np.concatenate(psnrs)),
            "ssim": evaluate.mean_score(np.concatenate(ssims)), "kl": evaluate.mean_score(evaluate.kl(mu, sigma)),
            "active_units": evaluate.active_units(mu)}


def score_edits(latents, judge, metric, faces, device):
    """What the judge says of reconstructions, edits, interpolations and samples, and what the truth is where known."""
    probabilities = lambda x: apply(lambda x: judge.layers(x)["softmax"], x, device)
    features = lambda x: apply(lambda x: judge.layers(x)["second_last"], x, device)
    rng = np.random.default_rng(SEED)
    known = np.flatnonzero((latents.labels >= 0) & np.isfinite(latents.means[latents.labels, 0]))
    labels, mu, means, dims = latents.labels[known], latents.mu[known], latents.means, latents.edit_dims
    x, x_hat = latents.x[known], latents.decode(mu)
    hits = evaluate.edit_hits(latents.decode, probabilities, mu, labels, means, dims)
    happy = hits[labels == HAPPY, SAD]
    samples = latents.decode(rng.standard_normal(latents.mu.shape))
    scores = {"judge_on_faces": evaluate.accuracy(probabilities(x), labels),
              "judge_on_reconstructions": evaluate.accuracy(probabilities(x_hat), labels),
              "edit_success": evaluate.edit_success(hits, labels),
              "frechet": evaluate.frechet(features(samples), features(latents.x))}
    if len(happy):
        scores["edit_success_happy_to_sad"] = evaluate.mean_score(happy)
    if faces.factors is not None:
        target = (labels + rng.integers(1, len(EXPRESSIONS), len(labels))) % len(EXPRESSIONS)
        truth = synthetic.with_expression(faces, latents.rows[known], target) / 255
        scores["edit_error_to_truth"] = evaluate.edit_error_to_truth(latents.edit(known, target), truth, x_hat, x)
    starts, ends = pairs_of(latents, faces, HAPPY, SAD, PATHS)
    if len(starts):
        path = evaluate.interpolate(latents.mu[starts], latents.mu[ends], STEPS)
        decoded = latents.decode(path.reshape(-1, path.shape[2]))
        scores["interpolation_monotonicity"] = evaluate.monotonicity(
            probabilities(decoded)[:, SAD].reshape(path.shape[:2]))
        if isinstance(metric, Function) and vae.METRIC_NORM != "cosine":
            points = apply(lambda x: metric.layers(x)[-1].flatten(1), decoded, device)
            scores["interpolation_path_ratio"] = evaluate.path_ratio(
                points.reshape(*path.shape[:2], -1), vae.METRIC_NORM)
    return evaluate.finite(scores)


def pairs_of(latents, faces, a, b, count):
    """Places of up to count faces of expression a and as many of b, drawn at random, no face twice.

    Pairs of one person come first, where identities are known.
    """
    rng = np.random.default_rng(SEED)
    starts, ends = (rng.permutation(np.flatnonzero(latents.labels == label)) for label in (a, b))
    people = faces.identities[latents.rows]
    pairs, free = [], list(ends)
    for start in starts:
        same = [end for end in free if people[end] == people[start] >= 0]
        if same:
            pairs.append((start, same[0]))
            free.remove(same[0])
    lonely = [start for start in starts if start not in {s for s, _ in pairs}]
    pairs = (pairs + list(zip(lonely, free)))[:count]
    return np.array(pairs, int).reshape(-1, 2).T


def draw_vae(latents, faces, figures):
    """Draw the figures of one VAE."""
    name, rng = latents.name, np.random.default_rng(SEED)
    vae_figures.latent(figures / "latent.png", name, latents.mu, latents.labels, latents.metric_dims.stop, SEED)
    some = rng.permutation(len(latents.rows))[:32]
    samples = latents.decode(rng.standard_normal((len(some), latents.mu.shape[1])))
    vae_figures.reconstructions(figures / "reconstructions.png", name, latents.x[some],
                                latents.decode(latents.mu[some]), samples)
    starts, ends = pairs_of(latents, faces, HAPPY, SAD, SHOWN)
    if len(starts):
        path = evaluate.interpolate(latents.mu[starts], latents.mu[ends], STEPS)
        decoded = latents.decode(path.reshape(-1, path.shape[2])).reshape(*path.shape[:2], *latents.x.shape[1:])
        people = faces.identities[latents.rows]
        same = (people[starts] == people[ends]) & (people[starts] >= 0) if (people >= 0).any() else None
        vae_figures.interpolations(figures / "interpolate.png", name, latents.x[starts], decoded, latents.x[ends],
                                   ("happy", "sad"), same)
    blocks = []
    for a, b in ((HAPPY, SAD), (NEUTRAL, HAPPY)):
        of_a = rng.permutation(np.flatnonzero(latents.labels == a))[:SHOWN]
        if len(of_a) and np.isfinite(latents.means[[a, b]]).all():
            blocks.append((EXPRESSIONS[a], EXPRESSIONS[b],
                           np.stack([latents.x[of_a], latents.decode(latents.mu[of_a]), latents.edit(of_a, b)])))
    if blocks:
        vae_figures.changes(figures / "change.png", name, blocks)
    people = people_to_edit(latents, rng)
    if len(people) and np.isfinite(latents.means).all():
        edited = np.stack([latents.edit(people, b) for b in range(len(EXPRESSIONS))], 1)
        vae_figures.edits(figures / "edits.png", name, latents.x[people], latents.decode(latents.mu[people]), edited,
                          latents.labels[people])
    missing = [file for file in ("interpolate", "change", "edits") if not (figures / f"{file}.png").exists()]
    if missing:
        print(f"{name}: too few labelled faces for " + ", ".join(missing))


def people_to_edit(latents, rng):
    """Places of up to SHOWN faces, of each expression in turn, drawn at random."""
    known = rng.permutation(np.flatnonzero(latents.labels >= 0))
    turn = np.zeros(len(known), int)
    for label in range(len(EXPRESSIONS)):
        of_label = latents.labels[known] == label
        turn[of_label] = np.arange(of_label.sum())
    chosen = known[np.argsort(turn, kind="stable")][:SHOWN]
    return chosen[np.argsort(latents.labels[chosen], kind="stable")]


@torch.no_grad()
def apply(function, faces, device, batch_size=256):
    """A function of x (B, 1, H, W) to (B, k), for float faces (n, H, W): float32 (n, k)."""
    x = torch.from_numpy(np.asarray(faces, np.float32))[:, None]
    return torch.cat([function(part.to(device)).float().cpu() for part in x.split(batch_size)]).numpy()


# --- what is printed and published

def print_tables(scores):
    """Print the scores of both models side by side, then those of the controls."""
    models = [name for name in vae.MODELS if name in scores]
    if "classifier" in scores and scores["classifier"]:
        print_table("classifier", {"classifier": scores["classifier"]})
    print_table("VAEs, held-out faces", {name: scores[name] for name in models})
    print_table("controls: the same latents against other distances", {
        f"{control}: {name}": of_models[name] for control, of_models in scores.get("controls", {}).items()
        for name in of_models})


def print_table(title, columns):
    """Print scores, a row a score and a column a dict of them, each with its 95 % interval."""
    if not columns:
        return

    def number(value):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"

    def text(value):
        if isinstance(value, list):
            return "{} [{}, {}]".format(*map(number, value))
        return "" if value is None else number(value)
    width = max(26, *(len(name) + 2 for name in columns))
    print(f"\n{title}\n{'':30}" + "".join(f"{name:>{width}}" for name in columns))
    for score in dict.fromkeys(score for column in columns.values() for score in column):
        print(f"{score:30}" + "".join(f"{text(column.get(score)):>{width}}" for column in columns.values()))


def publish(figures):
    """Copy the README's figures to images/."""
    for path in [*(figures / name for name in PUBLISHED), *figures.glob("*/*.png")]:
        place = IMAGES / path.relative_to(figures)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            training.write_atomically(place, lambda file: file.write(path.read_bytes()))
    print(f"copied the figures to {IMAGES}")


if __name__ == "__main__":
    training.run_script(main)
