"""Time and memory of loading, embedding and training against the number of faces, up to a million, read from the disk.

Out: benchmarks/results/scale_<device>/ with table.md, results.json and scale.png. Each number of faces gets a
separate images.npy in a temporary folder (2.3 GB for a million) and is measured in a separate process.
python -m benchmarks.scale
With MINUTES=60 instead: what run.py holds in an hour on the largest number, in hour.json and hour.png.
"""
import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import expr_classifier.run as classifier_script
import metric_vae.run as vae_script
from data import synthetic
from data.figures import save
from data.labels import EXPRESSIONS
from data.sources import load
from expr_classifier import train as classifier
from expr_classifier.model import find_architecture
from metric_vae.train import train
from run import metric_of
from training import storage
from training.devices import choose_device, keep_memory
from training.errors import UserError, check_at_least, check_seeds, run_script, whole_numbers
from training.files import make_folder, write_json, write_text
from training.log import read_log
from training.settings import default_settings, parse_one

COUNTS = "1000,10000,102000,1000000"    # numbers of faces; TFD has 102,000
STEPS = 100                 # of training the VAE, on faces from everywhere in the file
MINUTES = 0                 # watch run.py for so long
DEVICE = "auto"
SEED = 0

WATCHED = ("classifier.STEPS=3000", "vae.STEPS=25000")          # of run.py: more than an hour
RESULTS = Path(__file__).parent / "results"
STATUS = Path("/proc/self/status")
COLUMNS = dict(load_seconds=("loading and checks, s", 1), embed_seconds=("embedding, s", 1),
               embed_per_second=("embedding, faces/s", 0), train_per_second=("training, faces/s", 0),
               load_mib=("memory of loading, MiB", 0), embed_mib=("of embedding", 0), train_mib=("of training", 0))


def main(arguments):
    settings = parse_one(arguments, sys.modules[__name__])
    counts = whole_numbers("COUNTS", settings.COUNTS, 32)       # two batches
    check_at_least(1, settings, "STEPS")
    check_at_least(0, settings, "MINUTES")
    check_seeds(settings, "SEED")
    if not STATUS.exists():
        raise UserError(STATUS, "Linux, which says there how much memory a program has", sys.platform, "run it there")
    device = choose_device(settings.DEVICE)
    folder = RESULTS / f"scale_{device.type}"
    make_folder(folder)
    if settings.MINUTES:
        watch_run(folder, max(counts), settings.MINUTES, settings.SEED)
        return
    results = []
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch, multiprocessing.get_context("spawn").Pool(1) as pool:
            write_faces(Path(scratch), count, settings.SEED)
            measured = pool.apply(measure, (scratch, settings.STEPS, settings.SEED, str(device)))
        results.append(dict(faces=count, **measured, git_commit=storage.git_commit()))
        print(json.dumps(results[-1]))
    write_json(folder / "results.json", results)
    lines = ["| faces | " + " | ".join(name for name, _ in COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for result in results:
        cells = [f"{result[key]:,.{decimals}f}" for key, (_, decimals) in COLUMNS.items()]
        lines.append(f"| {result['faces']:,} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    write_text(folder / "table.md", text)
    draw(folder / "scale.png", results, settings.STEPS)
    print(f"{text}\nwrote the results to {folder}")


def write_faces(folder, count, seed, chunk=20_000):
    """Write images.npy and labels.npy of count faces: the synthetic ones, again and again with other noise."""
    faces, rng = synthetic.load(seed=seed), np.random.default_rng(seed)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, faces.size, faces.size))
    for start in range(0, count, chunk):
        rows = np.arange(start, min(start + chunk, count)) % len(faces)
        noise = rng.integers(0, 5, (len(rows), faces.size, faces.size), dtype=np.uint8)
        images[start:start + chunk] = np.minimum(faces.images[rows], 250) + noise
    images.flush()
    np.save(folder / "labels.npy", faces.labels[np.arange(count) % len(faces)])


class Memory(threading.Thread):
    """The most private memory that this process has had, in bytes, while the thread runs.

    Pages of a mapped file are not counted: the system takes them back when it needs them.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.start_bytes = 0, private_memory()
        self.start()

    def run(self):
        while True:
            self.peak = max(self.peak, private_memory())
            time.sleep(0.02)

    def since_last(self):
        """MiB above the beginning, at most, since this was last asked."""
        peak, self.peak = max(self.peak, private_memory()), 0
        return (peak - self.start_bytes) / 2 ** 20


def private_memory(process="self"):
    """Anonymous memory of a process in bytes (Linux); process: its number."""
    return int(Path(f"/proc/{process}/status").read_text().split("RssAnon:")[1].split()[0]) * 1024


def measure(path, steps, seed, device):
    """Load, embed and train for some steps on the faces at path; returns what COLUMNS names."""
    keep_memory()
    device, settings = choose_device(device), default_settings(vae_script)
    of_classifier = default_settings(classifier_script)
    model = find_architecture(of_classifier.ARCHITECTURE)(48, len(EXPRESSIONS)).to(device).eval().requires_grad_(False)
    metric = metric_of(model, of_classifier.LAYER)
    memory = Memory()
    start = time.perf_counter()
    faces = load(path, 48, seed=seed)
    faces.fingerprint
    loaded, load_mib = time.perf_counter() - start, memory.since_last()
    start = time.perf_counter()
    classifier.layer_of(model, faces, np.arange(len(faces)), device)
    embedded, embed_mib = time.perf_counter() - start, memory.since_last()
    order = np.random.default_rng(seed).permutation(len(faces))
    split = np.full(len(faces), -1)
    split[order[:settings.BATCH]] = 1
    split[order[settings.BATCH:][:steps * settings.BATCH]] = 0
    with tempfile.TemporaryDirectory() as scratch:
        train("dist_reg", replace(faces, split=split), metric, replace(settings, STEPS=1), Path(scratch), seed, device,
              "fp32")                                           # STEPS=1: one epoch
        speed = read_log(Path(scratch))[-1]["images_per_second"]
    return dict(load_seconds=loaded, embed_seconds=embedded, embed_per_second=len(faces) / embedded,
                train_per_second=speed, load_mib=load_mib, embed_mib=embed_mib, train_mib=memory.since_last())


def watch_run(folder, count, minutes, seed):
    """Write hour.json and hour.png: what run.py holds while it works on so many faces."""
    with tempfile.TemporaryDirectory() as scratch:
        write_faces(Path(scratch), count, seed)
        parts = np.random.default_rng(seed).choice(3, count, p=[.05, .01, .94])
        np.save(Path(scratch) / "split.npy", parts)             # few training faces: an hour sees some epochs
        held = watch(Path(scratch), minutes)
    write_json(folder / "hour.json", dict(faces=count, git_commit=storage.git_commit(), **held))
    draw_held(folder / "hour.png", count, held)
    print(f"wrote hour.json and hour.png to {folder}")


def watch(path, minutes):
    """Start run.py on the faces at path, look at it once a minute, and stop it; returns {what it held: values}.

    Raises UserError where it ends within the first minute.
    """
    runs = path / "runs"
    program = ("import sys, run\nfrom pathlib import Path\nfrom training import errors, storage\n"
               "storage.RUNS = Path(sys.argv[1])\nerrors.run_script(lambda: run.main(sys.argv[2:]))")
    process = subprocess.Popen([sys.executable, "-c", program, str(runs), f"DATA={path}", *WATCHED],
                               cwd=Path(__file__).parents[1])
    held = {name: [] for name in ("minutes", "memory, MiB", "open files", "files of the run, MiB")}
    begin = time.perf_counter()
    try:
        while process.poll() is None and time.perf_counter() - begin < 60 * minutes:
            time.sleep(min(60, 60 * minutes))
            if process.poll() is None:
                values = ((time.perf_counter() - begin) / 60, private_memory(process.pid) / 2 ** 20,
                          len(list(Path(f"/proc/{process.pid}/fd").iterdir())),
                          sum(file.stat().st_size for file in runs.glob("*/*")) / 2 ** 20)
                for of, value in zip(held.values(), values):
                    of.append(round(value, 3))
    finally:
        process.terminate()
        process.wait()
    if not held["minutes"]:
        raise UserError("run.py", "a run of more than a minute", f"it ended before, with {process.returncode}",
                        "see what it printed, or raise COUNTS")
    return held


def draw_held(path, count, held):
    """Draw what watch found against the minutes."""
    minutes, *names = held
    figure = Figure((10, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), names):
        axes.plot(held[minutes], held[name], color="#0072B2")
        axes.set(xlabel="minutes of run.py", ylabel=name, ylim=(0, 1.1 * max(held[name])))
        axes.grid(alpha=.25)
    figure.suptitle(f"run.py on {count:,} faces of 48x48 pixels, read from the disk")
    save(figure, path)


def draw(path, results, steps):
    """Draw seconds and memory against the number of faces."""
    figure = Figure((10, 4.2), layout="constrained")
    counts = [result["faces"] for result in results]
    of = lambda key: [result[key] for result in results]
    epoch = [count / rate for count, rate in zip(counts, of("train_per_second"))]
    seconds = {"loading and checks": of("load_seconds"), "embedding": of("embed_seconds"),
               f"an epoch of training, at the rate of {steps} steps": epoch}
    memory = {"loading and checks": of("load_mib"), "embedding": of("embed_mib"), "training": of("train_mib")}
    for axes, label, curves in zip(figure.subplots(1, 2), ("seconds", "memory above an empty program, MiB"),
                                   (seconds, memory)):
        for (name, curve), colour in zip(curves.items(), ("#0072B2", "#D55E00", "#444444")):
            axes.plot(counts, curve, "o-", color=colour, label=name)
        axes.set(xscale="log", xlabel="faces on the disk, 48x48 pixels", ylabel=label)
        axes.grid(alpha=.25)
        axes.legend(frameon=False, loc="lower right")
    figure.axes[0].set(yscale="log", ylim=(.01, None))
    figure.axes[1].set_ylim(bottom=0)
    save(figure, path)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
