"""No file that is read can run code: nothing is unpickled, in the source and for every kind of file; nor can a picture
fill the memory.
"""
import ast
import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from data import synthetic
from data.sources import load
from metric_vae import portrait
from metric_vae.metrics import load_metric
from metric_vae.space import Space
from metric_vae.trained import load_summary
from stress import inputs
from training import checkpoints
from training.errors import UserError
from training.files import read_json
from training.log import read_log

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [*ROOT.glob("*.py"), *(path for package in ("training", "data", "expr_classifier", "metric_vae", "benchmarks")
                                 for path in (ROOT / package).rglob("*.py"))]
SAFE = {"np.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}      # only with this argument
NEVER = ("eval", "exec", "compile", "os.system", "os.popen", "torch.hub.load", "torch.jit.load", "np.fromregex",
         "joblib.load", "yaml.load")
PICKLERS = ("dill", "joblib", "shelve", "marshal", "cloudpickle")
CPU = torch.device("cpu")


def unsafe(source):
    """What in a source text may run code that a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in getattr(node, "keywords", ())}
        if name in SAFE and given.get(SAFE[name][0]) is not SAFE[name][1] or name in NEVER or given.get("shell") or \
                given.get("allow_pickle"):
            found.append(ast.unparse(node))
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None) or ""] + [alias.name for alias in node.names]
            found += [name for name in names if name.split(".")[0] in PICKLERS]
        if ast.unparse(node).startswith("pickle.") and ast.unparse(node) != "pickle.UnpicklingError":
            found.append(ast.unparse(node))
        if isinstance(node, ast.Attribute) and node.attr == "MAX_IMAGE_PIXELS":
            found.append("Pillow's limit is changed")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_unpickles_or_runs_what_a_file_holds(path):
    assert not unsafe(path.read_text())


def test_what_would_unpickle_is_found():
    for source in ("np.load(path)", "np.load(path, allow_pickle=True)", "torch.load(path)", "pickle.load(file)",
                   "import joblib", "eval(text)", "subprocess.run(text, shell=True)", "Image.MAX_IMAGE_PIXELS = None"):
        assert unsafe(source), source


class Malicious:
    """Makes a folder where it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        import os
        return os.mkdir, (str(self.place),)


def packed(save):
    """The bytes that save(file) writes."""
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def malicious_files(place):
    """{form: bytes} of files that make a folder at this place when they are unpickled."""
    bad = Malicious(place)
    array = np.array([bad] * 70, object)
    names = ("images", "labels", "split", "inds", "points", "data", "format", "shape", "class_means", "scale")
    return {"pickle": pickle.dumps(bad), "npy": packed(lambda file: np.save(file, array, allow_pickle=True)),
            "npz": packed(lambda file: np.savez(file, **dict.fromkeys(names, array))),
            "pt": packed(lambda file: torch.save({"model": bad, "points": bad}, file)),
            "old pt": packed(lambda file: torch.save({"model": bad}, file, _use_new_zipfile_serialization=False)),
            "mat": packed(lambda file: savemat(file, dict(images=np.frombuffer(pickle.dumps(bad), np.uint8))))}


@pytest.fixture
def evil(tmp_path):
    """The malicious files, which must not make tmp_path/"made"."""
    forms = malicious_files(tmp_path / "made")
    yield forms
    assert not (tmp_path / "made").exists()
    pickle.loads(forms["pickle"])                               # it would have
    assert (tmp_path / "made").exists()


def test_no_data_set_and_no_metric_is_unpickled(tmp_path, evil, small_faces):
    whole = tmp_path / "whole"
    whole.mkdir()
    inputs.sound(whole)
    for what, broken in inputs.breakable(whole):
        good = (whole / broken).read_bytes()
        for form, content in evil.items():
            (whole / broken).write_bytes(content)
            try:
                load_metric(whole / what, small_faces, CPU) if "metrics" in what else load(whole / what, 48)
            except UserError as error:
                assert all(map(str, error.args)), (broken, form)
        (whole / broken).write_bytes(good)


def test_no_annotation_and_no_cache_is_unpickled(tmp_path, evil, images, user_error):
    for form, content in evil.items():
        folder = tmp_path / form / "train_set"
        for name in ("images", "annotations"):
            (folder / name).mkdir(parents=True)
        Image.fromarray(images[0]).save(folder / "images" / "0.jpg")
        (folder / "annotations" / "0_exp.npy").write_bytes(content)
        user_error(lambda: load(tmp_path / form, 16), "0_exp.npy")
        (tmp_path / "cache.npz").write_bytes(content)
        kept = synthetic.read_cache(tmp_path / "cache.npz")
        with pytest.raises(Exception):
            dict(kept)["images"]                                # None, or refused as it is read


def test_no_file_of_a_run_is_unpickled(tmp_path, evil, small_faces, user_error):
    for content in evil.values():
        path = tmp_path / "embeddings.npy"
        path.write_bytes(content)
        for read in (checkpoints.load_checkpoint, load_summary, read_json, lambda path: load_metric(
                path, small_faces, CPU)):
            user_error(lambda: read(path), path)
        (tmp_path / "log.jsonl").write_bytes(content)
        assert read_log(tmp_path) == []


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path, user_error):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    size = 30_000
    rows = zlib.compress(bytes((size + 1) * size // 100))
    path = tmp_path / "faces" / "happy" / "bomb.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0))
                     + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    user_error(lambda: load(tmp_path / "faces", 16), "bomb.png", "decompression bomb")
    user_error(lambda: portrait.open_pictures([str(path)]), "bomb.png", "decompression bomb")
    space = Space.__new__(Space)                                # it reads pictures without a run
    space.channels, space.size = 1, 16
    user_error(lambda: space._read(path), "bomb.png", "decompression bomb")
