"""Synthetic grey faces that make seven expressions, for trying everything out without a face database.

In: a size, a seed and how many. Out: `Faces` with the factors that drew every face (person, action units, nuisance),
so any face can be drawn again with another expression: the true answer to an edit.

A face is drawn in a frame 48 units high and wide, x from the midline, y down from the top, cropped as the Toronto
Face Dataset crops. Expressions are FACS action units: Ekman & Friesen, Facial Action Coding System, 1978.

The same seed gives the same pixels on every machine. Hence only operations that IEEE 754 rounds exactly: + - * /
sqrt, comparisons and integers, no exp, sin or pow, no sums whose order depends on the processor, and random numbers
only as plain uniforms; bumps, edges, rotations and the tone curve are rational or polynomial.
"""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from data.faces import Faces, split_faces
from training import UserError, write_atomically

COUNT = 4178        # faces, as many as are labelled in TFD
IDENTITIES = 600    # people; each makes about seven of the faces, with different expressions
VERSION = 1         # of the renderer: raise it when pixels change, so that cached faces are drawn again
CHUNK = 8           # faces drawn at once by a thread: their arrays stay in the processor's cache
THREADS = 2         # numpy releases the interpreter lock, so threads draw side by side

# --- expressions: action unit -> (how often it is active, its lowest and highest intensity when it is).
# Units and rates: Du, Tao & Martinez, Compound facial expressions of emotion, PNAS 2014, Table 1. The intensities are
# ours: even the lowest can be seen at 48 pixels. So are the units marked +, not in that table.
PROTOTYPES = (
    {4: (1, .65, .94), 7: (1, .5, .9), 24: (1, .6, .94), 10: (.26, .15, .35), 17: (.52, .2, .5),
     23: (.29, .4, .9)},                                                                             # 0 anger
    {9: (1, .65, .94), 10: (1, .6, .94), 17: (1, .3, .7), 4: (.31, .3, .6), 24: (.26, .2, .4)},      # 1 disgust
    {1: (1, .6, .94), 4: (1, .5, .8), 20: (1, .6, .94), 25: (1, .6, .94), 2: (.57, .3, .7), 5: (.63, .5, .94),
     26: (.33, .1, .35), 16: (1, .4, .8)},                                                           # 2 fear, 16+
    {12: (1, .6, .94), 25: (1, .4, .9), 6: (.51, .5, .94)},                                          # 3 happy
    {4: (1, .25, .45), 15: (1, .6, .94), 1: (.60, .6, .94), 6: (.50, .2, .4), 11: (.26, .4, .9), 17: (.67, .4, .9),
     43: (1, .35, .7)},                                                                              # 4 sad, 43+
    {1: (1, .6, .94), 2: (1, .6, .94), 25: (1, .6, .94), 26: (1, .6, .94), 5: (.66, .4, .94),
     27: (.25, .2, .6)},                                                                             # 5 surprise, 27+
    {},                                                                                              # 6 neutral
)
TWITCH = .06        # every unit, active or not, has up to this much added, evenly spread
ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 15, 16, 17, 20, 23, 24, 25, 26, 27, 43)     # FACS numbers


# --- how a parameter is drawn: (how often it is not 0, lowest, highest, how many uniforms are averaged)
def even(low, high):
    return 1, low, high, 1


def bell(middle, reach):
    return 1, middle - reach, middle + reach, 3


def sometimes(rate, low, high):
    return rate, low, high, 1


IDENTITY_PARAMETERS = {                     # lengths in units of 1/48 of the frame, tones 0 black to 1 white
    "eye_x": bell(11.0, 1.3),               # from the midline to the middle of an eye
    "eye_y": bell(13.0, 1.0),               # from the top of the frame
    "eye_width": bell(4.9, .7),             # half the distance between the corners
    "eye_height": bell(2.35, .55),            # of the upper lid over the corners
    "eye_tilt": bell(.25, .8),              # how much the outer corner is higher
    "iris": even(.08, .42),                 # tone
    "lid_crease": even(.05, .35),           # darkness
    "eye_shadow": even(.02, .22),           # darkness of the sockets
    "brow_gap": bell(5.4, 1.0),             # from the eyes to the brows
    "brow_arch": bell(1.5, 1.4),            # of the middle over the ends
    "brow_slope": bell(.2, 1.0),            # how much the outer end is lower
    "brow_length": bell(6.2, 1.0),          # half
    "brow_thickness": bell(1.05, .55),      # half
    "brow_density": even(.45, .95),         # 0 invisible to 1 opaque
    "brow_lopsided": bell(0, .6),           # the right one is lower
    "nose_y": bell(26.5, 1.6),              # lower end
    "nose_width": bell(4.0, 1.1),           # half, at the wings
    "nose_height": bell(.88, .4),           # relative to an average nose
    "nose_bridge": bell(2.2, .7),           # half width between the eyes
    "cheekbones": bell(.7, .7),             # relief
    "fold": even(.0, .25),                  # depth of the naso-labial folds at rest
    "mouth_y": bell(36.3, 1.4),
    "mouth_width": bell(8.0, 1.4),          # half
    "mouth_curve": bell(.1, .7),            # how much the corners are higher at rest
    "upper_lip": bell(1.35, .6),            # thickness
    "lower_lip": bell(1.95, .7),            # thickness
    "lip_tone": even(.62, .92),             # relative to the skin
    "sneer": even(-1, 1),                   # which side raises the upper lip more
    "jaw_width": bell(24.5, 2.6),           # half, where the face is widest
    "jaw_square": even(0, .5),              # 0 oval to 1 square
    "chin_y": bell(49.5, 2.4),
    "skin": even(.36, .76),                 # tone
    "shine": even(.0, .25),                 # brightness of highlights
    "mottle": even(.0, .10),                # contrast of the skin's texture
    "skin_seed": even(0, 2 ** 20),          # chooses the texture
    "hair": even(.03, .42),                 # tone
    "fringe": even(-9, 4),                  # hair over the forehead: its edge, below the top of the frame
    "parting": bell(0, .16),                # slope of that edge
    "temples": even(-2, 3.5),               # hair beside the eyes: width
    "long_hair": sometimes(.40, 1.5, 5.0),  # hair beside the cheeks: width
    "beard": sometimes(.16, .2, .7),        # opacity
    "moustache": sometimes(.14, .3, .8),    # opacity
    "glasses": sometimes(.09, .6, .95),     # opacity of the rims
}
NUISANCE_PARAMETERS = {
    "roll": bell(0, .045),                  # tangent of half the angle
    "yaw": bell(0, 2.2),                    # how far the middle of the face is off the midline, units
    "scale": bell(1, .06),
    "shift_x": bell(0, 1.5),                # units
    "shift_y": bell(0, 1.3),                # units
    "gaze_x": bell(0, 1.2),                 # units
    "gaze_y": bell(0, .4),
    "light_x": bell(0, 1.0),                # direction towards the light: right, up, and 1 towards the camera
    "light_y": bell(.45, .6),
    "ambience": even(.35, .65),             # light that comes from everywhere
    "background": even(.05, .85),           # tone
    "blur": even(0, .5),                    # weight of the neighbours
    "tone": bell(0, .4),                  # bend of the tone curve: below 0 darker, above 0 brighter
    "contrast": even(.85, 1.25),
    "noise": even(.002, .010),              # standard deviation, of the full range
    "noise_seed": even(0, 2 ** 20),
}


def sample(table, count, rng):
    """Draw `count` rows of a table of parameters: float32 (count, len(table)). Seeds come out whole."""
    columns = np.empty((count, len(table)), np.float32)
    for column, (name, (rate, low, high, terms)) in enumerate(table.items()):
        u = rng.random((count, 4), dtype=np.float32)
        middle = u[:, 1] if terms == 1 else (u[:, 1] + u[:, 2] + u[:, 3]) / np.float32(3)
        value = np.float32(low) + np.float32(high - low) * middle
        if name.endswith("_seed"):
            value = np.floor(value)
        columns[:, column] = np.where(u[:, 0] < np.float32(rate), value, np.float32(0))
    return columns


def sample_identities(count, rng):
    """People: float32 (count, P), a column for each of IDENTITY_PARAMETERS."""
    return sample(IDENTITY_PARAMETERS, count, rng)


def sample_nuisance(count, rng):
    """Pose, light, background and camera of `count` faces: float32 (count, Q), columns NUISANCE_PARAMETERS."""
    return sample(NUISANCE_PARAMETERS, count, rng)


def expression_table():
    """PROTOTYPES as three float32 (7, A) arrays: rates, lowest and highest intensities."""
    table = np.zeros((3, len(PROTOTYPES), len(ACTION_UNITS)), np.float32)
    for label, units in enumerate(PROTOTYPES):
        for unit, values in units.items():
            table[:, label, ACTION_UNITS.index(unit)] = values
    return table


def sample_action_units(labels, rng):
    """Intensities 0..1 of the action units of faces with these expressions: float32 (N, A), columns ACTION_UNITS."""
    rate, low, high = expression_table()[:, np.asarray(labels, np.int64)]
    u = rng.random((4, *rate.shape), dtype=np.float32)
    intensity = low + (high - low) * ((u[0] + u[1]) / 2)
    return np.where(u[2] < rate, intensity, np.float32(0)) + np.float32(TWITCH) * u[3]


def expected_action_units(labels):
    """The mean of `sample_action_units` given the expression: float32 (N, A)."""
    rate, low, high = expression_table()[:, np.asarray(labels, np.int64)]
    return rate * ((low + high) / 2) + np.float32(TWITCH / 2)


# --- strokes. All lengths in units of the frame, all masks 0..1
def bump(r2):
    """A round hill of squared radius r2: close to exp(-r2), and 0 from 4 on."""
    q = np.maximum(1 - r2 * .25, 0)
    q *= q
    q *= q
    return q


def hill(x, y, width, height):
    """A bump of these half widths, 1 at x = y = 0."""
    u, v = x / width, y / height
    u *= u
    v *= v
    u += v
    return bump(u)


def line(distance, width):
    """A soft line where a distance is 0."""
    r = distance / width
    r *= r
    return bump(r)


def inside(distance, soft):
    """1 where a signed distance is below -soft, 0 above soft, smooth between."""
    t = .5 - distance * (.5 / soft)
    np.maximum(t, 0, out=t)
    np.minimum(t, 1, out=t)
    s = 3 - 2 * t
    s *= t
    s *= t
    return s


def paint(canvas, mask, tone):
    canvas += mask * (tone - canvas)


def shade(canvas, mask):
    canvas *= 1 - mask


def hash_bits(seed, index):
    """uint32 that look random, from integers that broadcast: two rounds of the finaliser lowbias32 (C. Wellons)."""
    bits = seed.astype(np.uint32)
    for salt in (np.uint32(0x9E3779B9), index.astype(np.uint32)):
        bits = bits ^ salt
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
        bits ^= bits >> np.uint32(16)
    return bits


def noise(seed, side):
    """White noise of variance 1, (n, side, side), from seeds (n, 1, 1): each value the sum of four random bytes."""
    bits = hash_bits(seed, np.arange(side * side).reshape(1, side, side))
    total = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)
    return (total.astype(np.float32) - 510) * np.float32(1 / 147.8)


def texture(seed, cells, side):
    """Noise of `cells` x `cells` knots, interpolated to (n, side, side)."""
    knots = noise(seed, cells + 1)
    place = np.arange(side, dtype=np.float32) * np.float32(cells / side)
    cell = place.astype(np.int64)
    t = place - cell
    t = t * t * (3 - 2 * t)
    knots = knots[:, cell] + t[:, None] * (knots[:, cell + 1] - knots[:, cell])
    return knots[:, :, cell] + t * (knots[:, :, cell + 1] - knots[:, :, cell])


# --- the frame and what is drawn in it

def face_frame(shot, side):
    """Coordinates of each ray in the face: x, ax = |x| and y, (n, side, side), after roll, scale, shift and yaw."""
    along = (np.arange(side, dtype=np.float32) + .5) * np.float32(48 / side) - 24
    u = (along - shot.shift_x) / shot.scale                                         # (n, 1, side)
    v = (along[:, None] - shot.shift_y) / shot.scale                                # (n, side, 1)
    t2 = shot.roll * shot.roll
    cosine, sine = (1 - t2) / (1 + t2), 2 * shot.roll / (1 + t2)
    x, y = cosine * u + sine * v, cosine * v - sine * u + 24
    x -= shot.yaw * bump((x / 14) * (x / 14))           # the middle of the face is nearer, so it moves, the rim stays
    return SimpleNamespace(x=x, ax=np.abs(x), y=y)


def view(frame, top, bottom, reach):
    """Part of a frame: rows top to bottom, columns to both sides of the midline, 4 more for the pose."""
    side = frame.x.shape[1]
    rows, columns = (slice(max(0, int((low - 4) * side / 48)), min(side, int((high + 4) * side / 48)))
                     for low, high in ((top, bottom), (24 - reach, 24 + reach)))
    return SimpleNamespace(**{name: array[:, rows, columns] for name, array in vars(frame).items()})


def mouth_lines(person, au):
    """Where the mouth lies: half width, height of the middle, lift of the corners, opening; all (n, 1, 1)."""
    jaw = 3.2 * au[26] + 3.5 * au[27]
    return SimpleNamespace(
        width=person.mouth_width * (1 + .25 * au[12] + .28 * au[20] - .16 * au[24] - .12 * au[23] - .22 * au[26]
                                    - .12 * au[27] - .08 * au[17]),
        y=person.mouth_y + .3 * jaw - .7 * au[9] - .5 * au[17] - .6 * au[12],
        lift=person.mouth_curve + 3.4 * au[12] - 3.6 * au[15] - .6 * au[20] - .8 * au[10],
        opening=2.0 * au[25] + 1.2 * au[12] * au[25] + 5.5 * au[26] + 3.5 * au[27],
        jaw=jaw)


def relief(frame, person, au, mouth):
    """Height of the skin towards the camera, (n, side, side)."""
    x, y = frame.x, frame.y
    frame.height = 15 * np.sqrt(np.maximum(1 - (x / 30) * (x / 30) - ((y - 25) / 34) * ((y - 25) / 34), .05))
    # nose: a ridge that rises and widens from between the eyes to the tip, with wings beside the tip
    v = view(frame, 8, 31, 9)
    t = np.clip((v.y - person.eye_y + 2) / (person.nose_y - person.eye_y + 1), 0, 1)
    end = inside(v.y - person.nose_y, 1.8)
    wide = person.nose_bridge + (person.nose_width * .62 - person.nose_bridge + .6) * t * t
    v.height += person.nose_height * (
        3.1 * t * (1.2 - .2 * t) * end * bump((v.x / wide) * (v.x / wide))
        + 1.5 * hill(v.x, v.y - person.nose_y + 1.8, 2.5, 2.3)
        + 1.2 * hill(v.ax - person.nose_width * .8, v.y - person.nose_y + .9 + au[9], 1.5, 1.7))
    # sockets, ridges of the brows
    v = view(frame, 3, 19, 20)
    ex = v.ax - person.eye_x
    v.height += (.7 + .5 * au[4]) * hill(ex, v.y - person.eye_y + 5, 7, 2.6) - 1.3 * hill(ex + .8, v.y - person.eye_y, 6.2, 3.4)
    # cheeks: rise with smiles and with AU 6
    v = view(frame, 16, 36, 22)
    v.height += (person.cheekbones + 1.2 * au[6] + 1.0 * au[12]) * hill(v.ax - 12.5, v.y - 25 + 1.5 * au[6] + au[12],
                                                                       5.4, 4.6)
    # mouth and chin
    v = view(frame, 28, 48, 12)
    v.height += .8 * hill(v.x, v.y - mouth.y, 9, 4) + (.9 + .6 * au[17]) * hill(v.x, v.y - person.chin_y + 5 - mouth.jaw, 5, 3)
    return frame.height


def paint_skin(frame, person, au, mouth):
    """The skin with its texture, shadows, wrinkles and beard."""
    frame.skin = person.skin * (1 + person.mottle * texture(person.skin_seed, 14, frame.x.shape[1]))
    # eye sockets; bags under the eyes and crow's feet with AU 6
    v = view(frame, 3, 21, 22)
    ex, ey = v.ax - person.eye_x, v.y - person.eye_y
    shade(v.skin, (person.eye_shadow + .12 * au[4]) * hill(ex + .6, ey + .4, 5.6, 3.6))
    shade(v.skin, (.06 + .30 * au[6] + .12 * au[7]) * line(ey - 3.3 + .06 * ex * ex * (1 - .4 * au[6]), .9)
          * inside(np.abs(ex) - 4.6, 1.2))
    out = ex - person.eye_width + .6
    away = np.abs(ey + .4)
    away = np.minimum(away, np.abs(away - .55 * out))                               # three lines that spread
    shade(v.skin, .36 * au[6] * line(away, .65) * inside(np.abs(out - 2.8) - 1.5, .8))
    # wrinkles: across the forehead with AU 1 and 2, upright between the brows with AU 4, over the nose with AU 9
    v = view(frame, 0, 12, 16)
    raised = np.maximum(au[1], au[2])
    away = v.y - person.eye_y + person.brow_gap + .6 * person.brow_arch + 5 + 1.2 * raised
    shade(v.skin, .26 * raised * line(np.abs(away) - 1, .7) * inside(v.ax - 8 - 4 * au[2], 4))
    v = view(frame, 3, 24, 7)
    ey = v.y - person.eye_y
    shade(v.skin, .42 * au[4] * line(v.ax - 1.5 + .12 * (ey + 5), .8) * inside(np.abs(ey + 4.6) - 2.4, 1.5))
    away = np.abs(ey - 2.4 + .5 * v.ax)
    away = np.minimum(away, np.abs(away - 2.2))                                     # three lines
    shade(v.skin, .4 * au[9] * line(away, .8) * inside(v.ax - 3.2, 1.4))
    # naso-labial folds: from the wings of the nose round the mouth, bent outwards
    v = view(frame, 22, 44, 17)
    top, bottom = person.nose_y - 2.2 - 1.2 * au[9], mouth.y + 1.5
    t = (v.y - top) / (bottom - top)
    s = np.clip(t, 0, 1)
    bend = person.nose_width + 1 + (mouth.width + 2.2 - person.nose_width) * s * (1.2 - .2 * s)
    depth = person.fold + .26 * au[12] + .3 * au[11] + .3 * au[9] + .2 * au[10] + .12 * au[6] + .1 * au[20]
    away = v.ax - bend
    shade(v.skin, np.minimum(depth, .5) * inside(np.abs(t - .1) - .35 - .5 * np.minimum(depth, .6), .25)
          * (.6 * line(away, 1.2) + .4 * line(away + 1, 2.4)))
    # below the nose and the lower lip
    v = view(frame, 24, 48, 9)
    shade(v.skin, .22 * hill(v.x, v.y - person.nose_y - 1, person.nose_width, 1.4))
    # beard and moustache
    v = view(frame, 24, 48, 24)
    growth = person.beard * inside(36 - v.y - .02 * v.x * v.x, 4)
    growth = np.maximum(growth, person.moustache * inside(np.abs(v.ax - 3.4) - 5, 1.4)
                        * line(v.y - (person.nose_y + mouth.y - person.upper_lip) * .5 - .7 - .1 * v.ax, 2.))
    paint(v.skin, growth, person.hair * .8)
    return frame.skin


def paint_brows(frame, person, au):
    v = view(frame, 1, 14, 20)
    together = np.minimum(1.2 * au[1], 1)               # AU 1 keeps AU 4 from lowering the inner ends
    along = (v.ax - person.eye_x + 1.3 * au[4] + .3) / person.brow_length           # -1 inner to 1 outer end
    t = np.clip(.5 + .5 * along, 0, 1)
    inner = 3.6 * au[1] - 3.0 * au[4] * (1 - together) - 1.3 * au[9]
    middle = 1.0 * au[1] + 4.2 * au[2] - (2.6 - 1.2 * together) * au[4] - .8 * au[9] + 2 * person.brow_arch - .4 * au[7]
    outer = 2.8 * au[2] - .3 * au[4] - .5 * au[1] * (1 - au[2]) - person.brow_slope
    rise = inner * (1 - t) * (1 - t) + 2 * middle * t * (1 - t) + outer * t * t     # a quadratic Bezier curve
    lopsided = person.brow_lopsided * np.clip(v.x * .2, -1, 1)
    away = v.y - person.eye_y + person.brow_gap + rise - lopsided
    mask = inside(np.abs(away) - person.brow_thickness * (1.15 - .6 * t), .55) * inside(np.abs(along) - 1, .12)
    paint(v.skin, mask * person.brow_density, person.hair * .55)


def paint_eyes(frame, person, au, shot):
    v = view(frame, 5, 18, 18)
    ex, ey = v.ax - person.eye_x, v.y - person.eye_y
    e = ex / person.eye_width                                                       # -1 inner to 1 outer corner
    arc = 1 - e * e
    upper = person.eye_height * (1 + .15 * np.maximum(au[1], au[2]) + .95 * au[5] - .25 * au[4] * (1 - au[1]) - .25 * au[7] - .25 * au[6]
                                 - .3 * au[9] - .8 * au[43])
    lower = .7 * person.eye_height * (1 + .3 * au[5] - .7 * au[7] - .6 * au[6] - .45 * au[9] - .1 * au[43])
    middle = ey + (person.eye_tilt - 1.3 * au[43]) * e
    below_upper, above_lower = -middle - upper * arc, middle - lower * arc          # signed, negative in the eye
    ends = inside(np.abs(e) - 1, .1)
    eye = .86 - .30 * inside(-below_upper - .8, .7)                                 # the white, shaded by the lid
    gx, gy = np.sign(v.x) * ex - shot.gaze_x, ey + .35 - shot.gaze_y
    radius = np.sqrt(gx * gx + gy * gy)
    paint(eye, inside(radius - 2.4, .4), person.iris)
    paint(eye, inside(radius - 1.1, .4), .03)
    paint(eye, .9 * hill(gx + .8, gy + .8, .6, .6), 1)
    paint(v.skin, inside(below_upper, .4) * inside(above_lower, .4) * ends, eye)
    paint(v.skin, .85 * line(below_upper, .62) * inside(np.abs(e) - 1.08, .12), .05)
    shade(v.skin, .35 * line(above_lower, .5) * ends)
    shade(v.skin, person.lid_crease * line(below_upper - 1.5 - .9 * au[43] + .5 * au[5], .7) * ends)


def paint_nostrils(frame, person, au):
    v = view(frame, 20, 30, 8)
    base = person.nose_y - 1.1 * au[9]
    shade(v.skin, .75 * hill(v.ax - person.nose_width * .5, v.y - base - .5, 1.25, .8))
    wing = v.ax - person.nose_width - .25 * au[9] + .25 * (v.y - base + .8) * (v.y - base + .8)
    shade(v.skin, (.2 + .1 * au[9]) * line(wing, .8) * inside(np.abs(v.y - base + .8) - 1.3, .8))


def paint_mouth(frame, person, au, mouth):
    v = view(frame, 29, 48, 14)
    t2 = v.x / mouth.width
    t2 = t2 * t2                                                                    # 0 middle to 1 corner
    arc = np.maximum(1 - t2, 0)
    lens = arc * (1.5 - .5 * arc)
    drop = np.minimum(au[26] + au[27], 1)
    box = lens + au[20] * (arc * (1 + t2) - lens) + drop * (1 - au[20]) * (np.sqrt(arc) - lens)   # AU 20 squares, a dropped jaw rounds
    side = 1 + .5 * person.sneer * np.clip(v.x * .25, -1, 1)
    sneer = 2.1 * au[10] * side * arc * (.45 + 2.2 * t2)                            # raised most beside the middle
    push = (.9 * au[17]) * arc                                                      # the chin pushes the lower lip up
    rest = mouth.y - mouth.lift * (t2 - .35)
    upper = rest - .3 * mouth.opening * box - sneer - .6 * push                     # inner edges of the lips
    lower = rest + (.7 * mouth.opening + 1.0 * au[16]) * box - .35 * sneer - push
    lower = np.maximum(lower, upper)
    thin = (1 - .75 * au[24]) * (1 - .5 * au[23]) * (1 - .35 * au[20]) * (1 - .25 * au[12])
    above = upper - person.upper_lip * thin * lens * (1 - .3 * line(v.x, 1.5)) - .15    # outer edges
    below = lower + person.lower_lip * thin * lens * (1 + .35 * au[17]) + .15
    ends = inside(v.ax - mouth.width, .6)
    lip = person.lip_tone * v.skin
    shade(lip, .14 * inside(v.y - upper, .6))                                       # the upper lip faces down
    paint(v.skin, inside(above - v.y, .5) * inside(v.y - below, .5) * ends, lip)
    shade(v.skin, .22 * (1 + au[17]) * line(v.y - below - 1.3, 1.3) * inside(v.ax - .6 * mouth.width, 2.5))
    # the opening with teeth and tongue
    gap = lower - upper
    hole = inside(upper - v.y, .4) * inside(v.y - lower, .4) * ends * np.clip(gap * 1.2, 0, 1)
    inner = .05 + .13 * inside(upper + .62 * gap - v.y, 1.)
    teeth = inside(v.ax - .86 * mouth.width, .8)
    paint(inner, teeth * inside(v.y - upper - 1.9, .4) * np.clip(1.5 * au[12] + .35 * au[26] + .9 * au[10] - .1, 0, 1), .88)
    paint(inner, teeth * inside(lower - 1.5 - v.y, .4) * np.clip(1.3 * au[16] * au[20] + .3 * au[20], 0, 1), .85)
    paint(v.skin, hole, inner)
    # the line between closed lips, and the corners
    pressed = np.clip(1 - gap * 1.2, 0, 1) * (.75 + .2 * au[24])
    paint(v.skin, pressed * line(v.y - .5 * (upper + lower), .65 + .15 * au[24]) * inside(v.ax - mouth.width - .2, .5), .06)
    corner = mouth.y - .65 * mouth.lift
    shade(v.skin, (.25 + .3 * au[12] + .3 * au[24]) * hill(v.ax - mouth.width - .4, v.y - corner, 1.0, 1.1))
    shade(v.skin, .5 * au[15] * line(v.ax - mouth.width - .9 - .25 * (v.y - corner), .8)
          * inside(np.abs(v.y - corner - 2) - 1.8, 1))
    shade(v.skin, .2 * au[24] * (line(v.y - above + .8, .9) + line(v.y - below - .8, .9)) * ends)


def lit(frame, person, shot):
    """Light on the skin, Lambert's law, (n, side, side)."""
    height, step = frame.height, 48 / frame.height.shape[1]
    gx, gy = np.zeros_like(height), np.zeros_like(height)
    gx[:, :, 1:-1] = (height[:, :, 2:] - height[:, :, :-2]) * (.5 / step)
    gy[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * (.5 / step)
    for g in (gx, gy):
        g[:, 0], g[:, -1], g[:, :, 0], g[:, :, -1] = g[:, 1], g[:, -2], g[:, :, 1], g[:, :, -2]
    strength = 1 / np.sqrt(shot.light_x * shot.light_x + shot.light_y * shot.light_y + 1)
    lambert = (1 - gx * shot.light_x + gy * shot.light_y) / np.sqrt(gx * gx + gy * gy + 1) * strength
    lambert = np.maximum(lambert, 0)
    shine = lambert * lambert
    shine = shine * shine
    return frame.skin * (shot.ambience + (1.05 - shot.ambience) * lambert) + person.shine * shine * shine


def add_surroundings(frame, person, shot, mouth):
    """Background around the face, then glasses and hair."""
    x, y, ax, image = frame.x, frame.y, frame.ax, frame.image
    u = ax / person.jaw_width
    v = np.maximum((y - 18) / (person.chin_y + mouth.jaw - 18), 0)
    u2, v2 = u * u, v * v
    oval = u2 * np.sqrt(u) + v2 * np.sqrt(v)
    paint(image, inside(1 - oval - person.jaw_square * (u2 * u2 + v2 * v2 - oval), .05), shot.background)
    above = person.fringe + person.parting * x + .014 * x * x - y
    high, low = np.maximum(20 - y, 0), np.maximum(y - 18, 0)
    beside = ax - 25 + person.temples * inside(y - 18, 8) + person.long_hair + .008 * high * high - (
        (person.long_hair == 0) * .6 - .03) * low
    strands = 1 + .15 * texture(person.skin_seed + 1, 16, x.shape[1])
    paint(image, inside(-np.maximum(above, beside), .8), person.hair * .9 * strands)
    w = view(frame, 5, 20, 20)
    ex, ey = (w.ax - person.eye_x) / 6.6, (w.y - person.eye_y - .6) / 4.9
    ex, ey = ex * ex, ey * ey
    rim = np.abs(np.sqrt(np.sqrt(ex * ex + ey * ey)) - 1) * 5 - .45
    bridge = np.maximum(np.abs(w.y - person.eye_y + .6) - .4, w.ax - person.eye_x + 6.4)
    paint(w.image, person.glasses * inside(np.minimum(rim, bridge), .45), .06)


def photograph(image, shot):
    """What the camera makes of it: blur, tone, contrast and noise; uint8 (n, size, size)."""
    size = image.shape[1]
    for axis in (1, 2):
        wide = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis)
        before, after = (wide.take(np.arange(k, k + size), axis) for k in (0, 2))
        image = image + shot.blur * (.5 * (before + after) - image)
    image = np.clip(image, 0, 1.2)
    image = image * (1 + shot.tone) / (1 + shot.tone * image)
    image = (image - .45) * shot.contrast + .45 + shot.noise * noise(shot.noise_seed, size)
    return (np.clip(image, 0, 1) * 255 + .5).astype(np.uint8)


def draw(identities, action_units, nuisance, size):
    """A chunk of faces, uint8 (n, size, size)."""
    person, shot = (SimpleNamespace(**dict(zip(table, rows.T[:, :, None, None])))
                    for table, rows in ((IDENTITY_PARAMETERS, identities), (NUISANCE_PARAMETERS, nuisance)))
    au = dict(zip(ACTION_UNITS, action_units.T[:, :, None, None]))
    mouth = mouth_lines(person, au)
    pixels, rays = face_frame(shot, size), face_frame(shot, 2 * size)
    pixels.height = relief(pixels, person, au, mouth)
    pixels.skin = paint_skin(pixels, person, au, mouth)
    rays.skin = pixels.skin.repeat(2, 1).repeat(2, 2)           # what has sharp edges is painted on 2 x 2 rays a pixel
    paint_brows(rays, person, au)
    paint_eyes(rays, person, au, shot)
    paint_nostrils(rays, person, au)
    paint_mouth(rays, person, au, mouth)
    skin = rays.skin
    pixels.skin = (skin[:, 0::2, 0::2] + skin[:, 0::2, 1::2] + skin[:, 1::2, 0::2] + skin[:, 1::2, 1::2]) * .25
    pixels.image = lit(pixels, person, shot)
    add_surroundings(pixels, person, shot, mouth)
    return photograph(pixels.image, shot)


def render(identities, action_units, nuisance, size=48):
    """Draw faces: any people (N, P) with any action units (N, A) under any nuisance (N, Q); uint8 (N, size, size)."""
    if size < 8 or size % 8:
        raise UserError("size of the synthetic faces", "a multiple of 8", size, "use 48 or 64")
    rows = [np.ascontiguousarray(array, np.float32) for array in (identities, action_units, nuisance)]
    starts = range(0, len(rows[0]), CHUNK)
    with ThreadPoolExecutor(THREADS) as pool:
        chunks = pool.map(lambda start: draw(*(array[start:start + CHUNK] for array in rows), size), starts)
        return np.concatenate([np.empty((0, size, size), np.uint8), *chunks])


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
            print(f"{path}: cannot be written, so the faces are drawn again next time")
    labels, people = arrays["labels"], arrays["identities"]
    return Faces(arrays["images"], labels, people, split_faces(labels, people, seed), "synthetic",
                 {name: arrays[name] for name in ("identity", "action_units", "nuisance")})


def make(image_size, seed, count, identities):
    """The arrays of `load` by name, drawn anew."""
    rng = np.random.Generator(np.random.PCG64(seed))
    people = max(1, min(identities, count // 4))
    order = np.argsort(rng.random(count), kind="stable")
    person, turn = order % people, order // people
    labels = (person + turn) % len(PROTOTYPES)
    identity = sample_identities(people, rng)[person]
    action_units = sample_action_units(labels, rng)
    nuisance = sample_nuisance(count, rng)
    return {"images": render(identity, action_units, nuisance, image_size), "labels": labels, "identities": person,
            "identity": identity, "action_units": action_units, "nuisance": nuisance}


def read_cache(path):
    """The arrays in a cache file, or None where there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("images", "labels", "identities", "identity", "action_units",
                                                  "nuisance")}
    except FileNotFoundError:
        return None
    except Exception as error:          # a damaged zip archive fails in many ways
        print(f"{path}: cannot be read ({type(error).__name__}), so the faces are drawn again")
        return None


def with_expression(faces, rows, labels):
    """The true faces: the people of these rows, under the same nuisance, with the expected action units of `labels`.

    faces: synthetic Faces. rows, labels: int64 (n,). Returns uint8 (n, H, W).
    """
    rows = np.asarray(rows, np.int64)
    return render(faces.factors["identity"][rows], expected_action_units(labels), faces.factors["nuisance"][rows],
                  faces.images.shape[1])
