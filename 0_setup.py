"""Set everything up: environment, requirements, browser; then run the demo, the tests or a recipe where asked to.

Reads:    requirements-core.txt, requirements.txt, requirements-dev.txt; for run, a recipe (docs/recipes.md)
Writes:   .venv/ and, for the demo, workspace-demo/; for run, the workspace

Examples:
  python3 0_setup.py          real use: everything, models included (on Linux about 7.5 GB)
  python3 0_setup.py --core   real use without the models of step 7 (about 1 GB)
  python3 0_setup.py demo     steps 1 to 7 on the offline gallery, without the models
  python3 0_setup.py test     ruff, mypy for three platforms and pytest, with all they need
  python3 0_setup.py check    what is here and what is not
  python3 0_setup.py run recipes/flowers.toml --dry-run    the commands of a recipe
  python3 0_setup.py run recipes/flowers.toml              steps 1 to 7 as a recipe says, until enough is kept

Next:     .venv/bin/python 1_collect.py --help
"""

import sys

# This sentence is for those who run an older Python, so the file has to parse on one: 3.6 does.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "Gleaner needs Python 3.11 or newer and this is {}.{}; run 0_setup.py with a newer one.".format(
            *sys.version_info
        )
    )

import argparse
import json
import logging
import os
import signal
import textwrap
from pathlib import Path

from lib.cli.flags import documented_parser
from lib.cli.recipe import load_recipe
from lib.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, GleanerError, UsageError
from lib.setup.browser import browser_version, ensure_browser
from lib.setup.demo import report_pages, run_steps, running_gallery, workspace_lines
from lib.setup.environment import Environment, run_child
from lib.setup.recipe import RecipeRun
from lib.setup.survey import survey
from lib.text import command_line, counted

ROOT = Path(__file__).resolve().parent
# One line a step of the demo; {url} and {queries} come from the gallery, {workspace} from --workspace.
DEMO_STEPS = (
    "1_collect.py --workspace {workspace} --engine yandex --host {url} --images {queries} --max-pages 3",
    "2_ingest_db.py --workspace {workspace}",
    "3_domain_report.py --workspace {workspace} --format html",
    "4_db_cleanup.py --workspace {workspace}",
    "5_download.py --workspace {workspace} --allow-private",
    "6_dedup.py all --workspace {workspace}",
    "7_sort_quality.py orientation --workspace {workspace}",
    "7_sort_quality.py megapixels --workspace {workspace}",
    "7_sort_quality.py quality --workspace {workspace}",
    "3_domain_report.py --workspace {workspace} --format html",  # once more: now there are downloads to count
)
# What `test` runs with the environment's Python: every line, whatever the ones before it said.
TEST_COMMANDS = (
    "ruff check .",
    "ruff format --check .",
    # A cache for each platform: one for all of them would be made anew each time.
    "mypy --platform linux --cache-dir .mypy_cache/linux lib",
    "mypy --platform darwin --cache-dir .mypy_cache/darwin lib",
    "mypy --platform win32 --cache-dir .mypy_cache/win32 lib",
    "pytest -n 2",
)


def build_parser() -> argparse.ArgumentParser:
    # fmt: off
    made = documented_parser(__doc__, "0_setup.py")
    add = made.add_argument
    add("-h", "--help",    action="help", help="show this page and exit")
    add("what",            nargs="?", choices=("demo", "test", "check", "run"), help="default: set up for real use")
    add("recipe",          nargs="?", type=Path, metavar="RECIPE", help="the TOML file that `run` works through")
    add("--core",          action="store_true", help="leave the models out; only for real use (default: models too)")
    add("--workspace",     type=Path, metavar="DIR",
                           help="folder of demo (default: workspace-demo), check or run (default: workspace)")
    add("-n", "--dry-run", action="store_true", help="of run: print the commands, one a line, and write nothing")
    add("--json",          action="store_true", help="of run: print the summary as one JSON object on stdout")
    add("--trust",         action="store_true",
                           help="of run: the recipe is your own and may name paths outside its folder")
    add("-v", "--verbose", action="store_true", help="show what pip and Playwright print")
    return made


def main(argv: "list[str] | None" = None) -> int:
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)
    if args.core and args.what:
        parser.error(f"--core is for real use; `{args.what}` knows itself what it needs")
    if args.workspace and args.what not in ("demo", "check", "run"):
        parser.error("--workspace is for demo, check and run; setting up touches no workspace")
    if (args.what == "run") != bool(args.recipe):
        parser.error("`run` takes the path of a recipe, and nothing else does: 0_setup.py run RECIPE")
    if args.what != "run" and (args.dry_run or args.json or args.trust):
        parser.error("--dry-run, --json and --trust are for `run`")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    work = {None: set_up, "demo": demo, "test": test, "check": check, "run": run}[args.what]
    try:
        return work(Environment(ROOT), args)
    except GleanerError as error:
        if args.json:
            print_recipe(args, error.exit_code, {}, {"error": str(error)}, [])
        print(f"0_setup.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("0_setup.py: stopped; run the same command to continue.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has left, as `| head` does; there is nobody to tell
        return EXIT_FAILED
    except OSError as error:
        print(f"0_setup.py: {error}; make room or fix that, then run the same command again.", file=sys.stderr)
        return EXIT_FAILED


def prepare(environment: Environment, requirements: str, *, verbose: bool) -> None:
    """The environment, one requirements file and a browser."""
    environment.ensure()
    environment.install(requirements, verbose=verbose)
    choice = ensure_browser(environment, verbose=verbose)
    logging.info("Ready: %s with %s, and %s", environment.python, requirements, browser_version(choice.program))


def set_up(environment: Environment, args: argparse.Namespace) -> int:
    prepare(environment, "requirements-core.txt" if args.core else "requirements.txt", verbose=args.verbose)
    print(f"Next: {environment.python.relative_to(ROOT)} 1_collect.py --help")
    return EXIT_OK


def demo(environment: Environment, args: argparse.Namespace) -> int:
    prepare(environment, "requirements-core.txt", verbose=args.verbose)
    workspace = (args.workspace or ROOT / "workspace-demo").resolve()
    with running_gallery(environment, workspace) as gallery:
        values = {"url": gallery.url, "queries": str(gallery.queries), "workspace": str(workspace)}
        run_steps(environment, DEMO_STEPS, values)
    print(f"\nThe demo made {workspace}:")
    for name, detail in workspace_lines(workspace):
        print(f"  {name:<36}{detail}".rstrip())
    print("Pages to open in a browser:")
    for page in report_pages(workspace):
        print(f"  {page}")
    return EXIT_OK


def test(environment: Environment, args: argparse.Namespace) -> int:
    prepare(environment, "requirements-dev.txt", verbose=args.verbose)
    codes = {}
    for command in TEST_COMMANDS:
        logging.info("\n== %s", command)
        codes[command] = run_child([str(environment.python), "-m", *command.split()], folder=ROOT)
    print(
        "\n" + "\n".join(f"{'passed' if code == 0 else f'FAILED ({code})':<12}{name}" for name, code in codes.items())
    )
    return EXIT_FAILED if any(codes.values()) else EXIT_OK


def check(environment: Environment, args: argparse.Namespace) -> int:
    lacking = []
    for finding in survey(environment, args.workspace or ROOT / "workspace"):
        mark = "ok" if finding.good else "MISSING" if finding.needed else "-"
        lines = textwrap.wrap(finding.detail, 78, break_long_words=False, break_on_hyphens=False) or [""]
        print(f"{mark:<8}{finding.subject:<24}{lines[0]}")
        for line in lines[1:]:
            print(" " * 32 + line)
        lacking += [finding.subject] if finding.needed and not finding.good else []
    print("Steps 1 to 7 can run." if not lacking else f"Missing for steps 1 to 7: {', '.join(lacking)}.")
    return EXIT_FAILED if lacking else EXIT_OK


def run(environment: Environment, args: argparse.Namespace) -> int:
    """Works through a recipe, with the environment's Python."""
    state = environment.state()
    if state != "ready":
        setup = "python3 0_setup.py (or 0_setup.py --core)"
        raise UsageError(
            f"a recipe needs the environment in {environment.folder}, which is {state}; run {setup} first."
        )
    words = [str(environment.python), os.path.abspath(__file__), *sys.argv[1:]]
    if Path(sys.prefix).resolve() != environment.folder.resolve():
        if os.name == "nt":
            return run_child(words)
        os.execv(words[0], words)
    workspace = args.workspace or Path(os.environ.get("GLEANER_WORKSPACE") or "workspace")
    recipe = load_recipe(args.recipe, ROOT, workspace, trust=args.trust, dry_run=args.dry_run)
    work = RecipeRun(environment.python, ROOT, recipe, workspace, sys.stderr.fileno() if args.json else None)
    if args.dry_run:
        plan = list(work.plan())
        print_recipe(args, EXIT_OK, {"commands": len([line for line in plan if line[0] != "#"])}, {"plan": plan}, plan)
        return EXIT_OK
    try:
        done = work.run()
    except KeyboardInterrupt:
        again = command_line([sys.executable, *sys.argv])
        print(f"0_setup.py: stopped; what was done is kept. Go on with: {again}", file=sys.stderr)
        return EXIT_INTERRUPTED
    counts = {"kept": done.kept, "rounds": done.rounds}
    result = {"recipe": recipe.path.name, "sha256": recipe.digest, "target": recipe.target, "ended": done.ended}
    kept = f"{done.kept:,} of {counted(recipe.target, 'picture')}" if recipe.target else counted(done.kept, "picture")
    told = f"recipe {recipe.path.name}: {kept} kept in {counted(done.rounds, 'round')}"
    lines = [told + (f"; {done.ended}" if done.ended else ""), *(f"  {sentence}" for sentence in done.sources)]
    print_recipe(args, done.exit_code, counts, {**result, "sources": done.sources}, lines)
    return done.exit_code


def print_recipe(args: argparse.Namespace, code: int, counts: dict, result: dict, lines: list) -> None:
    head = {"step": "recipe", "run": None, "dry_run": args.dry_run, "exit_code": code, "counts": counts}
    print(json.dumps({**head, "result": result}, ensure_ascii=False) if args.json else "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
