"""Addresses that must not be asked: private networks in every spelling, odd ports, odd schemes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest
from hostile_server import Site, hostile_server, jpeg
from support import PATIENCE

from lib.images.formats import refusal
from lib.net.failures import LONGEST_RETRY_AFTER, TRANSIENT, backoff, retry_after
from lib.net.fetch import FetchFailed, Transfer, Watchdog, fetch, open_session, user_agent
from lib.net.guard import RefusedAddress, is_private, socket_factory
from lib.net.request import BadAddress, FetchLimits, FetchResult, host_of, parse_address

PRIVATE = """127.0.0.1 127.1.2.3 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1
198.18.0.1 192.0.2.1 192.0.0.8 192.88.99.1 203.0.113.7 224.0.0.1 240.0.0.1 255.255.255.255 ::1 :: fe80::1 fe80::1%eth0
fc00::1 fd12::1 fec0::1 ff02::1 2001:db8::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 ::ffff:0:127.0.0.1
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1::1 2002:a00:1::1 2001:0:7f00:1::1
2001:0:4136:e378:8000:63bf:80ff:fffe fe80::5efe:7f00:1 2a00::5efe:127.0.0.1 4000::1 100::1 5f00::1""".split()
PUBLIC = """93.184.216.34 8.8.8.8 1.1.1.1 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 2606:4700::1111
2a00:1450:4001::200e ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1""".split()


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_known(address: str) -> None:
    assert is_private(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_let_through(address: str) -> None:
    assert not is_private(address)


def test_the_factory_refuses_ports_that_serve_no_pictures() -> None:
    make = socket_factory(allow_private=False)
    for port in (22, 25, 3306, 6379, 9200):
        with pytest.raises(RefusedAddress) as caught:
            make((2, 1, 6, "", ("93.184.216.34", port)))
        assert caught.value.reason == "port_refused"
    for port in (80, 443, 8080):
        make((2, 1, 6, "", ("93.184.216.34", port))).close()


class Buffer:
    """A sink in memory."""

    def __init__(self) -> None:
        self.data = b""

    def on_headers(self, answer: FetchResult) -> tuple[str, str]:
        return "", ""

    def on_first_bytes(self, head: bytes) -> tuple[str, str]:
        return refusal(head)

    def restart(self) -> None:
        self.data = b""

    def write(self, block: bytes) -> None:
        self.data += block


@pytest.fixture(scope="module")
def site():
    with hostile_server() as running:
        yield running


def ask(url: str, *, exempt: frozenset[str] = frozenset(), private: bool = False, **limits: float) -> FetchResult:
    async def run() -> FetchResult:
        async with open_session(allow_private=private, exempt=exempt) as session:
            return await fetch(session, parse_address(url), Buffer(), FetchLimits(**limits), Watchdog())  # type: ignore[arg-type]

    try:
        return asyncio.run(run())
    except BadAddress:
        return FetchResult("bad_url")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0x7f000001", "0x7f.1", "0.0.0.0", "169.254.169.254"],
)
def test_loopback_is_refused_in_every_spelling(site: Site, host: str) -> None:
    before = sum(site.asked.values())
    answer = ask(f"http://{host}:{site.url.rpartition(':')[2]}/good/1")
    assert answer.reason in ("private_address", "dns_error", "bad_url"), answer
    assert answer.reason == "private_address" or host.startswith("0x")
    assert sum(site.asked.values()) == before


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1", "0"])
def test_odd_spellings_of_ipv4_never_reach_loopback(site: Site, host: str) -> None:
    before = sum(site.asked.values())
    answer = ask(f"http://{host}:{site.url.rpartition(':')[2]}/good/1")
    assert answer.reason in ("private_address", "dns_error", "bad_url"), answer
    assert sum(site.asked.values()) == before


def test_a_redirect_is_told_and_not_followed(site: Site) -> None:
    answer = ask(site.url + "/moved/1", private=True)
    assert (answer.reason, str(answer.location)) == ("redirected", site.url + "/good/77")
    assert site.asked["/good/77"] == 0


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/file/1", "bad_redirect"), ("/ftp/1", "bad_redirect"), ("/nowhere/1", "bad_redirect")],
)
def test_bad_redirects(site: Site, path: str, reason: str) -> None:
    assert ask(site.url + path, private=True).reason == reason


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://example.com/a.jpg",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "//example.com/a.jpg",
        "/a.jpg",
        "",
        "http://",
        "http:///a",
        "http://exam\nple.com/",
        "http://example.com/a\r\nX: 1",
        "http://example.com\\@127.0.0.1/",
        "http://example.com/\x00",
        "http://example.com:99999/",
        "http://example.com:port/",
        "http://[::1/",
        "http://" + "a" * 9000,
    ],
)
def test_addresses_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(url)


@pytest.mark.parametrize(
    ("given", "asked", "host"),
    [
        ("http://example.com/a%2Fb?x=%41&y=a+b", "http://example.com/a%2Fb?x=%41&y=a+b", "example.com:80"),
        ("https://me:secret@Example.com/a", "https://example.com/a", "example.com:443"),
        ("http://example.com/a b.jpg", "http://example.com/a%20b.jpg", "example.com:80"),
        (" http://example.com:8080/é ", "http://example.com:8080/%C3%A9", "example.com:8080"),
        ("http://пример.рф/", "http://xn--e1afmkfd.xn--p1ai/", "xn--e1afmkfd.xn--p1ai:80"),
    ],
)
def test_addresses_as_they_are_asked(given: str, asked: str, host: str) -> None:
    url = parse_address(given)
    assert str(url).lower() == asked.lower() and host_of(url) == host


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("1000000000", LONGEST_RETRY_AFTER),
        ("9" * 400, LONGEST_RETRY_AFTER),
        ("-1", None),
        ("NaN", None),
        ("1.5e3", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Thu, 01 Jan 1970 00:01:30 GMT", 30.0),
        ("Thu, 01 Jan 1970 00:00:30 GMT", None),
        ("Thu, 01 Jan 2070 00:00:30 GMT", LONGEST_RETRY_AFTER),
        ("Thu, 99 Foo 1970 00:00:30 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=60.0) == seconds


def test_backoff_grows_is_random_and_is_bounded() -> None:
    assert all(0 <= backoff(tries, 1.0) <= min(60.0, 2.0 ** (tries - 1)) for tries in range(1, 40))
    assert len({backoff(3, 1.0) for _ in range(20)}) > 10


def test_classes_of_failure() -> None:
    assert all(r in TRANSIENT for r in "timeout http_429 http_503 http_500 truncated dns_error connect_error".split())
    assert not any(r in TRANSIENT for r in "http_404 http_410 http_403 not_an_image too_large private_address".split())


def test_who_we_are(site: Site) -> None:
    ask(site.url + "/good/5", private=True)
    headers = site.headers["/good/5"]
    assert headers["User-Agent"].startswith("Gleaner/") and headers["Accept-Encoding"] == "identity"
    assert user_agent("me@example.org").endswith("(+me@example.org)")
    assert "\n" not in user_agent("a\nb")


def test_a_page_is_not_read_to_its_end(site: Site) -> None:
    answer = ask(site.url + "/html/1", private=True)
    assert (answer.reason, answer.detail) == ("not_an_image", "a web page: Sign in")


def ask_under_watch(url: str, sink: Buffer, limits: FetchLimits) -> FetchResult:
    """Fetches with a watchman who looks many times a second."""

    async def check(watch: Watchdog) -> None:
        while True:
            await asyncio.sleep(0.03)
            watch.check()

    async def run() -> FetchResult:
        watch = Watchdog()
        looking = asyncio.create_task(check(watch))
        try:
            async with open_session(allow_private=True) as session:
                return await fetch(session, parse_address(url), sink, limits, watch)  # type: ignore[arg-type]
        finally:
            looking.cancel()

    return asyncio.run(asyncio.wait_for(run(), PATIENCE))


def test_headers_that_never_end_are_given_up(site: Site) -> None:
    assert ask_under_watch(site.address("/raw/headers"), Buffer(), FetchLimits(timeout=0.3)).reason == "timeout"


def test_a_transfer_is_as_fast_as_it_is_from_its_first_byte_on() -> None:
    """A server that makes a picture first, for twelve seconds, is not too slow when it begins to send."""

    async def run() -> list[str]:
        task = asyncio.current_task()
        assert task is not None
        transfer = Transfer(task, FetchLimits(timeout=20, min_speed=1000, speed_window=10))
        begun = transfer.started
        found = [transfer.limit_exceeded(begun + 12)]
        transfer.progress(1500)
        return [*found, transfer.limit_exceeded(begun + 12.2), transfer.limit_exceeded(begun + 23)]

    assert asyncio.run(run()) == ["", "", "too_slow"]


class SlowDisk(Buffer):
    """A sink that makes the transfer wait for the disk, once, far longer than a server may take."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds

    def write(self, block: bytes) -> Coroutine[Any, Any, None] | None:  # type: ignore[override]
        super().write(block)
        seconds, self.seconds = self.seconds, 0.0
        return asyncio.sleep(seconds) if seconds else None


def test_a_slow_disk_is_not_the_servers_fault(site: Site) -> None:
    limits = FetchLimits(deadline=0.6, min_speed=1 << 20, speed_window=0.1)
    assert ask_under_watch(site.address("/good/5"), SlowDisk(1.2), limits).reason == ""


class BusyDisk(Buffer):
    """A sink that is slower than the server, so that what comes has to wait in between."""

    def write(self, block: bytes) -> Coroutine[Any, Any, None]:  # type: ignore[override]
        super().write(block)
        return asyncio.sleep(0.002)


def test_a_body_that_had_to_wait_ends_all_the_same(site: Site) -> None:
    """Its last bytes may be here and unread when the disk has caught up, and nothing comes after them."""
    site.bodies[0] = body = jpeg(1) + bytes(range(256)) * 8192
    for _ in range(5):
        sink = BusyDisk()
        assert ask_under_watch(site.address("/body/0"), sink, FetchLimits(timeout=2)).reason == ""
        assert sink.data == body


def test_the_time_in_which_the_process_stood_still_does_not_count() -> None:
    """Stopped by Ctrl-Z for a minute, or held up by a locked database: what came in could not be read."""

    async def run() -> tuple[str, str]:
        task = asyncio.current_task()
        assert task is not None
        watch, limits = Watchdog(), FetchLimits(deadline=30, min_speed=1000, speed_window=10)
        with watch.over(limits) as transfer:
            transfer.progress(1)
            for clock in (transfer, watch):  # a minute passes between two looks
                for name in {"started", "marked_at", "checked_at"} & set(dir(clock)):
                    setattr(clock, name, getattr(clock, name) - 60)
            watch.check()
            stood_still = transfer.ended_by
            transfer.started -= 60  # the same minute again, in which the watchman looked all the time
            with suppress(FetchFailed, asyncio.CancelledError):
                watch.check()
                await asyncio.sleep(0)
            return stood_still, transfer.ended_by

    assert asyncio.run(run()) == ("", "timeout")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/raw/status", "bad_response"),
        ("/raw/flood", "bad_response"),
        ("/raw/line", "bad_response"),
        ("/raw/hangup", "disconnected"),
    ],
)
def test_broken_servers(site: Site, path: str, reason: str) -> None:
    assert ask(site.address(path), private=True).reason == reason
