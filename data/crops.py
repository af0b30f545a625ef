"""Which part of a photograph is the face.

In: a Pillow image. Out: a box (left, top, right, bottom) in pixels.
"""
import numpy as np

from data.pixels import middle
from training.errors import UserError


def face_box(image, crop=None):
    """The box of the face in a Pillow image, and a few words on how it was found.

    crop: "left,top,right,bottom" in pixels; None: the largest face that opencv's detector finds (Viola and Jones 2001),
    where an opencv before version 5 is installed, else the square in the middle. Raises UserError for a crop that is no
    part of the image.
    """
    if crop is not None:
        return _parse(crop, image), "cut by CROP"
    try:
        import cv2                                              # optional
        detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    except (ImportError, AttributeError):                       # version 5 has no such detector
        return middle(*image.size), "the middle square: no opencv<5 is installed that would find the face"
    least = min(image.size) // 8                               # pixels
    found = detector.detectMultiScale(np.asarray(image.convert("L")), minNeighbors=6, minSize=(least, least))
    if not len(found):
        return middle(*image.size), "the middle square: opencv found no face"
    left, top, width, height = max(found.tolist(), key=lambda box: box[2] * box[3])
    return (left, top, left + width, top + height), f"the largest of {len(found)} faces that opencv found"


def _parse(crop, image):
    """The box of "left,top,right,bottom"."""
    try:
        left, top, right, bottom = box = tuple(map(int, crop.split(",")))
    except ValueError:
        left, top, right, bottom = box = 0, 0, 0, 0
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise UserError(f"CROP={crop}", f"left,top,right,bottom in pixels of {image.width}x{image.height}", crop,
                        f"for example CROP={','.join(map(str, middle(*image.size)))}")
    return box
