"""From files to a set of shards: once, by several processes, resumable at any time."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from grace_md.progress import ProgressBar
from grace_md.training.data.build import Cutoffs, build_arrays
from grace_md.training.data.checks import SUSPICIOUS, Check, check_records, raise_if_suspicious, sample_of
from grace_md.training.data.labels import LabelKeys, extract, resolve_keys
from grace_md.training.data.readers import SERVERS, Part, Source, expand, merged, read_part, sample_frames, scan
from grace_md.training.data.report import data_report
from grace_md.training.data.shards import ShardSet
from grace_md.training.data.storage import FORMAT, shard_is_complete, write_json, write_shard

__all__ = ["convert"]

logger = logging.getLogger("grace_md")

SMALL = 100_000  # atoms; below, starting processes costs more than it saves
SHARDS, SHARD_ATOMS = 16, (10_000, 200_000)  # about as many shards of a small set; smallest and largest size
MOST_SHARDS, MOST_ATOMS = 2000, 1_000_000  # of huge sets, whose shards are larger
POLL_SECONDS, PATIENCE = 1.0, 60.0
MB, WORTH_A_BAR = 1e6, 200.0
SAMPLE = 10, 200  # places of a source, and successive structures at each, that are looked at before the conversion
OURS = ("shard-*.bin", "shard-*.json", "*.part", "index.json", "plan.json", "report.*", "report-*.png")


@dataclass(frozen=True)
class _Job:
    """One shard to make."""

    stem: Path
    source: Source
    number: int
    part: Part
    keys: LabelKeys
    cutoffs: Cutoffs
    skip_unknown: bool
    store_lists: bool


def _make_shard(job: _Job) -> dict[str, Any]:
    """Read one part, build its lists and write it; return the card of the shard."""
    frames = list(read_part(job.source, job.part))
    if job.skip_unknown:
        index = job.cutoffs.index
        kept = [frame for frame in frames if (index[frame.numbers] >= 0).all()]
    else:
        kept = frames
    extra: dict[str, Any] = {"source": job.number, "n_skipped": len(frames) - len(kept)}
    if not kept:
        return write_shard(job.stem, None, extra)
    records = [extract(frame, job.keys, job.source.keys) for frame in kept]
    try:
        arrays, types = build_arrays(records, job.cutoffs)
    except ValueError as error:
        raise ValueError(f"{job.source.label}: {error}") from None
    if not job.store_lists:
        for name in ("neighbor", "shift", "n_neighbors"):
            del arrays[name]
    return write_shard(job.stem, arrays, {**extra, "config_types": types})


def _follow_parent(parent: int) -> None:
    """End this process when the one that started it has been killed; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other conversions out of the directory; the lock ends with the process, however it ends.

    A set that is finished is only opened by whoever holds the lock, which is worth a short wait: the processes of a
    parallel run all come at once.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as stream:
        end = time.monotonic() + (PATIENCE if (folder / "index.json").is_file() else 0.0)
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > end:
                    text = f"Another process is converting into `{folder}`; wait for it or stop it."
                    raise RuntimeError(text) from None
                time.sleep(0.05)
        yield


def _file_hash(path: Path, bar: ProgressBar) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
            bar.update(len(block) / MB)
    return digest.hexdigest()


def _identity(source: Source, known: Mapping[str, Any] | None, bar: ProgressBar) -> dict[str, Any]:
    """Return size, time and hash of a file; the hash of `known` is kept while size and time are the same."""
    if source.file.startswith(SERVERS):
        return {"size": 0, "modified": 0.0, "sha256": hashlib.sha256(source.file.encode()).hexdigest()}
    stat = Path(source.file).stat()
    same = known is not None and (known["size"], known["modified"]) == (stat.st_size, stat.st_mtime)
    digest = known["sha256"] if known is not None and same else _file_hash(Path(source.file), bar)
    return {"size": stat.st_size, "modified": stat.st_mtime, "sha256": digest}


def _options(
    sources: Sequence[Source], cutoffs: Cutoffs, identities: Sequence[Mapping[str, Any]], **others: Any
) -> Any:
    """Everything that the content of the shards depends on, as plain JSON values; names and weights are not."""
    listed = [
        {
            "sha256": identity["sha256"],
            "range": [source.selection.start, source.selection.stop, source.selection.step],
            "kind": source.kind,
            "keys": source.keys.to_json(),
        }
        for source, identity in zip(sources, identities, strict=True)
    ]
    options = {"elements": cutoffs.elements, "pair_cutoffs": cutoffs.matrix.tolist(), "sources": listed, **others}
    return json.loads(json.dumps(options))


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _clear(folder: Path) -> None:
    for pattern in OURS:
        for path in folder.glob(pattern):
            path.unlink()


def _prepare(folder: Path, options: Any, *, force: bool) -> Any:
    """Return the plan of an earlier call with the same options, None to begin; refuse to overwrite another set."""
    plan = _load(folder / "plan.json")
    if plan is None:
        foreign = [p.name for p in folder.iterdir() if p.name != ".lock" and not any(map(p.match, OURS))]
        if foreign:
            raise FileExistsError(f"`{folder}` has other files ({foreign[0]}, ...); choose an empty or new directory.")
        _clear(folder)
        return None
    if plan.get("format") == FORMAT and plan["options"] == options:
        return plan
    if not force:
        other = [key for key in options if plan.get("options", {}).get(key) != options[key]] or ["format"]
        raise FileExistsError(
            f"`{folder}` has shards made with other {' and '.join(other)}; choose another directory, or pass "
            "`force` (--force) to replace them."
        )
    _clear(folder)
    return None


def _plan(sources: Sequence[Source], options: Any, shard_atoms: int | None, check: str, bar: ProgressBar) -> Any:
    """Scan the sources and cut them into shards."""
    parts = [scan(source, shard_atoms or SHARD_ATOMS[0], lambda n: bar.update(n / MB)) for source in sources]
    total = sum(part.n_atoms for some in parts for part in some)
    if shard_atoms is None:
        target = max(int(np.clip(total / SHARDS, *SHARD_ATOMS)), min(total // MOST_SHARDS, MOST_ATOMS))
        parts = [merged(some, target) for some in parts]
    keys = []
    for source, some in zip(sources, parts, strict=True):
        frames = sample_frames(source, some, *SAMPLE)
        keys.append(resolve_keys(source.keys, frames, source.label))
        if check == "error":  # before hours of work; the whole set is checked afterwards
            records = [extract(frame, keys[-1]) for frame in frames]
            _judge(source.label, check_records(records, keys[-1]), check)
    return {
        "format": FORMAT,
        "options": options,
        "keys": [k.to_json() for k in keys],
        "parts": [{"source": n, **asdict(part)} for n, some in enumerate(parts) for part in some],
    }


def _judge(label: str, checks: Sequence[Check], mode: str) -> list[dict[str, Any]]:
    """Raise or warn about suspicious labels; return the checks for the index."""
    if mode == "error":
        raise_if_suspicious(checks, label)
    for one in checks:
        if one.verdict == SUSPICIOUS:
            logger.warning("%s: %s", label, one.message)
    return [{"source": label, **one.to_json()} for one in checks]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(jobs: Sequence[_Job], workers: int, bar: ProgressBar) -> None:
    n_atoms = sum(job.part.n_atoms for job in jobs)
    if workers == 1 or len(jobs) == 1 or n_atoms < SMALL:
        for job in jobs:
            _make_shard(job)
            bar.update(job.part.n_atoms)
        return
    # Forking a process whose libraries have threads may hang, so processes are started afresh.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_follow_parent, initargs=(os.getpid(),))
    try:
        pending: dict[Future[dict[str, Any]], _Job] = {pool.submit(_make_shard, job): job for job in jobs}
        while pending:
            done, _ = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                job = pending.pop(future)
                future.result()
                bar.update(job.part.n_atoms)
            bar.set(bar.done)
    except BrokenProcessPool:
        raise RuntimeError(
            "A process of the conversion died, for example because memory ran out; complete shards are kept: run the "
            "same command with fewer `workers` (a script must call `convert` under `if __name__ == '__main__':`)."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def convert(
    sources: Sequence[Source | str] | Source | str,
    out: str | PathLike[str],
    elements: Sequence[str],
    pair_cutoffs: ArrayLike,
    *,
    workers: int = 0,
    shard_atoms: int | None = None,
    unknown_elements: str = "error",
    store_lists: bool = True,
    force: bool = False,
    verify: bool = False,
    check: str = "error",
    report: bool = True,
    progress: bool = True,
) -> ShardSet:
    """Convert labelled structures into shards with neighbour lists, and open them.

    The work may be stopped at any time, by a kill or a full disk: the same call goes on with what is missing. Called
    again after it has finished, it only opens the set, after replacing shards that were damaged.

    Parameters
    ----------
    sources : Source, path, or sequence of them
    out : directory to write; made if it does not exist
    elements : symbols that structures may have; more than occur is fine (and `ShardSet.present` tells which do)
    pair_cutoffs : float or [n_elements, n_elements], A, of the neighbour lists
    workers : processes; 0: all cores (small sets are converted without starting processes)
    shard_atoms : atoms per shard; default by the size of the set, at most 1,000,000
    unknown_elements : "error", or "skip" to leave out structures with elements that are not in `elements`
    store_lists : False: shards without lists, four times smaller; lists are made again for every batch
    force : replace a set that was made with other options or from other files
    verify : compare the checksums of shards that are already there
    check : "error": refuse labels whose unit or sign contradicts the energies; "warn": only say so; "off"
    report : write ``report.txt``, ``report.json`` and, where matplotlib is installed, ``report.png``
    progress : show a progress bar

    Returns
    -------
    ShardSet

    Raises
    ------
    FileNotFoundError
        A source that does not exist.
    FileExistsError
        `out` has other files, or a set made with other options, and `force` is false.
    LabelError
        Labels that are missing, ambiguous or of the wrong shape, or fail the checks.
    ValueError
        Files that are damaged, elements that are not in `elements`, structures without atoms or volume.
    OSError
        The disk is full; what is complete is kept.
    """
    folder = Path(out)
    given = [sources] if isinstance(sources, (Source, str)) else list(sources)
    found = [one for source in given for one in expand(Source(source) if isinstance(source, str) else source)]
    if not found:
        raise ValueError("`sources` is empty: give at least one file of structures.")
    if unknown_elements not in ("error", "skip"):
        raise ValueError(f"`unknown_elements` = {unknown_elements!r} must be 'error' or 'skip'.")
    if check not in ("error", "warn", "off"):
        raise ValueError(f"`check` = {check!r} must be 'error', 'warn' or 'off'.")
    cutoffs = Cutoffs.make(list(elements), pair_cutoffs)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        earlier = (_load(folder / "plan.json") or {}).get("files", [])
        known = dict(earlier) if isinstance(earlier, dict) else {}
        size = sum(Path(source.file).stat().st_size for source in found if Path(source.file).is_file()) / MB
        # Twice through every file: its checksum, and where its structures are.
        reading = ProgressBar(
            2 * size, "reading (MB)", stream=None if progress and size > WORTH_A_BAR else io.StringIO()
        )
        identities = [_identity(source, known.get(os.path.abspath(source.file)), reading) for source in found]
        options = _options(found, cutoffs, identities, unknown_elements=unknown_elements, store_lists=store_lists)
        plan = _prepare(folder, options, force=force)
        if plan is None:
            plan = _plan(found, options, shard_atoms, check, reading)
            plan["files"] = {os.path.abspath(s.file): i for s, i in zip(found, identities, strict=True)}
            write_json(folder / "plan.json", plan)
        reading.close()
        for part in folder.glob("*.part"):
            part.unlink()
        skip = unknown_elements == "skip"
        keys = [LabelKeys(**values) for values in plan["keys"]]
        jobs = []
        for n, cut in enumerate(plan["parts"]):
            k, stem = cut.pop("source"), folder / f"shard-{n:05d}"
            jobs.append(_Job(stem, found[k], k, Part(**cut), keys[k], cutoffs, skip, store_lists))
        missing = [job for job in jobs if shard_is_complete(job.stem, full=verify) is None]
        total = sum(job.part.n_atoms for job in jobs)
        if missing:
            (folder / "index.json").unlink(missing_ok=True)
            start = total - sum(job.part.n_atoms for job in missing)
            with ProgressBar(total, "converting (atoms)", start, stream=None if progress else io.StringIO()) as bar:
                _run(missing, workers or _cores(), bar)
        _finish(folder, found, identities, jobs, check)
        shards = ShardSet(folder)
        if report and not (folder / "report.json").is_file():
            data_report(shards).write(folder)
    return shards


def _finish(
    folder: Path, sources: Sequence[Source], identities: Sequence[Any], jobs: Sequence[_Job], check: str
) -> None:
    """Check the labels of the whole set and write its index, unless it is there with the same names and weights."""
    listed = [
        {
            "name": source.label,
            "path": os.path.abspath(source.file) if not source.file.startswith(SERVERS) else source.file,
            "weight": source.weight,
            **identity,
        }
        for source, identity in zip(sources, identities, strict=True)
    ]
    index = _load(folder / "index.json")
    if index is not None and index["sources"] == listed:
        return
    cards = [shard_is_complete(job.stem) for job in jobs]
    shards = [card for card in cards if card is not None and card["n_structures"]]
    if not shards:
        raise ValueError(f"No structure is left of {', '.join(s.label for s in sources)}: all have other elements.")
    plan = _load(folder / "plan.json")
    index = {
        "format": FORMAT,
        "elements": list(jobs[0].cutoffs.elements),
        "pair_cutoffs": jobs[0].cutoffs.matrix.tolist(),
        "options_sha256": hashlib.sha256(json.dumps(plan["options"]).encode()).hexdigest(),
        "sources": listed,
        "checks": [],
        "shards": shards,
    }
    if check != "off":
        opened = ShardSet.from_index(folder, index)
        for number, (source, keys) in enumerate(zip(sources, plan["keys"], strict=True)):
            records = sample_of(opened, number)
            index["checks"] += _judge(source.label, check_records(records, LabelKeys(**keys)), check)
    for old in folder.glob("report.*"):
        old.unlink()
    write_json(folder / "index.json", index)
