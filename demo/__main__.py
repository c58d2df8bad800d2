"""Run the offline gallery until it is told to stop.

When it is ready, one line of JSON on stdout says where: {"url", "hosts", "queries", "pictures"}.

Examples:
    python -m demo
    python -m demo --port 8080 --pictures 60 --queries /tmp/queries
    python -m demo --fault captcha@2x1 --fault 429=5@xhr
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

from demo.app import Gallery
from demo.faults import FaultError
from demo.queries import write_queries


def build_parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        "python -m demo",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=whole(0, 65535), default=0, help="port of the site; 0 takes a free one (default 0)"
    )
    parser.add_argument(
        "--pictures", type=whole(1, 20000), default=240, help="how many pictures there are (default 240)"
    )
    parser.add_argument("--seed", type=int, default=7, help="the same seed makes the same gallery (default 7)")
    parser.add_argument("--hosts", type=whole(1, 64), default=4, help="picture hosts, each on a free port (default 4)")
    parser.add_argument("--page-size", type=whole(1, 500), default=30, help="results on a page (default 30)")
    parser.add_argument(
        "--results", type=whole(1, 20000), default=120, help="the most results a search lists (default 120)"
    )
    parser.add_argument("--queries", type=Path, metavar="DIR", help="write three query pictures into this folder")
    parser.add_argument("--no-broken", action="store_true", help="leave out the slow, broken and missing originals")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND[=VALUE][@WHERE][xCOUNT]",
        help="make something go wrong; see docs/demo.md",
    )
    return parser


def whole(low: int, high: int):  # type: ignore[no-untyped-def]
    """A converter for whole numbers from low to high."""

    def convert(text: str) -> int:
        if not text.lstrip("-").isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return convert


async def serve(args: argparse.Namespace) -> None:
    """Open the gallery, tell where it is, and wait for a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers on the loop.
            loop.add_signal_handler(name, stop.set)
    names = ("host", "port", "pictures", "seed", "hosts", "page_size", "results")
    options = {name: getattr(args, name) for name in names}
    gallery = Gallery(faults=tuple(args.fault), broken=not args.no_broken, **options)
    async with gallery:
        written = write_queries(gallery.site.pictures, args.queries) if args.queries else []
        ready = {
            "url": gallery.url,
            "hosts": gallery.hosts,
            "queries": [str(path) for path in written],
            "pictures": args.pictures,
        }
        print(json.dumps(ready, ensure_ascii=False), flush=True)
        await stop.wait()


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        asyncio.run(serve(args))
    except FaultError as error:
        print(f"--fault: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        reason = error.strerror or str(error)
        print(
            f"cannot serve on {args.host}:{args.port} or write the queries: {reason}; "
            "try another --port, --host or --queries",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
