"""The benchmarks on a few small faces: what they write, when they train again, what they leave as it was."""
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import experiments
import expr_classifier.run
import metric_vae.run
from benchmarks import contenders, points, regularizers as benchmark, scale, speed, tables
from conftest import draw_small_images
from metric_vae.train import MODELS
from training.settings import default_settings, parse_one

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = benchmark.SETTINGS["reference"]
SMALL = {"none": "", "ours": "", "matrix": "METRIC=matrix", "csvae_joined": "",
         "ours_alone": "CONSISTENCY=0 BETA=100", "too_few": "BATCH=500"}


class Bench:
    """The script on small faces, in this process: call(...) starts it, trained lists the VAEs of its last call."""

    def __init__(self, patch, house):
        self.patch, self.results, self.trained = patch, house / "results", []
        row = np.arange(140)
        np.savez(house / "faces.npz", images=draw_small_images(people=20), labels=row % 7, identities=row // 7,
                 split=np.array([0] * 14 + [1] * 2 + [2] * 4)[row // 7])
        own = dict(DATA=str(house / "faces.npz"), IMAGE_SIZE=16, SEEDS="0,1", DEVICE="cpu", PRECISION="fp32",
                   W_DIM=7, RESULTS=self.results, SETTINGS=dict(SMALL))
        for module, values in ((benchmark, own), (expr_classifier.run, dict(STEPS=14, BATCH=16)),
                               (experiments, dict(JUDGE_STEPS=7, JUDGE_BATCH=16, IDENTITY_STEPS=7)),
                               (metric_vae.run, dict(STEPS=12, Z_DIM=16, METRIC_DIMS=4))):
            for name, value in values.items():
                patch.setattr(module, name, value)
        self.train = points.vae.train
        patch.setattr(points.vae, "train", self.record)

    def record(self, name, faces, metric, settings, *rest):
        self.trained.append((name, settings.BETA, settings.CONSISTENCY))
        return self.train(name, faces, metric, settings, *rest)

    def call(self, *arguments):
        self.trained.clear()
        benchmark.main(list(arguments))
        return next(self.results.iterdir())


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield Bench(patch, tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def folder(bench):
    return bench.call()


def test_a_run_writes_a_result_for_each_point_and_seed_and_one_table(folder):
    assert folder.name.startswith("faces_") and folder.name.endswith("_val")
    for seed in (0, 1):
        assert {path.stem for path in (folder / f"seed{seed}").glob("*.json")} == \
            {"classifiers", *SMALL} - {"too_few"}
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["finished"] and settings["benchmark"]["SEEDS"] == "0,1" and settings["data"]["count"] == 140
    text = (folder / "table.md").read_text()
    assert "second classifier" in text and "| ours | 2 |" in text and "too_few" not in text
    assert "| `ours` | 0, 1 | " in (folder / "consistency.md").read_text()
    assert "| ours | CSVAE, our first layer | second classifier | class means |" in (folder / "summary.md").read_text()


def test_the_error_ratio_is_to_none_of_the_same_seed_and_the_spread_is_over_seeds(folder):
    results = json.loads((folder / "results.json").read_text())
    ratios = []
    for seed in ("0", "1"):
        none, ours = (results["seeds"][name][seed] for name in ("none", "ours"))
        assert ours["error_ratio"] == pytest.approx(ours["error"] / none["error"]) and none["error_ratio"] == 1
        missing = {"edit_error", "edit_error_to_truth",         # no factors here
                   "identity_share", "spearman_within"}         # nobody is recognised; two faces of a class
        assert set(ours) >= {*tables.SCORES, "judge_on_faces"} - missing
        ratios.append(ours["error_ratio"])
    assert results["points"]["ours"]["error_ratio"] == pytest.approx([np.mean(ratios), min(ratios), max(ratios)])
    assert set(results["ceilings"]) >= {"ceiling_spearman", "ceiling_stress", "classifier_accuracy", "judge_accuracy"}


def test_consistency_md_compares_a_point_with_the_same_without_it_over_the_seeds_of_both():
    score = lambda value: dict(error_ratio=value, spearman=value / 2)
    text = tables.with_and_without({"none": {3: score(1)}, "ours": {3: score(1.2), 4: score(1.4), 5: score(9)},
                                    "ours_alone": {3: score(1), 4: score(1.1)}})
    assert text.splitlines()[2:] == ["| `ours` | 3, 4 | 1.300, 1.050 | 0.650, 0.525 |  |"]


def test_a_linear_probe_finds_the_metric_where_mu_holds_it_and_not_in_noise(small_faces, monkeypatch):
    rng, shape = np.random.default_rng(0), (len(small_faces), 3)
    C_of_x, noise = rng.normal(size=shape), rng.normal(size=shape)
    of = SimpleNamespace(faces=small_faces, sample=SimpleNamespace(SPLIT="train", SAMPLE=600, SEED=0), device=None)
    for mu, low, high in ((C_of_x @ rng.normal(size=(3, 5)), .999, 1), (noise, -.3, .3)):
        monkeypatch.setattr(points.trained, "encode", lambda model, faces, rows, device: (mu[rows], None))
        assert low <= points.probe(of, None, C_of_x)["spearman"][0] <= high


def test_class_means_know_between_classes_all_and_within_them_nothing(small_faces):
    centre = np.arange(7)[small_faces.labels] ** 2.
    noise = np.random.default_rng(0).normal(size=len(small_faces)) * 1e-3
    scores = points.of_class_means((centre + noise)[:, None], small_faces, np.arange(len(small_faces)))
    assert scores["spearman_between"][0] > .9 and "spearman_within" not in scores


def test_a_point_that_cannot_be_trained_is_left_out_and_named(bench, folder, capsys):
    bench.call("POINTS=too_few")
    assert "too_few, seed 0, is left out" in capsys.readouterr().out


def test_a_second_call_trains_nothing_anew(bench, folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("seed*/classifiers/*.pt")}
    assert len(before) == 8
    bench.call()
    assert {name for name, *_ in bench.trained} == {"dist_reg"} and len(bench.trained) == 2         # too_few, in vain
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_changed_point_is_run_again_alone_and_with_its_own_settings(bench, folder):
    benchmark.SETTINGS["ours_alone"] = "CONSISTENCY=0 BETA=7"
    bench.call()
    assert bench.trained[::2] == [("dist_reg", (7., 7.), (0., 0.))] * 2         # each before too_few


def test_one_point_alone_goes_on_where_one_is_missing(bench, folder):
    (folder / "seed1" / "none.json").unlink()
    bench.call("POINTS=none,ours")
    assert [name for name, *_ in bench.trained] == ["no_dist_reg"]


def test_points_that_other_networks_judged_are_left_out_until_they_are_run_again(bench, folder, capsys):
    path = folder / "seed0" / "ours.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "networks": "others"}))
    bench.call("POINTS=none")
    assert not bench.trained and "seed 0: left out, as other networks judged them: ours" in capsys.readouterr().out
    assert list(json.loads((folder / "results.json").read_text())["seeds"]["ours"]) == ["1"]
    assert "| ours (seeds: 1) |" in (folder / "summary.md").read_text()
    bench.call("POINTS=ours")
    assert [name for name, *_ in bench.trained] == ["dist_reg"] and "others" not in path.read_text()


def test_classifiers_with_other_settings_are_trained_anew(bench, folder):
    bench.patch.setattr(expr_classifier.run, "BALANCE", 0.25)
    before = (folder / "seed0" / "classifiers" / "classifier.pt").read_bytes()
    bench.call("POINTS=none", "SEEDS=0")
    assert [name for name, *_ in bench.trained] == ["no_dist_reg"]
    assert (folder / "seed0" / "classifiers" / "classifier.pt").read_bytes() != before
    results = json.loads((folder / "results.json").read_text())
    assert list(results["points"]) == ["none"] and list(results["classifiers"]) == ["0"]


def test_each_split_has_its_own_folder_scores_and_seeds(bench, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    bench.results = tmp_path
    bench.call("POINTS=none", "SPLIT=test", "SEEDS=3")
    bench.results = folder.parent
    found, = tmp_path.iterdir()
    assert found.name == folder.name.removesuffix("_val") + "_test"
    assert {path.name for path in found.glob("seed*")} == {"seed3"}
    assert "28 of the test split" in (found / "table.md").read_text()
    assert "14 of the val split" in (folder / "table.md").read_text()


def test_an_unknown_split_is_a_users_error(bench, user_error):
    user_error(lambda: bench.call("SPLIT=train"), "SPLIT", "train", "val")


def test_an_unknown_point_is_a_users_error(bench, user_error):
    user_error(lambda: bench.call("POINTS=stres"), "POINTS", "stres", "ours")


def test_seeds_that_are_no_numbers_are_a_users_error(bench, user_error):
    user_error(lambda: bench.call("SEEDS=0-2"), "SEEDS", "0-2")


def test_fewer_training_faces_are_those_of_whole_people(small_faces):
    few = benchmark.fewer(small_faces, 15)                      # seven faces a person: three people make 21
    assert few.about()["split"] == dict(train=21, val=7, test=7)
    people = small_faces.identities[few.rows("train")]
    assert len(few.rows("train")) == 21 and len(set(people)) == 3 and set(people) < set(range(8))
    again = benchmark.fewer(small_faces, 15)
    assert np.array_equal(few.split, again.split)
    assert few.rows("val").tolist() == small_faces.rows("val").tolist() and len(few) == 70


def test_fewer_faces_of_unknown_people_are_of_every_class_though_they_lie_sorted(small_faces):
    order = np.argsort(small_faces.labels[small_faces.split == 0], kind="stable")
    labels = np.concatenate([small_faces.labels[:56][order], small_faces.labels[56:]])
    sorted_faces = replace(small_faces, labels=labels, identities=np.full(70, -1))
    few = benchmark.fewer(sorted_faces, 40)
    assert len(few.rows("train")) == 40 and set(few.labels[few.rows("train")]) == set(range(7))


def test_it_starts_as_a_module():
    done = subprocess.run([sys.executable, "-m", "benchmarks.regularizers", "POINTS=nonsense"], cwd=ROOT, text=True,
                          capture_output=True)
    assert done.returncode == 1 and "nonsense" in done.stderr and "reference" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name, settings", benchmark.SETTINGS.items())
def test_every_point_has_settings_that_can_be(name, settings, monkeypatch):
    monkeypatch.setattr(metric_vae.run, "Z_DIM", 128)
    found = points.Bench.vae_settings(SimpleNamespace(points={name: settings}), name)   # refuses what cannot be
    assert (asdict(found) == asdict(default_settings(metric_vae.run))) == (not settings)


def test_the_reference_point_has_its_regulariser_and_weights():
    found = parse_one(REFERENCE.split(), metric_vae.run)
    assert (found.REGULARIZER, found.BETA, found.ALPHA) == ("batchwise", (1e5, 1e5), (.1, .1))


# --- speed and scale

def test_speed_measures_every_part_and_writes_a_row_of_each(monkeypatch, tmp_path):
    """All parts but the two that start run.py: these take a minute."""
    monkeypatch.setattr(contenders, "BATCH", 8)
    monkeypatch.setattr(metric_vae.run, "STEPS", 2)
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    faces = speed.synthetic.load(count=140, identities=30, cache=tmp_path)
    monkeypatch.setattr(speed.synthetic, "load", lambda: faces)
    maps = []
    monkeypatch.setattr(speed, "tsne", lambda points: maps.append(points.sum()))
    speed.main("ROUNDS=1 MATRIX=64 TRAINING_FACES=8 QUALITY_FACES=16 QUALITY_EPOCHS=1 EMBEDDED_FACES=64 TSNE_FACES=40 "
               "DRAWN_FACES=28 DEVICE=cpu PRECISION=fp32 PARTS=matrix,training,quality,others".split())
    text = (tmp_path / "speed_cpu" / "table.md").read_text()
    for row in ("matrix product, fp32", "training, plain", "training, here", "here / plain", "share of the fp32 matrix",
                "the best held-out loss of its 1 epochs", "our networks and schedule, until the same loss", "embedding",
                "tsne", "drawing"):
        assert row in text, row
    results = json.loads((tmp_path / "speed_cpu" / "results.json").read_text())
    assert len(results["training"]["images_per_second"]["here"]) == 1
    assert len(results["quality"]["our_curve"]) == 2
    assert len(set(maps)) == 2                                  # a map of the same points would be there already


def test_a_copy_of_the_project_is_run_with_its_log_and_looked_at(tmp_path):
    np.savez(tmp_path / "faces.npz", images=draw_small_images(), labels=np.arange(70) % 7)
    looked = []
    log = speed.run_copy("run.py", f"DATA={tmp_path / 'faces.npz'}", "IMAGE_SIZE=16", "DEVICE=cpu", "PRECISION=fp32",
                         "classifier.STEPS=1", "vae.STEPS=1", "classifier.BATCH=16", threads=1, look=looked.append)
    assert {line["stage"] for line in log} == {"classifier", *MODELS} and looked
    with pytest.raises(subprocess.CalledProcessError):
        speed.run_copy("run.py", "DATA=nowhere")


def test_the_time_to_a_loss_ends_with_the_first_epoch_that_reaches_it():
    curve = [[2, 9.0], [3, 7.0], [4, 8.0]]
    assert [speed.seconds_until(loss, curve) for loss in (9.0, 8.0, 7.0, 6.9)] == [2, 5, 5, None]


def test_scale_measures_each_number_of_faces(monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "RESULTS", tmp_path)
    scale.main(["COUNTS=40,80", "STEPS=1", "DEVICE=cpu"])
    results = json.loads((tmp_path / "scale_cpu" / "results.json").read_text())
    assert [result["faces"] for result in results] == [40, 80]
    assert all(result[key] > 0 for result in results for key in scale.COLUMNS)
    assert (tmp_path / "scale_cpu" / "scale.png").stat().st_size > 1000
    assert "| 80 |" in (tmp_path / "scale_cpu" / "table.md").read_text()
