"""Prints what a data set holds, and draws a contact sheet: python -m data PATH, or the name of a data set."""
import sys

from data.figures import contact_sheet
from data.faces import summary
from data.sources import FOLDER, load
from training.errors import UserError, run_script


def main(arguments):
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    if len(arguments) != 1:
        raise UserError("python -m data PATH", "one argument: a data set's name or a path",
                        f"{len(arguments)} arguments", "python -m data synthetic")
    faces = load(arguments[0])
    print(summary(faces))
    path = FOLDER / "contact_sheet.png"
    contact_sheet(path, faces)
    print(f"wrote {path}")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
