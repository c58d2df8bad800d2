"""Takes the two pictures of README from the pages of a demo: the front page, and repeated pictures side by side.

    python3 0_setup.py demo
    python -m demo.screenshots                        # from workspace-demo into docs/images/
    python -m demo.screenshots --workspace DIR --to DIR

Everything that can be seen on them is the gallery's own: made in code, or cut from scikit-learn's sample photographs.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("index", "dedup")
SIZE = {"width": 1280, "height": 1040}
LARGEST = 200_000  # bytes of one picture: README is read by everybody, on telephones too
QUALITIES = range(85, 30, -10)
# Names the workspace alone in the commands of a page: where it lies on this machine is nobody's business.
_SHORTEN = """(place) => {
  for (const code of document.querySelectorAll("code"))
    code.textContent = code.textContent.replaceAll(place, place.split(/[\\\\/]/).pop());
}"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m demo.screenshots", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--workspace", type=Path, default=ROOT / "workspace-demo", help="default: workspace-demo")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images", help="default: docs/images")
    args = parser.parse_args(argv)
    missing = [name for name in PAGES if not (args.workspace / "reports" / f"{name}.html").is_file()]
    if missing:
        parser.error(f"{args.workspace} has no page {missing[0]}; run python3 0_setup.py demo first")
    args.to.mkdir(parents=True, exist_ok=True)
    for name, shown in zip(PAGES, photograph(args.workspace / "reports"), strict=True):
        path = args.to / f"{name}.webp"
        path.write_bytes(smaller(shown))
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0


def photograph(reports: Path) -> list[bytes]:
    """The upper part of each page as PNG, as a reader with a light theme sees it."""
    from playwright.sync_api import sync_playwright

    from lib.web.browser import require_browser
    from lib.web.find_browser import launch_arguments

    choice = require_browser(headed=False)
    taken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=choice.executable_path, args=launch_arguments())
        tab = browser.new_page(viewport=SIZE, color_scheme="light")
        for name in PAGES:
            tab.goto((reports / f"{name}.html").resolve().as_uri())
            tab.wait_for_load_state("networkidle")
            tab.evaluate(_SHORTEN, str(reports.resolve().parent))
            taken.append(tab.screenshot())
        browser.close()
    return taken


def smaller(png: bytes) -> bytes:
    """The picture as WebP, below `LARGEST` bytes."""
    from PIL import Image

    shown = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in QUALITIES:
        made = io.BytesIO()
        shown.save(made, "WEBP", quality=quality, method=6)
        if made.tell() < LARGEST:
            break
    return made.getvalue()


if __name__ == "__main__":
    sys.exit(main())
