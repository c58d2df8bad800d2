"""The file of a recipe: read, checked by the steps' own parsers before anything starts, and made into commands.

A recipe may come from somebody else, as a settings file may, so `SETTABLE` decides here too: what is harmless may stand
in it, and what acts, leads out, or gives up a safeguard may not. Files that it names lie beside it or below.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lib.cli.flags import STEP_FILES
from lib.cli.run import parse
from lib.cli.settings import (
    ENVIRONMENT,
    FILE,
    INSIDE,
    NAME,
    PREFIX,
    REFUSED_VALUES,
    SETTABLE,
    is_folder,
    is_inside,
    read_settings,
    refuse_secret,
    shown,
    texts_of,
)
from lib.db.where import Condition, parse_where
from lib.engines import DEFAULT
from lib.errors import GleanerError, UsageError
from lib.setup.recipe import INGEST, PAGES, Recipe, Searches, Words
from lib.text import did_you_mean, redact

EXPORT, CRITERION = "export", "criterion"
TABLES = (*STEP_FILES, EXPORT)
TOP = {"title": str, "target": int, "max-rounds": int, "where": str}
MAX_ROUNDS = 10  # ten times as far as a single search; each round costs a source's patience
# Places that differ from those of a settings file: a recipe says what is searched for and taken in, and its files are
# its own. What only steers the output of a single step has no meaning here.
HERE: Mapping[tuple[str, str], str] = {
    ("collect", "images"): INSIDE,
    ("collect", "keywords-file"): INSIDE,
    ("collect", "expand"): FILE,
    ("ingest", "import"): INSIDE,
    ("ingest", "import-folder"): INSIDE,
    ("dedup", "remove"): FILE,  # into the quarantine, and below the usual limit
    ("sort", "take"): FILE,
    ("sort", "balance"): FILE,
    ("sort", "seed"): FILE,
    ("sort", "name"): FILE,  # of a filter, of which a recipe may have several
}
NOT_HERE = frozenset({"json", "verbose", "quiet", "dry-run", "interactive", "list", "help"})
# What a recipe of one's own may set too, with --trust.
TRUSTED: Mapping[tuple[str, str], str] = {
    ("dedup", "max-share"): FILE,
    ("dedup", "reference"): INSIDE,
    ("dedup", "protect"): INSIDE,
}
ONE_BY_ONE = ("import", "import-folder")  # of step 2: a command for each
FILTERS = ("size", "orientation", "type", "licence")


def load_recipe(path: Path, root: Path, workspace: Path, *, trust: bool = False, dry_run: bool = False) -> Recipe:
    """Reads and checks a recipe. Raises UsageError, which names the table and the line's remedy.

    `root` is where the steps lie. With `trust` paths may lead out of the recipe's folder.
    """
    if not path.is_file():
        raise UsageError(f"{path} is no file; give the path of a recipe.")
    top = _dashed(read_settings(path))
    text = path.read_bytes()
    _check_top(path, top)
    made = _RecipeMaker(path, root, workspace, trust)
    tables = {name: list(made.tables(name, top.get(name))) for name in TABLES}
    searches = _searches(path, tables["collect"])
    condition, export = _kept(path, top, tables[EXPORT])
    target = _number(path, top, "target")
    recipe = Recipe(
        path=path,
        text=text,
        digest=hashlib.sha256(text).hexdigest(),
        target=target,
        max_rounds=_number(path, top, "max-rounds") or MAX_ROUNDS,
        searches=searches,
        imports=tuple(_imports(tables["ingest"])),
        others=tuple(_others(tables)),
        export=export,
        where=condition,
    )
    if not recipe.searches and not recipe.imports:
        raise UsageError(f"{path} names nothing to search for and nothing to take in; add [collect] or [ingest].")
    made.check_all([*recipe.round(), *([export] if export else [])], dry_run=dry_run)
    return recipe


@dataclass(frozen=True)
class StepTable:
    """A table of a recipe: its name as a message shows it, and the words of each of its options."""

    shown: str
    options: Mapping[str, Words]
    values: Mapping[str, Any]

    def words(self, *without: str) -> Words:
        return tuple(word for name, words in self.options.items() if name not in without for word in words)


@dataclass(frozen=True)
class _RecipeMaker:
    """Reads and checks the tables of one recipe."""

    path: Path
    root: Path
    workspace: Path
    trust: bool

    def tables(self, name: str, value: Any) -> Iterator[StepTable]:
        """The tables of a name: one, or for `[[sort]]` any number."""
        if value is None:
            return
        several = value if isinstance(value, list) and name == "sort" else [value]
        for number, table in enumerate(several, 1):
            label = f"[{name}]" if len(several) == 1 else f"[[{name}]] number {number}"
            if not isinstance(table, dict):
                raise UsageError(f"{self.path}: {name} is a table of options; write [{name}] above them.")
            yield self._table(name, label, _dashed(table))

    def _table(self, name: str, label: str, values: dict[str, Any]) -> StepTable:
        step = "sort" if name == EXPORT else name
        flags = _flags_of(_load_step(self.root, step).build_parser())
        criterion = values.pop(CRITERION, None) if name == "sort" else None
        if name == "sort" and not isinstance(criterion, str):
            raise UsageError(f'{self.path}: {label} needs criterion = "…", such as "quality".')
        allowed = {flag for flag in flags if self._place(step, flag) in (FILE, INSIDE, NAME)}
        options: dict[str, Words] = {CRITERION: (str(criterion),)} if criterion else {}
        for option, value in values.items():
            self._refuse(step, label, option, value, allowed, flags)
            place = self._place(step, option)
            options[option] = _as_words(
                f"{self.path}: {option} in {label}", flags[option], option, self._found(label, option, value, place)
            )
        return StepTable(label, options, values)

    def _place(self, step: str, option: str) -> str:
        if option in NOT_HERE:
            return ""
        if self.trust and (place := TRUSTED.get((step, option))):
            return place
        own = "" if (step, option) in TRUSTED and SETTABLE[step].get(option) == FILE else SETTABLE[step].get(option, "")
        return HERE.get((step, option), own)

    def _refuse(
        self, step: str, label: str, option: str, value: Any, allowed: set[str], flags: Mapping[str, Any]
    ) -> None:
        """Raises UsageError for what may not stand in a recipe."""
        where = f"{self.path}: {label}"
        if option not in flags:
            raise UsageError(f"{where} has no {option!r}; correct the line or remove it.{_meant(option, allowed)}")
        if option not in allowed:
            instead = f"set {PREFIX}{option.upper().replace('-', '_')} in the environment"
            if (step, option) in TRUSTED:
                instead = "give --trust if the recipe is your own"
            elif SETTABLE[step].get(option) != ENVIRONMENT:
                instead = f"give --{option} to {STEP_FILES[step]} by itself"
            raise UsageError(f"{where} sets {option}, which a recipe may not; remove the line, or {instead}.")
        if value in REFUSED_VALUES.get((step, option), ()) and not (self.trust and option == "mode"):
            raise UsageError(f"{where} sets {option} = {shown(value)}, which a recipe may not; remove the line.")
        refuse_secret(option, value, self.path)
        if any(redact(text) != text for text in texts_of(value)):
            raise UsageError(f"{where}: {option} holds a password or a key; set it in the environment instead.")
        if self._place(step, option) == NAME and any(is_folder(text) for text in texts_of(value)):
            raise UsageError(f"{where}: {option} is a folder, which may hold code; give a model's name.")

    def _found(self, label: str, option: str, value: Any, place: str) -> Any:
        """The value, with paths turned from the recipe's folder to where the steps run."""
        if place != INSIDE:
            return value
        beside = self.path.absolute().parent
        found = []
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or not text:
                raise UsageError(f"{self.path}: {option} in {label} cannot be {shown(text)}; give a path.")
            path = beside / text
            if not self.trust and not is_inside(str(path), beside):
                raise UsageError(
                    f"{self.path}: {option} in {label} lies outside the recipe's folder; move the recipe beside it, or"
                    " give --trust if the recipe is your own."
                )
            if not path.exists() and not any(sign in text for sign in "*?["):
                raise UsageError(f"{self.path}: {option} in {label}: {path} does not exist; correct the path.")
            found.append(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
        return found if isinstance(value, list) else found[0]

    def check_all(self, commands: list[Words], *, dry_run: bool) -> None:
        """Puts every command through its step's own parser and rules. Raises UsageError."""
        files = {file: step for step, file in STEP_FILES.items()}
        with tempfile.TemporaryDirectory(prefix="gleaner-") as folder:
            empty, filled = Path(folder, "empty"), Path(folder, "filled")
            empty.mkdir()
            filled.mkdir()
            (filled / "gleaner.db").touch()  # a step after the first asks for one before anything else
            for script, *words in commands:
                begins = {"--keywords", "--images", "--keywords-file", "--import", "--import-folder"} & set(words)
                self._check(files[script], words, empty if begins else filled, dry_run or not begins)

    def _check(self, step: str, words: list[str], stand_in: Path, dry_run: bool) -> None:
        module = _load_step(self.root, step)
        made = module.build_parser()
        try:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                args = parse(made, [*words, "--workspace", str(self.workspace)])
                args.workspace, args.dry_run = stand_in, dry_run
                if refuse_foreign := getattr(module, "refuse_foreign", None):
                    refuse_foreign(made, words, args.criterion)
                check: Callable[[argparse.Namespace], None] = getattr(module, "check")  # noqa: B009  (not all have one)
                check(args)
        except SystemExit:
            raise UsageError(f"{self.path}: {STEP_FILES[step]} says: {getattr(made, 'wrong', '')}") from None
        except GleanerError as error:
            raise UsageError(f"{self.path}: {STEP_FILES[step]} says: {error}") from error


def _load_step(root: Path, step: str) -> ModuleType:
    """A step's script as a module: its name begins with a digit, so `import` cannot name it."""
    name = f"recipe_step_{step}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, root / STEP_FILES[step])
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _flags_of(made: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {
        option[2:]: action
        for action in made._actions
        for option in action.option_strings
        if option.startswith("--") and not option.startswith("--no-")
    }


def _as_words(where: str, action: argparse.Action, option: str, value: Any) -> Words:
    """An option and its value as words of a command line. Raises UsageError where the value is of another type."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{where} cannot be {shown(value)}; it is true or false.")
        return (f"--{option}",) if value else ()
    parts = value if isinstance(value, list) else [value]
    if not parts or not all(type(part) in (str, int, float) for part in parts):
        raise UsageError(f"{where} cannot be {shown(value)}; give a text, a number or a list of them.")
    words = tuple(str(part) for part in parts)
    if any("\0" in word or not word for word in words):
        raise UsageError(f"{where} is empty or holds a null character; give a value.")
    if isinstance(action, argparse._AppendAction) or option in ONE_BY_ONE:
        return tuple(word for text in words for word in _pair(option, text))
    if action.nargs in ("*", "+") or isinstance(action.nargs, int):
        if wrong := next((word for word in words if word.startswith("-")), ""):
            raise UsageError(f"{where} holds {shown(wrong)}, which would be taken for a flag; write it otherwise.")
        return (f"--{option}", *words)
    return _pair(option, ",".join(words))


def _pair(option: str, text: str) -> Words:
    return (f"--{option}={text}",) if text.startswith("-") else (f"--{option}", text)


def _searches(path: Path, tables: list[StepTable]) -> Searches | None:
    if not tables:
        return None
    table = tables[0]
    given = {name: table.options.get(name, ()) for name in ("engine", "keywords", "max-pages", "max-results", "expand")}
    if not {"keywords", "images", "keywords-file"} & table.options.keys():
        raise UsageError(f"{path}: {table.shown} names nothing to search for; give keywords, keywords_file or images.")
    numbers = {}
    for name in ("max-pages", "max-results", "expand"):
        value = table.values.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise UsageError(
                f"{path}: {name} in {table.shown} cannot be {shown(value)}; it is a whole number from 1 on."
            )
        numbers[name] = value
    pages = numbers["max-pages"] or (None if numbers["max-results"] else PAGES)
    return Searches(
        engines=given["engine"][1:] or (DEFAULT,),
        flags=table.words(*given),
        keywords=given["keywords"][1:],
        filters=tuple(word for name in FILTERS for word in table.options.get(name, ())),
        pages=pages,
        results=numbers["max-results"],
        expand=numbers["expand"],
    )


def _imports(tables: list[StepTable]) -> Iterator[Words]:
    """One command of step 2 for each file or folder that is taken in."""
    for table in tables:
        others = table.words(*ONE_BY_ONE)
        for name in ONE_BY_ONE:
            words = table.options.get(name, ())
            shared = others if name == "import" else tuple(w for w in others if w in ("--strict",))
            yield from ((INGEST, *words[at : at + 2], *shared) for at in range(0, len(words), 2))


def _others(tables: Mapping[str, list[StepTable]]) -> Iterator[Words]:
    """Steps 3 to 6, each once, and step 7 as often as it is asked for."""
    for step in ("report", "cleanup", "download", "dedup"):
        words = next((table.words() for table in tables[step]), ())
        if step == "report" and "--format" not in words:
            words += ("--format", "html")  # the table on the terminal would come again in every round
        yield (STEP_FILES[step], *words)
    yield from ((STEP_FILES["sort"], *table.words()) for table in tables["sort"])


def _kept(path: Path, top: Mapping[str, Any], tables: list[StepTable]) -> tuple[Condition | None, Words | None]:
    """Returns the condition for what counts as kept, and the command of the export where there is one."""
    if not tables:
        text = top.get("where")
        return (_condition(path, str(text)) if text else None), None
    text = tables[0].values.get("where", top.get("where"))
    words = tables[0].words("where") + (_pair("where", str(text)) if text else ())
    if "title" in top and "title" not in tables[0].options:
        words += _pair("title", str(top["title"]))
    # What an earlier run of a recipe has made of fewer pictures goes to the quarantine.
    return (_condition(path, str(text)) if text else None), (STEP_FILES["sort"], EXPORT, *words, "--replace")


def _condition(path: Path, text: str) -> Condition:
    try:
        return parse_where(text)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _check_top(path: Path, top: Mapping[str, Any]) -> None:
    """Raises UsageError for a key or a type that no recipe has at its top."""
    for name, value in top.items():
        if name in TABLES:
            continue
        if name not in TOP:
            what = f"a table [{name}]" if isinstance(value, dict | list) else f"{name!r} at its top"
            raise UsageError(f"{path} has {what}, which no recipe has; correct it.{_meant(name, {*TABLES, *TOP})}")
        if type(value) is not TOP[name]:
            kind = "a text" if TOP[name] is str else "a whole number"
            raise UsageError(f"{path}: {name.replace('-', '_')} cannot be {shown(value)}; it is {kind}.")


def _number(path: Path, top: Mapping[str, Any], name: str) -> int | None:
    value = top.get(name)
    if value is not None and value < 1:
        raise UsageError(f"{path}: {name.replace('-', '_')} cannot be {shown(value)}; it is 1 or more.")
    return value


def _meant(name: str, known: set[str]) -> str:
    return did_you_mean(name.replace("-", "_"), (one.replace("-", "_") for one in known))


def _dashed(table: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are called on the command line: `max_pages` is `max-pages`."""
    return {name.replace("_", "-"): value for name, value in table.items()}
