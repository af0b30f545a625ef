"""Public data sets by name, from small files in their original formats, and without a network."""
import bz2
import pickle
import urllib.error
import urllib.request
from dataclasses import replace

import joblib
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

import data.options
from data import public, sources
from data.pixels import square, squares
from data.splits import SPLITS
from layouts import loaded
from training.settings import default_settings

TRAIN = 56                              # of the 70 images; the others are test


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The folder of downloads, empty; a try to download fails at once."""
    def refuse(*_, **__):
        raise urllib.error.URLError("no network in a test")
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("time.sleep", lambda seconds: None)                 # between scikit-learn's tries
    monkeypatch.setattr(public, "FOLDER", tmp_path)
    for folder in ("torchvision", "scikit_learn"):
        (tmp_path / folder).mkdir()
    return tmp_path


def write_idx(path, array):
    """MNIST's format: 0, 0, the type, the number of axes, their lengths, the values; big-endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {np.uint8: 8, np.int32: 12}[array.dtype.type]
    path.write_bytes(bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">i4").tobytes()
                     + array.astype(array.dtype.newbyteorder(">")).tobytes())


def write_mnist(folder, images, labels, names="{}-images-idx3-ubyte {}-labels-idx1-ubyte", parts=("train", "t10k"),
                train=TRAIN):
    for part, rows in zip(parts, (slice(train), slice(train, None))):
        for name, array in zip(names.format(part, part).split(), (images, labels)):
            write_idx(folder / "raw" / name, array[rows])


def test_fashion_mnist_has_its_own_test_and_val_is_a_tenth_of_train(place, images, labels, capsys):
    images, labels = np.concatenate([images, 255 - images, images // 2]), np.tile(labels, 3)
    write_mnist(place / "torchvision" / "FashionMNIST", images, labels.astype(np.uint8), train=140)
    faces = sources.load("torchvision:FashionMNIST", 16)
    assert np.array_equal(faces.images, images) and np.array_equal(faces.labels, labels)
    assert faces.classes[:2] == ("T-shirt/top", "Trouser") and len(faces.classes) == 7
    assert (faces.identities == -1).all()
    assert (faces.split[140:] == 2).all() and set(faces.split[:140]) == {0, 1}
    assert np.bincount(faces.labels[faces.split == 1]).tolist() == [2] * 7
    out = capsys.readouterr().out
    assert "no val set: 14 of the 140 train" in out and "downloading" not in out
    again, other = (loaded(public, "torchvision:FashionMNIST", 16, seed).split for seed in (0, 1))
    assert np.array_equal(faces.split, again) and not np.array_equal(faces.split, other)
    assert np.array_equal(loaded(public, "torchvision:FashionMNIST", 24).images, squares(images, 24, "here"))


def test_black_pictures_are_left_out_with_a_count(place, images, labels, capsys):
    images[[3, 60]] = 0
    write_mnist(place / "torchvision" / "KMNIST", images, labels.astype(np.uint8))
    faces = loaded(public, "torchvision:KMNIST", 16)
    assert np.array_equal(faces.labels, np.delete(labels, [3, 60])) and "left out 2 of 70" in capsys.readouterr().out


def test_of_qmnists_labels_the_first_is_the_class(place, images, labels):
    many = np.stack([labels, *np.arange(7 * 70).reshape(7, 70)], 1).astype(np.int32)
    write_mnist(place / "torchvision" / "QMNIST", images, many,
                "qmnist-{}-images-idx3-ubyte qmnist-{}-labels-idx2-int", ("train", "test"))
    assert np.array_equal(loaded(public, "torchvision:QMNIST", 16).labels, labels)


def test_emnist_is_balanced_and_its_columns_become_rows_again(place, images, labels):
    write_mnist(place / "torchvision" / "EMNIST", images.transpose(0, 2, 1), labels.astype(np.uint8) + 10,
                "emnist-balanced-{}-images-idx3-ubyte emnist-balanced-{}-labels-idx1-ubyte", ("train", "test"))
    faces = loaded(public, "torchvision:EMNIST", 16)
    assert np.array_equal(faces.images, images) and faces.classes == tuple("ABCDEFG")


def test_usps_is_read_from_its_text(place, images, labels):
    for name, rows in (("usps.bz2", slice(TRAIN)), ("usps.t.bz2", slice(TRAIN, None))):
        lines = [f"{label + 1} " + " ".join(f"{n}:{pixel / 127.5 - 1:.9f}" for n, pixel in enumerate(image.ravel(), 1))
                 for image, label in zip(images[rows], labels[rows])]
        (place / "torchvision" / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    faces = loaded(public, "torchvision:USPS", 16)
    assert np.abs(faces.images.astype(int) - images).max() <= 1 and np.array_equal(faces.labels, labels)
    assert faces.classes == tuple("0123456") and (faces.split == 2).sum() == 70 - TRAIN


def test_colours_with_channels_last_and_first_become_grey_unless_kept(place, labels, monkeypatch):
    """CIFAR10 and SVHN, here without their checksums."""
    colours = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    grey = np.stack([square(Image.fromarray(picture), 32)[0] for picture in colours])
    folder = place / "torchvision" / "cifar-10-batches-py"
    folder.mkdir()
    for name, rows in (("data_batch_1", slice(TRAIN)), ("test_batch", slice(TRAIN, None))):
        flat = colours[rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
        (folder / name).write_bytes(pickle.dumps(dict(data=flat, labels=labels[rows].tolist())))
    (folder / "batches.meta").write_bytes(pickle.dumps(dict(label_names=list("abcdefghij"))))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": None})
    for part, rows in (("train", slice(TRAIN)), ("test", slice(TRAIN, None))):
        digits = np.where(labels[rows] == 0, 10, labels[rows])              # SVHN's 10 is the digit 0
        savemat(place / "torchvision" / f"{part}.mat", dict(X=colours[rows].transpose(1, 2, 3, 0), y=digits[:, None]))
    monkeypatch.setattr(datasets.SVHN, "split_list", {part: ["", f"{part}.mat", None] for part in ("train", "test")})
    for name, classes in (("CIFAR10", "abcdefg"), ("SVHN", "0123456")):
        faces = loaded(public, f"torchvision:{name}", 32)
        assert np.abs(faces.images.astype(int) - grey).max() <= 1 and np.array_equal(faces.labels, labels)
        assert faces.classes == tuple(classes) and (faces.split == 2).sum() == 70 - TRAIN
        assert np.array_equal(loaded(public, f"torchvision:{name}", 32, COLOUR=True).images, colours)


def test_folders_of_pictures_without_a_split_get_a_drawn_one(place, images, labels, capsys):
    """EuroSAT, one picture of it damaged, others of other sizes."""
    for n, (image, label) in enumerate(zip(images, labels)):
        path = place / "torchvision" / "eurosat" / "2750" / "ABCDEFG"[label] / f"{n:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.pad(image, ((0, 0), (n % 2, n % 2)))).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:100])                               # the last one of G
    faces = loaded(public, "torchvision:EuroSAT", 16)
    order = np.argsort(labels, kind="stable")[:-1]
    assert np.array_equal(faces.images, images[order]) and np.array_equal(faces.labels, labels[order])
    assert faces.classes == tuple("ABCDEFG") and np.bincount(faces.split).tolist() == [69 - 14, 7, 7]
    out = capsys.readouterr().out
    assert "left out 1 of 70 pictures" in out and "69: " in out and "cut 34 images" in out


def test_pets_train_on_trainval(place, images, labels):
    folder = place / "torchvision" / "oxford-iiit-pet"
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    lines = [f"cat_{'abcdefg'[label]}_{n} {label + 1} 1 1\n" for n, label in enumerate(labels)]
    for image, line in zip(images, lines):
        Image.fromarray(image).save(folder / "images" / f"{line.split()[0]}.jpg", quality=100)
    (folder / "annotations" / "trainval.txt").write_text("".join(lines[:TRAIN]))
    (folder / "annotations" / "test.txt").write_text("".join(lines[TRAIN:]))
    faces = loaded(public, "torchvision:OxfordIIITPet", 16)
    assert np.abs(faces.images.astype(int) - images).max() <= 9             # JPEG
    assert faces.classes[6] == "Cat G" and np.array_equal(faces.labels, labels)
    assert (faces.split[TRAIN:] == 2).all() and set(faces.split[:TRAIN]) == {0, 1}


def test_imagenettes_classes_have_one_name_each_and_val_stays_val(place, images):
    for n, image in enumerate(images):
        part, of = ("val" if n % 7 == 0 else "train"), ("n01440764", "n03000684")[n % 2]
        path = place / "torchvision" / "imagenette2-160" / part / of / f"{n:02d}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    faces = loaded(public, "torchvision:Imagenette", 16)
    assert faces.classes == ("tench", "chain saw") and np.bincount(faces.split).tolist() == [54, 10, 6]


def test_fake_data_is_the_same_each_time(monkeypatch):
    arguments = dict(size=60, image_size=(3, 20, 16), num_classes=3)
    monkeypatch.setitem(public.SETS, "FakeData", {"train": arguments})
    faces, again = (loaded(public, "torchvision:FakeData", 16) for _ in range(2))
    pictures = datasets.FakeData(**arguments)
    assert np.array_equal(faces.images, [square(pictures[n][0], 16)[0] for n in range(60)])
    assert faces.labels.tolist() == [pictures[n][1] for n in range(60)] and faces.classes == ("0", "1", "2")
    assert np.bincount(faces.split).tolist() == [48, 6, 6] and faces.fingerprint == again.fingerprint
    kept = loaded(public, "torchvision:FakeData", 16, COLOUR=True)
    assert np.array_equal(kept.images, [square(pictures[n][0], 16, colour=True)[0] for n in range(60)])


def test_olivettis_classes_are_people_who_are_in_all_parts(place):
    pictures = np.random.default_rng(0).integers(0, 256, (400, 64, 64), np.uint8)
    pictures[7] = 40
    joblib.dump(pictures.transpose(0, 2, 1).reshape(400, 4096), place / "scikit_learn" / "olivetti_py3.pkz", compress=6)
    faces, kept = sources.load("olivetti", 64), np.delete(np.arange(400), 7)
    assert np.array_equal(faces.images, pictures[kept]) and np.array_equal(faces.labels, kept // 10)
    assert len(faces.classes) == 40 and (faces.identities == -1).all()
    for part in range(len(SPLITS)):
        assert len(np.unique(faces.labels[faces.split == part])) >= 39      # person 0 has nine pictures


@pytest.mark.parametrize("size", [48, 96])
def test_lfw_takes_the_faces_of_people_with_many_pictures(size, place, capsys):
    home = place / "scikit_learn" / "lfw_home"
    for name, count in (("Ann_Lee", 22), ("Bo_Ek", 20), ("Cy_Once", 19)):
        (home / "lfw_funneled" / name).mkdir(parents=True)
        for n in range(count):
            picture = np.full((250, 250, 3), 255, np.uint8)                 # white outside the face
            picture[70:195, 62:187] = np.linspace(20, 60 + n, 125)[:, None, None]      # dark above, lighter below
            Image.fromarray(picture).save(home / "lfw_funneled" / name / f"{name}_{n:04d}.jpg", quality=95)
    for name in ("pairs", "pairsDevTrain", "pairsDevTest"):
        (home / f"{name}.txt").touch()
    faces = sources.load("lfw", size)
    assert faces.classes == ("Ann Lee", "Bo Ek") and np.bincount(faces.labels).tolist() == [22, 20]
    assert "42 pictures of the 2 people with at least 20" in capsys.readouterr().out
    assert faces.images.shape == (42, size, size) and (faces.identities == -1).all()
    assert loaded(public, "lfw", size, COLOUR=True).images.shape == (42, size, size, 3)
    inner = faces.images[:, 3:-3, 3:-3].astype(int)                         # JPEG blurs the white over the edge
    assert inner.max() < 90 and (inner[:, -1] - inner[:, 0]).min() > 30
    assert all({0, 1} == set(faces.labels[faces.split == part]) for part in range(len(SPLITS)))


@pytest.mark.filterwarnings("ignore:Retry downloading")
@pytest.mark.parametrize("name", ["olivetti", "lfw", *(f"torchvision:{name}" for name in public.SETS
                                                       if name != "FakeData")])
def test_without_files_and_network_the_message_says_where_they_belong(name, place, user_error, capsys):
    """So each of SETS is one of torchvision's and takes these arguments, since the download comes after their check."""
    folder = place / ("torchvision" if name.startswith("torchvision") else "scikit_learn")
    user_error(lambda: loaded(public, name), folder, name, "no network in a test", f"python -m data {name}")
    assert f"{name}: downloading to {folder}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["fashionmnist", "CocoDetection", "VOCSegmentation", "Kinetics", "ImageFolder", ""])
def test_another_name_is_refused_with_those_that_work(name, user_error):
    user_error(lambda: sources.load(f"torchvision:{name}"), repr(name), "MNIST, FashionMNIST", "OxfordIIITPet")


@pytest.mark.parametrize("change", [dict(CLASS_NAMES="a,b"), dict(IDENTITY_PATTERN="a")])
def test_a_constant_without_meaning_for_these_is_refused(change, user_error):
    options = replace(default_settings(data.options), **change)
    user_error(lambda: sources.load("torchvision:MNIST", options=options), *change, "a public data set")


def test_a_path_that_cannot_be_is_refused_with_the_names_there_are(user_error):
    user_error(lambda: sources.load("nowhere"), "fer2013, olivetti, lfw, torchvision:MNIST or a path")
