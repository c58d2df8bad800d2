"""README and docs: every command runs or has a reason not to, README's end as the text says, every page is linked."""

from __future__ import annotations

import re

import pytest
from docs_commands import ENDINGS, NOT_RUN, ROOT, check, commands_of, pages

README = (ROOT / "README.md").read_text(encoding="utf-8")
LARGEST_PICTURE = 200_000  # bytes


def test_what_is_not_run_and_what_ends_otherwise_is_still_there() -> None:
    """No silent gaps: what has left the texts leaves the lists too, and every list has a reason or an ending."""
    shown = {command.text for page in pages() for command in commands_of(page)}
    assert sorted(NOT_RUN.keys() - shown) == []
    assert sorted(ENDINGS.keys() - shown) == []
    assert NOT_RUN.keys().isdisjoint(ENDINGS) and all(len(reason) > 2 for reason in NOT_RUN.values())
    assert len(shown) > 100


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs git's list of files")
def test_the_commands_of_readme_end_as_it_says() -> None:
    assert check([ROOT / "README.md"]) == []


def test_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(docs/(\w+\.md)[)#]", README))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == linked


def test_links_between_pages_lead_somewhere() -> None:
    for page in pages():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_says_first_things_first() -> None:
    """The core before the models with both sizes, the contact before the first open source, a recipe and an export."""
    order = [
        "--core",
        "GLEANER_CONTACT=",
        "--engine openverse",
        "7_sort_quality.py export",
        "0_setup.py run recipes/",
        "7.5 GB",
    ]
    places = [README.index(part) for part in order]
    assert places == sorted(places)
    assert "about 1 GB" in README


def test_the_pictures_of_readme_are_small() -> None:
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert len(shown) == 2
    for name in shown:
        assert 5_000 < (ROOT / name).stat().st_size < LARGEST_PICTURE
