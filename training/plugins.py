"""Functions of the user's own files, named as "my_file.py:function"."""
import importlib.util
import os
import sys
import traceback
from pathlib import Path

import torch

from training.errors import UserError, check_choice, described


def is_plugin(name):
    """Whether a name is one of a function in a file."""
    return isinstance(name, str) and ".py:" in name


def load_function(name, where, expected):
    """The function that "my_file.py:function" names. where: the constant, and expected: what it should be, for errors.

    While the file is executed it can import modules of its folder, and torch's random numbers start from seed 0. Raises
    UserError where there is no such file or function, or it cannot be imported.
    """
    path, _, function = name.rpartition(":")
    path = Path(path).expanduser()
    where = f"{where}={name}"
    if not os.path.isfile(path):                                # False for names that no file can have, too
        raise UserError(where, expected, f"no file {path.absolute()}", "check the path")
    spec = importlib.util.spec_from_file_location(f"file {path}", path)     # a name that no import finds
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)     # there dataclasses look
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with torch.random.fork_rng(devices=[]):                 # networks start from the same weights in any process
            torch.default_generator.manual_seed(0)
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:                    # whatever the file does as it is imported
        remedy = 'put what ends the program below if __name__ == "__main__":' if isinstance(error, SystemExit) else \
            f"correct the file, until this succeeds: python {path}"
        raise UserError(where, expected, f"it fails as it is imported: {what_failed(error)}", remedy) from None
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    if not hasattr(module, function):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UserError(where, expected, f"no {function} in the file, but {', '.join(names[:8]) or 'no function'}",
                        "check the function's name")
    return getattr(module, function)


def choose(name, known, where, expected):
    """The function of this name in the dict known, or in a file. Raises UserError where there is neither."""
    if is_plugin(name):
        return load_function(name, where, expected)
    check_choice(where, name, (*known, "my_file.py:function"))
    return known[name]


def what_failed(error):
    """The type and the first line of the message of what the user's code raised, and the last line of that code."""
    text = described(error)
    if isinstance(error, SyntaxError):                          # which says itself where it is
        return text
    files = {module.__file__ for name, module in list(sys.modules.items()) if name.startswith("file ")}    # see above
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text


def tried(name, build, kind, outputs, shapes, remedy):
    """The network that build() makes by the function name; if that is the user's, of the class kind, after it was
    tried in eval mode.

    outputs: a function of the network to tensors of 4 faces by name; shapes: those that they must have, by name.
    Raises UserError where anything fails, or the class or a shape is another one.
    """
    if not is_plugin(name):
        return build()
    listed = lambda shapes: ", ".join(f"{output} {shape}" for output, shape in shapes.items())
    try:
        network = build()
        found = f"{type(network).__name__}, not {kind.__name__}"
        if isinstance(network, kind):
            with torch.no_grad():
                found = {output: tuple(tensor.shape) for output, tensor in outputs(network.eval()).items()}
    except Exception as error:
        found = what_failed(error)
    if found != shapes:
        raise UserError(f"ARCHITECTURE={name}", f"{kind.__module__}.{kind.__name__}; of 4 faces: {listed(shapes)}",
                        listed(found) if isinstance(found, dict) else found, remedy)
    return network.train()
