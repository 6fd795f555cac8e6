"""The public names are documented, and so is every type that they take or return."""

import dataclasses
import inspect
import re
import types
import typing

import pytest

import vj

NAMES = sorted(set(vj.__all__) - {"__version__"})


def test_the_documented_names_are_the_public_ones():
    assert sorted(set(re.findall(r"(?<!`)`(\w+)`(?!`)", vj.__doc__))) == NAMES
    assert set(dir(vj)) >= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_imported_and_has_a_docstring(name):
    one = getattr(vj, name)
    assert isinstance(one, int) or re.match(r"[A-Z][^\n]*[.:]$", one.__doc__.splitlines()[0])


def _types(annotation):
    """Every class that an annotation names."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        yield annotation
    for part in typing.get_args(annotation):
        # The arguments of a callable come as a list.
        for one in part if isinstance(part, list) else [part]:
            yield from _types(one)


def _callables(one):
    """A function; or what a class is built by, its public methods, and what its properties call."""
    if not inspect.isclass(one):
        yield one
        return
    for name in dir(one):
        member = inspect.getattr_static(one, name)
        ours = getattr(getattr(member, "fget", member), "__module__", None) or ""
        if name in ("__init__", "__getitem__", "__iter__") or (not name.startswith("_") and ours.startswith("vj")):
            yield getattr(member, "fget", None) or getattr(member, "__func__", None) or member


def _named(one):
    """Every class in the signatures and fields of a public function or class."""
    fields = set()
    if inspect.isclass(one):
        hints = typing.get_type_hints(one)
        fields = {field.name for field in dataclasses.fields(one)} if dataclasses.is_dataclass(one) else set(hints)
        for name in fields:
            if not name.startswith("_"):
                yield from _types(hints[name])
    for function in _callables(one):
        if inspect.isfunction(function):
            for name, hint in typing.get_type_hints(function).items():
                if not name.startswith("_"):
                    yield from _types(hint)


@pytest.mark.parametrize("name", [n for n in NAMES if not n.isupper()])
def test_every_type_taken_or_returned_is_public(name):
    ours = {t.__name__ for t in _named(getattr(vj, name)) if t.__module__.split(".")[0] == "vj"}
    assert ours <= set(NAMES)


def test_the_walk_finds_types_of_fields_methods_and_results():
    found = {t.__name__ for t in _named(vj.Detector)}
    assert {"Cascade", "Detections", "Hits", "WindowMap", "Cost", "Detector"} <= found
    assert "HaarFeatures" in {t.__name__ for t in _named(vj.Cascade)}
    assert "Detection" in {t.__name__ for t in _named(vj.Detections)}
