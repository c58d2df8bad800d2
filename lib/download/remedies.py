"""The remedies that step 5 knows for a reason: a flag that lifts a refusal, a setting, or asking again."""

from __future__ import annotations

from collections.abc import Mapping

from lib.db.download_queue import ROBOTS_TXT
from lib.db.duplicates import REMOVED
from lib.domains import BLOCKED as BLOCKED_DOMAIN
from lib.domains import NOT_ALLOWED
from lib.download.options import DownloadOptions
from lib.download.picture import NO_ADDRESS, OPTED_OUT
from lib.net.failures import TRANSIENT
from lib.net.guard import PORT_REFUSED, PRIVATE_ADDRESS
from lib.text import counted

PRIVATE = "add --allow-private where the server is your own: what was refused is then asked again"
LISTS = "change the list or leave it out, and add --retry-failed blocked_domain not_allowed_domain"
REMEDIES = {
    PRIVATE_ADDRESS: PRIVATE,
    PORT_REFUSED: PRIVATE,
    ROBOTS_TXT: "the owner's robots.txt forbids it; where you have the right to, --robots report asks all the same,"
    " and --retry-failed robots_txt once the file has changed",
    OPTED_OUT: "their owners have opted out, which no flag lifts",
    BLOCKED_DOMAIN: LISTS,
    NOT_ALLOWED: LISTS,
    "too_large": "allow larger files with --max-bytes and add --retry-failed too_large",
    REMOVED: "step 6 took them away as repeats; 6_dedup.py --undo makes them pending again",
    NO_ADDRESS: "no address of them is left; search again with 1_collect.py, or look at 4_db_cleanup.py --undo last",
}
CONTACT = "set GLEANER_CONTACT to a mail address or a page, so that servers see who asks, and "
REFUSING = frozenset({"http_401", "http_403", "http_429"})  # answers to somebody who gives no name


def remedy(reason: str, options: DownloadOptions) -> str:
    """Says what can be done about a reason; empty where nothing can."""
    if reason == "too_many_pixels" and options.pictures.max_pixels < type(options.pictures)().max_pixels:
        return "allow larger pictures with --max-megapixels and add --retry-failed too_many_pixels"
    if reason in REFUSING:
        again = f"add --retry-failed {reason} to ask again"
        return again if options.contact.strip() else CONTACT + again
    if reason in TRANSIENT:
        return f"add --retry-failed {reason} to ask again, which may help later"
    return REMEDIES.get(reason, "")


def why_nothing_came(reasons: Mapping[str, int], options: DownloadOptions) -> str:
    """A sentence for a run in which no row has got a picture: the commonest reason, and what can be done about it."""
    if not reasons:
        return "no picture came."
    total, reason = sum(reasons.values()), max(reasons, key=lambda name: reasons[name])
    what_to_do = remedy(reason, options)
    ended = f"no picture came: {reasons[reason]:,} of {counted(total, 'picture')} ended as {reason}"
    return f"{ended}; {what_to_do}." if what_to_do else f"{ended}."


def how_to_lift(reasons: Mapping[str, int]) -> str:
    """A sentence about what was refused in a run that has got other pictures; empty where nothing was."""
    refused = sum(reasons.get(reason, 0) for reason in (PRIVATE_ADDRESS, PORT_REFUSED))
    return f"{counted(refused, 'picture')} {'was' if refused == 1 else 'were'} refused; {PRIVATE}." if refused else ""
