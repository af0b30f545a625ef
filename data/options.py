"""How a data set is read: constants that every script that reads one has, too: python run.py COLOUR=True"""

COLOUR = False                  # keep the colours of pictures, as three channels; grey pictures stay grey
CLASS_NAMES: str | None = None  # what numbered folders, or the numbers of labels in arrays, mean: names with commas
                                # between, that of 0 (or of 1, if there is no 0) first; or "RAF-DB", "AffectNet",
                                # "FER2013" for the order of these
LEFT_OUT: str | None = None     # classes to leave out, with commas between
IDENTITY_PATTERN: str | None = None     # the person in a picture (folders only): a regular expression on the file name,
                                # or on the path inside the data folder; its first group, or the whole match, names the
                                # person: "^(S\d+)_". A drawn split then keeps each person in one part
ANGLES = "S"                    # of KDEF, with commas between: S straight, HL, HR half left, right, FL, FR full
FER_PLUS = True                 # labels of fer2013new.csv, where it lies beside FER2013's file; False: FER2013's own
