"""The requirements files: what they include, what they ask for, and whether it is there."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Run by the environment's Python: what each requirement wants and what is there, read with pip's own parser.
PROBE = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
from pip._vendor.packaging.requirements import Requirement
answer = []
for line in json.load(sys.stdin):
    wanted = Requirement(line)
    if wanted.marker and not wanted.marker.evaluate():
        continue
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        found = None
    fits = found is not None and wanted.specifier.contains(found, prereleases=True)
    answer.append([wanted.name, found, fits])
print(json.dumps(answer))
"""


@dataclass(frozen=True)
class Package:
    """One required package: its version where it is installed, and whether that is one of those allowed."""

    name: str
    version: str | None
    fits: bool


def included_files(path: Path) -> list[Path]:
    """The requirements file and those it includes with `-r`, each once, in the order of reading."""
    found = [path]
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found += included_files(path.parent / line[3:].split("#")[0].strip())
    return list(dict.fromkeys(found))


def fingerprint(path: Path) -> str:
    """A hash of a requirements file with its includes and of the running Python's version."""
    digest = hashlib.sha256(sys.version.encode())
    for included in included_files(path):
        digest.update(included.name.encode() + b"\0" + included.read_bytes())
    return digest.hexdigest()


def requirement_lines(path: Path) -> list[str]:
    """The requirements written in this very file, without comments and includes."""
    lines = (line.split(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def installed_packages(python: Path, lines: list[str]) -> list[Package]:
    """What the interpreter has of the required packages; those for other Pythons do not count."""
    answer = subprocess.run(
        [str(python), "-c", PROBE], input=json.dumps(lines), capture_output=True, text=True, check=True
    )
    return [Package(*entry) for entry in json.loads(answer.stdout)]
