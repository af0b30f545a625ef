"""benchmarks/compare.py: which runs it compares, what it takes for one column, what it writes."""
import csv
import json

import pytest

from benchmarks import compare
from training import storage
from training.files import read_json, write_json

SCORES = dict(split="test", classifier=dict(accuracy=[.5, 0, 1]), ceiling=dict(spearman=[.7, 0, 1], stress=[.25, 0, 1]),
              controls=dict(pixels=dict(dist_reg=dict(spearman=[.1, 0, 1]))))


@pytest.fixture
def make_run(monkeypatch, tmp_path):
    """make_run(number, BETA, SEED, error, split=...): a finished run that is scored; its error without is 2."""
    monkeypatch.setattr(storage, "RUNS", tmp_path / "experiments")

    def make(number, beta=5.0, seed=0, error=3.0, split="test", of_classifier=None, **more):
        folder = storage.RUNS / str(number)
        folder.mkdir(parents=True)
        settings = dict(format=storage.FORMAT, finished=True, device="cuda:1", precision="fp32", data=dict(
            name="small", count=14, size=16, channels=1, classes=["a"], fingerprint=f"f{seed}",
            split=dict(train=9 - seed, val=2, test=3)),
            run=dict(DATA="auto", SEED=seed, DEVICE="auto", PRECISION="auto", RESUME=None, CLASSIFIER=number, LOG=None),
            classifier=dict(STEPS=1), faces={}, vae=dict(BETA=[beta, beta], STEPS=2))
        settings |= {"classifier_of": dict(folder="", SEED=of_classifier)} if of_classifier is not None else {}
        write_json(folder / "settings.json", settings)
        write_json(folder / "scores.json", SCORES | dict(
            split=split, no_dist_reg=dict(error=[2, 0, 9], spearman=[.1, 0, 1], frechet=7.0),
            dist_reg=dict(error=[error, 0, 9], spearman=[.9, 0, 1], frechet=1234.5)) | more)
        return folder
    return make


def table(text, what):
    """The rows of one table, {row: cells}."""
    part, = (part for part in text.split("\n\n") if part.startswith(f"| {what} |"))
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in part.strip().split("\n")]
    return {row: cells for row, *cells in rows}


def test_columns_stand_in_the_order_of_the_setting_that_differs_and_are_joined_only_then(make_run, monkeypatch, capsys):
    joined = []
    monkeypatch.setattr(compare, "draw", lambda *arguments: joined.append(arguments[-1]))
    for number, beta in enumerate((10000.0, 100.0, 1000.0)):
        make_run(number, beta)
    compare.main(["RUNS=all"])
    assert "| Settings that differ | run 1 | run 2 | run 0 |" in capsys.readouterr().out and joined == [True]
    assert compare.numbers_in("0 to 5e-3") == [0, .005] and not compare.numbers_in("/data/exp3/a.npy")
    make_run(3, 5.0, settings=dict(JUDGE_STEPS=9)), make_run(4, 7.0, settings=dict(JUDGE_STEPS=8))
    compare.main(["RUNS=3,4"])
    assert joined == [True, False] and "| `experiments.JUDGE_STEPS` | 9 | 8 |" in capsys.readouterr().out


def test_runs_with_other_code_of_the_users_own_are_not_one_column(make_run, capsys):
    for number, code in enumerate(("e.mean()", "e.std()", "e.std()")):
        folder = make_run(number, seed=number)
        write_json(folder / "settings.json", read_json(folder / "settings.json") | {"own_code": {"/my/reg.py": code}})
    compare.main(["RUNS=all"])
    text = capsys.readouterr().out
    assert "| Settings that differ | run 0 | runs 1, 2 |" in text and "| `code of /my/reg.py` |" in text


def test_runs_that_differ_in_seed_alone_are_one_column_with_mean_and_range(make_run, capsys):
    for number, beta, seed, error in ((0, 5, 0, 3.0), (1, 7, 0, 4.0), (2, 5, 1, 5.0)):
        make_run(number, float(beta), seed, error)
    compare.main(["RUNS=0,1,2"])
    folder = storage.RUNS / "compare"
    text = (folder / "compare.md").read_text()
    assert text in capsys.readouterr().out
    assert text.startswith("small, 8..9 training faces, scores on 3 faces of the test split")
    assert table(text, "Settings that differ") == {"Settings that differ": ["runs 0, 2", "run 1"], "---|---|---": [],
                                                   "`SEED`": ["0, 1", "0"], "`vae.BETA`": ["5", "7"]}
    rows = table(text, "VAE with the regulariser")
    assert rows["squared error, summed over pixels (`error`)"] == ["4.000 (3.000..5.000)", "4.000"]
    assert rows["the same, without the regulariser = 1 (`error_ratio`)"] == ["2.000 (1.500..2.500)", "2.000"]
    assert rows["Frechet distance of samples from the density of the latents (`frechet`)"][1] == "1234.50"
    assert table(text, "Classifier")["`accuracy`"] == ["0.500 (0.500..0.500)", "0.500"]
    assert (folder / "compare.png").read_bytes().startswith(b"\x89PNG")
    with open(folder / "compare.csv", newline="") as file:
        lines = {(line["run"], line["model"]): line for line in csv.DictReader(file)}
    assert len(lines) == 3 * 5
    assert lines["2", "dist_reg"]["error"] == "5.0" and lines["1", "dist_reg"]["vae.BETA"] == "7"
    assert lines["0", "dist_reg against pixels"]["spearman"] == "0.1" and lines["0", "ceiling"]["error"] == ""


def test_runs_that_cannot_be_compared_get_one_line_each(make_run, capsys, user_error):
    make_run(0)
    make_run(1, split="val")
    (make_run(2) / "scores.json").unlink()
    make_run(3, stopped=True)
    compare.main(["RUNS=all"])
    printed = capsys.readouterr().out
    for line in ("1 is left out: it is scored on the val split: python experiments.py RUN=1 SPLIT=test",
                 "2 is left out: it is not scored yet: python experiments.py RUN=2 SPLIT=test",
                 "3 is left out: it was scored before it was finished: python experiments.py RUN=3 SPLIT=test"):
        assert printed.count(line) == 1
    assert table(printed, "Classifier")["Classifier"] == ["run 0"] and "Settings that differ" not in printed
    compare.main(["RUNS=1", "SPLIT=val"])
    assert "2 faces of the val split" in capsys.readouterr().out
    user_error(lambda: compare.main(["RUNS=2,3"]), "RUNS=2,3", "test")


def test_runs_are_named_by_numbers_ranges_and_folders(make_run, tmp_path, user_error):
    for number in (1, 2, 4, 5, 9):
        make_run(number)
    moved = tmp_path / "moved"
    (storage.RUNS / "9").rename(moved)
    assert [compare.name_of(folder) for folder in compare.find_runs(f"5,2..4, {moved}")] == ["5", "2", "4", str(moved)]
    assert [folder.name for folder in compare.find_runs("all")] == ["1", "2", "4", "5"]
    for wrong in ("3", "-1", "two"):
        user_error(lambda: compare.main([f"RUNS={wrong}"]), wrong)


def test_a_classifier_of_another_seed_is_a_setting_that_differs_and_its_run_is_none(make_run):
    make_run(0, seed=0)
    make_run(1, seed=1, of_classifier=0)
    make_run(2, seed=1)
    make_run(3, seed=0, of_classifier=0)
    compare.main(["RUNS=all"])
    rows = table((storage.RUNS / "compare" / "compare.md").read_text(), "Settings that differ")
    assert rows == {"Settings that differ": ["runs 0, 2, 3", "run 1"], "---|---|---": [], "`SEED`": ["0, 1", "1"],
                    "`classifier.SEED`": ["SEED", "0"]}


def test_the_figure_joins_the_columns_and_names_what_differs(make_run, tmp_path, monkeypatch, user_error):
    for number, beta in enumerate((5.0, 7.0, 9.0)):
        make_run(number, beta, error=3.0 + number)
    shown = []
    monkeypatch.setattr(compare, "save", lambda figure, path: shown.append(figure))
    compare.main(["RUNS=all", f"OUT={tmp_path / 'out'}"])
    axes, = shown[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["VAE without the regulariser"] == [[2, .1]] * 3
    assert lines["VAE with the regulariser"] == [[3, .9], [4, .9], [5, .9]]
    assert [text.get_text() for text in axes.texts] == ["BETA=5", "BETA=7", "BETA=9"]       # none where all are equal
    assert (tmp_path / "out" / "compare.md").exists()
    user_error(lambda: compare.main(["RUNS=all", "Y=spaerman"]), "Y", "spaerman", "frechet")


def test_runs_of_the_classifier_alone_have_scores_and_no_figure(make_run):
    folder = make_run(0)
    kept = read_json(folder / "settings.json")
    write_json(folder / "settings.json", {name: value for name, value in kept.items() if name not in (
        "run", "vae")} | {"classifier": kept["run"] | kept["classifier"]})
    (folder / "scores.json").write_text(json.dumps(dict(split="test", classifier=dict(accuracy=[.5, 0, 1]))))
    compare.main([])
    assert sorted(path.name for path in (storage.RUNS / "compare").iterdir()) == ["compare.csv", "compare.md"]
