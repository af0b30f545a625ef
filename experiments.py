"""Scores and figures of a finished run, on held-out faces.

In: experiments/N/ as run.py, or one of the packages alone, left it. Out: its scores.json and figures/.
python experiments.py, or for another run: python experiments.py RUN=3
"""
import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import expr_classifier.figures as classifier_figures
import expr_classifier.judges as judges
import expr_classifier.run as classifier
import metric_vae.figures as vae_figures
import metric_vae.run as vae
import run
import training
from data.faces import EXPRESSIONS, load
from metric_vae import evaluate, scores as vae_scores
from metric_vae.metrics import load_metric
from metric_vae.scores import HAPPY, NEUTRAL, SAD
from training import storage

RUN: int | str = "last"     # the number of a finished run, or "last", the newest
SPLIT = "test"              # the held-out faces that are scored and drawn: "test", or "val" to choose settings by
PUBLISH = False             # also copy the README's figures to images/
SAMPLE = 600                # held-out faces at most for t-SNE, pair scores and edits; a random sample in which the
                            # expressions keep their proportions
SEED = 0                    # of that sample, of noise, prior samples, t-SNE and the faces that are shown
DEVICE = "auto"             # "auto", "cpu", "cuda", ...

# --- samples
SAMPLES_FROM = "density"    # in figures: of Gaussians fitted to the training faces' latents, or "prior": of N(0, I)

# --- edits and interpolations
EDIT_PART = "metric"        # what they move: the first vae.METRIC_DIMS of z ("metric"), the others ("rest"), or "both"
STEPS = 10                  # of an interpolation, its ends included
SHOWN = 10                  # people or pairs in a figure
PATHS = 50                  # interpolations that are scored

IMAGES = Path(__file__).parent / "images"
PUBLISHED = ("last.png", "shepard.png", "losses.png")      # and all figures of the two VAEs


def main():
    module = sys.modules[__name__]
    training.override(sys.argv[1:], {"": module, "judges": judges})
    training.check_choice("SPLIT", SPLIT, ("val", "test"))
    training.check_choice("SAMPLES_FROM", SAMPLES_FROM, ("density", "prior"))
    training.check_choice("EDIT_PART", EDIT_PART, ("both", "metric", "rest"))
    training.check_at_least(1, SAMPLE=SAMPLE, SHOWN=SHOWN, PATHS=PATHS)
    training.check_at_least(2, STEPS=STEPS)
    judges.check_settings()
    start = time.perf_counter()
    folder = storage.find_run(RUN, finished=True)
    device = training.choose_device(DEVICE)
    faces, seed = load_faces(folder)
    scores = analyse(folder, faces, seed, device)
    storage.write_json(folder / "scores.json", scores)
    print_tables(scores)
    if PUBLISH:
        publish(folder / "figures")
    print(f"wrote scores.json and figures/ to {folder} in {time.perf_counter() - start:.0f} s")


def load_faces(folder):
    """Restore a run's constants and load its faces: (faces, the run's seed).

    Raises UserError where the data is not what the run saw.
    """
    settings = storage.read_json(folder / "settings.json")
    scripts = {"": run, "classifier": classifier, "vae": vae}
    present = {prefix: script for prefix, script in scripts.items() if (prefix or "run") in settings}
    storage.restore_constants(folder, present)
    script = next(iter(present.values()))                       # the one that was started
    faces = load(script.DATA, script.IMAGE_SIZE, script.FOLD, script.SEED)
    storage.check_same_data(folder, faces.about())
    return faces, script.SEED


def analyse(folder, faces, seed, device):
    """Draw all figures of a run folder and return what scores.json holds."""
    clock = Clock()
    figures = folder / "figures"
    shutil.rmtree(figures, ignore_errors=True)                  # none may stay that this run's faces no longer allow
    storage.make_folder(figures)
    held_out, rows = faces.rows(SPLIT), sample_rows(faces, SPLIT)
    print(f"{folder}: {faces.name}, {len(held_out)} faces of its {SPLIT} split" + (
        f"; of these a sample of {len(rows)} for t-SNE, pair scores and edits" if len(rows) < len(held_out) else ""))
    C = None
    if (folder / "classifier.pt").exists():
        C = classifier.load_classifier(folder / "classifier.pt", device)
    else:
        print("no classifier.pt in this run: without its figures")
    models = {name: vae.load_vae(folder, name, device) for name in vae.MODELS if (folder / f"{name}.pt").exists()}
    with_ceiling = models and C is not None and vae.METRIC == "embeddings"
    precision = training.choose_precision(run.PRECISION, device)
    with judges.train_second_beside(faces, folder, seed, device, precision) if with_ceiling else nullcontext():
        scores = {"split": SPLIT} | analyse_networks(models, C, faces, held_out, rows, folder, seed, device, clock)
    if with_ceiling:
        scores["ceiling"] = measure_ceiling(C, faces, rows, folder, seed, device, precision)
        clock("ceiling")
    stages = {stage: storage.read_log(folder, stage) for stage in ("classifier", *vae.MODELS)}
    if any(stages.values()):
        vae_figures.losses(figures / "losses.png", stages)
    print("seconds: " + ", ".join(f"{part} {seconds:.0f}" for part, seconds in clock.parts.items()))
    return scores


def analyse_networks(models, C, faces, held_out, rows, folder, seed, device, clock):
    """Draw the figures of the classifier C and of the VAEs, where there are any; returns their scores."""
    figures, scores = folder / "figures", {}
    if C is not None:
        scores["classifier"] = analyse_classifier(C, faces, held_out, rows, figures, device)
        clock("classifier")
    if models:
        judge = identifier = None
        if (faces.labels[rows] >= 0).any():
            judge = judges.train_judge(faces, folder, seed, device)
            clock("judge")
        if judge is not None:
            identifier = judges.train_identifier(faces, folder, seed, device)
            clock("identity network")
        scores.update(analyse_vaes(models, C, judge, identifier, faces, held_out, rows, folder, seed, device, clock))
    return scores


def sample_rows(faces, split):
    """The rows of the faces of a split, "val" or "test", for t-SNE, pair scores and edits: SAMPLE of them at most."""
    held_out = faces.rows(split)
    return held_out[evaluate.stratified_rows(faces.labels[held_out], SAMPLE, SEED)]


class Clock:
    """Seconds of each part: clock("name") ends a part."""

    def __init__(self):
        self.parts, self.last = {}, time.perf_counter()

    def __call__(self, part):
        now = time.perf_counter()
        self.parts[part], self.last = self.parts.get(part, 0) + now - self.last, now


# --- the classifier

def analyse_classifier(model, faces, held_out, rows, figures, device):
    """Draw the classifier's figures; returns its scores."""
    for name in ("last", "second_last", "softmax"):
        points = classifier.layer(model, faces, rows, device, name)
        classifier_figures.layer_map(figures / f"{name}.png", name, points, faces.labels[rows], SEED)
    labelled = held_out[faces.labels[held_out] >= 0]
    if len(labelled) == 0:
        print("no labelled held-out faces: no accuracy, no confusion.png, ordered.png and intensities.png")
        return {}
    labels, softmax = faces.labels[labelled], classifier.layer(model, faces, labelled, device, "softmax")
    classifier_figures.ordered(figures / "ordered.png", faces.images[labelled], softmax, labels)
    classifier_figures.intensities(figures / "intensities.png", softmax, labels)
    classifier_figures.confusion(figures / "confusion.png", labels, softmax.argmax(1))
    return {"accuracy": evaluate.accuracy(softmax, labels)}


def measure_ceiling(C, faces, rows, folder, seed, device, precision):
    """How well the distances of a second classifier, like C but of another seed, keep those of C.

    Beyond these scores a VAE follows what is peculiar to C.
    """
    second = judges.train_second(faces, folder, seed, device, precision)
    if second is None:
        return {}
    e, d = (vae_scores.given_distances(run.metric_of(model), faces, rows, device) for model in (second, C))
    return evaluate.distance_scores(e, d, faces.labels[rows])


# --- the VAEs

def analyse_vaes(models, C, judge, identifier, faces, held_out, rows, folder, seed, device, clock):
    """Draw the VAEs' figures; returns their scores and those of the controls."""
    figures = folder / "figures"
    if vae.METRIC == "embeddings" and C is not None:
        metric = run.metric_of(C)
    else:
        name = folder / "embeddings.npy" if vae.METRIC == "embeddings" else vae.METRIC
        metric = load_metric(name, faces, device, vae.METRIC_NORM)
    if vae.METRIC == "labels":                                  # it says nothing of unlabelled faces
        rows = rows[faces.labels[rows] >= 0]
        if not len(rows):
            print("METRIC=labels, and no labelled held-out faces: no scores and figures of the VAEs")
            return {}
    labels = faces.labels[rows]
    d = vae_scores.given_distances(metric, faces, rows, device)
    others = np.random.default_rng(SEED).permutation(len(rows))
    controls = {"pixels": evaluate.euclidean(faces.images[rows] / 255), "shuffled": d[others][:, others]}
    scores = {"controls": {name: {} for name in controls}}
    panels = {}
    for name, model in models.items():
        density = vae.latent_density(model, name, faces, folder, seed, device)
        latents = vae_scores.encode(name, model, faces, rows, device, EDIT_PART, density)
        scores[name] = vae_scores.score_reconstructions(model, faces, held_out, device, SEED)
        e = latents.distances()
        scores[name].update(evaluate.distance_scores(e, d, labels))
        scores[name].update(evaluate.finite({"knn_accuracy": evaluate.knn_accuracy(e, labels)}))
        if len(rows) > 2:
            i, j = np.triu_indices(len(rows), 1)
            panels[name] = (e[i, j], d[i, j])
        clock(f"{name} scores")
        for control, given in controls.items():
            scores["controls"][control][name] = evaluate.distance_scores(e, given, labels)
        clock("controls")
        if judge is not None:
            scores[name].update(vae_scores.score_edits(latents, judge, identifier, metric, faces, device, STEPS, PATHS,
                                                       SEED))
            clock(f"{name} edits")
        storage.make_folder(figures / name)
        draw_vae(latents, faces, figures / name)
        clock(f"{name} figures")
    if panels:
        vae_figures.shepard(figures / "shepard.png", panels, metric_name())
    return scores


def metric_name():
    """What the given distance is, for an axis."""
    return "d_D = ||C(x1) - C(x2)||" if vae.METRIC == "embeddings" else f"METRIC={Path(str(vae.METRIC)).name}"


def draw_vae(latents, faces, figures):
    """Draw the figures of one VAE."""
    name, people, rng = latents.name, faces.identities[latents.rows], np.random.default_rng(SEED)
    vae_figures.latent(figures / "latent.png", name, latents.mu, latents.labels, latents.metric_dims.stop, SEED)
    some = rng.permutation(len(latents.rows))[:32]
    vae_figures.reconstructions(figures / "reconstructions.png", name, latents.x[some],
                                latents.decode(latents.mu[some]), latents.samples(len(some), SAMPLES_FROM, seed=SEED),
                                SAMPLES_FROM)
    draw_samples(figures / "samples.png", latents)
    starts, ends = vae_scores.pairs_of(latents, people, HAPPY, SAD, SHOWN, SEED)
    if len(starts):
        path = evaluate.interpolate(latents.mu[starts], latents.mu[ends], STEPS)
        decoded = latents.decode(path.reshape(-1, path.shape[2])).reshape(*path.shape[:2], *latents.x.shape[1:])
        same = (people[starts] == people[ends]) & (people[starts] >= 0) if (people >= 0).any() else None
        vae_figures.interpolations(figures / "interpolate.png", name, latents.x[starts], decoded, latents.x[ends],
                                   ("happy", "sad"), same)
    count, edited = latents.mu.shape[1], range(latents.mu.shape[1])[latents.edit_dims]
    moved = f"only {len(edited)} of the {count} dimensions of z move" * (len(edited) < count)
    blocks = []
    for a, b in ((HAPPY, SAD), (NEUTRAL, HAPPY)):
        of_a = rng.permutation(np.flatnonzero(latents.labels == a))[:SHOWN]
        if len(of_a) and np.isfinite(latents.means[[a, b]]).all():
            blocks.append((EXPRESSIONS[a], EXPRESSIONS[b],
                           np.stack([latents.x[of_a], latents.decode(latents.mu[of_a]), latents.edit(of_a, b)])))
    if blocks:
        vae_figures.changes(figures / "change.png", name, blocks, moved)
    some = people_to_edit(latents, rng)
    if len(some) and np.isfinite(latents.means).all():
        edited = np.stack([latents.edit(some, b) for b in range(len(EXPRESSIONS))], 1)
        vae_figures.edits(figures / "edits.png", name, latents.x[some], latents.decode(latents.mu[some]), edited,
                          latents.labels[some], moved)
    missing = [file for file in ("interpolate", "change", "edits") if not (figures / f"{file}.png").exists()]
    if missing:
        print(f"{name}: too few labelled faces for " + ", ".join(missing))


def draw_samples(path, latents):
    """Draw samples: of the density a row an expression, of the prior, or where no face is labelled, without them."""
    shown = latents.density.labelled() if SAMPLES_FROM == "density" else []
    if len(shown):
        rows = [latents.samples(SHOWN, SAMPLES_FROM, of, SEED) for of in shown]
        names = [EXPRESSIONS[of] for of in shown]
    else:
        samples = latents.samples(len(EXPRESSIONS) * SHOWN, SAMPLES_FROM, seed=SEED)
        rows, names = samples.reshape(len(EXPRESSIONS), SHOWN, *samples.shape[1:]), None
    vae_figures.samples(path, latents.name, np.stack(rows), names, SAMPLES_FROM)


def people_to_edit(latents, rng):
    """Places of up to SHOWN faces, of each expression in turn, drawn at random."""
    known = rng.permutation(np.flatnonzero(latents.labels >= 0))
    turn = np.zeros(len(known), int)
    for label in range(len(EXPRESSIONS)):
        of_label = latents.labels[known] == label
        turn[of_label] = np.arange(of_label.sum())
    chosen = known[np.argsort(turn, kind="stable")][:SHOWN]
    return chosen[np.argsort(latents.labels[chosen], kind="stable")]


# --- what is printed and published

def print_tables(scores):
    """Print the scores of both models side by side, then those of the controls."""
    models = [name for name in vae.MODELS if name in scores]
    faces = f"faces of the {scores['split']} split"
    if "classifier" in scores and scores["classifier"]:
        print_table(f"classifier, {faces}", {"classifier": scores["classifier"]})
    print_table(f"VAEs, {faces}", {name: scores[name] for name in models})
    if scores.get("ceiling"):
        print_table("ceiling: distances of a second classifier", {"second classifier": scores["ceiling"]})
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
        storage.make_folder(place.parent)
        if path.exists():
            storage.write_atomically(place, lambda file: file.write(path.read_bytes()))
    print(f"copied the figures to {IMAGES}")


if __name__ == "__main__":
    training.run_script(main)
