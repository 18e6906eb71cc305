"""Newer Pythons than this machine has: those of Debian's unstable release, in a directory."""

import os
import shlex
from pathlib import Path

from . import home, tool

NEWER = [(3, 14), (3, 15)]


def run_in(directory: Path, script: str) -> str:
    """What a shell script prints. There, `directory` is /srv, and PYTHON$MINOR an interpreter.

    Raises RuntimeError with all of it unless the script ends with status 0.
    """
    root = home("pythons") / "root"
    inside = [
        "/usr/bin/env",
        "-i",
        "HOME=/root",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "TMPDIR=/tmp",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    if "PIP_CERT" in os.environ:
        inside.append("PIP_CERT=/etc/ssl/certs/ca-certificates.crt")
    chroot = shlex.join(["/usr/sbin/chroot", str(root), *inside, "sh", "-euc", script])
    mounts = "\n".join(
        f"mount --rbind {shlex.quote(str(source))} {shlex.quote(str(root / target))}"
        for source, target in (("/proc", "proc"), ("/dev", "dev"), (directory, "srv"))
    )
    # The mounts are gone when the process ends.
    command = ["unshare", "--mount", "sh", "-euc", f"{mounts}\nexec {chroot}"]
    if os.geteuid():
        command = ["sudo", *command]
    return tool(*command)
