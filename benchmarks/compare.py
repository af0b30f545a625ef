"""Compares runs: the settings that differ, and every score side by side. Runs that differ in SEED alone are one column.

In: runs that experiments.py has scored. Out: compare.md, compare.csv (the scores of the controls, too) and compare.png.
python -m benchmarks.compare RUNS=3,4,7
"""
import csv
import hashlib
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import run as main_script
from benchmarks.pareto import draw_bars, write_labels
from data.figures import save
from metric_vae.figures import MODEL_COLOURS, NAMES
from training import storage
from training.errors import UserError, check_choice, run_script
from training.files import make_folder, read_json, write_text
from training.settings import parse_one

RUNS = "all"                # numbers and folders of runs with commas between, ranges such as 3..7, or "all"
SPLIT = "test"              # only scores on this split of the faces are compared: "test" or "val"
X = "error"                 # the score on the figure's horizontal axis
Y = "spearman"              # and on its vertical one
OUT: str | None = None      # the folder that is written; None: experiments/compare/

NO_SETTINGS = ("RESUME", "CLASSIFIER", "LOG")   # constants of run.py that change no number
MODELS = {"classifier": "Classifier", **{name: f"VAE {text}" for name, text in NAMES.items()},
          "ceiling": "Second classifier: how far its distances follow those of the first"}
MARKERS = {"no_dist_reg": "s", "dist_reg": "o", "ceiling": "^"}
SCORES = {
    "error": "squared error, summed over pixels", "error_ratio": "the same, without the regulariser = 1",
    "high_frequencies": "energy at high spatial frequencies, faces = 1",
    "high_frequencies_of_edits": "energy of edits at high spatial frequencies, faces = 1",
    "kl": "KL divergence", "spearman": "Spearman, latent against given distances",
    "spearman_within": "the same, within a class", "spearman_between": "the same, between classes",
    "stress": "Kruskal stress", "knn_accuracy": "nearest-neighbour accuracy",
    "judge_on_faces": "held-out faces that a judge recognises",
    "judge_on_faces_balanced": "the same, each class weighing the same",
    "judge_on_reconstructions": "reconstructions that the judge recognises",
    "edit_success": "edit success, all pairs of classes",
    "edit_error": "squared error of edits to the true face",
    "edit_error_to_truth": "the same, error of reconstructions = 1",
    "identity_on_faces": "held-out faces whose nearest other is of the same person",
    "identity_kept": "edits whose nearest face is of the same person",
    "interpolation_monotonicity": "monotonicity of interpolations between the two classes of the example",
    "interpolation_path_ratio": "length of their path in d_D, straight = 1",
    "judge_on_samples": "samples of a class that the judge recognises as it",
    "frechet": "Frechet distance of samples from the density of the latents",
    "frechet_prior": "the same, from the prior N(0, I)"}


def main(arguments):
    settings = parse_one(arguments, sys.modules[__name__])
    check_choice("SPLIT", settings.SPLIT, ("val", "test"))
    runs = []
    for folder in find_runs(settings.RUNS):
        problem = why_not(folder, settings.SPLIT)
        if problem:
            print(f"{name_of(folder)} is left out: {problem}")
        else:
            runs.append(read_run(folder))
    if not runs:
        raise UserError(f"RUNS={settings.RUNS}", f"runs with scores on the {settings.SPLIT} split", "none of these",
                        f"python experiments.py RUN=... SPLIT={settings.SPLIT}")
    drawn = {score: None for run in runs for model in MARKERS for score in run.scores.get(model, {})}
    if drawn:
        check_choice("X", settings.X, drawn)
        check_choice("Y", settings.Y, drawn)
    differ = differing(runs)
    others = [name for name in differ if name != "SEED"]
    columns = columns_of(runs, others)
    joined = len(others) == 1 and all(numbers_in(run.settings.get(others[0], "")) for run in runs)
    text = tables(title(runs, settings.SPLIT), columns, differ)
    folder = Path(settings.OUT).expanduser() if settings.OUT else storage.RUNS / "compare"
    make_folder(folder)
    write_text(folder / "compare.md", text)
    write_text(folder / "compare.csv", as_csv(runs, differ))
    if drawn:
        draw(folder / "compare.png", title(runs, settings.SPLIT), columns, settings.X, settings.Y, joined)
    print(f"{text}\nwrote compare.md, compare.csv{' and compare.png' if drawn else ''} to {folder}")


# --- runs

@dataclass
class ScoredRun:
    """A run: its number or folder, what settings.json says of its data, all settings that change its numbers,
    {name: text}, and its scores, {model: {score: value}}, those of the controls as further models.
    """
    name: str
    data: dict
    settings: dict
    scores: dict


@dataclass
class Column:
    """Runs that differ in SEED alone; label: what else they differ in from those of other columns."""
    runs: list
    label: str

    @property
    def heading(self):
        return f"run{'s' if len(self.runs) > 1 else ''} " + ", ".join(run.name for run in self.runs)

    def values(self, model, score):
        """The values of a score, one of each run that has it."""
        found = (run.scores.get(model, {}).get(score) for run in self.runs)
        return [value for value in found if value is not None]


def find_runs(asked):
    """The folders of the runs that RUNS names."""
    numbers, found = storage.numbered_runs(), []
    for part in map(str.strip, asked.split(",")):
        ends = re.fullmatch(r"([0-9]{1,9})\.\.([0-9]{1,9})", part)
        if part == "all" or ends:
            first, last = map(int, ends.groups()) if ends else (0, float("inf"))
            found += [storage.RUNS / str(number) for number in numbers if first <= number <= last]
        else:
            found.append(storage.find_run(part))
    return list(dict.fromkeys(found))


def name_of(folder):
    """How a user names a run: by its number, or where it is not in experiments/, by its folder."""
    return folder.name if folder.parent == storage.RUNS else str(folder)


def why_not(folder, split):
    """Why the scores of a run cannot be compared, or an empty text."""
    again = f"python experiments.py RUN={name_of(folder)} SPLIT={split}"
    if not (folder / "scores.json").exists():
        return f"it is not scored yet: {again}"
    try:
        storage.about_run(folder)
    except UserError as error:
        return f"expected {error.args[1]}, found {error.args[2]}"
    scores = read_json(folder / "scores.json")
    if scores.get("split") != split:
        return f"it is scored on the {scores.get('split')} split: {again}"
    return f"it was scored before it was finished: {again}" if "stopped" in scores else ""


def read_run(folder):
    """The ScoredRun in a folder."""
    kept, scores = read_json(folder / "settings.json"), read_json(folder / "scores.json")
    models = {name: scores[name] for name in MODELS if name in scores}
    for control, of_models in scores.get("controls", {}).items():
        models |= {f"{name} against {control}": of_model for name, of_model in of_models.items()}
    models = {name: {score: value[0] if isinstance(value, list) else value for score, value in of_model.items()}
              for name, of_model in models.items()}
    errors = [models.get(name, {}).get("error") for name in NAMES]
    if None not in errors:
        models["dist_reg"] = {"error": errors[1], "error_ratio": errors[1] / errors[0], **models["dist_reg"]}
    measured = {f"experiments.{name}": text_of(value) for name, value in scores.get("settings", {}).items()}
    return ScoredRun(name_of(folder), kept["data"], settings_of(kept) | measured, models)


def settings_of(kept):
    """All settings in a settings.json that change a run's numbers, {name: text}; named as on the command line."""
    found = {}
    for part in ("run", "classifier", "vae", "faces"):
        for name, value in kept.get(part, {}).items():
            found[name if hasattr(main_script, name) else f"{part}.{name}"] = value
    if found.get("DATA") == "auto":
        found["DATA"] = kept["data"]["name"]
    found |= {"DEVICE": kept["device"].partition(":")[0], "PRECISION": kept["precision"]}       # not "auto"
    seed = kept.get("classifier_of", {}).get("SEED", found.get("SEED"))
    found["classifier.SEED"] = "SEED" if seed == found.get("SEED") else seed
    for path, code in kept.get("own_code", {}).items():
        found[f"code of {path}"] = hashlib.sha256(code.encode()).hexdigest()[:8]
    return {name: text_of(value) for name, value in found.items() if name not in NO_SETTINGS}


def text_of(value):
    """The value of a setting as text, a pair of equal numbers as one."""
    if isinstance(value, list):
        return " to ".join(dict.fromkeys(map(text_of, value)))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def differing(runs):
    """The names of the settings that are not the same in all the runs that have them."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if len({run.settings[name] for run in runs if name in run.settings}) > 1]


def numbers_in(text):
    """The numbers that the text of a setting consists of, as in "1 to 5"; none where it has anything else."""
    try:
        return [float(number) for number in text.split(" to ")]
    except ValueError:
        return []


def columns_of(runs, differ):
    """The Columns of runs, given the names of the settings other than SEED in which they differ; of a single one in the
    order of its numbers.
    """
    found = {}
    for run in runs:
        found.setdefault(tuple(run.settings.get(name, "unknown") for name in differ), []).append(run)
    columns = []
    for values, of_column in sorted(found.items(), key=lambda item: numbers_in(item[0][0]) if len(differ) == 1 else []):
        label = ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in zip(differ, values))
        columns.append(Column(of_column, label))
    return columns


# --- tables and figure

def title(runs, split):
    """What the runs were trained and scored on."""
    names = ", ".join(dict.fromkeys(run.data["name"] for run in runs))
    train, held_out = (sorted({run.data["split"][part] for run in runs}) for part in ("train", split))
    train, held_out = ("..".join(map(str, dict.fromkeys((of[0], of[-1])))) for of in (train, held_out))
    return f"{names}, {train} training faces, scores on {held_out} faces of the {split} split"


def tables(heading, columns, differ):
    """The settings that differ and all scores, in Markdown: a column a Column."""
    seeds = "" if all(len(column.runs) == 1 for column in columns) else "; of several runs: mean (min..max)"
    lines = [heading + seeds]
    lines += table("Settings that differ", columns, {f"`{name}`": [", ".join(dict.fromkeys(
        run.settings.get(name, "") for run in column.runs)) for column in columns] for name in differ})
    for model, what in MODELS.items():
        runs = [run for column in columns for run in column.runs]
        scores = dict.fromkeys(score for run in runs for score in run.scores.get(model, {}))
        lines += table(what, columns, {
            f"{SCORES[score]} (`{score}`)" if score in SCORES else f"`{score}`":
            [cell(column.values(model, score)) for column in columns] for score in scores})
    return "\n".join(lines) + "\n"


def table(what, columns, rows):
    """Lines of one table, {row: cells}; none without rows."""
    if not rows:
        return []
    lines = ["", f"| {what} | " + " | ".join(column.heading for column in columns) + " |",
             "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {row} | " + " | ".join(cells) + " |" for row, cells in rows.items()]


def cell(values):
    """mean (min..max), a single value as it is, or nothing."""
    def number(value):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"
    spread = f" ({number(min(values))}..{number(max(values))})" if len(values) > 1 else ""
    return number(np.mean(values)) + spread if values else ""


def as_csv(runs, differ):
    """All scores: a line a run and model."""
    scores = dict.fromkeys(score for run in runs for of_model in run.scores.values() for score in of_model)
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["run", "model", *differ, *scores])
    for run in runs:
        for model, of_model in run.scores.items():
            lines.writerow([run.name, model, *(run.settings.get(name) for name in differ),
                            *(of_model.get(score) for score in scores)])
    return file.getvalue()


def draw(path, heading, columns, x, y, joined=False, longest=40):
    """Draw two scores of every model against each other: a point a column, joined in their order where joined. Labels
    of more letters than longest are replaced by the numbers of the runs.
    """
    figure = Figure((8, 6), layout="constrained")
    axes, labels, bars = figure.subplots(), {}, []
    for model, marker in MARKERS.items():
        points, colour = [], MODEL_COLOURS.get(model, "#444444")
        for column in columns:
            places = column.values(model, x), column.values(model, y)
            if all(places):
                xs, ys = ((np.mean(v), min(v), max(v)) for v in places)
                points.append((xs[0], ys[0]))
                bars += draw_bars(axes, xs, ys, color=colour)
                label = column.label if len(column.label) <= longest else column.heading
                labels.setdefault((points[-1], colour), []).append(label)
        for start, end in zip(points, points[1:] if joined else []):    # labels keep clear of the lines, too
            bars += map(tuple, np.linspace(start, end, 33))
        if points:
            axes.plot(*zip(*points), color=colour, marker=marker, linewidth=.8 if joined else 0,
                      label=MODELS[model].partition(":")[0])
    spread = ""
    if any(len(column.runs) > 1 for column in columns):
        spread = "\nmean over seeds; bars: min to max"
    axes.set(title=heading.replace(", scores", ",\nscores") + spread, xlabel=axis_label(x), ylabel=axis_label(y))
    axes.title.set_fontsize(10)
    axes.grid(alpha=.25)
    axes.margins(.15)
    figure.legend(loc="outside lower center", ncols=len(MARKERS), frameon=False)
    figure.draw_without_rendering()                             # now the axes have their places
    if len(columns) > 1:
        shown = [("\n".join(of), place, colour) for (place, colour), of in labels.items() if len(of) < len(columns)]
        write_labels(axes, shown, bars)
    save(figure, path)


def axis_label(score):
    """A score as the figure's axes name it."""
    return f"{SCORES[score]} ({score})" if score in SCORES else score


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
