"""The compiled scan, twice: window by window, and eight neighbouring windows at a time in vector registers.

`scan_plain` is the definition: one window after the other, float64 sums in file order. `scan_lanes` returns the same
hits and counts of windows several times faster. It owes its speed to three things:

- Eight neighbouring windows are the lanes of a vector. A vector is worked on as long as one of its lanes is alive, four
  vectors at a time, so that what a weak classifier needs (offsets, threshold) is read once for 32 windows and the four
  chains of arithmetic overlap. Numba does not vectorise such short loops by itself: the vector types below emit LLVM
  vectors, which every processor supports.
- A feature's look-ups are merged: an edge feature has six different corners, not eight. With small integer weights the
  value is an exact 32-bit integer, whatever the order.
- A stage's leaves are rounded to 32-bit integers. The rounding errors are bounded, so a lane is decided whenever its
  sum is further than the bound from the stage limit; the few others (about one in a million) are summed exactly.

Both run a stage in parts: a part ends where the sum so far meets a soft threshold, the last one at the stage limit.
Without soft thresholds each stage is one part.

All this stays in one file because numba does not notice when a file that a cached function calls into has changed.

Loads inside the vector helpers are not seen by ``NUMBA_BOUNDSCHECK``: the plain scan is what runs in that mode.
"""

from __future__ import annotations

from typing import NamedTuple

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


@njit(cache=True, nogil=True)
def scan_plain(sums, squares, grid, tables, offsets, skip, hits, hit_sums, counts):
    """Scan a grid of windows; return the number of hits and of windows visited.

    The hits go to `hits` (row, column) and `hit_sums`, in row order. `counts` is a pair of int64 arrays, to which the
    windows that enter each stage and the features evaluated in it are added: a feature for each node that a window
    meets on its way through a tree, so that a stump evaluates one.
    """
    entered, features = counts
    found = 0
    visited = 0
    n_stages = len(tables.limits)
    for r in range(grid.rows):
        i = 0
        while i < grid.columns:
            visited += 1
            base = r * grid.row_step + i
            depth, total, _ = _run_window(sums, squares, base, grid, tables, offsets, features)
            for stage in range(min(depth + 1, n_stages)):
                entered[stage] += 1
            if depth == n_stages:
                hits[found, 0] = r
                hits[found, 1] = i
                hit_sums[found] = total
                found += 1
            i += 2 if skip and depth == 0 else 1
    return found, visited


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
            if tables.first_parts[part]:
                total = 0.0
            total, _ = _add_trees(sums, base, norm, first, last, total, tables, offsets)
            out[r, part] = total
            if total < tables.part_limits[part]:
                break


@njit(cache=True, nogil=True)
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
            total = 0.0
        first, last = tables.part_starts[part], tables.part_starts[part + 1]
        total, evaluated = _add_trees(sums, base, norm, first, last, total, tables, offsets)
        features[stage] += evaluated
        if total < tables.part_limits[part]:
            return stage, total, tables.part_limits[part]
    return stage + 1, total, tables.part_limits[-1]


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _add_trees(sums, base, norm, first, last, total, tables, offsets):
    """Add the leaves of some trees for one window: float64, in file order, as OpenCV adds them; and count features."""
    evaluated = 0
    for tree in range(first, last):
        root = tables.tree_starts[tree]
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _cell(sums, base, o, k):
    """Sum of one cell of an LBP feature, from the 4x4 grid of cell corners."""
    return np.int32(sums[base + o[k]] - sums[base + o[k + 1]] - sums[base + o[k + 4]] + sums[base + o[k + 5]])


# --- eight windows at a time -------------------------------------------------------------------------------------

LANES = 8
BATCH = 4
"""Vectors handled together: 4 measured 1.5 times as fast as 1 or 2 on an AVX-512 machine, 8 spills registers."""

EDGE, LINE, CHECKER, GENERAL = 0, 1, 2, 3
"""How a feature's look-ups are merged: 6 corners; 8 with one multiplier; 9 with a sign; 12 with float weights."""

RECORD, LBP_RECORD = np.uintp(16), np.uintp(32)
"""32-bit entries a node has in the lane scan's table: one or two cache lines."""
THRESHOLD, DELTA, MULTIPLIER, PLACE = np.uintp(12), np.uintp(13), np.uintp(14), np.uintp(15)
"""Entries of a Haar record after its corners: float32 threshold, left leaf minus right one of a stump, factor of a
line or sign of a checker, and the node's own place in its stage."""
WEIGHT = np.uintp(13)
"""Entry of a row of `LaneTables.walk` after its corners and threshold: three float32 weights."""
LBP_SUBSET, LBP_DELTA, LBP_PLACE = 16, np.uintp(24), np.uintp(25)
"""Entries of an LBP record after its corners: the eight words of the set, and the same as of a Haar record."""

TILE = 2048
"""Vectors in a tile, which goes through the stages before the next one begins: enough to fill batches up to the last
stages (4 rows instead of 16 cost 7 % on a VGA image), few enough for the planes to stay in the second-level cache (64
rows instead of 16 cost 35 % on a 1080p image)."""

I32 = ir.IntType(32)
F32 = ir.FloatType()


class _Block(types.Type):
    """`vectors` vectors of eight 32-bit numbers."""

    def __init__(self, element: str, vectors: int) -> None:
        self.element, self.vectors = element, vectors
        super().__init__(name=f"Block({element}, {vectors})")


@register_model(_Block)
class _BlockModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        vector = ir.VectorType(F32 if kind.element == "f32" else I32, LANES)
        super().__init__(manager, kind, ir.ArrayType(vector, kind.vectors))


def _map(context, builder, kind, operation, *blocks):
    """Apply `operation` to vector after vector of some blocks and collect the results in a block of `kind`."""
    result = cgutils.get_null_value(context.get_value_type(kind))
    for g in range(kind.vectors):
        vector = operation(*(builder.extract_value(block, g) for block in blocks))
        result = builder.insert_value(result, vector, g)
    return result


def _vector(element: str):
    return ir.VectorType(F32 if element == "f32" else I32, LANES)


def _pointer(builder, address, element="i32"):
    return builder.inttoptr(address, (F32 if element == "f32" else I32).as_pointer())


def _load_vector(builder, pointer, index, element):
    place = builder.bitcast(builder.gep(pointer, [index]), _vector(element).as_pointer())
    loaded = builder.load(place)
    loaded.align = 4
    return loaded


def _splat(builder, scalar, element):
    vector = ir.Constant(_vector(element), ir.Undefined)
    vector = builder.insert_element(vector, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


def _collect(context, builder, kind, vector_of):
    result = cgutils.get_null_value(context.get_value_type(kind))
    for g in range(kind.vectors):
        result = builder.insert_value(result, vector_of(g), g)
    return result


def _vectors(builder, kind, block):
    return [builder.extract_value(block, g) for g in range(kind.vectors)]


def _bits(builder, masks):
    """Join masks of eight lanes to one 32-bit number."""
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


@njit(inline="always")
def _rectangle(sums, base, walk, k):
    """Sum of the rectangle whose corners are entries k to k + 3 of a row of `walk`, as float32."""
    a = _int_at(sums, base + np.uintp(_int_at(walk, k))) - _int_at(
        sums, base + np.uintp(_int_at(walk, k + np.uintp(1)))
    )
    b = _int_at(sums, base + np.uintp(_int_at(walk, k + np.uintp(2))))
    return np.float32(np.int32(a - b + _int_at(sums, base + np.uintp(_int_at(walk, k + np.uintp(3))))))


@njit(cache=True, nogil=True)
def _walk_sum(sums, walk, links, leaves, base, norm, roots):
    """Do what `_add_trees` does from zero for Haar-like features, from addresses; see `LaneTables.walk`.

    Ten times as fast: what takes the plain one's time is numba's counting of references to the arrays of the tables.
    """
    total = 0.0
    for root in roots:
        node = np.int64(root)
        while node >= 0:
            first = np.uintp(node) * RECORD
            value = np.float32(0)
            for k in range(3):
                weight = _float_at(walk, first + WEIGHT + np.uintp(k))
                part = np.float32(weight * _rectangle(sums, base, walk, first + np.uintp(4 * k)))
                value = np.float32(value + part)
            left = np.float32(value * norm) < _float_at(walk, first + THRESHOLD)
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
    kind = _Block(element, bases.count)

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
def _add_where(typing, block, bits, value):
    """Add an int32 to the lanes whose bit is set."""

    def generate(context, builder, signature, args):
        amount, zero = _splat(builder, args[2], "i32"), ir.Constant(_vector("i32"), [0] * LANES)

        def vector(g):
            byte = builder.trunc(builder.lshr(args[1], ir.Constant(I32, g * LANES)), ir.IntType(LANES))
            mask = builder.bitcast(byte, ir.VectorType(ir.IntType(1), LANES))
            return builder.add(builder.extract_value(args[0], g), builder.select(mask, amount, zero))

        return _collect(context, builder, block, vector)

    return block(block, bits, value), generate


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
            if values.element == "i32":
                value = builder.sitofp(value, _vector("f32"))
            return builder.sext(builder.fcmp_ordered("<", builder.fmul(value, norm), limit), _vector("i32"))

        return _map(context, builder, kind, compare, args[0], args[1])

    return kind(values, norms, threshold), generate


def _corner_loader(builder, args):
    """Return corner(g, c): the vector at the base of vector g plus the offset in entry c of the record at `first`.

    Arguments of the intrinsic: addresses of the sums and the records, first, bases, ...
    """
    sums, table = _pointer(builder, args[0]), _pointer(builder, args[1])
    offsets = {}

    def corner(g, c):
        if c not in offsets:
            place = builder.gep(table, [builder.add(args[2], ir.Constant(args[2].type, c))])
            offsets[c] = builder.zext(builder.load(place), args[2].type)
        return _load_vector(builder, sums, builder.add(builder.extract_value(args[3], g), offsets[c]), "i32")

    return corner


@intrinsic
def _edge(typing, sums, records, first, bases):
    """(c0 + c1) - (c2 + c3) + 2 * (c4 - c5)."""
    kind = _Block("i32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(builder, args)

        def value(g):
            ones = builder.add(
                builder.sub(corner(g, 0), corner(g, 2)),
                builder.sub(corner(g, 1), corner(g, 3)),
            )
            twos = builder.sub(corner(g, 4), corner(g, 5))
            return builder.add(ones, builder.add(twos, twos))

        return _collect(context, builder, kind, value)

    return kind(sums, records, first, bases), generate


@intrinsic
def _line(typing, sums, records, first, bases, weight):
    """(c0 + c1) - (c2 + c3) + weight * ((c4 + c5) - (c6 + c7))."""
    kind = _Block("i32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(builder, args)
        factor = _splat(builder, args[4], "i32")

        def rectangle(g, c):
            return builder.add(
                builder.sub(corner(g, c), corner(g, c + 2)),
                builder.sub(corner(g, c + 1), corner(g, c + 3)),
            )

        return _collect(
            context,
            builder,
            kind,
            lambda g: builder.add(rectangle(g, 0), builder.mul(rectangle(g, 4), factor)),
        )

    return kind(sums, records, first, bases, weight), generate


@intrinsic
def _checker(typing, sums, records, first, bases, sign):
    """Sign * ((c0 + c1 + c2 + c3) - 2 * (c4 + c5 + c6 + c7) + 4 * c8)."""
    kind = _Block("i32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(builder, args)
        factor = _splat(builder, args[4], "i32")

        def four(g, c):
            return builder.add(
                builder.add(corner(g, c), corner(g, c + 1)), builder.add(corner(g, c + 2), corner(g, c + 3))
            )

        def value(g):
            centre = builder.add(corner(g, 8), corner(g, 8))
            twos = builder.sub(centre, four(g, 4))
            return builder.mul(builder.add(four(g, 0), builder.add(twos, twos)), factor)

        return _collect(context, builder, kind, value)

    return kind(sums, records, first, bases, sign), generate


@intrinsic
def _general(typing, sums, records, first, bases, weights):
    """Three rectangles with float weights, rounded to float32 after every step as OpenCV does."""
    kind = _Block("f32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(builder, args)
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
    kind = _Block("i32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(builder, args)
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
def _lane_norms(typing, sums, squares, base, corners, area):
    """Norms of the eight windows that start at `base`, as `_norm` gives them: a block of one vector, float32."""
    kind = _Block("f32", 1)
    doubles = ir.VectorType(ir.DoubleType(), LANES)

    def generate(context, builder, signature, args):
        pixels, squared = _pointer(builder, args[0]), _pointer(builder, args[1])

        def inner(pointer):
            a, b, c, d = (
                _load_vector(builder, pointer, builder.add(args[2], builder.extract_value(args[3], k)), "i32")
                for k in range(4)
            )
            return builder.sub(builder.sub(a, b), builder.sub(c, d))

        def constant(value):
            return ir.Constant(doubles, [value] * LANES)

        total = builder.sitofp(inner(pixels), doubles)
        square = builder.uitofp(inner(squared), doubles)
        size = builder.insert_element(ir.Constant(doubles, ir.Undefined), args[4], ir.Constant(I32, 0))
        size = builder.shuffle_vector(size, size, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))
        variance = builder.fsub(builder.fmul(size, square), builder.fmul(total, total))
        varies = builder.fcmp_ordered(">", variance, constant(0.0))
        name = f"llvm.sqrt.v{LANES}f64"
        root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(doubles, [doubles]), name)
        deviation = builder.call(root, [builder.select(varies, variance, constant(1.0))])
        norm = builder.fptrunc(builder.fdiv(constant(1.0), deviation), _vector("f32"))
        sharp = builder.fcmp_ordered(
            "<", builder.fmul(size, builder.fpext(norm, doubles)), constant(1.0 / MIN_DEVIATION)
        )
        norm = builder.select(builder.and_(varies, sharp), norm, ir.Constant(_vector("f32"), [0.0] * LANES))
        return builder.insert_value(cgutils.get_null_value(context.get_value_type(kind)), norm, 0)

    return kind(sums, squares, base, corners, area), generate


@intrinsic
def _not_zero(typing, block):
    """Bit i of the result says whether lane i of a block of one float32 vector is not zero; uint32."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_vector("f32"), [0.0] * LANES)
        mask = builder.fcmp_unordered("!=", builder.extract_value(args[0], 0), zero)
        return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), I32)

    return types.uint32(block), generate


@intrinsic
def _count(typing, bits):
    """Count the bits that are set in a uint32."""

    def generate(context, builder, signature, args):
        return builder.zext(builder.ctpop(args[0]), ir.IntType(64))

    return types.int64(bits), generate


class _At(NamedTuple):
    """Addresses of what the loops read; see `LaneTables` in tables.py."""

    sums: int
    records: int
    weights: int
    ends: int
    children: int
    scratch: int


@njit(inline="always")
def _addresses(sums, tables, scratch):
    return _At(
        _address(sums),
        _address(tables.records),
        _address(tables.weights),
        _address(tables.ends),
        _address(tables.children),
        _address(scratch),
    )


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
def _line_value(at, bases, norms, first):
    weight = _int_at(at.records, first + MULTIPLIER)
    return _below(_line(at.sums, at.records, first, bases, weight), norms, _float_at(at.records, first + THRESHOLD))


@njit(inline="always")
def _checker_value(at, bases, norms, first):
    sign = _int_at(at.records, first + MULTIPLIER)
    return _below(_checker(at.sums, at.records, first, bases, sign), norms, _float_at(at.records, first + THRESHOLD))


@njit(inline="always")
def _vote(at, total, left, first, bases):
    """Add a stump's votes: the difference of its leaves where it goes left."""
    return _add(total, _and(left, _fill(_int_at(at.records, first + DELTA), bases)))


@njit(cache=True, nogil=True)
def _stump_bits(at, bases, norms, ends, total, bounds):
    """Run a part of stumps on Haar-like features, sorted by kind, over a batch of vectors.

    `ends` are the first node and those after the last of each kind, `total` is what the sums start from, `bounds` are
    the sums at which a lane surely and perhaps passes. Returns the lanes that do, as two bit sets, and the sums. A loop
    for each kind keeps everything in registers: 1.6 times as fast as one loop that branches.
    """
    for node in range(ends[0], ends[1]):
        first = np.uintp(node) * RECORD
        threshold = _float_at(at.records, first + THRESHOLD)
        left = _below(_edge(at.sums, at.records, first, bases), norms, threshold)
        total = _vote(at, total, left, first, bases)
    for node in range(ends[1], ends[2]):
        first = np.uintp(node) * RECORD
        total = _vote(at, total, _line_value(at, bases, norms, first), first, bases)
    for node in range(ends[2], ends[3]):
        first = np.uintp(node) * RECORD
        total = _vote(at, total, _checker_value(at, bases, norms, first), first, bases)
    for node in range(ends[3], ends[4]):
        first = np.uintp(node) * RECORD
        total = _vote(at, total, _float_value(at, bases, norms, np.uintp(node), first), first, bases)
    return _at_least(total, bounds[0]), _at_least(total, bounds[1]), total


@njit(cache=True, nogil=True)
def _lbp_bits(at, bases, ends, total, bounds):
    """Run a part of stumps on LBP features; see `_stump_bits`."""
    for node in range(ends[0], ends[4]):
        first = np.uintp(node) * LBP_RECORD
        left = _lbp_inside(at.sums, at.records, first, bases)
        total = _add(total, _and(left, _fill(_int_at(at.records, first + LBP_DELTA), bases)))
    return _at_least(total, bounds[0]), _at_least(total, bounds[1]), total


@njit(inline="always")
def _branch(at, total, left, node, slot, delta, top, last, bases):
    """Add a tree node's votes and pass its lanes to its children.

    `slot` of the scratch space holds the lanes that reach the node, except for roots (`top`), which all lanes reach.
    Nodes of the `last` depth have no children; leaves of others share a slot that nobody reads.
    """
    bits = _pack(left)
    here = np.uint32(0xFFFFFFFF)
    if top:
        total = _add(total, _and(left, _fill(delta, bases)))
    else:
        here = np.uint32(_int_at(at.scratch, np.uintp(slot)))
        bits = np.uint32(here & bits)
        total = _add_where(total, bits, delta)
    if not last:
        k = np.uintp(node) * np.uintp(2)
        for side in range(2):
            child = np.uintp(_int_at(at.children, k + np.uintp(side)))
            reached = np.uint32(here ^ bits) if side else bits
            # A file may lead to a node along several branches, or along none.
            _put(at.scratch, child, np.uint32(np.uint32(_int_at(at.scratch, child)) | reached))
    return total


@njit(cache=True, nogil=True)
def _tree_bits(at, bases, norms, segments, total, bounds, lbp, nodes):
    """Run a part of `nodes` nodes of trees over a batch of vectors; see `_stump_bits`.

    A segment holds the nodes of one depth, sorted by kind. A node votes, like a stump, for the lanes that reach it and
    go left: with the leaf at the end of the right branches below its left child, minus the one below its right child.
    These differences add up to the leaf that a lane ends at.
    """
    for k in range(nodes):
        _put(at.scratch, np.uintp(k), np.uint32(0))
    for segment in range(segments[0], segments[1]):
        e = np.uintp(segment) * np.uintp(5)
        ends = (
            _int_at(at.ends, e),
            _int_at(at.ends, e + np.uintp(1)),
            _int_at(at.ends, e + np.uintp(2)),
            _int_at(at.ends, e + np.uintp(3)),
            _int_at(at.ends, e + np.uintp(4)),
        )
        top, last = segment == segments[0], segment == segments[1] - 1
        for node in range(ends[0], ends[1]):
            if lbp:
                first = np.uintp(node) * LBP_RECORD
                left = _lbp_inside(at.sums, at.records, first, bases)
                delta, slot = _int_at(at.records, first + LBP_DELTA), _int_at(at.records, first + LBP_PLACE)
            else:
                first = np.uintp(node) * RECORD
                threshold = _float_at(at.records, first + THRESHOLD)
                left = _below(_edge(at.sums, at.records, first, bases), norms, threshold)
                delta, slot = _int_at(at.records, first + DELTA), _int_at(at.records, first + PLACE)
            total = _branch(at, total, left, node, slot, delta, top, last, bases)
        for node in range(ends[1], ends[2]):
            first = np.uintp(node) * RECORD
            left = _line_value(at, bases, norms, first)
            delta, slot = _int_at(at.records, first + DELTA), _int_at(at.records, first + PLACE)
            total = _branch(at, total, left, node, slot, delta, top, last, bases)
        for node in range(ends[2], ends[3]):
            first = np.uintp(node) * RECORD
            left = _checker_value(at, bases, norms, first)
            delta, slot = _int_at(at.records, first + DELTA), _int_at(at.records, first + PLACE)
            total = _branch(at, total, left, node, slot, delta, top, last, bases)
        for node in range(ends[3], ends[4]):
            first = np.uintp(node) * RECORD
            left = _float_value(at, bases, norms, np.uintp(node), first)
            delta, slot = _int_at(at.records, first + DELTA), _int_at(at.records, first + PLACE)
            total = _branch(at, total, left, node, slot, delta, top, last, bases)
    return _at_least(total, bounds[0]), _at_least(total, bounds[1]), total


@njit(cache=True, nogil=True)
def _exact_sum(sums, base, norm, first, last, tables, plain, offsets):
    """Sum of the leaves of some trees for one window, as `_add_trees` gives it."""
    if tables.lbp:
        return _add_trees(sums, base, norm, first, last, 0.0, plain, offsets)[0]
    addresses = (_address(sums), _address(tables.walk), _address(tables.links), _address(plain.leaves))
    return _walk_sum(*addresses, np.uintp(base), norm, plain.tree_starts[first:last])


@njit(cache=True, nogil=True)
def _exact_bits(sums, base, norms, place, unsure, part, tables, plain, offsets):
    """Decide the lanes in `unsure` of one vector exactly; return those that pass."""
    bits = np.uint32(0)
    begin = part
    while not plain.first_parts[begin]:
        begin -= 1
    first, last = plain.part_starts[begin], plain.part_starts[part + 1]
    for lane in range(LANES):
        if unsure >> np.uint32(lane) & np.uint32(1):
            total = _exact_sum(sums, np.int64(base) + lane, norms[place + lane], first, last, tables, plain, offsets)
            if total >= plain.part_limits[part]:
                bits |= np.uint32(1) << np.uint32(lane)
    return bits


@njit(cache=True, nogil=True)
def _prepare_tile(sums, squares, grid, plain, top, bottom, norms, alive):
    """Fill the norms of a tile's windows and each vector's byte of windows that are not flat."""
    width = (grid.columns + LANES - 1) // LANES
    rest = np.uint32((1 << (grid.columns - (width - 1) * LANES)) - 1)
    c = grid.corners
    corners = (np.uintp(c[0]), np.uintp(c[1]), np.uintp(c[2]), np.uintp(c[3]))
    at_sums, at_squares, at_norms = _address(sums), _address(squares), _address(norms)
    lbp, area = plain.lbp, plain.area
    place = np.uintp(0)
    for r in range(top, bottom):
        base = np.uintp(r * grid.row_step)
        for g in range(width):
            if lbp:
                _store_block(at_norms, place, _fill(np.float32(1), (base,)))
                bits = np.uint32(255)
            else:
                found = _lane_norms(at_sums, at_squares, base, corners, area)
                _store_block(at_norms, place, found)
                bits = _not_zero(found)
            alive[(r - top) * width + g] = bits & rest if g == width - 1 else bits
            base += np.uintp(LANES)
            place += np.uintp(LANES)


@njit(cache=True, nogil=True)
def _filter(sums, vectors, vector_bases, n, norms, alive, part, tables, plain, offsets, scratch, totals):
    """Run one part over the listed vectors; return how many still have a lane alive.

    `alive` keeps the lanes that pass, the lists keep the vectors that have any, `totals` the sums for the next part of
    the stage.
    """
    kept = 0
    at = _addresses(sums, tables, scratch)
    at_norms, at_totals = _address(norms), _address(totals)
    segments = (tables.segments[part], tables.segments[part + 1])
    nodes = tables.ends[segments[1] - 1, 4] - tables.ends[segments[0], 0]
    e = tables.ends[segments[0]]
    ends = (e[0], e[1], e[2], e[3], e[4])
    base = tables.bases[part]
    bounds = (tables.high[part], tables.low[part])
    lbp = tables.lbp
    stumps = segments[1] - segments[0] == 1
    first = plain.first_parts[part]
    last = part + 1 == len(plain.part_limits) or plain.first_parts[part + 1]
    width = np.uintp(LANES)
    for b in range(0, n, BATCH):
        # A short last batch repeats its first vector: four cost hardly more than one.
        k0, k1 = b, b + 1 if b + 1 < n else b
        k2, k3 = b + 2 if b + 2 < n else b, b + 3 if b + 3 < n else b
        bases = (vector_bases[k0], vector_bases[k1], vector_bases[k2], vector_bases[k3])
        members = (np.uintp(vectors[k0]), np.uintp(vectors[k1]), np.uintp(vectors[k2]), np.uintp(vectors[k3]))
        starts = (members[0] * width, members[1] * width, members[2] * width, members[3] * width)
        block = _load_floats(at_norms, starts)
        start = _fill(base, bases)
        if not first:
            start = _add(start, _load_ints(at_totals, starts))
        if not stumps:
            sure, maybe, total = _tree_bits(at, bases, block, segments, start, bounds, lbp, nodes)
        elif lbp:
            sure, maybe, total = _lbp_bits(at, bases, ends, start, bounds)
        else:
            sure, maybe, total = _stump_bits(at, bases, block, ends, start, bounds)
        if not last:
            _store_blocks(at_totals, starts, total)
        unsure = maybe & ~sure
        for k in range(min(BATCH, n - b)):
            vector = vectors[b + k]
            shift = np.uint32(LANES * k)
            passed = (sure >> shift) & np.uint32(255)
            open_lanes = (unsure >> shift) & np.uint32(255) & alive[vector]
            if open_lanes:
                passed |= _exact_bits(
                    sums, vector_bases[b + k], norms, vector * LANES, open_lanes, part, tables, plain, offsets
                )
            passed &= alive[vector]
            alive[vector] = passed
            if passed:
                # Never ahead of what is still to be read.
                vectors[kept] = vector
                vector_bases[kept] = vector_bases[b + k]
                kept += 1
    return kept


@njit(cache=True, nogil=True)
def _count_features(sums, vectors, vector_bases, n, norms, entering, part, tables, plain, scratch):
    """Return how many features a part evaluates for the windows set in `entering` (a byte for each vector).

    Runs the trees of the part again: what each node leaves in the scratch space are the lanes that reach it. So
    counting costs `_filter` nothing, and a scan that counts takes up to twice as long as one that does not.
    """
    trees = plain.part_starts[part + 1] - plain.part_starts[part]
    segments = (tables.segments[part], tables.segments[part + 1])
    nodes = tables.ends[segments[1] - 1, 4] - tables.ends[segments[0], 0]
    at = _addresses(sums, tables, scratch)
    at_norms = _address(norms)
    bounds = (tables.high[part], tables.low[part])
    width = np.uintp(LANES)
    features = 0
    for b in range(0, n, BATCH):
        k = (b, min(b + 1, n - 1), min(b + 2, n - 1), min(b + 3, n - 1))
        here = np.uint32(0)
        for j in range(min(BATCH, n - b)):
            here |= entering[vectors[b + j]] << np.uint32(LANES * j)
        features += trees * _count(here)
        if nodes > trees:
            bases = (vector_bases[k[0]], vector_bases[k[1]], vector_bases[k[2]], vector_bases[k[3]])
            starts = (
                np.uintp(vectors[k[0]]) * width,
                np.uintp(vectors[k[1]]) * width,
                np.uintp(vectors[k[2]]) * width,
                np.uintp(vectors[k[3]]) * width,
            )
            block = _load_floats(at_norms, starts)
            _tree_bits(at, bases, block, segments, _fill(tables.bases[part], bases), bounds, tables.lbp, nodes)
            for node in range(nodes):
                # Roots are nobody's children: nothing is stored for them.
                features += _count(np.uint32(_int_at(at.scratch, np.uintp(node))) & here)
    return features


def _skip_table() -> np.ndarray:
    """Tabulate what OpenCV visits in a vector.

    Index: whether the first window is skipped; the byte of windows that the first stage rejects. Entry: the byte of
    visited windows, and in bit 8 whether the first window of the next vector is skipped.
    """
    table = np.zeros((2, 256), dtype=np.uint32)
    for pending in range(2):
        for rejected in range(256):
            skipped, seen = bool(pending), 0
            for lane in range(LANES):
                if skipped:
                    skipped = False
                else:
                    seen |= 1 << lane
                    skipped = bool(rejected >> lane & 1)
            table[pending, rejected] = seen | skipped << LANES
    return table


_SKIP = _skip_table()


@njit(cache=True, nogil=True)
def _visit(began, alive, start, width, columns, skip, entered):
    """Drop the windows of one row that OpenCV does not visit from both lists; return the number visited.

    `began` holds each vector's windows that entered stage 0, `alive` those that passed it. After a window that entered
    stage 0 and failed it, the next one is not visited.
    """
    visited = 0
    pending = np.uint32(0)
    for g in range(width):
        seen = np.uint32(255)
        if skip:
            entry = _SKIP[pending, began[start + g] & ~alive[start + g] & np.uint32(255)]
            pending = entry >> np.uint32(LANES)
            seen &= entry
        if g == width - 1:
            seen &= np.uint32((1 << (columns - g * LANES)) - 1)
        alive[start + g] &= seen
        began[start + g] &= seen
        visited += _count(seen)
        entered[0] += _count(began[start + g])
    return visited


@njit(cache=True, nogil=True)
def _collect_hits(sums, grid, top, norms, alive, tables, plain, offsets, hits, hit_sums, found):
    """Append the hits of a tile, with their exact sums of the last stage; return the new count."""
    width = (grid.columns + LANES - 1) // LANES
    first, last = plain.stage_starts[-2], plain.stage_starts[-1]
    for g in range(len(alive)):
        if alive[g] == 0:
            continue
        for lane in range(LANES):
            if alive[g] >> np.uint32(lane) & np.uint32(1):
                r, i = top + g // width, g % width * LANES + lane
                hits[found, 0] = r
                hits[found, 1] = i
                base, norm = r * grid.row_step + i, norms[g * LANES + lane]
                hit_sums[found] = _exact_sum(sums, base, norm, first, last, tables, plain, offsets)
                found += 1
    return found


@njit(cache=True, nogil=True)
def _list_vectors(grid, top, total, alive, vectors, vector_bases):
    """List the vectors of a tile that have a window alive, and where their first windows are; return how many."""
    width = (grid.columns + LANES - 1) // LANES
    n = 0
    for g in range(total):
        if alive[g]:
            vectors[n] = g
            vector_bases[n] = np.uintp((top + g // width) * grid.row_step + g % width * LANES)
            n += 1
    return n


@njit(cache=True, nogil=True)
def scan_lanes(sums, squares, grid, tables, plain, offsets, skip, hits, hit_sums, counts):
    """Like `scan_plain`, in vectors of neighbouring windows; features are counted unless their array is empty."""
    entered, features = counts
    width = max(1, (grid.columns + LANES - 1) // LANES)
    rows = max(1, TILE // width)
    norms = np.empty(rows * width * LANES, np.float32)
    alive = np.empty(rows * width, np.uint32)
    began = np.empty(rows * width, np.uint32)
    vectors = np.empty(rows * width, np.int64)
    vector_bases = np.empty(rows * width, np.uintp)
    scratch = np.empty(tables.scratch, np.int32)
    # Sums are carried from part to part of a stage, if any stage has several.
    totals = np.empty(rows * width * LANES if len(plain.part_limits) > len(plain.limits) else 0, np.int32)
    found = 0
    visited = 0
    for top in range(0, grid.rows, rows):
        bottom = min(top + rows, grid.rows)
        _prepare_tile(sums, squares, grid, plain, top, bottom, norms, alive)
        total = (bottom - top) * width
        began[:total] = alive[:total]
        stage = -1
        n = _list_vectors(grid, top, total, alive, vectors, vector_bases)
        for part in range(len(plain.part_limits)):
            if plain.first_parts[part]:
                stage += 1
                if stage == 1:
                    # Again after the first stage, which leaves out windows that are not visited.
                    n = _list_vectors(grid, top, total, alive, vectors, vector_bases)
                if stage > 0:
                    for k in range(n):
                        entered[stage] += _count(alive[vectors[k]])
            if n == 0 and stage > 0:
                break
            if len(features) and stage > 0:
                features[stage] += _count_features(
                    sums, vectors, vector_bases, n, norms, alive, part, tables, plain, scratch
                )
            n = _filter(sums, vectors, vector_bases, n, norms, alive, part, tables, plain, offsets, scratch, totals)
            if stage == 0 and (part + 1 == len(plain.part_limits) or plain.first_parts[part + 1]):
                for r in range(bottom - top):
                    visited += _visit(began, alive, r * width, width, grid.columns, skip, entered)
                if len(features):
                    # Which windows count is known only now: the first stage runs again for those visited.
                    again = began.copy()
                    m = _list_vectors(grid, top, total, again, vectors, vector_bases)
                    for k in range(part + 1):
                        features[0] += _count_features(
                            sums, vectors, vector_bases, m, norms, again, k, tables, plain, scratch
                        )
                        m = _filter(
                            sums, vectors, vector_bases, m, norms, again, k, tables, plain, offsets, scratch, totals
                        )
        if n == 0:
            continue
        found = _collect_hits(sums, grid, top, norms, alive[:total], tables, plain, offsets, hits, hit_sums, found)
    return found, visited
