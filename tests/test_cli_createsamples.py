"""``vj-createsamples``: what it draws, and the files it leaves."""

import struct

import cv2
import numpy as np
import pytest
from skimage import data

from vj.cli.createsamples import OPTIONS, main
from vj.datasets.distortion import Cutout, Distortion, Scenery, _turned
from vj.datasets.opencv_samples import read_info, read_vec

STILL = "-maxxangle 0 -maxyangle 0 -maxzangle 0 -maxidev 0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An object of 80x40 on black, and backgrounds of which one cannot be read."""
    folder = tmp_path_factory.mktemp("samples")
    shape = np.zeros((40, 80), dtype=np.uint8)
    shape[4:36, 4:76] = cv2.resize(data.camera(), (72, 32), interpolation=cv2.INTER_AREA) // 2 + 120
    cv2.imwrite(str(folder / "object.png"), shape)
    (folder / "neg").mkdir()
    for name in ("gravel", "coffee", "grass"):
        cv2.imwrite(str(folder / f"neg/{name}.png"), getattr(data, name)()[:300, :260])
    (folder / "neg/broken.png").write_bytes(b"none")
    (folder / "bg.txt").write_text("neg/gravel.png\nneg/coffee.png\nneg/grass.png\n")
    (folder / "bg-broken.txt").write_text("neg/gravel.png\nneg/broken.png\n")
    return folder


def created(folder, monkeypatch, line):
    monkeypatch.chdir(folder)
    return main(line.split())


def test_undistorted_samples_are_the_object_shrunk(folder, tmp_path, monkeypatch):
    vec = tmp_path / "deep/er/a.vec"
    line = f"-img object.png -vec {vec} -num 3 -w 20 -h 10 -bgcolor 0 -bgthresh 0 {STILL}"
    assert created(folder, monkeypatch, line) == 0
    shape = cv2.imread(str(folder / "object.png"), cv2.IMREAD_GRAYSCALE)
    expected = cv2.resize(shape, (20, 10), interpolation=cv2.INTER_AREA)
    for sample in read_vec(vec, (20, 10)):
        # Edge pixels mix the object's spread colour with the plain background, as far as they are covered.
        assert np.abs(sample.astype(int) - expected).max() <= 2
    assert struct.unpack_from("<iihh", vec.read_bytes()) == (3, 200, 0, 0)


def test_the_background_shows_through_and_only_there(folder):
    shape = cv2.imread(str(folder / "object.png"), cv2.IMREAD_GRAYSCALE)
    cutout = Cutout.from_color(shape, 0, 80)
    background = np.random.default_rng(0).integers(0, 256, shape.shape, dtype=np.uint8)
    placed = cutout.placed(background, Distortion((0, 0, 0), 0), np.random.default_rng(1), whole=False)
    np.testing.assert_array_equal(placed[shape == 0], background[shape == 0])
    np.testing.assert_array_equal(placed[shape > 80], shape[shape > 80])
    negative = cutout.placed(background, Distortion((0, 0, 0), 0, "always"), np.random.default_rng(1), whole=False)
    np.testing.assert_array_equal(negative[shape > 80], 255 - shape[shape > 80])


def test_intensity_moves_all_pixels_alike_and_within_its_bound(folder):
    cutout = Cutout.from_color(np.full((20, 20), 128, dtype=np.uint8), 0, 10)
    rng, levels = np.random.default_rng(0), []
    for _ in range(300):
        placed = cutout.placed(np.zeros((10, 10), dtype=np.uint8), Distortion((0, 0, 0), 40), rng, whole=False)
        assert np.ptp(placed) == 0
        levels.append(int(placed[0, 0]) - 128)
    assert min(levels) in range(-40, -35) and max(levels) in range(36, 41)
    inverted = [
        cutout.placed(np.zeros((10, 10), dtype=np.uint8), Distortion((0, 0, 0), 0, "random"), rng, whole=False)[0, 0]
        for _ in range(200)
    ]
    assert set(inverted) == {127, 128}
    assert 60 < inverted.count(127) < 140


def rotation(x, y, z):
    """The rotation about a vector, by its series: the independent twin of Rodrigues' formula."""
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    total, term = np.eye(3), np.eye(3)
    for k in range(1, 30):
        term = term @ cross / k
        total += term
    return total


def test_corners_are_those_of_a_turned_card_seen_from_near():
    corners = np.array([[0, 0], [80, 0], [80, 40], [0, 40]], dtype=np.float64)
    for seed in range(20):
        quad = _turned(corners, (0.9, 1.1, 0.5), np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        x = rng.uniform(-0.9, 0.9)
        y = (1.1 - abs(x)) * rng.uniform(-1, 1)
        z = rng.uniform(-0.5, 0.5)
        distance = (3 + rng.uniform(-1, 1)) * 80
        for corner, got in zip(corners, quad, strict=True):
            point = rotation(x, y, z) @ np.append(corner - [40, 20], 0.0)
            # The ray from a viewer in front of the card's centre through the point, cut with the image plane.
            viewer = np.array([0, 0, -distance])
            t = distance / (point[2] + distance)
            np.testing.assert_allclose(got, (viewer + t * (point - viewer))[:2] + np.array([40, 20]), rtol=1e-9)


def test_pixels_are_those_of_the_turned_card():
    """Four spots near the corners of a card must be found where the projection says, in a whole scene."""
    card = np.full((60, 60), 200, dtype=np.uint8)
    spots = [(10, 10), (50, 10), (50, 50), (10, 50)]
    corners = np.array([[0, 0], [60, 0], [60, 60], [0, 60]], dtype=np.float64)
    for k, (x, y) in enumerate(spots):
        card[:] = 200
        card[y - 4 : y + 4, x - 4 : x + 4] = 90
        cutout = Cutout.from_color(card, 0, 20)
        for seed in range(10):
            scene = cutout.placed(np.full((90, 90), 250, np.uint8), Distortion((0.6, 0.6, 0.5), 0),
                                  np.random.default_rng(seed), whole=True)  # fmt: skip
            quad = _turned(corners, (0.6, 0.6, 0.5), np.random.default_rng(seed))
            low, high = quad.min(axis=0), quad.max(axis=0)
            scale = ((high - low) / 90).max()
            matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), quad.astype(np.float32))
            point = matrix @ [x, y, 1.0]
            expected = (point[:2] / point[2] - (low + high) / 2) / scale + 45
            ys, xs = np.nonzero(scene < 140)
            assert np.hypot(*(np.array([xs.mean() + 0.5, ys.mean() + 0.5]) - expected)) < 1.0, k


def test_scenes_hold_the_object_where_the_list_says(folder, tmp_path, monkeypatch, capsys):
    info = tmp_path / "info/info.lst"
    line = f"-img object.png -bg bg.txt -info {info} -pngoutput info -num 50 -w 40 -h 20 -bgthresh 0 {STILL}"
    assert created(folder, monkeypatch, line) == 0
    assert "3 made: one for each background" in capsys.readouterr().err
    shape = cv2.imread(str(folder / "object.png"), cv2.IMREAD_GRAYSCALE)
    images = read_info(info)
    assert len(images) == 3
    for image in images:
        (x, y, w, h), scene = image.boxes[0].astype(int), cv2.imread(str(image.path), cv2.IMREAD_GRAYSCALE)
        inner = scene[y : y + h, x : x + w][h // 8 : -(h // 8), w // 8 : -(w // 8)]
        wanted = cv2.resize(shape, (w, h), interpolation=cv2.INTER_AREA)[h // 8 : -(h // 8), w // 8 : -(w // 8)]
        assert np.corrcoef(inner.ravel(), wanted.ravel())[0, 1] > 0.95
    # The next command of the tutorial.
    assert created(folder, monkeypatch, f"-info {info} -num 3 -w 20 -h 10 -vec {tmp_path}/a.vec -show") == 0
    assert len(read_vec(tmp_path / "a.vec", (20, 10))) == 3
    assert cv2.imread(str(tmp_path / "a.vec.png")).shape[0] == 2 + 4 * 10 + 2


def test_a_collection_is_cut_as_opencv_cuts_it(folder, tmp_path, monkeypatch, capsys):
    gray = data.camera()
    cv2.imwrite(str(tmp_path / "a b.png"), gray)
    cv2.imwrite(str(tmp_path / "broken.png"), gray)
    (tmp_path / "broken.png").write_bytes(b"none")
    (tmp_path / "info.dat").write_text(
        "a b.png 4 10 20 100 60 30 40 12 9 500 500 40 40 600 10 5 5\nbroken.png 1 1 1 9 9\n"
    )
    assert created(folder, monkeypatch, f"-info {tmp_path}/info.dat -vec {tmp_path}/a.vec -w 20 -h 10") == 1
    told = capsys.readouterr()
    assert "2 images or objects could not be used" in told.err
    assert "3 samples of 20x10" in told.out
    found = read_vec(tmp_path / "a.vec", (20, 10))
    np.testing.assert_array_equal(found[0], cv2.resize(gray[20:80, 10:110], (20, 10), interpolation=cv2.INTER_AREA))
    np.testing.assert_array_equal(
        found[1], cv2.resize(gray[40:49, 30:42], (20, 10), interpolation=cv2.INTER_LINEAR_EXACT)
    )
    assert created(folder, monkeypatch, f"-info {tmp_path}/info.dat -vec {tmp_path}/a.vec -w 20 -h 10 -num 1") == 0
    assert "-num 5 takes all" in capsys.readouterr().err


def test_the_seed_decides(folder, tmp_path, monkeypatch):
    line = f"-img object.png -bg bg.txt -num 20 -w 20 -h 10 -randinv -vec {tmp_path}"
    for name, more in (("a", ""), ("b", ""), ("c", " -rngseed 5")):
        assert created(folder, monkeypatch, f"{line}/{name}.vec{more}") == 0
    a, b, c = ((tmp_path / f"{name}.vec").read_bytes() for name in "abc")
    assert a == b != c


def test_bad_backgrounds_are_counted_and_not_fatal(folder, tmp_path, monkeypatch, capsys):
    line = f"-img object.png -bg bg-broken.txt -num 30 -w 20 -h 10 -vec {tmp_path}/a.vec"
    assert created(folder, monkeypatch, line) == 1
    assert "1 backgrounds could not be used, the first: " in capsys.readouterr().err
    assert len(read_vec(tmp_path / "a.vec", (20, 10))) == 30


def test_parts_of_backgrounds_cover_scales():
    image = np.tile(np.arange(0, 256, dtype=np.uint8), (128, 1))
    parts = Scenery([image], np.random.default_rng(0)).parts((16, 16))
    spans = [int(np.ptp(next(parts))) for _ in range(200)]
    assert min(spans) < 20 and max(spans) > 100


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-vec a.vec -bg bg.txt", "a.vec"),
        ("-img object.png", "-img and -vec"),
        ("-img object.png -vec a.vec -bgthresh 255", "another colour than 0 +- 255"),
        ("-img none.png -vec a.vec", "none.png"),
        ("-img object.png -vec a.vec -num 0", "-num between 1 and"),
        ("-img object.png -vec a.vec -maxxangle nan", "-maxxangle between"),
        ("-img object.png -vec a.vec -numb 5", "did you mean -num?"),
        ("-img object.png -vec a.vec -bg neg/broken.png", "cannot decode"),
        ("-img object.png -vec a.vec -bg bg.txt -w 1000 -h 1000", "at least 1000x1000"),
        ("-info none.dat -vec a.vec", "none.dat"),
        ("-info bg.txt -vec a.vec", "'file n x y w h ...' in line 1"),
    ],
)
def test_bad_lines_are_refused_and_leave_nothing(line, message, folder, monkeypatch, capsys):
    assert created(folder, monkeypatch, line) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "a.vec").exists()


def test_usage_lists_every_option_and_a_forgotten_dash_is_forgiven(folder, tmp_path, monkeypatch, capsys):
    assert main([]) == 0
    # From the usage text of OpenCV 3.4's program, and -pngoutput of 2.4's.
    theirs = (
        "-info -img -vec -bg -num -bgcolor -inv -randinv -bgthresh -maxidev -maxxangle -maxyangle -maxzangle -show "
        "-w -h -maxscale -rngseed -pngoutput"
    )
    assert set(OPTIONS) == set(theirs.split())
    line = "-bgcolor 0 -bgthresh 0 -maxxangle 1.1 -maxyangle 1.1 maxzangle 0.5 -maxidev 40 -w 80 -h 40 -num 2"
    assert created(folder, monkeypatch, f"{line} -img object.png -bg bg.txt -vec {tmp_path}/a.vec") == 0
    assert "maxzangle: taken as -maxzangle" in capsys.readouterr().err
