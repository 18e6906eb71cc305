"""Draws docs/dashboard.png: the answers to the generated dashboard's queries, laid out as it says.

Two instances of a generated service are put under load for a minute and a half, with some slow and
some failing requests, and a real Prometheus scrapes them. The panels, their queries, units,
thresholds and places are those of the dashboard's JSON; only the drawing is not Grafana's.

    .venv/bin/pip install '.[test,docs]'
    .ci/install-backends prometheus otlp
    .venv/bin/python docs/dashboard.py
"""

import http.client
import math
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.backends import otlp, prometheus
from tests.template import grafana
from tests.template.project import Project, Service, interpreter, render

PICTURE = Path(__file__).with_suffix(".png")
WARM_UP_SECONDS = 15
SECONDS = 90
VISITORS = 16
WATCHERS = 10
# Of so many of them, on each instance, one order fails, after so many seconds and a few more.
UNLUCKY, TROUBLE_SECONDS = 6, 50
WINDOWS = {"__rate_interval": "10s", "__range": f"{SECONDS}s"}

HANDLERS = """
import asyncio
import random
import time
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketHandler


class Order(JsonHandler):
    async def get(self, number: str) -> None:
        await asyncio.sleep(random.lognormvariate(-3.7, 0.5))
        await AsyncHTTPClient().fetch(f"http://{self.request.host}/hello/stock")
        if number == "0":
            raise ConnectionError("The database is away")


class Search(JsonHandler):
    async def get(self) -> None:
        await asyncio.sleep(random.lognormvariate(-1.9, 0.45))


class Report(JsonHandler):
    def get(self) -> None:
        time.sleep(random.uniform(0.01, 0.07))


class Ticker(WebSocketHandler):
    async def open(self) -> None:
        for price in range(20):
            self.write_message(str(price))
            await asyncio.sleep(random.uniform(0.2, 2))
        self.close(1000)
"""
ROUTES = {
    "Order": r'(r"/orders/(?P<number>\d+)", handlers.Order)',
    "Search": '(r"/search", handlers.Search)',
    "Report": '(r"/report", handlers.Report)',
    "Ticker": '(r"/ticker", handlers.Ticker)',
}

WIDTH, UNIT, GAP, HEADER, DPI = 1400, 27, 8, 44, 100
BACKGROUND, PANEL, BORDER, TEXT, FAINT = "#111217", "#181b1f", "#2c3038", "#d8d9da", "#8e9299"
COLORS = {
    "green": "#73bf69",
    "yellow": "#f2cc0c",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "text": "#d8d9da",
}
PALETTE = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#8ab8ff", "#37872d"]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        dashboard, answers = measure(Path(directory))
        draw(dashboard, answers)
    # By which a test knows that a panel is missing.
    panels = PngInfo()
    panels.add_text("Panels", "\n".join(panel["title"] for panel in dashboard.panels))
    # A palette is enough for lines and text, and a third of the size.
    Image.open(PICTURE).convert("RGB").quantize(192, dither=Image.Dither.NONE).save(
        PICTURE, optimize=True, pnginfo=panels
    )
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


@dataclass(frozen=True)
class Answers:
    """What the server said of each query: for each series its labels, and a value at each time."""

    times: np.ndarray
    series: dict[str, list[tuple[dict[str, str], np.ndarray]]]
    #: Times and values of those requests of which a query shows the traces.
    exemplars: dict[str, np.ndarray]


def measure(directory: Path) -> tuple[grafana.Dashboard, Answers]:
    """The dashboard, and the answer to each of its queries over the time of the load."""
    # With `docker`, since there is no cluster to ask.
    answers = {
        "project_slug": "order-desk",
        "metrics": "prometheus",
        "tracing": "jaeger",
        "deployment": "docker",
    }
    path = render(directory, directory / "home", answers)
    project = Project(path, answers, directory / "venv", interpreter())
    project.add_handler(HANDLERS, ROUTES["Order"])
    for name in ("Search", "Report", "Ticker"):
        project.add_handler("", ROUTES[name])
    dashboard = grafana.read(path)
    with ExitStack() as stack:
        collector = stack.enter_context(otlp.running(directory))
        services = [
            stack.enter_context(project.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint))
            for _ in range(2)
        ]
        server = stack.enter_context(
            prometheus.running(
                directory,
                [f"127.0.0.1:{service.admin_port}" for service in services],
                rule_files=[path / "deploy/prometheus/alerts.yml"],
                job="order-desk",
                labels={"namespace": "production"},
            )
        )
        begin = time.time() + WARM_UP_SECONDS
        end = begin + SECONDS
        visitors = [
            threading.Thread(target=visit, args=(service, begin, end, number))
            for service in services
            for number in range(VISITORS)
        ]
        visitors += [
            threading.Thread(target=watch, args=(service, end))
            for service in services
            for _ in range(WATCHERS)
        ]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        variables = dashboard.variables(server) | WINDOWS
        times = begin + np.arange(SECONDS + 1)
        series: dict[str, list[tuple[dict[str, str], np.ndarray]]] = {}
        for name, query in dashboard.queries().items():
            series[name] = []
            for each in server.query_range(grafana.fill(query, variables), begin, end, 1):
                values = np.full(len(times), np.nan)
                for at, value in each["values"]:
                    values[round(at - begin)] = float(value)
                series[name].append((each["metric"], values))
        exemplars = {
            f"{panel['title']}, {target['refId']}": np.array(
                [
                    (exemplar["timestamp"], float(exemplar["value"]))
                    for found in server.exemplars(grafana.fill(target["expr"], variables))
                    for exemplar in found["exemplars"]
                ]
            )
            for panel in dashboard.panels
            for target in panel["targets"]
            if target.get("exemplar")
        }
        return dashboard, Answers(times, series, exemplars)


def visit(service: Service, begin: float, end: float, number: int) -> None:
    """One of those who ask, until the end; the first is a load balancer that asks the probes."""
    trouble = begin + TROUBLE_SECONDS + 3 * number if number <= UNLUCKY else math.inf
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    while (now := time.time()) < end:
        if number == 0:
            paths = ["/livez", "/readyz"]
            pause = 1.0
        else:
            order = f"/orders/{random.randint(1, 999)}"
            kinds = [order, "/search", "/hello/world", "/report", "/wp-login.php"]
            paths = random.choices(kinds, [50, 18, 25, 4, 1])
            if now > trouble:
                paths, trouble = ["/orders/0"], math.inf
            wave = 1 + 0.5 * math.sin((now - begin) / SECONDS * 2 * math.pi)
            pause = random.expovariate(14 * wave)
        for path in paths:
            connection.request("GET", path)
            connection.getresponse().read()
        time.sleep(pause)
    connection.close()


def watch(service: Service, end: float) -> None:
    """One of those who have a WebSocket open, and open another when it is closed."""
    while time.time() < end:
        time.sleep(random.uniform(0, 5))
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
            connection.sendall(
                b"GET /ticker HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            while connection.recv(4096):
                pass


def draw(dashboard: grafana.Dashboard, answers: Answers) -> None:
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8, "text.color": TEXT})
    lines = rows_on_screen(dashboard)
    height = HEADER + (max(lines.values()) + 1) * UNIT
    figure = plt.figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)
    header(figure, dashboard, height)
    column = WIDTH / 24
    for panel in dashboard.json["panels"]:
        at = panel["gridPos"]
        x, w = at["x"] * column + GAP / 2, at["w"] * column - GAP
        y, h = HEADER + lines[at["y"]] * UNIT + GAP / 2, at["h"] * UNIT - GAP
        if panel["type"] == "row":
            title = f"\N{BLACK DOWN-POINTING SMALL TRIANGLE}  {panel['title']}"
            place(figure, x + 2, y + h / 2, title, height, size=10, weight="bold", va="center")
            continue
        frame = (x / WIDTH, 1 - (y + h) / height, w / WIDTH, h / height)
        figure.add_artist(
            plt.Rectangle(
                frame[:2], *frame[2:], facecolor=PANEL, edgecolor=BORDER, lw=0.8, zorder=-1
            )
        )
        place(figure, x + 9, y + 8, panel["title"], height, size=8.5, weight="bold", va="top")
        inner = (x + 8, y + 26, w - 16, h - 30)
        PAINTERS[panel["type"]](figure, panel, answers, inner, height)
    figure.savefig(PICTURE, facecolor=BACKGROUND)


def header(figure: Figure, dashboard: grafana.Dashboard, height: float) -> None:
    """The title, and the variables by which a person chooses what is shown."""
    title = dashboard.json["title"]
    place(figure, 10, HEADER / 2 + 2, title, height, size=13, weight="bold", va="center")
    x = 150.0
    for variable in dashboard.json["templating"]["list"]:
        if variable["type"] == "query":
            value = "All" if variable.get("includeAll") else title
            chip = f"{variable['label']}  {value}"
            place(
                figure, x, HEADER / 2 + 2, chip, height, color=FAINT, va="center",
                bbox={"facecolor": PANEL, "edgecolor": BORDER, "boxstyle": "round,pad=0.5"},
            )  # fmt: skip
            x += 40 + 5.2 * len(chip)


def rows_on_screen(dashboard: grafana.Dashboard) -> dict[int, int]:
    """Where each line of the grid is shown: Grafana leaves none empty between panels."""
    taken: set[int] = set()
    for panel in dashboard.json["panels"]:
        at = panel["gridPos"]
        taken |= set(range(at["y"], at["y"] + at["h"]))
    return {line: shown for shown, line in enumerate(sorted(taken))}


def place(figure: Figure, x: float, y: float, text: str, height: float, **options: Any) -> None:
    figure.text(x / WIDTH, 1 - y / height, text, **options)


def axes(figure: Figure, inner: tuple[float, float, float, float], height: float) -> Axes:
    x, y, w, h = inner
    made = figure.add_axes((x / WIDTH, 1 - (y + h) / height, w / WIDTH, h / height))
    made.set_facecolor(PANEL)
    for spine in made.spines.values():
        spine.set_visible(False)
    made.tick_params(colors=FAINT, length=0, labelsize=7)
    return made


def stat(
    figure: Figure, panel: dict[str, Any], answers: Answers, inner: Any, height: float
) -> None:
    x, y, w, h = inner
    [(_, values)] = curves(panel, answers)
    values = np.nan_to_num(values)
    defaults = panel["fieldConfig"]["defaults"]
    reached = [
        step["color"]
        for step in defaults["thresholds"]["steps"]
        if step["value"] is None or values[-1] >= step["value"]
    ]
    color = COLORS[reached[-1]]
    made = axes(figure, (x - 7, y + h * 0.5, w + 14, h * 0.5 + 3), height)
    made.set_axis_off()
    low, high = min(0, values.min()), max(values.max() * 1.05, 1e-9)
    made.fill_between(answers.times, values, low, color=color, alpha=0.18, lw=0)
    made.plot(answers.times, values, color=color, lw=1)
    made.set_xlim(answers.times[0], answers.times[-1])
    made.set_ylim(low, high)
    place(
        figure, x + w / 2, y + h * 0.28, unit(defaults["unit"])(values[-1]), height, size=19,
        color=color, weight="bold", ha="center", va="center",
    )  # fmt: skip


def timeseries(
    figure: Figure, panel: dict[str, Any], answers: Answers, inner: Any, height: float
) -> None:
    x, y, w, h = inner
    below = 36 if w > 500 else 48 if w > 400 else 60
    made = axes(figure, (x + 52, y, w - 58, h - below), height)
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    fixed, alone = overrides(panel)
    base = np.zeros(len(answers.times))
    top = 1e-9
    for number, (name, series) in enumerate(curves(panel, answers)):
        color, values = fixed.get(name, PALETTE[number % len(PALETTE)]), series
        if "stacking" in custom and name not in alone:
            values = base + np.nan_to_num(series)
            made.fill_between(answers.times, base, values, color=color, alpha=0.25, lw=0)
            base = values
        made.plot(answers.times, values, color=color, lw=1.2, label=name)
        top = max(top, np.nanmax(values))
    for points in (answers.exemplars.get(name) for name in queries(panel)):
        if points is not None:
            few = points[:: max(1, len(points) // 150)]
            made.scatter(*few.T, s=9, marker="D", color=COLORS["blue"], alpha=0.55, lw=0)
            top = max(top, few[:, 1].max())
    if "thresholdsStyle" in custom:
        for step in defaults["thresholds"]["steps"]:
            if step["value"]:
                made.axhline(step["value"], color=COLORS[step["color"]], lw=0.9, ls=(0, (5, 4)))
    made.set_ylim(0, defaults.get("max") or (1.1 * top if top > 1e-9 else 1))
    made.set_xlim(answers.times[0], answers.times[-1])
    ticks(made, defaults["unit"], 6 if w > 400 else 4)
    made.legend(
        loc="upper left", bbox_to_anchor=(-0.01, -0.13), ncols=max(3, int(w // 110)), fontsize=7,
        frameon=False, labelcolor=TEXT, handlelength=1, columnspacing=1.2, borderaxespad=0.3,
    )  # fmt: skip


def heatmap(
    figure: Figure, panel: dict[str, Any], answers: Answers, inner: Any, height: float
) -> None:
    x, y, w, h = inner
    made = axes(figure, (x + 52, y, w - 58, h - 20), height)
    found = sorted(curves(panel, answers), key=lambda curve: float(curve[0]))
    counts = np.diff(np.nan_to_num([values for _, values in found]), axis=0, prepend=0)
    colors = ListedColormap(mpl.colormaps["inferno"](np.linspace(0.25, 1, 64)))
    # Two seconds to a cell, so that cells can be told apart.
    made.pcolormesh(
        answers.times[::2], range(len(found)), np.ma.masked_less(counts, 0.01)[:, ::2],
        cmap=colors, norm=PowerNorm(0.5),
        shading="nearest", edgecolors=PANEL, linewidth=0.4,
    )  # fmt: skip
    bounds = [seconds(float(name)) for name, _ in found]
    made.set_yticks(range(0, len(found), 2), bounds[::2])
    ticks(made, None)


def ticks(made: Axes, name: str | None, times: int = 6) -> None:
    made.grid(axis="both", color=BORDER, lw=0.6)
    made.set_axisbelow(True)
    made.xaxis.set_major_locator(MaxNLocator(times, prune="upper"))
    clock = FuncFormatter(lambda at, _: time.strftime("%H:%M:%S", time.gmtime(at)))
    made.xaxis.set_major_formatter(clock)
    if name:
        made.yaxis.set_major_locator(
            MultipleLocator(16 * 2**20) if name == "bytes" else MaxNLocator(4, steps=[1, 2, 5, 10])
        )
        show = unit(name)
        made.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))


PAINTERS: dict[str, Callable[..., None]] = {
    "stat": stat,
    "timeseries": timeseries,
    "heatmap": heatmap,
}


def queries(panel: dict[str, Any]) -> list[str]:
    return [f"{panel['title']}, {target['refId']}" for target in panel["targets"]]


def curves(panel: dict[str, Any], answers: Answers) -> list[tuple[str, np.ndarray]]:
    """The panel's series by their names in the legend."""
    found = []
    for target, query in zip(panel["targets"], queries(panel), strict=True):
        for labels, values in answers.series[query]:
            parts = re.split(r"\{\{(\w+)\}\}", target["legendFormat"])
            parts[1::2] = [labels.get(part, "") for part in parts[1::2]]
            found.append(("".join(parts).strip(), values))
    return found


def overrides(panel: dict[str, Any]) -> tuple[dict[str, str], set[str]]:
    """Series that have a colour of their own, and those that are not stacked."""
    colors, alone = {}, set()
    for override in panel["fieldConfig"]["overrides"]:
        for property in override["properties"]:
            if property["id"] == "color":
                colors[override["matcher"]["options"]] = COLORS[property["value"]["fixedColor"]]
            elif property["id"] == "custom.stacking":
                alone.add(override["matcher"]["options"])
    return colors, alone


def unit(name: str) -> Callable[[float], str]:
    if name.startswith("suffix:"):
        return lambda value: f"{value:.3g}{name.removeprefix('suffix:')}"
    return {
        "reqps": lambda value: f"{value:.3g} req/s",
        "cps": lambda value: f"{value:.3g}/s",
        "percentunit": lambda value: f"{100 * value:.3g} %",
        "bytes": lambda value: f"{value / 2**20:.3g} MiB",
        "short": lambda value: f"{value:.3g}",
        "none": lambda value: f"{value:g}",
        "s": seconds,
    }[name]


def seconds(value: float) -> str:
    if math.isinf(value):
        return "+Inf"
    return f"{value:.3g} s" if value >= 1 or value == 0 else f"{1000 * value:.3g} ms"


if __name__ == "__main__":
    main()
