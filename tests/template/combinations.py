"""What can be chosen, as data made from `cookiecutter.json`, and samples of it."""

import ast
import json
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import combinations, product
from math import gcd

from .project import TEMPLATE

Answers = dict[str, str]
Pair = tuple[tuple[str, str], tuple[str, str]]

TELEMETRY = ("health", "logging", "metrics", "error_tracking", "tracing")


def choices() -> dict[str, list[str]]:
    """The values of each prompt that has a choice; the first is the default."""
    prompts = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    return {
        key: values
        for key, values in prompts.items()
        if isinstance(values, list) and not key.startswith("_")
    }


@cache
def features() -> dict[str, str]:
    """The prompt that decides on each feature, by the name that its modules and pages have."""
    hook = ast.parse((TEMPLATE / "hooks" / "post_gen_project.py").read_text(encoding="utf-8"))
    [prompts] = (
        node.value
        for node in hook.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROMPTS"
    )
    features: dict[str, str] = ast.literal_eval(prompts)
    return features


def name(answers: Mapping[str, str]) -> str:
    """What is on, for the id of a test; license and chassis only where they are not the default."""
    defaults = {prompt: values[0] for prompt, values in choices().items()}
    quiet = [defaults["license"], defaults["chassis"], "none"]
    return "+".join(value for value in answers.values() if value not in quiet) or "nothing"


def every() -> list[Answers]:
    """Every combination of telemetry, the other choices spread over them; first the default."""
    axes = {key: values for key, values in choices().items() if key in TELEMETRY}
    return _with_others(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def sample(*prompts: str) -> list[Answers]:
    """Combinations in which any two choices of these prompts meet at least once.

    Without prompts, of all. The first combination is the default.
    """
    return [dict(each) for each in _sample(prompts or tuple(choices()))]


def each_choice() -> list[Answers]:
    """The fewest combinations of telemetry that have every choice in one of them."""
    axes = {key: values for key, values in choices().items() if key in TELEMETRY}
    count = max(map(len, axes.values()))
    return _with_others(
        {key: values[number % len(values)] for key, values in axes.items()}
        for number in range(count)
    )


@cache
def _sample(prompts: tuple[str, ...]) -> list[Answers]:
    axes = {key: values for key, values in choices().items() if key in prompts}
    sample = [{key: values[0] for key, values in axes.items()}]
    missing = {
        pair
        for one, other in combinations(axes, 2)
        for pair in product(product([one], axes[one]), product([other], axes[other]))
    } - _pairs(sample[0])
    while missing:
        candidates = (_completed(pair, axes, missing) for pair in sorted(missing))
        answers = max(candidates, key=lambda candidate: len(missing & _pairs(candidate)))
        missing -= _pairs(answers)
        sample.append(answers)
    return sample


def _completed(pair: Pair, axes: Mapping[str, list[str]], missing: set[Pair]) -> Answers:
    """The pair, and for each other prompt the value that meets the most that it has not met."""
    answers = dict(pair)
    for key, values in axes.items():
        if key not in answers:
            met = {
                value: sum(
                    ((key, value), each) in missing or (each, (key, value)) in missing
                    for each in answers.items()
                )
                for value in values
            }
            answers[key] = max(values, key=met.__getitem__)
    return {key: answers[key] for key in axes}


def _pairs(answers: Answers) -> set[Pair]:
    return set(combinations(answers.items(), 2))


def _with_others(combined: Iterable[Answers]) -> list[Answers]:
    """The other choices too, in an order that has nothing to do with that of telemetry's."""
    axes = {key: values for key, values in choices().items() if key not in TELEMETRY}
    others = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    # A step that has no divisor in common with their number comes to each of them.
    step = next(each for each in range(7, len(others)) if gcd(each, len(others)) == 1)
    return [
        answers | others[(number * step + number // len(others)) % len(others)]
        for number, answers in enumerate(combined)
    ]
