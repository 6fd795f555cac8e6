"""What a detector returns: objects as columns of boxes, scores and counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from vj import _notebook
from vj._types import Boxes, Floats
from vj.errors import InputError

RECORD = np.dtype(
    [
        ("x", np.int32),
        ("y", np.int32),
        ("width", np.int32),
        ("height", np.int32),
        ("score", np.float64),
        ("neighbors", np.int32),
        ("probability", np.float64),
        ("source", np.int32),
    ]
)
"""One detection in the array that `Detections.to_array` returns."""


class Detection(NamedTuple):
    """One object: an entry of `Detections`.

    Parameters
    ----------
    box : (int, int, int, int)
        x, y, width, height in pixels of the image.
    score : float
    neighbors : int
        Hits that were merged into the box.
    probability : float or None
        That the box is an object; see `Detections`.
    source : int or None
        Which of several cascades found it; see `Detections`.
    """

    box: tuple[int, int, int, int]
    score: float
    neighbors: int
    probability: float | None = None
    source: int | None = None


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one image.

    Has a length, and yields a `Detection` for each object. An integer as index returns a `Detection`; a slice, an array
    of integers or a mask of booleans returns the `Detections` selected, so that ``found[found.scores > 2]`` keeps the
    best and ``found[np.argsort(-found.scores)]`` sorts.

    Parameters
    ----------
    boxes : ndarray of int32, shape (n, 4)
        x, y, width, height in pixels of the image.
    scores : ndarray of float64, shape (n,)
        See `Detector`.
    neighbors : ndarray of int32, shape (n,)
        Hits that were merged into each box.
    probabilities : ndarray of float64, shape (n,), or None
        That each box is an object, by the cascade's calibration; None if it has none.
    sources : ndarray of int32, shape (n,), or None
        Which of a detector's cascades found each box, counted from 0; None if it has only one.

    Raises
    ------
    InputError
        If the shapes do not agree, a box or a count is not of whole numbers, or a value is out of range.
    """

    boxes: Boxes
    scores: Floats
    neighbors: npt.NDArray[np.int32]
    probabilities: Floats | None = None
    sources: npt.NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        n = np.shape(self.boxes)[0] if np.ndim(self.boxes) else 0
        for name, dtype, tail in (("boxes", np.int32, (4,)), ("scores", np.float64, ()), ("neighbors", np.int32, ())):
            object.__setattr__(self, name, _column(name, getattr(self, name), dtype, (n, *tail)))
        if n and self.boxes[:, 2:].min() < 0:
            raise InputError(f"expected boxes as x, y, width, height, got {self.boxes[_first_negative(self.boxes)]}")
        if n and self.neighbors.min() < 0:
            raise InputError(f"expected neighbors of 0 or more, got {self.neighbors.min()}")
        # The maximum is nan if any score is.
        if n and math.isnan(self.scores.max()):
            raise InputError("expected scores that are numbers, got nan")
        if self.probabilities is not None:
            p = _column("probabilities", self.probabilities, np.float64, (n,))
            if n and not (p.min() >= 0 and p.max() <= 1):
                raise InputError(f"expected probabilities from 0 to 1, got {p[~((p >= 0) & (p <= 1))][0]}")
            object.__setattr__(self, "probabilities", p)
        if self.sources is not None:
            sources = _column("sources", self.sources, np.int32, (n,))
            if (sources < 0).any():
                raise InputError(f"expected sources of 0 or more, got {sources.min()}")
            object.__setattr__(self, "sources", sources)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detection]:
        return (self[k] for k in range(len(self)))

    def at_least(self, probability: float) -> Detections:
        """Return the detections whose probability is at least this.

        Raises
        ------
        InputError
            If there are no probabilities.
        """
        if self.probabilities is None:
            raise InputError("expected detections with probabilities, got a cascade without calibration")
        return self[self.probabilities >= probability]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a dict for each detection, of plain values that JSON takes.

        Returns
        -------
        list of dict
            Keys are ``box`` (a list of x, y, width, height), ``score`` and ``neighbors``; also ``probability`` and
            ``source`` where the detections have them.
        """
        rows: list[dict[str, Any]] = []
        for one in self:
            row = {**one._asdict(), "box": list(one.box)}
            rows.append({name: value for name, value in row.items() if value is not None})
        return rows

    def to_array(self) -> npt.NDArray[np.void]:
        """Return a structured array, one record for each detection.

        Returns
        -------
        ndarray, shape (n,)
            Fields ``x``, ``y``, ``width``, ``height`` (int32), ``score`` (float64), ``neighbors`` (int32),
            ``probability`` (float64; nan without a calibration) and ``source`` (int32; -1 if there is one cascade).
        """
        array = np.zeros(len(self), dtype=RECORD)
        for k, name in enumerate(("x", "y", "width", "height")):
            array[name] = self.boxes[:, k]
        array["score"], array["neighbors"] = self.scores, self.neighbors
        array["probability"] = np.nan if self.probabilities is None else self.probabilities
        array["source"] = -1 if self.sources is None else self.sources
        return array

    def to_supervision(self) -> Any:
        """Return the detections as the package supervision has them.

        Returns
        -------
        supervision.Detections
            ``xyxy`` are corners in pixels. ``confidence`` is the probability; without a calibration it is
            ``1 / (1 + exp(-score))``, which keeps the order of the scores but is no probability. ``class_id`` is the
            number of the cascade, 0 if there is only one. ``data`` holds ``score`` and ``neighbors``.

        Raises
        ------
        InputError
            If supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise InputError(f"expected the package supervision, got {error}: pip install supervision") from None
        from scipy.special import expit

        confidence = expit(self.scores) if self.probabilities is None else self.probabilities
        boxes = self.boxes.astype(np.float32)
        return supervision.Detections(
            xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            confidence=confidence.astype(np.float32),
            class_id=np.zeros(len(self), dtype=np.int64) if self.sources is None else self.sources.astype(np.int64),
            data={"score": self.scores.copy(), "neighbors": self.neighbors.copy()},
        )

    def _repr_html_(self) -> str:
        shown = self[: _notebook.MAX_ROWS].to_dicts()
        boxes = [one.pop("box") for one in shown]
        rows = [
            [*box, *(f"{value:.4g}" if isinstance(value, float) else value for value in one.values())]
            for box, one in zip(boxes, shown, strict=True)
        ]
        head = ["x", "y", "width", "height", *(shown[0] if shown else ())]
        return _notebook.card(_notebook.count(len(self), "detection"), head, rows, more=len(self) - len(rows))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | npt.ArrayLike) -> Detections: ...
    def __getitem__(self, index: Any) -> Detection | Detections:
        single = isinstance(index, (int, np.integer)) and not isinstance(index, bool)
        selected = index if single or isinstance(index, slice) else _selection(index, len(self))
        columns: tuple[Any, ...] = (self.boxes, self.scores, self.neighbors, self.probabilities, self.sources)
        parts: list[Any] = [None if column is None else column[selected] for column in columns]
        if single:
            return Detection(*map(_plain, parts))
        parts = [None if part is None else np.ascontiguousarray(part) for part in parts]
        return unchecked(*parts)


def unchecked(
    boxes: Boxes,
    scores: Floats,
    neighbors: npt.NDArray[np.int32],
    probabilities: Floats | None = None,
    sources: npt.NDArray[np.int32] | None = None,
) -> Detections:
    """Return detections of columns made from checked ones: 1 us, where checking them again takes 11.

    Parameters as for `Detections`: C-contiguous, with its dtypes. They are not copied, and become read-only.
    """
    for column in (boxes, scores, neighbors, probabilities, sources):
        if column is not None:
            column.setflags(write=False)
    made = object.__new__(Detections)
    made.__dict__.update(boxes=boxes, scores=scores, neighbors=neighbors, probabilities=probabilities, sources=sources)
    return made


def _column(name: str, given: Any, dtype: type, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a read-only copy of one column of `Detections`, checked."""
    if isinstance(given, np.ndarray) and given.dtype == dtype and given.shape == shape:
        # The usual case: without the checks of a conversion it takes a fifth of the time.
        same: npt.NDArray[Any] = given.copy()
        same.setflags(write=False)
        return same
    values = np.asarray(given)
    if values.size == 0 and shape[0] == 0:
        values = np.zeros(shape, dtype=dtype)
    if values.shape != shape:
        raise InputError(f"expected {name} of shape {shape}, got {values.shape}")
    with np.errstate(invalid="ignore"):
        column: npt.NDArray[Any] = np.array(values, dtype=dtype, order="C")
    if dtype is np.int32 and not np.array_equal(column, values):
        wrong = values[column != values].flat[0]
        raise InputError(f"expected {name} as whole numbers of 32 bits, got {wrong}")
    column.setflags(write=False)
    return column


def _first_negative(boxes: Boxes) -> int:
    return int(np.flatnonzero((boxes[:, 2:] < 0).any(axis=1))[0])


def _plain(value: Any) -> Any:
    """Return an entry of a column as a float, an int or a tuple of ints."""
    return tuple(value.tolist()) if np.ndim(value) else value if value is None else value.item()


def _selection(index: Any, n: int) -> npt.NDArray[Any]:
    """Return an index as positions or a mask that select among n detections."""
    selected = np.asarray(index)
    if selected.shape == (0,) and selected.dtype.kind == "f":
        # What numpy makes of an empty list.
        return np.zeros(0, dtype=np.intp)
    if selected.ndim != 1 or selected.dtype.kind not in "biu" or (selected.dtype.kind == "b" and len(selected) != n):
        raise InputError(
            f"expected an integer, a slice, an array of integers or a mask of {n} booleans as index, "
            f"got {selected.dtype} of shape {selected.shape}"
        )
    return selected
