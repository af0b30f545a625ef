"""Times training, embedding, t-SNE and drawing: here, in a plain PyTorch loop and in pythae, in turn.

Out: benchmarks/results/speed_<device>/ with table.md and results.json. python -m benchmarks.speed, or only some
parts: PARTS=training,others. For pythae's column: pip install pythae==0.1.2
"""
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import expr_classifier.run as classifier_script
import metric_vae.run as vae_script
import run as main_script
from benchmarks import contenders
from benchmarks.contenders import OurLoop, PlainLoop, few, our_log, pythae_epoch
from data import options as data_options, synthetic
from data.figures import tsne
from expr_classifier import train as classifier
from expr_classifier.model import find_architecture
from metric_vae.train import MODELS
from training import storage
from training.devices import choose_device, choose_precision, keep_memory
from training.errors import check_at_least, check_between, check_choice, check_seeds, run_script
from training.files import make_folder, read_json, write_json, write_text
from training.log import read_log
from training.settings import default_settings, parse, parse_one

PARTS = "matrix,training,quality,others,memory,processes"       # what is measured now; the rest keeps its last results
ROUNDS = 5                  # measurements of each, in turn; their median counts
DEVICE = "auto"
PRECISION = "auto"          # of our column: "auto", "fp32", "bf16"
SEED = 0

MATRIX = 2048               # rows and columns of the product that tells a processor's rate
GPU_MATRIX = 8192           # and a GPU's
TRAINING_FACES = 256        # of one measurement of training on a processor
GPU_TRAINING_FACES = 3200   # and on a GPU, where the start of an epoch would count for much in a few batches
QUALITY_FACES = 756         # training faces, as of a small data set
QUALITY_EPOCHS = 50         # of the reference recipe, as its authors set them
EMBEDDED_FACES = 4096
TSNE_FACES = 600
DRAWN_FACES = 400
PROCESS_RUN = "DATA=synthetic classifier.BATCH=64 vae.BATCH=64 classifier.STEPS=105 vae.STEPS=105"
PROCESS_ROUNDS = 2

ROOT = Path(__file__).resolve().parents[1]
CODE = ("*.py", "data/*.py", "expr_classifier/*.py", "metric_vae/*.py", "metric_vae/page/*", "training/*.py")
RESULTS = ROOT / "benchmarks" / "results"


def main(arguments):
    settings = parse_one(arguments, sys.modules[__name__])
    for part in settings.PARTS.split(","):
        check_choice("PARTS", part, MEASURES)
    check_between(1, 1000, settings, "ROUNDS", "PROCESS_ROUNDS", "QUALITY_EPOCHS")
    check_between(1, 2 ** 16, settings, "MATRIX", "GPU_MATRIX")
    check_at_least(8, settings, "TRAINING_FACES", "GPU_TRAINING_FACES", "QUALITY_FACES", "EMBEDDED_FACES",
                   "TSNE_FACES", "DRAWN_FACES")
    check_seeds(settings, "SEED")
    parse(settings.PROCESS_RUN.split(), {"": main_script, "classifier": classifier_script, "vae": vae_script,
                                         "faces": data_options})
    keep_memory()
    device = choose_device(settings.DEVICE)
    precision = choose_precision(settings.PRECISION, device)
    faces = synthetic.load()
    folder = RESULTS / f"speed_{device.type}"
    make_folder(folder)
    path = folder / "results.json"
    results = read_json(path) if path.exists() else {}
    results["machine"] = dict(device=name_of(device), threads=torch.get_num_threads(), torch=torch.__version__,
                              precision=precision, rounds=settings.ROUNDS)
    for part in settings.PARTS.split(","):
        print(f"measuring: {part}")
        results[part] = MEASURES[part](settings, faces, device, precision)
        results.setdefault("git_commits", {})[part] = storage.git_commit()
        write_json(path, results)
    text = table(results)
    write_text(folder / "table.md", text)
    print(f"{text}\nwrote table.md and results.json to {folder}")


def name_of(device):
    """The GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    about = Path("/proc/cpuinfo")                               # Linux
    lines = about.read_text().splitlines() if about.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {torch.get_num_threads()} threads"


def seconds_of(call, device):
    """Seconds that call() takes, the device's own work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(calls, device, rounds):
    """The seconds of each call, {name: [one a round]}: a round runs each of them once, after one unmeasured round."""
    for call in calls.values():
        call()
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call, device))
    return seconds


# --- the machine

def measure_matrix(settings, faces, device, precision):
    """Floating-point operations a second of a square matrix product, in fp32 and, where that is used, in bf16."""
    size, products = settings.GPU_MATRIX if device.type == "cuda" else settings.MATRIX, {}
    for name in dict.fromkeys(("fp32", precision)):
        a = torch.randn(size, size, device=device).to(torch.bfloat16 if name == "bf16" else torch.float32)
        products[name] = lambda a=a: a @ a
    seconds = in_turn(products, device, settings.ROUNDS)
    rate = {name: 2 * size ** 3 / statistics.median(of) for name, of in seconds.items()}
    return {f"{name}_flops_per_second": value for name, value in rate.items()}


# --- training of one network

def measure_training(settings, faces, device, precision):
    """Images a second of training the reference's network, here, in a plain loop and in pythae."""
    count = settings.GPU_TRAINING_FACES if device.type == "cuda" else settings.TRAINING_FACES
    faces = few(faces, count, contenders.BATCH)
    count = len(faces.rows("train"))
    with tempfile.TemporaryDirectory() as scratch:
        calls = dict(plain=PlainLoop(faces, device).train_epoch)
        if importlib.util.find_spec("pythae"):
            calls["pythae"] = pythae_epoch(faces, device, scratch)
        else:
            print("pythae is not installed: without its column; pip install pythae==0.1.2")
        calls["here"] = OurLoop(faces, device, precision, Path(scratch)).train_epoch
        seconds = in_turn(calls, device, settings.ROUNDS)
        # without our checkpoint and validation, which the others do not have
        seconds["here"] = [line["seconds"] for line in read_log(Path(scratch))][-settings.ROUNDS:]
    counter = FlopCounterMode(display=False)
    with counter:
        PlainLoop(few(faces, contenders.BATCH, contenders.BATCH), device).train_epoch()
    return dict(images_per_second={name: [count / s for s in of] for name, of in seconds.items()},
                flops_per_image=counter.get_total_flops() / contenders.BATCH)


# --- the reference's quality

def measure_quality(settings, faces, device, precision):
    """[seconds of training, loss on held-out faces] of each epoch: of the reference recipe in the plain loop, and ours.

    The loss is the recipe's: squared error + ALPHA KL on sampled z. Ours has the light networks and our schedule, and
    the same faces and loss.
    """
    faces = few(faces, settings.QUALITY_FACES, len(faces))
    loop, curve = PlainLoop(faces, device), []
    for epoch in range(settings.QUALITY_EPOCHS):
        seconds = seconds_of(loop.train_epoch, device)
        curve.append([seconds, loop.val_loss()])
        print(f"reference recipe, epoch {epoch + 1} of {settings.QUALITY_EPOCHS}: {seconds:.1f} s, "
              f"loss {curve[-1][1]:.2f}")
    with tempfile.TemporaryDirectory() as scratch:
        log = our_log(faces, device, precision, Path(scratch))
    return dict(faces=settings.QUALITY_FACES, reference_curve=curve,
                our_curve=[[line["seconds"], line["val_error"] + contenders.ALPHA * line["val_kl"]] for line in log])


def seconds_until(loss, curve):
    """Seconds of training until the loss on held-out faces is this or lower, of [seconds, loss] an epoch; or None."""
    total = 0.0
    for seconds, reached in curve:
        total += seconds
        if reached <= loss:
            return total


# --- everything else

def measure_others(settings, faces, device, precision):
    """Faces a second of embedding, t-SNE and drawing synthetic faces."""
    architecture = default_settings(classifier_script).ARCHITECTURE
    model = find_architecture(architecture)(faces.size, len(faces.classes)).to(device).eval()
    rows = np.arange(len(faces))[:settings.EMBEDDED_FACES]
    drawn, rng = settings.DRAWN_FACES, np.random.default_rng(settings.SEED)
    calls = dict(embedding=(len(rows), lambda: classifier.layer_of(model, faces, rows, device)),
                 tsne=(settings.TSNE_FACES,                     # of new points each time, since maps are kept
                       lambda: tsne(rng.normal(size=(settings.TSNE_FACES, 16)))),
                 drawing=(drawn, lambda: synthetic.make(faces.size, settings.SEED, drawn, drawn // 7)))
    seconds = in_turn({name: call for name, (_, call) in calls.items()}, device, settings.ROUNDS)
    return {name: [count / s for s in seconds[name]] for name, (count, _) in calls.items()}


def run_copy(*command, threads=None, look=lambda pid: None):
    """Run python with this command in a copy of the project; returns its log.

    threads: of each of its processes; look: is called with its number, again and again, while it runs.
    """
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with tempfile.TemporaryDirectory() as scratch:
        for path in (path for code in CODE for path in ROOT.glob(code)):
            copy = Path(scratch) / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        command = [sys.executable, *command]
        process = subprocess.Popen(command, cwd=scratch, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            look(process.pid)
            time.sleep(0.05)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return read_log(Path(scratch) / "experiments" / "0")


def measure_processes(settings, faces, device, precision):
    """Seconds of training by run.py in one process and in two on the same cores, and how far the losses differ.

    seconds: the sum over the three trainings of an epoch's median; loss_difference: of their first epoch's losses, the
    largest, as a share.
    """
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        return {}
    run = ["run.py", *settings.PROCESS_RUN.split(), f"DEVICE={device.type}", "PRECISION=fp32"]
    threads = torch.get_num_threads()
    threads_of = dict(one=threads, two=max(threads // 2, 1))    # of each process: all on the same cores
    commands = dict(one=run, two=["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *run])
    lines = {name: [] for name in commands}
    for _ in range(settings.PROCESS_ROUNDS):
        for name, command in commands.items():
            lines[name] += run_copy(*command, threads=threads_of[name])
    stages = ("classifier", *MODELS)
    seconds = {name: sum(statistics.median(line["seconds"] for line in of if line["stage"] == stage)
                         for stage in stages) for name, of in lines.items()}
    firsts = ([next(line["loss"] for line in of if line["stage"] == stage) for stage in stages]
              for of in lines.values())
    return dict(run=settings.PROCESS_RUN, seconds=seconds,
                loss_difference=max(abs(b / a - 1) for a, b in zip(*firsts)))


def measure_memory(settings, faces, device, precision):
    """The peak memory in bytes of run.py, all its processes together, with an epoch of each training (Linux)."""
    if not Path("/proc/self/smaps_rollup").exists():
        return {}
    found = [0]
    run_copy("run.py", "DATA=synthetic", f"DEVICE={device}", f"PRECISION={precision}", "classifier.STEPS=1",
             "vae.STEPS=1", look=lambda pid: found.append(memory_of(pid)))
    return dict(run_py_bytes=max(found))


def memory_of(pid):
    """Bytes of memory of a process and those that it started; what they share counts once."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:                                             # it has just ended
        return 0
    own = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return own + sum(map(memory_of, children))


MEASURES = dict(matrix=measure_matrix, training=measure_training, quality=measure_quality, others=measure_others,
                processes=measure_processes, memory=measure_memory)


# --- the table

def table(results):
    """What was measured, in Markdown."""
    machine = results["machine"]
    lines = [f"{machine['device']}, torch {machine['torch']}, {machine['precision']} here. Medians of "
             f"{machine['rounds']} interleaved rounds.", "", "| | |", "|---|---|"]
    row = lambda name, value: lines.append(f"| {name} | {value} |")
    if "matrix" in results:
        for name, rate in results["matrix"].items():
            row(f"matrix product, {name.split('_')[0]}", f"{rate / 1e9:,.0f} GFLOP/s")
    if "training" in results:
        speeds = {name: statistics.median(of) for name, of in results["training"]["images_per_second"].items()}
        for name, speed in speeds.items():
            row(f"the reference's VAE, training, {name}", f"{speed:.1f} images/s")
        for name in speeds:
            if name != "here":
                row(f"here / {name}", f"{speeds['here'] / speeds[name]:.2f}")
        if "matrix" in results:
            rate = results["matrix"][f"{machine['precision']}_flops_per_second"]
            share = speeds["here"] * results["training"]["flops_per_image"] / rate
            row(f"share of the {machine['precision']} matrix rate, here", f"{share:.0%}")
    if "quality" in results:
        q = results["quality"]
        curve = q["reference_curve"]
        loss = min(loss for _, loss in curve)
        theirs, ours = seconds_until(loss, curve), seconds_until(loss, q["our_curve"])
        row(f"the reference recipe on {q['faces']} faces: the best held-out loss of its {len(curve)} epochs, "
            f"{loss:.2f}", f"{theirs:.0f} s")
        row("our networks and schedule, until the same loss",
            f"{ours:.1f} s, {theirs / ours:.0f}x faster" if ours else "not reached")
    for name, speeds in results.get("others", {}).items():
        row(name, f"{statistics.median(speeds):,.0f} faces/s")
    if results.get("processes"):
        of, runs = results["processes"]["seconds"], results["processes"]
        row(f"an epoch of each training, one process, two processes ({runs['run']})",
            f"{of['one']:.1f} s, {of['two']:.1f} s, {of['two'] / of['one']:.2f} times as long")
        row("the losses of their first epoch differ by", f"{runs['loss_difference']:.0e} of the loss")
    if results.get("memory"):
        row("run.py, peak memory", f"{results['memory']['run_py_bytes'] / 2 ** 30:.2f} GiB")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
