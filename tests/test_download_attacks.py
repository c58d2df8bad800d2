"""Every attack of the open web that step 5 has to survive: its state, its reason, what it cost in memory.

Many of these would never end without the limits of step 5; pytest's own limit on a test tells when one is missing.
"""

from __future__ import annotations

import io
import os
import resource
from pathlib import Path

import pillow_heif
import pytest
from download_support import (
    command,
    consistent,
    files,
    fill,
    limits_for,
    only,
    originals,
    rows,
    run,
    start,
    step,
)
from hostile_server import Site
from PIL import Image
from rare_pictures import FAKES, JXL, made
from support import PATIENCE

from lib.db import open_database
from lib.workspace import Workspace

MOST_MEMORY = 48.0  # MB above what the process had: less than one of the larger bodies would take


def peak(reset: bool = False) -> float:
    """The most memory that this process has had since the last reset, in MB (0 where the system does not tell)."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


ATTACKS = [
    # what it is, path, state, reason
    ("redirect to the metadata service", "/inside/1", "blocked", "private_address"),
    ("redirect to loopback, wrapped into IPv6", "/mapped/1", "blocked", "private_address"),
    ("redirect to another loopback address", "/metadata/1", "blocked", "private_address"),
    ("redirect to a mail server's port", "/mail/1", "blocked", "port_refused"),
    ("redirect to a file", "/file/1", "failed", "bad_redirect"),
    ("redirect to data", "/data/1", "failed", "bad_redirect"),
    ("redirect to ftp", "/ftp/1", "failed", "bad_redirect"),
    ("redirect to a script", "/script/1", "failed", "bad_redirect"),
    ("redirects in a circle", "/loop/1", "failed", "too_many_redirects"),
    ("redirect to nowhere", "/nowhere/1", "failed", "bad_redirect"),
    ("gzip bomb", "/gzip/1", "failed", "too_large"),
    ("gzip bomb, packed twice", "/twice/1", "failed", "too_large"),
    ("gzip, then bytes without end", "/gziptail/1", "failed", "too_large"),
    ("gzip that unpacks to nothing, without end", "/gzipvoid/1", "failed", "too_large"),
    ("brotli bomb", "/brotli/1", "failed", "encoded_body"),
    ("zstd bomb", "/zstd/1", "failed", "encoded_body"),
    ("endless body", "/endless/1", "failed", "too_large"),
    ("huge body, announced", "/huge/1", "failed", "too_large"),
    ("slow-loris", "/loris/1", "failed", "too_slow"),
    ("no answer", "/silent/1", "failed", "timeout"),
    ("headers that never end", "/raw/headers", "failed", "timeout"),
    ("flood of headers", "/raw/flood", "failed", "bad_response"),
    ("a header of a megabyte", "/raw/line", "failed", "bad_response"),
    ("no status line", "/raw/status", "failed", "bad_response"),
    ("hangs up", "/raw/hangup", "failed", "disconnected"),
    ("fewer bytes than announced", "/cut/1", "failed", "truncated"),
    ("no length, cut", "/raw/closed", "failed", "truncated"),
    ("pixel bomb", "/bomb/1", "failed", "too_many_pixels"),
    ("frame bomb", "/manyframes/1", "failed", "too_many_frames"),
    ("a web page as JPEG", "/html/1", "failed", "not_an_image"),
    ("JSON as JPEG", "/json/1", "failed", "not_an_image"),
    ("SVG with a script", "/svg/1", "failed", "svg_refused"),
    ("empty body", "/empty/1", "failed", "empty"),
    ("Retry-After of 10^9 seconds", "/late/1", "pending", "http_429"),
    ("opt-out", "/noai/1", "opted_out", "opted_out"),
    ("placeholder", "/taken/1", "failed", "placeholder"),
]


@pytest.mark.parametrize(("what", "path", "state", "reason"), ATTACKS, ids=[attack[0] for attack in ATTACKS])
def test_an_attack_costs_one_row(
    workspace: Workspace, site: Site, what: str, path: str, state: str, reason: str
) -> None:
    fill(workspace, originals(site, path))
    before = peak(reset=True)
    run(workspace, allow_private=False, exempt=frozenset({"127.0.0.1"}), limits=limits_for(path))
    memory = peak() - before
    assert (only(workspace)["state"], only(workspace)["reason"]) == (state, reason)
    assert files(workspace) == {} and memory < MOST_MEMORY, memory
    consistent(workspace)


ADDRESSES = """http://127.0.0.1:PORT/good/1 http://10.1.2.3/a http://169.254.169.254/latest http://100.64.0.1/a
http://[::1]:PORT/good/1 http://[::ffff:127.0.0.1]:PORT/good/1 http://[64:ff9b::7f00:1]/a http://[2002:7f00:1::1]/a
http://[fec0::1]/a http://224.0.0.1/a http://localhost:PORT/good/1 http://2130706433:PORT/good/1 http://127.1:PORT/good/1
http://0177.0.0.1:PORT/good/1 http://0:PORT/good/1 http://0x7f000001:PORT/good/1 http://127.0.0.1.:PORT/good/1
http://93.184.216.34:22/a http://93.184.216.34:6379/a file:///etc/hostname data:image/png;base64,iVBORw0KGgo=
ftp://93.184.216.34/a javascript:alert(1) //93.184.216.34/a http:///a""".split()


def test_no_spelling_of_an_address_reaches_the_inside(workspace: Workspace, site: Site) -> None:
    port = site.url.rpartition(":")[2]
    urls = [address.replace("PORT", port) for address in ADDRESSES]
    urls += ["http://a.example/\r\nX: 1", "http://a.example\\@127.0.0.1/", "http://\x00/"]
    fill(workspace, {f"t:{n:02d}": [("original", url)] for n, url in enumerate(urls)})
    run(workspace, allow_private=False, retries=0)
    found = [(row["state"], row["reason"]) for row in rows(workspace).values()]
    assert not site.asked
    allowed = {("blocked", "private_address"), ("blocked", "port_refused"), ("failed", "bad_url")}
    # Short and hexadecimal forms of IPv4 are left to the system's resolver, which knows them or does not.
    allowed |= {("failed", "dns_error"), ("pending", "offline")}
    assert set(found) <= allowed, list(zip(urls, found, strict=True))
    assert found[:11] == [("blocked", "private_address")] * 11


def test_names_and_words_of_strangers_steer_nothing(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """An id that is SQL, a file name in a header, a title and an address with terminal codes."""
    evil = "t:'); DROP TABLE downloads; --"
    fill(workspace, {evil: [("original", site.address("/disposition/1"))]})
    fill(workspace, {"t:\x1b[31m": [("original", site.address("/escape/1"))]})
    assert step.main(command(workspace, "--dry-run")) == 0
    assert step.main(command(workspace, "-vv")) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "owned" in err
    assert {row["state"] for row in rows(workspace).values()} == {"done", "failed"}
    (name,) = files(workspace)
    assert name.endswith(".jpg") and "evil" not in name and name.isascii()
    consistent(workspace)


def test_one_victim_is_asked_by_few_at_once(workspace: Workspace, site: Site) -> None:
    """Many addresses of one server under many names of it do not add up to a flood."""
    site.slow = 0.01
    port = site.url.rpartition(":")[2]
    fill(workspace, {f"t:{n:03d}": [("original", f"http://127.0.0.1:{port}/good/{n}")] for n in range(60)})
    run(workspace, per_host=4, concurrency=40)
    assert site.most_at_once <= 4


def test_too_many_open_files_stop_the_run(workspace: Workspace, site: Site) -> None:
    """It is this machine's fault, and no row's."""
    site.held = True
    fill(workspace, originals(site, *[f"/good/{n}" for n in range(200)]))
    process = start(
        workspace, "--per-host", "60", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    )
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and b"too many files are open" in err and b"Traceback" not in err, err
    assert {row["state"] for row in rows(workspace).values()} <= {"pending", "done"}
    site.held = False
    assert step.main(command(workspace, "-q", "--per-host", "16")) == 0
    assert {row["state"] for row in rows(workspace).values()} == {"done"}


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_a_link_in_the_place_of_a_shelf_leads_nowhere(
    workspace: Workspace, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import hashlib

    (tmp_path / "outside").mkdir()
    workspace.images.mkdir(parents=True)
    (workspace.images / hashlib.sha256(b"test:0000").hexdigest()[:2]).symlink_to(tmp_path / "outside")
    fill(workspace, originals(site, "/good/1"))
    assert step.main(command(workspace)) == 2
    assert "is a link" in capsys.readouterr().err
    assert list((tmp_path / "outside").iterdir()) == [] and not rows(workspace)  # refused before anything is noted


@pytest.mark.parametrize("workers", [1, 2])
def test_the_preview_is_asked_where_the_original_is_no_picture(workspace: Workspace, site: Site, workers: int) -> None:
    """What Pillow opens and cannot decode as well: a sound head, and a page where the pixels should be."""
    avif, jp2 = made("AVIF"), made("JPEG2000")
    header = avif.index(b"mdat\x12\0\x0a") + 8  # AV1's own header, behind its length
    tif, bmp = made("TIFF", compression="tiff_lzw"), made("BMP")
    spoiled = {
        "avif": avif[:header] + b"\xff" * avif[header - 1] + avif[header + avif[header - 1] :],
        "tiff": tif[:8] + bytes(2000) + tif[2008:],
        "jxl": JXL["bare"][1][:20],
        "jp2": jp2[:150] + b"\xff\xff" * ((len(jp2) - 150) // 2 - 1) + jp2[-2:],
        "bmp": bmp[:-9],
    }
    names = list(FAKES)
    site.bodies = dict(enumerate([*FAKES.values(), *spoiled.values()]))
    fill(
        workspace,
        {
            f"test:{n:04d}": [("original", site.address(f"/body/{n}")), ("preview", site.address(f"/good/{n}"))]
            for n in site.bodies
        },
    )
    run(workspace, workers=workers, retries=0)
    wrong = {}
    for n, row in enumerate(rows(workspace).values()):
        if (row["state"], row["kind"]) != ("done", "preview"):
            wrong[[*names, *spoiled][n]] = row["state"], row["kind"], row["reason"], row["log"]
    assert wrong == {}
    with open_database(workspace.database) as db:
        assert db.value("SELECT count(*) FROM files WHERE width IS NULL OR height IS NULL OR bytes < 100") == 0
    consistent(workspace)


def test_real_pictures_of_the_rarer_formats_are_kept(workspace: Workspace, site: Site) -> None:
    real = {f"jxl {name}": sample for name, sample in JXL.items()}
    for form in ("AVIF", "JPEG2000", "TIFF", "BMP"):
        real[form] = (64, 48), made(form)
    real["ICO"] = (32, 32), made("ICO", (32, 32))
    real["j2k"] = (64, 48), made("JPEG2000", no_jp2=True)
    heic = io.BytesIO()
    pillow_heif.from_pillow(Image.effect_noise((70, 50), 80).convert("RGB")).save(heic)
    real["HEIC"] = (70, 50), heic.getvalue()
    site.bodies = {n: data for n, (_, data) in enumerate(real.values())}
    fill(workspace, originals(site, *(f"/body/{n}" for n in site.bodies)))
    run(workspace)
    with open_database(workspace.database) as db:
        found = {
            row["key"]: ((row["width"], row["height"]), row["state"])
            for row in db.rows(
                "SELECT key, files.width, files.height, downloads.state FROM downloads"
                " JOIN images ON images.id = image_id LEFT JOIN files USING (sha256) ORDER BY key"
            )
        }
    assert [state for _, state in found.values()] == ["done"] * len(real), found
    for name, (size, _), (wanted, _) in zip(real, found.values(), real.values(), strict=True):
        assert size == wanted, name
    consistent(workspace)
