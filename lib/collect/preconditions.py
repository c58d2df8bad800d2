"""All that has to be right for step 1 to begin, and can be known before a workspace is opened or made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lib.collect.options import CollectOptions
from lib.collect.pace import is_loopback
from lib.collect.queue import NOTHING_GIVEN, find_pictures, keywords
from lib.engines import DEFAULT
from lib.engines.base import Engine, load_engine
from lib.errors import UsageError
from lib.web.browser import BrowserSettings, require_browser
from lib.web.direct import DirectSettings, read_proxy
from lib.workspace import Workspace

NO_SEARCH = "no search was ever made in {}, so "
NO_QUEUE = NO_SEARCH + "there is no queue to go on with; give --keywords or --images."


def check_before(options: CollectOptions, workspace: Workspace, dry_run: bool) -> None:
    """Raises UsageError with one sentence where the run could do nothing; touches nothing."""
    if not workspace.database.exists():
        _check_without_searches(options, workspace.root)
    if not options.names_queries or options.list or options.drift or options.expand:
        return
    engines = [load_engine(name) for name in options.engine or (DEFAULT,)]
    check_flags(options, engines)
    for engine in engines:
        check_engine(options, engine)
    words = keywords(options.keywords, options.keywords_file)
    if next(find_pictures(options.images), None) is None and not words:
        raise UsageError(NOTHING_GIVEN)
    if not dry_run and not options.replay:
        for engine in engines:
            engine.require_keys()
        settings_for(options, engines, workspace.root)


def _check_without_searches(options: CollectOptions, root: Path) -> None:
    """Nothing but a new search makes sense where there never was one."""
    for mode in ("list", "drift", "expand", "retry"):
        if getattr(options, mode):
            remedy = f"--{mode} has nothing to go by; check --workspace, or search first."
            raise UsageError(NO_SEARCH.format(root) + remedy)
    if not options.names_queries:
        raise UsageError(NO_QUEUE.format(root))


def check_flags(options: CollectOptions, engines: Sequence[Engine]) -> None:
    """The rules between flags and engines. Raises UsageError.

    A pace below an engine's own is for this machine, or for who says that it is allowed.
    """
    at_home = options.host is not None and is_loopback(options.host)
    for engine in engines:
        if options.pace is not None and options.pace < engine.interval and not (at_home or options.i_am_allowed):
            raise UsageError(
                f"--pace {options.pace:g} is faster than {engine.name} is asked by default ({engine.interval:g} s); "
                "give a larger one, or --i-am-allowed if you have the source's permission."
            )
    if options.host and len(engines) > 1 and options.names_queries and not at_home:
        raise UsageError("--host belongs to one engine; give one --engine with it.")
    if engines and options.pause_on_captcha and not any(engine.needs_browser for engine in engines):
        names = " and ".join(engine.name for engine in engines)
        raise UsageError(f"--pause-on-captcha needs a browser, and {names} use none; leave it out.")


def check_engine(options: CollectOptions, engine: Engine) -> None:
    """Raises UsageError where the engine cannot do what is asked for."""
    for kind, wanted in (("image", options.images), ("keyword", options.keywords or options.keywords_file)):
        if wanted and kind not in engine.kinds:
            raise UsageError(f"{engine.name} cannot search by {kind}; choose another --engine.")
        if wanted:
            engine.filter_params(options.filters, kind)


def settings_for(
    options: CollectOptions, engines: Sequence[Engine], root: Path
) -> tuple[BrowserSettings | None, dict[str, DirectSettings]]:
    """The browser where an engine needs one, and the sessions of the others by name.

    Raises UsageError where the browser or a usable proxy is missing.
    """
    browser = None
    proxy = read_proxy(options.proxy, os.environ)
    if any(engine.needs_browser for engine in engines):
        profile = (options.profile or root / "browser-profile") if options.pause_on_captcha else None
        choice = require_browser(headed=options.headed)
        browser = BrowserSettings(choice, options.headed, proxy, options.timeout, profile and profile.absolute())
    contact = os.environ.get("GLEANER_CONTACT", "")
    plain = [engine for engine in engines if not engine.needs_browser]
    return browser, {e.name: DirectSettings(proxy, options.timeout, contact, e.keeps_cookies) for e in plain}
