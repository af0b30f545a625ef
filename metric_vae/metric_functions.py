"""Functions of the user's own file as a metric: of faces to points, or of two faces each to distances.

In: "my_file.py:function". Out: the function, every result of which is checked.
"""
import inspect

import torch

from metric_vae.metric_checks import LARGEST, TOO_LARGE
from training.distributed import PROCESSES
from training.errors import UserError
from training.plugins import load_function, what_failed

EXPECTED = ("a function of one batch x (B, C, H, W) to points (B, k), or of two, d(x1, x2), to distances (B,)")
ROUNDING = 0.01         # tolerance for d(x1, x2) - d(x2, x1) and d(x, x), as a share of the largest d; wide, since sums
                        # of squares round more than distances do, and training uses neither d(x2, x1) nor d(x, x)
TINY = 1e-6             # how far below 0 rounding may push a distance


def load_user_function(name, x):
    """The function name, "my_file.py:function", and whether it is one of pairs; x (3, 1, H, W): faces to try it with.

    Raises UserError where it is not there, cannot be imported, takes other arguments, or gives no points or distances.
    """
    where = f"METRIC={name}"
    function = load_function(name, "METRIC", EXPECTED)
    if _inputs(function, where) == 1:
        points = points_of(function, where)
        found = [points(x[:size]) for size in ((1, 2, 3) if PROCESSES > 1 else (2, 3))]
        if len({part.shape[1:] for part in found}) > 1:
            raise UserError(where, "points of as many numbers in each batch",
                            " and ".join(str(tuple(part.shape)) for part in found), "return one row a face")
        _check_same(points(x), found[-1], where)
        _check_same(found[-1][:2], found[-2], where)
        return points, False
    distance = distances_of_pairs(function, where)
    for size in (1, 2):
        distance(x[:size], x[1:1 + size])
    i, j = torch.triu_indices(3, 3, 1)
    d, mirrored, same = distance(x[i], x[j]), distance(x[j], x[i]), distance(x, x)
    _check_same(distance(x[i], x[j]), d, where)
    _check_same(distance(x[i][:2], x[j][:2]), d[:2], where)
    tolerance = ROUNDING * d.max() + TINY
    worst = (d - mirrored).abs().argmax()
    if (d - mirrored).abs()[worst] > tolerance:
        raise UserError(where, "the same distance d(x1, x2) and d(x2, x1)", f"{d[worst]:g} and {mirrored[worst]:g}",
                        "return (d(x1, x2) + d(x2, x1)) / 2")
    if same.max() > tolerance:
        raise UserError(where, "d(x, x) = 0", f"{same.max():g}", "return a distance, not a similarity")
    return distance, True


def _inputs(function, where):
    """How many batches a function takes, 1 or 2: its required positional parameters; 1 where Python does not know."""
    if not callable(function):
        raise UserError(where, EXPECTED, type(function).__name__, "name a function of that file")
    if inspect.isclass(function):
        raise UserError(where, EXPECTED, f"a class, {function.__name__}",
                        f"write f = {function.__name__}() in that file, and name f instead")
    try:                                                        # of a network forward, which says more than __call__
        parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):
        return 1
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) not in (1, 2) or any(p.kind == p.KEYWORD_ONLY for p in required):
        names = ", ".join(p.name for p in required)
        raise UserError(where, EXPECTED, f"{len(required)} required parameters" + (f": {names}" if names else ""),
                        "give the others a default, or name those that come as *args")
    return len(required)


def _check_same(found, expected, where):
    """Raise UserError where the function gives the same faces other numbers in another call or batch."""
    gap = (found - expected).abs().max()
    if gap > ROUNDING * expected.abs().max() + TINY:
        raise UserError(where, "the same numbers for a face in every call and batch", f"a difference of {gap:g}",
                        "a network with dropout or batch norm needs .eval()")


def points_of(function, where):
    """The user's function of x (B, C, H, W) to points, float32 (B, ...), which raises UserError for anything else."""
    def points(x):
        expected = f"points ({len(x)}, k) for faces {tuple(x.shape)}"
        found = _call(function, where, expected, x)
        if found.ndim < 2 or len(found) != len(x):
            raise UserError(where, expected, f"shape {tuple(found.shape)}",
                            "return a tensor with one row a face, e.g. x.mean((2, 3))")
        return found
    return points


def distances_of_pairs(function, where):
    """The user's function of x1 and x2, (B, C, H, W) each, to distances, float32 (B,); UserError for anything else."""
    def distances(x1, x2):
        expected = f"distances ({len(x1)},), at least 0, for two batches of faces {tuple(x1.shape)}"
        found = _call(function, where, expected, x1, x2)
        if found.shape != (len(x1),):
            raise UserError(where, expected, f"shape {tuple(found.shape)}",
                            "return a tensor with one number a pair of faces")
        if (found < -ROUNDING * found.abs().max() - TINY).any():
            raise UserError(where, expected, f"{found.min():g}", "return distances, not similarities")
        return found.clamp(min=0)
    return distances


def _call(function, where, expected, *x):
    """function(*x), float32 and on the device of x. Raises UserError where it fails or gives no numbers, or too large
    ones.
    """
    try:
        with torch.autocast(x[0].device.type, enabled=False):  # as in its trial
            found = function(*x)
    except (Exception, SystemExit) as error:
        raise UserError(where, expected, what_failed(error),
                        "correct the function; it must take batches of any size") from None
    if not torch.is_tensor(found) or found.is_complex():
        raise UserError(where, expected, found.dtype if torch.is_tensor(found) else type(found).__name__,
                        "return a tensor of real numbers")
    found = found.detach().to(x[0].device, torch.float32)
    largest = found.abs().max() if found.numel() else torch.zeros(())
    if not largest <= LARGEST:
        large = torch.isfinite(largest)
        raise UserError(where, f"finite numbers of at most {LARGEST:g}", f"{largest:g}" if large else "NaN or infinity",
                        TOO_LARGE if large else "correct the function")
    return found
