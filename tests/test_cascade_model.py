import struct
from dataclasses import replace

import numpy as np
import pytest
from cascades import random_cascade, stump_cascade

from vj.cascade.haar import feature_pool
from vj.errors import InputError


def test_arrays_are_frozen_copies():
    cascade = random_cascade(0)
    with pytest.raises(ValueError, match="read-only"):
        cascade.leaves[0] = 1
    leaves = np.array(cascade.leaves)
    copy = replace(cascade, leaves=leaves)
    leaves[:] = 0
    assert copy == cascade


def test_equality_is_of_what_decides():
    cascade = random_cascade(0)
    assert replace(cascade, name="other", provenance={"a": "b"}) == cascade
    leaves = np.array(cascade.leaves)
    leaves[-1] = np.nextafter(leaves[-1], np.float32(9))
    assert replace(cascade, leaves=leaves) != cascade


def test_truncated_keeps_the_first_stages():
    cascade = random_cascade(0, nodes=(1, 2, 3), stages=5)
    short = cascade.truncated(2)
    assert short.n_stages == 2
    np.testing.assert_array_equal(short.stage_sizes, cascade.stage_sizes[:2])
    nodes = len(short.node_features)
    np.testing.assert_array_equal(
        short.features.rects[short.node_features], cascade.features.rects[cascade.node_features[:nodes]]
    )
    assert cascade.truncated(5).truncated(2) == short
    with pytest.raises(InputError, match="1 to 5 stages, got 6"):
        cascade.truncated(6)


def test_stage_limits_are_differences_in_single_precision():
    def single(value):
        return struct.unpack("f", struct.pack("f", value))[0]

    thresholds = [-5.042550086975098, -1.0, -1e-6, 0.0, 1e-5, 0.1, 7.0, 1e9]
    cascade = replace(random_cascade(0, stages=8), stage_thresholds=thresholds)
    assert cascade.stage_limits.dtype == np.float64
    assert cascade.stage_limits.tolist() == [single(single(t) - single(1e-5)) for t in thresholds]


def test_stages_and_trees_own_what_their_starts_say():
    stages = [([3], [0.5], [[1, -1]], 0.25), ([1, 2], [0.1, 0.2], [[2, -2], [3, -3]], -1.0)]
    cascade = stump_cascade((6, 6), feature_pool((6, 6)).take(range(4)), stages)
    assert (cascade.n_stages, cascade.n_trees, cascade.is_stumps, cascade.kind) == (2, 3, True, "haar")
    assert cascade.stage_sizes.tolist() == [1, 2]
    assert cascade.node_roots.tolist() == [0, 1, 2]
    assert cascade.node_depths.tolist() == [0, 0, 0]


def test_nodes_are_as_deep_as_their_longest_path():
    cascade = random_cascade(4, nodes=(1, 2, 3, 7))

    def walk(tree, node, depth, found):
        found[node] = max(found.get(node, 0), depth)
        for child in cascade.node_children[cascade.tree_starts[tree] + node]:
            if child > 0:
                walk(tree, int(child), depth + 1, found)
        return found

    expected = []
    for tree in range(cascade.n_trees):
        found = walk(tree, 0, 0, {})
        expected += [found[node] for node in range(len(found))]
    assert cascade.node_depths.tolist() == expected
    assert max(expected) > 2


CHANGES = {
    "window": ((2, 9), "3 to 1024 pixels"),
    "stage_thresholds": ([np.nan] * 4, "finite stage_thresholds"),
    "node_thresholds": (lambda a: a + np.inf, "finite node_thresholds"),
    "leaves": (lambda a: a[:-1], "leaves of shape"),
    "node_features": (lambda a: a + 40, "feature indexes 0 to 39"),
    "node_children": (lambda a: a * 0 + 1, "later nodes or leaves"),
    "stage_starts": (lambda a: a[::-1], "stage_starts of shape"),
    "tree_starts": (lambda a: a + 1, "tree_starts of shape"),
    "node_subsets": (np.zeros((3, 8)), "node_subsets of shape"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_out_of_range_is_refused(name):
    cascade = random_cascade(0)
    change, message = CHANGES[name]
    value = change(np.array(getattr(cascade, name))) if callable(change) else change
    with pytest.raises(InputError, match=message):
        replace(cascade, **{name: value})


@pytest.mark.parametrize("children", [[[0, -1], [0, -1]], [[1, 0], [1, -1]], [[1, 2], [0, -1]], [[1, 0], [-3, -1]]])
def test_trees_that_cycle_or_leave_themselves_are_refused(children):
    cascade = random_cascade(0, nodes=(2,), stages=1)
    changed = np.array(cascade.node_children)
    changed[:2] = children
    valid = children == [[0, -1], [0, -1]]
    if valid:
        replace(cascade, node_children=changed)
    else:
        with pytest.raises(InputError, match="later nodes or leaves"):
            replace(cascade, node_children=changed)
