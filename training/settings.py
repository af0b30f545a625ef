"""Settings: the constants at the top of a script, changed by NAME=VALUE arguments, as one frozen object.

In: modules (scripts) and arguments. Out: Settings objects, which are passed on; a module is never changed.
"""
import ast
import inspect
import re
import sys
import typing
from collections import Counter
from dataclasses import asdict, make_dataclass

from training.errors import UserError


def constants(script):
    """The UPPER_CASE names of a script that are plain values (text, numbers, None, pairs of numbers), as a dict.

    A script imports no such names, so these are the constants at its top.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(script).items()
              if name.isupper()}
    return {name: value for name, value in values.items()
            if isinstance(value, (str, int, float, tuple, type(None))) and _may_be_schedule(value)}


def freeze(values):
    """A frozen object with these values as attributes; dataclasses.replace makes changed copies of it."""
    return make_dataclass("Settings", [*values], frozen=True)(**values)


def default_settings(script):
    """The settings of a script as they stand at its top."""
    return freeze(constants(script))


def parse(arguments, scripts):
    """The settings of scripts, {prefix: Settings}, with NAME=VALUE arguments such as SEED=1 or vae.BETA=0.

    scripts: {prefix: module}, where "" is the script that was started. Where another script has a constant of the same
    name (SEED, for example), only that of the started script counts. A name that only one has needs no prefix. Prints
    the help and exits for -h and --help. Raises UserError for an unknown name or a value of another type.
    """
    if {"-h", "--help"} & set(arguments):
        print(help_text(scripts))
        sys.exit(0)
    values = {prefix: constants(script) for prefix, script in scripts.items()}
    for prefix in values:
        if prefix:
            values[prefix] = {name: value for name, value in values[prefix].items() if name not in values[""]}
    names = {f"{prefix}.{name}" if prefix else name: (prefix, name) for prefix in values for name in values[prefix]}
    counts = Counter(name for _, name in names.values())
    short = {name: (prefix, name) for prefix, name in names.values() if counts[name] == 1}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or name not in {**names, **short}:
            raise UserError(f"argument {argument}", "NAME=VALUE with one of the names below",
                            f"unknown name {name!r}", f"names: {', '.join(names)}; --help describes them")
        prefix, constant = names.get(name) or short[name]
        values[prefix][constant] = _parse_value(argument, text, constant, scripts[prefix])
    return {prefix: freeze(of_script) for prefix, of_script in values.items()}


def parse_one(arguments, script):
    """The Settings of a single script: see parse."""
    return parse(arguments, {"": script})[""]


def _parse_value(argument, text, constant, script):
    """The value of text, with the type of the constant: its annotation, or else that of its default."""
    default = constants(script)[constant]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):      # also of ((((...
        value = text
    accepted = _accepted(constant, script)
    if tuple in accepted and type(value) in (int, float):       # BETA=0 for BETA=(0.0, 0.0)
        value = (float(value),) * 2
    if float in accepted and (type(value) is int or value == "inf"):
        value = float(value)
    if str in accepted and type(value) not in accepted:
        value = text                                            # DATA=7 may be a folder named 7
    if type(value) not in accepted or not _may_be_schedule(value):
        if bool in accepted:
            raise UserError(f"argument {argument}", "True or False", repr(text),
                            f"write {constant}=True or {constant}=False")
        raise UserError(f"argument {argument}", f"a value like {default!r}", repr(text),
                        f"write {constant}=VALUE with the type that it has at the top of {script.__file__}")
    return tuple(map(float, value)) if isinstance(value, tuple) else value


def _may_be_schedule(value):
    """Whether a value is no tuple, or a schedule: two numbers, of the first and the last step."""
    return not isinstance(value, tuple) or len(value) == 2 and all(type(part) in (int, float) for part in value)


def _accepted(constant, script):
    """The types that a constant may have: its annotation's, or else that of its default."""
    annotation = typing.get_type_hints(script).get(constant, type(constants(script)[constant]))
    return typing.get_args(annotation) or (annotation,)


def fits(value, constant, script):
    """Whether a value from settings.json has a type that a constant may have; whole numbers may stand for others."""
    accepted = [{int: float}.get(kind, kind) for kind in _accepted(constant, script)]
    return _may_be_schedule(value) and {int: float}.get(type(value), type(value)) in accepted


def help_text(scripts):
    """What the first of these scripts does, and every constant as it stands at the top of its script."""
    parts = [inspect.getdoc(scripts[""])]
    for prefix, script in scripts.items():
        option = f"{prefix}.NAME" if prefix else "NAME"
        parts.append(f"Constants of {script.__file__}, set by {option}=VALUE:")
        head = inspect.getsource(script).partition("\ndef ")[0]
        if prefix:                                              # without those for running that script alone
            head = head.partition("\n# --- when run alone")[0]
        line_of_constant = re.compile(rf"^({'|'.join(constants(script))})(: .*)? = ", re.MULTILINE)
        parts += [block.strip() for block in head.split("\n\n") if line_of_constant.search(block)]
    return "\n\n".join(parts)


# --- in settings.json

def stored(settings):
    """Settings of several scripts as settings.json keeps them: {"run": {...}, "vae": {...}}."""
    return {prefix or "run": asdict(of_script) for prefix, of_script in settings.items()}


def restored(kept):
    """The Settings that a script's part of settings.json describes."""
    return freeze({name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()})
