"""The compiled scan, twice: window by window, and in groups of eight neighbouring windows held in vector registers.

`scan_plain` is the definition: one window after the other, float64 sums in file order. `scan_lanes` returns the same
survivors and counts several times faster. It owes its speed to three things:

- Windows are handled in groups of eight neighbours ("lanes") of which at least one is alive, four groups at a time, so
  that what a weak classifier needs (offsets, threshold) is read once for 32 windows and the four chains of arithmetic
  overlap. Numba does not vectorise such short loops by itself: the vector types below emit LLVM vectors, which every
  processor supports.
- A feature's look-ups are merged: an edge feature has six different corners, not eight. With small integer weights the
  value is an exact 32-bit integer, whatever the order.
- A stage's leaves are rounded to 32-bit integers. The rounding errors are bounded, so a lane is decided whenever its
  sum is further than the bound from the threshold; the few others (about one in a million) are summed exactly.

Loads inside the vector helpers are not seen by ``NUMBA_BOUNDSCHECK``: the plain scan is what runs in that mode.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
BATCH = 4
"""Groups handled together: 4 measured 1.5 times as fast as 1 or 2 on an AVX-512 machine, 8 spills registers."""

EDGE, LINE, CHECKER, GENERAL = 0, 1, 2, 3
"""How a feature's look-ups are merged: 6 corners; 8 with one multiplier; 9; 12 corners with float weights."""

ROWS = 16
"""Rows of windows per tile of the lane scan."""

I32 = ir.IntType(32)
F32 = ir.FloatType()


class _Block(types.Type):
    """`groups` vectors of eight 32-bit numbers."""

    def __init__(self, element: str, groups: int) -> None:
        self.element, self.groups = element, groups
        super().__init__(name=f"Block({element}, {groups})")


@register_model(_Block)
class _BlockModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        vector = ir.VectorType(F32 if kind.element == "f32" else I32, LANES)
        super().__init__(manager, kind, ir.ArrayType(vector, kind.groups))


def _map(context, builder, kind, operation, *blocks):
    """Apply `operation` to the vectors of each group and collect the results in a block of `kind`."""
    result = cgutils.get_null_value(context.get_value_type(kind))
    for g in range(kind.groups):
        vector = operation(*(builder.extract_value(block, g) for block in blocks))
        result = builder.insert_value(result, vector, g)
    return result


def _vector(element: str):
    return ir.VectorType(F32 if element == "f32" else I32, LANES)


def _pointer(context, builder, array_type, array):
    return context.make_array(array_type)(context, builder, array).data


def _load_vector(builder, pointer, index, element):
    place = builder.bitcast(builder.gep(pointer, [index]), _vector(element).as_pointer())
    loaded = builder.load(place)
    loaded.align = 4
    return loaded


def _splat(builder, scalar, element):
    vector = ir.Constant(_vector(element), ir.Undefined)
    vector = builder.insert_element(vector, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


def _element(array_type) -> str:
    return "f32" if array_type.dtype == types.float32 else "i32"


@intrinsic
def _load(typing, array, bases):
    """Load eight neighbours from each base of a tuple of positions."""
    kind = _Block(_element(array), bases.count)

    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0])
        result = cgutils.get_null_value(context.get_value_type(kind))
        for g in range(kind.groups):
            vector = _load_vector(builder, pointer, builder.extract_value(args[1], g), kind.element)
            result = builder.insert_value(result, vector, g)
        return result

    return kind(array, bases), generate


@intrinsic
def _load_block(typing, array, index, bases):
    """Load a block that `_store_block` wrote; `bases` says how many groups it has."""
    kind = _Block(_element(array), bases.count)

    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0])
        result = cgutils.get_null_value(context.get_value_type(kind))
        for g in range(kind.groups):
            place = builder.add(args[1], ir.Constant(args[1].type, g * LANES))
            result = builder.insert_value(result, _load_vector(builder, pointer, place, kind.element), g)
        return result

    return kind(array, index, bases), generate


@intrinsic
def _store_block(typing, array, index, block):
    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0])
        for g in range(block.groups):
            start = builder.add(args[1], ir.Constant(args[1].type, g * LANES))
            place = builder.bitcast(builder.gep(pointer, [start]), _vector(block.element).as_pointer())
            builder.store(builder.extract_value(args[2], g), place).align = 4
        return context.get_dummy_value()

    return types.none(array, index, block), generate


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
def _select(typing, mask, a, b):
    """Lanes of `a` where the mask is set, of `b` elsewhere."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_vector("i32"), [0] * LANES)

        def choose(m, x, y):
            return builder.select(builder.icmp_signed("!=", m, zero), x, y)

        return _map(context, builder, a, choose, *args)

    return a(mask, a, b), generate


@intrinsic
def _at_least(typing, block, value):
    """Bit i of the result says whether lane i, counted over all groups, is at least `value`; uint32."""

    def generate(context, builder, signature, args):
        limit = _splat(builder, args[1], "i32")
        bits = ir.Constant(I32, 0)
        for g in range(block.groups):
            mask = builder.icmp_signed(">=", builder.extract_value(args[0], g), limit)
            byte = builder.zext(builder.bitcast(mask, ir.IntType(LANES)), I32)
            bits = builder.or_(bits, builder.shl(byte, ir.Constant(I32, g * LANES)))
        return bits

    return types.uint32(block, value), generate


@intrinsic
def _below(typing, values, norms, threshold):
    """Mask (-1 or 0 per lane) of ``float32(values * norms) < threshold``; integer values are converted first."""
    kind = _Block("i32", values.groups)

    def generate(context, builder, signature, args):
        limit = _splat(builder, args[2], "f32")

        def compare(value, norm):
            if values.element == "i32":
                value = builder.sitofp(value, _vector("f32"))
            return builder.sext(builder.fcmp_ordered("<", builder.fmul(value, norm), limit), _vector("i32"))

        return _map(context, builder, kind, compare, args[0], args[1])

    return kind(values, norms, threshold), generate


def _corner_loader(context, builder, signature, args):
    """Return corner(g, c): the vector at the base of group g plus entry c of the offsets from `first` on.

    Arguments of the intrinsic: sums, offsets, first, bases, ...
    """
    sums = _pointer(context, builder, signature.args[0], args[0])
    table = _pointer(context, builder, signature.args[1], args[1])
    offsets = {}

    def corner(g, c):
        if c not in offsets:
            place = builder.gep(table, [builder.add(args[2], ir.Constant(args[2].type, c))])
            offsets[c] = builder.zext(builder.load(place), args[2].type)
        return _load_vector(builder, sums, builder.add(builder.extract_value(args[3], g), offsets[c]), "i32")

    return corner


def _collect(context, builder, kind, vector_of):
    result = cgutils.get_null_value(context.get_value_type(kind))
    for g in range(kind.groups):
        result = builder.insert_value(result, vector_of(g), g)
    return result


@intrinsic
def _edge(typing, sums, offsets, first, bases):
    """(c0 + c1) - (c2 + c3) + 2 * (c4 - c5)."""
    kind = _Block("i32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(context, builder, signature, args)

        def value(g):
            ones = builder.add(
                builder.sub(corner(g, 0), corner(g, 2)),
                builder.sub(corner(g, 1), corner(g, 3)),
            )
            twos = builder.sub(corner(g, 4), corner(g, 5))
            return builder.add(ones, builder.add(twos, twos))

        return _collect(context, builder, kind, value)

    return kind(sums, offsets, first, bases), generate


@intrinsic
def _line(typing, sums, offsets, first, bases, weight):
    """(c0 + c1) - (c2 + c3) + weight * ((c4 + c5) - (c6 + c7))."""
    kind = _Block("i32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(context, builder, signature, args)
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

    return kind(sums, offsets, first, bases, weight), generate


@intrinsic
def _checker(typing, sums, offsets, first, bases):
    """(c0 + c1 + c2 + c3) - 2 * (c4 + c5 + c6 + c7) + 4 * c8."""
    kind = _Block("i32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(context, builder, signature, args)

        def four(g, c):
            return builder.add(
                builder.add(corner(g, c), corner(g, c + 1)), builder.add(corner(g, c + 2), corner(g, c + 3))
            )

        def value(g):
            centre = builder.add(corner(g, 8), corner(g, 8))
            twos = builder.sub(centre, four(g, 4))
            return builder.add(four(g, 0), builder.add(twos, twos))

        return _collect(context, builder, kind, value)

    return kind(sums, offsets, first, bases), generate


@intrinsic
def _general(typing, sums, offsets, first, bases, weights):
    """Three rectangles with float weights, rounded to float32 after every step as OpenCV does."""
    kind = _Block("f32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(context, builder, signature, args)
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

    return kind(sums, offsets, first, bases, weights), generate


@intrinsic
def _lbp_inside(typing, sums, offsets, first, bases, words, word):
    """Mask of the lanes whose code is in the set held by the eight int32 from `words[word]` on.

    The offsets are the 16 corners of the 3x3 cells, row by row.
    """
    kind = _Block("i32", bases.count)

    def generate(context, builder, signature, args):
        corner = _corner_loader(context, builder, signature, args)
        table = _pointer(context, builder, signature.args[4], args[4])
        subset = [
            _splat(
                builder, builder.load(builder.gep(table, [builder.add(args[5], ir.Constant(args[5].type, k))])), "i32"
            )
            for k in range(8)
        ]
        vector = _vector("i32")

        def value(g):
            grid = [corner(g, c) for c in range(16)]

            def cell(r, c):
                k = 4 * r + c
                return builder.sub(builder.sub(grid[k], grid[k + 1]), builder.sub(grid[k + 4], grid[k + 5]))

            centre = cell(1, 1)
            # Clockwise from the top left cell: code bits 7 to 0.
            ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
            bits = [builder.icmp_signed(">=", cell(r, c), centre) for r, c in ring]
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

    return kind(sums, offsets, first, bases, words, word), generate


# --- one window at a time ----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _goes_left(sums, base, norm, node, tables, offsets):
    """Whether the window at `base` goes left at a node."""
    feature = tables.node_features[node]
    if tables.lbp:
        centre = _cell(sums, base, offsets[feature], 5)
        code = 0
        for k in range(8):
            code |= (_cell(sums, base, offsets[feature], tables.ring[k]) >= centre) << (7 - k)
        return (tables.node_subsets[node, code >> 5] >> (code & 31)) & 1 == 1
    value = np.float32(0)
    for k in range(3):
        o = offsets[feature, 4 * k : 4 * k + 4]
        total = np.int32(sums[base + o[0]] - sums[base + o[1]] - sums[base + o[2]] + sums[base + o[3]])
        value = np.float32(value + np.float32(tables.weights[feature, k] * np.float32(total)))
    return np.float32(value * norm) < tables.node_thresholds[node]


@njit(cache=True, nogil=True)
def _cell(sums, base, o, k):
    return np.int32(sums[base + o[k]] - sums[base + o[k + 1]] - sums[base + o[k + 4]] + sums[base + o[k + 5]])


@njit(cache=True, nogil=True)
def _stage_sum(sums, base, norm, stage, tables, offsets):
    """Sum of a stage's leaves for one window: float64, in file order, as OpenCV adds them."""
    total = 0.0
    for tree in range(tables.stage_starts[stage], tables.stage_starts[stage + 1]):
        root = tables.tree_starts[tree]
        node = root
        while True:
            side = 0 if _goes_left(sums, base, norm, node, tables, offsets) else 1
            child = tables.node_children[node, side]
            if child <= 0:
                break
            node = root + child
        total += np.float64(tables.leaves[root + tree - child])
    return total


@njit(cache=True, nogil=True)
def _norm(sums, squares, base, corners, area):
    """1 / (area * standard deviation) of the inner rectangle as float32; 0 where the window is too flat to be scanned.

    OpenCV's rule: the standard deviation must exceed 10 grey levels.
    """
    a, b, c, d = base + corners[0], base + corners[1], base + corners[2], base + corners[3]
    total = np.int32(sums[a] - sums[b] - sums[c] + sums[d])
    square = np.uint32(squares[a] - squares[b] - squares[c] + squares[d])
    variance = area * np.float64(square) - np.float64(total) * np.float64(total)
    norm = np.float32(1.0 / np.sqrt(max(variance, 1.0)))
    return norm if variance > 0 and area * np.float64(norm) < 0.1 else np.float32(0)


@njit(cache=True, nogil=True)
def _run_window(sums, squares, base, grid, tables, offsets):
    """Return the depth of a window (-1 if it is flat) and the sum of the last stage it reached."""
    norm = np.float32(1) if tables.lbp else _norm(sums, squares, base, grid.corners, tables.area)
    if norm == 0:
        return -1, 0.0
    passed = 0
    total = 0.0
    while passed < len(tables.limits):
        total = _stage_sum(sums, base, norm, passed, tables, offsets)
        if total < tables.limits[passed]:
            break
        passed += 1
    return passed, total


@njit(cache=True, nogil=True)
def depths_plain(sums, squares, grid, tables, offsets, depth, last_sum):
    """Fill `depth` (int16) and `last_sum` (float64), both (rows, columns), for every window of the grid."""
    for r in range(grid.rows):
        for i in range(grid.columns):
            found, total = _run_window(sums, squares, r * grid.row_step + i, grid, tables, offsets)
            depth[r, i] = found
            last_sum[r, i] = total


@njit(cache=True, nogil=True)
def scan_plain(sums, squares, grid, tables, offsets, skip, hits, hit_sums, entered):
    """Scan a grid of windows; return the number of survivors and of windows visited.

    Survivors go to `hits` (row, column) and `hit_sums`, in row order; `entered` counts the windows entering each stage.
    """
    found = 0
    visited = 0
    n_stages = len(tables.limits)
    for r in range(grid.rows):
        i = 0
        while i < grid.columns:
            visited += 1
            depth, total = _run_window(sums, squares, r * grid.row_step + i, grid, tables, offsets)
            for stage in range(min(depth + 1, n_stages)):
                entered[stage] += 1
            if depth == n_stages:
                hits[found, 0] = r
                hits[found, 1] = i
                hit_sums[found] = total
                found += 1
            i += 2 if skip and depth == 0 else 1
    return found, visited


# --- eight windows at a time -------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _left_lanes(sums, bases, norms, node, tables):
    """Mask of the lanes that go left at a node."""
    if tables.lbp:
        return _lbp_inside(sums, tables.offsets, node * np.uintp(16), bases, tables.words, node * np.uintp(8))
    first = node * np.uintp(12)
    threshold = tables.thresholds[node]
    kind = tables.kinds[node]
    if kind == EDGE:
        return _below(_edge(sums, tables.offsets, first, bases), norms, threshold)
    if kind == LINE:
        return _below(_line(sums, tables.offsets, first, bases, tables.multipliers[node]), norms, threshold)
    if kind == CHECKER:
        return _below(_checker(sums, tables.offsets, first, bases), norms, threshold)
    weights = (tables.weights[node, 0], tables.weights[node, 1], tables.weights[node, 2])
    return _below(_general(sums, tables.offsets, first, bases, weights), norms, threshold)


@njit(cache=True, nogil=True)
def _branch(child, leaf, tables, scratch, bases):
    """Values below a node on one side: those of a later node, already in `scratch`, or of a leaf."""
    if child > 0:
        return _load_block(scratch, np.uintp(child) * np.uintp(LANES * BATCH), bases)
    return _fill(tables.leaves[leaf - child], bases)


@njit(cache=True, nogil=True)
def _stage_lanes(sums, bases, norms, stage, tables, scratch):
    """Return the sums of a stage for a batch of groups, in units of the stage's scale."""
    total = _fill(tables.bases[stage], bases)
    for tree in range(tables.stage_starts[stage], tables.stage_starts[stage + 1]):
        root = tables.tree_starts[tree]
        end = tables.tree_starts[tree + 1]
        if end - root == 1:
            left = _left_lanes(sums, bases, norms, np.uintp(root), tables)
            total = _add(total, _and(left, _fill(tables.deltas[root], bases)))
        else:
            for node in range(end - 1, root - 1, -1):
                left = _left_lanes(sums, bases, norms, np.uintp(node), tables)
                a = _branch(tables.children[node, 0], root + tree, tables, scratch, bases)
                b = _branch(tables.children[node, 1], root + tree, tables, scratch, bases)
                _store_block(scratch, np.uintp(node - root) * np.uintp(LANES * BATCH), _select(left, a, b))
            total = _add(total, _load_block(scratch, np.uintp(0), bases))
    return total


@njit(cache=True, nogil=True)
def _exact_bits(sums, base, norms, place, unsure, stage, plain, offsets):
    """Decide the lanes in `unsure` of one group exactly; return those that pass."""
    bits = np.uint32(0)
    for lane in range(LANES):
        if unsure >> np.uint32(lane) & np.uint32(1):
            total = _stage_sum(sums, np.int64(base) + lane, norms[place + lane], stage, plain, offsets)
            if total >= plain.limits[stage]:
                bits |= np.uint32(1) << np.uint32(lane)
    return bits


@njit(cache=True, nogil=True)
def _count(bits):
    n = 0
    while bits:
        bits &= bits - np.uint32(1)
        n += 1
    return n


@njit(cache=True, nogil=True)
def _prepare_tile(sums, squares, grid, area, lbp, top, bottom, norms, alive):
    """Fill the norms of a tile's windows and each group's byte of windows that are not flat."""
    width = (grid.columns + LANES - 1) // LANES
    for r in range(top, bottom):
        start = (r - top) * width * LANES
        base = r * grid.row_step
        for i in range(grid.columns):
            norms[start + i] = np.float32(1) if lbp else _norm(sums, squares, base + i, grid.corners, area)
        for i in range(grid.columns, width * LANES):
            norms[start + i] = 0
        for g in range(width):
            byte = np.uint32(0)
            for lane in range(LANES):
                byte |= np.uint32(norms[start + g * LANES + lane] != 0) << np.uint32(lane)
            alive[(r - top) * width + g] = byte


@njit(cache=True, nogil=True)
def _filter(sums, groups, group_bases, n, norms, alive, stage, tables, plain, offsets, scratch):
    """Run one stage over the listed groups: keep in `alive` the lanes that pass."""
    width = np.uintp(LANES)
    mask = np.uint32(255)
    for b in range(0, n, BATCH):
        # A short last batch repeats its first group: four cost hardly more than one.
        k0, k1 = b, b + 1 if b + 1 < n else b
        k2, k3 = b + 2 if b + 2 < n else b, b + 3 if b + 3 < n else b
        bases = (group_bases[k0], group_bases[k1], group_bases[k2], group_bases[k3])
        members = (np.uintp(groups[k0]), np.uintp(groups[k1]), np.uintp(groups[k2]), np.uintp(groups[k3]))
        starts = (members[0] * width, members[1] * width, members[2] * width, members[3] * width)
        total = _stage_lanes(sums, bases, _load(norms, starts), stage, tables, scratch)
        sure = _at_least(total, tables.high[stage])
        maybe = _at_least(total, tables.low[stage])
        unsure = maybe & ~sure
        for k in range(min(BATCH, n - b)):
            group = groups[b + k]
            shift = np.uint32(LANES * k)
            passed = (sure >> shift) & mask
            open_lanes = (unsure >> shift) & mask & alive[group]
            if open_lanes:
                passed |= _exact_bits(sums, group_bases[b + k], norms, group * LANES, open_lanes, stage, plain, offsets)
            alive[group] &= passed


@njit(cache=True, nogil=True)
def _visit(start_bits, alive, width, columns, skip, entered):
    """Drop the windows of one row that OpenCV does not visit; return the number visited.

    `start_bits` holds each group's windows that entered stage 0, `alive` those that passed it. After a window that
    entered stage 0 and failed it, the next one is not visited.
    """
    visited = 0
    pending = False
    for g in range(width):
        began, passed = start_bits[g], alive[g]
        seen = np.uint32(0)
        for lane in range(min(LANES, columns - g * LANES)):
            if pending:
                pending = False
                continue
            bit = np.uint32(1) << np.uint32(lane)
            seen |= bit
            pending = skip and (began & ~passed & bit) != 0
        alive[g] = passed & seen
        visited += _count(seen)
        entered[0] += _count(began & seen)
    return visited


@njit(cache=True, nogil=True)
def scan_lanes(sums, squares, grid, tables, plain, offsets, skip, hits, hit_sums, entered):
    """Like `scan_plain`, in groups of neighbouring windows."""
    width = (grid.columns + LANES - 1) // LANES
    norms = np.empty(ROWS * width * LANES, np.float32)
    alive = np.empty(ROWS * width, np.uint32)
    began = np.empty(ROWS * width, np.uint32)
    groups = np.empty(ROWS * width, np.int64)
    group_bases = np.empty(ROWS * width, np.uintp)
    scratch = np.empty(tables.scratch, np.int32)
    found = 0
    visited = 0
    for top in range(0, grid.rows, ROWS):
        bottom = min(top + ROWS, grid.rows)
        _prepare_tile(sums, squares, grid, plain.area, plain.lbp, top, bottom, norms, alive)
        total = (bottom - top) * width
        began[:total] = alive[:total]
        for stage in range(len(plain.limits)):
            n = 0
            for g in range(total):
                if alive[g]:
                    groups[n] = g
                    group_bases[n] = np.uintp((top + g // width) * grid.row_step + g % width * LANES)
                    n += 1
                    if stage > 0:
                        entered[stage] += _count(alive[g])
            if n == 0 and stage > 0:
                break
            _filter(sums, groups, group_bases, n, norms, alive, stage, tables, plain, offsets, scratch)
            if stage == 0:
                for r in range(bottom - top):
                    row = slice(r * width, (r + 1) * width)
                    visited += _visit(began[row], alive[row], width, grid.columns, skip, entered)
        last = len(plain.limits) - 1
        for g in range(total):
            for lane in range(LANES):
                if alive[g] >> np.uint32(lane) & np.uint32(1):
                    r, i = top + g // width, g % width * LANES + lane
                    hits[found, 0] = r
                    hits[found, 1] = i
                    base = r * grid.row_step + i
                    hit_sums[found] = _stage_sum(sums, base, norms[g * LANES + lane], last, plain, offsets)
                    found += 1
    return found, visited
