import inspect
import warnings

import cv2
import numpy as np
import pytest
from cascades import LBP_FILE, random_cascade, same_value
from photos import photo

import vj
from vj import cv2_compat
from vj.errors import InputError

peer = pytest.mark.opencv4
FACE = "haarcascade_frontalface_alt2.xml"


@pytest.fixture(scope="module")
def fixed_lbp(tmp_path_factory):
    """scikit-image's file with its misspelt tag put right, so that OpenCV reads it."""
    path = tmp_path_factory.mktemp("lbp") / "lbp.xml"
    path.write_text(LBP_FILE.read_text().replace("featuhreParams", "featureParams"))
    return str(path)


@pytest.fixture(params=["haar", "lbp"])
def pair(request, fixed_lbp):
    cv2.setNumThreads(1)
    path = cv2.data.haarcascades + FACE if request.param == "haar" else fixed_lbp
    return vj.CascadeClassifier(path), cv2.CascadeClassifier(path)


SETTINGS = [(), (1.3, 0), (1.2, 1, 0, (40, 40), (200, 180)), (1.5, -2, 0, (-3, -3)), (1.3, 2, None, None, None)]


@peer
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["astronaut", "coins"])
def test_results_are_those_of_opencv(pair, settings, name):
    ours, theirs = pair
    image = photo(name)
    same_value(ours.detectMultiScale(image, *settings), theirs.detectMultiScale(image, *settings))
    same_value(ours.detectMultiScale2(image, *settings), theirs.detectMultiScale2(image, *settings))
    same_value(
        ours.detectMultiScale3(image, *settings, outputRejectLevels=True),
        theirs.detectMultiScale3(image, *settings, outputRejectLevels=True),
    )


@peer
def test_nothing_found_is_an_empty_tuple(pair):
    ours, theirs = pair
    blank = np.zeros((90, 80), np.uint8)
    same_value(ours.detectMultiScale(blank), theirs.detectMultiScale(blank))
    same_value(ours.detectMultiScale2(blank), theirs.detectMultiScale2(blank))
    same_value(
        ours.detectMultiScale3(blank, outputRejectLevels=True), theirs.detectMultiScale3(blank, outputRejectLevels=True)
    )


@peer
def test_properties_are_those_of_opencv(pair):
    ours, theirs = pair
    for name in ("empty", "getOriginalWindowSize", "getFeatureType", "isOldFormatCascade"):
        same_value(getattr(ours, name)(), getattr(theirs, name)())
    old = cv2.data.haarcascades + "haarcascade_license_plate_rus_16stages.xml"
    assert ours.load(old) and theirs.load(old)
    for name in ("empty", "getOriginalWindowSize", "getFeatureType", "isOldFormatCascade"):
        same_value(getattr(ours, name)(), getattr(theirs, name)())


@peer
def test_constants_and_argument_names_are_those_of_opencv():
    for name in ("DO_CANNY_PRUNING", "DO_ROUGH_SEARCH", "FIND_BIGGEST_OBJECT", "SCALE_IMAGE"):
        assert getattr(vj, f"CASCADE_{name}") == getattr(cv2, f"CASCADE_{name}")
    for name in ("detectMultiScale", "detectMultiScale2", "detectMultiScale3"):
        signature = getattr(cv2.CascadeClassifier, name).__doc__.split("->")[0]
        theirs = signature[signature.index("(") + 1 : signature.rindex(")")].replace("[", "").replace("]", "")
        ours = [p for p in inspect.signature(getattr(vj.CascadeClassifier, name)).parameters if p != "self"]
        assert ours == [word.strip() for word in theirs.split(",")]


@peer
@pytest.mark.parametrize("threshold", [0, 1, 2, 3])
def test_group_rectangles_is_opencvs(threshold):
    rng = np.random.default_rng(threshold)
    for n in (0, 1, 30):
        centres = rng.integers(0, 60, (n, 1)) // 20 * 20
        boxes = np.hstack([centres + rng.integers(0, 4, (n, 2)), 20 + rng.integers(0, 4, (n, 2))]).astype(np.int32)
        same_value(
            vj.groupRectangles(boxes.tolist(), threshold, 0.2), cv2.groupRectangles(boxes.tolist(), threshold, 0.2)
        )


@peer
def test_reject_levels_may_be_left_out():
    """OpenCV's default fails here with an assertion as soon as something is found."""
    image = photo("astronaut")
    ours = vj.CascadeClassifier(FACE)
    boxes, levels, weights = ours.detectMultiScale3(image)
    same_value(boxes, ours.detectMultiScale(image))
    assert (levels, weights) == ((), ())
    with pytest.raises(cv2.error, match="Assertion"):
        cv2.CascadeClassifier(cv2.data.haarcascades + FACE).detectMultiScale3(image)


@peer
def test_one_stage_cascades_do_not_report_flat_windows(tmp_path):
    """OpenCV's code for a flat window is its code for a window that passed a single stage."""
    path = str(tmp_path / "one.xml")
    vj.save(vj.load("frontalface_alt2").truncated(1), path)
    flat = np.full((60, 60), 99, np.uint8)
    assert len(cv2.CascadeClassifier(path).detectMultiScale3(flat, 1.1, 0, outputRejectLevels=True)[0]) > 0
    assert vj.CascadeClassifier(path).detectMultiScale3(flat, 1.1, 0, outputRejectLevels=True) == ((), (), ())
    assert vj.CascadeClassifier(path).detectMultiScale(flat, 1.1, 0) == ()


def test_what_cannot_be_loaded_leaves_it_empty(tmp_path):
    other = tmp_path / "other.xml"
    other.write_text("<opencv_storage><cascade></cascade></opencv_storage>")
    for path in (tmp_path / "none.xml", other):
        with pytest.warns(UserWarning, match=path.name):
            classifier = vj.CascadeClassifier(str(path))
        assert classifier.empty()
        # Programs that do not look at what `load` returns fail here, and learn why.
        with pytest.raises(InputError, match=f"loaded cascade.*{path.name}"):
            classifier.detectMultiScale(np.zeros((30, 30), np.uint8))
        with pytest.raises(InputError, match="loaded cascade"):
            classifier.getOriginalWindowSize()


def test_a_file_of_ours_is_loaded(tmp_path):
    path = tmp_path / "random.xml"
    vj.save(random_cascade(0), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier = vj.CascadeClassifier(path)
    assert classifier.getOriginalWindowSize() == (8, 9)
    assert len(classifier.detectMultiScale(photo("coins")[:60, :60], minNeighbors=0)) > 0


def test_what_is_no_rectangle_or_size_or_image_is_refused():
    with pytest.raises(InputError, match="rows of x, y, width, height"):
        vj.groupRectangles([(1, 2, 3)], 1)
    with pytest.raises(InputError, match="rectangles of integers, got float64"):
        vj.groupRectangles([(1.5, 2, 3, 4)] * 2, 1)
    classifier = vj.CascadeClassifier(LBP_FILE)
    for size in (30, (30,), (30, 30, 30)):
        with pytest.raises(InputError, match=r"\(width, height\), got"):
            classifier.detectMultiScale(photo("coins"), minSize=size)


def test_a_file_that_is_no_storage_is_an_error_and_leaves_it_empty(tmp_path):
    (tmp_path / "bad.xml").write_text("<opencv_storage><cascade>")
    classifier = vj.CascadeClassifier(LBP_FILE)
    with pytest.raises(cv2.error, match=r"bad.xml: expected an OpenCV cascade"):
        classifier.load(tmp_path / "bad.xml")
    assert classifier.empty()


NAMES = [
    "CascadeClassifier",
    "CascadeClassifier_convert",
    "groupRectangles",
    "CASCADE_DO_CANNY_PRUNING",
    "CASCADE_SCALE_IMAGE",
    "CASCADE_FIND_BIGGEST_OBJECT",
    "CASCADE_DO_ROUGH_SEARCH",
]


@pytest.fixture
def as_opencv_5(monkeypatch, tmp_path):
    """A cv2 that lacks the names, whose data folder is empty; what `install` leaves behind is undone."""
    for name in NAMES:
        monkeypatch.delattr(cv2, name, raising=False)
    if hasattr(cv2, "data"):
        monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path / "none") + "/")
    yield
    cv2_compat.uninstall()


def test_install_adds_what_is_missing_and_uninstall_takes_it_away(as_opencv_5, tmp_path, monkeypatch):
    monkeypatch.setenv("VJ_CASCADES", str(tmp_path))
    vj.save(random_cascade(0), tmp_path / "haarcascade_frontalface_default.xml")
    done = cv2_compat.install()
    assert done[:7] == NAMES
    # What a package does that imports cv2 itself.
    text = "import cv2; c = cv2.CascadeClassifier(cv2.data.haarcascades + 'haarcascade_frontalface_default.xml')"
    space = {}
    if hasattr(cv2, "data"):
        assert done[7:] == ["data.haarcascades"]
        exec(text, space)
        assert isinstance(space["c"], vj.CascadeClassifier)
        assert space["c"].getOriginalWindowSize() == (8, 9)
    assert cv2.groupRectangles is vj.groupRectangles
    assert cv2_compat.install() == []
    assert cv2_compat.uninstall() == done
    assert not any(hasattr(cv2, name) for name in NAMES)
    assert cv2_compat.uninstall() == []


@peer
def test_install_leaves_opencvs_own_alone_unless_forced():
    before = {name: getattr(cv2, name) for name in NAMES}
    try:
        assert cv2_compat.install() == []
        # The constants are equal, and equal small integers are one object: nothing to replace.
        assert cv2_compat.install(force=True) == NAMES[:3]
        assert cv2.CascadeClassifier is vj.CascadeClassifier
        assert cv2_compat.install(force=True) == []
    finally:
        cv2_compat.uninstall()
    assert {name: getattr(cv2, name) for name in NAMES} == before
