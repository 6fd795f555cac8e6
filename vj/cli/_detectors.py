"""Detectors as they are named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

MIRRORED = "mirrored:"
"""In front of a cascade: the cascade of the mirrored object."""

if TYPE_CHECKING:
    from vj.cascade.model import Cascade
    from vj.tiers.detectors import ImageDetector

NAMES = (
    "a cascade's file or name such as frontalface_alt2, yunet:MODEL.onnx, yunet@0.5:MODEL.onnx (at half size), "
    "dlib:MODEL.dat (yunet: and dlib: may be left out), or A+B: A proposes regions, and B, which looks at these alone, "
    "decides"
)

_MODELS = {".onnx": "yunet", ".dat": "dlib"}


class Named(NamedTuple):
    """A detector and what it is called; the cascade if it is nothing but one."""

    name: str
    detector: ImageDetector
    cascade: Cascade | None = None


def named_cascades(given: list[str] | None) -> list[Cascade]:
    """Return the cascades that ``--cascade`` names: files or names, `MIRRORED` in front; by default the packaged one.

    Raises
    ------
    InputError
        If one of them is no cascade, or has no mirror image.
    """
    from vj.cascade import stock
    from vj.cascade.opencv_xml import load

    found = []
    for text in given or [str(stock.find(stock.DEFAULT))]:
        cascade = load(text.removeprefix(MIRRORED))
        found.append(cascade.mirrored() if text.startswith(MIRRORED) else cascade)
    return found


def named_detector(text: str, settings: dict[str, Any]) -> Named:
    """Return the detector that a text names: see `NAMES`.

    Parameters
    ----------
    text : str
        ``A+B+C`` is ``A+B``, whose detections are the proposals for ``C``. A file with a plus in its name is a file.
    settings : dict
        For the cascades in it, as for `vj.Detector`; the smallest object is the cascade's window if `min_size` is None.

    Raises
    ------
    InputError
        If a part is no detector.
    """
    from vj.errors import InputError
    from vj.tiers.regions import Regions

    parts = [text] if Path(_file(text)).exists() else text.split("+")
    if not all(parts):
        raise InputError(f"expected detectors on both sides of each +, got {text!r}")
    first, *others = [_single(part, settings) for part in parts]
    for other in others:
        first = Named(f"{first.name} + {other.name}", Regions(first.detector, other.detector))
    return first


def _file(text: str) -> str:
    kind, _, path = text.partition(":")
    return path if kind == "dlib" or kind.split("@")[0] == "yunet" else text


def _single(text: str, settings: dict[str, Any]) -> Named:
    from vj.cascade.opencv_xml import load
    from vj.detector import Detector
    from vj.errors import InputError
    from vj.tiers.detectors import Dlib, YuNet

    kind, _, path = text.partition(":")
    if Path(text).suffix.lower() in _MODELS and not path:
        kind, path = _MODELS[Path(text).suffix.lower()], text
    if path and kind == "dlib":
        return Named("dlib", Dlib(path))
    if path and kind.split("@")[0] == "yunet":
        scale = kind.partition("@")[2]
        try:
            factor = float(scale) if "@" in kind else 1.0
        except ValueError:
            raise InputError(f"expected a scale such as yunet@0.5:{path}, got {text!r}") from None
        return Named(f"YuNet at {factor:g}" if factor != 1 else "YuNet", YuNet(path, scale=factor))
    cascade = load(text)
    own = settings | {"min_size": settings.get("min_size") or cascade.window}
    return Named(cascade.name.removeprefix("haarcascade_"), Detector(cascade, **own), cascade)
