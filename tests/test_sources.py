"""Which source a path means."""
import json

from scipy.io import savemat

from data import sources, synthetic
from layouts import fer_rows, save_arrays, write_fer, write_folder


def test_load_finds_the_source_of_every_layout(content, toronto, fer_images, tmp_path):
    for name in ("tfd", "fer", "arrays", "folder"):
        (tmp_path / name).mkdir()
    savemat(tmp_path / "tfd" / "TFD_ranzato_48x48.mat", toronto)
    write_fer(tmp_path / "fer" / "fer2013.csv", fer_rows(fer_images))
    save_arrays(tmp_path / "arrays", **content)
    write_folder(tmp_path / "folder", fer_images)
    found = {name: len(sources.load(str(tmp_path / name), 48)) for name in ("tfd", "fer", "arrays", "folder")}
    assert found == dict(tfd=84, fer=70, arrays=70, folder=70)
    assert sources.load(tmp_path / "tfd", 48, fold=2).name == "TFD, fold 2"


def test_auto_takes_tfd_before_fer2013_before_synthetic_faces(toronto, fer_images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    monkeypatch.setattr(synthetic, "load", lambda size, seed: json.dumps([size, seed]))
    assert sources.load("auto", 48, seed=5) == "[48, 5]" and "data/README.md" in capsys.readouterr().out
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    assert sources.load("auto").name == "FER2013"
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    assert sources.load("auto").name == "TFD, fold 0" and sources.load("fer2013").name == "FER2013"
