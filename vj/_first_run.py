"""On import, says that kernels will be compiled if no cache holds any; imported before numba.

Importing numba and preparing the first kernel take seconds on a busy machine, in which nothing would be said. Where a
cache holds some kernels but not the one needed, the notice comes when that is found out, see `vj._compile`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vj._system import on_compile

PACKAGE = Path(__file__).resolve().parent


def caches() -> Iterator[Path]:
    """Yield the index files of compiled kernels, in all places where `vj._compile` may have put them."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield from Path(given).glob("scanning_*/*.nbi")
        return
    import platformdirs

    yield from PACKAGE.glob("*/__pycache__/*.nbi")
    for folder in (platformdirs.user_cache_path("numba", appauthor=False), temporary_folder()):
        yield from folder.glob("scanning_*/*.nbi")


def temporary_folder() -> Path:
    """Return the folder for this user's compiled code below the temporary folder, which need not be there."""
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    return Path(tempfile.gettempdir()) / f"vj-compiled-{user}"


def _announce() -> None:
    if not on_compile or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return
    try:
        compiled = any(caches())
    except OSError:
        # A folder that may not be read; numba finds out.
        return
    while on_compile and not compiled:
        on_compile.pop()()


_announce()
