"""Generating a service, and from nothing to its green tests; the package cache is warm."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.template.project import TEMPLATE, Project, interpreter

from . import report
from .report import Column, Sample, in_rounds
from .workshop import Workshop

DEFAULTS = {"rounds": 7}


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    with tempfile.TemporaryDirectory(prefix="generation-") as name:
        directory = Path(name)
        templates = {
            "empty template": _empty(directory / "empty"),
            "our files without content, hooks that do nothing": _blank(directory / "blank"),
            "ours": TEMPLATE,
        }
        measures: dict[str, Callable[[], Sample]] = {
            f"cookiecutter, {name}": partial(_generated, template, directory)
            for name, template in templates.items()
        }
        measures["from nothing to green tests"] = partial(_suite, directory)
        # The first round is for the caches.
        rounds = in_rounds(measures, options.rounds + 1)
        results = {name: samples[1:] for name, samples in rounds.items()}
    columns = (Column("s", "seconds"), Column("of the empty one's", "seconds", is_share=True))
    report.save(options.output, "generation", results, report.compared(results, *columns))


def _empty(directory: Path) -> Path:
    (directory / "{{cookiecutter.project_slug}}").mkdir(parents=True)
    (directory / "{{cookiecutter.project_slug}}" / "README.md").write_text("")
    (directory / "cookiecutter.json").write_text(json.dumps({"project_slug": "empty"}))
    return directory


def _blank(directory: Path) -> Path:
    """What cookiecutter itself takes for so many questions and files."""
    directory.mkdir()
    shutil.copy(TEMPLATE / "cookiecutter.json", directory)
    for part, content in (("{{cookiecutter.project_slug}}", "blank\n"), ("hooks", "pass\n")):
        shutil.copytree(TEMPLATE / part, directory / part)
        for path in (directory / part).rglob("*"):
            if path.is_file():
                path.write_text(content)
    return directory


def _generated(template: Path, home: Path) -> Sample:
    """How long it takes to generate with the default answers."""
    started = time.perf_counter()
    _generate(template, home)
    return {"seconds": time.perf_counter() - started}


def _generate(template: Path, home: Path) -> Path:
    output = Path(tempfile.mkdtemp(dir=home))
    config = home / "cookiecutter.yaml"
    # Nothing of the person's own.
    config.write_text(f"replay_dir: {home / 'replay'}\ncookiecutters_dir: {home / 'templates'}\n")
    argv: list[str | Path] = [sys.executable, "-m", "cookiecutter", "--no-input"]
    argv += ["--config-file", config, "--output-dir", output, template]
    subprocess.run(argv, check=True, capture_output=True)
    [project] = output.iterdir()
    return project


def _suite(home: Path) -> Sample:
    """How long it takes from an empty directory until the generated tests have passed."""
    started = time.perf_counter()
    path = _generate(TEMPLATE, home)
    project = Project(path, {}, path.parent / "venv", interpreter())
    project.uv("run", "--quiet", f"--python={interpreter()}", "pytest", "--quiet")
    return {"seconds": time.perf_counter() - started}
