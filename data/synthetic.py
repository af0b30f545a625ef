"""Synthetic grey faces that make seven expressions, for trying everything out without a face database.

In: a size, a seed and how many. Out: `Faces` with the factors that drew each of them (the person, the action units,
the nuisance), so that any face can be drawn again with another expression: the true answer to an edit.

A face is drawn in a frame of 48 x 48 units, x from the midline, y down from the top, cropped as the Toronto Face
Dataset crops. Expressions are made of FACS action units (Ekman and Friesen, Facial Action Coding System, 1978).

The same seed gives the same pixels on every machine. Hence float32, only operations that IEEE 754 rounds exactly
(+ - * / sqrt, comparisons, integers; no exp, sin or pow, no sums whose order is the processor's choice), random
numbers as plain uniforms, and noise from a hash of integers. Bumps, edges, turns and tones are rational functions.
"""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from data.faces import Faces, split_faces
from training import UserError, write_atomically

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
    for rate, low, high, terms in table.values():
        u = rng.random((4, count), dtype=np.float32)
        middle = u[1] if terms == 1 else (u[1] + u[2] + u[3]) / 3
        value = np.float32(low) + np.float32(high - low) * middle
        columns.append(np.where(u[0] < np.float32(rate), np.floor(value) if high == SEED[2] else value, 0))
    return np.stack(columns, 1).astype(np.float32)


def sample_identities(count, rng):
    """People: float32 (count, P), a column for each of IDENTITY_PARAMETERS."""
    return sample(IDENTITY_PARAMETERS, count, rng)


def sample_nuisance(count, rng):
    """Pose, gaze, light, background and camera: float32 (count, Q), a column for each of NUISANCE_PARAMETERS."""
    return sample(NUISANCE_PARAMETERS, count, rng)


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


# --- strokes: masks between 0 and 1 of arrays of distances in units

def bump(r2):
    """A round hill over the squared radius r2: close to exp(-r2), and 0 from 4 on."""
    q = np.maximum(1 - r2 * .25, 0)
    q *= q
    q *= q
    return q


def hill(x, y, width, height):
    u, v = x / width, y / height
    return bump(u * u + v * v)


def line(distance, width):
    r = distance / width
    return bump(r * r)


def inside(distance, soft):
    """1 where a signed distance is below -soft, 0 above soft, smooth between."""
    t = np.minimum(np.maximum(.5 - distance * (.5 / soft), 0), 1)
    return t * t * (3 - 2 * t)


def paint(canvas, mask, tone):
    canvas += mask * (tone - canvas)


def shade(canvas, mask):
    canvas *= 1 - mask


def noise(seed, side):
    """White noise (n, side, side) of variance 1 from seeds (n, 1, 1): sums of the four bytes of a hash."""
    bits = seed.astype(np.uint32) ^ np.uint32(0x9E3779B9)
    for salt in (0, np.arange(side * side, dtype=np.uint32).reshape(side, side)):
        bits = bits ^ salt
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):              # C. Wellons's lowbias32
            bits = (bits ^ bits >> np.uint32(shift)) * np.uint32(factor)
        bits ^= bits >> np.uint32(16)
    total = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)
    return (total.astype(np.float32) - 510) * np.float32(1 / 147.8)


def texture(seed, cells, side):
    """Noise on the corners of cells x cells squares, smooth between: (n, side, side)."""
    place = np.arange(side, dtype=np.float32) * np.float32(cells / side)
    cell = place.astype(np.int64)
    t = place - cell
    t = (t * t * (3 - 2 * t)).astype(np.float32)
    corners = noise(seed, cells + 1)
    rows = corners[:, cell] + t[:, None] * (corners[:, cell + 1] - corners[:, cell])
    return rows[:, :, cell] + t * (rows[:, :, cell + 1] - rows[:, :, cell])


# --- a face. person, au (by FACS number), shot and mouth hold float32 (n, 1, 1); frames hold arrays (n, side, side)

def face_frame(shot, side):
    """Where each point of a side x side grid lies on the face: x, ax = |x| and y, in units."""
    along = (np.arange(side, dtype=np.float32) + .5) * np.float32(48 / side) - 24
    u, v = (along - shot.shift_x) / shot.scale, (along[:, None] - shot.shift_y) / shot.scale
    t2 = shot.roll * shot.roll
    cosine, sine = (1 - t2) / (1 + t2), 2 * shot.roll / (1 + t2)
    x, y = cosine * u + sine * v, cosine * v - sine * u + 24
    x -= shot.yaw * line(x, 14)
    return SimpleNamespace(x=x, ax=np.abs(x), y=y)


def view(frame, top, bottom, reach):
    """The part of a frame between two y and out to |x| = reach, and 5 units more to all sides for the pose."""
    side = frame.x.shape[1]
    rows, columns = (slice(max(0, int((low - 5) * side / 48)), int((high + 5) * side / 48))
                     for low, high in ((top, bottom), (24 - reach, 24 + reach)))
    return SimpleNamespace(**{name: array[:, rows, columns] for name, array in vars(frame).items()})


def pose_mouth(person, au):
    """Half width, y, lift of the corners, opening, and how far the chin drops."""
    jaw = 3.2 * au[26] + 3.5 * au[27]
    stretch = .25 * au[12] + .28 * au[20] - .16 * au[24] - .12 * au[23] - .22 * au[26] - .12 * au[27] - .08 * au[17]
    return SimpleNamespace(
        width=person.mouth_width * (1 + stretch),
        y=person.mouth_y + .3 * jaw - .7 * au[9] - .5 * au[17] - .6 * au[12],
        lift=person.mouth_curve + 3.4 * au[12] - 3.6 * au[15] - .6 * au[20] - .8 * au[10],
        opening=2 * au[25] + 1.2 * au[12] * au[25] + 5.5 * au[26] + 3.5 * au[27], jaw=jaw)


def relief(frame, person, au, mouth):
    """Height of the skin towards the camera, units."""
    x, y = frame.x / 30, (frame.y - 25) / 34
    frame.height = 15 * np.sqrt(np.maximum(1 - x * x - y * y, .05))             # the head, an ellipsoid
    v = view(frame, 8, 31, 9)                           # the nose: a ridge that rises and widens, a tip, two wings
    ny = v.y - person.nose_y
    t = np.clip((v.y - person.eye_y + 2) / (person.nose_y - person.eye_y + 1), 0, 1)
    wide = person.nose_bridge + (.62 * person.nose_width - person.nose_bridge + .6) * t * t
    v.height += person.nose_height * (3.1 * t * (1.2 - .2 * t) * inside(ny, 1.8) * line(v.x, wide)
                                      + 1.5 * hill(v.x, ny + 1.8, 2.5, 2.3)
                                      + 1.2 * hill(v.ax - .8 * person.nose_width, ny + .9 + au[9], 1.5, 1.7))
    v = view(frame, 3, 19, 20)                          # the ridges of the brows and the sockets
    ex, ey = v.ax - person.eye_x, v.y - person.eye_y
    v.height += (.7 + .5 * au[4]) * hill(ex, ey + 5, 7, 2.6) - 1.3 * hill(ex + .8, ey, 6.2, 3.4)
    v = view(frame, 16, 36, 22)
    cheek = person.cheekbones + 1.2 * au[6] + au[12]
    v.height += cheek * hill(v.ax - 12.5, v.y - 25 + 1.5 * au[6] + au[12], 5.4, 4.6)
    v = view(frame, 28, 48, 12)
    chin = .9 + .6 * au[17]
    v.height += .8 * hill(v.x, v.y - mouth.y, 9, 4) + chin * hill(v.x, v.y - person.chin_y + 5 - mouth.jaw, 5, 3)
    return frame.height


def paint_skin(frame, person, au, mouth):
    """The tone of the skin with its texture, shadows, wrinkles and beard."""
    frame.skin = person.skin * (1 + person.mottle * texture(person.skin_seed, 11, frame.x.shape[1]))
    v = view(frame, 3, 21, 22)                          # sockets, bags below the eyes, crow's feet with AU 6
    ex, ey = v.ax - person.eye_x, v.y - person.eye_y
    shade(v.skin, (person.eye_shadow + .12 * au[4]) * hill(ex + .6, ey + .4, 5.6, 3.6))
    shade(v.skin, (.06 + .3 * au[6] + .12 * au[7]) * line(ey - 3.3 + .06 * ex * ex * (1 - .4 * au[6]), .9)
          * inside(np.abs(ex) - 4.6, 1.2))
    out, away = ex - person.eye_width + .6, np.abs(ey + .4)
    away = np.minimum(away, np.abs(away - .55 * out))                           # three lines that spread
    shade(v.skin, .36 * au[6] * line(away, .65) * inside(np.abs(out - 2.8) - 1.5, .8))
    v = view(frame, 0, 12, 16)                          # wrinkles across the forehead with AU 1 and 2
    raised = np.maximum(au[1], au[2])
    away = v.y - person.eye_y + person.brow_gap + .6 * person.brow_arch + 5 + 1.2 * raised
    shade(v.skin, .26 * raised * line(np.abs(away) - 1, .7) * inside(v.ax - 8 - 4 * au[2], 4))
    v = view(frame, 3, 24, 7)                           # upright between the brows with AU 4, over the nose with AU 9
    ey = v.y - person.eye_y
    shade(v.skin, .42 * au[4] * line(v.ax - 1.5 + .12 * (ey + 5), .8) * inside(np.abs(ey + 4.6) - 2.4, 1.5))
    away = np.abs(ey - 2.4 + .5 * v.ax)
    away = np.minimum(away, np.abs(away - 2.2))                                 # three lines
    shade(v.skin, .4 * au[9] * line(away, .8) * inside(v.ax - 3.2, 1.4))
    v = view(frame, 22, 44, 17)                         # naso-labial folds, from the wings of the nose round the mouth
    top, bottom = person.nose_y - 2.2 - 1.2 * au[9], mouth.y + 1.5
    t = (v.y - top) / (bottom - top)
    s = np.clip(t, 0, 1)
    away = v.ax - person.nose_width - 1 - (mouth.width + 2.2 - person.nose_width) * s * (1.4 - .4 * s)
    depth = person.fold + .2 * au[12] + .3 * au[11] + .25 * au[9] + .2 * au[10] + .12 * au[6] + .1 * au[20]
    depth = np.minimum(depth, .5)
    shade(v.skin, depth * inside(np.abs(t - .1) - .35 - .5 * depth, .25)
          * (.6 * line(away, 1.4) + .4 * line(away + 1, 2.6)))
    v = view(frame, 24, 48, 24)                         # below the nose; beard and moustache
    shade(v.skin, .22 * hill(v.x, v.y - person.nose_y - 1, person.nose_width, 1.4))
    middle = .5 * (person.nose_y + mouth.y - person.upper_lip) + .7 + .1 * v.ax
    growth = person.moustache * inside(np.abs(v.ax - 3.4) - 5, 1.4) * line(v.y - middle, 2)
    growth = np.maximum(growth, person.beard * inside(36 - v.y - .02 * v.x * v.x, 4))
    paint(v.skin, growth, .8 * person.hair)
    return frame.skin


def paint_brows(frame, person, au):
    v = view(frame, 1, 14, 20)
    along = (v.ax - person.eye_x + 1.3 * au[4] + .3) / person.brow_length       # -1 inner to 1 outer end
    t = np.clip(.5 + .5 * along, 0, 1)
    raised = np.minimum(1.2 * au[1], 1)                 # AU 1 keeps AU 4 from lowering the inner ends
    inner = 3.6 * au[1] - 3.7 * au[4] * (1 - raised) - 1.3 * au[9]
    middle = 2 * person.brow_arch + au[1] + 4.2 * au[2] - (2.6 - 1.2 * raised) * au[4] - .8 * au[9] - .4 * au[7]
    outer = 2.8 * au[2] + .3 * au[4] * (1 - raised) - .5 * au[1] * (1 - au[2]) - person.brow_slope
    rise = inner * (1 - t) * (1 - t) + 2 * middle * t * (1 - t) + outer * t * t     # a Bezier curve
    away = v.y - person.eye_y + person.brow_gap + rise - person.brow_lopsided * np.clip(.2 * v.x, -1, 1)
    brow = inside(np.abs(away) - person.brow_thickness * (1.15 - .6 * t), .55) * inside(np.abs(along) - 1, .12)
    paint(v.skin, person.brow_density * brow, .55 * person.hair)


def paint_eyes(frame, person, au, shot):
    v = view(frame, 5, 18, 18)
    ex, ey = v.ax - person.eye_x, v.y - person.eye_y
    e = ex / person.eye_width                                                   # -1 inner to 1 outer corner
    arc, level = 1 - e * e, ey + (person.eye_tilt - 1.3 * au[43]) * e
    upper = person.eye_height * (1 + .3 * np.maximum(au[1], au[2]) + .95 * au[5] - .25 * au[4] * (1 - au[1])
                                 - .25 * au[7] - .25 * au[6] - .3 * au[9] - .8 * au[43])
    lower = .7 * person.eye_height * (1 + .3 * au[5] - .7 * au[7] - .6 * au[6] - .45 * au[9] - .1 * au[43])
    over, under = -level - upper * arc, level - lower * arc                     # distances to the lids, < 0 in the eye
    eye = .86 - .3 * inside(-over - .8, .7)                                     # the white, in the shadow of the lid
    gx, gy = np.sign(v.x) * ex - shot.gaze_x, ey + .35 - shot.gaze_y
    radius = np.sqrt(gx * gx + gy * gy)
    paint(eye, inside(radius - 2.4, .4), person.iris)
    paint(eye, inside(radius - 1.1, .4), .03)
    paint(eye, .9 * hill(gx + .8, gy + .8, .6, .6), 1)                          # a glint
    ends = inside(np.abs(e) - 1, .1)
    paint(v.skin, inside(over, .4) * inside(under, .4) * ends, eye)
    paint(v.skin, .85 * line(over, .62) * inside(np.abs(e) - 1.08, .12), .05)   # lashes
    shade(v.skin, .35 * line(under, .5) * ends)
    shade(v.skin, person.lid_crease * line(over - 1.5 - .9 * au[43] + .5 * au[5], .7) * ends)


def paint_nostrils(frame, person, au):
    v = view(frame, 20, 30, 8)
    ny = v.y - person.nose_y + 1.1 * au[9]
    shade(v.skin, .75 * hill(v.ax - .5 * person.nose_width, ny - .5, 1.25, .8))
    wing = v.ax - person.nose_width - .25 * au[9] + .25 * (ny + .8) * (ny + .8)
    shade(v.skin, (.2 + .1 * au[9]) * line(wing, .8) * inside(np.abs(ny + .8) - 1.3, .8))


def paint_mouth(frame, person, au, mouth):
    v = view(frame, 29, 48, 14)
    t2 = (v.x / mouth.width) * (v.x / mouth.width)                              # 0 middle to 1 corners
    arc = np.maximum(1 - t2, 0)
    lens = arc * (1.5 - .5 * arc)                       # shape of the lips and, at rest, of the opening
    drop = np.minimum(au[26] + au[27], 1) * (1 - au[20])
    hole = lens + au[20] * (arc * (1 + t2) - lens) + drop * (np.sqrt(arc) - lens)   # AU 20 squares it, 26 rounds it
    sneer = 2.1 * au[10] * (1 + .5 * person.sneer * np.clip(.25 * v.x, -1, 1)) * arc * (.45 + 2.2 * t2)
    push = .9 * au[17] * arc                            # the chin pushes the lower lip up
    rest = mouth.y - mouth.lift * (t2 - .35)
    upper = rest - .3 * mouth.opening * hole - sneer - .6 * push                # inner edges of the lips
    lower = np.maximum(rest + (.7 * mouth.opening + au[16]) * hole - .35 * sneer - push, upper)
    thin = (1 - .75 * au[24]) * (1 - .5 * au[23]) * (1 - .35 * au[20]) * (1 - .25 * au[12])
    above = upper - person.upper_lip * thin * lens * (1 - .3 * line(v.x, 1.5)) - .15    # outer edges
    below = lower + person.lower_lip * thin * lens * (1 + .35 * au[17]) + .15
    ends = inside(v.ax - mouth.width, .6)
    lip = person.lip_tone * v.skin * (1 - .14 * inside(v.y - upper, .6))        # the upper lip faces down
    paint(v.skin, inside(above - v.y, .5) * inside(v.y - below, .5) * ends, lip)
    shade(v.skin, .22 * (1 + au[17]) * line(v.y - below - 1.3, 1.3) * inside(v.ax - .6 * mouth.width, 2.5))

    gap = lower - upper
    parted = np.minimum(1.2 * gap, 1)
    cavity = .05 + .13 * inside(upper + .62 * gap - v.y, 1)                     # the tongue is a little lighter
    upper_teeth = np.clip(1.5 * au[12] + .35 * au[26] + .9 * au[10] - .1, 0, 1)
    lower_teeth = np.minimum(1.3 * au[16] * au[20] + .3 * au[20], 1)
    row = inside(v.ax - .86 * mouth.width, .8)
    paint(cavity, upper_teeth * row * inside(v.y - upper - 1.9, .4), .88)
    paint(cavity, lower_teeth * row * inside(lower - 1.5 - v.y, .4), .85)
    paint(v.skin, inside(upper - v.y, .4) * inside(v.y - lower, .4) * ends * parted, cavity)

    closed = (1 - parted) * (.75 + .2 * au[24])
    paint(v.skin, closed * line(v.y - .5 * (upper + lower), .65 + .15 * au[24])
          * inside(v.ax - mouth.width - .2, .5), .06)
    cx, cy = v.ax - mouth.width, v.y - mouth.y + .65 * mouth.lift               # from the corners; AU 15 pulls down
    shade(v.skin, (.25 + .3 * au[12] + .3 * au[24]) * hill(cx - .4, cy, 1, 1.1))
    shade(v.skin, .5 * au[15] * line(cx - .9 - .25 * cy, .8) * inside(np.abs(cy - 2) - 1.8, 1))
    shade(v.skin, .2 * au[24] * (line(v.y - above + .8, .9) + line(v.y - below - .8, .9)) * ends)


def light(frame, person, shot):
    """The skin under a far light (Lambert's law), with highlights."""
    height, step = frame.height, 48 / frame.height.shape[1]
    gx, gy = np.zeros_like(height), np.zeros_like(height)
    gx[:, :, 1:-1] = (height[:, :, 2:] - height[:, :, :-2]) * (.5 / step)
    gy[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * (.5 / step)
    for g in (gx, gy):
        g[:, 0], g[:, -1], g[:, :, 0], g[:, :, -1] = g[:, 1], g[:, -2], g[:, :, 1], g[:, :, -2]
    toward = np.sqrt(shot.light_x * shot.light_x + shot.light_y * shot.light_y + 1)
    facing = np.maximum((1 - gx * shot.light_x + gy * shot.light_y) / (np.sqrt(gx * gx + gy * gy + 1) * toward), 0)
    shine = facing * facing
    shine *= shine
    return frame.skin * (shot.ambience + (1.05 - shot.ambience) * facing) + person.shine * shine * shine


def add_surroundings(frame, person, shot, mouth):
    """Background, hair and glasses over the image of a frame."""
    x, ax, y = frame.x, frame.ax, frame.y
    u, v = ax / person.jaw_width, np.maximum((y - 18) / (person.chin_y + mouth.jaw - 18), 0)
    u2, v2 = u * u, v * v
    oval = u2 * np.sqrt(u) + v2 * np.sqrt(v)
    rim = 1 - oval - person.jaw_square * (u2 * u2 + v2 * v2 - oval)
    paint(frame.image, inside(rim, .05), shot.background)
    above = person.fringe + person.parting * x + .014 * x * x - y
    high, low = np.maximum(20 - y, 0), np.maximum(y - 18, 0)
    ends = np.where(person.long_hair > 0, np.float32(-.03), np.float32(.57))    # short hair ends below the eyes
    beside = ax - 25 + person.temples * inside(y - 18, 8) + person.long_hair + .008 * high * high - ends * low
    strands = 1 + .15 * texture(person.skin_seed + 1, 16, x.shape[1])
    paint(frame.image, inside(-np.maximum(above, beside), .8), .9 * person.hair * strands)
    v = view(frame, 5, 20, 20)
    ex, ey = (v.ax - person.eye_x) / 6.6, (v.y - person.eye_y - .6) / 4.9
    ex, ey = ex * ex, ey * ey
    rim = np.abs(np.sqrt(np.sqrt(ex * ex + ey * ey)) - 1) * 5 - .45
    bridge = np.maximum(np.abs(v.y - person.eye_y + .6) - .4, v.ax - person.eye_x + 6.4)
    paint(v.image, person.glasses * inside(np.minimum(rim, bridge), .45), .06)


def photograph(image, shot):
    """What the camera makes of an image (n, size, size) of tones: blur, tones, contrast, noise; uint8."""
    size = image.shape[1]
    for axis in (1, 2):
        wide = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis)
        before, after = (wide.take(np.arange(start, start + size), axis) for start in (0, 2))
        image = image + shot.blur * (.5 * (before + after) - image)
    image = np.clip(image, 0, 1.2)
    image = image * (1 + shot.tone) / (1 + shot.tone * image)
    image = (image - .45) * shot.contrast + .45 + shot.noise * noise(shot.noise_seed, size)
    return (np.clip(image, 0, 1) * 255 + .5).astype(np.uint8)


def draw(identities, action_units, nuisance, size):
    """One chunk of `render`."""
    person = SimpleNamespace(**dict(zip(IDENTITY_PARAMETERS, identities.T[:, :, None, None])))
    shot = SimpleNamespace(**dict(zip(NUISANCE_PARAMETERS, nuisance.T[:, :, None, None])))
    au = dict(zip(ACTION_UNITS, action_units.T[:, :, None, None]))
    mouth = pose_mouth(person, au)
    pixels, rays = face_frame(shot, size), face_frame(shot, 2 * size)
    skin = paint_skin(pixels, person, au, mouth)
    rays.skin = skin.repeat(2, 1).repeat(2, 2)          # what has sharp edges is painted on 2 x 2 rays a pixel
    paint_brows(rays, person, au)
    paint_eyes(rays, person, au, shot)
    paint_nostrils(rays, person, au)
    paint_mouth(rays, person, au, mouth)
    skin = rays.skin[:, 0::2] + rays.skin[:, 1::2]
    pixels.skin = (skin[:, :, 0::2] + skin[:, :, 1::2]) * .25
    pixels.height = relief(pixels, person, au, mouth)
    pixels.image = light(pixels, person, shot)
    add_surroundings(pixels, person, shot, mouth)
    return photograph(pixels.image, shot)


def render(identities, action_units, nuisance, size=48):
    """Draw faces: any people (N, P) with any action units (N, A) under any nuisance (N, Q), as uint8 (N, size, size).

    size: pixels. Raises UserError if it is not a multiple of 8.
    """
    if size < 8 or size % 8:
        raise UserError("size of the synthetic faces", "a multiple of 8", size, "use 48, 64, ...")
    arrays = [np.asarray(array, np.float32) for array in (identities, action_units, nuisance)]
    with ThreadPoolExecutor(THREADS) as pool:
        chunks = pool.map(lambda start: draw(*(array[start:start + CHUNK] for array in arrays), size),
                          range(0, len(arrays[0]), CHUNK))
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
            print(f"{path}: cannot be written, so these faces are drawn again next time")
    images, labels, people, factors = arrays["images"], arrays["labels"], arrays["identities"], {
        name: arrays[name] for name in ("identity", "action_units", "nuisance")}
    return Faces(images, labels, people, split_faces(labels, people, seed), "synthetic", factors)


def make(image_size, seed, count, identities):
    """The arrays of `load` by name, drawn anew."""
    rng = np.random.Generator(np.random.PCG64(seed))
    people = max(1, min(identities, count // 4))
    order = np.argsort(rng.random(count), kind="stable")
    person, turn = order % people, order // people
    labels = (person + turn) % len(PROTOTYPES)
    factors = {"identity": sample_identities(people, rng)[person],
               "action_units": sample_action_units(labels, rng), "nuisance": sample_nuisance(count, rng)}
    return {"images": render(*factors.values(), image_size), "labels": labels, "identities": person, **factors}


def read_cache(path):
    """The arrays in a cache file, or None where there is none or it is damaged."""
    try:
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("images", "labels", "identities", "identity", "action_units",
                                                  "nuisance")}
    except Exception as error:          # a damaged archive fails in many ways
        print(f"{path}: damaged ({type(error).__name__}), so these faces are drawn again")
        return None


def with_expression(faces, rows, labels):
    """The true faces: the people of these rows under the same nuisance, but with other expressions.

    faces: synthetic `Faces`. rows, labels: int64 (n,). Returns uint8 (n, H, W), drawn with the expected action units.
    """
    rows = np.asarray(rows, np.int64)
    factors = {name: array[rows] for name, array in faces.factors.items()}
    return render(factors["identity"], expected_action_units(labels), factors["nuisance"], faces.images.shape[1])
