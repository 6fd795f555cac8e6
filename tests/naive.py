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
