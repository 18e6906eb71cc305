// The console's page. All that comes from outside becomes a text node: there is no markup in a string.

const EVERY = 1000; // milliseconds
const LONG = 5; // seconds that a request may take before it is pointed out
const KEPT = 15 * 60; // seconds that the charts show
const RECENT = 10; // seconds that the figures above the charts are about
const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "oninput", "onkeydown", "onpointerleave", "onpointermove", "onsubmit"];

const SECTIONS = {
  now: "Now", requests: "Requests", errors: "Errors", routes: "Routes", checks: "Checks",
  logs: "Logs", work: "Work", exports: "Exports", settings: "Settings", profile: "Profile",
};

const main = document.getElementById("main");
let seconds = [];
let latest = null;
let checks = [];
let isPaused = false;
let shown = ""; // what the section was last made of
let turn = 0;
let isPressed = false; // a click is not over

// Elements

function element(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node[name] = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined));
  return node;
}

const h = (tag, attributes, ...children) =>
  element(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) =>
  element(document.createElementNS(SVG, tag), attributes, children);

// A row that stays the same one when others come before it.
const keyed = (key, cells) => Object.assign(cells, { key });

function table(caption, columns, rows, empty, kind) {
  if (!rows.length) return h("div", { class: "table" }, h("p", { class: "empty" }, empty));
  const head = columns.map(([name, kind]) => h("th", { scope: "col", class: kind || null }, name));
  const body = rows.map((cells) =>
    h("tr", { "data-key": cells.key }, cells.map((cell, index) => h("td", { class: columns[index][1] || null, "data-name": columns[index][0] }, cell))));
  return h("div", { class: `table ${kind || ""}`, tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

function facts(entries) {
  return h("dl", { class: "facts" },
    entries.filter(([, value]) => value !== "" && value !== null && value !== undefined)
      .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

const badge = (text, kind) => h("span", { class: `badge ${kind}` }, text);
const mono = (text) => h("span", { class: "mono break" }, text);
const quiet = (text) => h("span", { class: "quiet" }, text);
// `code` between backticks, as in docstrings.
const hint = (text) => text.split("`").map((part, index) => index % 2 ? h("code", {}, part) : part);
// Broken after such letters rather than anywhere.
const breakable = (text, after) =>
  h("span", { class: "mono" }, text.split(after).map((part, index) => index ? [h("wbr"), part] : part));

// Figures

function duration(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${Number((value * 1e3).toPrecision(3))} ms`;
  if (value < 60) return `${Number(value.toPrecision(3))} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}

const count = (value) => value.toLocaleString("en");
const share = (value) => `${(100 * value).toFixed(value && value < 0.1 ? 1 : 0)} %`;
const mebibytes = (value) => `${(value / 1048576).toFixed(1)} MiB`;

// In the reader's zone; the title has the day and the zone's name.
function at(value) {
  const date = new Date(value * 1000);
  const clock = date.toLocaleTimeString("en-GB", { hour12: false });
  const isToday = date.toDateString() === new Date().toDateString();
  const day = isToday ? "" : `${date.toLocaleDateString("en-CA")} `;
  return h("time", { datetime: date.toISOString(), title: date.toString() }, day + clock);
}

// A stream or a long poll is long by design.
const hangs = (request) => request.has_latency_objective && request.duration > LONG;

function statusBadge(request) {
  if (!request.status) return badge("running", hangs(request) ? "bad" : request.has_latency_objective ? "warn" : "");
  const kind = request.status >= 500 ? "bad" : request.status >= 400 ? "warn" : "good";
  return badge(String(request.status), kind);
}

const levelBadge = (level) =>
  badge(level, ["ERROR", "CRITICAL"].includes(level) ? "bad" : level === "WARNING" ? "warn" : "");

// What the service says

async function ask(path, options) {
  const response = await fetch(`/console/${path}`, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.title || `${response.status} ${response.statusText}`);
  return body;
}

const send = (path, method, body) =>
  ask(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

function complain(error) {
  const problem = document.getElementById("problem");
  problem.hidden = !error;
  const isAway = error instanceof TypeError;
  problem.textContent = error ? (isAway ? "The service does not answer. Trying again…" : error.message) : "";
}

// Charts

function chart(title, now, lines, format, { scale, over } = {}) {
  const width = 900, height = 90;
  const end = latest.time;
  const most = Math.max(scale || 0, ...lines.flatMap(([, value]) => seconds.map(value).filter((each) => each !== null)));
  const span = Math.min(Math.max(end - (seconds.length ? seconds[0].time : end), 60), KEPT);
  const begin = `${Math.round(span / 60)} min ago`;
  const x = (time) => width - (end - time) * (width / span);
  const y = (value) => height - (most ? value / most : 0) * (height - 4);
  const label = `${title}: now ${now}, up to ${format(most)} since ${begin}`;
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  svg.append(s("line", { class: "chart-base", x1: 0, x2: width, y1: height, y2: height }));
  lines.forEach(([, value], index) => {
    const points = seconds.filter((each) => value(each) !== null).map((each) => `${x(each.time).toFixed(1)},${y(value(each)).toFixed(1)}`);
    if (!points.length) return;
    if (lines.length === 1) {
      const first = points[0].split(",")[0], last = points.at(-1).split(",")[0];
      svg.append(s("polygon", { class: "chart-area", points: `${first},${height} ${points.join(" ")} ${last},${height}` }));
    }
    svg.append(s("polyline", { class: `chart-line ${["", "second", "third"][index]}`, points: points.join(" ") }));
  });
  const names = lines.length > 1 && h("span", { class: "legend" }, lines.map(([name]) => h("span", { class: name }, name)));
  svg.append(s("line", { class: "chart-cursor", y1: 0, y2: height, visibility: "hidden" }));
  // What these find is on the page: what is made here only says how that is to be.
  const point = (event, near) => {
    const card = event.currentTarget.closest(".card"), cursor = card.querySelector(".chart-cursor");
    if (near) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(near.time));
    cursor.setAttribute("visibility", near ? "visible" : "hidden");
    card.querySelector(".figure").textContent = near ? lines.map(([, of]) => of(near) === null ? "–" : format(of(near))).join(" / ") : now;
    card.querySelector(".axis span").replaceChildren(near ? at(near.time) : begin);
  };
  svg.onpointerleave = (event) => point(event);
  svg.onpointermove = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const time = end - span * (1 - (event.clientX - box.left) / box.width);
    point(event, seconds.reduce((best, each) => Math.abs(each.time - time) < Math.abs(best.time - time) ? each : best, seconds[0]));
  };
  return h("section", { class: "card" }, h("h3", {}, title, " ", names || null),
    h("p", { class: lines.length > 1 ? "value small" : "value" }, h("span", { class: "figure" }, now), over ? quiet(` over ${RECENT} s`) : null), svg,
    h("div", { class: "axis" }, h("span", {}, begin), h("span", {}, `up to ${format(most)}`), h("span", {}, "now")));
}

function notes(requests) {
  const found = [];
  if (latest.state !== "ready") found.push(["warn", `The service is ${latest.state}.`]);
  for (const each of requests.in_flight.filter(hangs).slice(0, 5))
    found.push(["bad", [link(`requests/${each.number}`, `${each.method} ${each.path}`), ` has been running for ${duration(each.duration)}.`]]);
  for (const each of checks.filter((each) => each.status !== "pass"))
    found.push([each.status === "fail" ? "bad" : "warn", [link("checks", each.name), `: ${each.output || each.status}`]]);
  const failed = requests.requests.filter((each) => (each.error || each.status >= 500) && latest.time - each.started < 300);
  if (failed.length)
    found.push(["bad", [`${failed.length} of the last ${requests.requests.length} requests failed within 5 minutes. The latest: `,
      link(`requests/${failed[0].number}`, `${failed[0].method} ${failed[0].path}`), ` ${failed[0].error || failed[0].status}`]]);
  for (const each of latest.blocked.slice(-3).reverse())
    found.push(["warn", ["At ", at(each.time), ` the event loop was blocked for ${duration(each.duration)} by `, mono(`${each.file}:${each.line} in ${each.function}`),
      each.route ? ` (${each.route})` : "", h("details", { "data-key": `blocked ${each.time}` }, h("summary", {}, "Stack"), h("pre", {}, each.stack))]]);
  for (const each of latest.failed_work) {
    const state = { failed: "It does not run", restarting: "It will be restarted" }[each.state] || "It runs again";
    const times = each.failures === 1 ? "once" : `${count(each.failures)} times`;
    found.push(["bad", [link("work", `Background work ${each.name}`), ` failed ${times}, most recently at `, at(each.last), `: ${each.error}. ${state}.`]]);
  }
  const refused = Object.entries(latest.refused);
  if (refused.length) found.push(["warn", `Refused before a handler: ${refused.map(([reason, number]) => `${count(number)} ${reason}`).join(", ")}.`]);
  if (!found.length) found.push(["good", "Nothing calls for attention."]);
  return h("ul", { class: "notes" }, found.map(([kind, text]) => h("li", { class: kind }, text)));
}

const link = (hash, text) => h("a", { href: `#${hash}` }, text);

// Sections: each returns what is to be shown, or null where nothing has changed.

const VIEWS = {
  async now() {
    const requests = await ask("requests.json");
    checks = (await ask("checks.json")).checks;
    const recent = seconds.slice(-RECENT);
    const rate = recent.reduce((sum, each) => sum + each.requests, 0) / (recent.length || 1);
    const total = recent.reduce((sum, each) => sum + each.requests, 0);
    const errors = total ? recent.reduce((sum, each) => sum + each.errors, 0) / total : 0;
    const measured = recent.filter((each) => each.p99 !== null).at(-1) || {};
    const last = seconds.at(-1) || { lag: 0, memory: null };
    const perSecond = (value) => `${value.toFixed(value < 10 ? 1 : 0)}/s`;
    return [
      h("h2", {}, "Now"),
      notes(requests),
      h("div", { class: "charts" },
        chart("Requests", perSecond(rate), [["rate", (each) => each.requests]], perSecond, { over: true }),
        chart("Errors", share(errors), [["share", (each) => each.requests ? each.errors / each.requests : 0]], share, { over: true }),
        chart("Duration", [measured.p50, measured.p95, measured.p99].map(duration).join(" / "),
          [["p50", (each) => each.p50], ["p95", (each) => each.p95], ["p99", (each) => each.p99]], duration),
        chart("In flight", count(latest.in_flight), [["in flight", (each) => each.in_flight]], count),
        chart("Event loop lag", duration(last.lag), [["lag", (each) => each.lag]], duration, { scale: 0.01 }),
        last.memory === null ? null : chart("Memory", mebibytes(last.memory), [["memory", (each) => each.memory]], mebibytes)),
      h("h3", {}, "Process"),
      facts([["Service", `${latest.service} ${latest.version}`], ["Commit", latest.commit && mono(latest.commit)],
        ["Built", latest.built && at(latest.built)], ["Environment", latest.environment],
        ["Host", `${latest.host}, process ${latest.process}`], ["Python", latest.python],
        ["Started", at(latest.started)], ["Requests", count(latest.requests)], ["Exceptions", count(latest.errors)]]),
    ];
  },

  async requests(number) {
    if (number) return oneRequest(number);
    const body = await ask(`requests.json?${filters("requests")}`);
    const inFlight = body.in_flight.sort((one, other) => other.duration - one.duration);
    const rows = [...inFlight, ...body.requests].map((each) => keyed(each.number, [
      at(each.started),
      [h("a", { class: "mono break", href: `#requests/${each.number}` }, `${each.method} ${each.path}`),
        h("div", { class: "second" }, each.route || "unmatched"),
        each.error ? h("div", { class: "failure" }, each.error) : null],
      statusBadge(each),
      duration(each.duration),
      mono(each.ids.trace_id || each.ids.request_id),
    ]));
    return [
      quiet(`${inFlight.length} in flight, then the last ${body.requests.length}.`),
      table("Requests", [["Started", "time"], ["Request"], ["Status"], ["Took", "number"], ["Trace or request id", "wide"]], rows, hint(isFiltered("requests") ? "None that matches." : "None yet. Ask the service for something, and it is here within a second.")),
    ];
  },

  async errors() {
    const body = await ask("errors.json");
    return [h("h2", {}, "Errors"), body.errors.length ? null : h("p", { class: "quiet" }, hint("None since the start. An exception that nobody handles, or an `HTTPError` of 500 or higher, is shown here with its stack.")),
      body.errors.map((each) => h("section", { class: "card group", "data-key": `${each.type} ${each.where} ${each.place}` },
        h("h3", {}, badge(`${count(each.count)} ×`, "bad"), " ", each.type, ": ", each.message),
        facts([["In", each.where], ["At", mono(each.place)], ["First", at(each.first)], ["Last", at(each.last)],
          ["Request", each.number ? link(`requests/${each.number}`, each.request_id) : each.request_id]]),
        h("details", {}, h("summary", {}, "Stack of the latest"), h("pre", { class: "stack" }, each.stack))))];
  },

  async routes() {
    const body = await ask("routes.json");
    const rows = body.routes.map((each) => [
      [mono(`${each.method} ${each.route || "unmatched"}`), h("div", { class: "second" }, breakable(each.handler, /(?<=[._])/))],
      count(each.count), each.errors ? badge(count(each.errors), "bad") : "0", duration(each.p50), duration(each.p99)]);
    return [h("h2", {}, "Routes"), h("p", {}, h("a", { href: "/openapi.json" }, "OpenAPI document")), table("Routes", [["Route, handler"], ["Requests", "number"], ["Errors", "number"], ["p50", "number wide"], ["p99", "number"]], rows, hint("None. `make_service` in `app.py` lists the routes."))];
  },

  async checks() {
    const body = await ask("checks.json");
    checks = body.checks;
    const kind = { pass: "good", warn: "warn", fail: "bad" };
    const rows = checks.map((each) => [
      mono(each.name), badge(each.status, kind[each.status] || ""),
      [each.output ? h("div", { class: "failure" }, each.output) : `${each.observedValue} ${each.observedUnit || ""}`],
      each.history.slice(-5).reverse().map((entry) => h("div", {}, at(Date.parse(entry.time) / 1000), ` ${entry.status} `, quiet(entry.output || "")))]);
    return [h("h2", {}, "Checks"), table("Checks", [["Check"], ["Status"], ["Value or reason"], ["Changes, latest first", "wide"]], rows, hint("None yet. To add one to `make_service` in `app.py`: `service.health.add(\"database\", check)`, where `check` is an async function."))];
  },

  async settings() {
    const body = await ask("settings.json");
    const rows = (isOwn) => body.settings.filter((each) => each.is_own === isOwn).map((each) => [
      [breakable(each.name, /(?<=_)/), h("div", { class: "second" }, hint(each.meaning))], breakable(each.value, /(?<=[,;&/])/), each.source === "default" ? quiet(each.source) : badge(each.source, "")]);
    const columns = [["Setting"], ["Value"], ["From"]];
    return [h("h2", {}, "Settings"),
      table("The service's own settings", columns, rows(true), hint("The service has none of its own. Each field of the class `Settings` in `settings.py` is one."), "stacked"),
      h("h3", {}, "From the template"),
      table("Settings from the template", columns, rows(false), "None.", "stacked")];
  },

  async logs() {
    const [body, levels] = await Promise.all([ask(`logs.json?${filters("logs")}`), ask("levels.json")]);
    return [
      table("Log lines", [["Time", "time"], ["Level"], ["Line"], ["Logger", "wide"]], lines(body.lines), hint(isFiltered("logs") ? "None that matches." : "None yet. What is logged with `logging` is here, if its level is high enough.")),
      h("h3", {}, "Levels"),
      table("Levels of loggers", [["Logger"], ["Level"], ["Change", ""]], levels.loggers.map(levelRow), "None."),
    ];
  },

  async work() {
    const body = await ask("work.json");
    const stack = (lines) => h("pre", {}, lines.join("\n") || "does not run");
    return [
      h("h2", {}, "Background work"),
      table("Background work", [["Name"], ["State"], ["Failures", "number"], ["Where it stands, the innermost call last"]],
        body.work.map((each) => [each.name,
          [badge(each.state, { failed: "bad", restarting: "warn", running: "good" }[each.state] || ""), each.seconds === null ? null : h("div", { class: "second" }, `for ${duration(each.seconds)}`)],
          count(each.failures), [each.error ? h("p", {}, "Failed at ", at(each.last_failed), `: ${each.error}`) : null, each.state === "restarting" ? null : stack(each.stack)]]), hint("There is none. To start some in `make_service` in `app.py`: `service.background(\"mail\", send, restart=True)`, where `send` is an async function."), "stacked"),
      h("h3", {}, `asyncio tasks: ${body.count}`),
      table("Tasks", [["Task"], ["Where it stands, the innermost call last"]],
        body.tasks.map((each) => [[each.name, [each.function, `for at least ${duration(each.at_least_seconds)}`, each.request_id].map((text) => h("div", { class: "second" }, text))],
          stack(each.stack)]), "None.", "stacked"),
    ];
  },

  async exports() {
    const body = await ask("exports.json");
    const number = (value) => value === null ? "–" : value ? badge(count(value), "bad") : "0";
    return [
      h("h2", {}, "Exports"),
      table("Exports", [["Backend"], ["Sent", "number"], ["Dropped", "number"], ["Last sent", "time"]],
        body.exports.map((each) => [[each.backend, h("div", { class: "second" }, each.unit)],
          each.sent === null ? badge("idle", "") : count(each.sent), number(each.dropped),
          each.last_sent ? at(each.last_sent) : each.sent === null ? "no address is set" : "never"]), hint("Nothing is sent anywhere: the service was generated without a backend for metrics, errors or traces.")),
      h("h3", {}, "Other totals"),
      table("Totals", [["What"], ["Total", "number"]], body.totals.map((each) => [[mono(each.name), h("div", { class: "second" }, each.description)], count(each.total)]), "None."),
    ];
  },

  profile() {
    if (main.querySelector("#flames")) return null;
    const flames = h("div", { id: "flames" });
    const run = async (event) => {
      event.preventDefault();
      const button = event.target.querySelector("button");
      const seconds = Number(event.target.elements.seconds.value);
      button.disabled = true;
      flames.replaceChildren(h("p", { class: "quiet", role: "status" }, `Sampling for ${seconds} s…`));
      try {
        const body = await send("profile.json", "POST", { seconds });
        flames.replaceChildren(
          h("p", {}, `${count(body.samples)} samples in ${seconds} s. `, h("a", { href: "/console/profile.json", download: "" }, "File for speedscope.app")),
          flameGraph(body.tree));
      } catch (error) {
        flames.replaceChildren(h("p", { role: "alert" }, error.message));
      }
      button.disabled = false;
    };
    return [h("h2", {}, "Profile"),
      h("p", { class: "quiet" }, "Looks a hundred times a second where each thread is, which takes 1 to 2 % of a core meanwhile."),
      h("form", { onsubmit: run },
        h("label", {}, "Seconds", h("input", { name: "seconds", type: "number", min: 1, max: 60, value: 10, required: true })),
        h("button", { type: "submit" }, "Sample")), flames];
  },
};

async function oneRequest(number) {
  const each = await ask(`requests/${encodeURIComponent(number)}.json`);
  const whole = Math.max(each.duration, ...each.spans.map((span) => span.offset + span.duration), 1e-6);
  const bar = (name, offset, took, kind, depth, more = "") => {
    const mark = h("div", { class: `bar ${kind}` });
    mark.style.left = `${(100 * Math.max(offset, 0)) / whole}%`;
    mark.style.width = `${(100 * took) / whole}%`;
    const label = h("div", { class: "name", title: `${name}\n${more}`.trim() }, name, more ? h("div", { class: "second" }, more) : null);
    label.style.paddingLeft = `${depth * 14}px`;
    return [label, h("div", { class: "track" }, mark), h("div", { class: "took" }, duration(took))];
  };
  const depths = new Map();
  const bars = each.spans.map((span) => {
    const depth = (depths.get(span.parent_id) ?? 0) + 1;
    depths.set(span.span_id, depth);
    const more = [span.error, span.attributes].filter(Boolean).join(" ");
    return bar(span.name, span.offset, span.duration, span.error ? "failed" : span.kind.toLowerCase(), depth, more);
  });
  const isFailed = each.errors.length || each.status >= 500;
  return [
    h("p", {}, link("requests", "← Requests")),
    h("h2", {}, `${each.method} ${each.path} `, statusBadge(each)),
    each.errors.map((error) => [h("h3", {}, `${error.type}: ${error.message}`), h("p", { class: "quiet" }, "at ", mono(error.place)), h("pre", { class: "stack" }, error.stack)]),
    each.stack ? [h("h3", {}, `Running for ${duration(each.duration)}. Where it stands, the innermost call last:`), h("pre", {}, each.stack.join("\n") || "No task that works on it was found.")] : null,
    h("h3", {}, "Timeline"),
    h("div", { class: "card timeline" }, bar(`${each.method} ${each.route || "unmatched"}`, 0, each.duration, isFailed ? "failed" : "", 0), bars),
    h("h3", {}, "Log lines"),
    table("Log lines", [["Time", "time"], ["Level"], ["Line"], ["Logger", "wide"]], lines(each.logs, each.errors.length), "It logged nothing that is still here."),
    h("h3", {}, "Request"),
    facts([["Started", at(each.started)], ["Took", duration(each.duration)], ["Route", mono(each.route || "unmatched")],
      ["Client", mono(each.client)], ["User agent", mono(each.user_agent)],
      ["Trace", each.trace_url && h("a", { href: each.trace_url, rel: "noreferrer" }, "Open the whole trace")],
      ...Object.entries(each.ids).map(([name, value]) => [name.replace("_", " "), mono(value)])]),
  ];
}

function lines(rows, isShownAbove) {
  return rows.map((each) => keyed(each.number, [
    at(each.time), levelBadge(each.level),
    [h("span", { class: "break" }, each.message), each.fields ? h("div", { class: "second" }, each.fields) : null,
      each.stack && !isShownAbove ? h("details", {}, h("summary", {}, "Stack"), h("pre", {}, each.stack)) : null],
    quiet(each.logger),
  ]));
}

function levelRow(each) {
  const change = async (event) => {
    const { level } = event.target.elements;
    event.preventDefault();
    try {
      await send("levels.json", "PUT", { logger: each.logger, level: level.value, seconds: 600 });
      shown = "";
      await refresh();
    } catch (error) {
      complain(error);
    }
  };
  const left = each.seconds_left === null ? null : quiet(` for ${Math.ceil(each.seconds_left / 60)} min more`);
  const options = LEVELS.map((level) => h("option", { selected: level === (each.level === "DEBUG" ? "INFO" : "DEBUG") }, level));
  return keyed(each.logger, [breakable(each.logger, /(?<=[._])/), [each.is_own ? badge(each.level, "") : quiet(each.level), left],
    h("form", { onsubmit: change }, h("select", { name: "level", "aria-label": `Level of ${each.logger}` }, options),
      h("button", { type: "submit", "aria-label": `Set level of ${each.logger} for 10 minutes` }, "Set for 10 min"))]);
}

// Filters stand outside of what is drawn anew, and in the address, so that a view can be passed on.

const FIELDS = {
  requests: [["text", "Text"], ["route", "Route"], ["status", "Status"], ["slower", "Slower than, s"], ["trace", "Trace id"]],
  logs: [["text", "Text"], ["level", "Level"]],
};

function filterForm(section) {
  const given = filters(section);
  const change = (event) => {
    const query = new URLSearchParams([...new FormData(event.currentTarget)].filter(([, value]) => value));
    history.replaceState(null, "", `#${section}${query.size ? `?${query}` : ""}`);
    shown = "";
    refresh();
  };
  const field = ([name, label]) => {
    if (name === "level") {
      return h("label", {}, label, h("select", { name }, h("option", { value: "" }, "all"),
        LEVELS.map((level) => h("option", { selected: given.get(name) === level }, level))));
    }
    return h("label", {}, label, h("input", { name, value: given.get(name) || "", size: name === "slower" || name === "status" ? 6 : 16,
      placeholder: name === "status" ? "404, 5xx" : "", autocomplete: "off" }));
  };
  return h("form", { id: "filter", role: "search", oninput: change, onsubmit: (event) => event.preventDefault() }, FIELDS[section].map(field));
}

const isFiltered = (section) => [...filters(section).values()].some(Boolean);

function filters(section) {
  const [name, query] = location.hash.slice(1).split("?");
  return new URLSearchParams(name === section ? query : "");
}

// Flame graph: a click, or Enter, makes a frame as wide as the page.

function flameGraph(root) {
  const height = 18, width = 1200;
  const draw = (top) => {
    const svg = s("svg", { class: "flames", role: "group", "aria-label": "Flame graph" });
    let depth = 0;
    const add = (node, x, level) => {
      const wide = (node.value / top.value) * width;
      if (wide < 1) return;
      depth = Math.max(depth, level);
      const title = `${node.name}: ${share(node.value / root.value)} of all samples`;
      const zoom = () => svg.replaceWith(draw(node === top ? root : node));
      const hue = 20 + ([...node.name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 35);
      const color = node.name === "(waiting)" ? "#c5ccd4" : `hsl(${hue} 75% 68%)`;
      svg.append(s("g", { tabindex: "0", role: "button", "aria-label": title, onclick: zoom, onkeydown: (event) => event.key === "Enter" && zoom() },
        s("title", {}, title), s("rect", { x, y: level * height, width: wide, height, fill: color }),
        wide > 40 ? s("text", { x: x + 4, y: level * height + 13 }, node.name.slice(0, Math.floor(wide / 7))) : null));
      let left = x;
      for (const child of node.children) {
        add(child, left, level + 1);
        left += (child.value / top.value) * width;
      }
    };
    add(top, 0, 0);
    svg.setAttribute("viewBox", `0 0 ${width} ${(depth + 1) * height}`);
    return svg;
  };
  return root.value ? draw(root) : h("p", { class: "quiet" }, "No samples.");
}

// The frame around it

function drawFrame() {
  document.title = `${latest.service}: console`;
  document.getElementById("service").textContent = latest.service;
  document.getElementById("version").textContent = `${latest.version}, ${latest.environment}`;
  const state = document.getElementById("state");
  // Even if it runs, a failing check keeps requests away.
  const shown = latest.state === "ready" && !latest.is_ready ? "not ready" : latest.state;
  if (state.textContent !== shown) state.textContent = shown;
  state.className = `badge ${latest.is_ready ? "good" : latest.state === "ready" ? "bad" : "warn"}`;
  document.getElementById("uptime").textContent = `up ${duration(latest.time - latest.started)}`;
  const [section] = current();
  const items = Object.entries(SECTIONS).map(([name, title]) =>
    h("li", {}, h("a", { href: `#${name}`, "aria-current": name === section ? "page" : null }, title,
      name === "errors" && latest.errors ? h("span", { class: "count" }, ` ${count(latest.errors)}`) : null)));
  replace(document.getElementById("sections"), items);
}

// Makes the children of an element what they are to be, and changes only what differs: a click, the
// focus, a choice or an open stack are not lost. What has a key stays with it.
function fill(parent, wanted) {
  const known = new Map([...parent.children].filter((each) => each.dataset.key).map((each) => [each.dataset.key, each]));
  const keys = new Set(wanted.map((each) => each.dataset?.key));
  for (const [key, each] of known) if (!keys.has(key)) each.remove();
  let old = parent.firstChild;
  for (const each of wanted) {
    const key = each.dataset?.key;
    const kept = key ? known.get(key) : old && !old.dataset?.key ? old : null;
    known.delete(key);
    if (!kept || kept.nodeName !== each.nodeName) parent.insertBefore(each, old);
    else {
      if (kept === old) old = old.nextSibling;
      else parent.insertBefore(kept, old);
      change(kept, each);
    }
  }
  while (old) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
}

function change(node, wanted) {
  if (node.nodeType === Node.TEXT_NODE) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  for (const { name } of [...node.attributes]) {
    if (!wanted.hasAttribute(name) && name !== "open") node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) === value) continue;
    if (name === "style") node.style.cssText = wanted.style.cssText; // as the policy allows
    else node.setAttribute(name, value);
  }
  for (const name of HANDLERS) node[name] = wanted[name];
  fill(node, [...wanted.childNodes]);
}

const replace = (parent, children) => fill(parent, [...h("div", {}, children).childNodes]);

function current() {
  const [name, number] = location.hash.slice(1).split("?")[0].split("/");
  return name in SECTIONS ? [name, number] : ["now"];
}

async function refresh() {
  const mine = ++turn;
  try {
    const since = seconds.length ? seconds.at(-1).time : 0;
    const body = await ask(`now.json?since=${since}`);
    if (latest && latest.started !== body.started) seconds = [];
    latest = body;
    seconds = [...seconds.filter((each) => each.time > body.time - KEPT), ...body.seconds.filter((each) => each.time > since)];
    const [section, number] = current();
    const place = `${section}/${number || ""}`;
    const content = await VIEWS[section](number);
    if (mine !== turn) return; // Another section has been asked for meanwhile.
    drawFrame();
    complain(null);
    if (content === null || isPressed || (shown === place && isSelecting())) return;
    if (shown !== place) {
      const form = FIELDS[section] && !number ? filterForm(section) : null;
      if (!(form && document.getElementById("filter"))) {
        main.replaceChildren(...(form ? [h("h2", {}, SECTIONS[section]), form] : []), h("div", { id: "content" }));
        if (shown) window.scrollTo(0, 0);
      }
      shown = place;
    }
    replace(document.getElementById("content"), content);
  } catch (error) {
    if (mine === turn) complain(error);
  }
}

const isSelecting = () => !document.getSelection().isCollapsed || (document.activeElement && document.activeElement.matches("#content select"));

async function live() {
  if (!isPaused && !document.hidden) await refresh();
  setTimeout(live, EVERY);
}

addEventListener("hashchange", () => {
  shown = "";
  main.replaceChildren();
  refresh();
});
addEventListener("pointerdown", (event) => isPressed = event.button === 0);
for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => isPressed = false);
document.getElementById("pause").addEventListener("click", (event) => {
  isPaused = !isPaused;
  event.target.setAttribute("aria-pressed", isPaused);
  event.target.textContent = isPaused ? "Go on" : "Pause";
});
document.addEventListener("visibilitychange", () => isPaused || document.hidden || refresh());
live();
