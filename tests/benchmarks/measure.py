"""Timing two ways of doing one piece of work side by side, in one process, turn by turn."""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

RUNS = 7


@dataclass(frozen=True)
class Row:
    """One comparison: how many times faster `work` is than `against`, and what is asked for.

    `ours` and `theirs` are medians in the unit that `unit` names; `theirs` is None where the peer
    is not there, and `against` says why. `at_least` is the ratio asked for, or None; for costs
    (`smaller_is_better`) the ratio is ours to theirs and `at_least` is the most that is allowed.
    """

    work: str
    against: str
    ours: float
    theirs: float | None
    unit: str
    at_least: float | None
    smaller_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.smaller_is_better else self.theirs / self.ours

    @property
    def met(self) -> bool:
        if self.at_least is None or self.ratio is None:
            return True
        if self.smaller_is_better:
            return self.ratio <= self.at_least
        return self.ratio >= self.at_least


def side_by_side(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    ours_units: int = 1,
    theirs_units: int = 1,
    runs: int = RUNS,
) -> tuple[float, float]:
    """Median microseconds a unit of work of each, after a warm-up, A B A B …"""
    ours()
    theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for kept, work, units in zip(
            times, (ours, theirs), (ours_units, theirs_units), strict=True
        ):
            begun = time.perf_counter()
            work()
            kept.append((time.perf_counter() - begun) / units * 1e6)
    return statistics.median(times[0]), statistics.median(times[1])


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
    return {
        "processor": name or platform.processor() or platform.machine(),
        "cores": str(sum(line.startswith("processor") for line in lines) or "unknown"),
        "python": platform.python_version(),
        **{name: version(name) for name in ("onnxruntime", "numpy", "torch", "typer")},
    }


def describe_ratio(row: Row) -> str:
    """The ratio as text."""
    return "-" if row.ratio is None else f"{row.ratio:.2f} x"


def table(rows: list[Row]) -> str:
    """The rows as text, widths aligned."""
    cells = [("work", "against", "ours", "theirs", "", "ratio", "asked", "")]
    for row in rows:
        sign = "<=" if row.smaller_is_better else ">="
        asked = "" if row.at_least is None else f"{sign} {row.at_least:g} x"
        cells.append(
            (
                row.work,
                row.against,
                f"{row.ours:,.1f}",
                "-" if row.theirs is None else f"{row.theirs:,.1f}",
                row.unit,
                describe_ratio(row),
                asked,
                "" if row.met else "not met",
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
