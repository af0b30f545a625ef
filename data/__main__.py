"""Prints what a data set holds, and draws a contact sheet: python -m data PATH, or the name of a data set.

With further arguments NAME=VALUE for the constants below and those of data/options.py: python -m data PATH
LEFT_OUT=contempt IMAGE_SIZE=64
"""
import sys

from data import options as options_script
from data.figures import contact_sheet
from data.faces import summary
from data.sources import FOLDER, load
from training.errors import UserError, run_script
from training.settings import parse

IMAGE_SIZE = 48     # pixels
FOLD = 0            # 0..4, of TFD's five
SEED = 0            # of a split that is drawn


def main(arguments):
    asked = [argument for argument in arguments[:1] if argument.startswith("-")] + arguments[1:]
    parsed = parse(asked, {"": sys.modules[__name__], "faces": options_script})
    settings = parsed[""]
    if not arguments:
        raise UserError("python -m data PATH", "a data set's name or path", "no arguments", "python -m data synthetic")
    faces = load(arguments[0], settings.IMAGE_SIZE, settings.FOLD, settings.SEED, parsed["faces"])
    print(summary(faces))
    path = FOLDER / "contact_sheet.png"
    contact_sheet(path, faces)
    print(f"wrote {path}")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
