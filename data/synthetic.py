"""Synthetic grey faces that make seven expressions, for trying everything out without a face database.

In: a size, a seed and how many. Out: `Faces` with the factors that drew each of them (the person, the action units,
the nuisance), so that any face can be drawn again with another expression: the true answer to an edit.

Expressions are made of FACS action units (Ekman and Friesen, Facial Action Coding System, 1978). This file says what
a face is made of, rendering.py how it is drawn. The same seed gives the same pixels on every machine: here, because
random numbers are plain uniforms and arithmetic is that of rendering.py.
"""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from data.faces import Faces
from data.labels import EXPRESSIONS
from data.splits import split_faces
from data.rendering import draw
from training.errors import UserError
from training.files import write_atomically

COUNT = 4178        # faces, as many as are labelled in TFD
IDENTITIES = 600    # people; each makes about seven of the faces, with different expressions
VERSION = 2         # of the pixels: one more whenever they change, so that cached faces are drawn again
CHUNK = 8           # faces that a thread draws at once: their arrays stay in the processor's cache
THREADS = 2         # numpy works outside the interpreter lock, so threads draw side by side

# --- expressions: FACS number of an action unit: (how often it is active, its lowest and highest intensity if it is)
# Units and rates are those of Du, Tao and Martinez, Compound facial expressions of emotion, PNAS 2014, Table 1, but
# for those on the lines marked +. The intensities are ours: the lowest can still be seen at 48 x 48 pixels.
PROTOTYPES = (
    {4: (1, .6, .9), 7: (1, .45, .9), 24: (1, .55, .9), 10: (.26, .1, .3), 17: (.52, .2, .5), 23: (.29, .4, .9)},
    {9: (1, .5, .9), 10: (1, .5, .9), 17: (1, .3, .7), 4: (.31, .3, .6), 24: (.26, .2, .4)},
    {1: (1, .6, .9), 4: (1, .5, .8), 20: (1, .55, .9), 25: (1, .55, .9), 2: (.57, .3, .7), 5: (.63, .5, .9),
     26: (.33, .1, .35),
     16: (1, .5, .9)},                                                                  # + shows the lower teeth
    {12: (1, .5, .9), 25: (1, .4, .9), 6: (.51, .4, .9)},
    {4: (1, .25, .45), 15: (1, .5, .9), 1: (.60, .5, .9), 6: (.50, .2, .4), 11: (.26, .4, .9), 17: (.67, .4, .9),
     43: (1, .3, .7)},                                                                  # + lets the lids droop
    {1: (1, .5, .9), 2: (1, .5, .9), 25: (1, .5, .9), 26: (1, .45, .9), 5: (.66, .4, .9),
     27: (.25, .2, .6)},                                                                # + opens the mouth wider
    {},
)                       # anger, disgust, fear, happy, sad, surprise, neutral
TWITCH = .10            # any unit of any face has up to this much on top, evenly spread
ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 15, 16, 17, 20, 23, 24, 25, 26, 27, 43)


# --- how a parameter is drawn: (how often it is not 0, lowest, highest, uniforms averaged)

def even(low, high):
    return 1, low, high, 1


def bell(middle, reach):
    return 1, middle - reach, middle + reach, 3


def sometimes(rate, low, high):
    return rate, low, high, 1


SEED = even(0, 2 ** 20)                     # whole, and exact as float32
IDENTITY_PARAMETERS = {                     # lengths in units, tones from 0 black to 1 white
    "eye_x": bell(11.0, 1.3),               # middle of an eye
    "eye_y": bell(13.0, 1.0),
    "eye_width": bell(4.9, .7),             # half the distance between the corners
    "eye_height": bell(2.35, .55),          # of the upper lid over the corners
    "eye_tilt": bell(.25, .8),              # by how much the outer corner is higher than the middle
    "iris": even(.08, .42),                 # tone
    "lid_crease": even(.05, .35),           # darkness
    "eye_shadow": even(.02, .22),           # darkness of the sockets
    "brow_gap": bell(5.4, 1.0),             # from the eye up to the ends of the brow
    "brow_arch": bell(1.5, 1.4),            # of the middle over the ends
    "brow_slope": bell(.2, 1.3),            # by how much the outer end is lower
    "brow_length": bell(6.2, 1.0),          # half
    "brow_thickness": bell(1.05, .55),      # half
    "brow_density": even(.45, .95),         # opacity
    "brow_lopsided": bell(0, .6),           # by how much the right brow is lower
    "nose_y": bell(26.5, 1.6),              # lower end
    "nose_width": bell(4.0, 1.1),           # half, at the wings
    "nose_height": bell(.88, .4),           # relief, 1 is strong
    "nose_bridge": bell(2.2, .7),           # half width between the eyes
    "cheekbones": bell(.7, .7),             # relief
    "fold": even(.0, .25),                  # darkness of the naso-labial folds at rest
    "mouth_y": bell(36.3, 1.4),
    "mouth_width": bell(8.0, 1.4),          # half
    "mouth_curve": bell(.1, .9),            # by how much the corners are higher at rest
    "upper_lip": bell(1.35, .6),            # thickness
    "lower_lip": bell(1.95, .7),            # thickness
    "lip_tone": even(.62, .90),            # relative to the skin
    "sneer": even(-1, 1),                   # which side raises the upper lip more
    "jaw_width": bell(24.5, 2.6),           # half, where the face is widest
    "jaw_square": even(0, .5),              # 0 oval
    "chin_y": bell(49.5, 2.4),
    "skin": even(.36, .76),                 # tone
    "shine": even(.0, .25),                 # strength of highlights
    "mottle": even(.0, .06),                # contrast of the skin's texture
    "skin_seed": SEED,                      # which texture
    "hair": even(.03, .42),                 # tone
    "fringe": even(-9, 4),                  # y of its edge in the middle
    "parting": bell(0, .16),                # slope of that edge
    "temples": even(-2, 3.5),               # width of the hair beside the eyes
    "long_hair": sometimes(.40, 1.5, 5.0),  # width of the hair beside the cheeks
    "beard": sometimes(.16, .2, .7),        # opacity
    "moustache": sometimes(.14, .3, .8),    # opacity
    "glasses": sometimes(.09, .6, .95),     # opacity of the rims
}
NUISANCE_PARAMETERS = {
    "roll": bell(0, .075),                  # tangent of half the angle
    "yaw": bell(0, 3.4),                    # units that the middle of the face moves against its rim
    "scale": bell(1, .10),
    "shift_x": bell(0, 2.2),                # units
    "shift_y": bell(0, 2.0),                # units
    "gaze_x": bell(0, 1.2),                 # units that the irises move
    "gaze_y": bell(0, .4),                  # units
    "light_x": bell(0, 1.6),                # towards the light: right, up, and 1 towards the camera
    "light_y": bell(.4, .9),
    "ambience": even(.25, .60),             # part of the light that comes from everywhere
    "background": even(.05, .85),           # tone
    "blur": even(0, .5),                    # weight of the neighbouring pixels
    "tone": bell(0, .4),                    # bends the tones: below 0 darker, above 0 brighter
    "contrast": even(.8, 1.3),
    "noise": even(.002, .010),              # standard deviation, of the full range
    "noise_seed": SEED,
}


def sample(table, count, rng):
    """Values of every parameter of a table: float32 (count, len(table))."""
    columns = []
    for name, (rate, low, high, terms) in table.items():
        u = rng.random((4, count), dtype=np.float32)
        middle = u[1] if terms == 1 else (u[1] + u[2] + u[3]) / 3
        value = np.float32(low) + np.float32(high - low) * middle
        if name.endswith("_seed"):
            value = np.floor(value)
        columns.append(np.where(u[0] < np.float32(rate), value, 0))
    return np.stack(columns, 1).astype(np.float32)


def prototypes(labels):
    """Rate, lowest and highest intensity of the action units of these expressions: float32 (3, N, A)."""
    table = np.zeros((3, len(PROTOTYPES), len(ACTION_UNITS)), np.float32)
    for label, units in enumerate(PROTOTYPES):
        for unit, values in units.items():
            table[:, label, ACTION_UNITS.index(unit)] = values
    return table[:, np.asarray(labels, np.int64)]


def sample_action_units(labels, rng):
    """Intensities 0..1 of the action units of faces with these expressions: float32 (N, A), columns ACTION_UNITS."""
    rate, low, high = prototypes(labels)
    u = rng.random((4, *rate.shape), dtype=np.float32)
    intensity = low + (high - low) * ((u[0] + u[1]) / 2)
    return np.where(u[2] < rate, intensity, 0) + np.float32(TWITCH) * u[3]


def expected_action_units(labels):
    """The mean of `sample_action_units` given the expressions: float32 (N, A)."""
    rate, low, high = prototypes(labels)
    return rate * ((low + high) / 2) + np.float32(TWITCH / 2)


# --- drawing and editing

def render(identities, action_units, nuisance, size=48):
    """Draw faces: any people (N, P) with any action units (N, A) under any nuisance (N, Q), as uint8 (N, size, size).

    size: pixels. Raises UserError if it is not a multiple of 8.
    """
    if size < 8 or size % 8:
        raise UserError("size of the synthetic faces", "a multiple of 8", size, "use 48, 64, ...")
    parameters = [(names, np.asarray(values, np.float32)) for names, values in (
        (IDENTITY_PARAMETERS, identities), (ACTION_UNITS, action_units), (NUISANCE_PARAMETERS, nuisance))]

    def draw_chunk(start):
        person, au, shot = (dict(zip(names, values[start:start + CHUNK].T[:, :, None, None]))   # each (n, 1, 1)
                            for names, values in parameters)
        return draw(SimpleNamespace(**person), au, SimpleNamespace(**shot), size)

    with ThreadPoolExecutor(THREADS) as pool:
        chunks = pool.map(draw_chunk, range(0, len(identities), CHUNK))
        return np.concatenate([np.empty((0, size, size), np.uint8), *chunks])


def with_expression(faces, rows, labels):
    """The true faces: the people of these rows under the same nuisance, but with other expressions.

    faces: synthetic `Faces`. rows, labels: int64 (n,). Returns uint8 (n, H, W), drawn with the expected action units.
    """
    rows = np.asarray(rows, np.int64)
    factors = {name: array[rows] for name, array in faces.factors.items()}
    expressions = np.array([EXPRESSIONS.index(name) for name in faces.classes])[labels]     # LEFT_OUT renumbers classes
    return render(factors["identity"], expected_action_units(expressions), factors["nuisance"], faces.images.shape[1])


# --- the data set

def load(image_size=48, seed=0, count=COUNT, identities=IDENTITIES, cache=None):
    """Synthetic `Faces`, with factors "identity" (N, P), "action_units" (N, A) and "nuisance" (N, Q), all float32.

    Labels are balanced and every person makes at least four expressions: where `count` is small, fewer people are
    drawn. The split is 8 : 1 : 1, disjoint in identity. Drawn faces are kept in the folder `cache`, data/cache if
    None. Raises UserError for an image_size that is not a multiple of 8, and for too few faces to split.
    """
    path = (Path(__file__).parent / "cache" if cache is None else Path(cache)) / (
        f"synthetic_v{VERSION}_{image_size}px_seed{seed}_{count}_faces_{identities}_people.npz")
    arrays = read_cache(path)
    if arrays is None:
        arrays = make(image_size, seed, count, identities)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: np.savez(file, **arrays))
        except (OSError, UserError):
            print(f"{path}: cannot be written, so these faces are drawn again next time")
    labels, people = arrays["labels"], arrays["identities"]
    factors = {name: arrays[name] for name in ("identity", "action_units", "nuisance")}
    return Faces(arrays["images"], labels, people, split_faces(labels, people, seed), "synthetic",
                 factors=factors)


def make(image_size, seed, count, identities):
    """The arrays of `load` by name, drawn anew."""
    rng = np.random.Generator(np.random.PCG64(seed))
    people = max(1, min(identities, count // 4))
    order = np.argsort(rng.random(count), kind="stable")
    person, turn = order % people, order // people
    labels = (person + turn) % len(PROTOTYPES)
    factors = {"identity": sample(IDENTITY_PARAMETERS, people, rng)[person],
               "action_units": sample_action_units(labels, rng), "nuisance": sample(NUISANCE_PARAMETERS, count, rng)}
    return {"images": render(*factors.values(), image_size), "labels": labels, "identities": person, **factors}


def read_cache(path):
    """The arrays in a cache file, or None where there is none or it is damaged."""
    try:
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:          # a damaged archive fails in many ways
        print(f"{path}: damaged ({type(error).__name__}), so these faces are drawn again")
        return None
