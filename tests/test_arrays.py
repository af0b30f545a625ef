"""Arrays of a user's own, whole and damaged."""
import numpy as np
import pytest

from data import arrays
from data.faces import without_classes
from data.labels import EXPRESSIONS
from data.pixels import squares
from layouts import loaded, save_arrays


def test_an_npz_and_a_folder_of_npy_give_the_same_faces(content, tmp_path):
    np.savez(tmp_path / "mine.npz", **content)
    save_arrays(tmp_path, **content)
    paths = (tmp_path / "mine.npz", tmp_path, tmp_path / "images.npy")
    assert all(arrays.found(path) for path in paths)
    faces = [loaded(arrays, path, 16) for path in paths]
    assert len({f.fingerprint for f in faces}) == 1 and np.array_equal(faces[0].images, content["images"])
    assert faces[0].split.tolist() == [0] * 56 + [1] * 7 + [2] * 7
    assert [f.name for f in faces] == ["mine", tmp_path.name, tmp_path.name]


def test_images_npy_stays_memory_mapped_if_its_size_fits(content, tmp_path):
    save_arrays(tmp_path, **content)
    assert isinstance(loaded(arrays, tmp_path, 16).images, np.memmap)
    assert np.array_equal(loaded(arrays, tmp_path, 8).images, squares(content["images"], 8, "here"))


def test_fortran_ordered_images_are_not_transposed(content, tmp_path):
    save_arrays(tmp_path, **{**content, "images": np.asfortranarray(content["images"])})
    assert np.array_equal(loaded(arrays, tmp_path, 16).images, content["images"])


def test_arrays_without_identities_and_split_get_a_drawn_split(content, tmp_path):
    np.savez(tmp_path / "mine.npz", images=content["images"], labels=content["labels"])
    faces = loaded(arrays, tmp_path / "mine.npz", 16)
    assert np.bincount(faces.split).tolist() == [56, 7, 7] and (faces.identities == -1).all()


def test_arrays_with_one_identity_for_all_cannot_be_split(content, tmp_path, user_error):
    np.savez(tmp_path / "mine.npz", images=content["images"], labels=content["labels"], identities=np.full(70, 5))
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), "mine.npz", "1 identities", "split of your own")


@pytest.mark.parametrize("missing", ["labels", "images"])
def test_images_and_labels_are_both_needed(missing, content, tmp_path, user_error):
    del content[missing]
    np.savez(tmp_path / "mine.npz", **content)
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), tmp_path / "mine.npz", f"no {missing}",
               "-1 for an unlabelled one")


def test_arrays_of_other_names_are_named(content, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", **content, splits=content["split"])
    loaded(arrays, tmp_path / "mine.npz", 16)
    assert "not read: splits" in capsys.readouterr().out


def test_a_folder_without_labels_npy_is_refused(content, tmp_path, user_error):
    save_arrays(tmp_path, images=content["images"])
    user_error(lambda: loaded(arrays, tmp_path, 16), tmp_path, "no labels")


def test_black_faces_are_refused_so_that_rows_stay_those_of_a_metric(content, tmp_path, user_error):
    content["images"][12] = 0
    user_error(lambda: loaded(arrays, save_arrays(tmp_path, **content), 16), tmp_path, "rows 12")


@pytest.mark.parametrize("name", ["images", "labels", "identities", "split"])
def test_pickled_objects_are_refused(name, content, tmp_path, user_error):
    content[name] = content[name].astype(object)
    np.savez(tmp_path / "mine.npz", **content)
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), tmp_path / "mine.npz", "ValueError", "object arrays")
    save_arrays(tmp_path, **content)
    user_error(lambda: loaded(arrays, tmp_path, 16), tmp_path / f"{name}.npy", "ValueError", "object arrays")


@pytest.mark.parametrize("kept", [0, 3, 100, 5000])
def test_truncated_arrays_are_refused(kept, content, tmp_path, user_error):
    np.savez_compressed(tmp_path / "mine.npz", **content)
    save_arrays(tmp_path, **content)
    for name in ("mine.npz", "images.npy"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
        user_error(lambda: loaded(arrays, tmp_path / name, 16), tmp_path / name, "cut off")


def test_an_npz_with_a_flipped_byte_is_refused(content, tmp_path, user_error):
    np.savez(tmp_path / "mine.npz", **content)
    whole = bytearray((tmp_path / "mine.npz").read_bytes())
    whole[9000] ^= 1                                            # inside images
    (tmp_path / "mine.npz").write_bytes(whole)
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), "mine.npz", "CRC")


@pytest.mark.parametrize("name, change, found", [
    ("images", lambda a: a * 2., "float64 from"), ("images", lambda a: np.where(a > 200, np.nan, a), "NaN"),
    ("images", lambda a: a[..., None].repeat(2, 3), "(70, 16, 16, 2)"), ("images", lambda a: a - 500., "from -"),
    ("images", lambda a: a[:1, :1, 0], "(1, 1)"), ("labels", lambda a: a - 3, "-3 in row 0"),
    ("labels", lambda a: a[1:], "(69,)"), ("identities", lambda a: a - 3, "-3 in row 0"),
    ("identities", lambda a: a.astype(np.uint64) + 2 ** 63, "9223372036854775808 in row 0"),
    ("split", lambda a: np.char.upper(a), "TEST")])
def test_misshapen_arrays_are_refused(name, change, found, content, tmp_path, user_error):
    content[name] = change(content[name])
    np.savez(tmp_path / "mine.npz", **content)
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), tmp_path / "mine.npz", found)


def test_the_names_of_classes_are_taken_from_an_array(content, tmp_path):
    np.savez(tmp_path / "mine.npz", **content, classes=["a", "b", "c", "d", "e", "f", "g"])
    faces = loaded(arrays, tmp_path / "mine.npz", 16)
    assert faces.classes == tuple("abcdefg") and np.array_equal(faces.labels, content["labels"])
    assert faces.about()["classes"] == list("abcdefg")


def test_numbers_of_labels_are_named_by_class_names(content, tmp_path, user_error):
    content["labels"] = content["labels"] + 1
    content["labels"][:7] = -1
    path = tmp_path / "mine.npz"
    np.savez(path, **content)
    faces = loaded(arrays, path, 16, CLASS_NAMES="RAF-DB")      # 1 surprise, 2 fear, ...
    named = [faces.classes[label] for label in faces.labels[7:14]]
    assert named == ["surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"]
    assert (faces.labels[:7] == -1).all()
    user_error(lambda: loaded(arrays, path, 16, CLASS_NAMES="a,b"), path, "1 a, 2 b", "3, 4, 5", "1 to 7")
    np.savez(path, **content | dict(labels=content["labels"].astype(str)))
    user_error(lambda: loaded(arrays, path, 16, CLASS_NAMES="RAF-DB"), path, "whole numbers")


# --- labels, identities and split as people save them

@pytest.fixture
def saved(content, tmp_path):
    """saved(name=array, ...): the path of an .npz of content with these arrays instead, or without those of None."""
    def save(**changes):
        arrays_saved = {name: array for name, array in {**content, **changes}.items() if array is not None}
        np.savez(tmp_path / "mine.npz", **arrays_saved)
        return tmp_path / "mine.npz"
    return save


def names_of(faces):
    """The class of each face, None for unlabelled ones."""
    return [faces.classes[label] if label >= 0 else None for label in faces.labels]


def test_numbers_as_labels_are_said_to_be_taken_as_expressions(saved, labels, capsys):
    loaded(arrays, saved(), 16)
    assert "labels are numbers: taken as 0 anger, 1 disgust" in capsys.readouterr().out
    loaded(arrays, saved(classes=list("abcdefg")), 16)
    loaded(arrays, saved(), 16, CLASS_NAMES="a,b,c,d,e,f,g")
    loaded(arrays, saved(labels=np.array(EXPRESSIONS)[labels]), 16)
    loaded(arrays, saved(labels=labels + 3), 16)
    assert "labels are numbers" not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64])
def test_a_minus_one_that_an_unsigned_type_made_its_largest_is_unlabelled(dtype, saved, labels, capsys):
    labels[:3] = -1
    faces = loaded(arrays, saved(labels=labels.astype(dtype)), 16)
    assert names_of(faces)[:5] == [None, None, None, "happy", "sad"] and faces.classes == EXPRESSIONS[:7]
    assert f"3 labels {np.iinfo(dtype).max} of type" in capsys.readouterr().out
    with_names = loaded(arrays, saved(labels=labels.astype(dtype)), 16, CLASS_NAMES="a,b,c,d,e,f,g")
    assert names_of(with_names)[:5] == [None, None, None, "d", "e"]


def test_256_classes_in_uint8_are_kept(saved):
    faces = loaded(arrays, saved(labels=np.arange(186, 256).astype(np.uint8)), 16)
    assert faces.classes[-1] == "255" and (faces.labels >= 0).all()


def test_names_that_say_unlabelled_are_no_classes(saved):
    names = np.array(["happy", -1, "nan", "None", "", "unknown", "sad"] * 10)
    assert names_of(loaded(arrays, saved(labels=names), 16))[:7] == ["happy", None, None, None, None, None, "sad"]


def test_faces_of_several_classes_are_refused(saved, labels, user_error):
    one_hot = np.eye(7, dtype=int)[labels]
    one_hot[[4, 10], 2] = 1
    user_error(lambda: loaded(arrays, saved(labels=one_hot), 16), "mine.npz", "at most one 1 a row", "rows 4, 10")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_one_hot_labels_are_named_by_class_names(dtype, saved, labels):
    one_hot = np.eye(7)[labels].astype(dtype)
    one_hot[0] = 0
    faces = loaded(arrays, saved(labels=one_hot), 16, CLASS_NAMES="a,b,c,d,e,f,g")
    assert names_of(faces) == [None, *[*"abcdefg" * 10][1:]]


def test_an_array_of_classes_gives_the_order_of_names(saved, labels, user_error):
    names = np.array([*"bcadefg"])[labels]
    faces = loaded(arrays, saved(labels=names, classes=[*"gfedcbaz"]), 16)
    assert faces.classes == tuple("gfedcba") and names_of(faces) == names.tolist()
    user_error(lambda: loaded(arrays, saved(labels=names, classes=[*"gfedcb"]), 16), "mine.npz", "found:    a\n")


def test_synonyms_and_unlabelled_in_an_array_of_classes_are_known(saved, labels):
    path = saved(labels=labels % 4, classes=["Angry", "happiness", "unknown", "joy"])
    faces = loaded(arrays, path, 16)
    assert faces.classes == ("anger", "happy") and names_of(faces)[:4] == ["anger", "happy", None, "happy"]
    assert without_classes(faces, "Angry").classes == ("happy",)


def test_bytes_are_text_of_utf_8(saved, labels):
    names = np.array([name.encode() for name in ("glücklich", "b", "c", "d", "e", "f", "g")])
    split = np.array([b"train"] * 56 + [b"val", b"test"] * 7)
    for path in (saved(labels=names[labels], split=split), saved(labels=labels, classes=names, split=split)):
        faces = loaded(arrays, path, 16)
        assert names_of(faces)[:2] == ["glücklich", "b"] and faces.split[55:58].tolist() == [0, 1, 2]
    assert names_of(loaded(arrays, saved(labels=np.array([b"h\xe4", b"b"] * 35)), 16))[0] == "h\ufffd"


def test_identities_may_be_names(saved, identities):
    names = np.array(["Eva", "Ali", "unknown", "S3", "S4", "S5", "S6", "S7", "S8", "S9"])[identities]
    numbers = loaded(arrays, saved(identities=names), 16).identities
    assert (numbers[14:21] == -1).all() and len(np.unique(numbers)) == 10
    assert all(len(np.unique(numbers[names == name])) == 1 for name in names)


@pytest.mark.parametrize("name", ["labels", "identities"])
def test_nan_is_answered_with_a_remedy_that_works(name, saved, content, user_error):
    values = content[name].astype(float)
    values[2] = np.nan
    user_error(lambda: loaded(arrays, saved(**{name: values}), 16), "1 NaN, rows 2", f"nan_to_num({name}, nan=-1)")
    assert getattr(loaded(arrays, saved(**{name: np.nan_to_num(values, nan=-1)}), 16), name)[2] == -1


# --- files that are not what they should be

def test_other_arrays_in_a_folder_are_named(content, tmp_path, capsys):
    loaded(arrays, save_arrays(tmp_path, **content, landmarks=np.zeros(3), label=np.zeros(3)), 16)
    assert "not read: label, landmarks" in capsys.readouterr().out


def test_arrays_of_other_names_only_are_named_with_the_remedy(content, tmp_path, user_error):
    np.savez(tmp_path / "mine.npz", X=content["images"], y=content["labels"])
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), "no images and no labels, but X, y",
               "images=f['X'], labels=f['y']")
    np.savez(tmp_path / "mine.npz", Images=content["images"])
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), "but Images", "images=..., labels=...")


def test_an_npz_called_images_npy_is_answered_with_a_remedy_that_works(content, tmp_path, user_error, monkeypatch):
    save_arrays(tmp_path, labels=content["labels"])
    np.savez(tmp_path / "other.npz", faces=content["images"])
    (tmp_path / "other.npz").rename(tmp_path / "images.npy")
    text = user_error(lambda: loaded(arrays, tmp_path, 16), tmp_path / "images.npy", "an .npz: faces")
    monkeypatch.chdir(tmp_path)
    eval(text.partition("take one out: ")[2], {"numpy": np})
    assert np.array_equal(loaded(arrays, tmp_path, 16).images, content["images"])


def test_a_folder_or_a_link_to_nothing_instead_of_an_array_is_named(content, tmp_path, user_error):
    save_arrays(tmp_path, **content)
    (tmp_path / "labels.npy").unlink()
    (tmp_path / "labels.npy").symlink_to(tmp_path / "nowhere")
    user_error(lambda: loaded(arrays, tmp_path, 16), tmp_path / "labels.npy", "No such file", "remove the link")
    (tmp_path / "labels.npy").unlink()
    (tmp_path / "labels.npy").mkdir()
    user_error(lambda: loaded(arrays, tmp_path, 16), tmp_path / "labels.npy", "Is a directory", "in its place")


def test_an_array_that_may_not_be_read_is_named(saved, user_error, monkeypatch):
    path = saved()

    def load(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr(np, "load", load)
    user_error(lambda: loaded(arrays, path, 16), path, "Permission denied", "change its permissions")
