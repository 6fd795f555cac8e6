"""Detection on workers against the detector itself, with workers that die, hang and differ."""

import errno
import functools
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from cascades import LBP_FILE
from photos import photo

import vj
from vj.cli.detect import main
from vj.rows import Search, row

pytest.importorskip("distributed", reason="needs vj[cluster]")
import distributed
import fsspec

from vj.cluster import connection, encoding, parts, sources
from vj.cluster._isolation import Limits, isolated_rows
from vj.cluster.connection import connect
from vj.cluster.detection import chunk_size, detect
from vj.cluster.sources import Chunk

DEADLY, SLOW, LARGE = 131, 137, 139
"""Widths of images at which `Fragile` dies, hangs or takes a gigabyte."""


class Fragile(vj.Detector):
    """A detector that ends its process at some images, as a bug in a decoder would."""

    def detect(self, image):
        if image.shape[1] == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if image.shape[1] == SLOW:
            time.sleep(3600)
        if image.shape[1] == LARGE:
            self.__dict__["hog"] = np.ones(1 << 30, dtype=np.uint8)
            time.sleep(3600)
        return super().detect(image)


@pytest.fixture(scope="module")
def client():
    with connect("local:2") as found:
        yield found


@pytest.fixture(scope="module")
def cascade():
    return vj.load(LBP_FILE)


@pytest.fixture
def folder(tmp_path):
    """Twenty images, one in a folder below, and two files that are none."""
    place = tmp_path / "images"
    (place / "below").mkdir(parents=True)
    face = photo("astronaut")[20:200, 150:330]
    for k in range(20):
        image = np.roll(face, 3 * k, axis=1)[: 150 + k, : 140 + 2 * k]
        cv2.imwrite(str(place / ("below/x.png" if k == 7 else f"{k:02d}.png")), image)
    (place / "03-bad.png").write_bytes(b"no picture")
    (place / "99-empty.jpg").write_bytes(b"")
    return place


def expected(detector, paths, name=str):
    """Rows as the detector finds them here, each from one call."""
    rows = []
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None:
            rows.append(row(name(path), (image.shape[1], image.shape[0]), detector.detect(image)))
    return sorted(rows, key=lambda one: one["image"])


def good(rows):
    return sorted((one for one in rows if "error" not in one), key=lambda one: one["image"])


def images_of(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_are_those_of_the_detector_and_each_image_has_one(client, cascade, folder, tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    detector = vj.Detector(cascade, min_neighbors=1)
    told = []
    done = detect(
        client, folder, detector, output=tmp_path / "out", chunk=3, parts=kind, progress=lambda *now: told.append(now)
    )
    rows = encoding.read_rows(tmp_path / "out")
    wanted = expected(detector, images_of(folder))
    assert good(rows) == wanted and any(one["detections"] for one in wanted)
    assert sorted(one["image"] for one in rows) == [str(path) for path in images_of(folder)]
    bad = {one["image"]: one["error"] for one in rows if "error" in one}
    assert [name[-12:] for name in sorted(bad)] == ["s/03-bad.png", "99-empty.jpg"]
    assert (done.images, done.failed, done.chunks, done.set_aside) == (22, 2, 8, ())
    assert told[-1] == (8, 8, 22)
    table = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert table["finished"] and table["chunks"] == 8 and table["images"] == 22
    assert not list((tmp_path / "out").glob(".*"))


def test_a_run_that_was_stopped_goes_on_and_does_no_chunk_again(client, cascade, folder, tmp_path):
    detector, out = vj.Detector(cascade), tmp_path / "out"

    def stop(done, every, images):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect(client, folder, detector, output=out, chunk=2, progress=stop)
    first = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(first) == 3
    done = detect(client, folder, detector, output=out, chunk=2)
    assert done.before == 3 and done.images == 22 - 6
    assert {name: (out / name).stat().st_mtime_ns for name in first} == first
    assert good(encoding.read_rows(out)) == expected(detector, images_of(folder))
    # Once more: nothing is left to do, and nobody to ask.
    assert detect(None, folder, detector, output=out, chunk=2).images == 0


def test_results_of_another_run_are_left_alone(client, cascade, folder, tmp_path):
    out = tmp_path / "out"
    detect(client, folder, vj.Detector(cascade), output=out, chunk=8)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for changed, what in [
        ({"detector": vj.Detector(cascade, min_neighbors=2)}, "another detector"),
        ({"chunk": 9}, "another chunk size"),
        ({"sources": folder / "below"}, "another sources"),
    ]:
        given = {"sources": folder, "detector": vj.Detector(cascade), "chunk": 8} | changed
        with pytest.raises(vj.InputError, match=f"expected the run begun there, got {what}"):
            detect(None, given["sources"], given["detector"], output=out, chunk=given["chunk"])
    (out / "manifest.json").unlink()
    with pytest.raises(vj.InputError, match="with a manifest, got neither"):
        detect(None, folder, vj.Detector(cascade), output=out, chunk=8)
    del before["manifest.json"]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_full_disk_is_one_error_and_leaves_whole_parts(client, cascade, folder, tmp_path, monkeypatch):
    out, write, written = tmp_path / "out", parts.write_bytes, []

    def full(path, data):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write(path, data)

    monkeypatch.setattr(parts, "write_bytes", full)
    with pytest.raises(vj.InputError, match="No space left on device; the same command goes on"):
        detect(client, folder, vj.Detector(cascade), output=out, chunk=2)
    assert sorted(path.name for path in out.iterdir()) == sorted(["manifest.json", *(p.name for p in written)])
    monkeypatch.undo()
    detect(client, folder, vj.Detector(cascade), output=out, chunk=2)
    assert good(encoding.read_rows(out)) == expected(vj.Detector(cascade), images_of(folder))


def test_workers_that_are_killed_cost_no_row(client, cascade, folder, tmp_path):
    killed = []

    def kill(done, every, images):
        if done in (2, 5):
            pids = sorted(client.run(os.getpid).values())
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    detector = vj.Detector(cascade)
    detect(client, folder, detector, output=tmp_path / "out", chunk=2, progress=kill)
    rows = encoding.read_rows(tmp_path / "out")
    assert len(killed) == 2 and len(rows) == 22
    assert good(rows) == expected(detector, images_of(folder))


def test_images_that_kill_or_hang_workers_are_named_and_set_aside(client, cascade, folder, tmp_path):
    cv2.imwrite(str(folder / "deadly.png"), photo("coins")[:140, :DEADLY])
    cv2.imwrite(str(folder / "slow.png"), photo("coins")[:140, :SLOW])
    done = detect(client, folder, Fragile(cascade), output=tmp_path / "out", chunk=30, seconds=1.5)
    assert done.set_aside == (str(folder / "deadly.png"), str(folder / "slow.png"))
    rows = encoding.read_rows(tmp_path / "out")
    deadly, slow = [one["error"] for one in rows if "set_aside" in one]
    assert "deadly.png: set aside after 2 tries" in deadly and deadly.endswith("the process was ended by SIGKILL")
    assert "slow.png: set aside after 2 tries" in slow and slow.endswith("the process took longer than 1.5 s")
    others = [path for path in images_of(folder) if path.name not in ("deadly.png", "slow.png")]
    assert good(rows) == expected(vj.Detector(cascade), others)
    assert len(rows) == 24


def test_a_worker_killed_while_it_starts_is_replaced(monkeypatch):
    """Its nanny gives up, which would leave a cluster without workers."""
    monkeypatch.setitem(connection._SETTINGS, "distributed.deploy.lost-worker-timeout", "2 s")
    with connect("local:1") as own:
        (first,) = own.run(os.getpid).values()
        os.kill(first, signal.SIGKILL)
        (nanny,) = own.cluster.workers.values()
        while nanny.pid in (None, first):
            time.sleep(0.001)
        starting = nanny.pid
        os.kill(starting, signal.SIGKILL)
        deadline = time.monotonic() + 90
        while not own.nthreads() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not {first, starting} & set(own.run(os.getpid).values())


def test_an_image_that_takes_too_much_memory_is_set_aside(cascade, folder):
    cv2.imwrite(str(folder / "04-large.png"), photo("coins")[:140, :LARGE])
    names = tuple(str(folder / name) for name in ("04.png", "04-large.png", "05.png"))
    found = list(isolated_rows(Search(Fragile(cascade, threads=1)), Chunk(0, names, "/"), Limits(60, 700 << 20), 1))
    assert good(found) == expected(vj.Detector(cascade), [names[0], names[2]])
    assert found[1]["error"].endswith("the process took more than 700 MB of memory")


# --- sources ----------------------------------------------------------------------------------------------------------


def _shard(paths, mode="w"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for path in paths:
            tar.add(path, arcname=path.name)
            text = tarfile.TarInfo(f"{path.stem}.json")
            tar.addfile(text, io.BytesIO())
    return out.getvalue()


def test_tar_shards_lists_and_a_server(client, cascade, folder, tmp_path):
    """A list on a local server names a shard, an image, a spoilt shard and a file that is not there."""
    paths = [path for path in images_of(folder) if "bad" not in path.name and "empty" not in path.name]
    web = tmp_path / "web"
    web.mkdir()
    (web / "a.tar").write_bytes(_shard(paths[:5]))
    (web / "b.tar.gz").write_bytes(_shard(paths[5:8], "w:gz"))
    (web / "cut.tar").write_bytes(_shard(paths[:2])[:3000])
    (web / "one.png").write_bytes(paths[9].read_bytes())
    (web / "list.txt").write_text("# shards\na.tar\nb.tar.gz\n\none.png\ncut.tar\nnowhere.png\n")
    handler = functools.partial(_Quiet, directory=str(web))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        done = detect(client, f"{url}/list.txt", vj.Detector(cascade), output=tmp_path / "out")
        rows = encoding.read_rows(tmp_path / "out")
        with pytest.raises(vj.InputError, match=r"closed.png: expected a source that workers may read.*403"):
            detect(client, f"{url}/closed.png", vj.Detector(cascade), output=tmp_path / "closed")
        with pytest.raises(vj.InputError, match=r"closed/: expected a source of images, got no permission"):
            detect(client, f"{url}/closed/", vj.Detector(cascade), output=tmp_path / "closed")
    finally:
        server.shutdown()
        server.server_close()
    assert not (tmp_path / "closed").exists()
    wanted = expected(vj.Detector(cascade), paths[:5], lambda path: f"{url}/a.tar/{path.name}")
    wanted += expected(vj.Detector(cascade), paths[5:8], lambda path: f"{url}/b.tar.gz/{path.name}")
    wanted += expected(vj.Detector(cascade), paths[9:10], lambda path: f"{url}/one.png")
    assert good(rows) == sorted(wanted, key=lambda one: one["image"])
    errors = {one["image"].rpartition("/")[2]: one["error"] for one in rows if "error" in one}
    assert "expected a tar file of images" in errors["cut.tar"] and "nothing there" in errors["nowhere.png"]
    assert done.chunks == 5


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if "closed" in self.path:
            self.send_error(403)
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


def test_addresses_of_memory_and_files(cascade, folder, tmp_path):
    """In workers of this process, which see its memory; those of another process say that they do not."""
    paths = [path for path in images_of(folder) if "bad" not in path.name and "empty" not in path.name]
    memory = fsspec.filesystem("memory")
    for path in paths[:4]:
        memory.pipe(f"/cluster-test/deep/{path.name}", path.read_bytes())
    options = {"processes": False, "dashboard_address": ":0", "n_workers": 1, "threads_per_worker": 2}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster, set_as_default=False) as own:
        given = ["memory://cluster-test", f"file://{folder}/1*.png"]
        detect(own, given, vj.Detector(cascade), output=tmp_path / "out", chunk=4)
    wanted = expected(vj.Detector(cascade), paths[:4], lambda path: f"memory:///cluster-test/deep/{path.name}")
    wanted += expected(vj.Detector(cascade), sorted(folder.glob("1*.png")), lambda path: f"file://{path}")
    names = [one["image"].replace("memory:///", "memory://") for one in good(encoding.read_rows(tmp_path / "out"))]
    assert names == sorted(one["image"].replace("memory:///", "memory://") for one in wanted)
    found = [one["detections"] for one in good(encoding.read_rows(tmp_path / "out"))]
    assert found == [one["detections"] for one in sorted(wanted, key=lambda one: one["image"])]


def test_what_workers_do_not_see_is_said_before_any_work(client, cascade, tmp_path):
    fsspec.filesystem("memory").pipe("/only-here/a.png", b"x")
    with pytest.raises(vj.InputError, match=r"that worker tcp.* can read as this process can, got nothing there"):
        detect(client, "memory://only-here", vj.Detector(cascade), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("nowhere/*.png", "got a source without any"),
        ("memory://nothing-there", "got nothing there"),
        ("nosuch://place/a", "expected a source of images"),
        ("list.txt", "expected a readable list of images, got No such file"),
        ([], "expected sources of images, got none"),
    ],
)
def test_sources_that_are_none(given, text):
    with pytest.raises(vj.InputError, match=text):
        sources.find(given)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(vj.InputError, match="no permission"):
        sources.find(tmp_path / "closed")


def test_names_keep_their_order_and_come_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "list.lst").write_text("01.png\nbelow\n00.png\n")
    assert sources.find(["05.png", "list.lst", "0[01].png"]) == ["05.png", "01.png", "below/x.png", "00.png"]
    found = list(sources.chunks(["a.png", "b.png", "c.tar", "d.png", "e.png", "f.png"], 2))
    assert [one.names for one in found] == [("a.png", "b.png"), ("c.tar",), ("d.png", "e.png"), ("f.png",)]
    assert [one.number for one in found] == [0, 1, 2, 3] and {one.base for one in found} == {str(folder)}


def test_chunks_grow_with_the_run():
    assert [chunk_size(n) for n in (1, 3000, 20_000, 10**6, 10**9)] == [16, 16, 100, 1024, 1024]


# --- clusters that cannot do the work ---------------------------------------------------------------------------------


def test_no_scheduler_at_the_address():
    text = "expected the address of a Dask scheduler, got nothing that answers"
    with pytest.raises(vj.InputError, match=text), connect("tcp://127.0.0.1:9", seconds=1):
        pass
    for address in ("local:0", "local:x", "local"):
        with pytest.raises(vj.InputError, match="expected local:N"), connect(address):
            pass


def _change(name, value):
    def change(name, value):
        import importlib

        module = importlib.import_module(name)
        before, module.__version__ = module.__version__, value
        return before

    return change, name, value


def test_another_version_on_a_worker_is_refused(client):
    (where, *_) = client.run(os.getpid)
    (before,) = client.run(*_change("fsspec", "0.1"), workers=[where]).values()
    try:
        with pytest.raises(vj.InputError, match=rf"{where}: expected fsspec {before} as here, got 0.1"):
            connection.check(client)
    finally:
        client.run(*_change("fsspec", before), workers=[where])
    connection.check(client)


def test_a_worker_without_a_package_is_refused(client):
    def hide(module):
        import sys

        return sys.modules.pop("fsspec", None) if module == "found" else sys.modules.__setitem__("fsspec", None)

    (where, *_) = client.run(os.getpid)
    client.run(hide, "hidden", workers=[where])
    try:
        with pytest.raises(vj.InputError, match=rf"{where}: expected a worker with the package fsspec, got none \(Mod"):
            connection.check(client)
    finally:
        client.run(hide, "found", workers=[where])
    connection.check(client)


@pytest.fixture
def elsewhere(tmp_path):
    """Address of a scheduler with one worker, both processes of their own, and the scheduler's process."""
    file, log = tmp_path / "scheduler.json", (tmp_path / "log").open("w")
    started = []

    def start(*words):
        command = [sys.executable, "-m", "dask", *words, "--scheduler-file", str(file), "--no-dashboard"]
        started.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path))

    start("scheduler", "--host", "127.0.0.1", "--port", "0")
    while not file.exists():
        assert started[0].poll() is None
        time.sleep(0.05)
    start("worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
    yield json.loads(file.read_text())["address"], started[0]
    for one in started:
        one.kill()
        one.wait()
    log.close()


def test_a_scheduler_that_dies_is_one_error_and_another_goes_on(elsewhere, client, cascade, folder, tmp_path):
    address, process = elsewhere
    detector, out = vj.Detector(cascade), tmp_path / "out"

    def stop(done, every, images):
        if done == 2:
            process.kill()

    with connect(address) as own, pytest.raises(vj.InputError, match="expected a scheduler to the end"):
        detect(own, folder, detector, output=out, chunk=1, progress=stop)
    before = len(list(out.glob("part-*")))
    assert 2 <= before < 22
    assert detect(client, folder, detector, output=out, chunk=1).before == before
    assert good(encoding.read_rows(out)) == expected(detector, images_of(folder))


def test_the_command_does_the_same_on_a_cluster(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    arguments = ["images", "--cascade", str(LBP_FILE), "--min-neighbors", "1"]
    assert main(arguments) == 1
    alone = sorted(capsys.readouterr().out.splitlines())
    assert main([*arguments, "--cluster", "local:1", "--output", "out", "--chunk", "9"]) == 1
    out, err = capsys.readouterr()
    lines = [line for path in sorted(Path("out").glob("part-*")) for line in path.read_text().splitlines()]
    assert sorted(line for line in lines if "error" not in json.loads(line)) == alone
    assert out == "" and err.splitlines() == ["vj-detect: 22 images, 2 could not be used; 3 parts in out"]
    for more, text in [([], "--output DIR"), (["--crops", "x"], "got --crops"), (["--format", "csv"], "got --format")]:
        output = ["--output", "other"] if more else []
        assert main([*arguments, "--cluster", "local:1", *output, *more]) == 2
        assert text in capsys.readouterr().err


def test_without_the_packages_the_command_says_so(folder, tmp_path):
    code = "import sys; sys.modules['distributed'] = None; from vj.cli.detect import main; sys.exit(main())"
    command = [sys.executable, "-c", code, str(folder), "--cascade", str(LBP_FILE)]
    done = subprocess.run([*command, "--cluster", "local:1", "--output", str(tmp_path / "o")], capture_output=True)
    text = b"vj-detect: --cluster: expected the packages of vj[cluster], got no module distributed\n"
    assert (done.returncode, done.stderr) == (2, text) and not (tmp_path / "o").exists()
    assert subprocess.run(command, capture_output=True).returncode == 1


@pytest.mark.skipif(os.name != "posix", reason="sends signals to a group of processes")
def test_ctrl_c_is_one_line_and_leaves_whole_parts(folder, tmp_path):
    for k in range(200):
        (folder / f"more-{k}.png").write_bytes((folder / "19.png").read_bytes())
    command = [sys.executable, "-m", "vj.cli.detect", str(folder), "--cascade", str(LBP_FILE), "--cluster", "local:2"]
    command += ["--output", str(tmp_path / "out"), "--chunk", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None and len(list(tmp_path.glob("out/part-*"))) < 3:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=60)[1].decode()
    assert (process.returncode, err.splitlines()[-1]) == (130, "vj-detect: interrupted") and "Traceback" not in err
    assert 3 <= len(encoding.read_rows(tmp_path / "out")) < 222
