"""The house rules that a machine can check: import directions, documented commands, instant help, current schema."""

from __future__ import annotations

import argparse
import ast
import graphlib
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from support import PATIENCE, ROOT, STEPS, load_step

from lib.db.schema import DOCUMENT, describe_schema

LIB = sorted((ROOT / "lib").rglob("*.py"))
NETWORK = {"aiohttp", "playwright", "urllib.request", "http.client", "socket"}
PICTURES = {"PIL", "numpy", "imagehash", "scipy"}

EDGE = ("lib/cli/run.py", "lib/cli/output.py")
MOST_MODULES, MOST_LINES_OF_A_MODULE = 230, 560
MOST_LINES_OF_A_FUNCTION, LINES_OF_A_SHORT_FUNCTION = 60, 40

# Modules of ours that load a heavy library (numpy, Pillow, torch, aiohttp, numba, Ray), asyncio or multiprocessing may
# be imported where they are needed. All others are imported at the top.
HEAVY_MODULES = {"lib.download.loop", "lib.hashing.hamming_numba", "lib.images.decode"}
HEAVY_MODULES |= {"lib.ingest.folders", "lib.ingest.reparse", "lib.pages.index"}
HEAVY_MODULES |= {"lib.download.workers", "lib.work.processes", "lib.work.ray"}
HEAVY_MODULES |= {f"lib.models.{name}" for name in ("batches", "clip", "detector", "fast_iqa", "iqa", "vlm")}
HEAVY_MODULES |= {f"lib.quality.{name}" for name in ("score", "signals")}
HEAVY_MODULES |= {f"lib.sort.criteria.{name}" for name in ("judges", "prompts", "topic")}
RIDDLE = re.compile(r"(What|Whether|How|Which|Why|When|Where)\b|The (one|ones|same|thing|things) (that|of|where|for)\b")

# A package imports those of earlier floors only: neither its neighbours on the same floor nor anything above.
# The plain modules in `lib/` itself are the ground and import nothing but each other.
FLOORS = (
    ("work", "images", "db"),
    ("quality", "hashing", "net", "engines"),
    ("models", "pages", "web", "files"),
    ("journal",),
    ("collect", "ingest", "report", "cleanup", "download", "dedup", "sort", "setup"),
    ("cli",),
)
FLOOR_OF = {package: floor for floor, packages in enumerate(FLOORS, 1) for package in packages}
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in LIB}


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in LIB}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def belongs(names: set[str], packages: set[str]) -> set[str]:
    return {name for name in names if any(name == p or name.startswith(p + ".") for p in packages)}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules_used(name: str) -> set[str]:
    """The modules of `lib` that a module imports: inside functions and for types too."""
    found = set()
    for node in ast.walk(TREES[MODULES[name]]):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lib":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found - {name, "lib"}


def functions_of(path: Path) -> dict[str, int]:
    """Every function of a file, methods and inner ones too, with its number of lines."""
    functions = [n for n in ast.walk(TREES[path]) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {f"{f.name}:{f.lineno}": (f.end_lineno or 0) - f.lineno + 1 for f in functions}


def module_name(path: Path) -> str:
    return next(name for name, known in MODULES.items() if known == path)


def package_of(module: str) -> str:
    """The package that a module belongs to; "" for the plain modules in `lib/` itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / "lib" / parts[1]).is_dir() else ""


def test_every_package_has_its_floor() -> None:
    assert {package_of(name) for name in MODULES} - {""} == set(FLOOR_OF)
    assert sum(not package_of(name) for name in MODULES) <= 10, "a new module belongs into a package"


@pytest.mark.parametrize("name", MODULES)
def test_imports_lead_down(name: str) -> None:
    here = package_of(name)
    floor = FLOOR_OF.get(here, 0)
    others = {other for other in modules_used(name) if package_of(other) != here}
    assert {other for other in others if FLOOR_OF.get(package_of(other), 0) >= floor} == set()


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports inside functions count: one that is late to dodge a circle is a circle."""
    graph = {name: modules_used(name) for name in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", LIB, ids=relative)
def test_lib_imports_neither_demo_nor_tests(path: Path) -> None:
    assert not belongs(imported(path), {"demo", "tests", "bench", "support"})


@pytest.mark.parametrize("path", sorted((ROOT / "lib" / "db").rglob("*.py")), ids=relative)
def test_the_database_knows_no_network_and_no_pictures(path: Path) -> None:
    allowed = {"socket"} if path.name == "journal.py" else set()  # the host's name, nothing more
    assert belongs(imported(path), NETWORK | PICTURES) <= allowed | {"socket.gethostname"}


@pytest.mark.parametrize(
    "path",
    [p for p in LIB if relative(p).startswith(("lib/net/", "lib/hashing/", "lib/quality/"))],
    ids=relative,
)
def test_network_hashing_and_quality_know_no_database(path: Path) -> None:
    assert not belongs(imported(path), {"sqlite3", "lib.db"})


@pytest.mark.parametrize(
    "path",
    [p for p in LIB if relative(p).startswith(("lib/hashing/", "lib/quality/"))],
    ids=relative,
)
def test_hashing_and_quality_know_no_network(path: Path) -> None:
    assert not belongs(imported(path), {"aiohttp", "playwright", "urllib.request"})


@pytest.mark.parametrize("path", [p for p in LIB if not relative(p).startswith("lib/db/")], ids=relative)
def test_sql_stands_in_the_database_modules_only(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(SELECT .+ FROM|INSERT INTO|INSERT OR|DELETE FROM|UPDATE \w+ SET|PRAGMA \w+)\b", text)


@pytest.mark.parametrize("name", STEPS)
def test_steps_import_lib_and_never_each_other(name: str) -> None:
    path = ROOT / STEPS[name]
    assert not belongs(imported(path), {"demo", "importlib", "runpy"})
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("path", LIB, ids=relative)
def test_library_functions_stay_readable(path: Path) -> None:
    assert {name: lines for name, lines in functions_of(path).items() if lines > MOST_LINES_OF_A_FUNCTION} == {}
    called = {n.func.id for n in ast.walk(TREES[path]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert "print" not in called or relative(path) in EDGE  # the edge says what went wrong


def test_nine_functions_in_ten_are_short() -> None:
    sizes = [lines for path in LIB for lines in functions_of(path).values()]
    assert sum(lines <= LINES_OF_A_SHORT_FUNCTION for lines in sizes) >= 0.9 * len(sizes)


def test_a_class_can_be_searched_for_by_its_name() -> None:
    names = Counter(node.name for path in LIB for node in TREES[path].body if isinstance(node, ast.ClassDef))
    assert [name for name, number in names.items() if number > 1] == []


def test_modules_are_few_and_of_a_readable_size() -> None:
    lines = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in LIB}
    assert {name: number for name, number in lines.items() if number > MOST_LINES_OF_A_MODULE} == {}
    assert len(lines) <= MOST_MODULES


@pytest.mark.parametrize("path", LIB, ids=relative)
def test_only_heavy_libraries_are_imported_late(path: Path) -> None:
    """Imports inside functions are for what a run may not need: a heavy library, or a module of ours that loads one."""
    late = set()
    for function in ast.walk(TREES[path]):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
                    late.add(node.module or "")
    assert late <= HEAVY_MODULES


@pytest.mark.parametrize("path", LIB, ids=relative)
def test_docstrings_say_what_a_thing_is(path: Path) -> None:
    """They begin with a verb or name the thing: `Returns ...`, `One worker process ...`."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    documented = [(node, ast.get_docstring(node) or "") for node in ast.walk(TREES[path]) if isinstance(node, kinds)]
    assert [text.splitlines()[0] for _, text in documented if RIDDLE.match(text)] == []


@pytest.mark.parametrize("script", ["0_setup.py", *STEPS.values()])
def test_help_imports_the_standard_library_alone(script: str) -> None:
    probe = (
        "import runpy, sys\n"
        f"sys.argv = [{script!r}, '--help']\n"
        "before = set(sys.modules)\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before} - {'lib'} - set(sys.stdlib_module_names)\n"
        "print(sorted(loaded), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert "usage:" in done.stdout and "Examples" in done.stdout


@pytest.mark.parametrize("name", STEPS)
def test_help_answers_at_once(name: str) -> None:
    """The promise is 0.3 s; processor time of the process, the best of five, is what a busy machine cannot blur.

    Where starting Python itself is slow, as much more is granted.
    """
    best = min(_seconds_of(str(ROOT / STEPS[name]), "--help") for _ in range(5))
    bare = min(_seconds_of("-c", "import argparse") for _ in range(3))
    assert best < max(0.3, 12 * bare)


def _seconds_of(*command: str) -> float:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], capture_output=True, check=True, cwd=ROOT)
    elapsed = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return min(elapsed, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def test_the_schema_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == describe_schema(), "run: python -m lib.db.schema"


def documented_commands() -> list[tuple[str, str, str]]:
    """(where, step, arguments) of every command line of a step that a document or a docstring shows."""
    sources = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *(ROOT / file for file in STEPS.values()),
    ]
    files = {file: name for name, file in STEPS.items()}
    found = []
    for source in sources:
        text = source.read_text(encoding="utf-8").replace("\\\n", " ")
        for match in re.finditer(r"^\s*(?:\$ )?(?:python3? |\.venv/bin/python )(\d_\w+\.py)(.*)$", text, re.MULTILINE):
            if match[1] in files:
                found.append((relative(source), files[match[1]], match[2]))
    return found


@pytest.mark.parametrize(("where", "name", "arguments"), documented_commands())
def test_every_documented_command_parses(where: str, name: str, arguments: str) -> None:
    words = shlex.split(arguments, comments=True)
    words = [word for word in words if word not in ("[options]", "…", "...")]
    if words and words[-1] in ("-h", "--help"):
        return
    for stop in ("|", ">", "&&", ";"):
        words = words[: words.index(stop)] if stop in words else words
    try:
        load_step(name).build_parser().parse_args(words)
    except SystemExit as end:  # an option that answers by itself, such as --list-rules
        assert not end.code


def test_the_architecture_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:lib|tests|docs)/[\w./]*\w)`", text))
    assert {path for path in named if not (ROOT / path).exists() and "NNN" not in path} == set()
    assert {f"lib/{package}" for package in FLOOR_OF} <= named
    assert "docs/architecture.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_documents_show_every_step() -> None:
    assert {name for where, name, _ in documented_commands() if where == "README.md"} == set(STEPS)


def test_a_flag_means_the_same_everywhere() -> None:
    """Flags that several steps share are declared once, so their help is the same text."""
    shared: dict[str, set[str]] = {}
    for name in STEPS:
        for action in load_step(name).build_parser()._actions:
            for option in action.option_strings:
                if option in (
                    "--dry-run",
                    "--json",
                    "--workspace",
                    "--undo",
                    "--verbose",
                    "--quiet",
                    "--executor",
                ):
                    shared.setdefault(option, set()).add(str(action.help))
    assert {option: helps for option, helps in shared.items() if len(helps) != 1} == {}


def test_every_option_has_help() -> None:
    for name in STEPS:
        for action in load_step(name).build_parser()._actions:
            assert action.help and action.help != argparse.SUPPRESS, (
                name,
                action.option_strings or action.dest,
            )
