"""Line charts as SVG."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 860, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 34, 14, 46
_TICKS = 6  # about so many on an axis
_FEW = 40  # curves of one name that have so many points or fewer get dots

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Points from left to right; `name` is also the CSS class of its line."""

    name: str
    points: Sequence[Point]


def render_chart(curves: Sequence[Curve], x_label: str, y_label: str) -> str:
    """All curves in one picture, the x axis from 0; at least one curve has a point."""
    points = [p for curve in curves for p in curve.points]
    right = max(x for x, _ in points) or 1.0
    low, high = _range([y for _, y in points])

    def place(point: Point) -> tuple[float, float]:
        x = _LEFT + point[0] / right * (_WIDTH - _LEFT - _RIGHT)
        y = _TOP + (high - point[1]) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return x, y

    parts = []
    for value in _ticks(low, high):
        _, y = place((0, value))
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in _ticks(0, right):
        x, y = place((value, low))
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y + 5:.1f}"/>'
            f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">{value:,.10g}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text transform="translate(15 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    counts = Counter(curve.name for curve in curves for _ in curve.points)
    for curve in curves:
        placed = [place((x, min(y, high))) for x, y in curve.points if math.isfinite(y)]
        line = " L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        if line:
            parts.append(f'<path class="{curve.name}" d="M{line}"/>')
        if counts[curve.name] <= _FEW:
            parts += [
                f'<circle class="{curve.name}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in placed
            ]
    names = " and ".join(dict.fromkeys(curve.name for curve in curves if curve.points))
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(y_label)} by {escape(x_label)}: {names}">{"".join(parts)}</svg>'
    )


def _range(values: Sequence[float]) -> Point:
    """Limits of the axis: the first steps of a run, far above the rest, may be cut off."""
    ordered = sorted(v for v in values if math.isfinite(v)) or [0.0]
    low, high = ordered[0], ordered[-1]
    typical = ordered[int(0.97 * (len(ordered) - 1))]
    high = min(high, low + 1.6 * (typical - low)) if typical > low else high
    step = _step(max(high - low, 1e-3))
    return math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step


def _ticks(low: float, high: float) -> Iterator[float]:
    step = _step(high - low)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return (round(i * step, 10) for i in range(first, last + 1))


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that about `_TICKS` of it make the span."""
    power: float = 10 ** math.floor(math.log10(span / _TICKS))
    return next(f * power for f in (1, 2, 5, 10) if f * power * _TICKS >= span * 0.999)
