"""Rows as the bytes of a part: JSON Lines or Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vj.errors import InputError

KINDS = {"jsonl": ".jsonl", "parquet": ".parquet"}
"""Kinds of parts and the endings of their files."""


def encode(rows: Sequence[dict[str, Any]], kind: str) -> bytes:
    """Return rows as the bytes of a part.

    Parameters
    ----------
    rows : sequence of dict
        As `vj.rows.row` returns them, or with ``image`` and ``error``.
    kind : str
        One of `KINDS`.

    Returns
    -------
    bytes
    """
    if kind == "jsonl":
        return b"".join(json.dumps(one).encode() + b"\n" for one in rows)
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    # JSON escapes what is no UTF-8 in a name; Parquet has no way to hold it.
    plain = [one | {"image": one["image"].encode("utf-8", "backslashreplace").decode()} for one in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain, schema=_schema()), out, compression="zstd")
    return out.getvalue()


def _schema() -> Any:
    import pyarrow as pa

    found = [
        ("box", pa.list_(pa.int32(), 4)),
        ("score", pa.float64()),
        ("neighbors", pa.int32()),
        ("probability", pa.float64()),
        ("source", pa.int32()),
    ]
    image = [("image", pa.string()), ("width", pa.int32()), ("height", pa.int32())]
    return pa.schema([*image, ("detections", pa.list_(pa.struct(found))), ("error", pa.string())])


def decode(data: bytes, kind: str) -> list[dict[str, Any]]:
    """Return the rows of a part, without the fields that a row does not have."""
    if kind == "jsonl":
        return [json.loads(line) for line in data.splitlines()]
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    return [_without_none(one) for one in rows]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


def read_rows(folder: str | Path) -> list[dict[str, Any]]:
    """Return the rows of all parts in a folder, in order of the parts.

    Parameters
    ----------
    folder : path
        What `vj.cluster.detect` wrote to.

    Returns
    -------
    list of dict

    Raises
    ------
    InputError
        If there is no part.
    """
    kinds = {suffix: kind for kind, suffix in KINDS.items()}
    parts = sorted(path for path in Path(folder).glob("part-*") if path.suffix in kinds)
    if not parts:
        raise InputError(f"{folder}: expected a folder with parts of results, got none")
    return [one for path in parts for one in decode(path.read_bytes(), kinds[path.suffix])]
