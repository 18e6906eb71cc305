"""Generating a service, and from nothing to its green tests; the package cache is warm."""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.template.project import TEMPLATE, Project, interpreter

from . import report
from .report import Sample, ratios, spread
from .workshop import Workshop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(rounds=7)


def main(options: argparse.Namespace, workshop: Workshop) -> None:
    suites: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="generation-") as name:
        directory = Path(name)
        templates = {
            "empty template": _empty(directory / "empty"),
            "our files without content, hooks that do nothing": _blank(directory / "blank"),
            "ours": TEMPLATE,
        }
        results: dict[str, list[Sample]] = {each: [] for each in templates}
        # The first of each is for the caches.
        for number in range(options.rounds + 1):
            for each in random.sample(list(templates), len(templates)):
                output = directory / f"{each}-{number}"
                seconds = _generate(templates[each], output, directory)
                results[each].append({"seconds": seconds})
            suites.append({"seconds": _suite(directory / f"suite-{number}", directory)})
    results = {name: samples[1:] for name, samples in results.items()}
    rows = [
        [
            f"cookiecutter, {name}",
            spread([each["seconds"] for each in samples]),
            spread(ratios(samples, results["empty template"], lambda each: each["seconds"])),
        ]
        for name, samples in results.items()
    ]
    results["suite"] = suites[1:]
    passed = spread([each["seconds"] for each in results["suite"]])
    rows.append(["from nothing to green tests", passed, ""])
    head = ["", "s", "of the empty one's"]
    report.save(options.output, "generation", results, report.table(head, rows))


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


def _generate(template: Path, output: Path, home: Path) -> float:
    """How long it takes to generate with the default answers, in seconds."""
    output.mkdir()
    config = home / "cookiecutter.yaml"
    # Nothing of the person's own.
    config.write_text(f"replay_dir: {home / 'replay'}\ncookiecutters_dir: {home / 'templates'}\n")
    argv: list[str | Path] = [sys.executable, "-m", "cookiecutter", "--no-input"]
    argv += ["--config-file", config, "--output-dir", output, template]
    started = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - started


def _suite(directory: Path, home: Path) -> float:
    """How long it takes from an empty directory until the generated tests have passed."""
    started = time.perf_counter()
    _generate(TEMPLATE, directory, home)
    [path] = directory.iterdir()
    project = Project(path, {}, directory / "venv", interpreter())
    project.uv("run", "--quiet", f"--python={interpreter()}", "pytest", "--quiet")
    return time.perf_counter() - started
