"""Folders of image files, whole and damaged."""
import unicodedata

import numpy as np
import pytest
from PIL import Image

from data import folder
from conftest import EXPRESSIONS
from data.faces import without_classes
from data.labels import class_name
from data.pixels import square, squares
from layouts import NAMES, loaded, write_folder


def test_folders_are_mapped_by_name_and_never_by_alphabet(images, tmp_path):
    faces = loaded(folder, write_folder(tmp_path, images), 16)
    part = lambda n: ("train", "val", "test")[max(n // 7 - 7, 0)]
    order = sorted(range(70), key=lambda n: (part(n), NAMES[n % 7], n))
    assert np.array_equal(faces.images, images[order])
    assert faces.labels.tolist() == [n % 7 for n in order]
    assert faces.split.tolist() == [max(n // 7 - 7, 0) for n in order]


@pytest.mark.parametrize("names", [("anger", "disgust", "afraid", "joy", "sadness", "surprised", "NEUTRAL"),
                                   ("ANGRY", "Disgusted", "fearful", "happy", "Sad", "surprise", "neutral"),
                                   ("angry", "disgust", "scared", "Happiness", "sad", "surprise", "neutral")])
def test_every_known_name_of_an_expression_is_understood(names):
    assert [class_name(name) for name in names] == list(EXPRESSIONS)


@pytest.mark.parametrize("parts", [("Training", "validation", "Testing"), ("training", "valid", "test")])
def test_parts_may_have_their_other_names(parts, images, tmp_path):
    assert np.bincount(loaded(folder, write_folder(tmp_path, images, parts), 16).split).tolist() == [56, 7, 7]


def test_expressions_alone_get_a_drawn_split_from_the_seed(images, tmp_path):
    write_folder(tmp_path, images, parts=())
    one, same, other = (loaded(folder, tmp_path, 16, seed).split for seed in (0, 0, 1))
    assert np.bincount(one).tolist() == [56, 7, 7] and (one == same).all() and (one != other).any()


def test_a_missing_val_is_a_tenth_of_train_in_each_expression_and_test_stays(images, tmp_path, capsys):
    images = np.tile(images, (2, 1, 1))[:77]
    faces = loaded(folder, write_folder(tmp_path, images, ("train", "test", "test", "test")), 16)
    train = 7 * 8                                               # persons 0..7
    assert "no val set: " in capsys.readouterr().out
    assert (faces.split == 2).sum() == 77 - train
    assert np.bincount(faces.labels[faces.split == 1], minlength=7).max() == 1
    assert (faces.split == 1).sum() in (5, 6, 7)


def test_a_missing_test_is_drawn_from_train_and_val_stays(images, tmp_path, capsys):
    faces = loaded(folder, write_folder(tmp_path, images, ("train", "val", "val")), 16)
    assert "no test set: " in capsys.readouterr().out
    assert (faces.split == 1).sum() == 14 and 5 <= (faces.split == 2).sum() <= 7


def test_no_train_is_refused(images, tmp_path, user_error):
    user_error(lambda: loaded(folder, write_folder(tmp_path, images, ("val", "val", "test")), 16), tmp_path,
               "a folder train")


def test_unlabelled_folders_are_faces_without_a_label(images, tmp_path):
    write_folder(tmp_path, images)
    (tmp_path / "train" / "sad").rename(tmp_path / "train" / "unlabelled")
    faces = loaded(folder, tmp_path, 16)
    assert (faces.labels[faces.split == 0] == -1).sum() == 8 and 4 not in faces.labels[faces.split == 0]


def test_a_folder_without_pictures_is_said_unless_it_has_some_in_another_part(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    (tmp_path / "train" / "contempt").mkdir()
    for file in (tmp_path / "val" / NAMES[0]).iterdir():
        file.unlink()
    faces = loaded(folder, tmp_path, 16)
    assert "no pictures in contempt: no such classes\n" in capsys.readouterr().out
    assert len(faces.classes) == 7


def test_a_class_of_which_no_picture_can_be_read_is_said(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    (tmp_path / "train" / "contempt").mkdir()
    (tmp_path / "train" / "contempt" / "text.jpg").write_text("no picture")
    faces = loaded(folder, tmp_path, 16)
    assert "no picture could be read in contempt: no such classes\n" in capsys.readouterr().out
    assert len(faces.classes) == 7


def test_other_folders_are_classes_after_the_expressions(images, tmp_path):
    write_folder(tmp_path, images, names=(*NAMES[:5], "contempt", "Zebra"))
    faces = loaded(folder, tmp_path, 16)
    assert faces.classes[-2:] == ("contempt", "Zebra") and len(faces.classes) == 7 and len(faces) == 70


ORDER = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")


def test_numbered_folders_are_refused_unless_their_names_are_given(images, tmp_path, user_error):
    write_folder(tmp_path, images, names=list("1234567"))
    user_error(lambda: loaded(folder, tmp_path, 16), tmp_path / "test" / "1", "CLASS_NAMES=FER2013 or RAF-DB")
    for names in ("RAF-DB", "raf-db", ", ".join(ORDER), "surprised,fearful,disgusted,happiness,sadness,angry,neutral"):
        faces = loaded(folder, tmp_path, 16, CLASS_NAMES=names)
        rows = np.flatnonzero(faces.split == 1)                 # one of each folder, in the order of their names
        assert [faces.classes[label] for label in faces.labels[rows]] == list(ORDER)
    user_error(lambda: loaded(folder, tmp_path, 16, CLASS_NAMES="a,b,c"), tmp_path / "test", "1 a, 2 b, 3 c",
               "4, 5, 6, 7", "all numbers from 1 to 7")


def test_people_are_found_by_a_pattern_and_kept_apart(images, tmp_path, capsys, user_error):
    for row, image in enumerate(images):
        path = tmp_path / NAMES[row % 7] / f"S{row // 7:02d}_{row}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    for pattern, people in ((r"^(S\d+)_", 10), (r"S\d+", 10), (f"({NAMES[2]}|{NAMES[4]})/", 2)):
        faces = loaded(folder, tmp_path, 16, IDENTITY_PATTERN=pattern)
        assert len(np.unique(faces.identities[faces.identities >= 0])) == people
        assert f"{people} people" in capsys.readouterr().out
        for a, b in ((0, 1), (0, 2), (1, 2)):
            shared = np.intersect1d(faces.identities[faces.split == a], faces.identities[faces.split == b])
            assert not (shared >= 0).any()
    assert (faces.identities >= 0).sum() == 20                  # those of other classes are unknown
    user_error(lambda: loaded(folder, tmp_path, 16, IDENTITY_PATTERN="^X"), "none in 70", "/S00_")
    user_error(lambda: loaded(folder, tmp_path, 16, IDENTITY_PATTERN="("), "a regular expression")


def test_a_missing_val_is_drawn_with_people_apart(images, tmp_path):
    for row, image in enumerate(images):
        path = tmp_path / ("test" if row // 7 == 9 else "train") / NAMES[row % 7] / f"S{row // 7}_{row}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(path)
    faces = loaded(folder, tmp_path, 16, IDENTITY_PATTERN=r"^S\d")
    assert len(np.unique(faces.identities[faces.split == 1])) == 1
    assert not np.intersect1d(faces.identities[faces.split == 0], faces.identities[faces.split == 1]).size


def test_files_that_are_plainly_no_images_are_passed_over_in_silence(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    for name in ("labels.csv", "Thumbs.db", ".DS_Store", "._001.png", "notes.txt"):
        (tmp_path / "train" / "sad" / name).write_bytes(b"no image")
    (tmp_path / "train" / "sad" / ".cache").mkdir()
    Image.fromarray(images[0]).save(tmp_path / "train" / "sad" / ".cache" / "copy.png")
    assert len(loaded(folder, tmp_path, 16)) == 70 and capsys.readouterr().out == ""


def test_images_that_cannot_be_read_are_named_and_counted(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    path = tmp_path / "train" / "sad"
    whole = (path / "004.png").read_bytes()
    (path / "cut.png").write_bytes(whole[:len(whole) // 2])
    (path / "fake.jpg").write_bytes(b"not an image")
    assert len(loaded(folder, tmp_path, 16)) == 70
    out = capsys.readouterr().out
    assert "left out 2 of 72" in out and "sad/cut.png: " in out and "sad/fake.jpg: cannot identify" in out


def test_only_unreadable_images_are_refused(tmp_path, user_error):
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "a.jpg").write_bytes(b"nothing")
    user_error(lambda: loaded(folder, tmp_path), tmp_path, "none of 1", "a.jpg")


def read_one(tmp_path, image, size=16, name="a.png", **save):
    image.save(tmp_path / name, **save)
    pixels, was_square = square(Image.open(tmp_path / name), size)
    assert pixels.shape == (size, size) and pixels.dtype == np.uint8
    return pixels, was_square


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


@pytest.mark.parametrize("kind, name", [(np.uint16, "a.png"), (np.int32, "a.tif")])
def test_eight_bits_in_a_wider_file_are_taken_as_they_are(kind, name, images, tmp_path):
    pixels, _ = read_one(tmp_path, Image.fromarray(images[0].astype(kind)), name=name)
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
    pixels, was_square = read_one(tmp_path, Image.fromarray(image if wide else image.T.copy()))
    assert np.array_equal(pixels, images[0] if wide else images[0].T) and not was_square


def test_cut_images_are_counted_once_for_all(images, tmp_path, capsys):
    write_folder(tmp_path, np.pad(images, ((0, 0), (2, 2), (0, 0)), mode="edge"))
    loaded(folder, tmp_path, 16)
    assert capsys.readouterr().out == f"{tmp_path}: cut 70 images that are not square to the square in their middle\n"


def test_the_orientation_of_a_camera_is_honoured(images, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6                                            # to be turned clockwise by a quarter
    pixels, _ = read_one(tmp_path, Image.fromarray(images[0]), exif=exif)
    assert np.array_equal(pixels, np.rot90(images[0], -1))


def test_faces_know_their_files_whatever_is_left_out(images, tmp_path, capsys):
    images[3], images[60] = 0, images[5]
    write_folder(tmp_path, images)
    (tmp_path / "train" / NAMES[0] / "000.fake.jpg").write_bytes(b"not an image")
    faces = loaded(folder, tmp_path, 16)
    for image, file in zip(faces.images, faces.files, strict=True):
        assert (np.asarray(Image.open(tmp_path / file)) == image).all()
    assert len(faces) == 69 and f"remove them: train/{NAMES[5]}/005.png\n" in capsys.readouterr().out
    few = without_classes(faces, "sad")
    assert few.files == tuple(file for file in faces.files if f"/{NAMES[4]}/" not in file)
    assert len(few) == len(few.files) < 69


def test_files_and_arrays_are_resized_alike(images, tmp_path):
    for size in (8, 24):
        pixels, was_square = read_one(tmp_path, Image.fromarray(images[0]), size)
        assert np.abs(pixels.astype(int) - squares(images[:1], size, "here")[0]).max() <= 1 and was_square


def test_black_images_in_folders_are_left_out_with_a_count(images, tmp_path, capsys):
    images[3] = 0
    assert len(loaded(folder, write_folder(tmp_path, images), 16)) == 69
    assert "left out 1 of 70" in capsys.readouterr().out


def test_images_beside_the_folders_are_not_read_and_said_so(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    Image.fromarray(images[0]).save(tmp_path / "train" / "stray.png")
    Image.fromarray(images[0]).save(tmp_path / "beside_train.png")
    (tmp_path / "raw").mkdir()
    assert len(loaded(folder, tmp_path, 16)) == 70
    assert "not read: 2 files" in (out := capsys.readouterr().out) and "raw" in out


@pytest.mark.parametrize("content", [(), ("fer2013.zip",)])
def test_a_folder_without_folders_of_images_is_refused_with_what_is_there(content, tmp_path, user_error):
    for name in content:
        (tmp_path / name).touch()
    user_error(lambda: loaded(folder, tmp_path), tmp_path, *content or ("an empty folder",), "unpack archives")


@pytest.mark.parametrize("name, found", [("fer2013.zip", "an archive"), ("fer2013.tar.gz", "an archive"),
                                         ("faces.h5", "another kind")])
def test_a_file_of_another_kind_is_refused(name, found, tmp_path, user_error):
    (tmp_path / name).touch()
    user_error(lambda: loaded(folder, tmp_path / name), tmp_path / name, found)


def test_pictures_alone_are_unlabelled_faces(images, tmp_path, capsys):
    for n, image in enumerate(images[:30]):
        Image.fromarray(image).save(tmp_path / f"{n:02d}.png")
    faces = loaded(folder, tmp_path, 16)
    assert faces.classes == () and (faces.labels == -1).all() and np.array_equal(faces.images, images[:30])
    assert "30 pictures without labels" in capsys.readouterr().out and set(faces.split) == {0, 1, 2}


def test_a_data_set_one_level_down_is_found_and_named(images, tmp_path, capsys):
    write_folder(tmp_path / "DATASET", images)
    assert len(loaded(folder, tmp_path, 16)) == 70 and "using its folder DATASET/" in capsys.readouterr().out


def test_links_are_followed_but_not_in_circles(images, tmp_path):
    write_folder(tmp_path / "real", images)
    (tmp_path / "mine").mkdir()
    for part in ("train", "val", "test"):
        (tmp_path / "mine" / part).symlink_to(tmp_path / "real" / part)
    (tmp_path / "real" / "train" / "sad" / "circle").symlink_to(tmp_path / "real" / "train" / "sad")
    assert len(loaded(folder, tmp_path / "mine", 16)) == 70


def test_a_folder_that_cannot_be_read_is_named(images, tmp_path, user_error, monkeypatch):
    write_folder(tmp_path, images)
    iterdir = type(tmp_path).iterdir

    def refused(path):
        if path.name == "sad":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)
    monkeypatch.setattr(type(tmp_path), "iterdir", refused)
    user_error(lambda: loaded(folder, tmp_path, 16), "sad", "can be read", "Permission denied")


def write_files(path, names, images):
    """Pictures of these names, one an image in turn."""
    for n, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[n % len(images)]).save(path / name)
    return path


def five(*folders):
    return [f"{name}/{n}.png" for name in folders for n in range(5)]


def test_a_class_may_be_called_train_beside_car_and_bus(images, tmp_path, capsys):
    faces = loaded(folder, write_files(tmp_path, five("car", "bus", "train"), images), 16)
    assert faces.classes == ("bus", "car", "train") and len(faces) == 15
    assert "train: a class like bus" in capsys.readouterr().out


def test_train_and_test_without_folders_are_parts_and_beside_classes_of_train_too(images, tmp_path, capsys):
    faces = loaded(folder, write_files(tmp_path / "a", five("train", "test"), images), 16)
    assert faces.classes == () and (faces.split == 2).sum() == 5
    write_files(tmp_path / "b", five("train/happy", "train/sad", "test", "raw/happy"), images)
    faces = loaded(folder, tmp_path / "b", 16)
    assert faces.classes == ("happy", "sad") and len(faces) == 10
    assert "not read: 10 files" in (out := capsys.readouterr().out) and "folders next to train: raw" in out


@pytest.mark.parametrize("beside", ["logo.png", "samples/1.png"])
@pytest.mark.parametrize("above", ["DATASET", "a/DATASET"])
def test_train_a_level_deeper_is_refused_with_the_folder_to_give(beside, above, images, tmp_path, user_error):
    write_files(tmp_path, [beside, *five(f"{above}/train/happy", f"{above}/train/sad")], images)
    user_error(lambda: loaded(folder, tmp_path, 16), f"{above}/train/happy", f"give {tmp_path / above}")
    assert loaded(folder, tmp_path / above, 16).classes == ("happy", "sad")


def test_train_inside_a_class_is_no_part_and_said_so(images, tmp_path, capsys):
    faces = loaded(folder, write_files(tmp_path, five("happy/train", "happy/test", "sad/train"), images), 16)
    assert faces.classes == ("happy", "sad") and len(faces) == 15
    assert "happy/test is not taken for a part" in (out := capsys.readouterr().out) and "name it test/happy" in out


def test_people_with_folders_of_expressions_are_no_classes(images, tmp_path, user_error):
    people = [f"p{n}" for n in range(5)]
    write_files(tmp_path / "a", five(*[f"{person}/{name}" for person in people for name in ("happy", "sad")]), images)
    text = user_error(lambda: loaded(folder, tmp_path / "a", 16), "in p0/", "rename p0/happy to happy/p0")
    write_files(tmp_path / "b", five(*[f"{name}/{person}" for person in people for name in ("happy", "sad")]), images)
    pattern = text.split('IDENTITY_PATTERN="')[1].split('"')[0]
    faces = loaded(folder, tmp_path / "b", 16, IDENTITY_PATTERN=pattern)
    assert faces.classes == ("happy", "sad") and np.bincount(faces.identities).tolist() == [10] * 5


def test_one_folder_of_expressions_beside_a_picture_is_to_be_given(images, tmp_path, user_error):
    write_files(tmp_path, ["logo.png", *five("faces/happy", "faces/sad")], images)
    user_error(lambda: loaded(folder, tmp_path, 16), f"give {tmp_path / 'faces'}")


def test_links_that_lead_nowhere_are_counted_as_unreadable(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    (tmp_path / "train" / "sad" / "gone.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "train" / "gone").symlink_to(tmp_path / "gone")
    assert len(loaded(folder, tmp_path, 16)) == 70
    out = capsys.readouterr().out
    assert "left out 1 of 71" in out and "not read: 1 files" in out and "e.g. train/gone" in out


def test_pictures_in_hidden_folders_beside_those_of_classes_are_counted(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    write_files(tmp_path, ["train/.angry/1.png", "train/__old/1.png", "__MACOSX/train/._1.png"], images)
    assert len(loaded(folder, tmp_path, 16)) == 70
    assert "not read: 2 files outside the folders of classes, e.g. train/" in capsys.readouterr().out


def test_a_data_folder_may_have_a_name_that_begins_with_a_dot(images, tmp_path):
    assert len(loaded(folder, write_folder(tmp_path / ".mine", images), 16)) == 70
    assert len(loaded(folder, write_files(tmp_path / ".flat", [f"{n}.png" for n in range(9)], images), 16)) == 9


@pytest.mark.parametrize("other, said", [("smile", True), ("Smile", False)])
def test_folders_that_differ_in_letter_case_are_one_class(other, said, images, tmp_path, capsys):
    write_files(tmp_path, five("train/Smile", "train/frown", f"test/{other}", "test/frown"), images)
    faces = loaded(folder, tmp_path, 16)
    assert len(faces.classes) == 2 and (faces.split == 2).sum() == 10
    assert ("taken as one class: smile, Smile" in capsys.readouterr().out) == said


def test_both_unicode_forms_of_a_name_are_one_class(images, tmp_path):
    names = [unicodedata.normalize(form, "Überraschung") for form in ("NFC", "NFD")]
    write_files(tmp_path, five(f"train/{names[0]}", "train/happy", f"test/{names[1]}", "test/happy"), images)
    assert loaded(folder, tmp_path, 16).classes == ("happy", names[0])


def test_a_folder_that_is_linked_into_itself_is_refused_in_few_lines(tmp_path, capsys, user_error):
    (tmp_path / "again").symlink_to(tmp_path)
    user_error(lambda: loaded(folder, tmp_path), tmp_path, "again")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["train.csv", "fer2013", "mine.npz", "d.mat"])
def test_a_folder_with_a_data_set_of_another_kind_is_refused_with_the_path_to_give(name, tmp_path, user_error):
    (tmp_path / "notes.csv").write_text("a,b\n")
    (tmp_path / name).write_text("emotion,pixels\n0,1 2 3\n")
    user_error(lambda: loaded(folder, tmp_path), f"give the path of {name}: {tmp_path / name}")


def test_class_names_without_effect_are_warned_of(images, tmp_path, capsys):
    loaded(folder, write_folder(tmp_path, images), 16, CLASS_NAMES="a,b")
    assert f"warning: {tmp_path}: CLASS_NAMES=a,b has no effect" in capsys.readouterr().out


def test_a_readme_without_ending_is_no_picture(images, tmp_path, capsys):
    write_folder(tmp_path, images)
    (tmp_path / "train" / "README").write_text("text")
    assert len(loaded(folder, tmp_path, 16)) == 70 and capsys.readouterr().out == ""


def test_hidden_pixels_of_transparent_pictures_show_the_ground(images, tmp_path):
    opacity = np.zeros((16, 16), np.uint8)
    opacity[:8] = 255
    picture = Image.merge("LA", (Image.fromarray(images[0]), Image.fromarray(opacity)))
    pixels, _ = read_one(tmp_path, picture)
    assert np.abs(pixels[:8].astype(int) - images[0, :8]).max() <= 1 and (pixels[8:] == 128).all()


def test_ten_bits_in_a_16_bit_file_are_not_black(images, tmp_path):
    wide = (images[0] / 255 * 1023).astype(np.uint16)
    wide[0, 0] = 1023
    pixels, _ = read_one(tmp_path, Image.fromarray(wide))
    assert np.abs(pixels.astype(int) - (wide / 1023 * 255)).max() <= 1
