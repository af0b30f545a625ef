"""Sums up runs that differ in their seed: the mean and the range of each score, in Markdown.

In: finished runs that experiments.py has scored. Out: benchmarks/results/seeds_<data>/ with table.md and results.json.
for seed in 0 1 2: python run.py SEED=$seed; python experiments.py; then: python -m benchmarks.seeds RUNS=0,1,2
"""
import re
import sys
from pathlib import Path

from training import storage
from training.errors import UserError, run_script
from training.settings import parse_one

RUNS = "0,1,2"              # numbers of runs in experiments/, with commas between

RESULTS = Path(__file__).parent / "results"
MODELS = {"no_dist_reg": "without", "dist_reg": "with the regulariser", "ceiling": "a second classifier"}
SCORES = {                  # the rows: what they are, decimals
    "error": ("squared error, summed over pixels", 2),
    "high_frequencies": ("energy at high spatial frequencies, faces = 1", 2),
    "high_frequencies_of_edits": ("the same, of edits", 2), "kl": ("KL divergence", 0),
    "spearman": ("Spearman, latent to given distance", 3), "spearman_within": ("the same, within a class", 3),
    "stress": ("Kruskal stress", 3), "knn_accuracy": ("nearest-neighbour accuracy", 3),
    "judge_on_faces": ("held-out faces that a judge recognises", 3),
    "judge_on_faces_balanced": ("the same, each class weighing the same", 3),
    "judge_on_reconstructions": ("reconstructions that the judge recognises", 3),
    "edit_success": ("edit success, all pairs of classes", 3),
    "edit_success_happy_to_sad": ("the same, happy to sad", 3),
    "edit_error_to_truth": ("error of edits to the true face, reconstruction = 1", 2),
    "identity_on_faces": ("held-out faces whose nearest other is of the same person", 3),
    "identity_kept": ("edits whose nearest face is of the same person", 3),
    "interpolation_monotonicity": ("monotonicity of happy to sad", 3),
    "interpolation_path_ratio": ("length of its path in d_D, straight = 1", 2),
    "judge_on_samples": ("samples of a class that the judge recognises as it", 3),
    "frechet": ("Frechet distance of samples from the density of the latents", 0),
    "frechet_prior": ("the same, from the prior N(0, I)", 0)}


def main(arguments):
    asked = parse_one(arguments, sys.modules[__name__]).RUNS
    numbers = asked.split(",")
    for number in numbers:
        if not number.strip().isdigit():
            raise UserError(f"RUNS={asked}", "numbers of runs with commas between", repr(number),
                            "for example RUNS=0,1,2")
    runs = [read_run(int(number)) for number in numbers]
    settings, scores = zip(*runs)
    constants = [{(part, name): value for part in ("run", "classifier", "vae") for name, value in
                  one.get(part, {}).items()} for one in settings]
    differ = {name for one in constants for (_, name), _ in one.items() ^ constants[0].items()} - {"SEED"}
    if differ:
        raise UserError(f"RUNS={asked}", "runs that differ only in SEED", f"other settings: {sorted(differ)}",
                        "choose others")
    splits = sorted({one["split"] for one in scores})
    if len(splits) > 1:
        raise UserError(f"RUNS={asked}", "scores on the same split of the faces", " and ".join(splits),
                        "python experiments.py RUN=... SPLIT=test for each of them")
    columns = {heading: [one.get(model, {}) for one in scores] for model, heading in MODELS.items()}
    ratios = [value(one["dist_reg"]["error"]) / value(one["no_dist_reg"]["error"]) for one in scores]
    accuracies = [one["classifier"]["accuracy"] for one in scores if "accuracy" in one.get("classifier", {})]
    summary = table(settings, splits[0], accuracies, columns, ratios)
    folder = RESULTS / ("seeds_" + re.sub(r"\W+", "_", settings[0]["data"]["name"]))
    storage.make_folder(folder)
    storage.write_json(folder / "results.json", [dict(settings=of, scores=its) for of, its in runs])
    storage.write_text(folder / "table.md", summary)
    print(f"{summary}\nwrote table.md and results.json to {folder}")


def read_run(number):
    """The settings and the scores of a finished run."""
    folder = storage.find_run(number, finished=True, constants_of="vae")
    if not (folder / "scores.json").exists():
        raise UserError(folder / "scores.json", "the scores of that run", "none yet",
                        f"python experiments.py RUN={folder.name}")
    scores = storage.read_json(folder / "scores.json")
    return storage.read_json(folder / "settings.json"), {"split": "test"} | scores      # older ones have no split


def table(settings, split, accuracies, columns, ratios):
    """The scores of runs on a split, a row a score, a column a model: mean (min..max).

    columns: heading to a list of scores, a dict a run; ratios: the error of the second relative to that of the first.
    """
    counts = {part: sorted({one["data"]["split"][part] for one in settings}) for part in ("train", split)}
    train, held_out = ("..".join(map(str, (of[0], of[-1])[:len(of)])) for of in counts.values())
    accuracy = f" Classifier accuracy: {text(accuracies, 3)}." if accuracies else ""
    lines = [f"{settings[0]['data']['name']}, {train} training and {held_out} {split} faces, "
             f"{len(settings)} seeds: mean (min..max).{accuracy}", "",
             "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, (what, decimals) in SCORES.items():
        cells = [[one[name] for one in column if name in one] for column in columns.values()]
        if any(cells):
            lines.append(f"| {what} (`{name}`) | " + " | ".join(text(cell, decimals) for cell in cells) + " |")
        if name == "error":
            lines.append(f"| the same, without = 1 | 1 | {text(ratios, 3)} |  |")
    return "\n".join(lines) + "\n"


def value(score):
    """A score without its interval."""
    return score[0] if isinstance(score, list) else score


def text(scores, decimals):
    """mean (min..max), a single one as it is, or nothing."""
    values = [value(score) for score in scores]
    number = "{:.{d}f}" if len(values) == 1 else "{:.{d}f} ({:.{d}f}..{:.{d}f})"
    return number.format(sum(values) / len(values), min(values), max(values), d=decimals) if values else ""


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
