"""Functions of the user's own files, named as "my_file.py:function"."""
import importlib.util
from pathlib import Path

from training.errors import UserError, check_choice


def is_plugin(name):
    """Whether a name is one of a function in a file."""
    return isinstance(name, str) and ".py:" in name


def load_function(name, where, expected):
    """The function that "my_file.py:function" names. where: the constant, and expected: what it should be, for errors.

    Raises UserError where there is no such file or function, or it cannot be imported.
    """
    path, _, function = name.rpartition(":")
    path = Path(path).expanduser()
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, function)
    except Exception as error:                                  # whatever the file does as it is imported
        raise UserError(f"{where}={name}", expected, f"{type(error).__name__}: {error}",
                        "check the path and the function's name") from None


def choose(name, known, where, expected):
    """The function of this name in the dict known, or in a file. Raises UserError where there is neither."""
    if is_plugin(name):
        return load_function(name, where, expected)
    check_choice(where, name, (*known, "my_file.py:function"))
    return known[name]
