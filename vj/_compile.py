"""The one way to compile a kernel: numba's ``njit`` with a cache that may fail without anything else failing.

Numba keeps compiled code in ``NUMBA_CACHE_DIR``, in ``__pycache__`` next to the source, or in the user's cache folder.
Where it may write to none of them (a package that root installed, run by another user; a read-only container) it raises
instead of compiling, and a full disk raises on the first call. Here the code is then kept in a folder of this user's
own below the temporary folder, or nowhere, and one warning says so.

The cache is read with pickle, so a folder that somebody else could have filled is never used.
"""

from __future__ import annotations

import inspect
import os
import stat
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache as once
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from vj._first_run import temporary_folder  # first, since numba takes its time

# isort: split
import numba
from numba.core import caching, serialize

from vj._system import on_compile
from vj.errors import CacheWarning

_said = threading.Event()

# Compiled code looks up the types of what it returns through this function and does not check the result. It is written
# in Python, so that a Ctrl-C that came during a kernel was raised inside it: the process crashed, or a SystemError took
# the interrupt's place. A cached call runs no Python.
if not hasattr(serialize._numba_unpickle, "cache_info"):
    serialize._numba_unpickle = lru_cache(maxsize=None)(serialize._numba_unpickle)


def _locator(name: str) -> Any:
    """Return one of numba's classes that know where a cache may be; up to 0.61 their names began with an underscore."""
    return getattr(caching, name, None) or getattr(caching, f"_{name}")


_UserProvided, _InTree = _locator("UserProvidedCacheLocator"), _locator("InTreeCacheLocator")
_UserWide = _locator("UserWideCacheLocator")


def njit(*, cache: bool = False, inner: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function as ``numba.njit`` does.

    Parameters
    ----------
    cache : bool
        Keep the compiled code for later processes, where that is possible.
    inner : bool
        Only compiled functions call it, so the wrapper that converts Python's objects is not compiled. Where arguments
        are tuples of arrays, the wrapper takes longer to compile than the function. A call from Python crashes the
        process.
    **options
        Those of ``numba.njit``.

    Warns
    -----
    CacheWarning
        Once in a process, if compiled code cannot be kept, or if a temporary folder was made for it.
    """
    # Nothing calls kernels from C.
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": inner}

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = numba.njit(**options)(function)
        # Where NUMBA_DISABLE_JIT is set, the function comes back as it is.
        if cache and hasattr(compiled, "enable_caching"):
            compiled._cache = _Cache(function)
        return compiled

    return decorate


def _say(message: str) -> None:
    """Warn, once in a process."""
    if not _said.is_set():
        _said.set()
        warnings.warn(f"{message}; NUMBA_CACHE_DIR can name another folder", CacheWarning, stacklevel=2)


class _UserLocator(_UserWide):  # type: ignore[misc, valid-type]
    """Numba's folder in the user's cache, unless it is another user's."""

    def ensure_cache_path(self) -> None:
        super().ensure_cache_path()
        _check_own(Path(self.get_cache_path()))


class _TemporaryLocator(_UserWide):  # type: ignore[misc, valid-type]
    """A folder of this user's own below the temporary folder."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = str(_temporary_folder() / self.get_suitable_cache_subpath(py_file))

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        try:
            return super().from_function(py_func, py_file)
        except OSError:
            return None


class _ReadOnlyLocator(_InTree):  # type: ignore[misc, valid-type]
    """The last resort: code that was compiled earlier is read from ``__pycache__``, nothing new can be kept."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        return cls(py_func, py_file)


@once
def _temporary_folder() -> Path:
    """Return the folder, made if missing.

    Raises
    ------
    OSError
        If it cannot be made, or is there and may be another user's.
    """
    folder = temporary_folder()
    try:
        folder.mkdir(mode=0o700)
        made = True
    except FileExistsError:
        made = False
    _check_own(folder)
    if made:
        _say(f"compiled code is kept in {folder}: the package and the user's cache cannot be written to")
    return folder


def _check_own(folder: Path) -> None:
    """Raise `OSError` unless a folder is this user's and not open to all.

    Windows has no such modes; its temporary folder is the user's own.
    """
    if not hasattr(os, "geteuid"):
        return
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
        raise PermissionError(f"{folder}: expected a folder of this user's own")


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes: ClassVar[list[type[object]]] = [  # type: ignore[misc]
        _UserProvided,
        _InTree,
        _UserLocator,
        _TemporaryLocator,
        _ReadOnlyLocator,
    ]


def _sources(function: Callable[..., Any]) -> set[str]:
    """Return the other files that a kernel's module takes kernels and classes from, and those that these come from.

    Numba looks at nothing but the kernel's own file.
    """
    found: set[str] = set()
    for value in function.__globals__.values():
        one: Any = value if inspect.isclass(value) else getattr(value, "py_func", getattr(value, "_defn", None))
        if str(getattr(one, "__module__", "")).partition(".")[0] == function.__module__.partition(".")[0]:
            found |= {inspect.getfile(one), *getattr(getattr(value, "_cache", None), "sources", ())}
    return found - {inspect.getfile(function)}


@once
def _time_and_size(name: str) -> tuple[float, int]:
    try:
        status = Path(name).stat()
    except OSError:
        return (0.0, 0)
    return (status.st_mtime, status.st_size)


class _Cache(caching.FunctionCache):
    """Numba's cache of one function: what it cannot read is compiled again, what it cannot write is not kept."""

    _impl_class = _Implementation

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._packaged = None
        self.sources = _sources(function)
        self._cache_file = self._index(self._cache_path, self._impl.locator)
        if isinstance(self._impl.locator, _UserLocator | _TemporaryLocator):
            # The package cannot be written to, but may have been run by who installed it, as in a container's image.
            tree = _InTree(function, inspect.getfile(function))
            self._packaged = self._index(tree.get_cache_path(), tree)

    def _index(self, folder: str, locator: Any) -> Any:
        """Return the index of a folder; what it names is out of date once any of the sources has changed."""
        stamp = locator.get_source_stamp()
        if self.sources:
            stamp = stamp, tuple((Path(name).name, *_time_and_size(name)) for name in sorted(self.sources))
        return caching.IndexDataCacheFile(folder, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # whatever a corrupt file makes pickle raise
            self._forget()
        if found is None:
            while on_compile:
                on_compile.pop()()
        return found

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super()._load_overload(sig, target_context)
        if found is None and self._packaged is not None:
            data = self._packaged.load(self._index_key(sig, target_context.codegen()))
            found = None if data is None else self._impl.rebuild(target_context, data)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            self._forget()
            _say(f"compiled code cannot be kept in {self.cache_path} ({error.strerror or error})")

    def _forget(self) -> None:
        """Remove the index: numba writes it before the code that it names, so that it may name older code."""
        with suppress(OSError):
            Path(self.cache_path, f"{self._impl.filename_base}.nbi").unlink()
