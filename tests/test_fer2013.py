"""FER2013 on small files in its public format, whole and damaged."""
import csv
import hashlib

import numpy as np
import pytest

from data import fer2013
from data.labels import EXPRESSIONS
from layouts import USAGES, fer_rows, loaded, write_fer


@pytest.mark.parametrize("place", ["fer2013.csv", "fer2013/fer2013.csv", "mine.csv"])
def test_fer2013_is_read_from_where_users_put_it(place, fer_images, tmp_path):
    (tmp_path / "fer2013").mkdir()
    write_fer(tmp_path / place, fer_rows(fer_images))
    path = tmp_path / place if place == "mine.csv" else tmp_path
    assert fer2013.found(path)
    faces = loaded(fer2013, path)
    assert np.array_equal(faces.images, fer_images) and (faces.labels == np.arange(70) % 7).all()
    assert (faces.identities == -1).all()


def test_fer2013_usage_gives_the_split(fer_images, tmp_path):
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    split = loaded(fer2013, tmp_path).split
    assert split.tolist() == [{"Training": 0, "PublicTest": 1, "PrivateTest": 2}[USAGES[i // 7 % 7]]
                              for i in range(70)]


def test_icml_face_data_with_its_blanks_and_order_of_columns_gives_the_same_faces(fer_images, tmp_path):
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    (tmp_path / "icml").mkdir()
    with open(tmp_path / "icml" / "icml_face_data.csv", "w") as file:
        file.write("emotion, Usage, pixels\n")
        file.writelines(f"{emotion},{usage},{pixels}\n" for emotion, pixels, usage in fer_rows(fer_images))
    assert loaded(fer2013, tmp_path / "icml").fingerprint == loaded(fer2013, tmp_path).fingerprint


def test_quotes_blank_lines_and_windows_line_ends_change_nothing(fer_images, tmp_path):
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    with open(tmp_path / "quoted.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("emotion", "pixels", "Usage"), *fer_rows(fer_images), ()])
    assert loaded(fer2013, tmp_path / "quoted.csv").fingerprint == loaded(fer2013, tmp_path).fingerprint


def test_a_csv_that_fails_its_checksum_is_read_with_a_warning(fer_images, tmp_path, capsys, monkeypatch):
    path = write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    assert len(loaded(fer2013, path)) == 70 and "checksum differs" in capsys.readouterr().out
    monkeypatch.setattr(fer2013, "CHECKSUMS", (hashlib.md5(path.read_bytes()).hexdigest(),))
    loaded(fer2013, path)
    assert "checksum" not in capsys.readouterr().out


def test_the_checksums_are_those_of_torchvision():
    from torchvision.datasets import FER2013
    named = dict(zip((*fer2013.FILES, "train.csv"), fer2013.CHECKSUMS))
    assert named.items() <= {name: checksum for name, checksum in FER2013._RESOURCES.values()}.items()


@pytest.mark.parametrize("row, column, value, found", [
    (0, 1, "1 2 3", "3 from 1 to 3"), (9, 1, "", "0"), (69, 1, "7 " * 2305, "2305"),
    (3, 1, "300 " + "5 " * 2303, "5 to 300"), (3, 1, "-1 " + "5 " * 2303, "-1 to 5"), (3, 1, "x " + "5 " * 2303, "x 5"),
    (3, 1, "65541 " + "5 " * 2303, "5 to 65541"), (3, 1, "5 " * 2304 + "x", "5 5"), (4, 0, "8", "'8'"),
    (4, 0, "-1", "'-1'"), (4, 0, "happy", "'happy'"), (5, 2, "Holdout", "'Holdout'"), (5, 2, "", "''")])
def test_a_malformed_row_is_refused_with_its_line(row, column, value, found, fer_images, tmp_path, user_error):
    rows = [list(r) for r in fer_rows(fer_images)]
    rows[row][column] = value
    path = write_fer(tmp_path / "fer2013.csv", rows)
    user_error(lambda: loaded(fer2013, path), f"{path}, line {row + 2}", found)


def test_a_truncated_csv_is_refused_with_its_last_line(fer_images, tmp_path, user_error):
    path = write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    path.write_bytes(path.read_bytes()[:-40])
    user_error(lambda: loaded(fer2013, path), f"{path}, line 71", "3 columns", "cut off")


def test_files_that_are_no_fer2013_csv_are_refused(tmp_path, user_error):
    for content, found in ((b"", "none"), (b"emotion,pixels,Usage\n", "header only"), (b"pixels\n1 2\n", "pixels"),
                           (b"\xff\xfe\x00e", "decode"), (b"version https://git-lfs", "git-lfs")):
        (tmp_path / "fer2013.csv").write_bytes(content)
        user_error(lambda: loaded(fer2013, tmp_path), tmp_path / "fer2013.csv", found)


def test_a_folder_without_the_csv_is_refused_with_its_names(tmp_path, user_error):
    assert not fer2013.found(tmp_path)
    user_error(lambda: loaded(fer2013, tmp_path), tmp_path, "fer2013.csv or icml_face_data.csv", "train/ and test/")


def test_a_csv_without_usage_gets_a_drawn_split(fer_images, tmp_path):
    with open(tmp_path / "train.csv", "w") as file:
        file.write("emotion,pixels\n")
        file.writelines(f"{emotion},{pixels}\n" for emotion, pixels, _ in fer_rows(fer_images))
    assert np.bincount(loaded(fer2013, tmp_path / "train.csv").split).tolist() == [56, 7, 7]


def test_black_fer2013_faces_are_left_out_with_a_count(fer_images, tmp_path, capsys):
    fer_images[2] = 0
    faces = loaded(fer2013, write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images)))
    assert len(faces) == 69 and faces.labels[2] == 3 and "left out 1 of 70" in capsys.readouterr().out


def test_votes_of_fer_plus_beside_the_csv_are_the_labels(fer_images, tmp_path, capsys, user_error):
    write_fer(tmp_path / "fer2013.csv", fer_rows(fer_images))
    names = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
    votes = np.zeros((70, 10), int)
    votes[np.arange(70), np.arange(70) % 8] = 10
    votes[3] = [0, 5, 5, 0, 0, 0, 0, 0, 0, 0]                   # no majority
    votes[4] = [0] * 9 + [10]                                   # no face
    lines = [",".join(("Usage", "Image name", *names))] + [f"Training,f{n}.png," + ",".join(map(str, row))
                                                           for n, row in enumerate(votes)]
    (tmp_path / "fer2013new.csv").write_text("\n".join(lines))
    faces = loaded(fer2013, tmp_path)
    assert len(faces) == 68 and "left out 2 of 70" in capsys.readouterr().out and faces.classes[-1] == "contempt"
    assert [faces.classes[label] for label in faces.labels[:3]] == ["neutral", "happy", "surprise"]
    own = loaded(fer2013, tmp_path, FER_PLUS=False)
    assert len(own) == 70 and own.classes == EXPRESSIONS[:7]
    (tmp_path / "fer2013new.csv").write_text("\n".join(lines[:-1]))
    user_error(lambda: loaded(fer2013, tmp_path), "70 rows", "69")


def test_a_csv_without_extension_or_labels_is_read(fer_images, tmp_path, capsys):
    rows = fer_rows(fer_images)
    write_fer(tmp_path / "fer2013.csv", rows).rename(tmp_path / "fer2013")
    assert fer2013.found(tmp_path / "fer2013") and len(loaded(fer2013, tmp_path / "fer2013")) == 70
    (tmp_path / "test.csv").write_text("pixels\n" + "\n".join(pixels for _, pixels, _ in rows))
    faces = loaded(fer2013, tmp_path / "test.csv")
    assert faces.classes == () and (faces.labels == -1).all() and len(faces) == 70
    assert "no emotion column: unlabelled" in capsys.readouterr().out


def test_labels_in_a_column_of_another_name_are_refused(fer_images, tmp_path, user_error):
    path = tmp_path / "train.csv"
    path.write_text("label,pixels\n" + "\n".join(f"{label},{pixels}" for label, pixels, _ in fer_rows(fer_images)))
    user_error(lambda: loaded(fer2013, path), path, "columns label, pixels", "to emotion")
    path.write_text(path.read_text().replace("label", "emotion"))
    assert (loaded(fer2013, path).labels == np.arange(70) % 7).all()


def test_emotion_7_is_contempt(fer_images, tmp_path):
    rows = [(str(i % 8), *row[1:]) for i, row in enumerate(fer_rows(fer_images))]
    faces = loaded(fer2013, write_fer(tmp_path / "ckextended.csv", rows))
    assert faces.classes == EXPRESSIONS and (faces.labels == np.arange(70) % 8).all()


@pytest.mark.parametrize("missing", [("PublicTest",), ("PrivateTest",), ("PublicTest", "PrivateTest")])
def test_a_usage_without_a_part_takes_a_tenth_of_training_as_it(missing, fer_images, tmp_path, capsys):
    rows = [row for row in fer_rows(fer_images) if row[2] not in missing]
    split = loaded(fer2013, write_fer(tmp_path / "fer2013.csv", rows)).split
    kept = np.array([fer2013.USAGE[row[2]] for row in rows])
    assert np.bincount(split).min() > 0 and (split[kept > 0] == kept[kept > 0]).all()
    assert capsys.readouterr().out.count("train faces are held out as it") == len(missing)


def test_a_usage_without_training_is_refused(fer_images, tmp_path, user_error):
    rows = [row for row in fer_rows(fer_images) if row[2] != "Training"]
    path = write_fer(tmp_path / "fer2013.csv", rows)
    user_error(lambda: loaded(fer2013, path), path, "Usage Training", "delete the column")
