"""Who may import whom, and how functions are compiled, read from the source itself."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vj"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# Our own modules that each room may import; a room that is not listed here fails, so that a new one is thought about.
# What every room may use: the one exception, writing a file whole, shared types, the machine, compiling, and what a
# notebook shows.
_BASE = {"errors", "_files", "_types", "_system", "_compile", "_notebook"}
_RUNTIME = {"cascade", "scanning", "detections", "detector", "images"}
ALLOWED = {
    "__init__": {"_version", "cv2_compat", "boosting", "masking", "smoothing"} | _RUNTIME,
    "__main__": {"cli"},
    "_version": set(),
    "errors": set(),
    "_files": set(),
    "_types": set(),
    "_system": set(),
    "_notebook": set(),
    "_compile": {"_first_run"},
    "_first_run": set(),
    "images": set(),
    "cascade": {"cascade"},
    "scanning": {"cascade", "scanning"},
    "detections": set(),
    "detector": _RUNTIME,
    "rows": _RUNTIME,
    "masking": {"detections"},
    "smoothing": {"detections", "evaluation"},
    # Video files and cameras in, video files out; a folder of images is a source too.
    "videos": {"images", "videos"},
    "video_files": set(),
    "_cv2_arguments": {"cascade", "images"},
    "cv2_compat": _RUNTIME | {"_cv2_arguments"},
    # The trainer writes its own name and version into the files that it makes, and leaves plots next to them.
    "boosting": _RUNTIME | {"boosting", "datasets", "plotting", "_version"},
    "datasets": {"images", "datasets"},
    "evaluation": _RUNTIME | {"evaluation", "datasets"},
    # Above the detector, below the command line; nothing below knows it.
    "tiers": _RUNTIME | {"tiers", "evaluation"},
    # Beside the command line: nothing else knows it, so that nothing needs its packages.
    "cluster": _RUNTIME | {"cluster", "boosting", "datasets", "rows", "_version"},
    "plotting": _RUNTIME | {"evaluation", "tiers"},
    # Pages read what training and measuring return, as plots do, and say which version made them.
    "html": _RUNTIME | {"html", "boosting", "evaluation", "_version"},
}
# Packages from outside that only one place may import.
ONLY_IN = {
    "matplotlib": {"plotting"},
    "tqdm": {"cli"},
    "argparse": {"cli"},
    "defusedxml": {"datasets"},
    "yaml": {"datasets"},
    "av": {"videos"},
    "numba.njit": {"_compile"},
    "dask": {"cluster"},
    "distributed": {"cluster"},
    "fsspec": {"cluster"},
    "pyarrow": {"cluster"},
    "supervision": {"detections"},
    "shtab": {"cli"},
}
# Imported inside functions there, so that `--help` never waits for them.
HEAVY = {
    "numba",
    "cv2",
    "matplotlib",
    "skimage",
    "scipy",
    "tqdm",
    "dlib",
    "supervision",
    "shtab",
    "av",
    "dask",
    "distributed",
}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(tree: ast.AST) -> list[str]:
    """Dotted names imported anywhere in the tree, the `from` part with each of its names."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _ids(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=_ids)
def test_imports_only_what_its_room_may(path):
    room = _room(path)
    for name in _imports(_parse(path)):
        parts = name.split(".")
        if parts[0] == "vj" and room != "cli":
            # `from vj import x` names the package itself; only its version is light enough to want.
            assert parts[1] in ALLOWED[room] | _BASE, f"{room} imports vj.{parts[1]}"
        for only in {parts[0], name} & set(ONLY_IN):
            assert room in ONLY_IN[only], f"{room} imports {only}"
        assert parts[0] not in {"training", "data", "benchmarks", "tests"}


@pytest.mark.parametrize("path", [p for p in MODULES if _room(p) == "cli"], ids=_ids)
def test_command_line_imports_nothing_heavy_at_the_top(path):
    top = ast.Module([n for n in _parse(path).body if isinstance(n, ast.Import | ast.ImportFrom)], [])
    for name in _imports(top):
        parts = name.split(".")
        assert parts[0] not in HEAVY
        assert parts[0] != "vj" or parts[1] in {"_version", "errors", "_files", "_system", "cli"}, (
            f"{name} at the top of {path.name}"
        )


@pytest.mark.parametrize("path", [p for p in MODULES if _room(p) != "cli"], ids=_ids)
def test_only_the_command_line_prints_and_exits(path):
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"print", "sys.exit", "exit", "input", "os._exit"}


def _is_compiled(node: ast.FunctionDef) -> bool:
    return any("njit" in ast.unparse(d) or "intrinsic" in ast.unparse(d) for d in node.decorator_list)


@pytest.mark.parametrize("path", MODULES, ids=_ids)
def test_compiled_functions_are_exact_and_leave_threads_to_python(path):
    for kernel in [n for n in _parse(path).body if isinstance(n, ast.FunctionDef) and _is_compiled(n)]:
        decorators = " ".join(ast.unparse(d) for d in kernel.decorator_list)
        assert "parallel=True" not in decorators and "fastmath" not in decorators
