"""metric_vae/metric_files.py and metric_checks.py: each kind of file, what is taken of it, and what is refused."""
import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import scipy.spatial
import torch
from scipy.spatial.distance import squareform

from metric_vae import metric_checks
from metric_vae.metrics import Matrix, Points, SparseMatrix, load_metric

CPU = torch.device("cpu")
ROWS = torch.tensor([5, 2, 60, 2])


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(70, 3)).astype(np.float32)


@pytest.fixture
def matrix(points):
    return np.linalg.norm(points[:, None] - points, axis=2)


def save(path, array):
    """Save an array, or a dict of several, as the kind of file that path ends in; returns the path."""
    suffix = path.suffix.lower()
    with open(path, "wb") as file:
        if suffix == ".npy":
            np.save(file, array)
        elif suffix == ".npz":
            np.savez(file, **array if isinstance(array, dict) else {"mine": array})
        elif suffix == ".csv":
            np.savetxt(file, array, delimiter=",")
        elif isinstance(array, dict):
            torch.save({name: torch.as_tensor(part) for name, part in array.items()}, file)
        else:
            torch.save(torch.as_tensor(array), file)
    return str(path)


def write(path, lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


# --- what is taken

@pytest.mark.parametrize("name", ["m.npy", "m.npz", "m.csv", "m.pt", "M.NPZ", "M.Csv"])
def test_points_and_distances_are_taken_from_each_kind_of_file(small_faces, points, matrix, tmp_path, name, capsys):
    metric = load_metric(save(tmp_path / name, points), small_faces, CPU)
    assert isinstance(metric, Points) and np.allclose(metric(ROWS).points, points[ROWS])
    assert f"{name}: points (70, 3)" in capsys.readouterr().out
    metric = load_metric(save(tmp_path / name, matrix), small_faces, CPU)
    assert isinstance(metric, Matrix) and np.allclose(metric.distances(ROWS), matrix[np.ix_(ROWS, ROWS)])
    assert f"{name}: distances (70, 70)" in (printed := capsys.readouterr().out) and "METRIC_KIND=points" in printed


def test_as_many_columns_as_faces_are_points_where_metric_kind_says_so(small_faces, matrix, tmp_path, user_error):
    path = save(tmp_path / "m.npy", matrix + 1)
    user_error(lambda: load_metric(path, small_faces, CPU), "zero diagonal", "METRIC_KIND=points")
    user_error(lambda: load_metric(path, small_faces, CPU, kind="distances"), "zero diagonal")
    assert isinstance(load_metric(path, small_faces, CPU, kind="points"), Points)
    path = save(tmp_path / "p.npy", matrix[:, :5])
    user_error(lambda: load_metric(path, small_faces, CPU, kind="distances"), "(70, 70) distances", "(70, 5)")


@pytest.mark.parametrize("name", ["m.npz", "m.pt"])
def test_of_several_arrays_the_one_with_a_known_name_is_taken(small_faces, points, matrix, tmp_path, user_error, name):
    path = tmp_path / name
    load = lambda kind=None: load_metric(str(path), small_faces, CPU, kind=kind)
    save(path, dict(ages=points, points=matrix))
    assert isinstance(load(), Points) and load()(ROWS).points.shape == (4, 70)
    save(path, dict(ages=points, distances=matrix))
    assert isinstance(load(), Matrix)
    save(path, dict(points=points, distances=matrix))
    user_error(load, path, "2 arrays: points, distances", "METRIC_KIND")
    assert isinstance(load("points"), Points) and isinstance(load("distances"), Matrix)
    save(path, dict(ages=points, others=matrix))
    user_error(load, path, "exactly one array", "2 arrays: ages, others")
    save(path, {})
    user_error(load, path, "no array")


@pytest.mark.parametrize("head, row, left_out", [
    (None, "{1!r},{2!r},{3!r}", ""), (None, "{1!r};{2!r};{3!r}", ""), (None, "{1!r}\t{2!r}\t{3!r}", ""),
    ("x,y,z", "{1!r},{2!r},{3!r}", "header"), ("# x,y,z", "{1!r}, {2!r}, {3!r}", ""),
    ('"x, 1","y",3', '"{1!r}","{2!r}","{3!r}"', "header"),
    ("0,1,2", "{1!r},{2!r},{3!r}", "header"),                             # pandas, index=False
    (",0,1,2", "{0},{1!r},{2!r},{3!r}", "header and index column"),       # pandas
    ("name,0,1,2", "a{0}.jpg,{1!r},{2!r},{3!r}", "header and index column"),
    ("id;x;y;z", "9{0};{1!r};{2!r};{3!r}", "header and index column"),
    (None, '"漢, {0}",{1!r},{2!r},{3!r}', "index column"), (None, "{0}.0\t{1!r}\t{2!r}\t{3!r}", "index column")])
def test_a_table_may_have_a_header_and_an_index_column(small_faces, points, tmp_path, capsys, head, row, left_out):
    rows = [row.format(i, *map(float, point)) for i, point in enumerate(points)]
    path = write(tmp_path / "p.csv", ([head] if head else []) + rows)
    assert np.array_equal(load_metric(path, small_faces, CPU)(ROWS).points, points[ROWS])
    printed = capsys.readouterr().out
    assert f"without its {left_out}\n" in printed if left_out else "without" not in printed


@pytest.mark.parametrize("head, first, warned", [
    (",x,y,z", lambda i: 69 - i, "not in order"), (None, lambda i: (i + 9) % 70, "not in order"),
    (None, lambda i: i * 3 % 70 + 1, "not in order"), ("a,x,y,z", lambda i: 69 - i, "not in order"),
    ("No,x,y,z", lambda i: 500 - i, "not in order"), ("n,x,y,z", lambda i: 7 * i, None),
    ("row,x,y,z", lambda i: i + 5, None), ("Number,x,y,z", lambda i: i, None),
    ("file,x,y,z", lambda i: f"{i:02d}.png", "text")])
def test_a_column_that_numbers_or_names_the_rows_is_left_out(small_faces, points, tmp_path, capsys, head, first,
                                                             warned):
    rows = [f"{first(i)}," + ",".join(map(str, point)) for i, point in enumerate(points)]
    path = write(tmp_path / "p.csv", ([head] if head else []) + rows)
    assert np.array_equal(load_metric(path, small_faces, CPU)(ROWS).points, points[ROWS])
    printed = capsys.readouterr().out
    assert f"its index column is {warned}" in printed if warned else "warning" not in printed


@pytest.mark.parametrize("name", [lambda file: file, lambda file: file.rpartition("/")[2],
                                  lambda file: "data\\" + file.replace("/", "\\"), lambda file: file[8:-4]])
def test_names_of_files_tell_which_row_is_which_face(small_faces, points, tmp_path, capsys, user_error, name):
    faces = replace(small_faces, files=tuple(f"train/{i % 7}/f{i}.jpg" for i in range(70)))
    order = np.random.default_rng(0).permutation(70)
    rows = [f"{name(faces.files[i])}," + ",".join(map(str, points[i])) for i in order]
    path = write(tmp_path / "p.csv", ["file,x,y,z", "unreadable.jpg,9,9,9", *rows])
    assert np.array_equal(load_metric(path, faces, CPU)(ROWS).points, points[ROWS])
    assert "whose names of files tell the faces" in capsys.readouterr().out
    far = np.linalg.norm(points[:, None] - points, axis=2)
    lines = [f"{name(faces.files[i])}," + ",".join(map(str, far[i][order])) for i in order]
    distances = load_metric(write(tmp_path / "d.csv", lines), faces, CPU)(ROWS).distances
    assert distances.numpy() == pytest.approx(far[ROWS][:, ROWS], rel=1e-5)
    wanted = f"f{order[0]}"
    for number, other in enumerate((rows[1:], [rows[0], *rows])):
        path = write(tmp_path / f"few{number}.csv", ["file,x,y,z", *other])
        user_error(lambda: load_metric(path, faces, CPU), f"{2 * number} for", wanted)


def test_extra_rows_of_square_points_are_no_distances(small_faces, tmp_path):
    faces = replace(small_faces, files=tuple(f"{i}.jpg" for i in range(70)))
    values = np.random.default_rng(0).normal(size=(71, 71)).astype(np.float32)
    lines = [f"{i}.jpg," + ",".join(map(str, row)) for i, row in enumerate(values)]
    metric = load_metric(write(tmp_path / "p.csv", lines), faces, CPU, kind="points")
    assert np.array_equal(metric(ROWS).points, values[ROWS])


@pytest.mark.parametrize("name", ["/data/my_faces/{}/face.jpg", "my_faces\\{}\\face.png", "{}/face", "{}/face.jpg"])
def test_longer_paths_and_paths_without_endings_tell_the_faces(small_faces, points, tmp_path, name):
    faces = replace(small_faces, files=tuple(f"{i}/face.jpg" for i in range(70)))
    order = np.random.default_rng(0).permutation(70)
    rows = [name.format(i) + "," + ",".join(map(str, points[i])) for i in order]
    assert np.array_equal(load_metric(write(tmp_path / "p.csv", rows), faces, CPU)(ROWS).points, points[ROWS])


@pytest.mark.parametrize("name", ["face.jpg", "someone{}", " "])
def test_names_of_no_file_are_refused(small_faces, points, tmp_path, user_error, name):
    faces = replace(small_faces, files=tuple(f"{i}/face.jpg" for i in range(70)))
    rows = [name.format(i) + "," + ",".join(map(str, point)) for i, point in enumerate(points)]
    path = write(tmp_path / "p.csv", ["file,x,y,z", *rows])
    user_error(lambda: load_metric(path, faces, CPU), "e.g. 0/face.jpg", "other names")


@pytest.mark.parametrize("head, first", [("n,x,y,z", lambda i: i / 2), ("n,x,y,z", lambda i: i // 2),
                                         (None, lambda i: i + 2)])
def test_a_column_that_does_not_number_the_rows_is_a_coordinate(small_faces, points, tmp_path, head, first):
    rows = [f"{first(i)}," + ",".join(map(str, point)) for i, point in enumerate(points)]
    path = write(tmp_path / "p.csv", ([head] if head else []) + rows)
    assert load_metric(path, small_faces, CPU)(ROWS).points[:, 0].tolist() == [first(i) for i in ROWS.tolist()]


def test_decimal_commas_and_the_mark_of_utf_8_are_understood(small_faces, points, tmp_path):
    lines = ["\ufeffx;y;z"] + [";".join(repr(float(v)).replace(".", ",") for v in point) for point in points]
    assert np.array_equal(load_metric(write(tmp_path / "p.csv", lines), small_faces, CPU)(ROWS).points, points[ROWS])


def test_a_first_column_that_counts_the_rows_is_kept_where_it_is_a_distance_or_the_only_one(small_faces, tmp_path):
    count = np.arange(70)
    far = np.abs(count[:, None] - count)
    for array in (count[:, None], far):
        metric = load_metric(save(tmp_path / "p.csv", array), small_faces, CPU)
        assert np.array_equal(metric.distances(ROWS), far[np.ix_(ROWS, ROWS)])


def test_points_and_distances_of_any_byte_order_and_with_rounding_are_taken(small_faces, tmp_path, points):
    rows = torch.arange(9)
    native = load_metric(save(tmp_path / "p.npy", points), small_faces, CPU).distances(rows)
    swapped = load_metric(save(tmp_path / "q.npy", points.astype(">f8")), small_faces, CPU).distances(rows)
    assert torch.equal(native, swapped)
    d = np.abs(points[:, :1] - points[:, 0])
    d[3, 5] = d[5, 3] = -1e-9
    assert load_metric(save(tmp_path / "d.npy", d), small_faces, CPU).distances(rows)[3, 5] == 0


def test_whole_numbers_bools_and_bf16_are_taken(small_faces, points, tmp_path):
    whole = (4 * points).round()
    expected = load_metric(save(tmp_path / "p.npy", whole), small_faces, CPU).distances(ROWS)
    for name, array in (("a.npy", whole.astype(np.int8)), ("b.npy", (whole + 100).astype(np.uint16)),
                        ("c.pt", torch.as_tensor(whole).bfloat16())):
        assert torch.equal(load_metric(save(tmp_path / name, array), small_faces, CPU).distances(ROWS), expected)
    apart = load_metric(save(tmp_path / "d.npy", ~np.eye(70, dtype=bool)), small_faces, CPU).distances(ROWS[:3])
    assert torch.equal(apart, 1 - torch.eye(3))


# --- sparse matrices

def sparse(path, matrix):
    scipy.sparse.save_npz(path, matrix)
    return str(path)


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.coo_array, scipy.sparse.csc_array])
def test_pairs_that_a_sparse_matrix_does_not_store_have_no_distance(small_faces, matrix, tmp_path, capsys, kind):
    near = matrix < 1.5
    metric = load_metric(sparse(tmp_path / "d.npz", kind(np.where(near, matrix, 0))), small_faces, CPU)
    rows = torch.tensor([1, 69, 0, 44, 1])                      # one face twice is at distance 0
    given, block = metric(rows), np.ix_(rows, rows)
    assert isinstance(metric, SparseMatrix) and given.points is None and 5 < near[block].sum() < 25
    assert np.array_equal(given.known, near[block])
    assert np.allclose(given.distances, np.where(near, matrix, np.nan)[block], equal_nan=True)
    train = np.triu(near[:56, :56], 1).sum() / (56 * 55 / 2)
    assert f"{100 * train:.3g} % of the pairs of training faces" in capsys.readouterr().out


def test_a_stored_zero_is_a_given_distance_of_0(small_faces, tmp_path):
    i, j, d = [0, 1, 1, 2], [1, 0, 2, 1], [0.0, 0.0, 3.0, 3.0]
    metric = load_metric(sparse(tmp_path / "d.npz", scipy.sparse.coo_matrix((d, (i, j)), (70, 70))), small_faces, CPU)
    given = metric(torch.arange(3))
    nan = np.nan
    assert np.array_equal(given.distances, [[0, 0, nan], [0, 0, 3], [nan, 3, 0]], equal_nan=True)
    assert given.known.tolist() == [[True, True, False], [True, True, True], [False, True, True]]


def test_a_sparse_matrix_of_all_pairs_lacks_none(small_faces, matrix, tmp_path):
    metric = load_metric(sparse(tmp_path / "d.npz", scipy.sparse.csr_array(matrix)), small_faces, CPU)
    assert metric(ROWS).known is None and np.allclose(metric.distances(ROWS), matrix[np.ix_(ROWS, ROWS)])


def changed(matrix, *entries):
    """A sparse matrix with these entries (i, j, d)."""
    matrix = scipy.sparse.lil_matrix(matrix)
    for i, j, d in entries:
        matrix[i, j] = d
    return matrix.tocsr()


@pytest.mark.parametrize("change, words", [
    (lambda d: scipy.sparse.triu(d), ("symmetric", "(j, i)")), (lambda d: scipy.sparse.tril(d), ("symmetric",)),
    (lambda d: changed(d, (3, 4, 9)), ("symmetric", "row 3, column 4")), (lambda d: -d, ("at least 0",)),
    (lambda d: changed(d, (3, 4, np.nan), (4, 3, np.nan)), ("finite", "row 3, column 4")),
    (lambda d: changed(d, (7, 7, 1)), ("zero diagonal", "row 7, column 7")), (lambda d: d * 1j, ("complex",)),
    (lambda d: d * 1e20, ("at most 1e+08",)), (lambda d: d[:60], ("(60, 70)",)),
    (lambda d: scipy.sparse.csr_matrix((70, 70)), ("0 stored pairs",)),
    (lambda d: changed(scipy.sparse.csr_matrix((70, 70)), (60, 61, 1), (61, 60, 1)), ("0 stored pairs",)),
    (lambda d: scipy.sparse.coo_matrix(([0.0, 0.0], ([1, 2], [2, 1])), (70, 70)), ("1 stored pairs", "above 0"))])
def test_a_sparse_matrix_that_cannot_be_distances_of_training_faces_is_refused(small_faces, matrix, tmp_path,
                                                                              user_error, change, words):
    path = sparse(tmp_path / "d.npz", change(scipy.sparse.csr_matrix(np.where(matrix < 1.5, matrix, 0))))
    user_error(lambda: load_metric(path, small_faces, CPU), path, *words)


def test_a_sparse_matrix_with_indices_beyond_its_shape_is_refused(small_faces, matrix, tmp_path, user_error):
    for kind in ("csr", "csc"):
        path = sparse(tmp_path / "d.npz", scipy.sparse.csr_matrix(matrix).asformat(kind))
        with np.load(path) as file:
            parts = dict(file)
        parts["indices"][5] = 10 ** 8
        np.savez(path, **parts)
        user_error(lambda: load_metric(path, small_faces, CPU), path, "ind")


def test_a_sparse_matrix_is_not_taken_for_points(small_faces, matrix, tmp_path, user_error):
    path = sparse(tmp_path / "d.npz", scipy.sparse.csr_matrix(matrix))
    user_error(lambda: load_metric(path, small_faces, CPU, kind="points"), path, "sparse")


# --- what is refused

@pytest.mark.parametrize("name", ["m.npy", "m.npz", "m.csv", "m.pt", "s.npz"])
def test_a_file_that_is_cut_off_garbled_empty_or_missing_is_refused(small_faces, points, tmp_path, user_error, name):
    path = tmp_path / name
    user_error(lambda: load_metric(str(path), small_faces, CPU), path, "check the path")
    if name == "s.npz":
        sparse(path, scipy.sparse.eye(70))
    else:
        save(path, points)
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:50], b"rubbish" * 100, bytes(range(256)) * 9, b""):
        path.write_bytes(content)
        user_error(lambda: load_metric(str(path), small_faces, CPU), path)


@pytest.mark.parametrize("name, content", [
    ("m.npy", np.array([{}] * 70)), ("m.npz", np.array([{}] * 70)), ("m.npy", np.array([["a"]] * 70)),
    ("m.pt", {}), ("m.pt", [torch.ones(70, 2)]), ("m.pt", np.ones((70, 2))), ("m.pt", torch.eye(70).to_sparse()),
    ("m.pt", torch.ones(70, 2) * 1j), ("m.npy", np.ones((70, 2)) * 1j), ("m.npz", np.array(3))])
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_text_objects_and_complex_numbers_are_refused(small_faces, tmp_path, user_error, name, content):
    path = tmp_path / name
    if name == "m.pt":
        torch.save(content, path)
    else:
        save(path, content)
    user_error(lambda: load_metric(str(path), small_faces, CPU), path)


@pytest.mark.parametrize("name", ["pixel", "m.mat", "m"])
def test_another_name_is_refused_with_the_names_there_are(small_faces, tmp_path, user_error, name):
    user_error(lambda: load_metric(str(tmp_path / name), small_faces, CPU), '"pixels"', ".npy, .npz, .csv, .pt")


@pytest.mark.parametrize("row, words", [
    ("1,2", "2 cells in row 5"), ("1,2,3,4", "4 cells in row 5"), ("1,,3", "row 5"), ("1,two,3", "'two'"),
    ("one,2,3", "'one'"), ("1,nan,3", "row 5"), ("1,1e400,3", "infinity in row 5"), ("1,-1e39,3", "1e+39 in row 5")])
def test_a_row_of_a_table_that_is_no_point_is_refused(small_faces, points, tmp_path, user_error, row, words):
    lines = [",".join(map(str, point)) for point in points]
    lines[5] = row
    user_error(lambda: load_metric(write(tmp_path / "p.csv", lines), small_faces, CPU), "p.csv", words)


def test_a_table_with_a_row_too_few_or_too_many_is_refused(small_faces, points, tmp_path, user_error):
    for some in (points[:69], np.concatenate([points, points[:1]]), points[:0]):
        lines = ["x,y,z"] + [",".join(map(str, point)) for point in some]
        path = write(tmp_path / "p.csv", lines)
        user_error(lambda: load_metric(path, small_faces, CPU), path, "header")
        write(tmp_path / "p.csv", lines[1:])
        user_error(lambda: load_metric(path, small_faces, CPU), path)


@pytest.mark.parametrize("factor", [1e10, 1e39, 1e300])
def test_numbers_that_overflow_are_refused(small_faces, points, matrix, tmp_path, user_error, factor):
    for array in (points, matrix):
        path = save(tmp_path / "m.npy", array * np.float64(factor))
        user_error(lambda: load_metric(path, small_faces, CPU), path, "at most 1e+08", "divide")


def broken(matrix, what):
    matrix = matrix.copy()
    if what == "negative":
        matrix[3, 4] = matrix[4, 3] = -1
    elif what == "NaN":
        matrix[3, 4] = np.nan
    elif what == "symmetric":
        matrix[3, 4] += 1
    elif what == "diagonal":
        matrix[3, 3] = 1
    return matrix


@pytest.mark.parametrize("what, words", [("negative", "at least 0"), ("NaN", "finite"), ("symmetric", "symmetric"),
                                         ("diagonal", "zero diagonal")])
@pytest.mark.parametrize("large", [False, True])
def test_a_matrix_that_cannot_be_distances_is_refused(small_faces, user_error, tmp_path, monkeypatch, matrix, what,
                                                      words, large):
    if large:
        monkeypatch.setattr(metric_checks, "CHECKED", 10)
        monkeypatch.setattr(metric_checks, "SAMPLE", 70)
    path = save(tmp_path / "d.npy", broken(matrix, what))
    user_error(lambda: load_metric(path, small_faces, CPU), path, words)


def test_points_with_a_nan_are_refused_by_row(small_faces, user_error, tmp_path, points):
    points[11, 1] = np.nan
    user_error(lambda: load_metric(save(tmp_path / "p.npy", points), small_faces, CPU), "row 11")


@pytest.mark.parametrize("shape", [(69, 3), (71, 71), (70,), (70, 3, 2)])
def test_a_wrong_shape_is_refused(small_faces, user_error, tmp_path, shape):
    path = save(tmp_path / "p.npy", np.zeros(shape))
    user_error(lambda: load_metric(path, small_faces, CPU), path, "70", shape)


@pytest.mark.parametrize("name, form, remedy", [
    ("m.npy", lambda d: d[:, 0], "array[:, None]"), ("m.npy", lambda d: d[:, :3].T, "array.T"),
    ("m.csv", lambda d: d[:, :3].T, "array.T"), ("m.npy", np.triu, "d + d.T"), ("m.csv", np.tril, "d + d.T"),
    ("m.npy", lambda d: squareform(d, checks=False), "scipy.spatial.distance.squareform(array.ravel())"),
    ("m.csv", lambda d: squareform(d, checks=False), "scipy.spatial.distance.squareform(array.ravel())")])
def test_an_array_in_another_form_is_answered_with_a_remedy_that_works(small_faces, matrix, tmp_path, user_error, name,
                                                                      form, remedy):
    array = form(matrix)
    user_error(lambda: load_metric(save(tmp_path / name, array), small_faces, CPU), name, f"save {remedy}")
    metric = load_metric(save(tmp_path / name, eval(remedy, dict(scipy=scipy, array=array, d=array))), small_faces, CPU)
    if isinstance(metric, Matrix):
        assert np.allclose(metric.distances(ROWS), matrix[np.ix_(ROWS, ROWS)], atol=1e-5)


def test_embeddings_of_other_faces_are_refused(small_faces, user_error, tmp_path, points):
    path = save(tmp_path / "embeddings.npy", points)
    for fingerprint in ("0" * 32, small_faces.fingerprint):
        (tmp_path / "settings.json").write_text(json.dumps(dict(data=dict(fingerprint=fingerprint))))
        if fingerprint == small_faces.fingerprint:
            assert isinstance(load_metric(path, small_faces, CPU), Points)
        else:
            user_error(lambda: load_metric(path, small_faces, CPU), small_faces.fingerprint, fingerprint)
