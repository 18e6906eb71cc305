"""Refuses answers that no service could be made of: all of them at once, and says what to do."""

import json
import keyword
import os
import re
import sys
import unicodedata
from pathlib import Path

# Read as data: an answer in quotes of Python's would be executed.
ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# So that import lines stay within 100 characters, and names of pods within a DNS label's 63.
SLUG_LENGTH = 32
EMAIL = re.compile(r"[^\s@<>()\[\],:;\\\"]+@[^\W_]([\w.-]*[^\W_])?")
WINDOWS_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]")
# Modules that are in the standard library of some Python from 3.11 to 3.14, but not of all.
STANDARD_OF_SOME = set(
    "aifc annotationlib asynchat asyncore audioop cgi cgitb chunk compression crypt distutils "
    "imghdr imp mailcap msilib nis nntplib ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu "
    "xdrlib".split()
)
# Distributions and modules that a service has installed beside it: a test compares.
INSTALLED = set(
    "ast-serialize certifi colorama coverage dotenv iniconfig librt mypy mypy-extensions mypyc "
    "newrelic opentelemetry opentelemetry-api opentelemetry-sdk "
    "opentelemetry-semantic-conventions pathspec packaging pluggy "
    "prometheus-client py pygments pytest python-dotenv "
    "ruff sentry-sdk tornado typing-extensions urllib3 uv uv-build".split()
)
# Directories of the project, or names that its tools give a meaning to.
TAKEN = {"conftest", "deploy", "docs", "src", "test", "tests"}
# cruft hands stored answers over as templates, so that an update would run these as code. In
# brackets, or they would be run here.
EXPRESSION = re.compile(r"[{][{]|[{]#|# [{]%")


def problem_of_slug(slug: str) -> str:
    """What is wrong with the slug; empty where nothing is."""
    name = slug.replace("-", "_")
    if not SLUG.fullmatch(slug):
        return (
            "may contain only lower-case letters, digits and single hyphens, "
            "and must begin with a letter"
        )
    if len(slug) > SLUG_LENGTH:
        return f"has {len(slug)} characters, and {SLUG_LENGTH} is the most"
    if keyword.iskeyword(name):
        return "is a keyword of Python, so it cannot be imported"
    if name in sys.stdlib_module_names or name in STANDARD_OF_SOME:
        return "is a module of Python's standard library, which it would hide"
    if slug in INSTALLED:
        return "is a package that the service uses, which it would hide"
    if slug in TAKEN:
        return "is the name of something else in the project"
    if WINDOWS_DEVICE.fullmatch(slug):
        return "is a device on Windows, and cannot be a directory there"
    return ""


def better_slug(slug: str) -> str:
    letters = unicodedata.normalize("NFKD", slug).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", letters.lower()).strip("-")
    if not words or words[0].isdigit():
        words = f"service-{words}"
    better = words[:SLUG_LENGTH].strip("-")
    if problem_of_slug(better):
        better = f"{better[: SLUG_LENGTH - len('-service')].strip('-')}-service"
    return better


def problem_of_text(text: str) -> str:
    """What keeps a text from standing on one line of every file."""
    if not text.strip():
        return "is empty"
    if text != text.strip():
        return "has blanks at its beginning or end"
    if is_undecoded(text):
        return "was typed in UTF-8, but this locale is not: set PYTHONUTF8=1"
    if any(is_unprintable(character) for character in text):
        return "has a line break or another control character"
    if EXPRESSION.search(text):
        return "has a brace that begins a template's tag, which an update would run as code"
    return ""


def is_unprintable(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def is_undecoded(text: str) -> bool:
    """Whether the locale kept Python from reading characters that the terminal has sent."""
    return decoded(text) != text


def decoded(text: str) -> str:
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return text


def better_text(text: str) -> str:
    text = decoded(text)
    without = "".join(" " if is_unprintable(each) else each for each in text)
    while EXPRESSION.search(without):
        without = EXPRESSION.sub(" ", without)
    return " ".join(without.split())


def problems() -> "dict[str, tuple[str, str]]":
    """For each wrong answer the reason, and one that would be right."""
    found = {}
    defaults = {
        "project_name": "My Service",
        "description": "A Tornado service.",
        "author_name": "Your Name",
    }
    for field, default in defaults.items():
        reason = problem_of_text(ANSWERS[field])
        if reason:
            found[field] = reason, better_text(ANSWERS[field]) or default
    reason = problem_of_slug(ANSWERS["project_slug"])
    if reason:
        found["project_slug"] = reason, better_slug(ANSWERS["project_slug"])
    email = ANSWERS["author_email"]
    reason = problem_of_text(email)
    if not reason and not EMAIL.fullmatch(email):
        reason = "is not an email address"
    if reason:
        address = EMAIL.search(better_text(email))
        found["author_email"] = reason, address.group() if address else "you@example.com"
    return found


def command(answers: "dict[str, str]", output_dir: str = "") -> str:
    """What generates again, with these answers, there if a directory is given."""
    template = ANSWERS["_template"]
    if "_output_dir" in ANSWERS:
        output_dir = output_dir or ANSWERS["_output_dir"]
        argv = ["cookiecutter", "--no-input", "--output-dir", output_dir]
        if ANSWERS.get("_checkout"):
            argv += ["--checkout", ANSWERS["_checkout"]]
        argv += [template, *(f"{field}={answer}" for field, answer in answers.items())]
    else:
        argv = ["cruft", "create", "--no-input", "--extra-context", json.dumps(answers)]
        argv += ["--output-dir", output_dir] if output_dir else []
        argv += [template]
    return quoted(argv)


def quoted(argv: "list[str]") -> str:
    # Here, as only a refusal needs them.
    import shlex
    import subprocess

    return subprocess.list2cmdline(argv) if os.name == "nt" else shlex.join(argv)


def refusal_to_overwrite(project: Path, answers: "dict[str, str]") -> "list[str]":
    """Says what to do where there is a project already; empty where there is none.

    Generated over, a team's edits would be lost, and of the old answers would be left what the new
    ones do not have. What is there stays as it is, whatever the options.
    """
    # A repository that was just made has nothing else.
    if all(each.name == ".git" for each in project.iterdir()):
        return []
    lines = [f"Nothing was generated: {project} is not empty, and nothing in it was touched.", ""]
    try:
        made = json.loads((project / ".cruft.json").read_text(encoding="utf-8"))
        before = made["context"]["cookiecutter"]
    except (OSError, ValueError, KeyError, TypeError):
        lines += ["To generate into another directory, and take over from there what you want:"]
        return [*lines, "", f"  {command(answers, str(project.parent / 'generated'))}", ""]
    changed = {field: answer for field, answer in answers.items() if before.get(field) != answer}
    argv = ["cruft", "update", "--project-dir", str(project)]
    argv += ["--variables-to-update", json.dumps(changed)] if changed else []
    lines += ["To update it to these answers, keeping what its team has changed:", ""]
    return [*lines, f"  {quoted(argv)}", ""]


def main() -> None:
    found = problems()
    answers = {field: answer for field, answer in ANSWERS.items() if not field.startswith("_")}
    if not found:
        lines = refusal_to_overwrite(Path.cwd(), answers)
        if lines:
            print(*lines, sep="\n", file=sys.stderr)
            raise SystemExit(1)
        return
    lines = ["Nothing was generated, because of these answers:", ""]
    for field, (reason, better) in found.items():
        shown = json.dumps(decoded(answers[field]), ensure_ascii=False)
        lines += [f"  {field}: {shown} {reason}.", f"      Try: {better}"]
        answers[field] = better
    lines += ["", "To run again with these suggestions and your other answers:", ""]
    lines += [f"  {command(answers)}", ""]
    if any(map(is_undecoded, map(str, ANSWERS.values()))):
        # What the terminal sent in UTF-8, it can show; the variable is for what is run again.
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
        lines[-2] = f"  PYTHONUTF8=1 {lines[-2].strip()}"
    print(*lines, sep="\n", file=sys.stderr)
    raise SystemExit(1)


main()
