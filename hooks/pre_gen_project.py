"""Rejects answers that cannot make a working service: all at once, with a suggestion for each."""

import json
import keyword
import os
import re
import sys
import unicodedata

# Read as data: an answer pasted between Python's quotes would be executed.
ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# So that import lines stay within 100 characters, and names of pods within a DNS label's 63.
SLUG_LENGTH = 32
EMAIL = re.compile(r"[^\s@<>()\[\],:;\\\"]+@[^\W_]([\w.-]*[^\W_])?")
WINDOWS_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]")
# Modules of the standard library in some version from Python 3.11 to 3.15, but not in all, and what
# each interpreter imports at its start, if there is such a module.
STANDARD_OF_SOME = set(
    "aifc annotationlib asynchat asyncore audioop cgi cgitb chunk compression crypt distutils "
    "imghdr imp lib2to3 mailcap msilib nis nntplib ossaudiodev pipes profiling sitecustomize "
    "smtpd sndhdr spwd sre_compile sre_constants sre_parse sunau telnetlib usercustomize uu "
    "xdrlib".split()
)
# Distributions and modules installed beside a service. A test keeps this list complete.
INSTALLED = set(
    "ast-serialize certifi colorama coverage dotenv iniconfig librt msgspec mypy mypy-extensions "
    "mypyc newrelic opentelemetry opentelemetry-api opentelemetry-sdk "
    "opentelemetry-semantic-conventions pathspec packaging pluggy "
    "prometheus-client py pygments pytest python-dotenv "
    "ruff sentry-sdk tornado tornado-chassis typing-extensions urllib3 uv uv-build".split()
)
# What an environment's folder of programs holds: the service's command would replace it.
PROGRAMS = set(
    "activate coverage3 deactivate dmypy newrelic-admin pip pip3 pydoc pygmentize python python3 "
    "stubgen stubtest wheel".split()
)
# Directories of the project, names that mean something to its tools, and what git ignores.
TAKEN = set("build conftest deploy dist docs env src test tests venv".split())
# What a cluster has already: the service would be there twice, or among the cluster's own.
OF_KUBERNETES = set("default kube-node-lease kube-public kube-system kubernetes".split())
# Of a house standard, and in files of all kinds, between quotes.
ADDRESSES = ("__chassis_source", "__registry", "__runbook")
ADDRESS = re.compile(r"""[^\s"'\\]*""")
# cruft renders stored answers as templates, so an update would run these as code. The brackets
# keep them from being run here.
EXPRESSION = re.compile(r"[{][{]|[{]#|# [{]%")

# A refusal cannot come earlier, before the last question, nor below this: hooks see no answers
# before all are given, and cookiecutter reports how a hook ended.
TRACEBACK = "The traceback that Cookiecutter prints below this means nothing more."
# Hooks are not told of them.
OPTIONS_OF_CRUFT = ", and with --checkout and --directory if you gave them"


def problem_of_slug(slug: str) -> str:
    """Returns what is wrong with the slug, or an empty string."""
    name = slug.replace("-", "_")
    if not SLUG.fullmatch(slug):
        return (
            "may contain only lower-case letters, digits and single hyphens, "
            "and must begin with a letter"
        )
    if len(slug) > SLUG_LENGTH:
        return f"has {len(slug)} characters; the maximum is {SLUG_LENGTH}"
    if keyword.iskeyword(name):
        return "is a Python keyword, so the package could not be imported"
    if name in sys.stdlib_module_names or name in STANDARD_OF_SOME:
        return "is a module of Python's standard library, which the package would shadow"
    if slug in INSTALLED:
        return "is a package that the service uses, which it would shadow"
    if slug in PROGRAMS:
        return "is a program of the service's environment, which its command would replace"
    if slug in TAKEN:
        return "is already the name of something else in the project"
    if slug in OF_KUBERNETES:
        return "is already the name of something else in a Kubernetes cluster"
    if WINDOWS_DEVICE.fullmatch(slug):
        return "is a device name on Windows, so it cannot be a directory there"
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
    """Returns what keeps a text from being written on one line of every file."""
    if not isinstance(text, str):
        return "is no text: in a file for --config-file, put it in quotes"
    if not text.strip():
        return "is empty"
    if text != text.strip():
        return "begins or ends with white space"
    if is_undecoded(text):
        return "was typed in UTF-8, but the locale is not UTF-8: set PYTHONUTF8=1"
    if any(is_unprintable(character) for character in text):
        return "contains a line break or another control character"
    if EXPRESSION.search(text):
        return "contains the start of a template tag, which an update would run as code"
    return ""


def is_unprintable(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def is_undecoded(text: str) -> bool:
    """Whether the locale kept Python from decoding what was typed."""
    return decoded(text) != text


def decoded(text: str) -> str:
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return text


def better_text(text: str) -> str:
    text = decoded(text if isinstance(text, str) else "")
    without = "".join(" " if is_unprintable(each) else each for each in text)
    while EXPRESSION.search(without):
        without = EXPRESSION.sub(" ", without)
    return " ".join(without.split())


def problems(template: "dict[str, object]") -> "dict[str, tuple[str, str]]":
    """Returns the reason and a valid suggestion for each invalid answer."""
    found = {}
    defaults = {
        "project_name": "My Service",
        "description": "A Tornado service.",
        "author_name": "The Authors",
    }
    for field, default in defaults.items():
        reason = problem_of_text(ANSWERS[field])
        if reason:
            found[field] = reason, better_text(ANSWERS[field]) or default
    slug = ANSWERS["project_slug"]
    reason = problem_of_slug(slug) if isinstance(slug, str) else problem_of_text(slug)
    if reason:
        found["project_slug"] = reason, better_slug(slug if isinstance(slug, str) else "my-service")
    email = ANSWERS["author_email"]
    reason = problem_of_text(email)
    if not reason and not EMAIL.fullmatch(email):
        reason = "is not an email address"
    if reason:
        address = EMAIL.search(better_text(email))
        found["author_email"] = reason, address.group() if address else "you@example.com"
    if ANSWERS["chassis"] == "package" and not ANSWERS["__chassis_source"]:
        # Nobody owns the name on the public index: without an address, a stranger's code would be
        # fetched.
        found["chassis"] = (
            "needs the address of a wheel of tornado-chassis in __chassis_source, "
            "which your house standard sets: see docs/house-standard.md of the template",
            "copy",
        )
    for name in ADDRESSES:
        address = ANSWERS.get(name) or ""
        reason = ""
        if not (isinstance(address, str) and ADDRESS.fullmatch(address)):
            reason = "it may not contain white space, quotes or backslashes"
        elif name == "__chassis_source" and address and "://" not in address:
            reason = "it has no scheme, such as https://"
        if reason:
            found[name] = f"is no address: {reason}", "the one of your house standard"
    for prompt, offered in template.items():
        is_choice = isinstance(offered, list) and not prompt.startswith("_")
        if is_choice and ANSWERS[prompt] not in offered:
            found[prompt] = f"is none of the choices: {', '.join(offered)}", offered[0]
    if not found:
        for name, derived in derived_values().items():
            if ANSWERS.get(name, derived) != derived:
                found[name] = "does not follow from the answers, as in a replay file", derived
    return found


def cookiecutter_json() -> "dict[str, object]":
    """Returns what the template's cookiecutter.json says, where it can be found: cruft, which has
    no replay files, does not say where."""
    if "_repo_dir" not in ANSWERS:
        return {}
    # It may be relative to where cookiecutter was started.
    where = os.path.join(os.environ.get("PWD", ""), ANSWERS["_repo_dir"], "cookiecutter.json")
    try:
        with open(where, encoding="utf-8") as file:
            return json.load(file)
    except OSError:
        return {}


def derived_values() -> "dict[str, str]":
    """Returns private values that follow from answers: an edited replay file may have others."""
    slug, license = ANSWERS["project_slug"], ANSWERS["license"]
    prompts = ("health", "logging", "metrics", "error_tracking", "tracing", "console")
    health, logging, metrics, errors, tracing, console = chosen = [
        ANSWERS.get(prompt, "none") for prompt in prompts
    ]
    admin = {
        "the console at `/`": console != "none",
        "`/health` with detail": health != "none",
        "`/loglevel`": logging != "none",
        "`/metrics`": metrics == "prometheus",
    }

    def in_toml(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"')

    return {
        "__package": slug.replace("-", "_"),
        "__license": "LicenseRef-Proprietary" if license == "Proprietary" else license,
        "__description_toml": in_toml(ANSWERS["description"]),
        "__author_name_toml": in_toml(ANSWERS["author_name"]),
        "__admin": ", ".join(each for each, is_there in admin.items() if is_there),
        "__has_features": " ".join(each for each in chosen if each != "none"),
        "__extras": ",".join(sorted({metrics, errors, tracing} - {"none", "stub"})),
    }


def directory_in_the_template() -> str:
    """Returns what followed `--directory`, if anything: hooks are told only where that is."""
    from pathlib import Path

    name = re.split(r"[/:]", ANSWERS["_template"].rstrip("/"))[-1].removesuffix(".git")
    parts = Path(ANSWERS.get("_repo_dir") or "").parts
    if name not in parts:
        return ""
    last = len(parts) - parts[::-1].index(name)
    return "/".join(parts[last:])


def command(answers: "dict[str, str]", output_dir: str = "") -> str:
    """Returns the command that generates again with these answers, into `output_dir` if given."""
    source = ANSWERS["_template"]
    if "_output_dir" in ANSWERS:
        output_dir = output_dir or ANSWERS["_output_dir"]
        argv = [*program("cookiecutter"), "--no-input", "--output-dir", output_dir]
        if ANSWERS.get("_checkout"):
            argv += ["--checkout", ANSWERS["_checkout"]]
        if directory_in_the_template():
            argv += ["--directory", directory_in_the_template()]
        argv += [source, *(f"{field}={answer}" for field, answer in answers.items())]
    else:
        argv = [*program("cruft"), "create", "--no-input", "--extra-context", json.dumps(answers)]
        argv += ["--output-dir", output_dir or os.path.dirname(os.getcwd()), source]
    return quoted(argv)


def program(name: str) -> "list[str]":
    """Returns how to start a program again that may have been started off the PATH."""
    import shutil
    from pathlib import Path

    # uvx puts the program on the PATH for this run only.
    uv = os.environ.get("UV")
    if uv:
        return ["uvx", name] if shutil.which("uvx") else [uv, "tool", "run", name]
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return [name] if shutil.which(name) or not beside else [beside]


def quoted(argv: "list[str]") -> str:
    # Imported here because only a refusal needs them.
    import shlex
    import subprocess

    return subprocess.list2cmdline(argv) if os.name == "nt" else shlex.join(argv)


def refusal_to_overwrite(answers: "dict[str, str]") -> "list[str]":
    """Returns what to do where there is a project already; empty where there is none.

    Generating over a project would undo the team's edits, and would keep files of the old answers
    that the new ones do not have. So nothing is touched, whatever the options.
    """
    # A new repository contains nothing else.
    if all(each == ".git" for each in os.listdir()):
        return []
    from pathlib import Path

    project = Path.cwd()
    lines = [f"Nothing was generated: {project} is not empty, and nothing in it was touched.", ""]
    lines += [TRACEBACK]
    try:
        made = json.loads((project / ".cruft.json").read_text(encoding="utf-8"))
        before = made["context"]["cookiecutter"]
    except (OSError, ValueError, KeyError, TypeError):
        lines += ["To generate into another directory and copy what you want from there:"]
        return [*lines, "", f"  {command(answers, str(project.parent / 'generated'))}", ""]
    changed = {field: answer for field, answer in answers.items() if before.get(field) != answer}
    argv = [*program("cruft"), "update", "--skip-apply-ask", "--project-dir", str(project)]
    argv += ["--variables-to-update", json.dumps(changed)] if changed else []
    lines += ["To update it to these answers and keep your team's changes:", ""]
    return [*lines, f"  {quoted(argv)}", ""]


def main() -> None:
    template = cookiecutter_json()
    found = problems(template)
    answers = {field: answer for field, answer in ANSWERS.items() if not field.startswith("_")}
    for name in ADDRESSES:
        if ANSWERS.get(name, "") not in ("", template.get(name)) and name not in found:
            answers[name] = ANSWERS[name]
    if not found:
        lines = refusal_to_overwrite(answers)
        if lines:
            print(*lines, sep="\n", file=sys.stderr)
            raise SystemExit(1)
        return
    lines = ["Nothing was generated, because of these answers:", ""]
    for field, (reason, better) in found.items():
        shown = json.dumps(ANSWERS[field], ensure_ascii=False)
        if isinstance(ANSWERS[field], str):
            shown = json.dumps(decoded(ANSWERS[field]), ensure_ascii=False)
        lines += [f"  {field}: {shown} {reason}.", f"      Try: {better}"]
        if field in answers:
            answers[field] = better
    options = "" if "_output_dir" in ANSWERS else OPTIONS_OF_CRUFT
    lines += ["", TRACEBACK]
    lines += [f"To run again with these suggestions and your other answers{options}:", ""]
    lines += [f"  {command(answers)}", ""]
    if any(map(is_undecoded, map(str, ANSWERS.values()))):
        # A terminal that sends UTF-8 can show it. The variable is for the command to run again.
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
        lines[-2] = f"  PYTHONUTF8=1 {lines[-2].strip()}"
    print(*lines, sep="\n", file=sys.stderr)
    raise SystemExit(1)


main()
