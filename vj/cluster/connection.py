"""Reaching a cluster: a scheduler at an address or workers of this machine, and whether they can do the work."""

from __future__ import annotations

import logging
import multiprocessing
import platform
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.versions import VersionMismatchWarning

from vj.cluster._warm import warm
from vj.errors import InputError

PACKAGES = ("vj", "numpy", "numba", "cv2", "fsspec", "dask", "distributed")
"""What every worker must have, in the version of this process: a row must not depend on which worker made it."""

MOST_LOCAL = 1024
"""Most workers of one machine."""

_LOCAL_SECONDS = 120.0
_LOCAL = re.compile(r"local:(\d+)")

_SETTINGS = {
    "distributed.worker.daemon": True,
    "distributed.worker.preload": ["vj.cluster._local_worker"],
    # After so many deaths a job comes back to us, who take it apart; see `vj.cluster.detection`.
    "distributed.scheduler.allowed-failures": 1,
    # A worker that has been stopped shows no sign of life; its nanny starts another one.
    "distributed.scheduler.worker-ttl": "30 s",
    # A worker that has not come back by then is replaced.
    "distributed.deploy.lost-worker-timeout": "10 s",
    # To workers that have just died, which nobody waits for longer.
    "distributed.comm.timeouts.connect": "10 s",
    "distributed.admin.log-format": "%(message)s",
}


@contextmanager
def connect(address: str, *, seconds: float = 20.0, packages: Sequence[str] = ()) -> Iterator[Client]:
    """Yield a client of a cluster whose workers can do the work.

    Parameters
    ----------
    address : str
        That of a scheduler, such as ``tcp://10.0.0.7:8786``, or ``local:N`` for N workers of this machine, each a
        process with one thread. They listen on this machine alone and end with the block.
    seconds : float
        How long to wait for a scheduler elsewhere, and for its first worker.
    packages : sequence of str
        Modules that workers need besides those of `PACKAGES`.

    Yields
    ------
    distributed.Client

    Raises
    ------
    InputError
        If there is no scheduler or no worker, or a worker lacks a package or has another version of one.
    """
    found = _LOCAL.fullmatch(address)
    if address.startswith("local") and (found is None or not 1 <= int(found[1]) <= MOST_LOCAL):
        raise InputError(f"expected local:N with 1 to {MOST_LOCAL} workers, got {address!r}")
    with warnings.catch_warnings():
        # What it warns of is refused below.
        warnings.simplefilter("ignore", VersionMismatchWarning)
        with _local(int(found[1])) if found else _remote(address, seconds) as client:
            # Workers of this machine will come, be it slowly.
            check(client, max(seconds, _LOCAL_SECONDS) if found else seconds, packages)
            yield client


@contextmanager
def _remote(address: str, seconds: float) -> Iterator[Client]:
    quiet = logging.getLogger("distributed")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    client = None
    try:
        try:
            client = Client(address, timeout=seconds, set_as_default=False)
        except (OSError, ValueError, TypeError, ImportError) as error:
            reason = "nothing that answers" if isinstance(error, OSError) else _line(error)
            raise InputError(f"{address}: expected the address of a Dask scheduler, got {reason}") from None
        yield client
    finally:
        if client is not None:
            client.close(timeout=5)
        quiet.setLevel(level)


@contextmanager
def _local(workers: int) -> Iterator[Client]:
    """Start workers on this machine, forked from a process that has the kernels loaded."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    # Here first: it may have to compile, which only one process should do.
    warm()
    if forks:
        from multiprocessing import forkserver

        multiprocessing.set_forkserver_preload(["vj.cluster._warm_forks"])
        forkserver.ensure_running()
    method = {"distributed.worker.multiprocessing-method": "forkserver" if forks else "spawn"}
    with (
        dask.config.set(_SETTINGS | method),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        _kept(cluster, workers),
    ):
        yield client


@contextmanager
def _kept(cluster: LocalCluster, workers: int) -> Iterator[None]:
    """Replace workers that are lost: a nanny gives up if its worker is killed while it starts."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(1.0):
            with suppress(Exception):
                cluster.scale(workers)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def versions_here(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of packages here; for one that is missing the error, in brackets."""
    return _versions()(packages)


def _versions() -> Callable[[Sequence[str]], dict[str, str]]:
    # A function inside a function travels as code: a worker without this package can run it, too.
    def versions(packages: Sequence[str]) -> dict[str, str]:
        import importlib
        import platform

        found = {"python": ".".join(platform.python_version_tuple()[:2])}
        for name in packages:
            try:
                module = importlib.import_module(name)
                found[name] = str(module.__version__)
            except Exception as error:
                found[name] = f"({type(error).__name__}: {error})"
        return found

    return versions


def check(client: Client, seconds: float = 20.0, packages: Sequence[str] = ()) -> None:
    """Refuse a cluster whose workers cannot do the work, before any of it starts.

    Parameters
    ----------
    client : distributed.Client
    seconds : float
        How long to wait for the first worker.
    packages : sequence of str
        Modules that workers need besides those of `PACKAGES`.

    Raises
    ------
    InputError
        If there is no worker, or one lacks a package or has another version of one than this process.
    """
    address = client.scheduler.address if client.scheduler is not None else "the cluster"
    try:
        client.wait_for_workers(1, timeout=seconds)
    except (TimeoutError, OSError):
        raise InputError(f"{address}: expected a scheduler with workers, got none within {seconds:g} s") from None
    wanted = (*PACKAGES, *packages)
    own = versions_here(wanted)
    if missing := next((name for name in wanted if own[name].startswith("(")), None):
        raise InputError(f"expected the packages of vj[cluster] here, got no {missing} {own[missing]}")
    try:
        answers = client.run(_versions(), wanted, on_error="return")
        scheduler = client.run_on_scheduler(_versions(), ("dask", "distributed"))
    except Exception as error:  # whatever another version makes of our message
        raise InputError(
            f"{address}: expected workers with Python {platform.python_version()} and distributed "
            f"{own['distributed']} as here, got {_line(error)}"
        ) from None
    for where, found in [(f"{address} (scheduler)", scheduler), *sorted(answers.items())]:
        if text := disagreement(own, found):
            raise InputError(f"{where}: {text}")


def disagreement(own: dict[str, str], found: Any) -> str:
    """Return what a worker lacks or has in another version, as one line; empty if nothing.

    Parameters
    ----------
    own, found : dict
        Versions as `versions_here` returns them; `found` may also be the exception that asking raised.
    """
    if not isinstance(found, dict):
        return f"expected a worker that answers, got {_line(found)}"
    for name, version in found.items():
        if version.startswith("("):
            return f"expected a worker with the package {name}, got none {version}"
        if own[name] != version:
            return f"expected {name} {own[name]} as here, got {version}"
    return ""


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
