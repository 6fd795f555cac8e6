"""Threads that are kept: they survive a fork, the end of the process and many callers, and never change a result."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
from cascades import random_cascade
from photos import gray

import vj
from vj.scanning import threads


def test_the_caller_and_other_threads_share_the_work(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 3)
    threads._forget()
    left, seen = list(range(60)), set()

    def work():
        done = []
        while left:
            done.append(left.pop())
            seen.add(threading.get_ident())
            time.sleep(0.002)
        return done

    for _ in range(2):
        left[:] = range(60)
        parts = threads.share(work, 3, left.clear)
        assert sorted(k for part in parts for k in part) == list(range(60))
    # The same two threads both times.
    assert len(seen) == 3
    threads._forget()


def test_what_has_not_begun_when_the_caller_is_done_is_left_out(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 2)
    threads._forget()
    free, calls = threading.Event(), []

    def busy():
        calls.append(threading.get_ident())
        free.wait(10)

    pool = [threading.Thread(target=threads.share, args=(busy, 2, free.set)) for _ in range(2)]
    for one in pool:
        one.start()
    while len(calls) < 4:
        time.sleep(0.001)
    # Both threads of the pool are busy: the caller does it all, and does not wait.
    assert threads.share(lambda: "done", 2, free.set) == ["done"]
    free.set()
    for one in pool:
        one.join()
    threads._forget()


def test_an_error_stops_the_others():
    stopped = threading.Event()

    def work():
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        assert stopped.wait(10)

    with pytest.raises(KeyboardInterrupt):
        threads.share(work, 2, stopped.set)
    assert stopped.is_set()


def test_many_callers_at_once_get_what_one_gets():
    image = gray("camera", (160, 120))
    detector = vj.Detector(random_cascade(3), min_neighbors=0, threads=4)
    expected = detector.detect(image).boxes.tolist()
    found = []

    def call():
        found.extend(detector.detect(image).boxes.tolist() for _ in range(5))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert found == [expected] * 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_has_threads_of_its_own():
    image = gray("camera", (160, 120))
    detector = vj.Detector(random_cascade(3), min_neighbors=0, threads=4)
    expected = detector.detect(image).boxes.tolist()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        again = pool.map_async(detector.detect, [image] * 6).get(timeout=60)
    assert [one.boxes.tolist() for one in again] == [expected] * 6


def test_a_process_ends_while_threads_wait_and_detects_to_the_end():
    script = """
import atexit, sys
sys.path.insert(0, "tests")
from cascades import random_cascade
from photos import gray
import vj
image = gray("camera", (160, 120))
detector = vj.Detector(random_cascade(3), threads=4)
atexit.register(lambda: print(len(detector.detect(image).boxes) == found))
found = len(detector.detect(image).boxes)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert (ended.stdout, ended.stderr) == ("True\n", "")
