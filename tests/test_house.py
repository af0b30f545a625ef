"""The house: who imports whom, and that settings are passed on."""
import dis
import importlib
import inspect
import sys
import types
from pathlib import Path

import pytest

from conftest import SCRIPTS, WITH_CONSTANTS
from training.settings import constants

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("training", "data", "expr_classifier", "metric_vae", "benchmarks")
MODULES = ["run", "experiments", *sorted(f"{package}.{path.stem}" for package in PACKAGES
                                         for path in (ROOT / package).glob("*.py") if not path.stem.startswith("__"))]
MAY_IMPORT = {                  # besides itself
    "training": set(), "data": {"training"}, "expr_classifier": {"training", "data"},
    "metric_vae": {"training", "data"}, "run": {"training", "data", "expr_classifier", "metric_vae"},
    "experiments": {"training", "data", "expr_classifier", "metric_vae", "run"},
    "benchmarks": {"training", "data", "expr_classifier", "metric_vae", "run", "experiments"}}


def code_of(thing):
    """The code objects of a function or class and of all that is defined inside it."""
    if inspect.isclass(thing):
        members = [m.fget if isinstance(m, property) else getattr(m, "__func__", m) for m in vars(thing).values()]
        return [code for member in members if inspect.isfunction(member) for code in code_of(member)]
    codes = [thing.__code__]
    for code in codes:
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return codes


def constants_read(code, module):
    """The constants of scripts that this code of a module reads: its own, and as an attribute of a script."""
    scripts = {name: constants(importlib.import_module(name)) for name in WITH_CONSTANTS}
    own, found, last = scripts.get(module.__name__, {}), set(), None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL" and instruction.argval in own:
            found.add(instruction.argval)
        value = vars(module).get(last) if last else None
        if instruction.opname == "LOAD_ATTR" and inspect.ismodule(value) and value.__name__ in scripts:
            found |= {instruction.argval} & set(scripts[value.__name__])
        last = instruction.argval if instruction.opname == "LOAD_GLOBAL" else None
    return found


@pytest.mark.parametrize("name", MODULES)
def test_no_function_but_main_reads_a_scripts_constant(name):
    module = importlib.import_module(name)
    for label, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == name and (inspect.isfunction(thing) or inspect.isclass(thing))
        if own and not (name in SCRIPTS and label == "main"):
            for code in code_of(inspect.unwrap(thing)):
                assert not constants_read(code, module), (name, label, constants_read(code, module))


def test_no_line_of_code_is_longer_than_120_characters():
    files = [ROOT / "run.py", ROOT / "experiments.py",
             *(path for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py"))]
    long = [(path.name, number) for path in files
            for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 120]
    assert not long


def test_a_function_that_reads_a_constant_is_found():
    module = importlib.import_module("run")
    code = compile("def f():\n    return SEED, vae_script.BETA", "x", "exec").co_consts[0]
    assert constants_read(code, module) == {"SEED", "BETA"}


@pytest.mark.parametrize("name", WITH_CONSTANTS)
def test_a_script_imports_no_constant(name):
    """Otherwise it would be taken for one of its own."""
    module = importlib.import_module(name)
    head = inspect.getsource(module).partition("\ndef ")[0]
    for constant in constants(module):
        assert f"\n{constant} = " in head or f"\n{constant}: " in head, constant


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    package = name.partition(".")[0]
    source = Path(sys.modules[name].__file__ if name in sys.modules else importlib.import_module(name).__file__)
    for line in source.read_text().splitlines():
        words = line.split()
        if words[:1] in (["import"], ["from"]):
            taken = set(words[3:] if words[0] == "from" else ())
            assert words[1] not in SCRIPTS or not {name.strip("(),") for name in taken} & set(
                constants(importlib.import_module(words[1]))), (name, line)
            of = words[1].partition(".")[0].rstrip(",")
            assert of not in MAY_IMPORT or of == package or of in MAY_IMPORT[package], (name, line)
    if name == "data.faces":
        sources = {"arrays", "folder", "synthetic", "tfd", "fer2013", "public", "sources"}
        assert not sources & set(vars(sys.modules[name]))
