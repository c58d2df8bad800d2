"""Step 1's flags beside the common ones, the frozen value made of them, and the rules that hold across them."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lib.arguments import positive, values_of
from lib.domains import ascii_host
from lib.engines import DEFAULT, FILTER_VALUES, NAMES, filters_in
from lib.errors import UsageError
from lib.records import OUTCOMES

FILTER_HELP = {
    "size": "how large the pictures are",
    "orientation": "which way they lie",
    "type": "what kind of pictures",
    "licence": "what their licence allows",
}
# What makes a run of its own, so that two of them together mean nothing.
MODES = ("list", "drift", "replay", "expand")


def add_options(to: ArgumentParser) -> None:
    """Adds all flags of step 1 beside the common ones."""
    add = to.add_argument_group("what to search for").add_argument
    add("--images", nargs="+", type=Path, metavar="PATH", help="query pictures, or folders of them")
    add("--keywords", nargs="+", metavar="WORD", help="keywords; quote those of several words")
    add("--keywords-file", type=Path, metavar="FILE", help="keywords, one a line, UTF-8")
    text = f"where, all at once: {', '.join(NAMES)} (default: {DEFAULT}, or those of the queue)"
    add("--engine", nargs="+", choices=NAMES, metavar="NAME", help=text)
    text = "a host such as yandex.ru or http://127.0.0.1:8080 (default: the engine's own, with fallback)"
    add("--host", type=host, metavar="HOST", help=text)
    for name, values in FILTER_VALUES.items():
        add(f"--{name}", choices=values, metavar="VALUE", help=f"{FILTER_HELP[name]}: {', '.join(values)}")

    add = to.add_argument_group("how far").add_argument
    add("--max-pages", type=positive, metavar="N", help="pages of a query (default: 5, or what --max-results takes)")
    add("--max-results", type=positive, metavar="N", help="results of a query; the page that reaches them is the last")

    add = to.add_argument_group("how").add_argument
    text = "between two requests to an engine, jitter comes on top (default: the engine's, 5 for yandex, 0 for this "
    add("--pace", type=seconds, metavar="SECONDS", help=text + "machine)")
    add("--i-am-allowed", action="store_true", help="let --pace be faster than the default")
    add("--timeout", type=seconds, default=30.0, metavar="SECONDS", help="for one request (default: 30)")
    text = "searches at once at an engine; they share the pace (default: 1)"
    add("--contexts", type=positive, default=1, metavar="N", help=text)
    add("--headed", action="store_true", help="show the browser's window")
    text = "with --headed: leave a captcha open for you to answer, then go on"
    add("--pause-on-captcha", action="store_true", help=text)
    text = "how long to wait for you (default: 10)"
    add("--pause-limit", type=minutes, default=10.0, metavar="MINUTES", help=text)
    text = "the browser profile of --pause-on-captcha (default: browser-profile in the workspace)"
    add("--profile", type=Path, metavar="DIR", help=text)
    add("--proxy", metavar="URL", help="http://HOST:PORT or socks5://HOST:PORT; a password only in GLEANER_PROXY")
    add("--strict", action="store_true", help="exit with 3 when a query failed")

    add = to.add_argument_group("the queue").add_argument
    add("--list", action="store_true", help="show all queries with state and outcome, then exit")
    add("--drift", action="store_true", help="show how the answers' shape has changed, then exit")
    text = "queue the queries again that ended so: " + ", ".join(OUTCOMES)
    add("--retry", choices=OUTCOMES, metavar="OUTCOME", help=text)
    text = "take answers captured elsewhere (a HAR file, a folder of raw answers, one file) for the one query named"
    add("--replay", type=Path, metavar="PATH", help=text)
    add("--expand", type=positive, metavar="N", help="propose N keywords from the titles found so far, then exit")
    add("--yes", action="store_true", help="with --expand: queue what is proposed")


def host(text: str) -> str:
    """`yandex.ru` or `http://127.0.0.1:8080/` as an address without a path. Raises ArgumentTypeError."""
    wrong = ArgumentTypeError(f"{text!r} is no host such as yandex.ru or http://127.0.0.1:8080")
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = parts.port or 0
    except ValueError:
        raise wrong from None
    name = ascii_host(parts.hostname or "")
    if parts.scheme not in ("http", "https") or not name or parts.path not in ("", "/") or parts.query:
        raise wrong
    if parts.username is not None or not 0 <= port <= 65535 or any(letter.isspace() for letter in parts.netloc):
        raise wrong
    asked = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{asked}{f':{port}' if parts.port is not None else ''}"


def seconds(text: str) -> float:
    """A number of seconds from 0 to a day."""
    return _number(text, 86_400, "seconds")


def minutes(text: str) -> float:
    """A number of minutes from 0 to a day."""
    return _number(text, 1440, "minutes")


def _number(text: str, most: int, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no number of {unit}") from None
    if not 0 <= value <= most:
        raise ArgumentTypeError(f"{text!r} is not between 0 and {most} {unit}")
    return value


@dataclass(frozen=True)
class CollectOptions:
    """Step 1 as a command line asks for it. A `pace` of None is the engine's own; `pause_limit` is in minutes."""

    images: tuple[Path, ...] = ()
    keywords: tuple[str, ...] = ()
    engine: tuple[str, ...] = ()
    filters: Mapping[str, str] = field(default_factory=dict)
    keywords_file: Path | None = None
    host: str | None = None
    limit: int | None = None  # queries an engine
    max_pages: int | None = None
    max_results: int | None = None
    pace: float | None = None
    i_am_allowed: bool = False
    timeout: float = 30.0
    contexts: int = 1
    headed: bool = False
    pause_on_captcha: bool = False
    pause_limit: float = 10.0
    profile: Path | None = None
    proxy: str | None = None
    strict: bool = False
    list: bool = False
    drift: bool = False
    retry: str | None = None
    replay: Path | None = None
    expand: int | None = None
    yes: bool = False

    @property
    def names_queries(self) -> bool:
        """True where the command line names queries; else the step goes on with its queue."""
        return bool(self.images or self.keywords or self.keywords_file)


def options_from(args: Namespace) -> CollectOptions:
    """The options of a parsed command line."""
    given = values_of(args, CollectOptions)
    several = {name: tuple(given[name] or ()) for name in ("images", "keywords", "engine")}
    return CollectOptions(**given | several | {"filters": filters_in(vars(args))})


def check(options: CollectOptions) -> None:
    """The rules across flags that need no engine. Raises UsageError."""
    chosen = [mode for mode in MODES if getattr(options, mode)]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} do not go together; give one of them.")
    if options.timeout <= 0:
        raise UsageError("--timeout must be more than 0 seconds.")
    if options.pause_on_captcha and not options.headed:
        raise UsageError("--pause-on-captcha needs a window that you can see; add --headed.")
    if options.profile and not options.pause_on_captcha:
        raise UsageError("--profile is for --pause-on-captcha; add it, or leave --profile out.")
    if options.yes and not options.expand:
        raise UsageError("--yes belongs to --expand; leave it out.")
    if options.replay:
        if len(options.engine) > 1:
            raise UsageError("--replay is about one engine; give one --engine.")
        if not options.names_queries:
            raise UsageError("--replay needs the query that was answered; give it as --keywords or --images.")
        if not options.replay.exists():
            raise UsageError(f"{options.replay} does not exist; give a HAR file, a raw answer, or a folder of them.")
    if options.filters and not options.names_queries and not options.expand:
        raise UsageError(f"--{next(iter(options.filters))} is part of a new search; give --keywords with it.")
