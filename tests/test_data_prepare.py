"""Fetching and laying out data: from made-up archives and a server of our own, hostile ones included."""

import csv
import functools
import gzip
import hashlib
import http.server
import importlib.util
import io
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from vj.datasets.annotations_json import read as read_annotations
from vj.errors import InputError
from vj.tiers import Outcomes
from vj.tiers.outcomes import read_costs

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("vj_data_prepare", ROOT / "data" / "prepare.py")
prepare = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(prepare)


def _jpeg(value=90, shape=(60, 80)):
    return cv2.imencode(".jpg", np.full(shape, value, np.uint8))[1].tobytes()


def _zip(path, members):
    with zipfile.ZipFile(path, "w") as box:
        for name, content in members.items():
            box.writestr(name, content)
    return path


def _tar(path, members):
    with tarfile.open(path, "w:gz") as box:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            box.addfile(info, io.BytesIO(content))
    return path


def _entry(path, take, convert, **more):
    return {"convert": convert, "files": [{"url": "http://127.0.0.1:9/", "name": path.name, "take": take} | more]}


def test_the_manifest_can_be_used():
    for name, entry in prepare.manifest().items():
        assert entry["convert"] in prepare.CONVERT, name
        assert entry["title"]
        assert entry["licence"]
        for file in entry["files"]:
            assert sum(kind in file for kind in ("wheel", "sdist", "url")) == 1
            assert file["take"]
            assert file.get("url", "https:").startswith("https:")
            digits = {"sha256": 64, "sha1": 40, "md5": 32}
            given = {kind: file[kind] for kind in digits if kind in file}
            assert all(len(value) == digits[kind] for kind, value in given.items())
            package = file.get("wheel", file.get("sdist"))
            # One name for each platform cannot have one hash; pip checks such a file against the index. Any other file
            # without a hash says why.
            assert given or (package and "*" in file["name"]) or file["unhashed"]
            if package:
                assert "sha256" in file or "*" in file["name"]
                assert file["name"].split("-")[0].lower() == package.split("==")[0].lower().replace("-", "_")


def test_crops_and_images(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"p/s1/1.jpg": _jpeg(), "p/s2/1.jpg": _jpeg(), "p/code.py": b"x"})
    known = {name: _entry(archive, ["p/s*/*.jpg"], name) for name in ("crops", "images", "files")}
    hint = prepare.prepare("crops", tmp_path / "out", archive, known)
    assert hint.startswith("2 crops")
    assert sorted(p.name for p in (tmp_path / "out/crops/images").iterdir()) == ["s1_1.jpg", "s2_1.jpg"]
    for name, folder in (("files", "files"), ("images", "images/images")):
        prepare.prepare(name, tmp_path / "out", archive, known)
        # Equal base names: both files are kept.
        assert sorted(p.name for p in (tmp_path / "out" / folder).iterdir()) == ["s1_1.jpg", "s2_1.jpg"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["crops", "files", "images"]
    # Again: the same, in place of the old.
    prepare.prepare("crops", tmp_path / "out", tmp_path, known)
    assert len(list((tmp_path / "out/crops/images").iterdir())) == 2


def test_a_library_stays_importable_and_its_model_lies_beside_it(tmp_path):
    """The wheel's name depends on the platform, so the manifest has a star in it."""
    wheel = _zip(tmp_path / "lib-1-cp311.whl", {"vj_test_lib/__init__.py": b"x = 1", "lib-1.dist-info/METADATA": b""})
    models = _tar(tmp_path / "models.tar.gz", {"models-1/data/net.dat": b"net", "models-1/other.dat.txt": b""})
    files = [
        {"wheel": "lib==1", "name": "lib-1-*.whl", "take": ["vj_test_lib/*"]},
        {"sdist": "models==1", "name": models.name, "take": ["*/net.dat"]},
    ]
    hint = prepare.prepare("lib", tmp_path / "out", tmp_path, {"lib": {"convert": "library", "files": files}})
    assert wheel.is_file() and hint == f"PYTHONPATH={tmp_path}/out/lib, {tmp_path}/out/lib/net.dat"
    found = sorted(p.relative_to(tmp_path / "out/lib").as_posix() for p in (tmp_path / "out/lib").rglob("*"))
    assert found == ["net.dat", "vj_test_lib", "vj_test_lib/__init__.py"]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (("x/1.jpg", "x/2.jpg"), ["1.jpg", "2.jpg"]),
        (("x/a.jpg", "x/A.jpg"), ["00000_top_x_a.jpg", "00001_top_x_A.jpg"]),
        (("a_b/c.jpg", "a/b_c.jpg", "d/c.jpg"), ["a_b_c.jpg", "b_c.jpg", "d_c.jpg"]),
        (("1/a/c.jpg", "2/a/c.jpg", "c.jpg"), ["1_a_c.jpg", "2_a_c.jpg", "top_c.jpg"]),
    ],
)
def test_files_of_equal_names_are_all_kept(tmp_path, members, expected):
    contents = {name: str(k).encode() for k, name in enumerate(members)}
    paths = prepare.unpack(
        _zip(tmp_path / "a.zip", {f"top/{k}": v for k, v in contents.items()}), tmp_path / "to", ["*"]
    )
    placed = prepare._flatten(tmp_path / "to", tmp_path / "to" / "images", paths, 1)
    assert [path.read_bytes() for path in placed] == list(contents.values())
    assert sorted(path.name for path in placed) == expected
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["images"]


def test_portraits_with_eyes(tmp_path):
    """Eyes 20 apart on a level line: u = 20, so the box is 53.2 wide, centred 6.1 below their middle."""
    archive = _zip(tmp_path / "a.zip", {"d/x.pgm": b"P5 1 1 255\n\0", "d/coords.txt": b"x 30 40 50 40\n"})
    prepare.prepare("eyes", tmp_path, archive, {"eyes": _entry(archive, ["d/*"], "eyes")})
    (image,) = read_annotations(tmp_path / "eyes")
    assert image.path.is_file()
    assert image.boxes == pytest.approx(np.array([[40 - 26.6, 46.1 - 26.6, 53.2, 53.2]]), abs=0.01)
    lines = (tmp_path / "eyes/boxes.csv").read_text().splitlines()
    assert lines[0] == "file,x,y,w,h,leye_x,leye_y,reye_x,reye_y"
    assert lines[1].endswith("30.0,40.0,50.0,40.0")


def test_wider_face(tmp_path):
    text = "0--P/a.jpg\n2\n1 2 30 40 1 0 0 0 2 1\n5 5 6 7 0 0 0 1 0 0\n1--Q/gone.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n"
    photos = _zip(tmp_path / "WIDER_val.zip", {"WIDER_val/images/0--P/a.jpg": _jpeg()})
    labels = _zip(tmp_path / "split.zip", {"wider_face_split/val.txt": text.encode()})
    files = [
        {"url": "", "name": photos.name, "take": ["WIDER_val/images/*.jpg"]},
        {"url": "", "name": labels.name, "take": ["wider_face_split/*.txt"]},
    ]
    hint = prepare.prepare("wider", tmp_path / "out", tmp_path, {"wider": {"convert": "wider", "files": files}})
    assert "1 images, 2 faces" in hint
    (image,) = read_annotations(tmp_path / "out" / "wider")
    assert image.path.is_file()
    assert image.attributes["occlusion"].tolist() == [2, 0]
    assert "blur" in (tmp_path / "out/wider/boxes.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("around", ["", "originalPics/"])
def test_fddb(tmp_path, around):
    names = ("2002/07/19/big/img_1", "2002/07/20/big/img_1")
    photos = _tar(tmp_path / "pics.tgz", {f"{around}{name}.jpg": _jpeg() for name in (*names, "2002/01/01/big/img_9")})
    lists = {
        f"FDDB-folds/FDDB-fold-0{k}-ellipseList.txt": f"{name}\n1\n20 15 1.5 40 30 1\n".encode()
        for k, name in enumerate(names)
    }
    labels = _tar(tmp_path / "folds.tgz", lists)
    files = [
        {"url": "", "name": photos.name, "take": ["*.jpg"]},
        {"url": "", "name": labels.name, "take": ["FDDB-folds/*ellipseList.txt"]},
    ]
    prepare.prepare("fddb", tmp_path / "out", tmp_path, {"fddb": {"convert": "fddb", "files": files}})
    found = read_annotations(tmp_path / "out" / "fddb")
    assert len({p.path for p in found}) == 2
    assert all(p.path.is_file() and p.ellipses.shape == (1, 5) for p in found)
    assert len(list((tmp_path / "out/fddb/images").iterdir())) == 2


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/tmp/vj-out.jpg", "c:\\out.jpg", "..\\out.jpg"])
@pytest.mark.parametrize("make", [_zip, _tar])
def test_no_member_leaves_the_folder(tmp_path, make, name):
    archive = make(tmp_path / "bad.bin", {"fine.jpg": _jpeg(), name: _jpeg()})
    with pytest.raises(InputError, match="members inside the target folder"):
        prepare.prepare("bad", tmp_path / "to" / "here", archive, {"bad": _entry(archive, ["*"], "images")})
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["bad.bin"]
    assert list((tmp_path / "to" / "here").iterdir()) == []
    assert not Path("/tmp/vj-out.jpg").exists()


def test_links_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as box:
        for name, kind in (("link.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("dev.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            box.addfile(info)
        info = tarfile.TarInfo("fine.jpg")
        info.size = 3
        box.addfile(info, io.BytesIO(b"abc"))
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as box:
        box.writestr(link, "/etc/passwd")
        box.writestr("fine.jpg", b"abc")
    for archive in (tmp_path / "bad.tar", tmp_path / "bad.zip"):
        assert [p.name for p in prepare.unpack(archive, tmp_path / "to", ["*"])] == ["fine.jpg"]
    assert (tmp_path / "to" / "fine.jpg").read_bytes() == b"abc"


def test_too_much_content_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "MAX_UNPACKED", 100)
    archive = _zip(tmp_path / "a.zip", {"a": b"x" * 60, "b": b"x" * 60})
    with pytest.raises(InputError, match="at most 100 bytes"):
        prepare.unpack(archive, tmp_path / "to", ["*"])


def _broken(kind):
    """A zip with a wrong check sum, an encrypted member or an unknown method of packing; a .tgz cut off or corrupt."""
    out = io.BytesIO()
    content = np.random.default_rng(0).bytes(5000)
    if kind.startswith("tgz"):
        with tarfile.open(fileobj=out, mode="w:gz") as box:
            info = tarfile.TarInfo("a.jpg")
            info.size = len(content)
            box.addfile(info, io.BytesIO(content))
        data = bytearray(out.getvalue())
        data = data[:3000] if kind == "tgz cut off" else data[:2000] + b"\xff" * 500 + data[2500:]
        return bytes(data)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("a.jpg", content)
    data = bytearray(out.getvalue())
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    if kind == "zip with a bad CRC":
        data[local + 14] ^= 0xFF
        data[central + 16] ^= 0xFF
    elif kind == "zip encrypted":
        data[local + 6] |= 1
        data[central + 8] |= 1
    elif kind == "zip of an unknown method":
        data[local + 8] = data[central + 10] = 77
    else:
        data[local + 200 : local + 300] = b"\xff" * 100
    return bytes(data)


@pytest.mark.parametrize(
    "kind",
    ["zip with a bad CRC", "zip encrypted", "zip of an unknown method", "zip corrupt", "tgz cut off", "tgz corrupt"],
)
def test_broken_archives_are_one_line_and_leave_nothing(tmp_path, capsys, monkeypatch, kind):
    (tmp_path / "a.bin").write_bytes(_broken(kind))
    monkeypatch.setattr(prepare, "manifest", lambda: {"x": _entry(tmp_path / "a.bin", ["*"], "images")})
    assert prepare.main(["x", "--from", str(tmp_path), "--to", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert "expected an intact archive" in captured.err
    assert len(captured.err.splitlines()) == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_what_is_no_archive_leaves_nothing(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="expected an intact archive"):
        prepare.prepare("x", tmp_path / "out", tmp_path, {"x": _entry(tmp_path / "a.zip", ["*"], "crops")})
    assert list((tmp_path / "out").iterdir()) == []


def test_content_that_differs_from_the_manifest_is_refused(tmp_path):
    archive = _zip(tmp_path / "a.zip", {"a.jpg": _jpeg()})
    for wrong in ({"sha256": "0" * 64}, {"size": 1}):
        with pytest.raises(InputError, match=r"expected (SHA-256|1 bytes)"):
            prepare.prepare("x", tmp_path / "out", tmp_path, {"x": _entry(archive, ["*"], "images", **wrong)})
    right = {"sha256": hashlib.sha256(archive.read_bytes()).hexdigest(), "size": archive.stat().st_size}
    prepare.prepare("x", tmp_path / "out", tmp_path, {"x": _entry(archive, ["*"], "images", **right)})


class _Server(http.server.SimpleHTTPRequestHandler):
    """A server that knows `Range: bytes=N-` and notes which parts it was asked for."""

    asked: ClassVar[list[int]] = []
    ranges = True
    cut_off_after = 0

    def do_GET(self):
        content = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if self.ranges else 0
        self.asked.append(start)
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        # A connection that breaks: fewer bytes than announced.
        self.wfile.write(content[start : start + self.cut_off_after] if self.cut_off_after else content[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    _Server.asked, _Server.ranges, _Server.cut_off_after = [], True, 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Server, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_goes_on_where_it_stopped(served, tmp_path, ranges):
    folder, url = served
    content = np.random.default_rng(0).bytes(3_000_000)
    (folder / "file.bin").write_bytes(content)
    _Server.ranges = ranges
    target = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(content[:1_000_000])
    prepare.fetch_url(url + "file.bin", target)
    assert target.read_bytes() == content
    assert _Server.asked == [1_000_000 if ranges else 0]
    assert not (tmp_path / "file.bin.part").exists()


def test_a_complete_part_is_not_fetched_again(served, tmp_path):
    folder, url = served
    for name, size in (("known", 5), ("unknown", None)):
        (folder / name).write_bytes(b"12345")
        (tmp_path / f"{name}.part").write_bytes(b"12345")
        prepare.fetch_url(url + name, tmp_path / name, size)
        assert (tmp_path / name).read_bytes() == b"12345"
    assert _Server.asked == [5]


@pytest.mark.parametrize("size", [None, 3_000_000])
def test_a_download_cut_off_by_the_server_is_not_complete_and_resumes(served, tmp_path, size):
    folder, url = served
    content = np.random.default_rng(0).bytes(3_000_000)
    (folder / "file.bin").write_bytes(content)
    _Server.cut_off_after = 1_000_000
    target = tmp_path / "file.bin"
    for _ in range(2):
        with pytest.raises(InputError, match=r"expected 3,000,000 bytes, got [12],000,000; run again to resume"):
            prepare.fetch_url(url + "file.bin", target, size)
        assert not target.exists()
    prepare.fetch_url(url + "file.bin", target, size)
    assert target.read_bytes() == content
    assert _Server.asked == [0, 1_000_000, 2_000_000]


def test_a_part_of_another_file_is_fetched_again(served, tmp_path):
    """Longer than what the server has: no range can complete it."""
    folder, url = served
    (folder / "file.bin").write_bytes(b"12345")
    for size in (None, 5):
        (tmp_path / "file.bin.part").write_bytes(b"something longer")
        prepare.fetch_url(url + "file.bin", tmp_path / "file.bin", size)
        assert (tmp_path / "file.bin").read_bytes() == b"12345"


def test_plain_http_needs_a_hash(served, tmp_path):
    folder, url = served
    _zip(folder / "a.zip", {"a.jpg": _jpeg()})
    known = {"x": {"convert": "images", "files": [{"url": url + "a.zip", "name": "a.zip", "take": ["*"]}]}}
    with pytest.raises(InputError, match="expected https, or a hash"):
        prepare.prepare("x", tmp_path / "out", known=known)
    known["x"]["files"][0]["md5"] = hashlib.md5((folder / "a.zip").read_bytes()).hexdigest()
    prepare.prepare("x", tmp_path / "out", known=known)
    known["x"]["files"][0]["md5"] = "0" * 32
    with pytest.raises(InputError, match="expected MD5 0"):
        prepare.prepare("x", tmp_path / "out", known=known)


def test_a_set_is_fetched_once_and_verified(served, tmp_path):
    folder, url = served
    archive = _zip(folder / "a.zip", {"a.jpg": _jpeg()})
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    known = {"x": {"convert": "images", "files": [{"url": url + "a.zip", "name": "a.zip", "take": ["*"]}]}}
    known["x"]["files"][0]["sha256"] = "f" * 64
    with pytest.raises(InputError, match="expected SHA-256"):
        prepare.prepare("x", tmp_path / "out", known=known)
    assert list((tmp_path / "out/archives").iterdir()) == []
    known["x"]["files"][0]["sha256"] = digest
    for _ in range(2):
        prepare.prepare("x", tmp_path / "out", known=known)
    assert _Server.asked == [0, 0]


def test_bad_names_and_servers_are_one_line(tmp_path, capsys):
    assert prepare.main(["nothing", "--to", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(InputError, match="expected a download"):
        prepare.fetch_url("http://127.0.0.1:9/x", tmp_path / "x")
    assert prepare.main([]) == 0
    assert "licence:" in capsys.readouterr().out


def _frugal(extra=""):
    """Two services as FrugalML stores them: columns in files, class numbers as floats, Face++ in percent."""
    root = "FrugalML-abc/dataset/mlserviceperformance_TINY/"
    columns = {
        "meta.csv": "Index,MLaaS(API),Cost per 10k images,class number\n1,FacePP,5,7\n100,GitHub(CNN),0.001,7\n",
        "Model1_PredictedLabel.txt": "3.000e+00\n1.000e+00\n",
        "Model1_Confidence.txt": f"9.5e+01\n5.0e+01\n{extra}",
        "Model1_TrueLabel.txt": "3.0\n2.0\n",
        "Model100_PredictedLabel.txt": "3.0\n2.0\n",
        "Model100_Confidence.txt": "0.9\n0.25\n",
        "Model100_TrueLabel.txt": "3.0\n2.0\n",
        "Model100_Reward.txt": "1\n1\n",
    }
    return {root + name: text for name, text in columns.items()}


ROUTE = {
    "RouteLLM-main/routellm/evals/mmlu/responses/mmlu_anatomy.csv": (
        "prompt,mistralai/Mixtral-8x7B-Instruct-v0.1,gpt-4-1106-preview\nwhich bone?,True,True\nleaked?,False,True\n"
        '"a, or\nb?",False,True\n'
    ),
    "RouteLLM-main/routellm/evals/mmlu/contaminated_prompts.jsonl": '{"eval_prompt": "leaked?"}\n',
    "RouteLLM-main/routellm/evals/gsm8k/gsm8k_responses.csv": (
        "prompt,mistralai/Mixtral-8x7B-Instruct-v0.1,gpt-4-1106-preview\n2 + 2?,False,True\n"
    ),
}


def _check_outcomes(folder):
    found = Outcomes.read(folder / "tiny.csv.gz", read_costs([str(folder / "tiny.costs.json")]))
    assert found.tiers == ("GitHub(CNN)", "FacePP")
    assert found.costs.tolist() == [1e-7, 5e-4]
    assert found.truth.tolist() == ["3", "2"]
    assert found.labels.tolist() == [["3", "3"], ["2", "1"]]
    assert found.confidences.tolist() == [[0.9, 0.95], [0.25, 0.5]]


def test_outcomes_from_archives_and_from_loose_files(tmp_path):
    known = prepare.manifest()
    given = tmp_path / "given"
    given.mkdir()
    _zip(given / "FrugalML.zip", _frugal())
    _zip(given / "RouteLLM.zip", ROUTE)
    assert "1 sets of recorded answers, 3 prompts" in prepare.prepare("outcomes", tmp_path / "a", given, known)
    folder = tmp_path / "a" / "outcomes"
    _check_outcomes(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["prompts.csv.gz", "tiny.costs.json", "tiny.csv.gz"]
    with gzip.open(folder / "prompts.csv.gz", "rt", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["set", "group", "prompt", "weak", "strong"]
    assert sorted(rows[1:]) == [
        ["gsm8k", "", "2 + 2?", "0", "1"],
        ["mmlu", "anatomy", "a, or\nb?", "0", "1"],
        ["mmlu", "anatomy", "which bone?", "1", "1"],
    ]
    loose = tmp_path / "loose"
    for name, text in _frugal().items():
        (loose / name).parent.mkdir(parents=True, exist_ok=True)
        (loose / name).write_text(text)
    assert "1 sets of recorded answers, 0 prompts" in prepare.prepare("outcomes", tmp_path / "b", loose, known)
    _check_outcomes(tmp_path / "b" / "outcomes")
    assert (loose / next(iter(_frugal()))).is_file()


@pytest.mark.parametrize("extra", ["7.0\n", "x\n"])
def test_outcomes_that_do_not_fit_together_are_refused(tmp_path, extra):
    _zip(tmp_path / "FrugalML.zip", _frugal(extra))
    _zip(tmp_path / "RouteLLM.zip", ROUTE)
    with pytest.raises(InputError, match="mlserviceperformance_TINY: expected FrugalML's files of a set"):
        prepare.prepare("outcomes", tmp_path / "out", tmp_path)
    assert not (tmp_path / "out" / "outcomes").exists()
