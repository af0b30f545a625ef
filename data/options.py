"""How a data set is read: constants that every script that reads one has, too: python run.py COLOUR=True"""

COLOUR = False                  # keep the colours of pictures, as three channels; grey pictures stay grey
CLASS_NAMES: str | None = None  # what numbered folders, or the numbers of labels in arrays, mean: names with commas
                                # between, that of 0 (or of 1, if there is no 0) first; or "RAF-DB", "AffectNet",
                                # "FER2013" for the order of these
LEFT_OUT: str | None = None     # classes to leave out, with commas between
IDENTITY_PATTERN: str | None = None     # whose pictures in folders are: a regular expression on a file's name, or on
                                # its path from the data folder; its first group, or all it matches, is the person:
                                # "^(S\d+)_". No person is then in two parts of a drawn split
ANGLES = "S"                    # of KDEF, with commas between: S straight, HL, HR half left, right, FL, FR full
FER_PLUS = True                 # labels of fer2013new.csv, where it lies beside FER2013's file; False: FER2013's own
