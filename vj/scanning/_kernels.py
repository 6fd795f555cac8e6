"""The compiled scan, twice: window by window, and eight neighbouring windows at a time in vector registers.

`scan_plain` is the definition: one window after the other, float64 sums in file order. `scan_lanes` returns the same
hits and counts of windows several times faster. It owes its speed to four things:

- Eight neighbouring windows are the lanes of a vector. A vector is worked on as long as one of its lanes is alive, four
  vectors at a time, so that what a weak classifier needs (offsets, threshold) is read once for 32 windows and the four
  chains of arithmetic overlap. Numba does not vectorise such short loops by itself: the vector types below emit LLVM
  vectors, which every processor supports.
- A feature's look-ups are merged: an edge feature has six different corners, not eight. With small integer weights the
  value is an exact integer, whatever the order.
- Where that integer fits 16 bits, as 94 % or more of the stock cascades' do, the lower halves of the integral image's
  entries give it, modulo 2**16: loads of half the size, which rarely cross a cache line.
- A stage's leaves are rounded to 32-bit integers. The rounding errors are bounded, so a lane is decided whenever its
  sum is further than the bound from the stage limit; the few others (about one in a million) are summed exactly.

Both run a stage in parts: a part ends where the sum so far meets a soft threshold, the last one at the stage limit.
Without soft thresholds each stage is one part.

Loads inside the vector helpers are not seen by ``NUMBA_BOUNDSCHECK``: the plain scan is what runs in that mode.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from vj._compile import njit
from vj.cascade.haar import MIN_DEVIATION
from vj.cascade.lbp import RING

_RING_CORNERS = np.array([4 * row + column for row, column in RING])
"""Top left corner of each outer cell among the 16 corners of an LBP feature."""

# --- one window at a time ----------------------------------------------------------------------------------------


class Visit(NamedTuple):
    """Which windows of a grid are visited, where not all are; see `Marks` of _levels.py.

    In the grids of coarse scales all are, and those that pass `stages` stages are marked. In `fine` ones only marked
    windows are; in vectors those are scanned by `scan_listed`. Window (r, i) is bit ``i % 8`` of
    ``marks[first + r * width + i // 8]``.
    """

    fine: bool
    stages: int
    marks: Any
    first: int
    width: int


@njit(cache=True, nogil=True)
def scan_plain(planes, grid, tables, offsets, skip, visit, results, counts):
    """Scan a grid of windows; return the results and the number of windows visited.

    `skip` says whether the right neighbour of a window that the first stage rejected is left out; `visit` is a `Visit`,
    or None to visit all others. `results` are an array of hits (row, column), one of their sums, and how many are in
    use: new hits are added, in row order, and the arrays returned are larger ones if they had no room. `counts` is a
    pair of int64 arrays, to which the windows that enter each stage and, unless their array is empty, the features
    evaluated in it are added: a feature for each node that a window meets on its way through a tree, so that a stump
    evaluates one.
    """
    hits, hit_sums, found = results
    sums, squares = planes.sums, planes.squares
    entered = counts[0]
    features = counts[1] if len(counts[1]) else np.zeros(len(tables.limits), np.int64)
    visited = 0
    n_stages = len(tables.limits)
    fine = False if visit is None else visit.fine
    for r in range(grid.rows):
        i = 0
        while i < grid.columns:
            if visit is not None:
                place, bit = visit.first + r * visit.width + i // LANES, np.uint8(1 << i % LANES)
                if fine and not visit.marks[place] & bit:
                    i += 1
                    continue
            visited += 1
            base = r * grid.row_step + i
            depth, total, _ = _run_window(sums, squares, base, grid, tables, offsets, features)
            for stage in range(min(depth + 1, n_stages)):
                entered[stage] += 1
            if visit is not None and not fine and depth >= min(visit.stages, n_stages):
                visit.marks[place] |= bit
            if depth == n_stages:
                hits, hit_sums = _room_for(hits, hit_sums, found, np.int64(1))
                hits[found, 0] = r
                hits[found, 1] = i
                hit_sums[found] = total
                found += 1
            i += 2 if skip and not fine and depth == 0 else 1
    return hits, hit_sums, found, visited


@njit(cache=True, inner=True)
def _room_for(hits, sums, found, more):
    """Return arrays with room for more hits: the same, or larger ones that begin with the hits found."""
    if found + more <= len(sums):
        return hits, sums
    size = max(2 * len(sums), found + more)
    new_hits, new_sums = np.empty((size, 2), np.int32), np.empty(size, np.float64)
    # In a loop: an assignment of slices compiles all that it takes to say that their shapes differ.
    for k in range(found):
        new_hits[k, 0] = hits[k, 0]
        new_hits[k, 1] = hits[k, 1]
        new_sums[k] = sums[k]
    return new_hits, new_sums


@njit(cache=True, nogil=True)
def depths_plain(sums, squares, grid, tables, offsets, depth, last_sum, last_limit):
    """Fill `depth` (int16), `last_sum` and `last_limit` (float64), each (rows, columns), for every window of the grid.

    The limit is the one that the sum was last compared with.
    """
    features = np.zeros(len(tables.limits), np.int64)
    for r in range(grid.rows):
        for i in range(grid.columns):
            base = r * grid.row_step + i
            found, total, limit = _run_window(sums, squares, base, grid, tables, offsets, features)
            depth[r, i] = found
            last_sum[r, i] = total
            last_limit[r, i] = limit


@njit(cache=True, nogil=True)
def part_sums_plain(sums, squares, grid, tables, offsets, out):
    """Fill `out` (rows, n_parts) with the sum of the first window of every row at the end of each part.

    Minus infinity where the window does not get to.
    """
    for r in range(grid.rows):
        base = r * grid.row_step
        out[r, :] = -np.inf
        norm = np.float32(1) if tables.lbp else _norm(sums, squares, base, grid.corners, tables.area)
        if norm == 0:
            continue
        total = 0.0
        for part in range(len(tables.part_limits)):
            first, last = tables.part_starts[part], tables.part_starts[part + 1]
            if tables.restarts[part]:
                total = 0.0
            total, _ = _add_trees(sums, base, norm, first, last, total, tables, offsets)
            out[r, part] = total
            if total < tables.part_limits[part]:
                break


@njit(cache=True, inner=True)
def _run_window(sums, squares, base, grid, tables, offsets, features):
    """Return the depth of a window (-1 if it is flat), its last sum and the limit of that; count the features."""
    norm = np.float32(1) if tables.lbp else _norm(sums, squares, base, grid.corners, tables.area)
    if norm == 0:
        return -1, 0.0, 0.0
    total = 0.0
    stage = -1
    for part in range(len(tables.part_limits)):
        if tables.first_parts[part]:
            stage += 1
        if tables.restarts[part]:
            total = 0.0
        first, last = tables.part_starts[part], tables.part_starts[part + 1]
        total, evaluated = _add_trees(sums, base, norm, first, last, total, tables, offsets)
        features[stage] += evaluated
        if total < tables.part_limits[part]:
            return stage, total, tables.part_limits[part]
    return stage + 1, total, tables.part_limits[-1]


@njit(cache=True, inner=True)
def _norm(sums, squares, base, corners, area):
    """1 / (area * standard deviation) of the inner rectangle as float32; 0 where the window is too flat to be scanned.

    See `MIN_DEVIATION`; OpenCV compares the rounded norm, not the deviation.
    """
    a, b, c, d = base + corners[0], base + corners[1], base + corners[2], base + corners[3]
    total = np.int32(sums[a] - sums[b] - sums[c] + sums[d])
    square = np.uint32(squares[a] - squares[b] - squares[c] + squares[d])
    variance = area * np.float64(square) - np.float64(total) * np.float64(total)
    norm = np.float32(1.0 / np.sqrt(max(variance, 1.0)))
    return norm if variance > 0 and area * np.float64(norm) < 1.0 / MIN_DEVIATION else np.float32(0)


@njit(cache=True, inner=True)
def _add_trees(sums, base, norm, first, last, total, tables, offsets):
    """Add the leaves of some trees for one window: float64, in file order, as OpenCV adds them; and count features."""
    evaluated = 0
    for tree in range(first, last):
        # One type throughout, or `_goes_left` is compiled for two.
        root = np.int64(tables.tree_starts[tree])
        node = root
        while True:
            evaluated += 1
            side = 0 if _goes_left(sums, base, norm, node, tables, offsets) else 1
            child = tables.node_children[node, side]
            if child <= 0:
                break
            node = root + child
        total += np.float64(tables.leaves[root + tree - child])
    return total, evaluated


@njit(cache=True, inner=True)
def _goes_left(sums, base, norm, node, tables, offsets):
    """Whether the window at `base` goes left at a node."""
    feature = tables.node_features[node]
    if tables.lbp:
        centre = _cell(sums, base, offsets[feature], 5)
        code = 0
        for k in range(8):
            code |= (_cell(sums, base, offsets[feature], _RING_CORNERS[k]) >= centre) << (7 - k)
        return (tables.node_subsets[node, code >> 5] >> (code & 31)) & 1 == 1
    value = np.float32(0)
    for k in range(3):
        o = offsets[feature, 4 * k : 4 * k + 4]
        total = np.int32(sums[base + o[0]] - sums[base + o[1]] - sums[base + o[2]] + sums[base + o[3]])
        value = np.float32(value + np.float32(tables.weights[feature, k] * np.float32(total)))
    return np.float32(value * norm) < tables.node_thresholds[node]


@njit(cache=True, inner=True)
def _cell(sums, base, o, k):
    """Sum of one cell of an LBP feature, from the 4x4 grid of cell corners."""
    return np.int32(sums[base + o[k]] - sums[base + o[k + 1]] - sums[base + o[k + 4]] + sums[base + o[k + 5]])


# --- eight windows at a time -------------------------------------------------------------------------------------

LANES = 8
"""Windows in a vector. With 16 the first stages took a third less, but the later ones, where one or two windows of a
vector are alive whatever its width, a fifth more."""
BATCH = 4
"""Vectors handled together, so that 32 bits hold a flag for each lane."""
PAIRS = BATCH // 2
"""A batch may also be given as two pairs of neighbouring vectors, as in the first stage: 16-bit features of 16
neighbours are half the instructions of those of 8 (a tenth of the stage's time). In later stages, where one of a pair
is often dead, pairs gained one or two per cent and were left out."""
WIDTH = np.uintp(LANES)
ALL = np.uint32((1 << LANES) - 1)

EDGE, LINE, CHECKER, WIDE, GENERAL = 0, 1, 2, 3, 4
"""How a feature's look-ups are merged: 6 corners; 8 with one multiplier; 9 with a sign, these in 16 bits; 8 with one
multiplier in 32 bits; 12 with float weights."""
KINDS = 5

RECORD, LBP_RECORD = np.uintp(16), np.uintp(32)
"""32-bit entries a node has in the lane scan's table: one or two cache lines."""
THRESHOLD, DELTA, MULTIPLIER, PLACE = np.uintp(12), np.uintp(13), np.uintp(14), np.uintp(15)
"""Entries of a Haar record after its corners: float32 threshold, left leaf minus right one of a stump, factor of a
line or sign of a checker, and the word of the scratch space that holds the lanes which reach the node."""
WEIGHT, FORM = np.uintp(13), np.uintp(11)
"""Entries of a row of `LaneTables.walk` after its corners and threshold: three float32 weights, or the integer weight
of a line, where the entry `FORM`, otherwise the last corner, is negative."""
LBP_SUBSET, LBP_DELTA, LBP_PLACE = 16, np.uintp(24), np.uintp(25)
"""Entries of an LBP record after its corners: the eight words of the set, and the same as of a Haar record."""

TILE = 2048
"""Vectors in a tile, which goes through the stages before the next one begins: enough to fill batches up to the last
stages (4 rows instead of 16 cost 7 % on a VGA image), few enough for the planes to stay in the second-level cache (64
rows instead of 16 cost 35 % on a 1080p image)."""

I16, I32 = ir.IntType(16), ir.IntType(32)
F32, F64 = ir.FloatType(), ir.DoubleType()
_ELEMENTS = {"i16": I16, "i32": I32, "f32": F32, "f64": F64}


class LaneTables(NamedTuple):
    """The cascade as `scan_lanes` reads it: arrays, which compiled code is given as addresses, see `lane_words`.

    Where each array is an argument, a tuple of them takes longer to compile than what is done with it, once for every
    number of cascades.

    A part of a stage, see `PlainTables`, has a segment for each depth of its trees, one if they are stumps: `segments`
    (n_parts + 1,) says which. A segment's nodes are sorted by kind; `ends` (n_segments, KINDS + 1) holds the first one
    and those after the last of each kind. `records` has a row of 32-bit numbers for each node, see `RECORD`. Leaves are
    in units of their sum; `bases` is what a part adds to a sum to start with, `high` and `low` are the sums at which
    a window surely and perhaps passes. The first stage has `first_stage` parts. `parts` (n_parts, 4) holds the first
    tree of a part, the one after its last, the first of its sum, and whether the part begins a stage.

    What is summed exactly is read node by node in file order: `walk` holds the corners, the threshold and the weights
    of a Haar-like feature, see `WEIGHT`, or the corners and the set of an LBP feature; `links` (n_nodes, 2) the next
    node on either side, or ``~leaf``; `leaves` and `roots` are the cascade's; `limits` (n_parts,) decide. `area` is
    that of the norm's rectangle.
    """

    lbp: Any
    n_stages: Any
    n_parts: Any
    first_stage: Any
    scratch: Any
    area: Any
    segments: Any
    ends: Any
    bases: Any
    low: Any
    high: Any
    records: Any
    weights: Any
    parts: Any
    limits: Any
    walk: Any
    links: Any
    leaves: Any
    roots: Any
    units: Any


def lane_words(tables: LaneTables) -> Any:
    """Return tables as a row of numbers, arrays as their addresses: good as long as the arrays are kept."""
    return np.array([v.ctypes.data if isinstance(v, np.ndarray) else int(v) for v in tables], dtype=np.uintp)


class _Block(types.Type):
    """`vectors` vectors of eight numbers."""

    def __init__(self, element: str, vectors: int) -> None:
        self.element, self.vectors = element, vectors
        super().__init__(name=f"Block({element}, {vectors})")


@register_model(_Block)
class _BlockModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.ArrayType(_vector(kind.element), kind.vectors))


def _map(context, builder, kind, operation, *blocks):
    """Apply `operation` to vector after vector of some blocks and collect the results in a block of `kind`."""
    result = cgutils.get_null_value(context.get_value_type(kind))
    for g in range(kind.vectors):
        vector = operation(*(builder.extract_value(block, g) for block in blocks))
        result = builder.insert_value(result, vector, g)
    return result


def _vector(element: str, lanes: int = LANES):
    return ir.VectorType(_ELEMENTS[element], lanes)


def _pointer(builder, address, element="i32"):
    return builder.inttoptr(address, _ELEMENTS[element].as_pointer())


def _load_vector(builder, pointer, index, element, lanes=LANES):
    place = builder.bitcast(builder.gep(pointer, [index]), _vector(element, lanes).as_pointer())
    loaded = builder.load(place)
    loaded.align = 2 if element == "i16" else 4
    return loaded


def _splat(builder, scalar, element, lanes=LANES):
    vector = ir.Constant(_vector(element, lanes), ir.Undefined)
    vector = builder.insert_element(vector, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def _collect(context, builder, kind, vector_of):
    result = cgutils.get_null_value(context.get_value_type(kind))
    for g in range(kind.vectors):
        result = builder.insert_value(result, vector_of(g), g)
    return result


def _vectors(builder, kind, block):
    return [builder.extract_value(block, g) for g in range(kind.vectors)]


def _bits(builder, masks):
    """Join masks of lanes to one 32-bit number."""
    bits = ir.Constant(I32, 0)
    for g, mask in enumerate(masks):
        byte = builder.zext(builder.bitcast(mask, ir.IntType(LANES)), I32)
        bits = builder.or_(bits, builder.shl(byte, ir.Constant(I32, g * LANES)))
    return bits


@intrinsic
def _address(typing, array):
    """Return where an array's data are. The caller keeps the array alive.

    Inside the loops arrays are addresses: numba counts references to an array whenever it is passed on, which cost ten
    times what the arithmetic does (4.5 against 0.4 ns per weak classifier and window).
    """

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.uintp))

    return types.uintp(array), generate


def _reader(element, kind):
    """Make an intrinsic that reads one number at an index from an address."""

    def read(typing, address, index):
        def generate(context, builder, signature, args):
            return builder.load(builder.gep(_pointer(builder, args[0], element), [args[1]]))

        return kind(address, index), generate

    return intrinsic(read)


_int_at = _reader("i32", types.int32)
_float_at = _reader("f32", types.float32)
_double_at = _reader("f64", types.float64)


@njit(inline="always")
def _corner(sums, base, walk, first, k):
    """Entry of the integral image at corner k of the row of `walk` that begins at `first`."""
    return _int_at(sums, base + np.uintp(_int_at(walk, first + np.uintp(k))))


@njit(cache=True, inner=True)
def _walk_sum(sums, walk, links, leaves, base, norm, roots, first_tree, last_tree):
    """Do what `_add_trees` does from zero for Haar-like features, from addresses; see `LaneTables.walk`.

    Twenty times as fast: what takes the plain one's time is numba's counting of references to the arrays of the tables.
    """
    total = 0.0
    for tree in range(first_tree, last_tree):
        node = np.int64(_int_at(roots, np.uintp(tree)))
        while node >= 0:
            first = np.uintp(node) * RECORD
            value = np.float32(0)
            if _int_at(walk, first + FORM) < 0:
                ones = _corner(sums, base, walk, first, 0) - _corner(sums, base, walk, first, 2)
                ones += _corner(sums, base, walk, first, 1) - _corner(sums, base, walk, first, 3)
                more = _corner(sums, base, walk, first, 4) - _corner(sums, base, walk, first, 6)
                more += _corner(sums, base, walk, first, 5) - _corner(sums, base, walk, first, 7)
                value = np.float32(np.int32(ones + _int_at(walk, first + WEIGHT) * more))
            else:
                for k in range(0, 12, 4):
                    area = _corner(sums, base, walk, first, k) - _corner(sums, base, walk, first, k + 1)
                    area += _corner(sums, base, walk, first, k + 3) - _corner(sums, base, walk, first, k + 2)
                    weight = _float_at(walk, first + WEIGHT + np.uintp(k // 4))
                    value = np.float32(value + np.float32(weight * np.float32(np.int32(area))))
            left = np.float32(value * norm) < _float_at(walk, first + THRESHOLD)
            node = np.int64(_int_at(links, np.uintp(2 * node + (0 if left else 1))))
        total += np.float64(_float_at(leaves, np.uintp(~node)))
    return total


@njit(inline="always")
def _walk_cell(sums, base, walk, first, k):
    """Sum of the cell of an LBP feature whose top left corner is number k."""
    across = _corner(sums, base, walk, first, k) - _corner(sums, base, walk, first, k + 1)
    return np.int32(across + _corner(sums, base, walk, first, k + 5) - _corner(sums, base, walk, first, k + 4))


@njit(cache=True, inner=True)
def _lbp_walk_sum(sums, walk, links, leaves, base, roots, first_tree, last_tree):
    """Do what `_walk_sum` does for LBP features."""
    total = 0.0
    for tree in range(first_tree, last_tree):
        node = np.int64(_int_at(roots, np.uintp(tree)))
        while node >= 0:
            first = np.uintp(node) * LBP_RECORD
            centre = _walk_cell(sums, base, walk, first, np.int64(5))
            code = np.int64(0)
            for k in range(8):
                corner = _RING_CORNERS[k]
                code = code << 1 | np.int64(_walk_cell(sums, base, walk, first, corner) >= centre)
            word = np.int64(_int_at(walk, first + np.uintp(LBP_SUBSET + (code >> 5))))
            left = (word >> (code & 31)) & 1 == 1
            node = np.int64(_int_at(links, np.uintp(2 * node + (0 if left else 1))))
        total += np.float64(_float_at(leaves, np.uintp(~node)))
    return total


def _loader(element):
    """Make an intrinsic that loads eight neighbours from each base of a tuple of positions."""

    def load(typing, address, bases):
        kind = _Block(element, bases.count)

        def generate(context, builder, signature, args):
            pointer = _pointer(builder, args[0], element)
            return _collect(
                context,
                builder,
                kind,
                lambda g: _load_vector(builder, pointer, builder.extract_value(args[1], g), element),
            )

        return kind(address, bases), generate

    return intrinsic(load)


_load_floats = _loader("f32")
_load_ints = _loader("i32")


@intrinsic
def _store_block(typing, address, index, block):
    def generate(context, builder, signature, args):
        pointer = _pointer(builder, args[0], block.element)
        for g in range(block.vectors):
            start = builder.add(args[1], ir.Constant(args[1].type, g * LANES))
            place = builder.bitcast(builder.gep(pointer, [start]), _vector(block.element).as_pointer())
            builder.store(builder.extract_value(args[2], g), place).align = 4
        return context.get_dummy_value()

    return types.none(address, index, block), generate


@intrinsic
def _store_blocks(typing, address, starts, block):
    """Store each vector of a block at its place of a tuple of positions."""

    def generate(context, builder, signature, args):
        pointer = _pointer(builder, args[0], block.element)
        for g in range(block.vectors):
            start = builder.gep(pointer, [builder.extract_value(args[1], g)])
            place = builder.bitcast(start, _vector(block.element).as_pointer())
            builder.store(builder.extract_value(args[2], g), place).align = 4
        return context.get_dummy_value()

    return types.none(address, starts, block), generate


@intrinsic
def _fill(typing, value, bases):
    """Put one int32 or float32 in every lane of a block."""
    element = "f32" if value == types.float32 else "i32"
    kind = _Block(element, BATCH)

    def generate(context, builder, signature, args):
        vector = _splat(builder, args[0], element)
        return _map(context, builder, kind, lambda: vector)

    return kind(value, bases), generate


@intrinsic
def _add(typing, a, b):
    def generate(context, builder, signature, args):
        return _map(context, builder, a, builder.add, *args)

    return a(a, b), generate


@intrinsic
def _and(typing, a, b):
    def generate(context, builder, signature, args):
        return _map(context, builder, a, builder.and_, *args)

    return a(a, b), generate


@intrinsic
def _put(typing, address, index, value):
    """Write one 32-bit integer at an index from an address."""

    def generate(context, builder, signature, args):
        builder.store(args[2], builder.gep(_pointer(builder, args[0]), [args[1]]))
        return context.get_dummy_value()

    return types.none(address, index, value), generate


@intrinsic
def _pack(typing, mask):
    """Bit i of the result says whether lane i of a mask, counted over all vectors, is set; uint32."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_vector("i32"), [0] * LANES)
        return _bits(builder, [builder.icmp_signed("<", vector, zero) for vector in _vectors(builder, mask, args[0])])

    return types.uint32(mask), generate


@intrinsic
def _keep(typing, block, bits):
    """Zero the lanes of a block of int32 whose bit is not set."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_vector("i32"), [0] * LANES)

        def vector(g):
            byte = builder.trunc(builder.lshr(args[1], ir.Constant(I32, g * LANES)), ir.IntType(LANES))
            mask = builder.bitcast(byte, ir.VectorType(ir.IntType(1), LANES))
            return builder.select(mask, builder.extract_value(args[0], g), zero)

        return _collect(context, builder, block, vector)

    return block(block, bits), generate


@intrinsic
def _at_least(typing, block, value):
    """Bit i of the result says whether lane i, counted over all vectors, is at least `value`; uint32."""

    def generate(context, builder, signature, args):
        limit = _splat(builder, args[1], "i32")
        return _bits(
            builder, [builder.icmp_signed(">=", vector, limit) for vector in _vectors(builder, block, args[0])]
        )

    return types.uint32(block, value), generate


@intrinsic
def _below(typing, values, norms, threshold):
    """Mask (-1 or 0 per lane) of ``float32(values * norms) < threshold``; integer values are converted first."""
    kind = _Block("i32", values.vectors)

    def generate(context, builder, signature, args):
        limit = _splat(builder, args[2], "f32")

        def compare(value, norm):
            if values.element == "i16":
                value = builder.sext(value, _vector("i32"))
            if values.element != "f32":
                value = builder.sitofp(value, _vector("f32"))
            return builder.sext(builder.fcmp_ordered("<", builder.fmul(value, norm), limit), _vector("i32"))

        return _map(context, builder, kind, compare, args[0], args[1])

    return kind(values, norms, threshold), generate


def _base(builder, kind, bases, g):
    """Where vector g of a batch begins, from a position for each vector or for each pair of neighbours."""
    if kind.count == BATCH:
        return builder.extract_value(bases, g)
    first = builder.extract_value(bases, g // 2)
    return builder.add(first, ir.Constant(first.type, LANES)) if g % 2 else first


def _corner_loader(builder, signature, args, element="i32", *, paired=False):
    """Return corner(g, c): the vector at the base of vector g plus the offset in entry c of the record at `first`.

    Arguments of the intrinsic: addresses of the sums and the records, first, bases, ... If `paired`, g is a pair and
    the vector has its 16 lanes.
    """
    sums, table = _pointer(builder, args[0], element), _pointer(builder, args[1])
    windows, offsets = {}, {}

    def corner(g, c):
        if c not in offsets:
            place = builder.gep(table, [builder.add(args[2], ir.Constant(args[2].type, c))])
            offsets[c] = builder.zext(builder.load(place), args[2].type)
        if g not in windows:
            start = builder.extract_value(args[3], g) if paired else _base(builder, signature.args[3], args[3], g)
            # Does not depend on the node: kept in a register, and the load adds the offset.
            windows[g] = builder.gep(sums, [start])
        return _load_vector(builder, windows[g], offsets[c], element, 2 * LANES if paired else LANES)

    return corner


def _low_feature(builder, context, signature, args, value_of):
    """Collect the 16-bit values of a feature, ``value_of(corner, splat, g)`` for vector or pair g."""
    kind, paired = signature.return_type, signature.args[3].count == PAIRS
    corner = _corner_loader(builder, signature, args, "i16", paired=paired)

    def splat(scalar):
        return _splat(builder, scalar, "i16", 2 * LANES if paired else LANES)

    if not paired:
        return _collect(context, builder, kind, lambda g: value_of(corner, splat, g))
    both = [value_of(corner, splat, g) for g in range(PAIRS)]

    def half(g):
        lanes = ir.Constant(ir.VectorType(I32, LANES), [LANES * (g % 2) + k for k in range(LANES)])
        return builder.shuffle_vector(both[g // 2], both[g // 2], lanes)

    return _collect(context, builder, kind, half)


@intrinsic
def _edge(typing, sums, records, first, bases):
    """(c0 + c1) - (c2 + c3) + 2 * (c4 - c5), in 16 bits."""
    kind = _Block("i16", BATCH)

    def generate(context, builder, signature, args):
        def value(corner, splat, g):
            ones = builder.add(
                builder.sub(corner(g, 0), corner(g, 2)),
                builder.sub(corner(g, 1), corner(g, 3)),
            )
            twos = builder.sub(corner(g, 4), corner(g, 5))
            return builder.add(ones, builder.add(twos, twos))

        return _low_feature(builder, context, signature, args, value)

    return kind(sums, records, first, bases), generate


def _line_of(builder, corner, factor, g):
    """(c0 + c1) - (c2 + c3) + factor * ((c4 + c5) - (c6 + c7))."""

    def rectangle(c):
        return builder.add(
            builder.sub(corner(g, c), corner(g, c + 2)),
            builder.sub(corner(g, c + 1), corner(g, c + 3)),
        )

    return builder.add(rectangle(0), builder.mul(rectangle(4), factor))


@intrinsic
def _line(typing, sums, records, first, bases, weight):
    """(c0 + c1) - (c2 + c3) + weight * ((c4 + c5) - (c6 + c7)), in 16 bits."""
    kind = _Block("i16", BATCH)

    def generate(context, builder, signature, args):
        weight = builder.trunc(args[4], I16)
        return _low_feature(
            builder,
            context,
            signature,
            args,
            lambda corner, splat, g: _line_of(builder, corner, splat(weight), g),
        )

    return kind(sums, records, first, bases, weight), generate


@intrinsic
def _wide(typing, sums, records, first, bases, weight):
    """As `_line`, in 32 bits."""
    kind = _Block("i32", BATCH)

    def generate(context, builder, signature, args):
        corner = _corner_loader(builder, signature, args)
        factor = _splat(builder, args[4], "i32")
        return _collect(context, builder, kind, lambda g: _line_of(builder, corner, factor, g))

    return kind(sums, records, first, bases, weight), generate


@intrinsic
def _checker(typing, sums, records, first, bases, sign):
    """Sign * ((c0 + c1 + c2 + c3) - 2 * (c4 + c5 + c6 + c7) + 4 * c8), in 16 bits."""
    kind = _Block("i16", BATCH)

    def generate(context, builder, signature, args):
        sign = builder.trunc(args[4], I16)

        def value(corner, splat, g):
            def four(c):
                return builder.add(
                    builder.add(corner(g, c), corner(g, c + 1)), builder.add(corner(g, c + 2), corner(g, c + 3))
                )

            centre = builder.add(corner(g, 8), corner(g, 8))
            twos = builder.sub(centre, four(4))
            return builder.mul(builder.add(four(0), builder.add(twos, twos)), splat(sign))

        return _low_feature(builder, context, signature, args, value)

    return kind(sums, records, first, bases, sign), generate


@intrinsic
def _general(typing, sums, records, first, bases, weights):
    """Three rectangles with float weights, rounded to float32 after every step as OpenCV does."""
    kind = _Block("f32", BATCH)

    def generate(context, builder, signature, args):
        corner = _corner_loader(builder, signature, args)
        factors = [_splat(builder, builder.extract_value(args[4], k), "f32") for k in range(3)]

        def part(g, k):
            total = builder.sub(
                builder.sub(corner(g, 4 * k), corner(g, 4 * k + 1)),
                builder.sub(corner(g, 4 * k + 2), corner(g, 4 * k + 3)),
            )
            return builder.fmul(builder.sitofp(total, _vector("f32")), factors[k])

        return _collect(
            context,
            builder,
            kind,
            lambda g: builder.fadd(builder.fadd(part(g, 0), part(g, 1)), part(g, 2)),
        )

    return kind(sums, records, first, bases, weights), generate


@intrinsic
def _lbp_inside(typing, sums, records, first, bases):
    """Mask of the lanes whose code is in the set held by entries 16 to 23 of the record.

    Entries 0 to 15 are the corners of the 3x3 cells, row by row.
    """
    kind = _Block("i32", BATCH)

    def generate(context, builder, signature, args):
        corner = _corner_loader(builder, signature, args)
        table = _pointer(builder, args[1])
        places = [builder.add(args[2], ir.Constant(args[2].type, LBP_SUBSET + k)) for k in range(8)]
        subset = [_splat(builder, builder.load(builder.gep(table, [place])), "i32") for place in places]
        vector = _vector("i32")

        def value(g):
            grid = [corner(g, c) for c in range(16)]

            across = [[builder.sub(grid[4 * r + c + 1], grid[4 * r + c]) for c in range(3)] for r in range(4)]

            def cell(r, c):
                return builder.sub(across[r + 1][c], across[r][c])

            centre = cell(1, 1)
            bits = [builder.icmp_signed(">=", cell(r, c), centre) for r, c in RING]
            chosen = subset
            for bit in (bits[2], bits[1], bits[0]):
                chosen = [builder.select(bit, chosen[k + 1], chosen[k]) for k in range(0, len(chosen), 2)]
            shift = ir.Constant(vector, [0] * LANES)
            for k, bit in enumerate(bits[3:]):
                step = ir.Constant(vector, [16 >> k] * LANES)
                shift = builder.or_(shift, builder.select(bit, step, ir.Constant(vector, [0] * LANES)))
            hit = builder.and_(builder.lshr(chosen[0], shift), ir.Constant(vector, [1] * LANES))
            return builder.sub(ir.Constant(vector, [0] * LANES), hit)

        return _collect(context, builder, kind, value)

    return kind(sums, records, first, bases), generate


@intrinsic
def _lane_norms(typing, sums, squares, bases, corners, area):
    """Norms of the windows of each vector, as `_norm` gives them, float32."""
    kind = _Block("f32", BATCH)
    doubles = ir.VectorType(ir.DoubleType(), LANES)

    def generate(context, builder, signature, args):
        pixels, squared = _pointer(builder, args[0]), _pointer(builder, args[1])
        size = builder.insert_element(ir.Constant(doubles, ir.Undefined), args[4], ir.Constant(I32, 0))
        size = builder.shuffle_vector(size, size, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))
        name = f"llvm.sqrt.v{LANES}f64"
        root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(doubles, [doubles]), name)

        def constant(value):
            return ir.Constant(doubles, [value] * LANES)

        def norm(g):
            base = _base(builder, signature.args[2], args[2], g)

            def inner(pointer):
                a, b, c, d = (
                    _load_vector(builder, pointer, builder.add(base, builder.extract_value(args[3], k)), "i32")
                    for k in range(4)
                )
                return builder.sub(builder.sub(a, b), builder.sub(c, d))

            total = builder.sitofp(inner(pixels), doubles)
            square = builder.uitofp(inner(squared), doubles)
            variance = builder.fsub(builder.fmul(size, square), builder.fmul(total, total))
            varies = builder.fcmp_ordered(">", variance, constant(0.0))
            deviation = builder.call(root, [builder.select(varies, variance, constant(1.0))])
            norm = builder.fptrunc(builder.fdiv(constant(1.0), deviation), _vector("f32"))
            sharp = builder.fcmp_ordered(
                "<", builder.fmul(size, builder.fpext(norm, doubles)), constant(1.0 / MIN_DEVIATION)
            )
            return builder.select(builder.and_(varies, sharp), norm, ir.Constant(_vector("f32"), [0.0] * LANES))

        return _collect(context, builder, kind, norm)

    return kind(sums, squares, bases, corners, area), generate


@intrinsic
def _not_zero(typing, block):
    """Bit i of the result says whether lane i of a block of float32, counted over all vectors, is not zero; uint32."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_vector("f32"), [0.0] * LANES)
        return _bits(
            builder, [builder.fcmp_unordered("!=", vector, zero) for vector in _vectors(builder, block, args[0])]
        )

    return types.uint32(block), generate


@intrinsic
def _count(typing, bits):
    """Count the bits that are set in a uint32."""

    def generate(context, builder, signature, args):
        return builder.zext(builder.ctpop(args[0]), ir.IntType(64))

    return types.int64(bits), generate


class _At(NamedTuple):
    """Addresses of what the loops read; see `Planes` and `LaneTables`."""

    sums: int
    low: int
    records: int
    weights: int
    segments: int
    ends: int
    bases: int
    low_bounds: int
    high_bounds: int
    scratch: int


@njit(inline="always")
def _addresses(planes, tables, scratch):
    return _At(
        _address(planes.sums),
        _address(planes.low),
        tables.records,
        tables.weights,
        tables.segments,
        tables.ends,
        tables.bases,
        tables.low,
        tables.high,
        _address(scratch),
    )


@njit(inline="always")
def _edge_value(at, bases, norms, first):
    """Mask of the lanes below the threshold of an edge feature."""
    return _below(_edge(at.low, at.records, first, bases), norms, _float_at(at.records, first + THRESHOLD))


@njit(inline="always")
def _line_value(at, bases, norms, first):
    weight = _int_at(at.records, first + MULTIPLIER)
    return _below(_line(at.low, at.records, first, bases, weight), norms, _float_at(at.records, first + THRESHOLD))


@njit(inline="always")
def _checker_value(at, bases, norms, first):
    sign = _int_at(at.records, first + MULTIPLIER)
    return _below(_checker(at.low, at.records, first, bases, sign), norms, _float_at(at.records, first + THRESHOLD))


@njit(inline="always")
def _wide_value(at, bases, norms, first):
    weight = _int_at(at.records, first + MULTIPLIER)
    return _below(_wide(at.sums, at.records, first, bases, weight), norms, _float_at(at.records, first + THRESHOLD))


@njit(inline="always")
def _float_value(at, bases, norms, node, first):
    """Mask of the lanes below the threshold of a feature with float weights."""
    k = node * np.uintp(3)
    factors = (
        _float_at(at.weights, k),
        _float_at(at.weights, k + np.uintp(1)),
        _float_at(at.weights, k + np.uintp(2)),
    )
    return _below(_general(at.sums, at.records, first, bases, factors), norms, _float_at(at.records, first + THRESHOLD))


@njit(inline="always")
def _ends(at, segment):
    """First node of a segment, and those after the last of each kind."""
    e = np.uintp(segment) * np.uintp(KINDS + 1)
    return (
        _int_at(at.ends, e),
        _int_at(at.ends, e + np.uintp(1)),
        _int_at(at.ends, e + np.uintp(2)),
        _int_at(at.ends, e + np.uintp(3)),
        _int_at(at.ends, e + np.uintp(4)),
        _int_at(at.ends, e + np.uintp(5)),
    )


@njit(inline="always")
def _vote(at, total, left, first, bases):
    """Add a stump's votes: the difference of its leaves where it goes left."""
    return _add(total, _and(left, _fill(_int_at(at.records, first + DELTA), bases)))


@njit(cache=True, inner=True)
def _stump_sums(at, bases, norms, ends, total):
    """Add a segment of stumps on Haar-like features, sorted by kind, for a batch of vectors.

    `ends` are the first node and those after the last of each kind, `total` is what the sums start from. A loop for
    each kind keeps everything in registers: 1.6 times as fast as one loop that branches.
    """
    for node in range(ends[0], ends[1]):
        first = np.uintp(node) * RECORD
        total = _vote(at, total, _edge_value(at, bases, norms, first), first, bases)
    for node in range(ends[1], ends[2]):
        first = np.uintp(node) * RECORD
        total = _vote(at, total, _line_value(at, bases, norms, first), first, bases)
    for node in range(ends[2], ends[3]):
        first = np.uintp(node) * RECORD
        total = _vote(at, total, _checker_value(at, bases, norms, first), first, bases)
    for node in range(ends[3], ends[4]):
        first = np.uintp(node) * RECORD
        total = _vote(at, total, _wide_value(at, bases, norms, first), first, bases)
    for node in range(ends[4], ends[5]):
        first = np.uintp(node) * RECORD
        total = _vote(at, total, _float_value(at, bases, norms, np.uintp(node), first), first, bases)
    return total


@njit(cache=True, inner=True)
def _lbp_sums(at, bases, ends, total):
    """Add a segment of stumps on LBP features; see `_stump_sums`."""
    for node in range(ends[0], ends[KINDS]):
        first = np.uintp(node) * LBP_RECORD
        left = _lbp_inside(at.sums, at.records, first, bases)
        total = _add(total, _and(left, _fill(_int_at(at.records, first + LBP_DELTA), bases)))
    return total


@njit(inline="always")
def _branch(at, total, left, k, place, delta, top, last, bases):
    """Add the votes of the k-th node of a part, and write down for its children which lanes go left and right.

    All lanes reach a root (`top`); for others, word `place` of the scratch space says which do. Nodes of the `last`
    depth have no children.
    """
    vote = _and(left, _fill(delta, bases))
    here = np.uint32(0xFFFFFFFF)
    if not top:
        here = np.uint32(_int_at(at.scratch, np.uintp(place)))
        vote = _keep(vote, here)
    if not last:
        bits = np.uint32(here & _pack(left))
        word = np.uintp(2 * k + 1)
        _put(at.scratch, word, bits)
        _put(at.scratch, word + np.uintp(1), np.uint32(here ^ bits))
    return _add(total, vote)


@njit(cache=True, inner=True)
def _tree_sums(at, bases, norms, segments, total, lbp):
    """Add segments of trees for a batch of vectors; see `_stump_sums`.

    A segment holds the nodes of one depth, sorted by kind. A node votes, like a stump, for the lanes that reach it and
    go left: with the leaf at the end of the right branches below its left child, minus the one below its right child.
    These differences add up to the leaf that a lane ends at.
    """
    begin = _ends(at, segments[0])[0]
    for segment in range(segments[0], segments[1]):
        ends = _ends(at, segment)
        top, last = segment == segments[0], segment == segments[1] - 1
        for node in range(ends[0], ends[1]):
            if lbp:
                first = np.uintp(node) * LBP_RECORD
                left = _lbp_inside(at.sums, at.records, first, bases)
                delta, place = _int_at(at.records, first + LBP_DELTA), _int_at(at.records, first + LBP_PLACE)
            else:
                first = np.uintp(node) * RECORD
                left = _edge_value(at, bases, norms, first)
                delta, place = _int_at(at.records, first + DELTA), _int_at(at.records, first + PLACE)
            total = _branch(at, total, left, node - begin, place, delta, top, last, bases)
        for node in range(ends[1], ends[2]):
            first = np.uintp(node) * RECORD
            left = _line_value(at, bases, norms, first)
            delta, place = _int_at(at.records, first + DELTA), _int_at(at.records, first + PLACE)
            total = _branch(at, total, left, node - begin, place, delta, top, last, bases)
        for node in range(ends[2], ends[3]):
            first = np.uintp(node) * RECORD
            left = _checker_value(at, bases, norms, first)
            delta, place = _int_at(at.records, first + DELTA), _int_at(at.records, first + PLACE)
            total = _branch(at, total, left, node - begin, place, delta, top, last, bases)
        for node in range(ends[3], ends[4]):
            first = np.uintp(node) * RECORD
            left = _wide_value(at, bases, norms, first)
            delta, place = _int_at(at.records, first + DELTA), _int_at(at.records, first + PLACE)
            total = _branch(at, total, left, node - begin, place, delta, top, last, bases)
        for node in range(ends[4], ends[5]):
            first = np.uintp(node) * RECORD
            left = _float_value(at, bases, norms, np.uintp(node), first)
            delta, place = _int_at(at.records, first + DELTA), _int_at(at.records, first + PLACE)
            total = _branch(at, total, left, node - begin, place, delta, top, last, bases)
    return total


@njit(inline="always")
def _run_part(at, bases, norms, part, total, lbp):
    """Run a part of a stage over a batch of vectors.

    Returns the lanes that surely and that perhaps pass, as two bit sets, and the sums.
    """
    part = np.uintp(part)
    segments = (_int_at(at.segments, part), _int_at(at.segments, part + np.uintp(1)))
    total = _add(total, _fill(_int_at(at.bases, part), bases))
    if segments[1] - segments[0] > 1:
        total = _tree_sums(at, bases, norms, segments, total, lbp)
    elif lbp:
        total = _lbp_sums(at, bases, _ends(at, segments[0]), total)
    else:
        total = _stump_sums(at, bases, norms, _ends(at, segments[0]), total)
    return _at_least(total, _int_at(at.high_bounds, part)), _at_least(total, _int_at(at.low_bounds, part)), total


@njit(inline="always")
def _read_lanes(words):
    """Return what `lane_words` made of the tables."""
    # fmt: off
    return LaneTables(
        words[0] != 0, np.int64(words[1]), np.int64(words[2]), np.int64(words[3]), np.int64(words[4]),
        np.float64(words[5]), words[6], words[7], words[8], words[9], words[10], words[11], words[12], words[13],
        words[14], words[15], words[16], words[17], words[18], words[19],
    )
    # fmt: on


@njit(inline="always")
def _part(tables, part, k):
    """Entry k of the row of `LaneTables.parts`."""
    return _int_at(tables.parts, np.uintp(4 * part + k))


@njit(inline="always")
def _restarts(tables, part):
    """Whether a part begins a sum; not what follows the last one, for which the sums of hits are kept."""
    return part < tables.n_parts and _part(tables, part, 0) == _part(tables, part, 2)


@njit(inline="always")
def _exact_sum(sums, base, norm, first, last, tables):
    """Sum of the leaves of some trees for one window, as `_add_trees` gives it."""
    first, last = np.int64(first), np.int64(last)
    if tables.lbp:
        total = _lbp_walk_sum(sums, tables.walk, tables.links, tables.leaves, np.uintp(base), tables.roots, first, last)
    else:
        total = _walk_sum(
            sums, tables.walk, tables.links, tables.leaves, np.uintp(base), norm, tables.roots, first, last
        )
    return total


@njit(cache=True, inner=True)
def _exact_bits(sums, base, norms, place, unsure, part, tables):
    """Decide the lanes in `unsure` of one vector exactly; return those that pass.

    From the addresses of the integral image and of the norms, where the vector begins at `base` and `place`.
    """
    bits = np.uint32(0)
    first, last = _part(tables, part, 2), _part(tables, part, 1)
    limit = _double_at(tables.limits, np.uintp(part))
    for lane in range(LANES):
        if unsure >> np.uint32(lane) & np.uint32(1):
            norm = _float_at(norms, np.uintp(place + lane))
            total = _exact_sum(sums, np.int64(base) + lane, norm, first, last, tables)
            if total >= limit:
                bits |= np.uint32(1) << np.uint32(lane)
    return bits


_ODD = np.uint64(0xAAAAAAAAAAAAAAAA)


@njit(inline="always")
def _skipped(rejected, pending):
    """Return which of 32 windows OpenCV leaves out, and whether it leaves out the one after them.

    The window after one that was visited and rejected by the first stage is left out, so that of a run of rejected
    windows every second one is. `pending` says whether the first is left out. The carry of a subtraction runs through
    each run, as in the search for escaped characters by Langdale and Lemire (VLDB Journal 2019, section 3.1.1).
    """
    rejected, pending = np.uint64(rejected), np.uint64(pending)
    starts = rejected & ~pending
    series = ((starts << np.uint64(1)) | _ODD) - starts
    code = series ^ _ODD
    left_out = np.uint32((code ^ (rejected | pending)) & np.uint64(0xFFFFFFFF))
    return left_out, np.uint32(((code & rejected) >> np.uint64(31)) & np.uint64(1))


@njit(inline="always")
def _first_stage(planes, grid, tables, skip, tile, entries, scratch):
    """Run the first stage over the rows of a tile; return windows visited, vectors listed, and their windows alive.

    Fills the norms, the windows that entered the first stage and those that passed it, of the windows that OpenCV
    visits, and lists the vectors that have any of the latter.
    """
    at = _addresses(planes, tables, scratch)
    at_sums, at_squares, at_norms = _address(planes.sums), _address(planes.squares), _address(tile.norms)
    at_totals, carried = _address(tile.totals), not _restarts(tables, tables.first_stage)
    c = grid.corners
    corners = (np.uintp(c[0]), np.uintp(c[1]), np.uintp(c[2]), np.uintp(c[3]))
    lbp, area = tables.lbp, tables.area
    alive, began, vectors, places = tile.alive, tile.began, tile.vectors, tile.bases
    visited, entered, lanes, n, vector = 0, 0, 0, 0, 0
    for r in range(tile.top, tile.bottom):
        pending = np.uint32(0)
        base = np.uintp(r * grid.row_step)
        for left in range(0, grid.columns, BATCH * LANES):
            inside = np.uint32(0xFFFFFFFF)
            if grid.columns - left < BATCH * LANES:
                inside = np.uint32((1 << (grid.columns - left)) - 1)
            start = base + np.uintp(left)
            bases = (start, start + WIDTH * np.uintp(2))
            bits = inside
            if lbp:
                block = _fill(np.float32(1), bases)
            else:
                block = _lane_norms(at_sums, at_squares, bases, corners, area)
                bits &= _not_zero(block)
            _store_block(at_norms, np.uintp(vector * LANES), block)
            entering = bits
            total = _fill(np.int32(0), bases)
            for part in range(tables.first_stage):
                sure, maybe, total = _run_part(at, bases, block, part, total, lbp)
                unsure = maybe & ~sure & bits
                if unsure:
                    for k in range(BATCH):
                        some = unsure >> np.uint32(LANES * k) & ALL
                        here = vector + k
                        place = start + WIDTH * np.uintp(k)
                        passed = _exact_bits(at.sums, place, at_norms, here * LANES, some, np.int64(part), tables)
                        sure |= passed << np.uint32(LANES * k)
                bits &= sure
            if carried:
                _store_block(at_totals, np.uintp(vector * LANES), total)
            if skip:
                left_out, pending = _skipped(entering & ~bits, pending)
                inside &= ~left_out
                entering &= inside
                bits &= inside
            visited += _count(inside)
            entered += _count(entering)
            lanes += _count(bits)
            for k in range(BATCH):
                mine = bits >> np.uint32(LANES * k) & ALL
                began[vector] = entering >> np.uint32(LANES * k) & ALL
                alive[vector] = mine
                # Always written, and overwritten if no lane is alive: a branch would be mispredicted half the time.
                vectors[n] = vector
                places[n] = start + WIDTH * np.uintp(k)
                n += mine != 0
                vector += 1
    entries[0] += entered
    return visited, n, lanes


@njit(inline="always")
def _batch(vectors, places, b, n):
    """Where the windows of a batch of listed vectors are in the planes, and in the norms.

    A short last batch repeats its first vector: four cost hardly more than one.
    """
    k1, k2, k3 = b + 1 if b + 1 < n else b, b + 2 if b + 2 < n else b, b + 3 if b + 3 < n else b
    bases = (places[b], places[k1], places[k2], places[k3])
    starts = (
        np.uintp(vectors[b]) * WIDTH,
        np.uintp(vectors[k1]) * WIDTH,
        np.uintp(vectors[k2]) * WIDTH,
        np.uintp(vectors[k3]) * WIDTH,
    )
    return bases, starts


@njit(inline="always")
def _filter(planes, tile, n, part, tables, scratch):
    """Run one part over the listed vectors; return how many still have a lane alive, and how many lanes are.

    `alive` keeps the lanes that pass, the lists keep the vectors that have any, `totals` the sums for the next part of
    the stage, or of the last stage.
    """
    kept, lanes = 0, 0
    at = _addresses(planes, tables, scratch)
    alive, vectors, places = tile.alive, tile.vectors, tile.bases
    at_norms, at_totals = _address(tile.norms), _address(tile.totals)
    lbp = tables.lbp
    first, carried = _restarts(tables, part), not _restarts(tables, part + 1)
    for b in range(0, n, BATCH):
        bases, starts = _batch(vectors, places, b, n)
        start = _fill(np.int32(0), bases)
        if not first:
            start = _load_ints(at_totals, starts)
        sure, maybe, total = _run_part(at, bases, _load_floats(at_norms, starts), part, start, lbp)
        if carried:
            _store_blocks(at_totals, starts, total)
        unsure = maybe & ~sure
        for k in range(min(BATCH, n - b)):
            vector, base = vectors[b + k], places[b + k]
            shift = np.uint32(LANES * k)
            passed = sure >> shift & ALL
            some = unsure >> shift & ALL & alive[vector]
            if some:
                passed |= _exact_bits(at.sums, base, at_norms, vector * LANES, some, np.int64(part), tables)
            passed &= alive[vector]
            alive[vector] = passed
            lanes += _count(passed)
            # Never ahead of what is still to be read.
            vectors[kept] = vector
            places[kept] = base
            kept += passed != 0
    return kept, lanes


@njit(cache=True, inner=True)
def _count_features(planes, tile, n, entering, part, tables, scratch):
    """Return how many features a part evaluates for the windows set in `entering` (bits for each vector).

    Runs the trees of the part again, which leaves in the scratch space the lanes that reach each node. So counting
    costs `_filter` nothing, and a scan that counts takes up to twice as long as one that does not.
    """
    trees = _part(tables, part, 1) - _part(tables, part, 0)
    segments = (_int_at(tables.segments, np.uintp(part)), _int_at(tables.segments, np.uintp(part + 1)))
    at = _addresses(planes, tables, scratch)
    at_norms = _address(tile.norms)
    nodes = _ends(at, segments[1] - 1)[KINDS] - _ends(at, segments[0])[0]
    vectors, places = tile.vectors, tile.bases
    row, place = (LBP_RECORD, LBP_PLACE) if tables.lbp else (RECORD, PLACE)
    features = 0
    for b in range(0, n, BATCH):
        here = np.uint32(0)
        for j in range(min(BATCH, n - b)):
            here |= entering[vectors[b + j]] << np.uint32(LANES * j)
        features += trees * _count(here)
        if nodes > trees:
            bases, starts = _batch(vectors, places, b, n)
            block = _load_floats(at_norms, starts)
            _tree_sums(at, bases, block, segments, _fill(np.int32(0), bases), tables.lbp)
            for segment in range(segments[0] + 1, segments[1]):
                ends = _ends(at, segment)
                for node in range(ends[0], ends[KINDS]):
                    word = _int_at(at.records, np.uintp(node) * row + place)
                    features += _count(np.uint32(scratch[word]) & here)
    return features


@njit(inline="always")
def _count_first_stage(planes, grid, tile, tables, scratch):
    """Return how many features the first stage evaluates for the windows that entered it: it runs again for those."""
    kept = tile.alive.copy()
    n = _list_vectors(grid, tile, tile.began)
    tile.alive[:] = tile.began
    features = 0
    for part in range(tables.first_stage):
        features += _count_features(planes, tile, n, tile.alive, part, tables, scratch)
        n, _ = _filter(planes, tile, n, part, tables, scratch)
    tile.alive[:] = kept
    _list_vectors(grid, tile, kept)
    return features


@njit(inline="always")
def _list_vectors(grid, tile, alive):
    """List the vectors of a tile that have a window in `alive`, and where their first windows are; return how many."""
    n = 0
    for g in range((tile.bottom - tile.top) * tile.width):
        if alive[g]:
            tile.vectors[n] = g
            tile.bases[n] = np.uintp((tile.top + g // tile.width) * grid.row_step + g % tile.width * LANES)
            n += 1
    return n


@njit(cache=True, inner=True)
def _last_sums(planes, tile, n, tables, scratch):
    """Return the exact sums of the last stage of the listed vectors' lanes that are alive; shape (n, LANES).

    The sum in integers, which is known, plus that of what rounding took from the leaves. Where both are exact, so is
    each step of `_add_trees`, which then gives the same: no sum has more than the 53 bits of a float64. That is nearly
    always; otherwise windows are summed one by one, which takes five times as long as once more in vectors.
    """
    sums = np.empty((n, LANES), np.float64)
    at = _addresses(planes, tables, scratch)
    at_norms = _address(tile.norms)
    unit, rest = _double_at(tables.units, np.uintp(0)), _double_at(tables.units, np.uintp(1))
    end = tables.n_parts - 1
    first, last = _part(tables, end, 2), _part(tables, end, 1)
    block = np.zeros(BATCH * LANES, np.int32)
    for b in range(0, n, BATCH):
        bases, starts = _batch(tile.vectors, tile.bases, b, n)
        if rest:
            start = _fill(np.int32(0), bases)
            _, _, total = _run_part(at, bases, _load_floats(at_norms, starts), tables.n_parts, start, tables.lbp)
            _store_block(_address(block), np.uintp(0), total)
        for k in range(b, min(b + BATCH, n)):
            g = tile.vectors[k]
            for lane in range(LANES):
                if tile.alive[g] >> np.uint32(lane) & np.uint32(1):
                    place = g * LANES + lane
                    if unit:
                        sums[k, lane] = tile.totals[place] * unit + block[(k - b) * LANES + lane] * rest
                    else:
                        base = np.int64(tile.bases[k]) + lane
                        sums[k, lane] = _exact_sum(at.sums, base, tile.norms[place], first, last, tables)
    return sums


@njit(inline="always")
def _collect_vector(alive, place, sums, hits, hit_sums, found):
    """Append the hits of a vector whose first window is at `place`; return the new count."""
    for lane in range(LANES):
        if alive >> np.uint32(lane) & np.uint32(1):
            hits[found, 0] = place[0]
            hits[found, 1] = place[1] + lane
            hit_sums[found] = sums[lane]
            found += 1
    return found


class _Tile(NamedTuple):
    """Some rows of windows, `width` vectors each: what is kept of each vector, and the list of those still alive."""

    top: int
    bottom: int
    width: int
    norms: Any
    totals: Any
    alive: Any
    began: Any
    vectors: Any
    bases: Any


@njit(inline="always")
def _run_parts(planes, tile, alive, start, tables, entered, features, visit, scratch):
    """Run the parts from `start` on over the listed vectors of a tile; return how many are left, and their lanes.

    `alive` are vectors and lanes now; `start` is the first part, and the stage before it. The windows of coarse scales
    that get far enough are marked.
    """
    n, lanes = alive
    first, stage = start
    coarse = None if visit is None else visit.stages
    for part in range(first, tables.n_parts):
        if n == 0:
            return n, lanes
        begins = _part(tables, part, 3) != 0
        if begins:
            stage += 1
            entered[stage] += lanes
            if coarse is not None and stage == coarse:
                _mark(tile, n, visit)
        if features is not None:
            features[stage] += _count_features(planes, tile, n, tile.alive, part, tables, scratch)
        n, lanes = _filter(planes, tile, n, part, tables, scratch)
    if coarse is not None and coarse >= tables.n_stages:
        _mark(tile, n, visit)
    return n, lanes


@njit(inline="always")
def _mark(tile, n, visit):
    """Mark the windows of the listed vectors that are alive."""
    for g in tile.vectors[:n]:
        place = visit.first + (tile.top + g // tile.width) * visit.width + g % tile.width
        visit.marks[place] = np.uint8(tile.alive[g])


@njit(cache=True, nogil=True)
def scan_lanes(planes, grid, words, skip, visit, results, entered, features):
    """Like `scan_plain`, in vectors of neighbouring windows.

    `visit` is None where no window is marked, or of a coarse scale; `features` is None where features are not counted:
    what is not used is not compiled. `words` are from `lane_words`.
    """
    tables = _read_lanes(words)
    hits, hit_sums, found = results
    batch = BATCH * LANES
    width = max(1, (grid.columns + batch - 1) // batch) * BATCH
    rows = min(max(1, TILE // width), max(1, grid.rows))
    size = rows * width
    norms, totals, scratch = _memory(tables, size)
    alive, began = np.empty(size, np.uint32), np.empty(size, np.uint32)
    # One more: a list is written one entry ahead.
    vectors, bases = np.empty(size + 1, np.int64), np.empty(size + 1, np.uintp)
    visited = 0
    for top in range(0, grid.rows, rows):
        tile = _Tile(top, min(top + rows, grid.rows), width, norms, totals, alive, began, vectors, bases)
        seen, n, lanes = _first_stage(planes, grid, tables, skip, tile, entered, scratch)
        if features is not None:
            features[0] += _count_first_stage(planes, grid, tile, tables, scratch)
        visited += seen
        # Not a literal, for which `_run_parts` would be compiled again.
        start = (tables.first_stage, np.int64(0))
        n, lanes = _run_parts(planes, tile, (n, lanes), start, tables, entered, features, visit, scratch)
        if n:
            # Not the literal 0 that they may be, for which these would be compiled as well.
            hits, hit_sums = _room_for(hits, hit_sums, found, np.int64(lanes))
            sums = _last_sums(planes, tile, np.int64(n), tables, scratch)
            for k in range(n):
                g = vectors[k]
                place = (top + g // width, g % width * LANES)
                found = _collect_vector(alive[g], place, sums[k], hits, hit_sums, found)
    return hits, hit_sums, found, visited


@njit(inline="always")
def _memory(tables, size):
    """Return memory for the norms and the sums of so many vectors, and scratch space."""
    norms, totals = np.empty(size * LANES, np.float32), np.empty(size * LANES, np.int32)
    scratch = np.empty(tables.scratch, np.int32)
    scratch[0] = 0  # The lanes that reach a node to which no branch leads.
    return norms, totals, scratch


# --- listed windows ----------------------------------------------------------------------------------------------


class Listed(NamedTuple):
    """Marked windows, up to eight neighbours in a vector; the planes may hold several grids.

    Parameters
    ----------
    bases : ndarray of uintp, shape (n,)
        Entry of the planes at which the first window of a vector begins.
    places : ndarray of int64, shape (n, 2)
        Its row and column in its grid.
    alive : ndarray of uint32, shape (n,)
        A bit for each window.
    """

    bases: Any
    places: Any
    alive: Any


@njit(cache=True, nogil=True)
def count_marked(visit, rows, columns):
    """Return how many vectors `list_marked` lists at most: no two begin in the same eight windows."""
    n = 0
    for r in range(rows):
        start = visit.first + r * visit.width
        for g in range((columns + LANES - 1) // LANES):
            n += visit.marks[start + g] != 0
    return n


@njit(cache=True, nogil=True)
def list_marked(visit, rows, columns, base, row_step, listed, n):
    """Add the marked windows of a grid to a list that holds `n` vectors; return vectors and windows listed.

    The grid's first window is at entry `base` of the planes. A vector begins at the first window that none holds yet,
    not at every eighth, so that there are fewer.
    """
    windows = 0
    for r in range(rows):
        start = visit.first + r * visit.width
        begin = np.int64(-LANES)
        for g in range((columns + LANES - 1) // LANES):
            bits = np.uint32(visit.marks[start + g])
            if not bits:
                continue
            for lane in range(LANES):
                if bits >> np.uint32(lane) & np.uint32(1):
                    i = g * LANES + lane
                    if i >= begin + LANES:
                        begin = i
                        listed.bases[n] = np.uintp(base + r * row_step + i)
                        listed.places[n, 0] = r
                        listed.places[n, 1] = i
                        listed.alive[n] = 0
                        n += 1
                    listed.alive[n - 1] |= np.uint32(1) << np.uint32(i - begin)
                    windows += 1
    return n, windows


@njit(cache=True, nogil=True)
def scan_listed(planes, corners, words, listed, ends, after, results, entered, features):
    """Like `scan_lanes`, for a list of windows, from any grids of one layout: few of each still fill the batches.

    `ends` are how many vectors are listed up to the end of each grid. `after` is filled with the number of hits after
    each. The list's windows alive are overwritten.
    """
    tables = _read_lanes(words)
    hits, hit_sums, found = results
    n = ends[-1]
    norms, totals, scratch = _memory(tables, n)
    alive, vectors, bases = listed.alive, np.arange(n), listed.bases[:n].copy()
    tile = _Tile(0, 0, 1, norms, totals, alive, alive, vectors, bases)
    n, lanes = _list_norms(planes, corners, tables, tile, n)
    start = (np.int64(0), np.int64(-1))
    n, lanes = _run_parts(planes, tile, (n, lanes), start, tables, entered, features, None, scratch)
    hits, hit_sums = _room_for(hits, hit_sums, found, lanes)
    sums = _last_sums(planes, tile, n, tables, scratch)
    grid = 0
    for k in range(n):
        g = vectors[k]
        while g >= ends[grid]:
            after[grid] = found
            grid += 1
        place = (listed.places[g, 0], listed.places[g, 1])
        found = _collect_vector(alive[g], place, sums[k], hits, hit_sums, found)
    after[grid:] = found
    return hits, hit_sums, found


@njit(inline="always")
def _list_norms(planes, corners, tables, tile, n):
    """Fill the norms of `n` listed vectors; return how many have a window that is not flat, and those windows."""
    places = (np.uintp(corners[0]), np.uintp(corners[1]), np.uintp(corners[2]), np.uintp(corners[3]))
    at_sums, at_squares, at_norms = _address(planes.sums), _address(planes.squares), _address(tile.norms)
    kept, lanes = 0, 0
    for b in range(0, n, BATCH):
        bases, starts = _batch(tile.vectors, tile.bases, b, n)
        bits = np.uint32(0xFFFFFFFF)
        if tables.lbp:
            block = _fill(np.float32(1), bases)
        else:
            block = _lane_norms(at_sums, at_squares, bases, places, tables.area)
            bits = _not_zero(block)
        _store_blocks(at_norms, starts, block)
        for k in range(min(BATCH, n - b)):
            vector, base = tile.vectors[b + k], tile.bases[b + k]
            alive = tile.alive[vector] & (bits >> np.uint32(LANES * k) & ALL)
            tile.alive[vector] = alive
            lanes += _count(alive)
            tile.vectors[kept] = vector
            tile.bases[kept] = base
            kept += alive != 0
    return kept, lanes
