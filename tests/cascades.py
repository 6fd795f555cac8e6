"""Cascades for tests: stock ones where OpenCV has them, and small random ones of every shape."""

import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import skimage

from vj.cascade.haar import HaarFeatures, feature_pool
from vj.cascade.lbp import lbp_pool
from vj.cascade.model import Cascade
from vj.cascade.soft import SoftThresholds
from vj.errors import InputError

LBP_FILE = Path(skimage.__file__).parent / "data" / "lbpcascade_frontalface_opencv.xml"


@cache
def stock(name):
    """A cascade by name, read once."""
    import vj

    return vj.load(name)


def random_cascade(seed, *, kind="basic", nodes=(1,), window=(8, 9), stages=4, fractions=False):
    """A cascade of random trees whose node counts are drawn from `nodes`, with thresholds near the middle.

    `kind` is a pool, ``lbp`` or ``odd``: rectangles and weights that no template has, with corners in common.
    `fractions` gives features weights that are no integers.
    """
    rng = np.random.default_rng(seed)
    pool = lbp_pool(window) if kind == "lbp" else feature_pool(window, "all" if kind == "odd" else kind)
    features = pool.take(rng.choice(len(pool), 40))
    if kind == "odd":
        rects = np.array(features.rects)
        # The first rectangle again, or one next to it, as second: corners that meet, cancel or double.
        rects[::2, 1] = rects[::2, 0]
        rects[1::4, 1, 2:] = rects[1::4, 0, 2:] - rects[1::4, 1, :2] + rects[1::4, 0, :2]
        weights = np.array(features.weights)
        weights[:, 1] = rng.choice([-1, 1, 2, 3], len(weights))
        rects[:, :, 2:] = np.maximum(rects[:, :, 2:], 1) * (weights != 0)[:, :, None]
        odd = HaarFeatures(rects, weights, features.tilted)
        features = odd.take([i for i in range(len(odd)) if _fits(odd.take([i]), window)])
    if fractions:
        scale = rng.uniform(0.5, 1.5, (len(features), 1)).astype(np.float32)
        features = HaarFeatures(features.rects, features.weights * scale, features.tilted)
    sizes, children = [], []
    stage_sizes = rng.integers(1, 6, stages)
    for _ in range(stage_sizes.sum()):
        size = int(rng.choice(nodes))
        slots = _random_tree(rng, size)
        sizes.append(size)
        children.extend(slots)
    n_nodes, n_trees = len(children), len(sizes)
    lbp = kind == "lbp"
    leaves = rng.normal(0, 1, n_nodes + n_trees).astype(np.float32)
    return Cascade(
        window=window,
        features=features,
        stage_starts=np.concatenate([[0], np.cumsum(stage_sizes)]),
        stage_thresholds=rng.normal(-0.8, 0.3, stages),
        tree_starts=np.concatenate([[0], np.cumsum(sizes)]),
        node_features=rng.integers(0, len(features), n_nodes),
        node_children=children,
        node_thresholds=np.zeros(n_nodes) if lbp else rng.normal(0, 0.3 if kind == "odd" else 0.02, n_nodes),
        node_subsets=rng.integers(-(2**31), 2**31, (n_nodes if lbp else 0, 8)),
        leaves=leaves,
        name=f"random {seed}",
    )


def softened(cascade, seed, share=0.5):
    """The cascade with soft thresholds after a random share of its weak classifiers that do not end a stage."""
    rng = np.random.default_rng(seed)
    inside = np.setdiff1d(np.arange(cascade.n_trees), cascade.stage_starts[1:] - 1)
    trees = np.sort(rng.choice(inside, max(1, int(share * len(inside))), replace=False))
    return replace(cascade, soft=SoftThresholds(trees, rng.normal(-0.8, 0.5, len(trees))))


def chained(cascade, links):
    """The cascade with the weak classifiers of the stage before put in front of each stage that `links` says."""
    stages = []
    for k, (first, end) in enumerate(itertools.pairwise(cascade.stage_starts.tolist())):
        stages.append([*(stages[-1] if links[k] else []), *range(first, end)])
    trees = np.concatenate(stages)
    sizes = np.diff(cascade.tree_starts)
    nodes = np.concatenate([np.arange(*cascade.tree_starts[t : t + 2]) for t in trees])
    # A tree has one leaf more than it has nodes.
    leaves = np.concatenate([np.arange(cascade.tree_starts[t] + t, cascade.tree_starts[t + 1] + t + 1) for t in trees])
    return replace(
        cascade,
        stage_starts=np.concatenate([[0], np.cumsum([len(stage) for stage in stages])]),
        tree_starts=np.concatenate([[0], np.cumsum(sizes[trees])]),
        node_features=cascade.node_features[nodes],
        node_children=cascade.node_children[nodes],
        node_thresholds=cascade.node_thresholds[nodes],
        node_subsets=cascade.node_subsets[nodes] if cascade.kind == "lbp" else cascade.node_subsets,
        leaves=cascade.leaves[leaves],
    )


def stump_cascade(window, features, stages):
    """A cascade of stumps on Haar-like features, from (features, thresholds, leaves, stage threshold) of each stage."""
    sizes = [len(used) for used, *_ in stages]
    n = sum(sizes)
    return Cascade(
        window=window,
        features=features,
        stage_starts=np.concatenate([[0], np.cumsum(sizes)]),
        stage_thresholds=[limit for *_, limit in stages],
        tree_starts=np.arange(n + 1),
        node_features=np.concatenate([used for used, *_ in stages]),
        node_children=np.tile([0, -1], (n, 1)),
        node_thresholds=np.concatenate([thresholds for _, thresholds, *_ in stages]),
        node_subsets=np.zeros((0, 8)),
        leaves=np.concatenate([np.ravel(leaves) for _, _, leaves, _ in stages]),
    )


def _fits(features, window):
    try:
        features.check(window)
    except InputError:
        return False
    return True


def _random_tree(rng, size):
    """Children of a random tree: node by node, each new one takes a free place of an earlier one."""
    places = [[0, side] for side in (0, 1)]
    children = [[None, None] for _ in range(size)]
    for node in range(1, size):
        parent, side = places.pop(rng.integers(len(places)))
        children[parent][side] = node
        places += [[node, 0], [node, 1]]
    leaf = 0
    for pair in children:
        for side in (0, 1):
            if pair[side] is None:
                pair[side] = -leaf
                leaf += 1
    return children


def same_value(ours, theirs):
    """Compare in value, type, dtype and shape, also inside tuples and lists."""
    assert type(ours) is type(theirs), f"{ours!r} for {theirs!r}"
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same_value(a, b)
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs
