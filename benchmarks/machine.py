"""What measured: the processor, memory, versions and commit; no names of hosts or folders."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks import peers

_ROOT = Path(__file__).resolve().parents[1]
_MEASURED = ("src", "benchmarks", ":!benchmarks/results.*")


@dataclass(frozen=True)
class Stamp:
    """When, by which command, at which commit and on which machine something was measured."""

    date: str
    commit: str
    threads: int
    command: str
    machine: str


def stamp(threads: int, command: str) -> Stamp:
    now = datetime.datetime.now(datetime.timezone.utc)
    return Stamp(
        now.strftime("%Y-%m-%d %H:%M UTC"), _commit(), threads, command, f"{_processor()}, torch {torch.__version__}"
    )


def machine() -> dict[str, str]:
    """Processor model, number of processors, memory and system."""
    return {
        "processor": _processor(),
        "processors": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    return _after("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Python, torch, relprop and the peers."""
    try:
        ours = version("relprop")
    except PackageNotFoundError:
        import relprop

        ours = relprop.__version__
    return {"python": platform.python_version(), "torch": torch.__version__, "relprop": ours, **peers.versions()}


def _commit() -> str:
    """The short hash, and whether files differ from it, other than these results."""
    try:
        short = _git("rev-parse", "--short", "HEAD")
        return f"{short} with uncommitted changes" if _git("status", "--porcelain", *_MEASURED) else short
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _memory() -> str:
    kib = _after("/proc/meminfo", "MemTotal")
    return f"{int(kib.split()[0]) / 2**20:.0f} GiB" if kib else "unknown"


def _after(path: str, key: str) -> str:
    """What stands behind a key in a file of the system; nothing where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
