"""What was sent to a service, against what has become known of it: in its log, its metrics, its
traces and its error reports."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import report

# As the service names it: method, route and status.
ANSWERED = "GET /bench/{name} 200"
FAILED = "GET /bench/{name} 500"
LEFT = "GET /bench/{name} 499"
UPLOADED = "PUT /bench/{name} 200"
OPENED = "GET /echo 101"
MESSAGES = "messages"
ROWS = {
    ANSWERED: "requests",
    FAILED: "requests that fail",
    LEFT: "clients that leave before the answer",
    UPLOADED: "uploads",
    OPENED: "WebSockets",
    MESSAGES: "their messages",
}
REQUESTS = [key for key in ROWS if key != MESSAGES]
# Each has a figure in these rows.
COLUMNS = {"logged": REQUESTS, "counted": [*ROWS], "traced": REQUESTS, "reported": [FAILED]}

# Whatever fails has a line of its own, too.
RAISED = "Unhandled exception in GET /bench"

_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Ledger:
    sent: Counter[str] = field(default_factory=Counter)
    logged: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    traced: Counter[str] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    #: What each column says that it lacks.
    lacking: Counter[str] = field(default_factory=Counter)
    #: What else went wrong.
    problems: Counter[str] = field(default_factory=Counter)
    #: Warnings in the log, by their text.
    warnings: Counter[str] = field(default_factory=Counter)
    _ids: set[str] = field(default_factory=set)

    def read_log(self, lines: Iterable[bytes]) -> None:
        for each in lines:
            line = json.loads(each)
            if status := line.get("http.response.status_code"):
                key = f"{line['http.request.method']} {line.get('http.route')} {status}"
                self._record(self.logged, key, f"line {line['request_id']}")
            elif line["level"] not in ("DEBUG", "INFO") and not line["message"].startswith(RAISED):
                self.warnings[re.sub(r"\d[\d.]*", "…", line["message"])] += 1

    def read_metrics(self, text: str) -> None:
        """The state of a process when it has answered all but what is in flight."""
        for name, labels, value in _SERIES.findall(text):
            by = dict(_LABEL.findall(labels))
            count = int(float(value))
            match name:
                case "http_server_request_duration_seconds_count":
                    key = f"{by['http_request_method']} {by['http_route']}"
                    self._record(
                        self.counted, f"{key} {by['http_response_status_code']}", "", count
                    )
                case "websocket_messages_total" if by["direction"] == "received":
                    self.counted[MESSAGES] += count
                case "log_lines_dropped_total":
                    self.lacking["logged"] += count
                case "otel_spans_dropped_total" | "otel_spans_failed_total":
                    self.lacking["traced"] += count

    def read_spans(self, body: bytes, encoding: str) -> None:
        message = json.loads(gzip.decompress(body) if encoding == "gzip" else body)
        for part in message["resourceSpans"]:
            for scope in part["scopeSpans"]:
                for span in scope["spans"]:
                    values = {each["key"]: each["value"] for each in span["attributes"]}
                    key = f"{span['name']} {values['http.response.status_code']['intValue']}"
                    self._record(self.traced, key, f"span {span['spanId']}")

    def read_envelope(self, body: bytes, encoding: str) -> None:
        """What Sentry's SDK sends: errors, and how many of them it has dropped."""
        for kind, item in _items(gzip.decompress(body) if encoding == "gzip" else body):
            if kind == "event":
                self._record(self.reported, f"{item['transaction']} 500", item["event_id"])
            elif kind == "client_report":
                for each in item["discarded_events"]:
                    if each["category"] == "error":
                        self.lacking["reported"] += each["quantity"]

    def _record(self, column: Counter[str], key: str, identity: str, count: int = 1) -> None:
        if key not in ROWS:
            return  # probes
        column[key] += count
        if identity:
            if identity in self._ids:
                self.problems[f"{identity.split()[0]} twice: {key}"] += 1
            self._ids.add(identity)

    def findings(self) -> Iterator[str]:
        """What does not balance."""
        for name, keys in COLUMNS.items():
            column = getattr(self, name)
            missing = {key: self.sent[key] - column[key] for key in keys}
            missing = {key: count for key, count in missing.items() if count}
            # Of what is dropped, some may be attackers'.
            if sum(missing.values()) > self.lacking[name] or min(missing.values(), default=0) < 0:
                yield f"not {name}: {missing}, of which {self.lacking[name]} are accounted for"
        for problem, count in self.problems.items():
            yield f"{problem} ({count} times)"

    def table(self) -> str:
        rows = []
        for key, label in ROWS.items():
            row = [label, str(self.sent[key])]
            for name, keys in COLUMNS.items():
                row.append(str(getattr(self, name)[key]) if key in keys else "")
            rows.append(row)
        lacking = [str(self.lacking[name]) for name in COLUMNS]
        rows.append(["dropped, or still in flight", "", *lacking])
        return report.table(["", "sent", *COLUMNS], rows)

    def results(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_ids"}


def _items(envelope: bytes) -> Iterator[tuple[str, Any]]:
    """Type and payload of each item of an envelope, which says how long each payload is."""
    _, _, rest = envelope.partition(b"\n")
    while rest.strip():
        head, _, rest = rest.partition(b"\n")
        header = json.loads(head)
        length = header["length"]
        yield header["type"], json.loads(rest[:length])
        rest = rest[length:].lstrip(b"\n")
