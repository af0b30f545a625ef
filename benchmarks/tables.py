"""Tables of the scores of benchmarks/regularizers.py, in Markdown.

In: the scores of points, [mean, min, max] over seeds. Out: text.
"""
import numpy as np

SCORES = {                  # the table's columns: heading, decimals
    "error": ("error", 2), "error_ratio": ("error ratio", 3), "kl": ("KL", 0), "spearman": ("Spearman", 3),
    "spearman_within": ("within classes", 3), "stress": ("stress", 3), "knn_accuracy": ("kNN", 3),
    "judge_on_reconstructions": ("judge on reconstructions", 3), "edit_success": ("edit success", 3),
    "edit_share": ("/ judge on faces", 2), "identity_kept": ("identity kept", 3), "identity_share": ("/ on faces", 2),
    "edit_error": ("edit error", 2), "edit_error_to_truth": ("/ error", 2), "high_frequencies": ("fine texture", 2),
    "high_frequencies_of_edits": ("of edits", 2), "frechet": ("Frechet", 0),
    "frechet_prior": ("Frechet, N(0, I)", 0), "seconds": ("seconds", 0), "epochs": ("epochs", 0)}
SUMMARY = (                 # the columns of summary.md: heading, point or "classifiers", how the names of scores begin
    ("VAE", "none", ""), ("linear probe of its latents", "none", "probe_"), ("ours", "ours", ""),
    ("ours, d_D from a table of points", "table", ""), ("conditional VAE", "conditional_vae", ""),
    ("conditional VAE, our first layer", "conditional_vae_joined", ""), ("CSVAE", "csvae", ""),
    ("CSVAE, our first layer", "csvae_joined", ""), ("second classifier", "classifiers", "ceiling_"),
    ("class means", "classifiers", "classes_"))
SUMMARY_SCORES = {          # its rows
    "error": "squared error, summed over pixels", "error_ratio": "squared error / the VAE's",
    "kl": "KL divergence, nats", "spearman": "Spearman, latent against given distances",
    "spearman_within": "the same, pairs within a class", "stress": "Kruskal stress", "edit_success": "edit success",
    "edit_share": "edit success / judge's accuracy on real faces",
    "identity_share": "identity kept by edits / identity on real faces",
    "edit_error": "squared error of edits to the true face",
    "edit_error_to_truth": "the same / error of reconstructions",
    "frechet": "Frechet distance of samples", "frechet_prior": "the same, samples of N(0, I)"}


def spread(runs):
    """[mean, min, max] over seeds of each score; runs: {seed: scores}."""
    names = dict.fromkeys(name for scores in runs.values() for name in scores)
    values = {name: [scores[name] for scores in runs.values() if name in scores] for name in names}
    return {name: [float(np.mean(v)), min(v), max(v)] for name, v in values.items()}


def cell(scores, name):
    """mean (min..max) of a score, or nothing."""
    if name not in scores:
        return ""
    _, decimals = SCORES.get(name, (name, 3))
    return "{:.{d}f} ({:.{d}f}..{:.{d}f})".format(*scores[name], d=decimals)


def with_and_without(runs):
    """The points that were run with and without the consistency loss, in Markdown: two means over the seeds that both
    have. runs: {point: {seed: scores}}, without that loss the point's name ends with "_alone". Empty if there are
    none.
    """
    shown = {"error_ratio": SUMMARY_SCORES["error_ratio"], "spearman": "Spearman", "edit_success": "edit success"}
    lines = ["| with, without the consistency loss | seeds | " + " | ".join(shown.values()) + " |",
             "|---" * (len(shown) + 2) + "|"]
    for name in runs:
        pair = [runs[name], runs.get(f"{name}_alone", {})]
        seeds = sorted(pair[0].keys() & pair[1].keys())
        if seeds:
            means = [spread({seed: point[seed] for seed in seeds}) for point in pair]
            cells = [", ".join(f"{scores[key][0]:.3f}" for scores in means if key in scores) for key in shown]
            lines.append(f"| `{name}` | {', '.join(map(str, seeds))} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def table(title, points, ceilings, counts):
    """The results in Markdown: a row a point, a column a score."""
    lines = [f"{title}. Mean (min..max) over seeds.", "",
             f"Distances of a second classifier: Spearman {cell(ceilings, 'ceiling_spearman')}, stress "
             f"{cell(ceilings, 'ceiling_stress')}. Accuracy of the classifier: "
             f"{cell(ceilings, 'classifier_accuracy')}. {about_judge(ceilings)}", "",
             "| | point | seeds | " + " | ".join(heading for heading, _ in SCORES.values()) + " |",
             "|---" * (len(SCORES) + 3) + "|"]
    for number, (name, scores) in enumerate(points.items(), 1):
        cells = [cell(scores, key) for key in SCORES]
        lines.append(f"| {number} | {name} | {counts[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def about_judge(ceilings):
    """What edit success is to be compared with."""
    return (f"Accuracy of the judge, averaged over classes: {cell(ceilings, 'judge_accuracy')}; edits that change "
            f"nothing would succeed in {cell(ceilings, 'unchanged_success')}.")


def summary(title, points, ceilings, counts):
    """The points and scores of SUMMARY in Markdown: a row a score, a column a point; mean (min..max). counts: of the
    seeds of each point.
    """
    sources = {**points, "classifiers": ceilings}
    shown = [column for column in SUMMARY if column[1] in sources]
    headings = [heading if counts[name] == counts["classifiers"] else f"{heading} (seeds: {counts[name]})"
                for heading, name, _ in shown]
    lines = [f"{title}. Mean (min..max) over seeds. {about_judge(ceilings)}", "",
             "| | " + " | ".join(headings) + " |", "|---" * (len(shown) + 1) + "|"]
    for score, what in SUMMARY_SCORES.items():
        cells = [cell(sources[name], start + score) for _, name, start in shown]
        if any(cells):
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
