"""data/layouts.py: data sets of the field are recognised, with their classes, people and split."""
import shutil

import numpy as np
import pytest
from PIL import Image

from data import folder
from data.labels import EXPRESSIONS
from data.sources import load
from layouts import loaded

RAF_DB = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


def write(path, names, images):
    """Pictures of these names, one an image in turn."""
    for n, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[n % len(images)]).save(path / name)
    return path


def assert_people_stay_together(faces):
    assert all(len(set(faces.split[faces.identities == person])) == 1 for person in np.unique(faces.identities))


def test_ck_has_contempt_no_neutral_and_the_person_in_the_name(images, tmp_path):
    names = [f"{name}/S{n % 10:03d}_{k:03d}_{frame:08d}.png" for k, name in enumerate(("happy", "contempt", "sadness"))
             for n in range(10) for frame in range(3)]
    faces = load(write(tmp_path, names, images), 16)
    assert faces.name == "CK+" and faces.classes == ("happy", "sad", "contempt") and len(faces) == 90
    assert len(set(faces.identities)) == 10
    assert_people_stay_together(faces)


def test_jaffe_is_one_folder_with_person_and_expression_in_the_name(images, tmp_path):
    codes, people = ("AN", "DI", "FE", "HA", "NE", "SA", "SU"), ("KA", "KL", "KM", "KR")
    names = [f"{person}.{code}{k}.{n}.tiff" for n, (person, code) in enumerate(
        (person, code) for person in people for code in codes) for k in (1, 2)]
    faces = load(write(tmp_path, names, images), 16)
    assert faces.name == "JAFFE" and faces.classes == EXPRESSIONS[:7] and len(set(faces.identities)) == 4
    assert np.bincount(faces.labels).tolist() == [8] * 7
    assert_people_stay_together(faces)


def test_kdef_gives_its_straight_views_and_both_sessions_one_person(images, tmp_path):
    names = [f"{session}{person}/{session}{person}{code}{angle}.JPG" for session in "AB"
             for person in ("F01", "M01", "F02") for code in ("AF", "HA", "SA") for angle in ("S", "HL", "FR")]
    faces = load(write(tmp_path, names, images), 16)
    assert faces.name == "KDEF" and len(faces) == 18 and faces.classes == ("fear", "happy", "sad")
    assert len(set(faces.identities)) == 3
    assert_people_stay_together(faces)


def test_kdef_gives_the_angles_that_are_asked_for(images, tmp_path, user_error):
    names = [f"A{person}/A{person}HA{angle}.JPG" for person in ("F01", "M01", "F02") for angle in ("S", "HL", "FR")]
    faces = loaded(folder, write(tmp_path, names, images), 16, ANGLES="S,fr")
    assert len(faces) == 6 and np.bincount(faces.identities).tolist() == [2, 2, 2]
    user_error(lambda: loaded(folder, tmp_path, 16, ANGLES="X"), "ANGLES=X", "S,HL,HR,FL,FR")


@pytest.mark.parametrize("name, names, odd", [
    ("KDEF", [f"A{person}/A{person}{code}S.JPG" for person in ("F01", "M01", "F02", "M02", "F03")
              for code in ("AF", "HA", "SA", "SU")], "AF01/AF31V.JPG"),
    ("JAFFE", [f"{person}.{code}1.{n}.tiff" for n, person in enumerate(("KA", "KL", "KM", "KR", "MK"))
               for code in ("AN", "DI", "FE", "HA")], "read.me.tiff"),
    ("CK+", [f"happy/S{n:03d}_001_00000001.png" for n in range(20)], "happy/overview.png")])
def test_a_data_set_is_recognised_although_one_picture_in_twenty_has_another_name(name, names, odd, images, tmp_path,
                                                                                 capsys, user_error):
    faces = load(write(tmp_path, [*names, odd], images), 16)
    assert faces.name == name and len(faces) == 20 and (faces.identities >= 0).all()
    assert f"left out 1 of 21 files that are not named as {name}'s are, e.g. {odd}" in capsys.readouterr().out


def write_ck_sequences(path, images):
    """Ten people with sequences 001, of the label 3, of five frames, and 002, without a label."""
    write(path, [f"cohn-kanade-images/S{n:03d}/{k}/S{n:03d}_{k}_{frame:08d}.png" for n in range(10)
                 for k in ("001", "002") for frame in range(1, 6)], images)
    for n in range(10):
        file = path / "Emotion" / f"S{n:03d}" / "001" / f"S{n:03d}_001_00000005_emotion.txt"
        file.parent.mkdir(parents=True)
        file.write_text(f"   {n % 2 * 4 + 3}.0000000e+00\n")
    return path


@pytest.mark.parametrize("given", [".", "cohn-kanade-images"])
def test_ck_as_its_authors_ship_it_gives_the_last_three_frames_of_sequences_with_a_label(given, images, tmp_path):
    faces = load(write_ck_sequences(tmp_path, images) / given, 16)
    assert faces.name == "CK+" and len(faces) == 30 and len(set(faces.identities)) == 10
    assert faces.classes == ("disgust", "surprise") and np.bincount(faces.labels).tolist() == [15, 15]
    assert np.array_equal(faces.images[:3], images[2:5])        # frames 3, 4 and 5 of the first sequence
    assert_people_stay_together(faces)


def test_ck_sequences_without_labels_and_a_damaged_label_are_refused(images, tmp_path, user_error):
    label = write_ck_sequences(tmp_path, images) / "Emotion" / "S003" / "001" / "S003_001_00000005_emotion.txt"
    label.write_text("9")
    user_error(lambda: load(tmp_path, 16), label, "1 to 7")
    shutil.rmtree(tmp_path / "Emotion")
    user_error(lambda: load(tmp_path, 16), tmp_path, "none for 20 sequences", "cohn-kanade-images and Emotion")


def test_raf_db_as_its_authors_ship_it_has_labels_in_a_list_and_the_split_in_the_name(images, tmp_path):
    stems = [f"{part}_{n:05d}" for part, count in (("train", 56), ("test", 14)) for n in range(count)]
    write(tmp_path, [f"Image/aligned/{stem}_aligned.jpg" for stem in stems], images)
    (tmp_path / "EmoLabel").mkdir()
    (tmp_path / "EmoLabel" / "list_patition_label.txt").write_text(
        "".join(f"{stem}.jpg {n % 7 + 1}\n" for n, stem in enumerate(stems)) + "train_99999.jpg 12\n")
    faces = load(tmp_path, 16)
    assert faces.name == "RAF-DB" and (faces.split == 2).sum() == 14 and (faces.split == 1).any()
    tested = [faces.classes[label] for label in faces.labels[faces.split == 2]]            # sorted: test comes first
    assert tested == [RAF_DB[n % 7] for n in range(14)]


def test_pictures_that_raf_dbs_list_lacks_are_counted_and_another_list_is_refused(images, tmp_path, capsys,
                                                                                  user_error):
    write(tmp_path, [f"Image/aligned/train_{n:05d}_aligned.jpg" for n in range(70)], images)
    (tmp_path / "EmoLabel").mkdir()
    listed = tmp_path / "EmoLabel" / "list_patition_label.txt"
    listed.write_text("".join(f"train_{n:05d}.jpg {n % 7 + 1}\n" for n in range(63)))
    assert len(load(tmp_path, 16)) == 63
    assert "left out 7 of 70 pictures that are not in" in capsys.readouterr().out
    listed.write_text("other.jpg 3\n")
    user_error(lambda: load(tmp_path, 16), listed, "none of the 70 pictures")
    listed.write_bytes(b"\xff\xfe")
    user_error(lambda: load(tmp_path, 16), listed, "can't decode")


def test_raf_db_in_numbered_folders_is_known_by_its_lists(images, tmp_path):
    names = [f"DATASET/{part}/{number}/{n}.jpg" for part in ("train", "test") for number in range(1, 8)
             for n in range(5)]
    write(tmp_path, names, images)
    (tmp_path / "train_labels.csv").write_text("image,label\n")
    faces = load(tmp_path, 16)
    assert faces.name == "RAF-DB" and set(faces.classes) == set(RAF_DB) and (faces.split == 2).sum() == 35


def test_affectnet_has_eight_numbered_folders_in_train_and_val(images, tmp_path):
    names = [f"{part}/{number}/{n}.jpg" for part in ("train", "val") for number in range(8) for n in range(5)]
    faces = load(write(tmp_path, names, images), 16)
    assert faces.name == "AffectNet" and set(faces.classes) == set(AFFECTNET) and (faces.split == 1).sum() == 40
    of_first = faces.classes[faces.labels[0]]
    assert of_first == "neutral"                                # train/0/0.jpg


def test_numbered_folders_that_no_layout_explains_are_refused(images, tmp_path, user_error):
    names = [f"{part}/{number}/{n}.jpg" for part in ("train", "val") for number in range(6) for n in range(5)]
    user_error(lambda: load(write(tmp_path, names, images), 16), "CLASS_NAMES=FER2013 or RAF-DB or AffectNet")


def test_names_that_are_given_go_before_a_layout(images, tmp_path):
    names = [f"{part}/{number}/{n}.jpg" for part in ("train", "val") for number in range(8) for n in range(5)]
    faces = loaded(folder, write(tmp_path, names, images), 16, CLASS_NAMES="a,b,c,d,e,f,g,h")
    assert faces.classes == tuple("abcdefgh") and faces.labels[0] == 0


@pytest.mark.parametrize("numbers, names", [("123456", "abcdefg"), ("234567", "abcdefg"), ("012", "abc"),
                                            ("135", "abcde")])
def test_the_first_name_is_that_of_0_or_of_1_without_a_0(numbers, names, images, tmp_path, capsys):
    files = [f"{number}/{n}.png" for number in numbers for n in range(5)]
    faces = loaded(folder, write(tmp_path, files, images), 16, CLASS_NAMES=",".join(names))
    meant = [names[int(number) - (0 if "0" in numbers else 1)] for number in numbers]
    assert faces.classes == tuple(meant)
    assert ", ".join(f"{number} {name}" for number, name in zip(numbers, meant)) in capsys.readouterr().out


@pytest.mark.parametrize("names, words", [("a,,b", ["without brackets"]), ("['a', 'b']", ["without brackets"]),
                                          ('"a","b"', ["quotes"]), ("RAFDB", ["FER2013, RAF-DB, AffectNet"])])
def test_names_that_cannot_be_meant_are_refused(names, words, images, tmp_path, user_error):
    write(tmp_path, [f"{number}/{n}.png" for number in "12" for n in range(5)], images)
    user_error(lambda: loaded(folder, tmp_path, 16, CLASS_NAMES=names), f"CLASS_NAMES={names}", *words)


def write_annotated(path, images):
    """train_set and val_set with pictures n and labels n % 8, as text in arrays without dimensions."""
    for part, count in (("train_set", 40), ("val_set", 16)):
        write(path, [f"{part}/images/{n}.jpg" for n in range(count)], images)
        (path / part / "annotations").mkdir()
        for n in range(count):
            np.save(path / part / "annotations" / f"{n}_exp.npy", np.array(str(n % 8)))
            np.save(path / part / "annotations" / f"{n}_val.npy", np.array("0.5"))
    return path


def test_affectnet_as_its_authors_ship_it_has_a_label_in_a_file_for_each_picture(images, tmp_path, capsys, user_error):
    faces = load(write_annotated(tmp_path, images), 16)
    assert faces.name == "AffectNet" and set(faces.classes) == set(AFFECTNET) and (faces.split == 1).sum() == 16
    held_out = [faces.classes[label] for label in faces.labels[faces.split == 1]]
    assert held_out == [AFFECTNET[int(name) % 8] for name in sorted(map(str, range(16)))]
    annotation = tmp_path / "train_set" / "annotations" / "5_exp.npy"
    annotation.unlink()
    assert len(load(tmp_path, 16)) == 55 and "left out 1 of 56 pictures without" in capsys.readouterr().out
    np.save(annotation, np.array("9"))
    user_error(lambda: load(tmp_path, 16), annotation, "0 to 7")


@pytest.mark.parametrize("more", [[f"test/{number}/{n}.jpg" for number in range(8) for n in range(5)], ["logo.jpg"],
                                  ["train/overview.jpg"]])
def test_affectnet_may_have_a_test_part_and_a_stray_picture(more, images, tmp_path):
    names = [f"{part}/{number}/{n}.jpg" for part in ("train", "val") for number in range(8) for n in range(5)]
    faces = load(write(tmp_path, names + more, images), 16)
    assert faces.name == "AffectNet" and set(faces.classes) == set(AFFECTNET)
    assert len(faces) == 80 + len(more) * (len(more) > 1)


def test_seven_numbered_folders_are_refused_as_more_than_one_data_set_has_them(images, tmp_path, user_error):
    names = [f"{part}/{number}/{n}.jpg" for part in ("train", "val") for number in range(7) for n in range(5)]
    user_error(lambda: load(write(tmp_path, names, images), 16), "CLASS_NAMES=FER2013 or RAF-DB or AffectNet")


def test_of_raf_dbs_pictures_the_aligned_ones_are_taken_where_there_are_both(images, tmp_path, capsys):
    stems = [f"train_{n:05d}" for n in range(70)]
    write(tmp_path, [f"Image/aligned/{stem}_aligned.jpg" for stem in stems[:69]], images)
    write(tmp_path, [f"Image/original/{stem}.jpg" for stem in stems], images[::-1])
    (tmp_path / "list_patition_label.txt").write_text("".join(f"{s}.jpg {n % 7 + 1}\n" for n, s in enumerate(stems)))
    assert len(load(tmp_path, 16)) == 70
    assert "left out 69 original pictures" in capsys.readouterr().out


@pytest.mark.parametrize("train, val", [("train_set", "validation_set"), ("training_set", "dev"), ("Train", "eval")])
def test_parts_have_further_names(train, val, images, tmp_path):
    names = [f"{part}/{name}/{n}.png" for part in (train, val, "test_set") for name in ("happy", "sad")
             for n in range(5)]
    assert np.bincount(load(write(tmp_path, names, images), 16).split).tolist() == [10, 10, 10]
