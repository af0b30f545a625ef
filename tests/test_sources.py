"""Each source of faces on small files in its public format, whole and damaged."""
import csv
import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from conftest import draw_small_images
from data import arrays, fer2013, folder, tfd
from data.faces import EXPRESSIONS, resized

NAMES = ("angry", "disgusted", "Fear", "happiness", "sad", "Surprise", "neutral")      # as folders may be called


# --- TFD

@pytest.fixture
def toronto():
    """TFD's four fields for 84 faces of 48x48 pixels: 70 labelled ones of 10 people, then 14 unlabelled ones.

    In fold f person p is part (p + f) % 10: 0..6 train, 7 and 8 valid, 9 test.
    """
    images = draw_small_images(48, people=12)
    labels = np.where(np.arange(84) < 70, np.arange(84) % 7 + 1, -1).astype(np.int16)
    identities = np.where(labels > 0, np.arange(84) // 7, -1).astype(np.int16)
    place = (identities[:, None] + np.arange(5)) % 10
    folds = np.where(labels[:, None] < 0, 0, np.where(place < 7, 1, np.where(place < 9, 2, 3))).astype(np.uint8)
    return dict(images=images, labs_ex=labels[:, None], labs_id=identities[:, None], folds=folds)


def test_tfd_is_read_row_by_column_in_c_order_with_labels_from_0(toronto, tmp_path):
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 48)
    assert np.array_equal(faces.images, toronto["images"]) and faces.images.flags.c_contiguous
    assert faces.labels.tolist() == [*np.arange(70) % 7] + [-1] * 14
    assert faces.identities.tolist() == [*np.arange(70) // 7] + [-1] * 14


def test_tfd_fields_may_be_rows_and_the_file_compressed(toronto, tmp_path):
    savemat(tmp_path / "a.mat", toronto)
    rows = {**toronto, "labs_ex": toronto["labs_ex"].T, "labs_id": toronto["labs_id"].T.astype(float)}
    savemat(tmp_path / "b.mat", rows, do_compression=True)
    assert tfd.load(tmp_path / "a.mat").fingerprint == tfd.load(tmp_path / "b.mat").fingerprint


@pytest.mark.parametrize("fold", range(5))
def test_a_tfd_fold_names_the_split_and_unlabelled_faces_train(fold, toronto, tmp_path):
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 48, fold)
    for person in range(10):
        place = (person + fold) % 10
        assert set(faces.split[faces.identities == person]) == {0 if place < 7 else 1 if place < 9 else 2}
    assert (faces.split[70:] == 0).all()


def test_an_unlabelled_tfd_face_of_a_person_held_out_is_held_out_too(toronto, tmp_path):
    toronto["labs_id"][70:73, 0] = 9, 7, 0                      # in fold 0: test, valid, train
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    assert tfd.load(tmp_path, 48, 0).split[70:75].tolist() == [2, 1, 0, 0, 0]


def test_tfd_without_folds_gets_a_drawn_split_that_shares_no_identity(toronto, tmp_path, capsys):
    del toronto["folds"]
    savemat(tmp_path / "TFD_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 48, seed=3)
    people = [set(faces.identities[(faces.split == part) & (faces.identities >= 0)]) for part in range(3)]
    assert all(people) and not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert "no folds" in capsys.readouterr().out


def test_black_tfd_faces_are_left_out_with_a_count(toronto, tmp_path, capsys):
    toronto["images"][[72, 80]] = 0
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 48)
    assert len(faces) == 82 and "left out 2 of 84" in capsys.readouterr().out
    assert np.array_equal(faces.images[72], toronto["images"][73])


@pytest.mark.parametrize("present, size, chosen", [
    (("TFD_48x48.mat", "TFD_ranzato_48x48.mat", "TFD_ranzato_96x96.mat"), 48, "TFD_ranzato_48x48.mat"),
    (("TFD_48x48.mat", "TFD_ranzato_48x48.mat", "TFD_96x96.mat"), 96, "TFD_96x96.mat"),
    (("TFD_96x96.mat", "TFD_ranzato_48x48.mat"), 64, "TFD_ranzato_48x48.mat"),
    (("TFD_ranzato_96x96.mat", "TFD_ranzato_48x48.mat"), 64, "TFD_ranzato_96x96.mat"),
    (("TFD_ranzato_96x96.mat", "tfd_data_array.npz", "fau_levels.npz"), 48, "tfd_data_array.npz"),
    (("TFD_ranzato_96x96.mat", "tfd_data_array.npz", "fau_levels.npz"), 96, "TFD_ranzato_96x96.mat"),
    (("TFD_ranzato_96x96.mat", "tfd_data_array.npz"), 64, "TFD_ranzato_96x96.mat")])
@pytest.mark.parametrize("place", ["", "tfd"])
def test_of_several_tfd_files_the_one_that_fits_is_chosen(present, size, chosen, place, tmp_path):
    (tmp_path / place).mkdir(exist_ok=True)
    for name in present:
        (tmp_path / place / name).touch()
    assert tfd.found(tmp_path) and tfd._choose(tmp_path, size) == tmp_path / place / chosen


def test_the_tfd_file_taken_is_printed_and_resized(toronto, tmp_path, capsys):
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 24)
    assert np.array_equal(faces.images, resized(toronto["images"], 24))
    assert f"reading {tmp_path / 'TFD_ranzato_48x48.mat'}" in capsys.readouterr().out


@pytest.mark.parametrize("fold", [-1, 5, "1", None])
def test_a_fold_out_of_range_is_refused(fold, toronto, tmp_path, user_error):
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    user_error(lambda: tfd.load(tmp_path, 48, fold), "FOLD", "0 to 4", fold)


def test_a_v73_mat_file_is_refused_with_what_to_do(tmp_path, user_error):
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "TFD_48x48.mat").write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(100))
    user_error(lambda: tfd.load(tmp_path), tmp_path / "TFD_48x48.mat", "version 7.3", "-v7", "h5py")


@pytest.mark.parametrize("kept", [0, 1, 100, 3000, -10])
def test_a_truncated_mat_file_is_refused(kept, toronto, tmp_path, user_error):
    path = tmp_path / "TFD_ranzato_48x48.mat"
    savemat(path, toronto)
    path.write_bytes(path.read_bytes()[:kept])
    user_error(lambda: tfd.load(tmp_path), path)


def test_a_mat_file_without_its_fields_is_refused(toronto, tmp_path, user_error):
    del toronto["labs_ex"]
    savemat(tmp_path / "TFD_48x48.mat", toronto)
    user_error(lambda: tfd.load(tmp_path), "TFD_48x48.mat", "labs_ex", "no labs_ex", "data/README.md")


@pytest.mark.parametrize("field, change, found", [
    ("images", lambda a: a.transpose(1, 2, 0), "48 images, 84 labels"),
    ("images", lambda a: a[:, :, :40], "(84, 48, 40)"),
    ("images", lambda a: a[:, 0], "(84, 48)"),
    ("images", lambda a: a / 255, "float64"),
    ("labs_ex", lambda a: a[:-1], "83 labels"),
    ("labs_ex", lambda a: np.where(a == 3, 0, a), "10 others, e.g. 0"),
    ("labs_ex", lambda a: np.where(a == 7, 8, a), "10 others, e.g. 8"),
    ("labs_ex", lambda a: np.where(a == 7, np.nan, a), "10 others, e.g. nan"),
    ("labs_id", lambda a: a[:-1], "83 identities"),
    ("labs_id", lambda a: a - 1, "-2 in row 70"),
    ("folds", lambda a: a[:, :4], "(84, 4)"),
    ("folds", lambda a: a[:-1], "(83, 5)"),
    ("folds", lambda a: a + 1, "4")])
def test_misshapen_tfd_fields_are_refused(field, change, found, toronto, tmp_path, user_error):
    toronto[field] = change(toronto[field])
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    user_error(lambda: tfd.load(tmp_path), "TFD_ranzato_48x48.mat", found)


def test_a_folder_without_tfd_is_refused_with_the_names_of_its_files(tmp_path, user_error):
    assert not tfd.found(tmp_path)
    user_error(lambda: tfd.load(tmp_path), tmp_path, "TFD_ranzato_48x48.mat", "none of them")


@pytest.fixture
def processed(toronto, tmp_path):
    """The three files of the reference implementation: 84 faces, of which 50 rows are used."""
    large = resized(toronto["images"], 64)
    rows = np.sort(np.random.default_rng(0).permutation(84)[:50])
    np.savez_compressed(tmp_path / "tfd_data_array.npz", images=large)
    np.savez_compressed(tmp_path / "fau_levels.npz", inds=rows)
    savemat(tmp_path / "TFD_ranzato_96x96.mat", {**toronto, "images": np.zeros((84, 1, 1), np.uint8)})
    return SimpleNamespace(path=tmp_path, images=large, rows=rows, labels=np.where(rows < 70, rows % 7, -1))


def test_processed_tfd_rows_get_the_labels_of_the_same_rows(processed):
    faces = tfd.load(processed.path, 64)
    assert np.array_equal(faces.images, processed.images[processed.rows])
    assert np.array_equal(faces.labels, processed.labels)
    assert np.array_equal(faces.identities, np.where(processed.rows < 70, processed.rows // 7, -1))


def test_processed_tfd_is_split_by_position_train_test_val_and_says_so(processed, capsys):
    assert tfd.load(processed.path, 64).split.tolist() == [0] * 40 + [2] * 5 + [1] * 5
    assert "identities are shared" in capsys.readouterr().out


def test_processed_tfd_files_of_different_sets_are_refused(processed, user_error):
    np.savez(processed.path / "fau_levels.npz", inds=np.array([3, 84]))
    user_error(lambda: tfd.load(processed.path, 64), "fau_levels.npz", "0 to 83", "[3, 84]")
    np.savez(processed.path / "tfd_data_array.npz", images=processed.images[:-1])
    user_error(lambda: tfd.load(processed.path, 64), "TFD_ranzato_96x96.mat", "83 images, 84 labels")
    (processed.path / "tfd_data_array.npz").write_bytes(b"PK\3\4 cut off")
    user_error(lambda: tfd.load(processed.path, 64), "tfd_data_array.npz", "an .npz with images")
    np.savez(processed.path / "tfd_data_array.npz", faces=processed.images)
    user_error(lambda: tfd.load(processed.path, 64), "tfd_data_array.npz", "KeyError")


# --- FER2013

@pytest.fixture
def fer_images():
    return draw_small_images(48)


USAGES = ["Training"] * 5 + ["PublicTest", "PrivateTest"]


def fer_rows(images):
    """(emotion, pixels, Usage) of each face, as in the public file; labels i % 7, a seventh of the faces val, test."""
    return [(str(i % 7), " ".join(map(str, image.ravel())), USAGES[i // 7 % 7]) for i, image in enumerate(images)]


def write_fer(path, rows):
    with open(path, "w", newline="") as file:
        file.write("emotion,pixels,Usage\n")
        file.writelines(f"{emotion},{pixels},{usage}\n" for emotion, pixels, usage in rows)
    return path


@pytest.mark.parametrize("place", ["fer2013.csv", "fer2013/fer2013.csv", "mine.csv"])
def test_fer2013_is_read_from_where_users_put_it(place, fer_images, tmp_path):
    (tmp_path / "fer2013").mkdir()
    write_fer(tmp_path / place, fer_rows(fer_images))
    path = tmp_path / place if place == "mine.csv" else tmp_path
    assert fer2013.found(path)
    faces = fer2013.load(path)
    assert np.array_equal(faces.images, fer_images) and (faces.labels == np.arange(70) % 7).all()
    assert (faces.identities == -1).all()


def test_fer2013_usage_gives_the_split(fer_images, tmp_path):
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    split = fer2013.load(tmp_path).split
    assert split.tolist() == [{"Training": 0, "PublicTest": 1, "PrivateTest": 2}[USAGES[i // 7 % 7]]
                              for i in range(70)]


def test_icml_face_data_with_its_blanks_and_order_of_columns_gives_the_same_faces(fer_images, tmp_path):
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    (tmp_path / "icml").mkdir()
    with open(tmp_path / "icml" / "icml_face_data.csv", "w") as file:
        file.write("emotion, Usage, pixels\n")
        file.writelines(f"{emotion},{usage},{pixels}\n" for emotion, pixels, usage in fer_rows(fer_images))
    assert fer2013.load(tmp_path / "icml").fingerprint == fer2013.load(tmp_path).fingerprint


def test_quotes_blank_lines_and_windows_line_ends_change_nothing(fer_images, tmp_path):
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    with open(tmp_path / "quoted.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("emotion", "pixels", "Usage"), *fer_rows(fer_images), ()])
    assert fer2013.load(tmp_path / "quoted.csv").fingerprint == fer2013.load(tmp_path).fingerprint


def test_a_csv_that_fails_its_checksum_is_read_with_a_warning(fer_images, tmp_path, capsys, monkeypatch):
    path = write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    assert len(fer2013.load(path)) == 70 and "checksum differs" in capsys.readouterr().out
    monkeypatch.setattr(fer2013, "CHECKSUMS", (hashlib.md5(path.read_bytes()).hexdigest(),))
    fer2013.load(path)
    assert "warning" not in capsys.readouterr().out


def test_the_checksums_are_those_of_torchvision():
    from torchvision.datasets import FER2013
    assert {(name, FER2013._RESOURCES[key][1]) for name, key in zip(fer2013.FILES, ("fer", "icml"))} \
        == set(zip(fer2013.FILES, fer2013.CHECKSUMS))


@pytest.mark.parametrize("row, column, value, found", [
    (0, 1, "1 2 3", "3 from 1 to 3"), (9, 1, "", "0"), (69, 1, "7 " * 2305, "2305"),
    (3, 1, "300 " + "5 " * 2303, "5 to 300"), (3, 1, "-1 " + "5 " * 2303, "-1 to 5"), (3, 1, "x " + "5 " * 2303, "x 5"),
    (3, 1, "65541 " + "5 " * 2303, "5 to 65541"), (3, 1, "5 " * 2304 + "x", "5 5"), (4, 0, "7", "'7'"),
    (4, 0, "-1", "'-1'"), (4, 0, "happy", "'happy'"), (5, 2, "Holdout", "'Holdout'"), (5, 2, "", "''")])
def test_a_malformed_row_is_refused_with_its_line(row, column, value, found, fer_images, tmp_path, user_error):
    rows = [list(r) for r in fer_rows(fer_images)]
    rows[row][column] = value
    path = write_fer(tmp_path / "fer2013.csv", rows)
    user_error(lambda: fer2013.load(path), f"{path}, line {row + 2}", found)


def test_a_truncated_csv_is_refused_with_its_last_line(fer_images, tmp_path, user_error):
    path = write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    path.write_bytes(path.read_bytes()[:-40])
    user_error(lambda: fer2013.load(path), f"{path}, line 71", "3 columns", "cut off")


def test_files_that_are_no_fer2013_csv_are_refused(tmp_path, user_error):
    for content, found in ((b"", "none"), (b"emotion,pixels,Usage\n", "header only"), (b"pixels\n1 2\n", "pixels"),
                           (b"\xff\xfe\x00e", "decode"), (b"version https://git-lfs", "git-lfs")):
        (tmp_path / "fer2013.csv").write_bytes(content)
        user_error(lambda: fer2013.load(tmp_path), tmp_path / "fer2013.csv", found)


def test_a_folder_without_the_csv_is_refused_with_its_names(tmp_path, user_error):
    assert not fer2013.found(tmp_path)
    user_error(lambda: fer2013.load(tmp_path), tmp_path, "fer2013.csv or icml_face_data.csv", "train/ and test/")


def test_a_csv_without_usage_gets_a_drawn_split(fer_images, tmp_path):
    with open(tmp_path / "train.csv", "w") as file:
        file.write("emotion,pixels\n")
        file.writelines(f"{emotion},{pixels}\n" for emotion, pixels, _ in fer_rows(fer_images))
    assert np.bincount(fer2013.load(tmp_path / "train.csv").split).tolist() == [56, 7, 7]


def test_black_fer2013_faces_are_left_out_with_a_count(fer_images, tmp_path, capsys):
    fer_images[2] = 0
    faces = fer2013.load(write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images)))
    assert len(faces) == 69 and faces.labels[2] == 3 and "left out 1 of 70" in capsys.readouterr().out


# --- folders of image files

def write_folder(path, images, parts=("train", "val", "test"), names=NAMES):
    """PNGs path/part/name/n.png: persons 0..7 in the first part, 8 in the second, 9 in the third; label n % 7."""
    for n, image in enumerate(images):
        part = parts[max(n // 7 - 7, 0)] if parts else "."
        (path / part / names[n % 7]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / part / names[n % 7] / f"{n:03d}.png")
    return path


def test_folders_are_mapped_by_name_and_never_by_alphabet(images, tmp_path):
    faces = folder.load(write_folder(tmp_path, images), 16)
    part = lambda n: ("train", "val", "test")[max(n // 7 - 7, 0)]
    order = sorted(range(70), key=lambda n: (part(n), NAMES[n % 7], n))
    assert np.array_equal(faces.images, images[order])
    assert faces.labels.tolist() == [n % 7 for n in order]
    assert faces.split.tolist() == [max(n // 7 - 7, 0) for n in order]


@pytest.mark.parametrize("names", [("anger", "disgust", "afraid", "joy", "sadness", "surprised", "NEUTRAL"),
                                   ("ANGRY", "Disgusted", "fearful", "happy", "Sad", "surprise", "neutral"),
                                   ("angry", "disgust", "scared", "Happiness", "sad", "surprise", "neutral")])
def test_every_known_name_of_an_expression_is_understood(names, images, tmp_path):
    assert [folder._label(tmp_path / name) for name in names] == list(range(7))


@pytest.mark.parametrize("parts", [("Training", "validation", "Testing"), ("training", "valid", "test")])
def test_parts_may_have_their_other_names(parts, images, tmp_path):
    assert np.bincount(folder.load(write_folder(tmp_path, images, parts), 16).split).tolist() == [56, 7, 7]


def test_expressions_alone_get_a_drawn_split_from_the_seed(images, tmp_path):
    write_folder(tmp_path, images, parts=())
    one, same, other = (folder.load(tmp_path, 16, seed).split for seed in (0, 0, 1))
    assert np.bincount(one).tolist() == [56, 7, 7] and (one == same).all() and (one != other).any()


def test_a_missing_val_is_a_tenth_of_train_in_each_expression_and_test_stays(images, tmp_path, capsys):
    faces = folder.load(write_folder(tmp_path, np.tile(images, (2, 1, 1))[:77], ("train", "test", "test", "test")), 16)
    train = 7 * 8                                               # persons 0..7
    assert "no val folder: " in capsys.readouterr().out
    assert (faces.split == 2).sum() == 77 - train
    assert np.bincount(faces.labels[faces.split == 1], minlength=7).max() == 1
    assert (faces.split == 1).sum() in (5, 6, 7)


def test_a_missing_test_is_drawn_from_train_and_val_stays(images, tmp_path, capsys):
    faces = folder.load(write_folder(tmp_path, images, ("train", "val", "val")), 16)
    assert "no test folder: " in capsys.readouterr().out
    assert (faces.split == 1).sum() == 14 and 5 <= (faces.split == 2).sum() <= 7


def test_no_train_is_refused(images, tmp_path, user_error):
    user_error(lambda: folder.load(write_folder(tmp_path, images, ("val", "val", "test")), 16), tmp_path,
               "a folder train")


def test_unlabelled_folders_are_faces_without_a_label(images, tmp_path):
    write_folder(tmp_path, images)
    (tmp_path / "train" / "sad").rename(tmp_path / "train" / "unlabelled")
    faces = folder.load(tmp_path, 16)
    assert (faces.labels[faces.split == 0] == -1).sum() == 8 and 4 not in faces.labels[faces.split == 0]


def test_an_unknown_folder_is_refused_with_the_names_there_are(images, tmp_path, user_error, monkeypatch):
    write_folder(tmp_path, images, names=(*NAMES[:6], "contempt"))
    user_error(lambda: folder.load(tmp_path, 16), tmp_path / "test" / "contempt", "angry", "happiness", "LEFT_OUT")
    monkeypatch.setattr(folder, "LEFT_OUT", ("contempt",))
    assert len(folder.load(tmp_path, 16)) == 60


def test_numeric_folders_are_refused_unless_their_order_is_named(images, tmp_path, user_error, monkeypatch):
    write_folder(tmp_path, images, names=list("1234567"))
    user_error(lambda: folder.load(tmp_path, 16), tmp_path / "test" / "1", "FOLDER_ORDER")
    order = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
    monkeypatch.setattr(folder, "FOLDER_ORDER", dict(enumerate(order, start=1)))
    faces = folder.load(tmp_path, 16)
    rows = np.flatnonzero(faces.split == 1)                     # one of each folder, in the order of their names
    assert [EXPRESSIONS[label] for label in faces.labels[rows]] == list(order)
    monkeypatch.setattr(folder, "FOLDER_ORDER", dict(enumerate(order)))
    user_error(lambda: folder.load(tmp_path, 16), tmp_path / "test" / "7", "FOLDER_ORDER: None")


def test_files_that_are_plainly_no_images_are_passed_over_in_silence(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    for name in ("labels.csv", "Thumbs.db", ".DS_Store", "._001.png", "notes.txt"):
        (tmp_path / "train" / "sad" / name).write_bytes(b"no image")
    (tmp_path / "train" / "sad" / ".cache").mkdir()
    Image.fromarray(images[0]).save(tmp_path / "train" / "sad" / ".cache" / "copy.png")
    assert len(folder.load(tmp_path, 16)) == 70 and capsys.readouterr().out == ""


def test_images_that_cannot_be_read_are_named_and_counted(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    path = tmp_path / "train" / "sad"
    whole = (path / "004.png").read_bytes()
    (path / "cut.png").write_bytes(whole[:len(whole) // 2])
    (path / "fake.jpg").write_bytes(b"not an image")
    assert len(folder.load(tmp_path, 16)) == 70
    out = capsys.readouterr().out
    assert "left out 2 of 72" in out and "sad/cut.png: " in out and "sad/fake.jpg: cannot identify" in out


def test_only_unreadable_images_are_refused(tmp_path, user_error):
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "a.jpg").write_bytes(b"nothing")
    user_error(lambda: folder.load(tmp_path), tmp_path, "none of 1", "a.jpg")


def read_one(tmp_path, image, size=16, name="a.png", **save):
    image.save(tmp_path / name, **save)
    pixels, square, error = folder._read_one(tmp_path / name, size)
    assert error is None and pixels.shape == (size, size) and pixels.dtype == np.uint8
    return pixels, square


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_colour_images_become_grey(mode, images, tmp_path):
    name = "a.tif" if mode == "CMYK" else "a.png"
    pixels, _ = read_one(tmp_path, Image.fromarray(images[0]).convert(mode), name=name)
    assert np.abs(pixels.astype(int) - images[0]).max() <= 1


def test_colours_are_weighed_as_the_eye_does(tmp_path):
    pixels, _ = read_one(tmp_path, Image.new("RGB", (16, 16), (200, 100, 50)))
    assert (pixels == round(.299 * 200 + .587 * 100 + .114 * 50)).all()


def test_sixteen_bits_a_pixel_keep_their_range(images, tmp_path):
    pixels, _ = read_one(tmp_path, Image.fromarray(images[0].astype(np.uint16) * 257))
    assert np.array_equal(pixels, images[0])


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.tif", "a.pgm", "a.webp", "no_suffix"])
def test_any_format_that_pillow_reads_is_read(name, images, tmp_path):
    more = dict(format="PNG") if name == "no_suffix" else dict(lossless=True) if name == "a.webp" else {}
    pixels, _ = read_one(tmp_path, Image.fromarray(images[0]), name=name, **more)
    assert np.abs(pixels.astype(int) - images[0]).max() <= 1


@pytest.mark.parametrize("wide", [True, False])
def test_images_that_are_not_square_are_cut_to_their_middle(wide, images, tmp_path):
    edges = np.full((16, 4), 255, np.uint8)
    image = np.hstack([edges, images[0], edges])
    pixels, square = read_one(tmp_path, Image.fromarray(image if wide else image.T.copy()))
    assert np.array_equal(pixels, images[0] if wide else images[0].T) and not square


def test_cut_images_are_counted_once_for_all(images, tmp_path, capsys):
    write_folder(tmp_path, np.pad(images, ((0, 0), (2, 2), (0, 0)), mode="edge"))
    folder.load(tmp_path, 16)
    assert capsys.readouterr().out == f"{tmp_path}: cut 70 images that are not square to the square in their middle\n"


def test_the_orientation_of_a_camera_is_honoured(images, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6                                            # to be turned clockwise by a quarter
    pixels, _ = read_one(tmp_path, Image.fromarray(images[0]), exif=exif)
    assert np.array_equal(pixels, np.rot90(images[0], -1))


def test_files_and_arrays_are_resized_alike(images, tmp_path):
    for size in (8, 24):
        pixels, square = read_one(tmp_path, Image.fromarray(images[0]), size)
        assert np.abs(pixels.astype(int) - resized(images[:1], size)[0]).max() <= 1 and square


def test_black_images_in_folders_are_left_out_with_a_count(images, tmp_path, capsys):
    images[3] = 0
    assert len(folder.load(write_folder(tmp_path, images), 16)) == 69
    assert "left out 1 of 70" in capsys.readouterr().out


def test_images_beside_the_folders_are_not_read_and_said_so(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    Image.fromarray(images[0]).save(tmp_path / "train" / "stray.png")
    (tmp_path / "raw").mkdir()
    assert len(folder.load(tmp_path, 16)) == 70
    assert "not read: 1 files" in (out := capsys.readouterr().out) and "raw" in out


@pytest.mark.parametrize("content", [(), ("fer2013.zip",), ("face.png",)])
def test_a_folder_without_folders_of_images_is_refused_with_what_is_there(content, tmp_path, user_error):
    for name in content:
        (tmp_path / name).touch()
    user_error(lambda: folder.load(tmp_path), tmp_path, *content or ("an empty folder",), "unpack archives")


@pytest.mark.parametrize("name, found", [("fer2013.zip", "an archive"), ("fer2013.tar.gz", "an archive"),
                                         ("faces.h5", "another kind")])
def test_a_file_of_another_kind_is_refused(name, found, tmp_path, user_error):
    (tmp_path / name).touch()
    user_error(lambda: folder.load(tmp_path / name), tmp_path / name, found)


# --- arrays

def save_arrays(path, **content):
    for name, array in content.items():
        np.save(path / f"{name}.npy", array)
    return path


@pytest.fixture
def content(images, labels, identities):
    split = np.array(["train"] * 8 + ["val", "test"])[identities]
    return dict(images=images, labels=labels, identities=identities, split=split)


def test_an_npz_and_a_folder_of_npy_give_the_same_faces(content, tmp_path):
    np.savez(tmp_path / "mine.npz", **content)
    save_arrays(tmp_path, **content)
    paths = (tmp_path / "mine.npz", tmp_path, tmp_path / "images.npy")
    assert all(arrays.found(path) for path in paths)
    faces = [arrays.load(path, 16) for path in paths]
    assert len({f.fingerprint for f in faces}) == 1 and np.array_equal(faces[0].images, content["images"])
    assert faces[0].split.tolist() == [0] * 56 + [1] * 7 + [2] * 7
    assert [f.name for f in faces] == ["mine", tmp_path.name, tmp_path.name]


def test_images_npy_stays_memory_mapped_if_its_size_fits(content, tmp_path):
    save_arrays(tmp_path, **content)
    assert isinstance(arrays.load(tmp_path, 16).images, np.memmap)
    assert np.array_equal(arrays.load(tmp_path, 8).images, resized(content["images"], 8))


def test_fortran_ordered_images_are_not_transposed(content, tmp_path):
    save_arrays(tmp_path, **{**content, "images": np.asfortranarray(content["images"])})
    assert np.array_equal(arrays.load(tmp_path, 16).images, content["images"])


def test_arrays_without_identities_and_split_get_a_drawn_split(content, tmp_path):
    np.savez(tmp_path / "mine.npz", images=content["images"], labels=content["labels"])
    faces = arrays.load(tmp_path / "mine.npz", 16)
    assert np.bincount(faces.split).tolist() == [56, 7, 7] and (faces.identities == -1).all()


def test_arrays_with_one_identity_for_all_cannot_be_split(content, tmp_path, user_error):
    np.savez(tmp_path / "mine.npz", images=content["images"], labels=content["labels"], identities=np.full(70, 5))
    user_error(lambda: arrays.load(tmp_path / "mine.npz", 16), "mine.npz", "1 identities", "split of your own")


@pytest.mark.parametrize("missing", ["labels", "images"])
def test_images_and_labels_are_both_needed(missing, content, tmp_path, user_error):
    del content[missing]
    np.savez(tmp_path / "mine.npz", **content)
    user_error(lambda: arrays.load(tmp_path / "mine.npz", 16), tmp_path / "mine.npz", f"no {missing}",
               "-1 for an unlabelled one")


def test_a_folder_without_labels_npy_is_refused(content, tmp_path, user_error):
    save_arrays(tmp_path, images=content["images"])
    user_error(lambda: arrays.load(tmp_path, 16), tmp_path, "no labels")


def test_black_faces_are_refused_so_that_rows_stay_those_of_a_metric(content, tmp_path, user_error):
    content["images"][12] = 0
    user_error(lambda: arrays.load(save_arrays(tmp_path, **content), 16), tmp_path, "rows 12")


@pytest.mark.parametrize("name", ["images", "labels", "identities", "split"])
def test_pickled_objects_are_refused(name, content, tmp_path, user_error):
    content[name] = content[name].astype(object)
    np.savez(tmp_path / "mine.npz", **content)
    user_error(lambda: arrays.load(tmp_path / "mine.npz", 16), tmp_path / "mine.npz", "ValueError", "object arrays")
    save_arrays(tmp_path, **content)
    user_error(lambda: arrays.load(tmp_path, 16), tmp_path / f"{name}.npy", "ValueError", "object arrays")


@pytest.mark.parametrize("kept", [0, 3, 100, 5000])
def test_truncated_arrays_are_refused(kept, content, tmp_path, user_error):
    np.savez_compressed(tmp_path / "mine.npz", **content)
    save_arrays(tmp_path, **content)
    for name in ("mine.npz", "images.npy"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
        user_error(lambda: arrays.load(tmp_path / name, 16), tmp_path / name, "cut off")


def test_an_npz_with_a_flipped_byte_is_refused(content, tmp_path, user_error):
    np.savez(tmp_path / "mine.npz", **content)
    whole = bytearray((tmp_path / "mine.npz").read_bytes())
    whole[9000] ^= 1                                            # inside images
    (tmp_path / "mine.npz").write_bytes(whole)
    user_error(lambda: arrays.load(tmp_path / "mine.npz", 16), "mine.npz", "CRC")


@pytest.mark.parametrize("name, change, found", [
    ("images", lambda a: a / 255, "float64"), ("images", lambda a: np.where(a > 200, np.nan, a), "NaN"),
    ("images", lambda a: a[..., None].repeat(3, 3), "(70, 16, 16, 3)"),
    ("images", lambda a: a[:, :, :8], "(70, 16, 8)"),
    ("images", lambda a: a[:1, :1, 0], "(1, 1)"), ("labels", lambda a: a + 1, "7 in row 6"),
    ("labels", lambda a: a[1:], "(69,)"), ("identities", lambda a: a - 3, "-3 in row 0"),
    ("split", lambda a: np.char.upper(a), "TEST")])
def test_misshapen_arrays_are_refused(name, change, found, content, tmp_path, user_error):
    content[name] = change(content[name])
    np.savez(tmp_path / "mine.npz", **content)
    user_error(lambda: arrays.load(tmp_path / "mine.npz", 16), tmp_path / "mine.npz", found)


# --- which source a path means

def test_load_finds_the_source_of_every_layout(content, toronto, fer_images, tmp_path):
    pytest.importorskip("data.synthetic")
    from data.faces import load
    for name in ("tfd", "fer", "arrays", "folder"):
        (tmp_path / name).mkdir()
    savemat(tmp_path / "tfd" / "TFD_ranzato_48x48.mat", toronto)
    write_fer(tmp_path / "fer" / "fer2013.csv", fer_rows(fer_images))
    save_arrays(tmp_path / "arrays", **content)
    write_folder(tmp_path / "folder", fer_images)
    assert [len(load(str(tmp_path / name), 48)) for name in ("tfd", "fer", "arrays", "folder")] == [84, 70, 70, 70]
    assert load(tmp_path / "tfd", 48, fold=2).name == "TFD, fold 2"


def test_auto_takes_tfd_before_fer2013_before_synthetic_faces(toronto, fer_images, tmp_path, monkeypatch, capsys):
    synthetic = pytest.importorskip("data.synthetic")
    from data import faces
    monkeypatch.setattr(faces, "FOLDER", tmp_path)
    monkeypatch.setattr(synthetic, "load", lambda size, seed: json.dumps([size, seed]))
    assert faces.load("auto", 48, seed=5) == "[48, 5]" and "data/README.md" in capsys.readouterr().out
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    assert faces.load("auto").name == "FER2013"
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    assert faces.load("auto").name == "TFD, fold 0" and faces.load("fer2013").name == "FER2013"
