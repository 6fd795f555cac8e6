"""Published packages on the drop-in, unchanged: they must give what they give with OpenCV's own class.

Each package is installed from the package index, pinned and without its dependencies, into a folder of its own; modules
that it imports but that face detection does not need (networks, download tools) are empty stand-ins. The same few lines
run three times in a process of their own: on OpenCV 4, on OpenCV 4 with `vj.cv2_compat.install(force=True)`, and on
OpenCV 5 with `vj.cv2_compat.install()`. The results must be equal.

Needs a network, and OpenCV's cascades where `vj-cascades install` puts them: ``python -m benchmarks.packages``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

OPENCV_5 = "opencv-python==5.0.0.93"

# What every probe begins with. `out` is what it found.
PRELUDE = """
import json, os, sys, types
class Stub(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *a, **k: None
for name in STUBS:
    sys.modules[name] = Stub(name)
import cv2
assert cv2.__version__.startswith("5" if MODE == "add" else "4"), cv2.__version__
if MODE:
    from vj import cv2_compat
    cv2_compat.install(force=MODE == "force")
cv2.setNumThreads(1)
import numpy as np
from skimage import data
bgr = np.ascontiguousarray(data.astronaut()[:, :, ::-1])
gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
cv2.imwrite("photo.png", bgr)
"""

PROBES = {
    "autocrop==1.3.0": (
        (),
        "from autocrop import Cropper\nout = Cropper(width=60, height=60).crop(bgr).tolist()",
    ),
    "willow==1.12.0 filetype==1.2.0": (
        (),
        "from willow.image import Image\nfrom willow.plugins.opencv import OpenCVGrayscaleImage\n"
        "out = np.array(OpenCVGrayscaleImage(gray, gray.shape[::-1]).detect_faces()).tolist()",
    ),
    "thumbor==7.8.0": (
        (),
        """
from thumbor.detectors import face_detector, glasses_detector, profile_detector
engine = types.SimpleNamespace(convert_to_grayscale=lambda **_: gray, size=gray.shape[::-1])
names = dict(FACE="haarcascade_frontalface_default", GLASSES="haarcascade_eye_tree_eyeglasses",
             PROFILE="haarcascade_profileface")
config = types.SimpleNamespace(**{f"{k}_DETECTOR_CASCADE_FILE": f"{v}.xml" for k, v in names.items()})
context = types.SimpleNamespace(config=config, modules=types.SimpleNamespace(engine=engine))
out = [m.Detector(context, 0, []).get_features() for m in (face_detector, glasses_detector, profile_detector)]
""",
    ),
    "fer==25.10.3": (
        (
            "tensorflow",
            "tensorflow.keras",
            "tensorflow.keras.models",
            "keras",
            "keras.models",
            "pkg_resources",
            "requests",
            "tqdm",
            "moviepy",
            "moviepy.editor",
            "pandas",
            "ffmpeg",
        ),
        "from fer.fer import FER\nFER._initialize_model = lambda self: None\nout = FER().find_faces(bgr).tolist()",
    ),
    "deepface==0.0.103": (
        ("gdown", "requests", "tensorflow", "tensorflow.keras"),
        "from deepface.models.face_detection.OpenCv import OpenCvClient\n"
        "out = [str(face) for face in OpenCvClient().detect_faces(bgr)]",
    ),
    "abstergo-censor==0.1.3": (
        (),
        "import abstergo_censor\nabstergo_censor.process_image('photo.png', 'out.png', use_plates=True)\n"
        "out = int(cv2.imread('out.png').astype(int).sum()), len(abstergo_censor.face_cascade.detectMultiScale(gray))",
    ),
}
"""Requirements, stand-ins, and the lines that run."""

LEFT_OUT = {
    ("deepface==0.0.103", "OpenCV 5, drop-in"): "looks for the files next to OpenCV, then downloads them itself"
}

RUNS = {"OpenCV 4": ("", False), "OpenCV 4, drop-in": ("force", False), "OpenCV 5, drop-in": ("add", True)}


def installed(requirements: str, folder: Path) -> Path:
    """Install into a folder, once."""
    target = folder / requirements.split()[0].replace("==", "-")
    if not target.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        subprocess.run([*command, *requirements.split()], check=True)
    return target


def outcome(requirements: str, run: str, folder: Path) -> tuple[bool, object]:
    """Return whether the probe ran, and what it found or the last line of its error."""
    mode, five = RUNS[run]
    stubs, lines = PROBES[requirements]
    paths = [installed(OPENCV_5, folder)] if five else []
    paths += [installed(requirements, folder), Path(__file__).resolve().parent.parent]
    code = f"STUBS, MODE = {stubs!r}, {mode!r}\n{PRELUDE}\n{lines}\nprint('=' + json.dumps(out, default=int))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
    found = [line for line in done.stdout.splitlines() if line.startswith("=")]
    if done.returncode == 0 and found:
        return True, json.loads(found[-1][1:])
    return False, (done.stderr.strip().splitlines() or ["no output"])[-1]


def main(argv: list[str] | None = None) -> int:
    """Print a line for each package; returns 0 if all agree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packages", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", metavar="PATH", help="keep the packages there; by default in a temporary folder")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(arguments.folder).resolve() if arguments.folder else Path(place)
        worst = 0
        for requirements in PROBES:
            runs = [run for run in RUNS if (requirements, run) not in LEFT_OUT]
            results = {run: outcome(requirements, run, folder) for run in runs}
            ran, expected = results["OpenCV 4"]
            # Nothing found would be equal, too, and prove nothing.
            ran = ran and bool(expected)
            words = []
            for run, (done, found) in results.items():
                agrees = done and ran and found == expected
                words.append(f"{run}: {'equal' if agrees else 'DIFFERS' if done else f'FAILS ({found})'}")
                worst |= not agrees
            words += [f"{run}: left out, {why}" for (name, run), why in LEFT_OUT.items() if name == requirements]
            print(f"{requirements.split()[0]:24} {'; '.join(words)}", flush=True)
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
