"""The progress bar: time left, plain lines in a log, redraws on a terminal."""

from __future__ import annotations

import io

import pytest

from grace_md.progress import ProgressBar, format_seconds


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1:00"), (3599.6, "1:00:00"), (7325, "2:02:05")]
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_time_left_counts_only_new_work() -> None:
    clock = Clock()
    bar = ProgressBar(100, start=50, stream=io.StringIO(), clock=clock)
    assert bar.seconds_left() is None
    clock.now += 10
    bar.set(60)
    assert bar.seconds_left() == pytest.approx(40.0)


def test_log_file_gets_few_lines() -> None:
    stream = io.StringIO()
    with ProgressBar(1000, "steps", stream=stream, clock=Clock()) as bar:
        for _ in range(1000):
            bar.update(1, "T = 300 K")
    lines = stream.getvalue().splitlines()
    assert 10 <= len(lines) <= 12
    assert "\r" not in stream.getvalue()
    assert "100 %" in lines[-1]
    assert "T = 300 K" in lines[-1]


def test_terminal_line_is_redrawn_and_finished() -> None:
    stream, clock = Terminal(), Clock()
    with ProgressBar(10, "steps", stream=stream, clock=clock) as bar:
        for _ in range(10):
            clock.now += 1
            bar.update()
    assert stream.getvalue().count("\r") == 11
    assert stream.getvalue().endswith("\n")
    assert "#" * 30 in stream.getvalue()


def test_nothing_to_do() -> None:
    stream = io.StringIO()
    with ProgressBar(0, stream=stream, clock=Clock()) as bar:
        bar.set(0)
    assert "100 %" in stream.getvalue()
