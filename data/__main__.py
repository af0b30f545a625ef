"""Prints what a data set holds, and draws a contact sheet: python -m data PATH, or the name of a data set.

With further arguments NAME=VALUE for the constants of data/options.py: python -m data PATH LEFT_OUT=contempt
"""
import sys

from data import options as options_script
from data.figures import contact_sheet
from data.faces import summary
from data.sources import FOLDER, load
from training.errors import UserError, run_script
from training.settings import parse_one


def main(arguments):
    if {"-h", "--help"} & set(arguments):
        print(f"{__doc__}\n")
    asked = [argument for argument in arguments[:1] if argument.startswith("-")] + arguments[1:]
    options = parse_one([argument.removeprefix("faces.") for argument in asked], options_script)
    if not arguments:
        raise UserError("python -m data PATH", "a data set's name or path", "no arguments", "python -m data synthetic")
    faces = load(arguments[0], options=options)
    print(summary(faces))
    path = FOLDER / "contact_sheet.png"
    contact_sheet(path, faces)
    print(f"wrote {path}")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
