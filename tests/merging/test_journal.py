"""Journals: lines survive a kill in the middle of a line, other requests are refused, one process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from grace_md.merging.journal import Journal


def test_lines_survive_and_half_a_line_does_not(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, {"rules": ["a"]})
    for k in range(3):
        journal.append({"piece": k})
    journal.close()
    with path.open("ab") as stream:
        stream.write(b'{"piece": 3, "dro')
    again = Journal(path, {"rules": ["a"]})
    assert again.lines == [{"piece": k} for k in range(3)]
    again.append({"piece": 3})
    again.close()
    last = Journal(path, {"rules": ["a"]})
    assert len(last.lines) == 4
    last.close()


def test_other_requests(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, {"rules": ["a"], "files": [1]})
    journal.append({"piece": 0})
    journal.close()
    with pytest.raises(FileExistsError, match="other rules; run it as before to go on, or add --force"):
        Journal(path, {"rules": ["b"], "files": [1]})
    forced = Journal(path, {"rules": ["b"], "files": [1]}, force=True)
    assert forced.lines == []
    forced.close(remove=True)
    assert not path.exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j", {})
    with pytest.raises(RuntimeError, match="Another process works with"):
        Journal(tmp_path / "j", {}, force=True)
    first.close()
    Journal(tmp_path / "j", {}).close()


def test_without_a_file(tmp_path: Path) -> None:
    journal = Journal(None, {})
    journal.append({"piece": 0})
    journal.close(remove=True)
    assert not list(tmp_path.iterdir())
