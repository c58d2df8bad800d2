"""Which address is tried first, and what it is told about where we come from."""

from __future__ import annotations

from lib.db.download_queue import StoredVariant
from lib.download.picture import address_order, referers


def test_kind_comes_first_then_area_downward() -> None:
    variants = [
        StoredVariant(1, "thumb", "http://t/1", 480, 300),
        StoredVariant(2, "dup", "http://d/2", 4000, 3000),
        StoredVariant(3, "preview", "http://p/3", 800, 600),
        StoredVariant(4, "preview", "http://p/4", 1600, 1200),
        StoredVariant(5, "original", "http://o/5"),
        StoredVariant(6, "original", "http://o/6", 100, 100),
        StoredVariant(7, "dup", "http://d/7"),
    ]
    assert [address.variant_id for address in address_order(variants)] == [6, 5, 4, 3, 2, 7, 1]


def test_an_address_is_tried_once_under_its_best_kind() -> None:
    variants = [
        StoredVariant(1, "thumb", "http://x/a"),
        StoredVariant(2, "original", "http://x/a"),
        StoredVariant(3, "dup", "http://x/b"),
    ]
    assert [(address.kind, address.url) for address in address_order(variants)] == [
        ("original", "http://x/a"),
        ("dup", "http://x/b"),
    ]


def test_expired_addresses_go_to_the_end_of_their_kind() -> None:
    variants = [
        StoredVariant(1, "preview", "http://p/1", 900, 900, expires_at="2026-01-01T00:00:00.000Z"),
        StoredVariant(2, "preview", "http://p/2", 90, 90, expires_at="2027-01-01T00:00:00.000Z"),
        StoredVariant(3, "thumb", "http://p/3", 9, 9),
    ]
    assert [address.variant_id for address in address_order(variants, now="2026-06-01T00:00:00.000Z")] == [2, 1, 3]


def test_only_the_wanted_kinds() -> None:
    variants = [StoredVariant(1, "original", "http://o"), StoredVariant(2, "thumb", "http://t")]
    assert [address.variant_id for address in address_order(variants, kinds=("thumb",))] == [2]
    assert address_order([]) == ()


def test_the_same_order_for_the_same_variants_in_any_order() -> None:
    variants = [StoredVariant(n, "dup", f"http://d/{n}", 10, 10) for n in range(6)]
    assert address_order(variants) == address_order(reversed(variants))


def test_referers() -> None:
    cases = [
        (("http://page/", "http://other/x"), ("http://page/", "")),
        (("", "https://page.example/a/b?c"), ("https://page.example/", "https://page.example/a/b?c")),
        (("", "https://me:secret@page.example/a"), ("https://page.example/", "https://me:secret@page.example/a")),
        (("", "https://page.example/"), ("",)),
        (("", "javascript:alert(1)"), ("",)),
        (("", "http://[broken"), ("",)),
        (("", ""), ("",)),
    ]
    for given, expected in cases:
        assert referers(*given) == expected, given
