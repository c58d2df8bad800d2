"""Step 1's flags beside the common ones, and the rules that hold across them."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

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


def add_options(to: ArgumentParser, positive: Callable[[str], int]) -> None:
    """All flags of step 1 beside the common ones; `positive` reads a whole number of at least 1."""
    _add_queries(to)
    _add_limits(to, positive)
    _add_manners(to, positive)
    _add_queue(to, positive)


def _add_queries(to: ArgumentParser) -> None:
    what = to.add_argument_group("what to search for")
    what.add_argument("--images", nargs="+", type=Path, metavar="PATH", help="query pictures, or folders of them")
    what.add_argument("--keywords", nargs="+", metavar="WORD", help="keywords; quote those of several words")
    what.add_argument("--keywords-file", type=Path, metavar="FILE", help="keywords, one a line, UTF-8")
    what.add_argument(
        "--engine",
        nargs="+",
        choices=NAMES,
        metavar="NAME",
        help=f"where, all at once: {', '.join(NAMES)} (default: {DEFAULT}, or those of the queue)",
    )
    what.add_argument(
        "--host",
        type=host,
        metavar="HOST",
        help="a host such as yandex.ru or http://127.0.0.1:8080 (default: the engine's own, with fallback)",
    )
    for name, values in FILTER_VALUES.items():
        what.add_argument(
            f"--{name}", choices=values, metavar="VALUE", help=f"{FILTER_HELP[name]}: {', '.join(values)}"
        )


def _add_limits(to: ArgumentParser, positive: Callable[[str], int]) -> None:
    far = to.add_argument_group("how far")
    far.add_argument(
        "--max-pages", type=positive, metavar="N", help="pages of a query (default: the engine's, 5 for yandex)"
    )
    far.add_argument(
        "--max-results", type=positive, metavar="N", help="stop a query after the page that reaches N results"
    )


def _add_manners(to: ArgumentParser, positive: Callable[[str], int]) -> None:
    how = to.add_argument_group("how")
    how.add_argument(
        "--pace",
        type=seconds,
        metavar="SECONDS",
        help="between two requests to an engine, jitter comes on top (default: the engine's, 5 for yandex, 0 for this "
        "machine)",
    )
    how.add_argument("--i-am-allowed", action="store_true", help="let --pace be faster than the default")
    how.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS", help="for one request (default: 30)")
    how.add_argument(
        "--contexts",
        type=positive,
        default=1,
        metavar="N",
        help="searches at once at an engine; they share the pace (default: 1)",
    )
    how.add_argument("--headed", action="store_true", help="show the browser's window")
    how.add_argument(
        "--pause-on-captcha",
        action="store_true",
        help="with --headed: leave a captcha open for you to answer, then go on",
    )
    how.add_argument(
        "--pause-limit", type=minutes, default=10.0, metavar="MINUTES", help="how long to wait for you (default: 10)"
    )
    how.add_argument(
        "--profile",
        type=Path,
        metavar="DIR",
        help="the browser profile of --pause-on-captcha (default: browser-profile in the workspace)",
    )
    how.add_argument(
        "--proxy", metavar="URL", help="http://HOST:PORT or socks5://HOST:PORT; a password only in GLEANER_PROXY"
    )
    how.add_argument("--strict", action="store_true", help="exit with 3 when a query failed")


def _add_queue(to: ArgumentParser, positive: Callable[[str], int]) -> None:
    queue = to.add_argument_group("the queue")
    queue.add_argument("--list", action="store_true", help="show all queries with state and outcome, then exit")
    queue.add_argument("--drift", action="store_true", help="show how the answers' shape has changed, then exit")
    queue.add_argument(
        "--retry",
        choices=OUTCOMES,
        metavar="OUTCOME",
        help="queue the queries again that ended so: " + ", ".join(OUTCOMES),
    )
    queue.add_argument(
        "--replay",
        type=Path,
        metavar="PATH",
        help="take answers captured elsewhere (a HAR file, a folder of raw answers, one file) for the one query named",
    )
    queue.add_argument(
        "--expand", type=positive, metavar="N", help="propose N keywords from the titles found so far, then exit"
    )
    queue.add_argument("--yes", action="store_true", help="with --expand: queue what is proposed")


def host(text: str) -> str:
    """`yandex.ru` or `http://127.0.0.1:8080/` as an address without a path. Raises ArgumentTypeError."""
    wrong = ArgumentTypeError(f"{text!r} is no host such as yandex.ru or http://127.0.0.1:8080")
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = parts.port or 0
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise wrong
    if parts.username is not None or not 0 <= port <= 65535:
        raise wrong
    return f"{parts.scheme}://{parts.netloc.lower()}"


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


def names_queries(args: Namespace) -> bool:
    """Whether the command line names queries; where it does not, the step goes on with its queue."""
    return bool(args.images or args.keywords or args.keywords_file)


def check(args: Namespace) -> None:
    """The rules across flags that need no engine. Raises UsageError."""
    chosen = [mode for mode in MODES if getattr(args, mode)]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} do not go together; give one of them.")
    if args.timeout <= 0:
        raise UsageError("--timeout must be more than 0 seconds.")
    if args.pause_on_captcha and not args.headed:
        raise UsageError("--pause-on-captcha needs a window that you can see; add --headed.")
    if args.profile and not args.pause_on_captcha:
        raise UsageError("--profile is for --pause-on-captcha; add it, or leave --profile out.")
    if args.yes and not args.expand:
        raise UsageError("--yes belongs to --expand; leave it out.")
    if args.replay:
        _check_replay(args)
    filters = filters_in(vars(args))
    if filters and not names_queries(args) and not args.expand:
        raise UsageError(f"--{next(iter(filters))} is part of a new search; give --keywords with it.")


def _check_replay(args: Namespace) -> None:
    if len(args.engine or ()) > 1:
        raise UsageError("--replay is about one engine; give one --engine.")
    if not names_queries(args):
        raise UsageError("--replay needs the query that was answered; give it as --keywords or --images.")
    if not args.replay.exists():
        raise UsageError(f"{args.replay} does not exist; give a HAR file, a raw answer, or a folder of them.")
