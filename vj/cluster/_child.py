"""The process that searches images which may end it: `python -m vj.cluster._child`, started by `_isolation`."""

from __future__ import annotations

import json
import os
import pickle
import sys


def main() -> None:
    """Read a search and a chunk from stdin; write a line before each image, and its row after it, to stdout."""
    # Whatever else prints goes nowhere: stdout is for rows.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.path[:], inner = pickle.load(sys.stdin.buffer)
    search, chunk, skipped = pickle.loads(inner)

    from vj.cluster.rows import rows_of, warm_up

    def say(one: object) -> None:
        out.write(json.dumps(one).encode() + b"\n")
        out.flush()

    warm_up(search)
    say({"ready": True})
    for one in rows_of(search, chunk, skip=skipped, before=lambda name: say({"at": name})):
        say(one)
    say({"end": True})


if __name__ == "__main__":
    main()
