"""Naive twins: the obvious loop for everything that is compiled or vectorised, to test against."""


def overlap(p, q):
    """Intersection over union of two boxes at whole numbers, by counting pixels."""
    a = {(x, y) for x in range(p[0], p[0] + p[2]) for y in range(p[1], p[1] + p[3])}
    b = {(x, y) for x in range(q[0], q[0] + q[2]) for y in range(q[1], q[1] + q[3])}
    return len(a & b) / len(a | b) if a | b else 0.0


def match(boxes, scores, faces, ignored, threshold):
    """Outcome (1 true, 0 false, -1 neither) and face of each detection, one detection after the other."""
    taken = set()
    outcome, owner = [None] * len(boxes), [-1] * len(boxes)
    for k in sorted(range(len(boxes)), key=lambda k: -scores[k]):
        shares = [overlap([int(v) for v in boxes[k]], [int(v) for v in face]) for face in faces]
        best = None
        for j, share in enumerate(shares):
            if not ignored[j] and j not in taken and share >= threshold and (best is None or share > shares[best]):
                best = j
        if best is not None:
            taken.add(best)
            outcome[k], owner[k] = 1, best
        elif any(ignored[j] and shares[j] >= threshold for j in range(len(faces))):
            outcome[k] = -1
        else:
            outcome[k] = 0
    return outcome, owner


def integral(gray, value=lambda p: p):
    """Sum of value(pixel) above row Y and left of column X, entry by entry."""
    height, width = len(gray), len(gray[0])
    return [
        [sum(value(int(gray[y][x])) for y in range(row) for x in range(column)) for column in range(width + 1)]
        for row in range(height + 1)
    ]


def tilted_integral(gray):
    """Sum over the cone of pixels (x, y) with y < Y and |x - X + 1| <= Y - y - 1."""
    height, width = len(gray), len(gray[0])
    return [
        [
            sum(
                int(gray[y][x])
                for y in range(height)
                for x in range(width)
                if y < row and abs(x - column + 1) <= row - y - 1
            )
            for column in range(width + 1)
        ]
        for row in range(height + 1)
    ]


def rectangle_pixels(x, y, w, h, tilted):
    """Pixels (x, y) of a rectangle; of a tilted one, those between its four diagonal edges."""
    if not tilted:
        return [(i, j) for j in range(y, y + h) for i in range(x, x + w)]
    # From the corner's own pixel (x - 1, y - 1), steps along the two diagonals are numbered 1 to 2w and 1 to 2h.
    found = []
    for j in range(y - 1, y + w + h):
        for i in range(x - h - 1, x + w + 1):
            right, left = (i - x + 1) + (j - y + 1), (j - y + 1) - (i - x + 1)
            if 1 <= right <= 2 * w and 1 <= left <= 2 * h:
                found.append((i, j))
    return found


def feature_count(width, height, shapes):
    """How many placements of the given (columns, rows) shapes fit a window, one loop inside the other."""
    n = 0
    for columns, rows in shapes:
        for w in range(columns, width + 1, columns):
            for h in range(rows, height + 1, rows):
                n += (width - w + 1) * (height - h + 1)
    return n


def resize(gray, width, height):
    """Bilinear with weights of 1/256 from float64 positions, each pixel on its own."""

    def weights(source, target):
        out = []
        for d in range(target):
            f = (1.0 / (target / source)) * (d + 0.5) - 0.5
            i = int(f // 1)
            if i < 0 or source == 1:
                out.append([(0, 256)])
            elif i >= source - 1:
                out.append([(source - 1, 256)])
            else:
                w = round((f - i) * 256)
                out.append([(i, 256 - w), (i + 1, w)])
        return out

    across, down = weights(len(gray[0]), width), weights(len(gray), height)
    return [
        [(sum(wy * wx * int(gray[y][x]) for y, wy in rows for x, wx in columns) + 32768) >> 16 for columns in across]
        for rows in down
    ]


def group(boxes, min_neighbors, eps=0.2):
    """Similar boxes merged, by comparing every pair until nothing changes."""
    label = list(range(len(boxes)))

    def similar(a, b):
        delta = eps * (min(a[2], b[2]) + min(a[3], b[3])) * 0.5
        return (
            abs(a[0] - b[0]) <= delta
            and abs(a[1] - b[1]) <= delta
            and abs(a[0] + a[2] - b[0] - b[2]) <= delta
            and abs(a[1] + a[3] - b[1] - b[3]) <= delta
        )

    changed = True
    while changed:
        changed = False
        for i, a in enumerate(boxes):
            for j, b in enumerate(boxes):
                if label[i] < label[j] and similar(a, b):
                    label[j] = label[i]
                    changed = True
    classes = [[b for b, own in zip(boxes, label, strict=True) if own == first] for first in sorted(set(label))]
    return [members for members in classes if len(members) > min_neighbors]


def group_rectangles(boxes, min_neighbors, eps=0.2):
    """Boxes and counts as OpenCV's groupRectangles returns them, step by step from its description."""
    import numpy as np

    if min_neighbors <= 0:
        return [list(box) for box in boxes], [1] * len(boxes)
    means, counts = [], []
    for members in group(boxes, min_neighbors, eps):
        share = np.float32(1) / np.float32(len(members))
        means.append([round(float(np.float32(sum(b[k] for b in members)) * share)) for k in range(4)])
        counts.append(len(members))
    kept = []
    for i, (x, y, w, h) in enumerate(means):
        swallowed = False
        for j, (left, top, width, height) in enumerate(means):
            dx, dy = round(width * eps), round(height * eps)
            inside = x >= left - dx and y >= top - dy
            inside = inside and x + w <= left + width + dx and y + h <= top + height + dy
            swallowed |= i != j and inside and (counts[j] > max(3, counts[i]) or counts[i] < 3)
        if not swallowed:
            kept.append(i)
    return [means[i] for i in kept], [counts[i] for i in kept]


def suppress(boxes, scores, limit, inside=0.9):
    """Greedy non-maximum suppression, box by box; what lies inside a better box by more than `inside` is dropped."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda k: -scores[k]):
        if all(overlap(boxes[i], boxes[k]) <= limit and _shared(boxes[i], boxes[k]) <= inside for k in kept):
            kept.append(i)
    return kept


def _shared(box, other):
    """Share of a box that lies within another, pixel by pixel."""
    columns = set(range(box[0], box[0] + box[2])) & set(range(other[0], other[0] + other[2]))
    rows = set(range(box[1], box[1] + box[3])) & set(range(other[1], other[1] + other[3]))
    return len(columns) * len(rows) / (box[2] * box[3]) if box[2] and box[3] else 0


def window_depth(cascade, pixels):
    """Depth and last sum of one window, from its pixels: sums over pixels, no integral images.

    `pixels` is a uint8 array of the window's size; float32 steps as in the definition of a stump's value.
    """
    return _walk(cascade, pixels)[:2]


def _walk(cascade, pixels):
    """Depth, last sum, and features evaluated in each stage, following every tree node by node."""
    import numpy as np

    width, height = cascade.window
    counts = [0] * cascade.n_stages
    norm = np.float32(1)
    if cascade.kind == "haar":
        inner = pixels[1 : height - 1, 1 : width - 1].astype(np.int64)
        variance = inner.size * float((inner**2).sum()) - float(inner.sum()) ** 2
        if variance <= 0:
            return -1, 0.0, counts
        norm = np.float32(1 / np.sqrt(variance))
        if not inner.size * float(norm) < 0.1:
            return -1, 0.0, counts
    soft = {} if cascade.soft is None else dict(zip(cascade.soft.trees.tolist(), cascade.soft.sums, strict=True))
    total = 0.0
    for stage in range(cascade.n_stages):
        total = 0.0
        for tree in range(cascade.stage_starts[stage], cascade.stage_starts[stage + 1]):
            root = node = int(cascade.tree_starts[tree])
            while True:
                counts[stage] += 1
                child = int(cascade.node_children[node, 0 if _left(cascade, node, pixels, norm) else 1])
                if child <= 0:
                    break
                node = root + child
            total += float(cascade.leaves[root + tree - child])
            if total < float(soft.get(tree, -np.inf)):
                return stage, total, counts
        if total < float(cascade.stage_thresholds[stage] - np.float32(1e-5)):
            return stage, total, counts
    return cascade.n_stages, total, counts


def _left(cascade, node, pixels, norm):
    import numpy as np

    feature = int(cascade.node_features[node])
    if cascade.kind == "lbp":
        x, y, w, h = (int(v) for v in cascade.features.rects[feature])
        cells = [
            [int(pixels[y + r * h : y + r * h + h, x + c * w : x + c * w + w].sum()) for c in range(3)]
            for r in range(3)
        ]
        code = 0
        for r, c in ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)):
            code = 2 * code + (cells[r][c] >= cells[1][1])
        return bool(int(cascade.node_subsets[node, code // 32]) >> (code % 32) & 1)
    features = cascade.features
    value = np.float32(0)
    for rect, weight in zip(features.rects[feature].tolist(), features.weights[feature], strict=True):
        if weight:
            total = sum(int(pixels[j, i]) for i, j in rectangle_pixels(*rect, features.tilted[feature]))
            value = np.float32(value + np.float32(weight * np.float32(total)))
    return bool(np.float32(value * norm) < cascade.node_thresholds[node])


def nodes_evaluated(cascade, pixels):
    """Features that a window costs in each stage, from its pixels, following every tree node by node."""
    return _walk(cascade, pixels)[2]


def visited(depth):
    """Which windows OpenCV's detector looks at, from their depths, walking along each row."""
    rows = []
    for line in depth.tolist():
        row, column = [False] * len(line), 0
        while column < len(line):
            row[column] = True
            column += 2 if line[column] == 0 else 1
        rows.append(row)
    return rows


def haar_value(rects, weights, tilted, pixels):
    """Normalised value of one feature on one window (nested lists), from its pixels, in exact arithmetic."""
    height, width = len(pixels), len(pixels[0])
    inner = [int(pixels[y][x]) for y in range(1, height - 1) for x in range(1, width - 1)]
    spread = len(inner) * sum(v * v for v in inner) - sum(inner) ** 2
    if spread <= 0:
        return 0.0
    total = 0
    for (x, y, w, h), weight in zip(rects, weights, strict=True):
        if weight:
            total += int(weight) * sum(int(pixels[j][i]) for i, j in rectangle_pixels(x, y, w, h, tilted))
    return total / spread**0.5


def lbp_code(rect, pixels):
    """Code of one multi-block LBP feature on one window."""
    x, y, w, h = rect
    cell = [
        [sum(int(pixels[y + r * h + j][x + c * w + i]) for j in range(h) for i in range(w)) for c in range(3)]
        for r in range(3)
    ]
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    return sum(128 >> k for k, (r, c) in enumerate(ring) if cell[r][c] >= cell[1][1])


def split_loss(boosting, left, right):
    """Loss of a split; `left` and `right` are lists of (label 1 or -1, weight) of the samples there."""
    loss = 0.0
    for side in (left, right):
        a = sum(w for y, w in side if y > 0)
        b = sum(w for y, w in side if y < 0)
        if sum(w for _, w in side) == 0:
            return float("inf")
        if boosting == "gentle":
            mean = (a - b) / (a + b)
            loss += sum(w * (y - mean) ** 2 for y, w in side)
        elif boosting == "discrete":
            loss += min(a, b)
        else:
            loss += (a * b) ** 0.5
    return loss


def best_stump(values, samples, boosting):
    """Smallest loss over all features and all cuts between two values; `values` holds a list for each feature."""
    best = float("inf")
    for row in values:
        for cut in sorted(set(row))[1:]:
            left = [s for v, s in zip(row, samples, strict=True) if v < cut]
            right = [s for v, s in zip(row, samples, strict=True) if v >= cut]
            best = min(best, split_loss(boosting, left, right))
    return best
