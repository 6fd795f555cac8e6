"""Images in and out: the one place that opens them."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vj._files import read_bounded, write_bytes
from vj._types import Gray
from vj.errors import InputError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the files that a folder is searched for."""


MAX_BYTES = 1 << 30
"""Largest image file read."""

MAX_PIXELS = 200_000_000
"""Most pixels of an image that is decoded, by default; a file of 109 KB can hold 900 million, 5.4 GB once decoded."""

_MAX_CHUNKS = 1_000_000
# What OpenCV decodes and Pillow can size from the header; others are left to OpenCV's own limit of 2^30 pixels.
# With the module of Pillow that knows each: importing all of its forty takes 60 ms, the one for PNG 5.
_SIZED = {
    "PNG": "PngImagePlugin",
    "JPEG": "JpegImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "WEBP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "PPM": "PpmImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
}


_PNG = b"\x89PNG\r\n\x1a\n"


def to_gray(image: npt.NDArray[Any]) -> Gray:
    """Return an image as 8-bit grey, converted as OpenCV does for its detector.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)
        Grey, BGR or BGRA; any strides, read-only or not.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        C-contiguous; the input itself if it already is so.

    Raises
    ------
    InputError
        For another dtype or shape.
    """
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(
            f"expected an image as uint8 of shape (h, w), (h, w, 3) BGR or (h, w, 4) BGRA, "
            f"got {array.dtype} of shape {array.shape}"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2:
        return np.ascontiguousarray(array)
    if array.size == 0:
        return np.zeros(array.shape[:2], dtype=np.uint8)
    import cv2

    code = cv2.COLOR_BGR2GRAY if array.shape[2] == 3 else cv2.COLOR_BGRA2GRAY
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(array), code), dtype=np.uint8)


def read_bgr(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read an image as BGR, upright as its EXIF orientation says.

    Parameters
    ----------
    path : str or path
    max_pixels : int
        Larger images are refused from their header, before they are decoded.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)

    Raises
    ------
    InputError
        If the file is not a regular file, cannot be opened, holds no image, or is too large.
    """
    return decode_bgr(read_bounded(path, MAX_BYTES, "image"), os.fspath(path), max_pixels)


def decode_bgr(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decode the bytes of an image file as `read_bgr` does.

    Parameters
    ----------
    data : bytes
    name : str
        What error messages call the image.
    max_pixels : int
        Larger images are refused from their header, before they are decoded.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)

    Raises
    ------
    InputError
        If they are no image, or a too large one.
    """
    import cv2

    size = _header_size(data)
    if size is not None and size[0] * size[1] > max_pixels:
        raise InputError(f"{name}: expected an image of at most {max_pixels} pixels, got {size[0]}x{size[1]}")
    _check_chunks(name, data)
    try:
        # Decoding from memory: OpenCV's own file reader prints warnings and cannot say why a file would not open.
        plain = np.frombuffer(_without_profile(data), dtype=np.uint8)
        image = cv2.imdecode(plain, cv2.IMREAD_COLOR) if data else None
    except (cv2.error, MemoryError):
        image = None
    if image is None:
        raise InputError(f"{name}: expected an image, got {len(data)} bytes that OpenCV cannot decode")
    return np.asarray(image, dtype=np.uint8)


def _check_chunks(name: str, data: bytes) -> None:
    """Refuse a PNG with a chunk longer than the file: OpenCV reserves what it claims, 4 GB for a file of 700 bytes."""
    if not data.startswith(_PNG):
        return
    at = len(_PNG)
    for _ in range(_MAX_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if length > len(data):
            raise InputError(f"{name}: expected an image, got a PNG of {len(data)} bytes with a chunk of {length}")
        at += 12 + length
        if kind in (b"IEND", b""):
            return
    raise InputError(f"{name}: expected an image, got a PNG of more than {_MAX_CHUNKS} chunks")


def _without_profile(data: bytes) -> bytes:
    """Return a PNG without its colour profile, which OpenCV does not use but libpng prints warnings about.

    What follows the image data, or is no chunk, is left as it is: the decoder says what is wrong with it.
    """
    at = len(_PNG)
    if not data.startswith(_PNG):
        return data
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if kind == b"iCCP" and end <= len(data):
            return data[:at] + data[end:]
        if kind == b"IDAT":
            break
        at = end
    return data


def _header_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height as the header states them, or None if Pillow cannot read it."""
    with _opened(data) as image:
        return None if image is None else (int(image.size[0]), int(image.size[1]))


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """Yield the image as Pillow opens it, not decoded yet, or None."""
    from PIL import Image

    # The format's own opener rather than Image.open, which has a limit of its own that is set for the whole process.
    for kind, module in _SIZED.items():
        importlib.import_module(f"PIL.{module}")
        factory, accept = Image.OPEN.get(kind, (None, None))
        if factory is None or accept is None or accept(data[:16]) is not True:
            continue
        try:
            image = factory(io.BytesIO(data), "")
        except Exception:  # whatever a corrupt header makes a decoder raise: OpenCV decides then
            continue
        with image:
            yield image
        return
    yield None


def read_opaque(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read an image as `read_bgr` does, but with white where it is transparent: what a viewer shows on a white page.

    `read_bgr` returns, as OpenCV does, the colours that are hidden under full transparency.

    Raises
    ------
    InputError
        As `read_bgr`, or if the transparency cannot be read.
    """
    image = read_bgr(path, max_pixels)
    data = read_bounded(path, MAX_BYTES, "image")
    with _opened(data) as opened:
        if opened is None or not (opened.mode.endswith(("A", "a")) or "transparency" in opened.info):
            return image
        from PIL import ImageOps

        try:
            alpha = np.asarray(ImageOps.exif_transpose(opened.convert("RGBA")).getchannel("A"), dtype=np.float32)
        except Exception as error:  # what a decoder raises
            raise InputError(f"{os.fspath(path)}: expected an image, got corrupt transparency: {error}") from None
    if alpha.shape != image.shape[:2]:
        raise InputError(f"{os.fspath(path)}: expected transparency of the image's size, got {alpha.shape}")
    share = alpha[:, :, None] / 255
    return np.rint(image * share + 255 * (1 - share)).astype(np.uint8)


def read_gray(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Gray:
    """Read an image as 8-bit grey; see `read_bgr`. Returns an array of shape (h, w)."""
    return to_gray(read_bgr(path, max_pixels))


def encode_image(suffix: str, image: npt.NDArray[np.uint8], *, quality: int | None = None) -> bytes:
    """Return a grey or BGR image as the bytes of a file.

    Parameters
    ----------
    suffix : str
        Ending that names the format, such as ".png".
    image : ndarray of uint8, shape (h, w) or (h, w, 3)
    quality : int, optional
        Of a JPEG, 1 to 100; by default OpenCV's.

    Raises
    ------
    InputError
        If the ending is of no known format.
    """
    import cv2

    try:
        done, data = cv2.imencode(suffix, image, [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"expected an image ending such as .png or .jpg, got {suffix!r}")
    return bytes(data.tobytes())


def write_image(path: str | os.PathLike[str], image: npt.NDArray[np.uint8]) -> None:
    """Write a grey or BGR image in the format of the path's ending; the file appears whole or not at all.

    Parameters
    ----------
    path : str or path
    image : ndarray of uint8, shape (h, w) or (h, w, 3)

    Raises
    ------
    InputError
        If the ending is of no known format.
    OSError
        If the file cannot be written.
    """
    target = Path(path)
    try:
        data = encode_image(target.suffix, image)
    except InputError as error:
        raise InputError(f"{target}: {error}") from None
    write_bytes(target, data)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the images below a folder, sorted by path.

    Raises
    ------
    InputError
        If the folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of images, got {'a file' if root.exists() else 'nothing there'}")
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def draw_boxes(
    image: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.integer[Any]],
    color: tuple[int, int, int] = (0, 220, 0),
    *,
    labels: Sequence[str] = (),
    thickness: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Return a copy of an image with boxes drawn on it.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        BGR.
    boxes : ndarray of integers, shape (n, 4)
        x, y, width, height.
    color : (int, int, int)
        Blue, green, red.
    labels : sequence of str
        A text for each box, or none.
    thickness : int, optional
        Of the lines, in pixels; by default 1/250 of the longer side, so that they stay visible when the image is shown
        smaller.
    """
    import cv2

    out = np.ascontiguousarray(image).copy()
    line = max(2, round(max(out.shape[:2]) / 250)) if thickness is None else thickness
    # A dark rim sets lines and letters off.
    for x, y, w, h in np.asarray(boxes).tolist():
        for width, tone in ((line + 2, (0, 0, 0)), (line, color)):
            cv2.rectangle(out, (x, y), (x + w - 1, y + h - 1), tone, width)
    stroke = max(1, line // 2)
    for (x, y, _, _), label in zip(np.asarray(boxes).tolist(), labels, strict=False):
        for width, tone in ((stroke + 2, (0, 0, 0)), (stroke, color)):
            place = (x, max(y - 3 * line, 8 * line))
            cv2.putText(out, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.25 * line, tone, width, cv2.LINE_AA)
    return out
