"""The figures of benchmarks/regularizers.py: what each point keeps of the metric and what that costs, and what more
training steps buy.

In: scores of all points. Out: PNG files.
"""
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from data.figures import save

COMPARED = (            # score, its label, the score of the classifiers that it is compared with, and what that is
    ("spearman", "Spearman of latent and given distances", "ceiling_spearman", "two classifiers"),
    ("edit_success", "edit success", "judge_accuracy", "judge's accuracy on real faces"))

FARTHEST = 1.2          # error ratio up to which points are drawn in their place; others at the edge, with their ratio


def pareto(path, title, points, ceilings, styles):
    """Draw preservation and edit success against the error ratio, numbered points with bars from min to max.

    points: {name: {score: [mean, min, max]}}; ceilings: the same for the classifiers; styles: {name: what plot takes}.
    """
    figure = Figure((15, 6.8), layout="constrained")
    *panels, names = figure.subplots(1, 3, width_ratios=(1, 1, .36))
    numbered = []
    for axes, (score, label, ceiling, of_ceiling) in zip(panels, COMPARED):
        shown, bars = [], []                                    # number, place, colour; places along the bars
        for number, (name, scores) in enumerate(points.items(), 1):
            if score in scores:
                ratios = np.minimum(scores["error_ratio"], FARTHEST)
                bars += draw_bars(axes, ratios, scores[score], alpha=.85, **styles[name])
                text = f"{number}: {scores['error_ratio'][0]:.2f} →" if ratios[0] == FARTHEST else str(number)
                shown.append((text, (ratios[0], scores[score][0]), styles[name]["color"]))
        if ceiling in ceilings:
            draw_ceiling(axes, ceilings[ceiling][0], of_ceiling)
        axes.set(xlabel='squared error / squared error of "none"', ylabel=label)
        if score == "spearman":
            spread_high(axes)
        axes.grid(alpha=.25)
        axes.margins(.08)
        numbered.append((axes, shown, bars))
    handles = [Line2D([], [], **styles[name]) for name in points]
    names.legend(handles, [f"{number}  {name}" for number, name in enumerate(points, 1)], loc="center left",
                 frameon=False, fontsize=8.5, title="orange: with consistency loss\nblue: without\ngrey: other models\n"
                 "hollow: a single seed", alignment="left")
    names.axis("off")
    figure.suptitle(title, fontsize=11)
    figure.draw_without_rendering()                             # now the axes have their places
    for axes, shown, bars in numbered:
        write_labels(axes, shown, bars)
    save(figure, path)


def draw_bars(axes, xs, ys, **style):
    """Draw a point with bars, xs and ys: [mean, min, max] each; returns places (x, y) along the bars."""
    (x, *x_range), (y, *y_range) = xs, ys
    lengths = [np.abs(np.subtract(ends, middle))[:, None] for ends, middle in ((y_range, y), (x_range, x))]
    axes.errorbar(x, y, *lengths, elinewidth=.7, **style)
    return [(x, at) for at in np.linspace(*y_range, 33)] + [(at, y) for at in np.linspace(*x_range, 33)]


def draw_ceiling(axes, height, text, side="bottom"):
    """Draw a dotted line at a height, with its text; side: which of the text's is at the line, "bottom" or "top"."""
    axes.axhline(height, color="#888888", linestyle=":", zorder=0)
    axes.annotate(text, (.8, height), (0, 3 if side == "bottom" else -3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", va=side, fontsize=8, color="#666666")


def spread_high(axes):
    """Scale the vertical axis of correlations by -log(1 - y), so that those near 1 can be told apart."""
    axes.set_yscale("function", functions=(lambda y: -np.log10(np.maximum(1 - np.asarray(y), 1e-6)),
                                           lambda t: 1 - 10. ** -np.asarray(t)))
    axes.yaxis.set_major_locator(FixedLocator((0, .3, .5, .7, .8, .9, .95, .97, .98, .99, .995, .998, .999)))
    axes.yaxis.set_major_formatter("{x:g}")


def write_labels(axes, shown, bars):
    """Write each label at a free place near its point, and nearer to it than to other points where there is one.

    shown: (label, (x, y), colour); bars: further places (x, y) to keep free.
    """
    places = [axes.transData.transform(place) for _, place, _ in shown]
    angles = np.arange(16) * np.pi / 8
    offsets = [r * np.array([np.cos(a), np.sin(a)]) for r in range(12, 120, 6) for a in angles]
    taken = np.array([*places, *map(axes.transData.transform, bars)])
    widths = np.full(len(taken), 16)                            # of what lies there, in pixels
    for (label, xy, colour), place in zip(shown, places):
        width = max(16, *(6 * len(line) for line in label.split("\n")))
        apart = np.stack([(width + widths) / 2, np.full(len(widths), 12)], 1)
        ends = np.array([(-width / 2, 0), (width / 2, 0)])
        free = [o for o in offsets if all(axes.bbox.contains(*end) for end in place + o + ends)
                and (np.abs(place + o - taken) >= apart).any(1).all()]
        nearest = [o for o in free if np.hypot(*o) < 1.01 * np.hypot(*np.subtract(place + o, places).T).min()]
        offset = (nearest or free or offsets)[0]
        taken, widths = np.vstack([taken, place + offset]), np.append(widths, width)
        axes.annotate(label, xy, offset * 72 / axes.figure.dpi, textcoords="offset points", ha="center", va="center",
                      fontsize=8, color=colour, annotation_clip=False, zorder=4,
                      arrowprops=dict(arrowstyle="-", color=colour, linewidth=.5, shrinkA=4, shrinkB=1)
                      ).set_in_layout(False)


def steps(path, title, curves, ceilings):
    """Draw error, Spearman and edit success against training steps, with bars from min to max.

    curves: {"none", "ours": {steps: {score: [mean, min, max]}}}; ceilings: as in pareto.
    """
    figure = Figure((13, 4.2), layout="constrained")
    for axes, (score, label, ceiling, of_ceiling) in zip(figure.subplots(1, 3), (
            ("error", "squared error, summed over pixels", None, None), *COMPARED)):
        for model, colour in (("none", "#444444"), ("ours", "#D55E00")):
            found = {count: scores[score] for count, scores in curves[model].items() if score in scores}
            if found:
                middle, low, high = np.transpose(list(found.values()))
                axes.errorbar(list(found), middle, (middle - low, high - middle), color=colour, marker="o", capsize=3,
                              label={"none": "without the regulariser", "ours": "with it"}[model])
        if ceiling in ceilings:
            draw_ceiling(axes, ceilings[ceiling][0], of_ceiling, "top")
        if score == "spearman":
            spread_high(axes)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(list(curves["ours"])))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="training steps", ylabel=label)
        axes.margins(y=.12)                                     # room for the label of the dotted line
        axes.grid(alpha=.25)
    figure.axes[0].legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    save(figure, path)
