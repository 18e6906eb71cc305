"""A dashboard as Grafana reads it: variables' values are put into queries as Grafana puts them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends.prometheus import Prometheus

# What `$__rate_interval` and its kin stand for; a server here has run for seconds only.
WINDOWS = {"__rate_interval": "30s", "__range": "1m"}
_SPECIAL = re.compile(r"[\\^$*+?.()|{}\[\]]")
_LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")


@dataclass(frozen=True)
class Dashboard:
    json: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [panel for panel in self.json["panels"] if panel["type"] == "row"]

    @property
    def panels(self) -> list[dict[str, Any]]:
        return [panel for panel in self.json["panels"] if panel["type"] != "row"]

    def queries(self) -> dict[str, str]:
        """The panels' queries, by the panel's title and the query's letter."""
        return {
            f"{panel['title']}, {target['refId']}": target["expr"]
            for panel in self.panels
            for target in panel["targets"]
        }

    def variables(self, server: Prometheus) -> dict[str, str]:
        """What stands for each variable, with all of its values chosen where that can be."""
        values = dict(WINDOWS)
        for variable in self.json["templating"]["list"]:
            if variable["type"] != "query":
                continue
            assert variable["definition"] == variable["query"]["query"]
            found = _LABEL_VALUES.fullmatch(fill(variable["definition"], values))
            assert found, variable["definition"]
            series, label = found.groups()
            names = sorted(
                each["metric"][label] for each in server.query(f"group by ({label}) ({series})")
            )
            assert names, variable["definition"]
            if variable.get("allValue"):
                value = variable["allValue"]
            elif variable.get("multi"):
                value = "(" + "|".join(_SPECIAL.sub(r"\\\\\g<0>", name) for name in names) + ")"
            else:
                [value] = names
            values[variable["name"]] = value
        return values


def read(project: Path) -> Dashboard:
    [path] = project.glob("deploy/grafana/dashboards/*.json")
    return Dashboard(json.loads(path.read_text(encoding="utf-8")))


def fill(query: str, values: dict[str, str]) -> str:
    """The query with the variables' values in; KeyError for a variable that there is not."""
    return re.sub(r"\$(\w+)", lambda name: values[name[1]], query)
