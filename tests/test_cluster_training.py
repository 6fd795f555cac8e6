"""Training on workers: the cascade of one machine to the bit, whatever happens to the workers."""

import os
import signal

import cv2
import numpy as np
import pytest
from skimage import data

import vj
from vj.boosting import learner
from vj.boosting.feature_values import feature_table
from vj.boosting.recipe import TrainingConfig
from vj.boosting.run import Training
from vj.boosting.samples import prepare
from vj.boosting.search import Search
from vj.boosting.trees import sample_weights
from vj.boosting.workers import Workers
from vj.cascade.haar import feature_pool
from vj.cli.train import main
from vj.errors import InputError

pytest.importorskip("distributed", reason="needs vj[cluster]")
import fsspec

from vj.cluster import Engine, connect
from vj.cluster.ordered import Batches
from vj.cluster.search import ClusterSearch, pack, unpack, windows_of

BASE = {
    "window": "12x12",
    "stages": 3,
    "positives_per_stage": 120,
    "negatives_per_stage": 150,
    "max_false_alarm_rate": 0.4,
    "min_hit_rate": 0.98,
    "max_weak_count": 10,
    "mirror": True,
}


@pytest.fixture(scope="module")
def client():
    with connect("local:2") as found:
        yield found


@pytest.fixture(scope="module")
def faces():
    return np.rint(data.lfw_subset()[:80] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files, one of which is no image, since workers read them themselves."""
    folder = tmp_path_factory.mktemp("backgrounds")
    images = [data.gravel()[:150, :150], data.brick()[:150, :150], data.coffee()[:200, :, 0], data.rocket()[:200, :, 1]]
    for k, image in enumerate(images):
        cv2.imwrite(str(folder / f"{k}.png"), image)
    (folder / "1-bad.png").write_bytes(b"none")
    return folder


def _trained(faces, photos, engine=None, progress=None, **changes):
    config = TrainingConfig.from_mapping({**BASE, **changes})
    run = Training(config, positives=faces, backgrounds=photos, engine=engine, progress=progress)
    return run, list(run)


def _text(cascade, tmp_path):
    vj.save(cascade, tmp_path / "cascade.xml")
    return (tmp_path / "cascade.xml").read_bytes()


def _plain(reports):
    timed = {"seconds", "mining_seconds"}
    return [{k: v for k, v in vars(report).items() if k not in timed} for report in reports]


@pytest.mark.parametrize(
    "changes",
    [
        {"pruning": 0.01},
        {"search": "exact", "max_depth": 2},
        {"features": "lbp", "search": "exact", "boosting": "real"},
        {"features": "all", "search": "exact", "stages": 2},
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_the_cascade_is_that_of_one_machine(client, faces, photos, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(learner, "_LEAST_SCANNED", 500_000)
    alone, reports = _trained(faces, photos, **changes)
    together, others = _trained(faces, photos, Engine(client), **changes)
    assert _text(together.cascade, tmp_path) == _text(alone.cascade, tmp_path)
    assert _plain(others) == _plain(reports)
    assert together.notes == alone.notes
    assert np.array_equal(together.negatives, alone.negatives)


def test_workers_that_die_change_nothing(client, faces, photos, tmp_path):
    """One is killed while mining and one while features are searched."""
    killed = []

    def kill(step):
        kinds = {kind for kind, _ in killed}
        if step.kind in ("mining", "round") and step.kind not in kinds and step.stage >= 1:
            pid = sorted(client.run(os.getpid).values())[0]
            killed.append((step.kind, pid))
            os.kill(pid, signal.SIGKILL)

    alone, _ = _trained(faces, photos, search="exact")
    together, _ = _trained(faces, photos, Engine(client), kill, search="exact")
    assert [kind for kind, _ in killed] == ["mining", "round"]
    assert _text(together.cascade, tmp_path) == _text(alone.cascade, tmp_path)


def test_a_run_goes_on_without_a_cluster_and_on_another(client, faces, photos, tmp_path):
    alone, _ = _trained(faces, photos)
    engines = [Engine(client), None, Engine(client)]
    for k, engine in enumerate(engines):

        def stop(step, k=k):
            if k < 2 and step.kind == "round" and step.stage == k and step.round.weak_count == 2:
                raise KeyboardInterrupt

        config = TrainingConfig.from_mapping(BASE | {"output": str(tmp_path / "out")})
        run = Training(config, positives=faces, backgrounds=photos, engine=engine, progress=stop)
        if k < 2:
            with pytest.raises(KeyboardInterrupt):
                list(run)
        else:
            list(run)
    assert any("resuming" in note for note in run.notes)
    assert _text(run.cascade, tmp_path) == _text(alone.cascade, tmp_path)


def test_positives_and_backgrounds_from_urls(client, faces, photos, tmp_path):
    """The same files by their addresses; a recipe, its checkpoint and its reports name these."""
    for k, face in enumerate(faces):
        (tmp_path / "faces").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"faces/{k:03d}.png"), face)
    plain = TrainingConfig.from_mapping(BASE | {"positives": str(tmp_path / "faces"), "backgrounds": str(photos)})
    alone = Training(plain)
    list(alone)
    engine = Engine(client)
    names = {"positives": f"file://{tmp_path}/faces", "backgrounds": [f"file://{photos}"]}
    config = TrainingConfig.from_mapping(BASE | names | {"output": str(tmp_path / "out")})
    run = Training(config, engine=engine)
    list(run)
    assert _text(run.cascade, tmp_path) == _text(alone.cascade, tmp_path)
    assert run.held_out_names() == [f"file://{name}" for name in alone.held_out_names()]
    assert f'path = "file://{tmp_path}/faces"' in (tmp_path / "out" / "recipe.toml").read_text()
    missing = TrainingConfig.from_mapping(BASE | names | {"backgrounds": f"file://{photos}/none"})
    with pytest.raises(InputError, match="none: expected a source of images, got nothing there"):
        list(Training(missing, engine=engine))


def test_urls_are_stamped_by_what_they_hold(client, tmp_path):
    from vj.boosting.fingerprints import fingerprint

    Engine(client)
    memory = fsspec.filesystem("memory")
    prints = []
    for content in (b"one", b"one", b"three"):
        memory.pipe("/stamped/a.png", content)
        prints.append(fingerprint(["memory://stamped/a.png"]))
    assert prints[0] == prints[1] != prints[2]


def test_the_command_trains_on_a_cluster(photos, faces, tmp_path, capsys):
    (tmp_path / "faces").mkdir()
    for k, face in enumerate(faces):
        cv2.imwrite(str(tmp_path / f"faces/{k:03d}.png"), face)
    settings = [word for key, value in BASE.items() if key != "mirror" for word in ("--set", f"{key}={value}")]
    address = f"file://{tmp_path}/faces"
    given = ["--backgrounds", str(photos), *settings, "--quiet"]
    assert main(["--positives", str(tmp_path / "faces"), *given, "--output", str(tmp_path / "alone")]) == 0
    there = ["--positives", address, *given, "--output", str(tmp_path / "there")]
    assert main([*there, "--cluster", "local:2"]) == 0
    cascades = [(tmp_path / name / "cascade.xml").read_bytes() for name in ("alone", "there")]
    assert cascades[0] == cascades[1]
    capsys.readouterr()
    assert main([*there, "--cluster", "local:none"]) == 2
    assert "expected local:N with 1 to 1024 workers, got 'local:none'" in capsys.readouterr().err


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boosting", ["gentle", "discrete", "real"])
def test_shares_find_the_split_of_all_features(client, faces, boosting):
    rng = np.random.default_rng(3)
    positives = np.stack([cv2.resize(face, (12, 12), interpolation=cv2.INTER_AREA) for face in faces])
    negatives = rng.integers(0, 256, (90, 12, 12), dtype=np.uint8)
    groups = prepare(positives), prepare(negatives)
    table = feature_table(feature_pool((12, 12), "basic"), (12, 12))
    weights = sample_weights(boosting, rng.normal(size=len(positives)), rng.normal(size=len(negatives)))
    both = weights.first, weights.second
    here = Search(table, groups, Workers(1), 1 << 28).best(both, weights.criterion)
    there = ClusterSearch(client, "key", boosting, table, groups, Workers(1), (12, 12))
    found = there.best(both, weights.criterion)
    assert (found.feature, found.threshold, found.loss) == (here.feature, here.threshold, here.loss)
    assert len(there.sent) == 1 and there.sent[0] < 4 * (len(positives) + len(negatives)) + 100
    there.release()


def test_weights_and_windows_survive_the_way():
    rng = np.random.default_rng(1)
    weights = rng.integers(-(1 << 30), 1 << 30, 257, dtype=np.int32), np.zeros(0, dtype=np.int32)
    assert all(np.array_equal(a, b) for a, b in zip(unpack(pack(weights)), weights, strict=True))
    windows = rng.integers(0, 256, (300, 14, 10), dtype=np.uint8)
    for tilted in (False, True):
        assert np.array_equal(windows_of(prepare(windows, tilted=tilted), (10, 14)), windows)


def _odd(limit, jobs):
    if any(job == limit for job in jobs):
        os.kill(os.getpid(), signal.SIGKILL)
    return [job * job for job in jobs], 0.001 * len(jobs)


def test_batches_keep_the_order_and_name_a_job_that_kills(client):
    found = list(Batches(client, _odd, -1).run(iter(range(100)), lambda: np.inf))
    assert found == [(k, k * k) for k in range(100)]
    few = Batches(client, _odd, -1).run(iter(range(10_000)), lambda: 3)
    assert [next(few) for _ in range(3)] == [(0, 0), (1, 1), (2, 4)]
    few.close()
    with pytest.raises(InputError, match=r"died of the same job: 1$"):
        list(Batches(client, _odd, 1).run(iter(range(3)), lambda: np.inf))
