"""Sums up runs that differ in their seed: the mean and the range of each score, in Markdown, as the README has them.

In: finished runs that experiments.py has scored. Out: a printed table.
for seed in 0 1 2: python run.py SEED=$seed; python experiments.py; then: python benchmarks/seeds.py RUNS=0,1,2
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import training                                                 # noqa: E402, after the path
from training import UserError                                  # noqa: E402

RUNS = "0,1,2"              # numbers of runs in experiments/, with commas between

MODELS = {"no_dist_reg": "without", "dist_reg": "with the regulariser", "ceiling": "a second classifier"}
SCORES = {                  # the rows: what they are, decimals
    "error": ("squared error, summed over pixels", 2), "kl": ("KL divergence", 0),
    "spearman": ("Spearman, latent to given distance", 3), "spearman_within": ("the same, within an expression", 3),
    "stress": ("Kruskal stress", 3), "knn_accuracy": ("15-nearest-neighbour accuracy", 3),
    "judge_on_faces": ("held-out faces that a judge recognises", 3),
    "judge_on_faces_balanced": ("the same, each expression weighing the same", 3),
    "judge_on_reconstructions": ("reconstructions that it recognises", 3),
    "edit_success": ("edits that it believes, all 42 pairs of expressions", 3),
    "edit_success_happy_to_sad": ("the same, happy to sad", 3),
    "edit_error_to_truth": ("error of edits to the true face, reconstruction = 1", 2),
    "identity_on_faces": ("held-out faces whose nearest other is of the same person", 3),
    "identity_kept": ("edits, likewise", 3),
    "interpolation_monotonicity": ("monotonicity of happy to sad", 3),
    "interpolation_path_ratio": ("length of its path in d_D, straight = 1", 2),
    "frechet": ("Frechet distance of samples", 0)}


def main():
    training.override(sys.argv[1:], {"": sys.modules[__name__]})
    numbers = RUNS.split(",")
    for number in numbers:
        if not number.strip().isdigit():
            raise UserError(f"RUNS={RUNS}", "numbers of runs with commas between", repr(number), "RUNS=0,1,2, say")
    folders = [training.find_run(int(number), finished=True, constants_of="vae") for number in numbers]
    for folder in folders:
        if not (folder / "scores.json").exists():
            raise UserError(folder / "scores.json", "the scores of that run", "none yet",
                            f"python experiments.py RUN={folder.name}")
    settings = [training.read_json(folder / "settings.json") for folder in folders]
    scores = [training.read_json(folder / "scores.json") for folder in folders]
    differ = {name for one in settings for part in ("run", "classifier", "vae") for name in one.get(part, {})
              if one.get(part, {}).get(name) != settings[0].get(part, {}).get(name)} - {"SEED"}
    if differ:
        raise UserError(f"RUNS={RUNS}", "runs that differ in SEED alone", f"other settings: {sorted(differ)}",
                        "choose others")
    print(table(scores, settings))


def table(scores, settings):
    """The scores of all runs, a row a score, a column a model: mean (min..max)."""
    accuracies = [one["classifier"]["accuracy"][0] for one in scores if "accuracy" in one.get("classifier", {})]
    counts = {part: sorted({one["data"]["split"][part] for one in settings}) for part in ("train", "test")}
    train, test = ("..".join(map(str, (of[0], of[-1])[:len(of)])) for of in counts.values())
    right = f" Classifier right in {text(accuracies, 3)}." * bool(accuracies)
    lines = [f"{settings[0]['data']['name']}, {train} training and {test} held-out faces, "
             f"{len(scores)} seeds: mean (min..max).{right}", "",
             "| | " + " | ".join(MODELS.values()) + " |", "|---" * (len(MODELS) + 1) + "|"]
    for name, (what, decimals) in SCORES.items():
        columns = [[value(one[model][name]) for one in scores if name in one.get(model, {})] for model in MODELS]
        if any(columns):
            lines.append(f"| {what} (`{name}`) | " + " | ".join(text(column, decimals) for column in columns) + " |")
    ratios = [value(one["dist_reg"]["error"]) / value(one["no_dist_reg"]["error"]) for one in scores]
    lines.insert(5, f"| the same, without = 1 | 1 | {text(ratios, 3)} | |")
    return "\n".join(lines)


def value(score):
    """A score without its interval."""
    return score[0] if isinstance(score, list) else score


def text(values, decimals):
    """mean (min..max), or nothing."""
    if not values:
        return ""
    return "{:.{d}f} ({:.{d}f}..{:.{d}f})".format(sum(values) / len(values), min(values), max(values), d=decimals)


if __name__ == "__main__":
    training.run_script(main)
