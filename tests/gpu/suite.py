"""The steps of run_all.sh (gpu_steps.py) one after the other, and one JSON file of what became of them.

A step that fails does not keep the others from running; the exit status says whether any did. The file is written
after every step, so that a run that is cut off leaves what it has found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpu_steps import BUDGET, MEASURED, RESERVE, ROOT, Step, steps

BUILD = ROOT / "build" / "gpu"
SKIPPED = 77  # exit status of C++ tests without their device
LIMIT, DRY_LIMIT = 560, 3600  # s; the first leaves a command of 600 s the time to end a step and to write
FAILED = ("failed", "timed out")


@dataclass
class Outcome:
    """What became of a step; `said` is the last line that it printed."""

    name: str
    status: str  # passed, failed, skipped, timed out
    seconds: float
    said: str


class Clock:
    """Seconds left of the time that all steps may take together."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._end = time.monotonic() + limit

    def left(self) -> float:
        return self._end - time.monotonic()


def environment(device: str) -> dict[str, str]:
    """Variables of all steps: the package that is built here comes first, and its programs."""
    site, beside = BUILD / "site", Path(sys.executable).parent
    return {
        **os.environ,
        "GRACE_TEST_DEVICE": device,
        "PYTHONPATH": os.pathsep.join(p for p in (str(site), os.environ.get("PYTHONPATH", "")) if p),
        "PATH": os.pathsep.join([str(site / "bin"), str(beside), os.environ.get("PATH", "")]),
    }


def execute(step: Step, seconds: float, variables: dict[str, str], log: Path) -> Outcome:
    """Run one step with its output in `log`; all processes that it started end with it."""
    began = time.monotonic()
    command = [f"{max(1.0, seconds - RESERVE):.0f}" if word == BUDGET else word for word in step.command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        stream.write(f"$ {' '.join(command)}\n")
        stream.flush()
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**variables, **step.environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status = process.wait(max(1.0, seconds))
            word = "passed" if status == 0 else "skipped" if status == SKIPPED else "failed"
            if status < 0:  # a process that was ended from outside says nothing itself
                stream.write(f"ended by signal {-status}\n")
        except OSError as error:
            stream.write(f"{error}\n")
            word = "failed"
        except subprocess.TimeoutExpired:
            end(process)
            stream.write(f"ended after {seconds:.0f} s\n")
            word = "timed out"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = lines[-1]
    if step.skipped_if and word != "timed out":
        for line in lines[1:]:
            if step.skipped_if in line:
                word, said = "skipped", line
                break
    return Outcome(step.name, word, time.monotonic() - began, said[:200])


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started. One that hangs in a driver may not end: it is not waited for then."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)


def say_now(text: str) -> None:
    """Print without waiting for more."""
    print(text, flush=True)


def log_of(step: Step) -> Path:
    """File with the output of a step."""
    return BUILD / "logs" / f"{step.name.replace(' ', '_')}.txt"


def run(
    chosen: Sequence[Step],
    clock: Clock,
    variables: dict[str, str],
    say: Callable[[str], None] = say_now,
    after: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Run steps one after the other, whatever becomes of them, until the time is up; `after` sees each outcome."""
    outcomes: list[Outcome] = []
    lost = ""
    for step in chosen:
        log = log_of(step)
        if not step.why_not:
            log.unlink(missing_ok=True)  # of an earlier run
        if reason := step.why_not or lost:
            outcome = Outcome(step.name, "skipped", 0.0, reason)
        elif clock.left() < 5.0:
            outcome = Outcome(step.name, "timed out", 0.0, f"the {clock.limit:.0f} s of all steps are used")
        else:
            outcome = execute(step, min(step.seconds, clock.left()), variables, log)
        if step.needed and outcome.status not in {"passed", "skipped"}:
            lost = f"the step {step.name!r} {outcome.status}"
        outcomes.append(outcome)
        say(f"{outcome.status:9s} {outcome.seconds:7.1f} s  {step.name}: {outcome.said}")
        if outcome.status in FAILED and log.is_file():
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
            say("\n".join(f"    {line}" for line in tail))
        after(outcome)
    return outcomes


def output_of(*command: str) -> str:
    """What a program prints, or nothing where it does not work."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def facts() -> dict[str, Any]:
    """Return commit, time, card, toolkit and processor: all that is known before anything is built."""
    nvidia = output_of(
        "nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"
    )
    toolkit = re.search(r"release ([\d.]+), V([\d.]+)", output_of(os.environ.get("CUDACXX", "nvcc"), "--version"))
    commit = output_of("git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    return {
        "commit": os.environ.get("GRACE_COMMIT") or commit or "unknown",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "gpu": nvidia.splitlines(),
        "probe": {},
        "toolkit": toolkit[2] if toolkit else "",
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
    }


def probe(variables: dict[str, str]) -> dict[str, Any]:
    """Return what the package that was built says about GPUs; nothing where it cannot be imported."""
    code = "import json; from grace_md import _core; print(json.dumps(_core.cuda_probe()))"
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        return dict(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}


def read_json(path: Path) -> Any:
    """Content of a file of this run, or None."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def result_path(information: dict[str, Any], folder: Path) -> Path:
    """Where the results go: <gpu>_<date>_<time>.json, UTC, of the start, so that two runs are two files."""
    smi = [line.split(",")[0] for line in information["gpu"]]
    name = [*(information["probe"].get("names") or []), *smi, "no gpu"][0]
    slug = re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")
    day, clock = information["date"].split("T")
    return folder / f"{slug}_{day}_{clock[:5].replace(':', '')}.json"


class Report:
    """The result file, written again after every step, and the logs beside it where a folder was asked for."""

    def __init__(self, options: argparse.Namespace, device: str, chosen: Sequence[Step]) -> None:
        self.found: dict[str, Any] = {**facts(), "device": device, "steps": []}
        default = BUILD if options.dry_run else ROOT / "benchmarks" / "results"
        self.folder = options.results or default
        self.logs = [log_of(step) for step in chosen] if options.results else []
        self.path: Path | None = None
        # The device is asked for after the first step that says whether the package works.
        self.asked_after = "probe" if any(step.name == "probe" for step in chosen) else chosen[0].name

    def after(self, outcome: Outcome, variables: dict[str, str]) -> None:
        """Add what became of a step."""
        self.found["steps"].append(vars(outcome))
        if outcome.name == self.asked_after:
            self.found["probe"] = probe(variables)
        self.write()
        if outcome.status in FAILED:
            self.pack_logs()

    def write(self) -> None:
        """Write the file as a whole or not at all; that it cannot be written ends nothing."""
        self.found |= {name: read_json(BUILD / f"{name}.json") for name in MEASURED}
        path = result_path(self.found, self.folder)
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
            os.replace(part, path)
            if self.path not in {None, path}:  # named before the device was asked
                self.path.unlink(missing_ok=True)
        except OSError as error:
            say_now(f"{path} could not be written: {error}")
        self.path = path

    def pack_logs(self) -> None:
        """Put the output of all steps so far into logs.tar.gz, as a whole or not at all."""
        if not self.logs:
            return
        part = self.folder / "logs.tar.gz.part"
        try:
            with tarfile.open(part, "w:gz") as archive:
                for log in self.logs:
                    if log.is_file():
                        archive.add(log, arcname=f"logs/{log.name}")
            os.replace(part, self.folder / "logs.tar.gz")
        except OSError as error:
            say_now(f"{part} could not be written: {error}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="everything in small on the emulated device")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="only these steps")
    parser.add_argument("--build-only", action="store_true", help="build, for a machine with a GPU and this folder")
    parser.add_argument("--no-build", action="store_true", help="use what --build-only left in build/gpu")
    parser.add_argument(
        "--limit", type=float, help=f"seconds that all may take (default: {LIMIT}; dry run: {DRY_LIMIT})"
    )
    parser.add_argument("--benchmark-seconds", type=float, default=90, help="for the largest of the benchmarks")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        default=os.environ.get("GRACE_GPU_RESULTS") or None,
        help="for the JSON file and logs.tar.gz (default: GRACE_GPU_RESULTS; without it benchmarks/results, no logs)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps and write the file; 1 if any step failed."""
    options = parse(arguments)
    clock = Clock(options.limit or (DRY_LIMIT if options.dry_run else LIMIT))  # before packages are looked for
    every = steps(options, BUILD)
    wanted = ["build"] if options.build_only else options.only or [step.name for step in every]
    if unknown := set(wanted) - {step.name for step in every}:
        raise SystemExit(f"`--only` {', '.join(sorted(unknown))}: the steps are {', '.join(s.name for s in every)}")
    device = os.environ.get("GRACE_TEST_DEVICE", "emulated:2" if options.dry_run else "cuda")
    variables = environment(device)
    for name in MEASURED:  # of an earlier run
        (BUILD / f"{name}.json").unlink(missing_ok=True)
    chosen = [step for step in every if step.name in wanted]
    report = Report(options, device, chosen)
    report.write()
    outcomes = run(chosen, clock, variables, after=lambda outcome: report.after(outcome, variables))
    report.pack_logs()
    bad = [outcome.name for outcome in outcomes if outcome.status in FAILED]
    seconds = sum(outcome.seconds for outcome in outcomes)
    print(f"{len(outcomes)} steps in {seconds:.0f} s; failed: {', '.join(bad) or 'none'}; {report.path}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
