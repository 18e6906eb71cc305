"""The console's page, looked at in a real browser.

`PICTURE=1 .venv/bin/pytest tests/template/test_console.py -k picture` takes its picture anew.
"""

import json
import os
import re
import signal
import socket
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from ..backends import chromium, eventually
from .conftest import Generate
from .project import TEMPLATE, Project, Service
from .test_render import SOURCE

HANDLERS = r'''
import asyncio
import time

from tornado_chassis.tracing import span

never = asyncio.Event()


class Order(JsonHandler):
    async def get(self, number: str) -> None:
        log.info("Looking up order %s", number, extra={"order": number})
        with span("load order"):
            await asyncio.sleep(0.004)
            with span("parse rows"):
                await asyncio.sleep(0.002)
        if number == "7":
            log.warning("Order %s has no customer", number)
            raise LookupError(f"customer of order {number}")
        self.finish({"order": number})


class Warehouse(JsonHandler):
    async def get(self) -> None:
        await never.wait()


class Invoice(JsonHandler):
    def get(self) -> None:
        time.sleep(0.8)
        self.finish({"total": 42})


class Cookies(JsonHandler):
    def get(self) -> None:
        self.finish({"cookies": self.request.headers.get("Cookie", "")})


class Echo(JsonHandler):
    """Says what it is sent, everywhere."""

    async def get(self, text: str) -> None:
        agent = self.request.headers["User-Agent"]
        with span(agent):
            log.error("%s", agent, extra={"field": agent})
        logging.getLogger(agent).warning(agent)
        asyncio.create_task(never.wait(), name=agent)
        raise type(agent, (Exception,), {})(agent)
'''
ROUTES = (
    r'(r"/orders/(?P<number>\d+)", handlers.Order), (r"/warehouse", handlers.Warehouse), '
    r'(r"/invoice", handlers.Invoice), (r"/cookies", handlers.Cookies), '
    r'(r"/echo/(?P<text>.*)", handlers.Echo)'
)
SECTIONS = "now requests errors routes checks logs work exports settings profile".split()
# It would run where it became markup, an attribute's end, or a link.
PAYLOAD = (
    """"'><img src=x onerror="window.ran=1"><script>window.ran=1</script>{{7*7}}${window.ran=1}"""
)
expect.set_options(timeout=60_000)  # milliseconds
TOKEN = "only-for-these-tests"
# For the template's README, and for the docs of a service.
PICTURES = [TEMPLATE / "docs/console.png", SOURCE / "docs/console_page.png"]
PICTURE_BYTES = 150_000


@pytest.fixture
def project(generate: Generate) -> Project:
    project = generate()
    project.add_handler(HANDLERS, ROUTES)
    return project


@contextmanager
def looked_at(
    project: Project,
    path: str = "",
    settings: Mapping[str, str] | None = None,
    **options: object,
) -> Iterator[tuple[Service, Page]]:
    """The service, and its page in a browser, which must have no problem until the end;
    nothing but the service may be asked."""
    with chromium.running() as browser, project.start(**settings or {}) as service:
        page = open_page(browser, service, path, **options)
        yield service, page
        assert_no_problem(page)


def open_page(browser: Browser, service: Service, path: str = "", **options: object) -> Page:
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))

    def note_foreign(request: Request) -> None:
        if not request.url.startswith((f"{service.admin_url}/", "data:,")):
            problems.append(f"asked {request.url}")

    page.on("request", note_foreign)
    page.problems = problems  # type: ignore[attr-defined]
    page.add_init_script(
        "window.violations = [];"
        "addEventListener('securitypolicyviolation', (event) => violations.push(event.blockedURI))"
    )
    page.goto(f"{service.admin_url}/{path}")
    return page


def assert_no_problem(page: Page) -> None:
    assert page.problems == []  # type: ignore[attr-defined]


@contextmanager
def hanging(service: Service) -> Iterator[None]:
    """A request that does not end before the block does."""
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"GET /warehouse HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: asked(service, "now")["in_flight"], "a request in flight")
        yield


def asked(service: Service, view: str) -> Any:
    return json.loads(service.get(f"/console/{view}.json", admin=True)[2])


def test_request_shows_up_within_two_seconds(project: Project) -> None:
    """Of the page's own clock."""
    with looked_at(project, "#requests") as (service, page):
        page.clock.install()
        page.reload()
        expect(page.get_by_text("None yet")).to_be_visible()
        page.clock.pause_at(datetime.now() + timedelta(minutes=1))
        service.get("/hello/world")
        page.clock.run_for(2000)
        expect(page.get_by_role("link", name="GET /hello/world")).to_be_visible()


def test_failing_request_leads_to_its_stack_and_lines(project: Project) -> None:
    with looked_at(project) as (service, page):
        service.get("/orders/7")
        page.get_by_role("link", name="GET /orders/7").click()
        expect(page.get_by_role("heading", name="LookupError: customer of order 7")).to_be_visible()
        expect(page.locator("pre.stack")).to_contain_text("raise LookupError")
        lines = page.get_by_role("region", name="Log lines")
        expect(lines).to_contain_text("Order 7 has no customer")
        expect(lines).to_contain_text("order=7")
        bars = page.locator(".timeline .name")
        assert bars.all_inner_texts() == ["GET /orders/{number}", "load order", "parse rows"]


def test_request_that_hangs_is_first_and_says_where(project: Project) -> None:
    with looked_at(project, "#requests") as (service, page), hanging(service):
        for number in range(20):
            service.get(f"/orders/{number + 10}")
        first = page.locator("tbody tr").first
        expect(first).to_contain_text("GET /warehouse")
        expect(first).to_contain_text("running")
        first.get_by_role("link").click()
        expect(page.locator("#content pre").first).to_contain_text("in Warehouse.get")


def test_requests_are_filtered(project: Project) -> None:
    with looked_at(project, "#requests") as (service, page):
        for path in ("/orders/7", "/orders/8", "/nowhere"):
            service.get(path)
        expect(page.locator("tbody tr")).to_have_count(3)
        page.get_by_label("Status").fill("5xx")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody tr")).to_contain_text("GET /orders/7")
        assert page.url.endswith("#requests?status=5xx")


@pytest.mark.parametrize("bypass_csp", [False, True], ids=["as shipped", "without policy"])
def test_hostile_text_stays_text(project: Project, bypass_csp: bool) -> None:
    """Also without the page's policy, which would keep most of it from running."""
    settings = {"ENVIRONMENT": PAYLOAD, "BUILD_COMMIT": PAYLOAD, "CONSOLE_TOKEN": TOKEN}
    token = f"?token={TOKEN}"
    with looked_at(project, token, settings, bypass_csp=bypass_csp) as (service, page):
        path = f"/echo/{quote(PAYLOAD)}"
        service.get(path, {"User-Agent": PAYLOAD, "X-Request-ID": PAYLOAD})
        number = 1
        for section in (*SECTIONS, f"requests/{number}"):
            page.goto(f"{service.admin_url}/console/#{section}")
            expect(page.locator("#content")).not_to_be_empty()
            page.wait_for_timeout(200)
            assert page.locator("img, #main script").count() == 0, section
            assert page.evaluate("window.ran") is None, section
            assert page.evaluate("window.violations") == [], section
            if section in ("now", "errors", "logs", "work", "settings", f"requests/{number}"):
                assert 'onerror="window.ran=1"' in page.inner_text("#main"), section


def test_policy_is_in_force_as_shipped(project: Project) -> None:
    """Or the test above would find no violation because nothing looks for one."""
    with chromium.running() as browser, project.start() as service:
        page = open_page(browser, service)
        page.evaluate("document.body.append(Object.assign(new Image(), {src: '//127.0.0.1:9/a'}))")
        page.wait_for_function("window.violations.length == 1")


def test_build_backends_and_traces_are_shown(generate: Generate) -> None:
    project = generate(tracing="jaeger", metrics="prometheus", error_tracking="sentry")
    settings = {
        "BUILD_COMMIT": "3e5c0ffee",
        "BUILD_TIME": "2030-01-31T12:00:00Z",
        "TRACE_URL": "https://traces.example/trace/{trace_id}",
    }
    with looked_at(project, settings=settings) as (service, page):
        expect(page.get_by_text("3e5c0ffee")).to_be_visible()
        expect(page.locator("time[datetime='2030-01-31T12:00:00.000Z']")).to_be_visible()
        service.get("/hello/world")
        service.get("/metrics", admin=True)
        page.goto(f"{service.admin_url}/#exports")
        rows = page.get_by_role("region", name="Exports").get_by_role("row")
        expect(rows.filter(has_text="scrapes").locator("td").nth(1)).to_have_text("1")
        for backend in ("Jaeger", "Sentry"):
            expect(rows.filter(has_text=backend)).to_contain_text("idle")
        page.goto(f"{service.admin_url}/#requests/1")
        trace = asked(service, "requests/1")["ids"]
        link = page.get_by_role("link", name="Open the whole trace")
        expect(link).to_have_attribute("href", f"https://traces.example/trace/{trace['trace_id']}")
        assert chromium.barriers(page) == []


def test_link_to_a_trace_is_a_link_of_the_web(generate: Generate) -> None:
    project = generate(tracing="jaeger")
    for url in ("javascript:alert('{trace_id}')", "http://traces.example/", "//a/{trace_id}"):
        with pytest.raises(RuntimeError, match=r"with 78:[^:]*:\s+TRACE_URL: should look like"):
            project.start(TRACE_URL=url).__enter__()


def test_level_is_changed_and_changes_back(project: Project) -> None:
    with looked_at(project, "#logs") as (service, page):
        row = page.get_by_role("row").filter(has=page.get_by_text("root", exact=True))
        expect(row).to_contain_text("INFO")
        page.get_by_label("Level of root", exact=True).select_option("DEBUG")
        page.get_by_label("Set level of root").click()
        expect(row).to_contain_text("DEBUG for 10 min more")
        service.get("/hello/world")
        expect(page.get_by_text("Greeting")).to_be_visible()
        body = json.dumps({"logger": "root", "level": "DEBUG", "seconds": 0.5})
        headers = {"Content-Type": "application/json"}
        path = "/console/levels.json"
        assert service.get(path, headers, admin=True, method="PUT", body=body)[0] == 200
        expect(row.locator("td").nth(1)).to_have_text("INFO")


def test_draining_is_shown(project: Project) -> None:
    with looked_at(project, settings={"DRAIN_DELAY_SECONDS": "600"}) as (service, page):
        state = page.get_by_role("status")
        expect(state).to_have_text("ready")
        service.process.send_signal(signal.SIGTERM)
        expect(state).to_have_text("draining")
        expect(page.get_by_text("The service is draining.")).to_be_visible()


def test_charts_have_data(project: Project) -> None:
    with looked_at(project) as (service, page):
        for number in range(10):
            service.get(f"/orders/{number}")
        chart = page.get_by_role("img", name=re.compile("^Requests: now"))
        expect(chart).to_have_attribute("aria-label", re.compile("up to [1-9]"))
        for name in ("Requests", "Errors", "Duration", "In flight", "Event loop", "Memory"):
            chart = page.get_by_role("img", name=re.compile(f"^{name}.*: now"))
            assert chart.locator("polyline").count() >= 1, name


def test_profile_is_drawn(project: Project) -> None:
    with looked_at(project, "#profile") as (_, page):
        page.get_by_label("Seconds").fill("1")
        page.get_by_role("button", name="Sample").click()
        expect(page.get_by_role("button", name="MainThread")).to_be_visible()
        page.get_by_role("button", name="MainThread").press("Enter")
        with page.expect_download() as download:
            page.get_by_role("link", name="File for speedscope.app").click()
        file = json.loads(Path(download.value.path()).read_text())
        assert file["profiles"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(project: Project, scheme: str) -> None:
    with chromium.running() as browser, project.start() as service, hanging(service):
        for path in ("/orders/7", "/orders/8", "/nowhere"):
            service.get(path)
        for width in (1200, 400):
            page = open_page(
                browser, service, color_scheme=scheme, viewport={"width": width, "height": 900}
            )
            for section in (*SECTIONS, "requests/1", "requests/2"):
                page.goto(f"{service.admin_url}/#{section}")
                expect(page.locator("#content")).not_to_be_empty()
                page.get_by_role("button", name="Pause").click()
                assert chromium.barriers(page) == [], section
                page.get_by_role("button", name="Go on").click()
                # Nothing beyond the width but what scrolls on its own.
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, section
            assert_no_problem(page)


def test_what_stays_is_not_made_anew(project: Project) -> None:
    """A click may last longer than the time until the page changes, and lines come in meanwhile."""
    with looked_at(project, "#requests") as (service, page):
        service.get("/orders/8")
        order = page.get_by_role("link", name="GET /orders/8")
        tabs = page.get_by_role("navigation").get_by_role("link")
        expect(order).to_be_visible()
        for each in (order, tabs.first, tabs.last):
            each.evaluate("each => each.isKnown = true")
        service.get("/orders/7")
        expect(page.get_by_role("link", name="GET /orders/7")).to_be_visible()
        expect(page.locator("tbody tr").first).to_contain_text("GET /orders/7")
        expect(page.get_by_role("navigation")).to_contain_text("Errors 1")
        for each in (order, tabs.first, tabs.last):
            assert each.evaluate("each => each.isKnown")
        order.hover()
        page.mouse.down()
        service.get("/orders/9")
        page.wait_for_timeout(1500)  # over which the page would have changed
        page.mouse.up()
        expect(page.get_by_role("heading", name="GET /orders/8")).to_be_visible()
        tabs.last.hover()
        page.mouse.down()
        page.wait_for_timeout(1500)
        page.mouse.up()
        expect(page.get_by_role("heading", name="Profile")).to_be_visible()


def test_failing_check_and_background_work_are_named(project: Project) -> None:
    app = project.path / "src" / project.package / "app.py"
    text = app.read_text(encoding="utf-8")
    lines = """\
    service.health.add("database:connections", handlers.fail)
    service.background("mail", handlers.fail, restart=True)
    return service
"""
    app.write_text(text.replace("    return service\n", lines))
    with (app.parent / "handlers.py").open("a", encoding="utf-8") as handlers:
        handlers.write('\n\nasync def fail() -> None:\n    raise OSError("no route")\n')
    with looked_at(project) as (_, page):
        expect(page.get_by_role("status")).to_have_text("not ready")
        notes = page.locator(".notes .bad")
        expect(notes.filter(has_text="database:connections")).to_contain_text("OSError: no route")
        note = notes.filter(has_text="Background work mail failed")
        expect(note).to_contain_text("OSError: no route")
        expect(page.get_by_text("Nothing calls for attention")).to_have_count(0)
        note.get_by_role("link").click()
        row = page.locator("tbody tr").first
        expect(row).to_contain_text("restarting")
        expect(row).to_contain_text("OSError: no route")


def test_narrow_page_shows_every_tab_and_breaks_no_word(project: Project) -> None:
    with looked_at(project, viewport={"width": 400, "height": 800}) as (service, page):
        for section in SECTIONS:
            page.goto(f"{service.admin_url}/#{section}")
            expect(page.locator("nav a[aria-current]")).to_have_text(section.capitalize())
            for tab in page.get_by_role("navigation").get_by_role("link").all():
                expect(tab).to_be_in_viewport(ratio=1)
        page.goto(f"{service.admin_url}/#settings")
        value = page.get_by_role("cell", name="development", exact=True).locator("span")
        expect(value).to_be_visible()
        assert value.evaluate("each => each.getClientRects().length") == 1
        assert "`" not in page.inner_text("main")


def test_token_leads_in_and_the_cookie_stays_on_the_admin_port(project: Project) -> None:
    with chromium.running() as browser, project.start(CONSOLE_TOKEN=TOKEN) as service:
        page = browser.new_page()
        assert page.goto(f"{service.admin_url}/").status == 401  # type: ignore[union-attr]
        page.goto(f"{service.admin_url}/?token={TOKEN}#routes")
        expect(page.get_by_role("heading", name="Routes")).to_be_visible()
        assert page.url == f"{service.admin_url}/console/#routes"
        page.goto(f"{service.admin_url}/#now")
        expect(page.get_by_role("heading", name="Now")).to_be_visible()
        page.goto(f"{service.url}/cookies")
        assert json.loads(page.inner_text("body")) == {"cookies": ""}


def test_keyboard_alone_leads_to_the_stack(project: Project) -> None:
    with looked_at(project, "#requests") as (service, page):
        service.get("/orders/7")
        link = page.get_by_role("link", name="GET /orders/7")
        expect(link).to_be_visible()
        focused = "document.activeElement.textContent"
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(focused) == "GET /orders/7":
                break
        page.wait_for_timeout(1500)  # drawn anew meanwhile
        assert page.evaluate(focused) == "GET /orders/7"
        page.keyboard.press("Enter")
        expect(page.locator("pre.stack")).to_contain_text("raise LookupError")


def test_wheel_has_the_page(project: Project, tmp_path: Path) -> None:
    project.uv("build", "--quiet", "--wheel", "--out-dir", str(tmp_path / "dist"))
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist()}
    assert names >= {"page.html", "page.css", "page.js"}


def test_picture(project: Project, tmp_path: Path) -> None:
    """Of a minute where it is kept, else of a moment."""
    is_kept = "PICTURE" in os.environ
    pictures = PICTURES if is_kept else [tmp_path / "console.png"]
    end = time.monotonic() + (60 if is_kept else 1)
    with (
        chromium.running() as browser,
        project.start(LOOP_BLOCKED_SECONDS="0.5") as service,
        hanging(service),
    ):
        page = open_page(browser, service, viewport={"width": 1200, "height": 800})
        service.get("/invoice")
        number = 8
        while time.monotonic() < end:
            # Now and then one that fails.
            service.get("/orders/7" if number % 150 == 149 else f"/orders/{number}")
            number += 1
            time.sleep(0.02 * (1 + number % 5))
        service.get("/orders/7")
        expect(page.get_by_role("link", name="GET /orders/7")).to_be_visible()
        expect(page.get_by_text(re.compile(r"handlers\.py:\d+ in get"))).to_be_visible()
        shot = page.screenshot()
        assert 10_000 < len(shot) < PICTURE_BYTES
        for picture in pictures:
            picture.write_bytes(shot)


def test_one_picture_is_at_both_places() -> None:
    first, second = (picture.read_bytes() for picture in PICTURES)
    assert first == second
    assert len(first) < PICTURE_BYTES
