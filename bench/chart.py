"""A chart of the ratios as SVG, readable on light and on dark pages: one bar a case on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bench.metrics import METRICS, headline
from bench.pairs import Result
from bench.statistics import spread

_WIDTH = 820
_LEFT, _RIGHT = 210, 230
_ROW, _TOP, _BOTTOM = 22, 64, 44
_LEAST, _MOST = 0.0625, 32.0

_UNITS = {
    "delivered": "/s",
    "bytes": "MB/s",
    "cycles": "/s",
    "cpu": "us a packet",
    "byte_cpu": "s a GB",
    "pss": "bytes",
    "start": "ms",
}

_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .quiet { fill: #59636e; }
  .grid { stroke: #d1d9e0; }
  .one { stroke: #59636e; stroke-width: 1.5; }
  .better { fill: #1a7f5a; }
  .worse { fill: #bc5a1f; }
  .spread { stroke: #1f2328; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .one { stroke: #9198a1; }
    .better { fill: #3fb488; }
    .worse { fill: #e08a4f; }
    .spread { stroke: #e6edf3; }
  }
"""


def svg(results: Sequence[Result], title: str, subtitle: str) -> str:
    """The chart as text; cases without results are left out."""
    shown = [result for result in results if not math.isnan(headline(result).advantage.median)]
    bottom = _TOP + _ROW * len(shown)
    height = bottom + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
        f'<text class="quiet" x="12" y="44">{escape(subtitle)}</text>',
        *_grid(bottom),
    ]
    for row, result in enumerate(shown):
        parts += _bar(result, _TOP + row * _ROW)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _grid(bottom: int) -> list[str]:
    parts = []
    for power in range(int(math.log2(_LEAST)), int(math.log2(_MOST)) + 1):
        value = 2.0**power
        x = _x(value)
        parts.append(
            f'<line class="{"one" if value == 1 else "grid"}" x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom}"/>'
        )
        parts.append(f'<text class="quiet" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    parts.append(
        f'<text class="quiet" x="{_x(1):.1f}" y="{bottom + 34}" text-anchor="middle">times better (right of 1)</text>'
    )
    return parts


def _bar(result: Result, top: int) -> list[str]:
    advantage = headline(result).advantage
    low, high = _x(advantage.low), _x(advantage.high)
    start, end = sorted((_x(1), _x(advantage.median)))
    middle = top + _ROW / 2
    kind = "better" if advantage.median >= 1 else "worse"
    name = escape(result.case.name)
    return [
        f'<text x="{_LEFT - 10}" y="{middle + 4}" text-anchor="end">{name}</text>',
        f'<rect class="{kind}" x="{start:.1f}" y="{top + 4}" width="{max(end - start, 1):.1f}" height="{_ROW - 8}">'
        f"<title>{name}: {advantage.median:.2f} ({advantage.low:.2f} to {advantage.high:.2f})</title></rect>",
        f'<line class="spread" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>',
        f'<text x="{_WIDTH - _RIGHT + 12}" y="{middle + 4}">{escape(_label(result))}</text>',
    ]


def _label(result: Result) -> str:
    found = headline(result)
    metric = METRICS[found.metric]
    ours, theirs = (
        spread([pair[side] for pair in result.pairs], found.metric).median * metric.factor for side in (0, 1)
    )
    unit = _UNITS.get(found.metric, "")
    return f"{found.advantage.median:.2f}x  {_short(ours)} : {_short(theirs)} {unit}"


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value / 1e3:.0f} k" if value >= 1e4 else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _x(value: float) -> float:
    """Where a ratio stands, clipped to the scale."""
    part = math.log(min(max(value, _LEAST), _MOST) / _LEAST) / math.log(_MOST / _LEAST)
    return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)
