"""What has to be right before step 1 begins, and can be known before a workspace is opened or made."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.collect import queue
from lib.collect.options import names_queries
from lib.collect.pace import is_loopback
from lib.collect.queue import find_pictures
from lib.engines import DEFAULT, filters_in
from lib.engines.base import Engine, load_engine
from lib.errors import UsageError
from lib.web.browser import BrowserSettings, require_browser
from lib.web.direct import DirectSettings, read_proxy, settings_for
from lib.workspace import Workspace


@dataclass(frozen=True)
class Settings:
    """How the engines are reached: the browser where one is needed, and the sessions of the others by name."""

    browser: BrowserSettings | None
    direct: dict[str, DirectSettings]


def check_before(args: argparse.Namespace) -> None:
    """Raises UsageError with one sentence where the run could do nothing; touches nothing."""
    workspace = Workspace(args.workspace)
    if not workspace.database.exists():
        _check_without_searches(args, workspace)
    if not names_queries(args) or args.list or args.drift or args.expand:
        return
    engines = [load_engine(name) for name in args.engine or (DEFAULT,)]
    check_flags(args, engines)
    for engine in engines:
        check_engine(args, engine)
    words = queue.keywords(args.keywords or (), args.keywords_file)
    if next(find_pictures(args.images or ()), None) is None and not words:
        raise UsageError(queue.NOTHING_GIVEN)
    if not args.dry_run and not args.replay:
        for engine in engines:
            engine.require_keys()
        settings_of(args, engines, workspace.root)


def _check_without_searches(args: argparse.Namespace, workspace: Workspace) -> None:
    """Nothing but a new search makes sense where there never was one."""
    for mode in ("list", "drift", "expand", "retry"):
        if getattr(args, mode):
            raise UsageError(
                f"no search was ever made in {workspace.root}, so --{mode} has nothing to go by; check --workspace, or "
                "search first."
            )
    if not names_queries(args):
        raise UsageError(without_searches(workspace))


def without_searches(workspace: Workspace) -> str:
    return (
        f"no search was ever made in {workspace.root}, so there is no queue to go on with; give --keywords or --images."
    )


def check_flags(args: argparse.Namespace, engines: Sequence[Engine]) -> None:
    """The rules between flags and engines. Raises UsageError."""
    check_pace(args, engines)
    if args.host and len(engines) > 1 and names_queries(args) and not is_loopback(args.host):
        raise UsageError("--host belongs to one engine; give one --engine with it.")
    if engines and args.pause_on_captcha and not any(engine.needs_browser for engine in engines):
        names = " and ".join(engine.name for engine in engines)
        raise UsageError(f"--pause-on-captcha needs a browser, and {names} use none; leave it out.")


def check_pace(args: argparse.Namespace, engines: Sequence[Engine]) -> None:
    """A pace below an engine's own is for this machine, or for who says that it is allowed. Raises UsageError."""
    at_home = args.host is not None and is_loopback(args.host)
    if args.pace is None or at_home or args.i_am_allowed:
        return
    for engine in engines:
        if args.pace < engine.interval:
            raise UsageError(
                f"--pace {args.pace:g} is faster than {engine.name} is asked by default ({engine.interval:g} s); "
                "give a larger one, or --i-am-allowed if you have the source's permission."
            )


def check_engine(args: argparse.Namespace, engine: Engine) -> None:
    """Whether the engine can do what is asked for. Raises UsageError."""
    filters = filters_in(vars(args))
    for kind, wanted in (("image", args.images), ("keyword", args.keywords or args.keywords_file)):
        if wanted and kind not in engine.kinds:
            raise UsageError(f"{engine.name} cannot search by {kind}; choose another --engine.")
        if wanted:
            engine.filter_params(filters, kind)


def settings_of(args: argparse.Namespace, engines: Sequence[Engine], root: Path) -> Settings:
    """How the engines will be reached. Raises UsageError where the browser or a usable proxy is missing."""
    browser = None
    proxy = read_proxy(args.proxy, os.environ)
    if any(engine.needs_browser for engine in engines):
        profile = (args.profile or root / "browser-profile") if args.pause_on_captcha else None
        choice = require_browser(headed=args.headed)
        browser = BrowserSettings(choice, args.headed, proxy, args.timeout, profile and profile.absolute())
    contact = os.environ.get("GLEANER_CONTACT", "")
    plain = [engine for engine in engines if not engine.needs_browser]
    return Settings(browser, {e.name: settings_for(e, proxy, args.timeout, contact) for e in plain})
