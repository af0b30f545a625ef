"""Broken inputs: data sets, metrics and files of run folders, each with something broken at random."""
import json
import shutil
import signal

import numpy as np
import sklearn.manifold                 # noqa: F401, experiments.py imports it late, each child anew
import torch
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csr_matrix, save_npz

import experiments
import metric_vae.run as vae_script
import run
from benchmarks import compare
from conftest import draw_small_images
from data.sources import load
from layouts import fer_rows, save_arrays, write_fer, write_folder
from metric_vae import space
from metric_vae.metrics import load_metric
from stress import runs
from training.errors import UserError

SECONDS = 20                    # after which an input counts as a hang
VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
SCORED = ("RUN=0", "JUDGE_STEPS=1", "JUDGE_BATCH=16", "IDENTITY_STEPS=1", "SAMPLE=20", "SHOWN=2", "DEVICE=cpu")


def sound(home):
    """Write a sound data set or metric of each kind into a folder."""
    images, labels = draw_small_images(48), np.arange(70) % 7
    content = dict(images=images, labels=labels, identities=labels // 7, split=np.repeat([0, 1, 2], [50, 10, 10]))
    for name in ("tfd", "reference", "fer", "fer_plus", "arrays", "folder", "raf", "metrics"):
        (home / name).mkdir()
    toronto = dict(images=images, labs_ex=labels[:, None] + 1, labs_id=np.arange(70)[:, None] // 7,
                   folds=np.tile(1 + np.arange(70)[:, None] // 7 % 3, (1, 5)))
    savemat(home / "tfd" / "TFD_48x48.mat", toronto, do_compression=True)
    savemat(home / "reference" / "TFD_ranzato_96x96.mat", toronto | dict(images=images.repeat(2, 1).repeat(2, 2)))
    np.savez(home / "reference" / "tfd_data_array.npz", images=images)
    np.savez(home / "reference" / "fau_levels.npz", inds=np.arange(70))
    write_fer(home / "fer" / "fer2013.csv", fer_rows(images))
    write_fer(home / "fer_plus" / "fer2013.csv", fer_rows(images))
    (home / "fer_plus" / "fer2013new.csv").write_text("\n".join(
        [",".join(("Usage", "Image name", *VOTES))]
        + [f"Training,{n}.png," + ",".join("8" if k == n % 8 else "0" for k in range(10)) for n in range(70)]))
    save_arrays(home / "arrays", **content)
    np.savez_compressed(home / "mine.npz", **content)
    write_folder(home / "folder", images)
    for n, image in enumerate(images):
        path = home / "raf" / "Image" / "aligned" / f"{'test' if n > 55 else 'train'}_{n:05d}_aligned.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (home / "raf" / "EmoLabel").mkdir()
    (home / "raf" / "EmoLabel" / "list_patition_label.txt").write_text(
        "".join(f"{'test' if n > 55 else 'train'}_{n:05d}.jpg {n % 7 + 1}\n" for n in range(70)))
    points = np.random.default_rng(0).normal(size=(70, 3))
    np.save(home / "metrics" / "points.npy", points)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.save(home / "metrics" / "distances.npy", distances)
    np.savez(home / "metrics" / "points.npz", points=points, more=distances)
    np.savetxt(home / "metrics" / "points.csv", points, delimiter=",")
    torch.save({"points": torch.from_numpy(points)}, home / "metrics" / "points.pt")
    save_npz(home / "metrics" / "pairs.npz", csr_matrix(np.where(distances < 1, distances, 0)))


def breakable(home):
    """(what is loaded, the file that gets broken), relative to home."""
    some = [("tfd", "tfd/TFD_48x48.mat"), ("fer", "fer/fer2013.csv"), ("fer_plus", "fer_plus/fer2013new.csv"),
            ("mine.npz", "mine.npz"), ("raf", "raf/EmoLabel/list_patition_label.txt")]
    some += [(folder, str(path.relative_to(home))) for folder in ("reference", "arrays") for path in
             sorted((home / folder).iterdir())]
    some += [(folder, str(sorted((home / folder).rglob(f"*.{kind}"))[7].relative_to(home)))
             for folder, kind in (("folder", "png"), ("raf", "jpg"))]
    return some + [(f"metrics/{path.name}",) * 2 for path in sorted((home / "metrics").iterdir())]


def damage(path, rng):
    """Break a file at random; returns how."""
    old = path.read_bytes()
    size = len(old)
    kind = rng.choice(["cut", "flip", "header", "zeros", "noise", "text", "empty", "twice", "insert", "folder", "types",
                       "swapped"])
    new = bytearray(old)
    if kind == "cut":
        new = new[:rng.integers(0, size)]
    elif kind in ("flip", "header"):
        for place in rng.integers(0, min(size, 200) if kind == "header" else size, rng.integers(1, 20)):
            new[place] = rng.integers(0, 256)
    elif kind == "zeros":
        start = rng.integers(0, size)
        new[start:start + 500] = bytes(len(new[start:start + 500]))
    elif kind == "noise":
        new = rng.bytes(rng.integers(1, 3000))
    elif kind == "text":
        new = "\n".join(rng.choice(["a,b", "1,2,3", "\x00", "ü", "nan,inf", '"', "-1"], 40)).encode()
    elif kind == "empty":
        new = b""
    elif kind == "twice":
        new = old * 2
    elif kind == "insert":
        place = rng.integers(0, size)
        new[place:place] = rng.bytes(rng.integers(1, 50))
    elif kind == "swapped":
        others = sorted(other for other in path.parent.iterdir() if other.is_file() and other != path)
        new = rng.choice(others).read_bytes() if others else b""
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "types" and path.suffix in (".npy", ".npz"):
        array = wrong_array(rng)
        if path.suffix == ".npy":
            np.save(path, array, allow_pickle=True)
        else:
            names = ("images", "labels", "identities", "split", "classes", "inds")
            np.savez(path, **{name: array if rng.random() < .3 else np.arange(70) for name in names})
    else:
        path.write_bytes(bytes(new))
    return kind


def wrong_array(rng):
    """An array of a type or shape that is not expected."""
    shape = [(), (0,), (70,), (70, 0), (70, 70), (70, 48, 48), (3, 48, 48), (70, 48, 48, 3), (70, 1)][rng.integers(9)]
    values = rng.normal(0, 10. ** rng.integers(-3, 40), shape)
    kind = rng.choice(["float", "complex", "text", "object", "bool", "nan", "dates", "negative"])
    change = dict(complex=lambda: values + 1j, text=lambda: values.astype(str), object=lambda: values.astype(object),
                  bool=lambda: values > 0, nan=lambda: values * np.nan, dates=lambda: np.zeros(shape, "M8[s]"),
                  negative=lambda: -np.ones(shape, np.int8))
    return np.asarray(change.get(kind, lambda: values)())


def hangs(signum, frame):
    raise TimeoutError(f"longer than {SECONDS} s")


def broken_data(home, count, seed):
    """(what was broken how, problem or an empty text, whether it was refused) of so many data sets and metrics."""
    rng, whole = np.random.default_rng(seed), home / "whole"
    whole.mkdir()
    sound(whole)
    faces, kinds = load(whole / "mine.npz", 48), breakable(whole)
    before = signal.signal(signal.SIGALRM, hangs)
    try:
        for number in range(count):
            what, broken = kinds[number % len(kinds)]
            copy, top = home / str(number), what.split("/")[0]
            copy.mkdir()
            (shutil.copytree if (whole / top).is_dir() else shutil.copy)(whole / top, copy / top)
            how, problem, refused = damage(copy / broken, rng), "", False
            signal.alarm(SECONDS)
            try:
                if top == "metrics":
                    load_metric(str(copy / what), faces, torch.device("cpu"))
                else:
                    load(copy / what, 48)
            except UserError as error:
                refused = True
                problem = "" if all(map(str, error.args)) else "an empty message"
            except BaseException as error:                      # what would be a traceback, and a hang
                problem = f"{type(error).__name__}: {error}"
            finally:
                signal.alarm(0)
            shutil.rmtree(copy)
            yield f"input {number}: {broken}, {how}", problem, refused
    finally:
        signal.signal(signal.SIGALRM, before)


# --- run folders

def unfinished(folder):
    """Make a run folder that of a run which stopped shortly before its end."""
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | dict(finished=False)))
    (folder / "dist_reg_latents.npz").unlink()


def use_space(folder):
    """What a user does with a run in Python."""
    opened = space.load(folder)
    opened.edit(opened.sample(2)[0], opened.classes[0])
    opened.nearest(opened.sample(1)[0])


USES = {                        # what reads a run folder: name: (function of the folder, files that it reads)
    "RESUME": (lambda folder: run.main(["RESUME=0"]),
               "settings.json log.jsonl classifier.pt embeddings.npy no_dist_reg.pt dist_reg.pt "
               "no_dist_reg_latents.npz"),
    "experiments": (lambda folder: experiments.main(SCORED),
                    "settings.json log.jsonl classifier.pt judge.pt identity.pt second.pt no_dist_reg.pt dist_reg.pt "
                    "no_dist_reg_latents.npz dist_reg_latents.npz scores.json"),
    "space": (use_space, "settings.json classifier.pt dist_reg.pt dist_reg_latents.npz"),
    "compare": (lambda folder: compare.main(["RUNS=0"]), "settings.json scores.json"),
    "CLASSIFIER": (lambda folder: run.main(["CLASSIFIER=0", *runs.SMALL]),
                   "settings.json log.jsonl classifier.pt embeddings.npy judge.pt no_dist_reg.pt"),
    "METRIC": (lambda folder: vae_script.main([*runs.ALONE, f"METRIC={folder / 'embeddings.npy'}"]),
               "settings.json embeddings.npy")}


def scored_run(home):
    """A folder with a small finished run 0 that experiments.py has scored."""
    def both():
        runs.write_faces(home)
        run.main(runs.SMALL)
        experiments.main(SCORED)
    code, text, _ = runs.child(home, home / "scored", both)
    assert code == 0, text
    return home / "scored"


def broken_runs(home, count, seed):
    """(what was broken how, problem or an empty text, whether it was refused) of so many run folders."""
    rng, whole = np.random.default_rng(seed), scored_run(home)
    kinds = [(name, file) for name, (_, files) in USES.items() for file in files.split()]
    for number in range(count):
        name, file = kinds[rng.integers(len(kinds))]
        copy = home / f"broken_{number}"
        shutil.copytree(whole, copy)
        if name == "RESUME":
            unfinished(copy / "0")
        how = damage(copy / "0" / file, rng)
        code, text, _ = runs.child(home, copy, lambda: USES[name][0](copy / "0"), seconds=3 * SECONDS)
        problem = "" if code == 0 or runs.says_why(code, text) else f"exit code {code}: {text[-500:]}"
        shutil.rmtree(copy)
        yield f"run folder {number}: {name} with {file}, {how}", problem, code == 1
