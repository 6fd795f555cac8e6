"""Calls as they are written in OpenCV's documentation, its Python tests and published snippets, run on both.

Each row is an expression. It is evaluated with cv2's class and function and with ours; both must give the same value,
type, dtype and shape, or both must raise, ours `cv2.error`. Rows under LAXER are those that cv2 refuses and ours takes.
"""

import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from cascades import random_cascade, same_value
from PIL import Image
from skimage import data

import vj
from vj import cv2_compat

pytestmark = pytest.mark.opencv4

# In the expressions: cv is cv2 or the drop-in, C a loaded classifier, gray and bgr an image of 240x240 with a face.
CALLS = """
C.detectMultiScale(gray)
C.detectMultiScale(gray, 1.1)
C.detectMultiScale(gray, 1.3, 5)
C.detectMultiScale(gray, 1.1, 4)
C.detectMultiScale(gray, 1.05, 3)
C.detectMultiScale(gray, 2)
C.detectMultiScale(gray, 1.1, 0)
C.detectMultiScale(gray, 1.1, 1)
C.detectMultiScale(gray, 1.1, -1)
C.detectMultiScale(gray, 1.1, 100)
C.detectMultiScale(bgr)
C.detectMultiScale(bgr, 1.1, 2)
C.detectMultiScale(image=gray)
C.detectMultiScale(gray, scaleFactor=1.2)
C.detectMultiScale(gray, minNeighbors=6)
C.detectMultiScale(gray, scaleFactor=1.1, minNeighbors=5, minSize=(30, 30))
C.detectMultiScale(gray, scaleFactor=1.1, minNeighbors=5, minSize=(30, 30), flags=cv2.CASCADE_SCALE_IMAGE)
C.detectMultiScale(gray, scaleFactor=1.275, minNeighbors=4, minSize=(30, 30), flags=cv2.CASCADE_SCALE_IMAGE)
C.detectMultiScale(gray, scaleFactor=1.3, minNeighbors=4, minSize=(30, 30), flags=cv2.CASCADE_SCALE_IMAGE)
C.detectMultiScale(gray, 1.1, 2, 0, (60, 60))
C.detectMultiScale(gray, 1.1, 2, 0 | cv2.CASCADE_SCALE_IMAGE, (30, 30))
C.detectMultiScale(gray, 1.1, 3, cv2.CASCADE_FIND_BIGGEST_OBJECT | cv2.CASCADE_DO_ROUGH_SEARCH, (30, 30))
C.detectMultiScale(gray, 1.1, 3, cv2.CASCADE_DO_CANNY_PRUNING)
C.detectMultiScale(gray, 1.1, 3, 0, (20, 20), (100, 100))
C.detectMultiScale(gray, 1.1, 3, 0, (0, 0), (0, 0))
C.detectMultiScale(gray, flags=0)
C.detectMultiScale(gray, flags=None)
C.detectMultiScale(gray, None)
C.detectMultiScale(gray, scaleFactor=None, minNeighbors=None)
C.detectMultiScale(gray, 1.1, 3, None, None, None)
C.detectMultiScale(gray, minSize=None)
C.detectMultiScale(gray, maxSize=None)
C.detectMultiScale(gray, minSize=[60, 60])
C.detectMultiScale(gray, minSize=np.array([60, 60]))
C.detectMultiScale(gray, minSize=(np.int32(60), np.int64(60)))
C.detectMultiScale(gray, minSize=(-5, -5))
C.detectMultiScale(gray, minSize=(240, 240))
C.detectMultiScale(gray, minSize=(2000, 2000))
C.detectMultiScale(gray, minSize=(100, 100), maxSize=(50, 50))
C.detectMultiScale(gray, 1.1, 0, minSize=(100, 100), maxSize=(50, 50))
C.detectMultiScale(gray, 1.1, 0, minSize=(64, 64), maxSize=(64, 64))
C.detectMultiScale(gray, maxSize=(80, 80))
C.detectMultiScale(gray, maxSize=(100, 0))
C.detectMultiScale(gray, maxSize=(0, 100))
C.detectMultiScale(gray, maxSize=(1, 1))
C.detectMultiScale(gray, maxSize=(-1, -1))
C.detectMultiScale(gray, 1.1, 0, 0, (0, 0), (-1, -1))
C.detectMultiScale(gray, 1.1, 0, 0, (90, 90), (-1, -1))
C.detectMultiScale(gray, maxSize=(-1, 100))
C.detectMultiScale(gray, minSize=(gray.shape[1] // 5, gray.shape[0] // 5))
C.detectMultiScale(gray, minSize=(int(60.5), int(60.5)))
C.detectMultiScale(gray, np.float32(1.1))
C.detectMultiScale(gray, np.float64(1.2), np.int64(3))
C.detectMultiScale(gray, np.int32(2), np.uint8(3))
C.detectMultiScale(None)
C.detectMultiScale(None, 1.3, 5)
C.detectMultiScale2(None)
C.detectMultiScale3(None, outputRejectLevels=True)
C.detectMultiScale(None, 0.5)
C.detectMultiScale(gray[None])
C.detectMultiScale(bgr[None])
C.detectMultiScale(gray.ravel())
C.detectMultiScale(gray[:, 60].copy())
C.detectMultiScale(gray[:, :, None])
C.detectMultiScale(np.array(5, np.uint8))
C.detectMultiScale(np.dstack([bgr, gray]))
C.detectMultiScale(np.dstack([gray, gray]))
C.detectMultiScale(np.dstack([bgr, bgr]))
C.detectMultiScale(np.zeros((10, 10, 2), np.uint8))
C.detectMultiScale(np.zeros((50, 50, 0), np.uint8))
C.detectMultiScale(np.zeros((50, 60, 70), np.uint8))
C.detectMultiScale(np.zeros((50, 50, 600), np.uint8))
C.detectMultiScale(np.zeros((30, 30, 30, 30), np.uint8))
C.detectMultiScale(np.zeros((2, 2, 2, 2, 2), np.uint8))
C.detectMultiScale(np.zeros((1, 100, 200, 3), np.uint8))
C.detectMultiScale(np.zeros((0, 0), np.uint8))
C.detectMultiScale(np.zeros((0, 5), np.uint8))
C.detectMultiScale(np.zeros((5, 0), np.uint8))
C.detectMultiScale(np.zeros((0, 0, 3), np.uint8))
C.detectMultiScale(np.zeros((0,), np.uint8))
C.detectMultiScale(np.zeros((0, 0), np.float32))
C.detectMultiScale(np.zeros((5, 5), np.uint8))
C.detectMultiScale(np.zeros((1, 1), np.uint8))
C.detectMultiScale(np.zeros((100, 100), np.uint8))
C.detectMultiScale(np.full((100, 100), 255, np.uint8))
C.detectMultiScale(gray[:24, :24])
C.detectMultiScale(gray[:23, :240])
C.detectMultiScale(np.asfortranarray(gray))
C.detectMultiScale(gray[:, ::-1])
C.detectMultiScale(gray[::-1])
C.detectMultiScale(gray[::2, ::2])
C.detectMultiScale(bgr[:, :, ::-1])
C.detectMultiScale(bgr[:, :, 0])
C.detectMultiScale(bgr[..., 1])
C.detectMultiScale(gray.T)
C.detectMultiScale(gray[10:200, 10:200])
C.detectMultiScale(np.ma.masked_array(gray))
C.detectMultiScale(np.matrix(gray))
C.detectMultiScale(np.broadcast_to(gray[:1], (100, 240)))
C.detectMultiScale(cv2.equalizeHist(gray))
C.detectMultiScale(cv2.resize(gray, (0, 0), fx=0.5, fy=0.5))
C.detectMultiScale(cv2.flip(gray, 1))
C.detectMultiScale(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
C.detectMultiScale(cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA))
C.detectMultiScale(cv2.GaussianBlur(gray, (5, 5), 0), 1.2, 2)
C.detectMultiScale(np.array(Image.fromarray(gray)))
C.detectMultiScale(cv2.UMat(gray))
C.detectMultiScale(cv2.UMat(bgr), 1.2, 2)
C.detectMultiScale(cv2.UMat(np.zeros((100, 100), np.uint8)))
C.detectMultiScale2(cv2.UMat(gray))
C.detectMultiScale3(cv2.UMat(gray), outputRejectLevels=True)
C.detectMultiScale(gray / 255.0)
C.detectMultiScale(gray.astype(np.float32))
C.detectMultiScale(gray.astype(np.float16))
C.detectMultiScale(gray.astype(np.uint16))
C.detectMultiScale(gray.astype(np.int8))
C.detectMultiScale(gray.astype(np.int32))
C.detectMultiScale(gray.astype(np.int64))
C.detectMultiScale(gray.astype(np.uint32))
C.detectMultiScale(gray > 100)
C.detectMultiScale(gray.astype(object))
C.detectMultiScale(np.zeros((5,), np.float32))
C.detectMultiScale(gray.tolist())
C.detectMultiScale("photo.jpg")
C.detectMultiScale(5)
C.detectMultiScale(5.5)
C.detectMultiScale((1, 2, 3))
C.detectMultiScale({})
C.detectMultiScale()
C.detectMultiScale(gray, 1)
C.detectMultiScale(gray, 1.0)
C.detectMultiScale(gray, 0.9)
C.detectMultiScale(gray, 0)
C.detectMultiScale(gray, -2)
C.detectMultiScale(gray, float("nan"))
C.detectMultiScale(gray, "1.1")
C.detectMultiScale(gray, 1.1, 5.5)
C.detectMultiScale(gray, 1.1, "3")
C.detectMultiScale(gray, 1.1, True)
C.detectMultiScale(gray, 1.1, 2**40)
C.detectMultiScale(gray, minSize=60)
C.detectMultiScale(gray, minSize=())
C.detectMultiScale(gray, minSize=(60,))
C.detectMultiScale(gray, minSize=(60, 60, 60))
C.detectMultiScale(gray, minSize=(60.5, 60.5))
C.detectMultiScale(gray, minSize=("60", "60"))
C.detectMultiScale(gray, minSize="60")
C.detectMultiScale(gray, minSize=(True, False))
C.detectMultiScale(gray, minSize=(2**33, 5))
C.detectMultiScale(gray, foo=1)
C.detectMultiScale(gray, 1.1, 3, 0, (1, 1), (0, 0), 5)
C.detectMultiScale2(gray)
C.detectMultiScale2(gray, 1.1, 0)
C.detectMultiScale2(gray, scaleFactor=1.2, minNeighbors=1, minSize=(40, 40))
C.detectMultiScale2(np.zeros((100, 100), np.uint8))
C.detectMultiScale2(gray, 0.5)
C.detectMultiScale3(gray, outputRejectLevels=True)
C.detectMultiScale3(gray, outputRejectLevels=1)
C.detectMultiScale3(gray, 1.1, 3, 0, (0, 0), (0, 0), True)
C.detectMultiScale3(gray, 1.1, 0, outputRejectLevels=True)
C.detectMultiScale3(gray, scaleFactor=1.1, minNeighbors=5, flags=0, minSize=(30, 30), outputRejectLevels=True)
C.detectMultiScale3(np.zeros((100, 100), np.uint8), outputRejectLevels=True)
C.detectMultiScale3(np.zeros((100, 100), np.uint8))
len(C.detectMultiScale(gray))
len(C.detectMultiScale(np.zeros((90, 90), np.uint8))) == 0
isinstance(C.detectMultiScale(np.zeros((90, 90), np.uint8)), tuple)
[tuple(map(int, box)) for box in C.detectMultiScale(gray)]
[gray[y:y + h, x:x + w].mean() for (x, y, w, h) in C.detectMultiScale(gray)]
max(C.detectMultiScale(gray, 1.1, 0), key=lambda r: r[2] * r[3]).tolist()
C.detectMultiScale(gray).tolist()
C.detectMultiScale(gray)[0]
C.detectMultiScale(gray)[:, 2:] + C.detectMultiScale(gray)[:, :2]
changed(C.detectMultiScale(gray))
C.detectMultiScale(gray).flags.writeable
C.detectMultiScale(gray).flags.c_contiguous
np.concatenate([C.detectMultiScale(gray), C.detectMultiScale(gray)])
sorted(C.detectMultiScale(gray, 1.1, 0).tolist())
cv2.rectangle(bgr.copy(), C.detectMultiScale(gray)[0].tolist(), (0, 255, 0), 2)
C.empty()
C.getOriginalWindowSize()
C.getFeatureType()
C.isOldFormatCascade()
cv.CascadeClassifier().empty()
cv.CascadeClassifier("/no/x.xml").empty()
cv.CascadeClassifier("a\\0b").empty()
cv.CascadeClassifier(filename=face).empty()
cv.CascadeClassifier(face.encode()).empty()
cv.CascadeClassifier(Path(face)).empty()
cv.CascadeClassifier(old).getOriginalWindowSize()
cv.CascadeClassifier(old).isOldFormatCascade()
cv.CascadeClassifier(old).detectMultiScale(gray, 1.1, 0)
cv.CascadeClassifier(5)
cv.CascadeClassifier(face, face)
cv.CascadeClassifier(a_png)
cv.CascadeClassifier().load(face)
cv.CascadeClassifier().load(filename=face)
cv.CascadeClassifier().load(face.encode())
cv.CascadeClassifier().load(Path(face))
cv.CascadeClassifier().load("/no/x.xml")
cv.CascadeClassifier().load(a_png)
cv.CascadeClassifier().load(broken)
cv.CascadeClassifier().load()
reloaded(cv.CascadeClassifier(face), "/no/x.xml")
reloaded(cv.CascadeClassifier(), face)
cv.CascadeClassifier().detectMultiScale(gray)
cv.CascadeClassifier().detectMultiScale(None)
cv.CascadeClassifier().detectMultiScale2(gray)
cv.CascadeClassifier().detectMultiScale3(gray, outputRejectLevels=True)
cv.CascadeClassifier().getOriginalWindowSize()
cv.CascadeClassifier().getFeatureType()
cv.CascadeClassifier().isOldFormatCascade()
cv.CascadeClassifier("/no/x.xml").detectMultiScale(gray)
read(cv.CascadeClassifier(), face)
read(cv.CascadeClassifier(), old)
read(cv.CascadeClassifier(), face, root=True)
read(cv.CascadeClassifier(), lbp)
cv.CascadeClassifier().read(None)
cv.CascadeClassifier().read(cv2.FileNode())
cv.CascadeClassifier.convert(old, target) and cv2.CascadeClassifier(target).detectMultiScale(gray, 1.1, 0)
cv.CascadeClassifier().convert(old, target)
cv.CascadeClassifier.convert(face, target)
cv.CascadeClassifier.convert("/no/x.xml", target)
cv.CascadeClassifier.convert(old, "/no/folder/x.xml")
cv.groupRectangles([(0, 0, 10, 10), (0, 0, 10, 10), (1, 1, 10, 10)], 1)
cv.groupRectangles([[0, 0, 10, 10], [0, 0, 10, 10]], 1, 0.2)
cv.groupRectangles(((0, 0, 10, 10), (0, 0, 10, 10)), 1)
cv.groupRectangles(rectList=[[0, 0, 10, 10]] * 3, groupThreshold=1, eps=0.5)
cv.groupRectangles([[0, 0, 10, 10]] * 3, 1, 0)
cv.groupRectangles([[0, 0, 10, 10]] * 3, 1, None)
cv.groupRectangles([[0, 0, 10, 10]] * 3, 1, -1)
cv.groupRectangles([[0, 0, 10, 10]] * 3, 1, float("nan"))
cv.groupRectangles([[0, 0, 10, 10]] * 3, None)
cv.groupRectangles([[0, 0, 10, 10]], 0)
cv.groupRectangles([[0, 0, 10, 10]], -1)
cv.groupRectangles([[0, 0, 10, 10]], 1)
cv.groupRectangles(None, 1)
cv.groupRectangles([], 1)
cv.groupRectangles((), 1)
cv.groupRectangles(np.array([]), 1)
cv.groupRectangles(np.zeros((0, 4), np.int32), 1)
cv.groupRectangles(np.array([[0, 0, 10, 10], [0, 0, 10, 10]]), 1)
cv.groupRectangles(np.array([[0, 0, 10, 10]] * 2, np.uint8), 1)
cv.groupRectangles(np.array([[1, 2, 3, 4]], dtype=object), 0)
cv.groupRectangles([np.array([1, 2, 3, 4])], 0)
cv.groupRectangles(C.detectMultiScale(gray, 1.1, 0), 3)
cv.groupRectangles(C.detectMultiScale(gray, 1.1, 0).tolist() * 2, 2, 0.1)
cv.groupRectangles(C.detectMultiScale(np.zeros((90, 90), np.uint8)), 3)
cv.groupRectangles(np.array([[0, 0, 10, 10.5]]), 1)
cv.groupRectangles([[0, 0, 10.0, 10.0]] * 2, 1)
cv.groupRectangles([[0, 0, 10]], 1)
cv.groupRectangles([[0, 0, 10, 10, 5]], 1)
cv.groupRectangles([0, 0, 10, 10], 1)
cv.groupRectangles([[2**40, 2, 3, 4]], 0)
cv.groupRectangles({(1, 2, 3, 4)}, 0)
cv.groupRectangles(iter([[1, 2, 3, 4]]), 0)
cv.groupRectangles("abcd", 0)
cv.groupRectangles(5, 0)
cv.groupRectangles([[0, 0, 10, 10]] * 3, 1, "a")
cv.groupRectangles([[0, 0, 10, 10]] * 3, True)
cv.groupRectangles([[0, 0, 10, 10]] * 3, "1")
cv.groupRectangles([[0, 0, 10, 10]] * 3)
cv.groupRectangles(np.array([[[0, 0, 10, 10]], [[0, 0, 10, 10]]], np.int32), 1)
cv.CASCADE_SCALE_IMAGE, cv.CASCADE_FIND_BIGGEST_OBJECT, cv.CASCADE_DO_ROUGH_SEARCH, cv.CASCADE_DO_CANNY_PRUNING
""".strip().splitlines()

# What cv2 refuses and ours takes, with what it must equal.
LAXER = {
    "C.detectMultiScale(gray, 1.1, 5.0)": "C.detectMultiScale(gray, 1.1, 5)",
    "C.detectMultiScale(gray, 1.1, np.float64(3))": "C.detectMultiScale(gray, 1.1, 3)",
    "C.detectMultiScale(gray, 1.1, 3, 0.0)": "C.detectMultiScale(gray, 1.1, 3, 0)",
    "C.detectMultiScale(gray, minSize=(60.0, 60.0))": "C.detectMultiScale(gray, minSize=(60, 60))",
    "C.detectMultiScale(gray, minSize=(np.float64(60), np.float64(60)))": "C.detectMultiScale(gray, minSize=(60, 60))",
    "C.detectMultiScale(memoryview(gray))": "C.detectMultiScale(gray)",
    "C.detectMultiScale(Image.fromarray(gray))": "C.detectMultiScale(gray)",
    "C.detectMultiScale(Image.fromarray(bgr[:, :, ::-1]))": "C.detectMultiScale(bgr)",
    "C.detectMultiScale(np.uint8(5))": "C.detectMultiScale(np.array(5, np.uint8))",
    "C.detectMultiScale3(gray)": "(C.detectMultiScale(gray), (), ())",
    "C.detectMultiScale3(gray, outputRejectLevels=None)": "(C.detectMultiScale(gray), (), ())",
    "cv.CascadeClassifier('').empty()": "True",
    "cv.CascadeClassifier('/').empty()": "True",
    "cv.CascadeClassifier(other).empty()": "True",
    "cv.groupRectangles([[0, 0, 10, 10]] * 3, 1.0)": "cv.groupRectangles([[0, 0, 10, 10]] * 3, 1)",
}


def changed(boxes):
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def reloaded(classifier, path):
    return classifier.load(path), classifier.empty()


def read(classifier, path, root=False):
    storage = cv2.FileStorage(path, cv2.FILE_STORAGE_READ)
    done = classifier.read(storage.root() if root else storage.getFirstTopLevelNode())
    size = None if classifier.empty() else classifier.getOriginalWindowSize()
    found = None if size is None else classifier.detectMultiScale(data.astronaut()[:240, 100:340, 0].copy(), 1.2, 0)
    return done, size, found


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the expressions speak of, but for the classifier."""
    folder = tmp_path_factory.mktemp("calls")
    bgr = np.ascontiguousarray(data.astronaut()[:240, 100:340, ::-1])
    (folder / "a.png.xml").write_bytes(b"\x89PNG\r\n")
    (folder / "broken.xml").write_text('<?xml version="1.0"?>\n<opencv_storage><cascade>')
    (folder / "other.xml").write_text('<?xml version="1.0"?>\n<opencv_storage>\n<a>1</a>\n</opencv_storage>\n')
    vj.save(random_cascade(4, kind="lbp"), folder / "lbp.xml")
    return {
        "cv2": cv2, "np": np, "Image": Image, "Path": Path, "changed": changed, "reloaded": reloaded, "read": read,
        "bgr": bgr, "gray": cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY),
        "face": cv2.data.haarcascades + "haarcascade_frontalface_default.xml",
        "old": cv2.data.haarcascades + "haarcascade_license_plate_rus_16stages.xml",
        "lbp": str(folder / "lbp.xml"), "a_png": str(folder / "a.png.xml"), "broken": str(folder / "broken.xml"),
        "other": str(folder / "other.xml"), "target": str(folder / "target.xml"),
    }  # fmt: skip


DROP_IN = SimpleNamespace(**cv2_compat._NAMES)


@pytest.fixture(scope="module")
def sides(names):
    cv2.setNumThreads(1)
    theirs = {**names, "cv": cv2, "C": cv2.CascadeClassifier(names["face"])}
    ours = {**names, "cv": DROP_IN, "C": vj.CascadeClassifier(names["face"])}
    return ours, theirs


def outcome(expression, side):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return eval(expression, dict(side))
        except Exception as error:
            return error


def same(ours, theirs):
    """Equal as values are; an error for an error."""
    if isinstance(theirs, Exception):
        assert isinstance(ours, cv2.error | TypeError), f"ours gives {ours!r}, cv2 raises {theirs}"
        assert not isinstance(ours, cv2.error) or isinstance(ours, vj.InputError)
        assert "\n" not in str(ours)
    else:
        same_value(ours, theirs)


@pytest.mark.parametrize("expression", CALLS)
def test_both_give_the_same(expression, sides):
    ours, theirs = sides
    same(outcome(expression, ours), outcome(expression, theirs))


@pytest.mark.parametrize("expression", LAXER)
def test_what_only_ours_takes_gives_what_is_meant(expression, sides):
    ours, theirs = sides
    assert isinstance(outcome(expression, theirs), Exception)
    same(outcome(expression, ours), outcome(LAXER[expression], theirs))


def test_an_infinite_scale_factor_is_refused(sides):
    """OpenCV 4.14 is not asked: it collects scales until memory runs out."""
    with pytest.raises(vj.InputError, match="scale"):
        sides[0]["C"].detectMultiScale(np.zeros((50, 50), np.uint8), float("inf"))


def test_the_table_is_a_table():
    assert len(set(CALLS)) == len(CALLS) >= 250


@pytest.mark.parametrize(
    "image", [None, np.zeros((1, 90, 90), np.uint8), np.zeros(90, np.uint8)], ids=["None", "3", "1"]
)
def test_an_image_in_which_opencv_silently_finds_nothing_is_warned_of(image, sides):
    with pytest.warns(UserWarning, match=r"expected an image") as caught:
        sides[0]["C"].detectMultiScale(image)
    assert caught[0].filename == __file__


def test_programs_that_catch_cv2_error_still_do(sides):
    for call in (
        lambda: DROP_IN.CascadeClassifier().detectMultiScale(sides[0]["gray"]),
        lambda: sides[0]["C"].detectMultiScale(sides[0]["gray"], 1.0),
        lambda: DROP_IN.groupRectangles([[1, 2]], 1),
    ):
        for kind in (cv2.error, vj.InputError, ValueError, cv2_compat.error):
            with pytest.raises(kind):
                call()
