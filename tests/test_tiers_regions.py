"""Detectors as tiers: adapters, regions of a cheap one for a heavy one, and escalation from image to image."""

import warnings

import cv2
import numpy as np
import pytest
from photos import photo

import vj
from vj.errors import InputError
from vj.evaluation.matching import Truth, overlaps
from vj.evaluation.measure import cascade_detector
from vj.tiers import Dlib, Escalating, FallbackWarning, Framing, Fusion, Regions, Tier, YuNet, fit_fusion
from vj.tiers.chips import MERGED_SIZES, SAME_OBJECT, Placed, chips, joined, overlap, scores_of
from vj.tiers.detectors import as_detections, confidence, uncertainty


def found(boxes, scores=None, p=None):
    boxes = np.array(boxes, np.int32).reshape(-1, 4)
    return vj.Detections(boxes, np.ones(len(boxes)) if scores is None else scores, np.ones(len(boxes)), p)


class Fixed:
    """A detector that always says the same, or raises it."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def detect(self, image):
        self.asked.append(image)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Bright:
    """A detector of white boxes on black, exact to the pixel; the score is the side in the image it is given."""

    def __init__(self, probability=None):
        self.probability, self.shapes = probability, []

    def detect(self, image):
        self.shapes.append(image.shape[:2])
        gray = image if image.ndim == 2 else image[..., 0]
        stats = cv2.connectedComponentsWithStats((gray > 127).astype(np.uint8))[2][1:]
        p = None if self.probability is None else [self.probability] * len(stats)
        return found(stats[:, :4], stats[:, 2].astype(float), p)


def scene(*boxes, shape=(300, 400)):
    image = np.zeros((*shape, 3), np.uint8)
    for x, y, w, h in boxes:
        image[y : y + h, x : x + w] = 255
    return image


BOXES = [(20, 30, 40, 40), (200, 100, 20, 20), (330, 220, 60, 60)]


@pytest.mark.parametrize("side", [None, 30, 80])
@pytest.mark.parametrize("colour", [True, False])
def test_regions_bring_boxes_back_to_the_image(side, colour):
    image = scene(*BOXES) if colour else scene(*BOXES)[..., 0].copy()
    verify = Bright()
    result = Regions(Bright(), verify, framing=Framing(1.5, side)).examine(image)
    order = np.argsort(result.detections.boxes[:, 0])
    # Rescaling moves an edge by up to a pixel of the smaller image.
    assert np.abs(result.detections.boxes[order] - np.array(BOXES)).max() <= (0 if side is None else 3)
    assert result.chips == 3 and result.asked.all() and not result.failures
    if side is not None:
        # The last one is cut at the image's edge.
        assert verify.shapes[1:] == [(round(side * 1.5),) * 2] * 2
        np.testing.assert_allclose(result.detections.scores, side, atol=2)
    assert result.pixels == pytest.approx(sum(h * w for h, w in verify.shapes), rel=0.05)


def test_neighbouring_proposals_share_a_region_when_that_is_cheaper():
    near = np.array([(100, 100, 40, 40), (110, 104, 36, 36), (300, 100, 40, 40)], np.int32)
    (a, b) = chips(near, range(3), (300, 400), Framing(1.5, 80))
    assert sorted([a.proposals, b.proposals]) == [(0, 1), (2,)]
    alone = sum(c.pixels for k in range(3) for c in chips(near, [k], (300, 400), Framing(1.5, 80)))
    assert a.pixels + b.pixels < alone
    # A face in the middle of a much larger one wants another zoom.
    nested = np.array([(100, 100, 100, 100), (130, 130, 30, 30)], np.int32)
    assert len(chips(nested, range(2), (300, 400), Framing(1.5, 80))) == 2
    rng = np.random.default_rng(0)
    many = np.column_stack([rng.integers(-10, 390, (60, 2)), *[rng.integers(10, 90, 60)] * 2]).astype(np.int32)
    for framing in (Framing(1.2, 80), Framing(2.0)):
        cut = chips(many, range(60), (300, 400), framing)
        members = sorted(k for c in cut for k in c.proposals)
        assert len(members) == len(set(members))
        for c in cut:
            assert min(c.x, c.y) >= 0 and c.x + c.width <= 400 and c.y + c.height <= 300
            sides = many[list(c.proposals), 2]
            assert framing.object_side is None or sides.max() <= MERGED_SIZES * sides.min()
            centres = many[list(c.proposals), :2] + many[list(c.proposals), 2:] / 2
            inside = (centres >= [c.x - 1, c.y - 1]) & (centres <= [c.x + c.width + 1, c.y + c.height + 1])
            assert (inside | (centres < 0) | (centres > [400, 300])).all()


def _random_boxes(rng, n):
    return np.column_stack([rng.integers(-20, 120, (n, 2)), rng.integers(1, 90, (n, 2))])


def _naive_scores(boxes, placed):
    """The largest overlap of the whole table, again and again."""
    out = np.full(len(boxes), np.nan)
    shares = overlaps(boxes.astype(float), np.array([one.box for one in placed], float))
    while shares.size and shares.max() >= SAME_OBJECT:
        i, j = np.unravel_index(int(shares.argmax()), shares.shape)
        out[i] = placed[j].score
        shares[i], shares[:, j] = 0, 0
    return out


def test_overlaps_on_plain_numbers_are_those_of_the_evaluation():
    rng = np.random.default_rng(0)
    for n in (0, 1, 3, 30):
        a, b = _random_boxes(rng, 20), _random_boxes(rng, n)
        expected = overlaps(a.astype(float), b.astype(float))
        plain = np.array([[overlap(x, y) for y in b.tolist()] for x in a.tolist()])
        np.testing.assert_array_equal(plain, expected.reshape(plain.shape))
        placed = [Placed(tuple(box), float(k), 1, None) for k, box in enumerate(b.tolist())]
        np.testing.assert_array_equal(scores_of(a.tolist(), placed), _naive_scores(a, placed))


class Drawn:
    """A detector that finds something else each time."""

    def __init__(self, rng):
        self.rng, self.answers = rng, []

    def detect(self, image):
        boxes = _random_boxes(self.rng, self.rng.integers(4))
        self.answers.append(found(boxes, self.rng.random(len(boxes)), self.rng.random(len(boxes))))
        return self.answers[-1]


@pytest.mark.parametrize("side", [None, 30])
def test_regions_answer_as_the_whole_table_of_overlaps_does(side):
    """Also where one proposal meets one detection, and where nothing is rescaled, which take short cuts."""
    rng = np.random.default_rng(2)
    image, framing = np.zeros((150, 160), np.uint8), Framing(1.3, side)
    for n in [1, 2, 5] * 40:
        proposals, heavy = found(_random_boxes(rng, n), rng.random(n), rng.random(n)), Drawn(rng)
        result = Regions(Fixed(proposals), heavy, framing=framing).examine(image)
        cut = chips(proposals.boxes, range(n), image.shape, framing)
        answers, reached, everything = np.full(n, np.nan), np.zeros(n, bool), []
        for chip, answer in zip(cut, heavy.answers, strict=True):
            ends = np.column_stack([answer.boxes[:, :2], answer.boxes[:, :2] + answer.boxes[:, 2:]])
            ends = np.rint(ends / chip.zoom + [chip.x, chip.y] * 2).astype(int)
            inside = (ends[:, 2:] > np.maximum(ends[:, :2], 0)).all(axis=1) & (ends[:, :2] < [160, 150]).all(axis=1)
            rows = zip(ends[inside].tolist(), answer.scores[inside], answer.probabilities[inside], strict=True)
            placed = [Placed((x, y, right - x, bottom - y), s, 1, p) for (x, y, right, bottom), s, p in rows]
            members = list(chip.proposals)
            answers[members], reached[members] = _naive_scores(proposals.boxes[members], placed), True
            everything += placed
        np.testing.assert_array_equal(result.answers, answers)
        np.testing.assert_array_equal(result.asked, reached)
        assert result.pixels == round(sum(chip.pixels for chip in cut))
        expected = joined(proposals, (~reached).tolist(), everything)
        # Made without the checks, which it passes.
        checked = vj.Detections(expected.boxes, expected.scores, expected.neighbors, expected.probabilities)
        for name in ("boxes", "scores", "neighbors", "probabilities"):
            column = getattr(result.detections, name)
            np.testing.assert_array_equal(column, getattr(checked, name))
            assert column.dtype == getattr(checked, name).dtype and not column.flags.writeable


def test_of_detections_that_overlap_the_best_confirmed_one_stays():
    rng = np.random.default_rng(1)
    for with_p in (True, False):
        boxes, others = _random_boxes(rng, 30), _random_boxes(rng, 30)
        p = rng.random((2, 30))
        scores = rng.normal(size=(2, 30))
        both = (scores[0], p[0])
        proposals = found(others, scores[1], p[1] if with_p else None)
        standing = rng.random(30) < 0.5
        placed = [Placed(tuple(b), s, 1, q if with_p else None) for b, s, q in zip(boxes.tolist(), *both, strict=True)]
        result = joined(proposals, standing.tolist(), placed)
        value = np.concatenate([p[0], p[1][standing]] if with_p else [scores[0], scores[1][standing]])
        every = np.concatenate([boxes, others[standing]])
        shares = overlaps(every.astype(float), every.astype(float))
        keep = []
        for k in np.lexsort((-value, np.arange(len(every)) >= 30)):
            if not keep or shares[k, keep].max() < SAME_OBJECT:
                keep.append(k)
        np.testing.assert_array_equal(result.boxes, every[keep])
        np.testing.assert_array_equal(result.scores, value[keep])
        assert (result.probabilities is not None) == with_p
    assert joined(proposals, [True] * 30, []) is proposals
    assert len(joined(proposals, [False] * 30, [])) == 0


def test_the_heavy_detector_decides_and_the_band_saves_asking():
    image = scene(*BOXES)
    false = (100, 200, 30, 30)
    proposals = found([*BOXES, false], p=[0.99, 0.5, 0.005, 0.4])
    assert len(Regions(Fixed(proposals), Bright(0.9)).detect(image)) == 3
    result = Regions(Fixed(proposals), Bright(0.9), band=(0.01, 0.95)).examine(image)
    assert result.chips == 2
    # Sure: unasked and kept. Doubtful: one confirmed, one not. Hopeless: dropped, although it was one.
    assert sorted(map(tuple, result.detections.boxes.tolist())) == sorted([BOXES[0], BOXES[1]])
    assert sorted(result.detections.probabilities) == [0.9, 0.99]
    np.testing.assert_array_equal(result.detections.scores, result.detections.probabilities)
    with pytest.raises(InputError, match="probabilities"):
        Regions(Fixed(found(BOXES, [5.0] * 3)), Bright(), band=(0.1, 0.9)).detect(image)


@pytest.mark.parametrize(
    "rubbish",
    [
        RuntimeError("out of memory\nsee log"),
        None,
        [(1, 2, 3, 4)],
        found([(0, 0, 9, 9)], [np.inf]),
        found([(0, 0, 0, 9)]),
        found([(2**31 - 1, 0, 9, 9)]),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_a_heavy_detector_that_fails_leaves_the_proposals_and_says_so(rubbish, fused):
    proposals = found(BOXES, [3.0, 2.0, 1.0], [0.9, 0.6, 0.3])
    fusion = Fusion(-3, 0.1, 4, 0, 5, 10) if fused else None
    regions = Regions(Fixed(proposals), Fixed(rubbish), fusion=fusion)
    with pytest.warns(FallbackWarning, match="3 of 3 regions got no answer"):
        result = regions.examine(scene(*BOXES))
    np.testing.assert_array_equal(result.detections.boxes, proposals.boxes)
    np.testing.assert_array_equal(result.detections.probabilities, proposals.probabilities)
    assert len(result.failures) == 3 and all(len(line.splitlines()) == 1 for line in result.failures)
    assert not result.asked.any()


def test_nothing_proposed_asks_nothing():
    heavy = Fixed(RuntimeError("must not be asked"))
    result = Regions(Fixed(found([])), heavy).examine(scene())
    assert len(result.detections) == 0 and result.chips == 0 and heavy.asked == []
    Regions(Fixed(found([(500, 500, 20, 20)])), heavy).detect(scene())
    assert heavy.asked == []


def test_regions_nest_and_are_measured_like_any_detector():
    image = photo("astronaut")
    cheap = vj.Detector(vj.load("frontalface").truncated(8), min_neighbors=0, suppression=0.3, threads=1)
    middle = vj.Detector(vj.load("frontalface"), min_neighbors=0, threads=1)
    nested = Regions(Regions(cheap, middle), middle)
    result = nested.detect(image)
    assert isinstance(result, vj.Detections) and len(result) >= 1
    best = result.boxes[result.scores.argmax()]
    whole = cascade_detector(vj.load("frontalface"), threads=1)(image)
    assert np.abs(best - whole.boxes[whole.scores.argmax()]).max() < 30


def test_fusion_learns_what_a_heavy_answer_is_worth():
    rng = np.random.default_rng(0)
    n = 4000
    true = rng.random(n) < 0.3
    scores = rng.normal(np.where(true, 4, 0), 2)
    answers = np.where(rng.random(n) < np.where(true, 0.95, 0.1), rng.normal(np.where(true, 1, 0), 0.3), np.nan)
    fusion = Fusion.fit(scores[::2], answers[::2], true[::2])
    p = fusion(scores[1::2], answers[1::2])
    y = true[1::2]
    brier = ((p - y) ** 2).mean()
    prior = np.where(np.isnan(answers[1::2]), 0.0, 1.0)
    assert brier < 0.6 * ((prior - y) ** 2).mean()
    for low, high in ((0, 0.2), (0.2, 0.8), (0.8, 1.01)):
        use = (p >= low) & (p < high)
        # 80 of 2,000 are in the middle: two standard deviations of their mean.
        assert abs(p[use].mean() - y[use].mean()) < 0.11
    with pytest.raises(InputError, match="true and false"):
        Fusion.fit([1.0, 2.0], [1.0, np.nan], [True, True])


def test_fusion_is_fitted_from_labelled_images():
    image, false = scene(*BOXES), (100, 200, 30, 30)
    proposals = found([*BOXES, false], [1.0, 2.0, 3.0, 4.0], [0.5] * 4)
    regions = Regions(Fixed(proposals), Bright())
    truth = Truth(np.array(BOXES, float), np.zeros(3, bool))
    fusion = fit_fusion([regions.examine(image)] * 5, [truth] * 5)
    assert fusion.rows == 20
    fused = Regions(Fixed(proposals), Bright(), fusion=fusion).detect(image)
    assert fused.probabilities[:3].min() > 0.7 > 0.3 > fused.probabilities[3]


def test_uncertainty_is_the_variance_of_the_number_of_objects():
    assert uncertainty(found([])) == 0.5
    assert uncertainty(found(BOXES, p=[1.0, 0.5, 0.9])) == pytest.approx(0.25 + 0.09)
    assert uncertainty(found(BOXES, [1.0, 0.5, 0.9])) == pytest.approx(0.34)
    assert confidence(found(BOXES, p=[1.0, 1.0, 1.0])) == 1.0
    with pytest.raises(InputError, match="vj-calibrate"):
        uncertainty(found(BOXES, [1.0, 0.5, 12.0]))


def test_escalation_asks_the_heavy_detector_only_when_in_doubt():
    sure, unsure = found(BOXES, p=[1.0, 0.99, 0.0]), found(BOXES, p=[1.0, 0.5, 0.0])
    heavy = Fixed(found(BOXES[:1], p=[1.0]))
    image = scene(*BOXES)
    assert not Escalating(Fixed(sure), heavy, 0.1).examine(image).asked_heavy and heavy.asked == []
    result = Escalating(Fixed(unsure), heavy, 0.1).examine(image)
    assert result.asked_heavy and result.detections is heavy.answer and result.uncertainty == 0.25
    with pytest.warns(FallbackWarning, match="ValueError: down"):
        result = Escalating(Fixed(unsure), Fixed(ValueError("down")), 0.1).examine(image)
    assert result.detections is unsure and result.failure == "ValueError: down"
    with pytest.warns(FallbackWarning):
        assert Escalating(Fixed(None), heavy, 0.1).detect(image) is heavy.answer
    with pytest.warns(FallbackWarning), pytest.raises(InputError, match="either detector"):
        Escalating(Fixed(None), Fixed(None), 0.1).detect(image)
    for bad in (-1, float("nan")):
        with pytest.raises(InputError, match="threshold of 0 or more"):
            Escalating(Fixed(sure), heavy, bad)


def test_a_detector_is_a_tier():
    tier = Tier.from_detector(vj.Detector(vj.load("frontalface"), threads=1), cost=2.0)
    reply = tier.ask(photo("astronaut"))
    assert tier.name == "frontalface" and reply.cost == 2.0
    assert isinstance(reply.answer.value, vj.Detections)
    assert reply.answer.confidence == confidence(reply.answer.value)
    assert reply.answer.label == str(int((reply.answer.value.probabilities > 0.5).sum()))
    again = Tier.from_detector(vj.load("frontalface")).ask(photo("astronaut")).answer
    assert (again.confidence, again.label) == (reply.answer.confidence, reply.answer.label)
    with pytest.raises(InputError, match="method detect"):
        Tier.from_detector(object())
    with pytest.raises(InputError, match="frontalface without one"):
        Tier.from_detector(vj.load("frontalface").truncated(3))


def test_what_is_not_ours_is_adapted_wherever_a_detector_is_expected():
    class FaceDetectorYN:
        def setInputSize(self, size):
            pass

        def detect(self, image):
            return 1, np.array([[10, 20, 30, 40, *[0] * 10, 0.8]], np.float32)

    class Hog:
        def run(self, image, upsample, threshold):
            return [Rectangle(1, 2, 30, 40)], [1.1], [0]

        def __call__(self, image, upsample):
            raise AssertionError

    Hog.__module__ = "_dlib_pybind11"
    image = photo("astronaut")
    reply = Tier.from_detector(FaceDetectorYN()).ask(image)
    assert (reply.answer.label, reply.answer.value.boxes.tolist()) == ("1", [[10, 20, 30, 40]])
    assert reply.answer.confidence == pytest.approx(1 / (1 + 0.8 * 0.2))
    # Scores of dlib exceed 1, which no confidence may.
    reply = Tier.from_detector(Hog()).ask(image)
    assert (reply.answer.confidence, reply.answer.label, reply.answer.value.scores.tolist()) == (1.0, "1", [1.1])
    both = Regions(FaceDetectorYN(), Hog())
    assert both.framing == Dlib.framing and isinstance(both.propose, YuNet)
    escalating = Escalating(FaceDetectorYN(), vj.load("frontalface"), 1.0)
    assert isinstance(escalating.light, YuNet) and isinstance(escalating.heavy, vj.Detector)


class Rectangle:
    def __init__(self, *box):
        self.box = box

    left, top = (lambda self: self.box[0]), (lambda self: self.box[1])
    width, height = (lambda self: self.box[2]), (lambda self: self.box[3])


def test_the_adapter_of_dlib_takes_its_three_kinds_of_answers():
    """Stand-ins with dlib's own interface; the real one is measured in benchmarks."""
    seen = []

    class Hog:
        def run(self, image, upsample, threshold):
            seen.append(image)
            return [Rectangle(1, 2, 30, 40)], [0.7], [0]

    def simple(image, upsample):
        return [Rectangle(1, 2, 30, 40)]

    class Answer:
        rect, confidence = Rectangle(1, 2, 30, 40), 1.1

    image = photo("astronaut")
    for model, score in ((Hog(), 0.7), (simple, 0.0), (lambda image, upsample: [Answer()], 1.1)):
        result = Dlib(model).detect(image)
        assert result.boxes.tolist() == [[1, 2, 30, 40]] and result.scores.tolist() == [score]
    np.testing.assert_array_equal(seen[0], image[..., ::-1])


def test_the_adapter_of_yunet_scales_there_and_back():
    class Model:
        def setInputSize(self, size):
            self.size = size

        def detect(self, image):
            assert image.shape[1::-1] == self.size
            row = np.zeros((1, 15), np.float32)
            row[0, :4], row[0, 14] = (10, 20, 30, 40), 0.8
            return 1, row if image.mean() > 0 else None

    image = np.full((200, 101, 3), 9, np.uint8)
    result = YuNet(Model(), scale=0.5).detect(image)
    np.testing.assert_allclose(result.boxes, [[20, 40, 61, 80]], atol=1)
    assert len(YuNet(Model()).detect(np.zeros((50, 50), np.uint8))) == 0
    # A size just above what the net pads to is brought down to it, and boxes still come back to their place.
    for shape, scale, size in (
        ((363, 450), 0.5, (224, 181)),
        ((300, 450), 0.25, (112, 75)),
        ((966, 500), 1 / 3, (166, 320)),
        ((40, 30), 0.5, (15, 20)),
        ((363, 450), 1, (450, 363)),
    ):
        model = Model()
        ((x, y, w, h),) = YuNet(model, scale=scale).detect(np.full((*shape, 3), 9, np.uint8)).boxes
        assert model.size == size
        across, down = shape[1] / size[0], shape[0] / size[1]
        np.testing.assert_allclose([x, y, w, h], [10 * across, 20 * down, 30 * across, 40 * down], atol=1)
    with pytest.raises(InputError, match="a YuNet model"):
        YuNet(__file__)
    with pytest.raises(InputError, match="a scale above 0"):
        YuNet(Model(), scale=2)


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [([[0, 0, np.nan, 5]], [1.0]), ([[0, 0, 5, 5]], [np.inf]), ([[0, 0, 5, 5]], []), ([[1e300] * 4], [1])],
)
def test_foreign_rubbish_is_refused(boxes, scores):
    with pytest.raises(InputError, match="finite"):
        as_detections(boxes, scores, None)


def test_no_warning_without_a_failure():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Regions(Bright(), Bright()).detect(scene(*BOXES))
