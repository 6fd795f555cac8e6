"""Files of the tiers' own: whatever a file is, it is read or refused in one line, and never waited for."""

import os
from pathlib import Path

import pytest

from vj.errors import InputError
from vj.tiers import Outcomes, Policy, Router
from vj.tiers.outcomes import read_costs

READERS = {
    "policy": Policy.load,
    "router": Router.load,
    "costs": lambda path: read_costs([str(path)]),
    "outcomes": lambda path: Outcomes.read(path, {"a": 1.0}),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("data", [b"[" * 100_000, b"\xff", b"1" * 5000, b""])
def test_what_is_no_such_file_is_refused_in_one_line(reader, data, tmp_path):
    path = tmp_path / "given.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["given.json", "given.csv.gz"])
def test_a_pipe_is_refused_and_not_waited_for(reader, name, tmp_path):
    if reader == "costs" and name != "given.json":
        pytest.skip("not read: costs that end otherwise are TIER=COST")
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="a pipe"):
        READERS[reader](Path(tmp_path, name))


def test_names_that_no_file_can_have_are_no_files():
    with pytest.raises(InputError, match="TIER=COST"):
        read_costs(["a" * 5000])
