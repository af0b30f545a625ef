"""How a synthetic face is drawn, from the parameters that synthetic.py lists and samples.

In: people, action units and nuisance, by name. Out: pixels. A face is drawn in a frame of 48 x 48 units, x from the
midline, y down from the top, cropped as the Toronto Face Dataset crops. `draw`, at the end, says in which order.

Exact arithmetic: the same parameters give the same pixels on every machine. Hence float32, only operations that
IEEE 754 rounds exactly (+ - * / sqrt, comparisons, integers; no exp, sin or pow, no sums whose order is the
processor's choice), and noise from a hash of integers. Bumps, edges, turns and tones are rational functions.
"""
from types import SimpleNamespace

import numpy as np

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


def raise_relief(frame, person, au, mouth):
    """frame.height: of the skin towards the camera, units."""
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


def paint_skin(frame, person, au, mouth):
    """frame.skin: its tone with texture, shadows, wrinkles and beard."""
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
    gx = (height[:, 1:-1, 2:] - height[:, 1:-1, :-2]) * (.5 / step)
    gy = (height[:, 2:, 1:-1] - height[:, :-2, 1:-1]) * (.5 / step)
    toward = np.sqrt(shot.light_x * shot.light_x + shot.light_y * shot.light_y + 1)
    facing = np.maximum((1 - gx * shot.light_x + gy * shot.light_y) / (np.sqrt(gx * gx + gy * gy + 1) * toward), 0)
    facing = np.pad(facing, ((0, 0), (1, 1), (1, 1)), "edge")
    shine = facing * facing
    shine *= shine
    return frame.skin * (shot.ambience + (1.05 - shot.ambience) * facing) + person.shine * shine * shine


def paint_surroundings(frame, person, shot, mouth):
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
    here = np.arange(image.shape[1])
    for axis in (1, 2):
        before, after = (image.take(here + step, axis, mode="clip") for step in (-1, 1))
        image = image + shot.blur * (.5 * (before + after) - image)
    image = np.clip(image, 0, 1.2)
    image = image * (1 + shot.tone) / (1 + shot.tone * image)
    image = (image - .45) * shot.contrast + .45 + shot.noise * noise(shot.noise_seed, len(here))
    return (np.clip(image, 0, 1) * 255 + .5).astype(np.uint8)


def draw(person, au, shot, size):
    """Draw a few faces: uint8 (n, size, size).

    person, shot: namespaces of every parameter in synthetic.IDENTITY_PARAMETERS and synthetic.NUISANCE_PARAMETERS.
    au: intensity by FACS number, every one of synthetic.ACTION_UNITS. All float32 (n, 1, 1). size: pixels, even.
    """
    mouth = pose_mouth(person, au)
    pixels, rays = face_frame(shot, size), face_frame(shot, 2 * size)
    paint_skin(pixels, person, au, mouth)
    rays.skin = pixels.skin.repeat(2, 1).repeat(2, 2)   # what has sharp edges is painted on 2 x 2 rays a pixel
    paint_brows(rays, person, au)
    paint_eyes(rays, person, au, shot)
    paint_nostrils(rays, person, au)
    paint_mouth(rays, person, au, mouth)
    skin = rays.skin[:, 0::2] + rays.skin[:, 1::2]
    pixels.skin = (skin[:, :, 0::2] + skin[:, :, 1::2]) * .25
    raise_relief(pixels, person, au, mouth)
    pixels.image = light(pixels, person, shot)
    paint_surroundings(pixels, person, shot, mouth)
    return photograph(pixels.image, shot)
