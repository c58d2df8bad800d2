"""0_setup.py: the environment and its stamp, the choice of a browser, the table of `check`, the run of the demo."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support import PATIENCE, ROOT, STEPS, load_step, wait_until

from lib.errors import GleanerError, UsageError
from lib.setup.browser import FAILED_DOWNLOAD, download_own
from lib.setup.demo import DemoStepError, human_size, report_pages, run_steps, running_gallery, workspace_lines
from lib.setup.environment import (
    STAMP,
    Environment,
    fingerprint,
    included_files,
    installed_packages,
    pip_error,
    requirement_lines,
)
from lib.setup.survey import KEYS, weight_names
from lib.web.find_browser import find_browser, launch_arguments, own_browser

REQUIREMENTS = ("requirements-core.txt", "requirements.txt", "requirements-dev.txt")


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "0_setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A real environment with pip and nothing else."""
    environment = Environment(tmp_path_factory.mktemp("project"))
    environment.ensure()
    return environment


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# The script itself


def test_an_older_python_gets_one_sentence() -> None:
    code = "import runpy, sys; sys.version_info = (3, 8, 18); runpy.run_path('0_setup.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.strip() == "Gleaner needs Python 3.11 or newer and this is 3.8; run 0_setup.py with a newer one."


def test_the_script_parses_on_an_older_python() -> None:
    source = (ROOT / "0_setup.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert not futures, "3.6 does not know `annotations` and would stop there before the sentence is said"
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    check = next(node for node in tree.body if isinstance(node, ast.If))
    assert [node.names[0].name for node in imports if node.lineno < check.lineno] == ["sys"]


@pytest.mark.parametrize("arguments", [["--core", "demo"], ["test", "--workspace", "x"], ["all"], ["--verb"]])
def test_wrong_usage_is_refused(setup: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        setup.main(arguments)
    assert stopped.value.code == 2
    assert "0_setup.py: error:" in capsys.readouterr().err


def test_the_printed_examples_parse(setup: ModuleType) -> None:
    examples = re.findall(r"^  python3 0_setup\.py(.*?)(?:  |$)", setup.__doc__, re.MULTILINE)
    assert len(examples) == 7
    for example in examples:
        setup.build_parser().parse_args(example.split())


def test_the_steps_of_the_demo_parse(setup: ModuleType) -> None:
    names = {file: name for name, file in STEPS.items()}
    values = {"url": "http://127.0.0.1:1", "queries": str(ROOT / "docs"), "workspace": "w"}
    asked = [[word.format(**values) for word in step.split()] for step in setup.DEMO_STEPS]
    assert list(dict.fromkeys(step[0] for step in asked)) == list(STEPS.values()), "all seven, in their order"
    for file, *arguments in asked:
        load_step(names[file]).build_parser().parse_args(arguments)


def test_it_imports_the_standard_library_only() -> None:
    code = "import sys; sys.argv = ['0_setup.py', '--help']; import runpy\n"
    code += "try: runpy.run_path('0_setup.py', run_name='__main__')\nexcept SystemExit as end: assert not end.code\n"
    # -S leaves site-packages out, -I the environment as well: what is still found is Python's own.
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: 0_setup.py" in done.stdout


def test_ci_runs_the_documented_command_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', "python3 0_setup.py test"]


# Requirements and git


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_has_a_lower_bound_and_a_reason(name: str) -> None:
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith(("#", "-r ")) or not line.strip():
            continue
        assert re.match(r"^[A-Za-z0-9-]+>=[\d.]+[^#]*  # \S.{10,}$", line), line
        assert "index" not in line, "an extra index for CPU wheels would take the GPU away from everybody"


# The first version without faults that are known to be critical or that what comes from the web could reach.
SAFE = {
    "aiohttp": "3.14.4",
    "fsspec": "2026.6.0",
    "jinja2": "3.1.6",
    "orjson": "3.11.6",
    "pillow": "13.0.0",
    "playwright": "1.55.1",
    "pyarrow": "14.0.1",
    "pytest": "9.0.3",
    "ray": "2.55.0",
    "scikit-learn": "1.5.0",
    "setuptools": "78.1.1",
    "torch": "2.11.0",
    "tqdm": "4.66.3",
    "transformers": "5.3.0",
}


def floors() -> dict[str, str]:
    lines = [line for name in REQUIREMENTS for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return {match[1]: match[2] for line in lines if (match := re.match(r"([A-Za-z0-9-]+)>=([\d.]+)", line))}


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, without zeros at its end: 13.0 is 13.0.0."""
    return tuple(map(int, re.sub(r"(\.0)+$", "", re.match(r"[\d.]*\d", version)[0]).split(".")))


@pytest.mark.parametrize("name", SAFE)
def test_versions_with_known_critical_faults_are_excluded(name: str) -> None:
    assert numbers(floors()[name]) >= numbers(SAFE[name])


def test_what_is_installed_is_what_the_requirements_ask_for() -> None:
    found = {}
    for name, floor in floors().items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = (importlib.metadata.version(name), floor)
    assert len(found) > 15
    assert not {name: pair for name, pair in found.items() if numbers(pair[0]) < numbers(pair[1])}


def test_the_files_include_each_other() -> None:
    names = [path.name for path in included_files(ROOT / "requirements-dev.txt")]
    assert names == ["requirements-dev.txt", "requirements.txt", "requirements-core.txt"]
    wanted = requirement_lines(ROOT / "requirements-core.txt")
    assert "aiofiles>=24.1" in wanted
    assert not [line for line in wanted if line.startswith(("torch", "pyiqa", "ray", "open-clip"))]


def test_the_fingerprint_follows_the_included_file(tmp_path: Path) -> None:
    core, outer = tmp_path / "core.txt", tmp_path / "outer.txt"
    core.write_text("a>=1\n")
    outer.write_text("-r core.txt  # the rest\nb>=2\n")
    before = fingerprint(outer)
    assert fingerprint(outer) == before
    core.write_text("a>=1.1\n")
    assert fingerprint(outer) != before


def test_git_tracks_lib_and_leaves_out_what_is_made(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    cases = {
        "lib/cli/__init__.py": False,
        "lib/setup/environment.py": False,
        "lib/workspace.py": False,
        "demo/site.py": False,
        "tests/test_setup.py": False,
        ".venv/bin/python": True,
        "workspace/gleaner.db": True,
        "workspace-demo/gleaner.db": True,
        "lib/__pycache__/cli.pyc": True,
        ".pytest_cache/x": True,
        ".mypy_cache/x": True,
        ".ruff_cache/x": True,
    }
    for path, ignored in cases.items():
        done = subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=tmp_path)
        assert (done.returncode == 0) is ignored, path


# The environment


def test_a_missing_and_a_broken_environment_are_told_apart(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    assert environment.state() == "missing"
    environment.folder.mkdir()
    assert environment.state() == "broken"


def test_another_python_version_is_noticed(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    program(environment.python, "#!/bin/sh\necho 3.9 True\n")
    assert environment.state() == "other python"


def test_a_broken_environment_is_made_again(tmp_path: Path, made: Environment) -> None:
    environment = Environment(tmp_path)
    program(environment.python, "#!/bin/sh\nexit 1\n")
    (environment.folder / "pyvenv.cfg").write_text("home = /nowhere\n")
    (environment.folder / STAMP).write_text("{}")
    environment.ensure()
    assert environment.state() == "ready"
    assert environment.stamp() == {}, "the old environment's stamp went with it"


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.folder.mkdir()
    (environment.folder / "thesis.txt").write_text("mine")
    with pytest.raises(GleanerError, match="something else than a virtual environment; move it away"):
        environment.ensure()
    assert (environment.folder / "thesis.txt").read_text() == "mine"


def test_a_second_install_does_not_run_pip(made: Environment) -> None:
    (made.root / "core.txt").write_text("pip>=20  # it is there already\n")
    (made.root / "all.txt").write_text("-r core.txt\n")
    assert made.install("all.txt") is True
    assert made.install("all.txt") is False
    assert made.install("core.txt") is False, "what an installed file includes is installed"
    (made.root / "core.txt").write_text("pip>=21  # it is there already\n")
    assert not made.installed("all.txt")
    assert made.install("all.txt") is True


def test_a_package_removed_by_hand_is_noticed(made: Environment) -> None:
    (made.root / "gone.txt").write_text("no-such-distribution>=1  # removed since\n")
    made.note("gone.txt", fingerprint(made.root / "gone.txt"))
    assert not made.installed("gone.txt")


def test_a_failed_install_says_why_and_leaves_no_stamp(made: Environment) -> None:
    (made.root / "bad.txt").write_text("./no-such-folder\n")
    with pytest.raises(GleanerError) as stopped:
        made.install("bad.txt")
    assert re.match(r"pip could not install bad\.txt \(.*no-such-folder.*\); see .*, then run", str(stopped.value))
    assert "bad.txt" not in made.stamp()


@pytest.mark.parametrize("damage", ["", "{", "[1]", "\x00"])
def test_a_damaged_stamp_counts_as_none(tmp_path: Path, damage: str) -> None:
    environment = Environment(tmp_path)
    environment.folder.mkdir()
    (environment.folder / STAMP).write_text(damage)
    assert environment.stamp() == {}
    environment.note("requirements-core.txt", "abc")
    assert environment.stamp() == {"requirements-core.txt": "abc"}


PIP_OUTPUT = [
    (["Collecting x", "ERROR: Could not find a version", "ERROR: No matching distribution found for x"], "No matching"),
    (
        ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"],
        "[Errno 28] No space",
    ),
    (["Traceback", "  File", "MemoryError", ""], "MemoryError"),
    ([], "it said nothing"),
]


@pytest.mark.parametrize(("lines", "part"), PIP_OUTPUT)
def test_pips_reason_is_one_line(lines: list[str], part: str) -> None:
    assert part in pip_error(lines)
    assert "\n" not in pip_error(lines)


def test_versions_are_compared_as_pip_compares_them(made: Environment) -> None:
    wanted = ["pip>=20", "pip>=9000", "absent>=1", 'absent-too>=1; python_version < "3"']
    found = installed_packages(made.python, wanted)
    assert [(package.name, package.fits) for package in found] == [("pip", True), ("pip", False), ("absent", False)]


# The browser


def own_chromium(folder: Path) -> dict[str, str]:
    """A download of Playwright's as it lies on disk, and the variable that points there; the driver is beside it."""
    driver = folder / "driver"
    driver.mkdir(parents=True)
    listed = [{"name": name, "revision": "77"} for name in ("chromium", "chromium-headless-shell")]
    (driver / "browsers.json").write_text(json.dumps({"browsers": listed}))
    for name, inside in (("chromium-77", "chrome"), ("chromium_headless_shell-77", "chrome-headless-shell")):
        program(folder / "cache" / name / "chrome-linux" / inside)
        (folder / "cache" / name / "INSTALLATION_COMPLETE").touch()
    return {"PLAYWRIGHT_BROWSERS_PATH": str(folder / "cache")}


def test_the_order_of_browsers(tmp_path: Path) -> None:
    named, system = program(tmp_path / "named"), program(tmp_path / "system")
    environ, driver = own_chromium(tmp_path / "own"), tmp_path / "own" / "driver"
    choice = find_browser({**environ, "GLEANER_BROWSER": str(named)}, [system], driver)
    assert choice and (choice.source, choice.executable_path) == ("environment", named)
    choice = find_browser(environ, [system], driver)
    assert choice and (choice.source, choice.executable_path) == ("playwright", None)
    assert choice.program.name == "chrome-headless-shell"
    choice = find_browser({"HOME": str(tmp_path)}, [tmp_path / "absent", system], driver)
    assert choice and (choice.source, choice.executable_path) == ("system", system)
    assert find_browser({"HOME": str(tmp_path)}, [], driver) is None


def test_half_a_download_is_no_browser(tmp_path: Path) -> None:
    environ, driver = own_chromium(tmp_path), tmp_path / "driver"
    assert own_browser(environ, driver)
    (tmp_path / "cache" / "chromium-77" / "INSTALLATION_COMPLETE").unlink()
    assert own_browser(environ, driver) is None
    assert own_browser(environ, tmp_path / "no-driver") is None


def test_a_wrong_gleaner_browser_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    system = program(tmp_path / "system")
    (tmp_path / "plain.txt").write_text("no program")
    for named in (tmp_path / "absent", tmp_path / "plain.txt", tmp_path):
        with pytest.raises(UsageError, match="GLEANER_BROWSER is set to .*, which is no program; give the path"):
            find_browser({"GLEANER_BROWSER": str(named)}, [system])


def test_a_script_that_only_asks_for_a_snap_is_passed_over(tmp_path: Path) -> None:
    text = "#!/bin/sh\nif ! [ -x /snap/bin/chromium ]; then\n"
    text += "  echo \"Command '$0' requires the chromium snap to be installed.\" >&2\nfi\n"
    stub, system = program(tmp_path / "chromium-browser", text), program(tmp_path / "chrome")
    choice = find_browser({"HOME": str(tmp_path)}, [stub, system], tmp_path)
    assert choice and choice.program == system


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="elsewhere the usual places are fixed folders")
def test_the_system_browser_is_looked_for_on_the_path(tmp_path: Path) -> None:
    chrome, chromium = program(tmp_path / "a" / "google-chrome"), program(tmp_path / "b" / "chromium")
    environ = {"HOME": str(tmp_path), "PATH": f"{chrome.parent}{os.pathsep}{chromium.parent}"}
    choice = find_browser(environ, driver=tmp_path)
    assert choice and choice.program == chromium, "Chromium is asked for before Chrome, wherever it lies"


def test_the_sandbox_is_left_on_but_for_root() -> None:
    root_on_linux = sys.platform.startswith("linux") and os.geteuid() == 0
    assert ("--no-sandbox" in launch_arguments()) is root_on_linux
    assert "--disable-background-networking" in launch_arguments()


def test_a_download_that_failed_is_not_tried_again_while_another_browser_does(made: Environment) -> None:
    tried = made.root / "tried"
    package = made.site_packages / "playwright"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(f"open({str(tried)!r}, 'a').write('x'); raise SystemExit(1)\n")
    information = made.site_packages / "playwright-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: playwright\nVersion: 1.0\n")
    assert download_own(made, verbose=False, retry=False) is False
    assert made.stamp()[FAILED_DOWNLOAD] == "1.0"
    assert download_own(made, verbose=False, retry=False) is False
    assert tried.read_text() == "x"
    assert download_own(made, verbose=False, retry=True) is False
    assert tried.read_text() == "xx", "without any browser it is worth another try"


# The table of check


def test_check_names_keys_and_never_shows_them(tmp_path: Path) -> None:
    secrets = {name: f"hush-{index}-{name[::-1]}" for index, name in enumerate(KEYS)}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "musiq.pth").write_bytes(b"12345")
    environ = {**os.environ, **secrets, "GLEANER_MODELS_DIR": str(tmp_path / "models")}
    command = [sys.executable, str(ROOT / "0_setup.py"), "check", "--workspace", str(tmp_path / "workspace")]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    for name, value in secrets.items():
        assert re.search(rf"^ok +{name} +set$", done.stdout, re.MULTILINE)
        assert value not in done.stdout
    assert "musiq.pth (5 B)" in " ".join(done.stdout.split())
    verdict = "Steps 1 to 7 can run." if done.returncode == 0 else "Missing for steps 1 to 7: "
    assert done.stdout.splitlines()[-1].startswith(verdict)
    assert not (tmp_path / "workspace").exists()


def test_weights_are_told_by_name(tmp_path: Path) -> None:
    for name in ("hub/checkpoints/a.pth", "b.safetensors", "notes.txt", "models--owner--clip/blobs/c.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert weight_names(tmp_path) == ["owner/clip", "a.pth", "b.safetensors"]
    assert weight_names(tmp_path / "absent") == []


def test_a_workspace_in_a_few_lines(tmp_path: Path) -> None:
    for name in ("sorted/orientation/landscape/a.jpg", "sorted/orientation/portrait/b.jpg", "reports/domains.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"0" * 1500)
    shown = [f"{name} {detail}".strip() for name, detail in workspace_lines(tmp_path)]
    assert shown == [
        f"{tmp_path.name}/",
        "reports/ 1 file, 1.5 kB",
        "sorted/ 2 files, 3.0 kB",
        "orientation/landscape/ 1 file, 1.5 kB",
        "orientation/portrait/ 1 file, 1.5 kB",
    ]
    assert [page.name for page in report_pages(tmp_path)] == ["domains.html"]
    assert workspace_lines(tmp_path / "absent") == []


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (7.5e9, "7.5 GB")])
def test_sizes_read_well(size: float, text: str) -> None:
    assert human_size(size) == text


# The run of the demo, with a gallery and steps of a few lines each

GALLERY = """
import argparse, json, os, signal, socket, sys
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--queries")
args = parser.parse_args()
if os.path.exists("refuse"):
    sys.exit("no room for pictures")
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", args.port))
server.listen()
os.makedirs(args.queries, exist_ok=True)
open("gallery-ran", "w").write(str(os.getpid()))
print(json.dumps({"url": "http://127.0.0.1:%d" % server.getsockname()[1], "queries": []}), flush=True)
signal.pause()
"""


@pytest.fixture
def project(tmp_path: Path) -> Environment:
    """A folder with a tiny gallery and tiny steps, run by this very Python."""
    environment = Environment(tmp_path)
    environment.python.parent.mkdir(parents=True)
    environment.python.symlink_to(sys.executable)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "__main__.py").write_text(GALLERY)
    (tmp_path / "1_good.py").write_text("import sys; open('asked', 'a').write(' '.join(sys.argv[1:]) + '\\n')\n")
    (tmp_path / "2_bad.py").write_text("raise SystemExit(4)\n")
    (tmp_path / "3_slow.py").write_text("import time; open('slow', 'w').close(); time.sleep(600)\n")
    return environment


def gallery_is_gone(root: Path) -> bool:
    try:
        os.kill(int((root / "gallery-ran").read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def test_the_steps_get_the_gallerys_address_and_the_gallery_ends(project: Environment) -> None:
    urls = []
    own_port = 22_000 + os.getpid() % 5_000  # no other test process asks for it, and no outgoing connection gets it
    (project.root / "w" / "gallery").mkdir(parents=True)
    (project.root / "w" / "gallery" / "port").write_text(str(own_port))
    for _ in range(2):
        with running_gallery(project, project.root / "w") as gallery:
            urls.append(gallery.url)
            run_steps(project, ["1_good.py --host {url} --images {queries}"], vars(gallery))
        assert gallery_is_gone(project.root)
    assert urls[0] == urls[1], "the second demo finds its pictures at the same addresses"
    asked = f"--host {urls[0]} --images {project.root / 'w' / 'gallery' / 'queries'}\n"
    assert (project.root / "asked").read_text() == asked * 2


def test_a_failing_step_stops_the_demo_with_its_code(project: Environment) -> None:
    with pytest.raises(DemoStepError, match=r"`2_bad\.py` ended with exit code 4") as stopped:
        with running_gallery(project, project.root / "w"):
            run_steps(project, ["2_bad.py", "1_good.py"], {})
    assert stopped.value.exit_code == 4
    assert not (project.root / "asked").exists()
    assert gallery_is_gone(project.root)


def test_a_port_that_is_taken_is_passed_over(project: Environment) -> None:
    with running_gallery(project, project.root / "w") as first:
        other = project.root / "other" / "gallery"
        other.mkdir(parents=True)
        (other / "port").write_text(first.url.rsplit(":", 1)[-1])
        with running_gallery(project, project.root / "other") as second:
            assert second.url != first.url


def test_a_gallery_that_does_not_start_says_why(project: Environment) -> None:
    (project.root / "refuse").touch()
    with pytest.raises(GleanerError, match=r"the gallery did not start \(no room for pictures\); put that right"):
        with running_gallery(project, project.root / "w"):
            pytest.fail("it did not refuse")


def test_a_workspace_that_is_a_file_is_one_sentence(project: Environment) -> None:
    (project.root / "w").write_text("a file")
    with pytest.raises(GleanerError, match="cannot be made .* give another --workspace"):
        with running_gallery(project, project.root / "w"):
            pytest.fail("a file is no folder")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(project: Environment, sign: signal.Signals) -> None:
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from lib.setup.demo import run_steps, running_gallery\n"
        "from lib.setup.environment import Environment\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"project = Environment(Path({str(project.root)!r}))\n"
        "with running_gallery(project, project.root / 'w'): run_steps(project, ['3_slow.py'], {})\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until((project.root / "slow").exists, "the step is at work")
    # A terminal sends Ctrl-C to the whole group; a service manager sends SIGTERM to the one process.
    os.killpg(demo.pid, sign) if sign == signal.SIGINT else demo.send_signal(sign)
    assert demo.wait(PATIENCE) != 0
    assert gallery_is_gone(project.root)
