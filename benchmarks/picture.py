"""A picture of the main table, drawn as SVG: it follows the reader's light or dark."""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median

WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 760, 190, 60, 48, 30, 18
STYLE = """
    .page { fill: #ffffff; stroke: #d0d7de; }
    .reference { fill: #8c959f; }
    .ours { fill: #0969da; }
    .others { fill: #bc4c00; }
    .spread { stroke: #1f2328; stroke-width: 1.5; }
    .grid { stroke: #d0d7de; }
    text {
      font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
      fill: #1f2328;
    }
    .small { font-size: 12px; fill: #57606a; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; stroke: #30363d; }
      .reference { fill: #6e7681; }
      .ours { fill: #58a6ff; }
      .others { fill: #f0883e; }
      .spread { stroke: #e6edf3; }
      .grid { stroke: #30363d; }
      text { fill: #e6edf3; }
      .small { fill: #9198a1; }
    }
"""


def bars(ratios: Mapping[str, Sequence[float]]) -> str:
    """One bar for each name: the median of its ratios, and a line over all of them."""
    height = TOP + ROW * len(ratios) + 30
    bottom = TOP + ROW * len(ratios)
    title = "Throughput, as a share of bare Tornado's"
    summary = "; ".join(f"{name} {median(values):.2f}" for name, values in ratios.items())
    scale = (WIDTH - LEFT - RIGHT) / max(1.0, *(max(values) for values in ratios.values()))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="title description">',
        f'<title id="title">{title}</title>',
        f'<desc id="description">{escape(summary)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        f'<text x="16" y="28">{title}</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = LEFT + share * scale
        parts.append(
            f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>'
            f'<text class="small" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">'
            f"{share:g}</text>"
        )
    for number, (name, values) in enumerate(ratios.items()):
        y = TOP + ROW * number + (ROW - BAR) / 2
        middle = y + BAR / 2
        low, high = (LEFT + bound * scale for bound in (min(values), max(values)))
        parts.append(
            f'<text x="{LEFT - 10}" y="{middle + 5:.1f}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="{_kind(name)}" x="{LEFT}" y="{y:.1f}" '
            f'width="{median(values) * scale:.1f}" height="{BAR}" rx="2"/>'
            f'<line class="spread" x1="{low:.1f}" y1="{middle:.1f}" '
            f'x2="{high:.1f}" y2="{middle:.1f}"/>'
            f'<text class="small" x="{high + 8:.1f}" y="{middle + 4:.1f}">'
            f"{median(values):.2f}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def _kind(name: str) -> str:
    if name == "bare":
        return "reference"
    return "others" if name.startswith(("by hand", "fastapi")) else "ours"
