"""The records of Baidu's answers: enciphered, wrapped and plain addresses, signatures, an advertisement a page."""

from __future__ import annotations

import html
import json
from typing import Any
from urllib.parse import quote, urlsplit

from demo.catalog import Picture, digest
from demo.site import Site

# The cipher, letter by letter; what is not named stays.
CIPHER = str.maketrans(
    "abcdefghijklmnopqrstuvw1234567890:./",
    "wkv1ju2it3hs4g5rq6fp7eo8dn9cm0bla\0\1\2",
)
DIGRAPHS = (("\0", "_z2C$q"), ("\1", "_z&e3B"), ("\2", "AzdH3F"))
LINK_EXPIRES = 4_102_444_800  # the wrapped addresses' last second, far in the future: the gallery has no clock
AD_PLACE = 4


def enciphered(address: str) -> str:
    """An address as `objURL` and `fromURL` give it: `http:` becomes `ippr_z2C$q`."""
    address = address.translate(CIPHER)
    for mark, pair in DIGRAPHS:
        address = address.replace(mark, pair)
    return address


def wrapped(address: str, page_url: str) -> str:
    """An address inside that of the re-encoding proxy, which is signed and expires."""
    parts = urlsplit(page_url)
    values = f"src={quote(address, safe='')}&refer={quote(f'{parts.scheme}://{parts.netloc}', safe='')}"
    sign = f"sec={LINK_EXPIRES}&t={digest(address)}"
    return f"https://gimg2.baidu.com/image_search/{values}&app=2002&size=f9999,10000&q=a80&n=0&g=0n&fmt=jpeg?{sign}"


def signature(picture: Picture) -> str:
    """The pair of numbers by which Baidu knows a thumbnail."""
    return f"{int(picture.id[:8], 16)},{int(picture.id[8:16], 16)}"


def thumb_url(site: Site, picture: Picture) -> str:
    return f"{site.url}/it/u={signature(picture)}&fm=253&fmt=auto&app=138&f=JPEG"


def listing(site: Site, found: list[Picture], rows: list[Picture], words: str, offset: int) -> dict[str, Any]:
    """One `acjson` answer; its list ends with an empty object."""
    data = [item(site, picture, offset + place) for place, picture in enumerate(rows)]
    if len(data) > AD_PLACE:
        data.insert(AD_PLACE, advertisement(site, rows[0], offset))
    return {
        "queryEnc": quote(words),
        "queryExt": words,
        "listNum": len(found),
        "displayNum": len(found) * 19,
        "gsm": f"{offset + len(rows):x}",
        "bdFmtDispNum": f"约{len(found) * 19}",
        "bdSearchTime": "",
        "isNeedAsyncRequest": 0,
        "bdIsClustered": "1",
        "data": [*data, {}],
    }


def item(site: Site, picture: Picture, rank: int) -> dict[str, Any]:
    """One picture at its rank in the whole list."""
    original, thumb = site.link(picture.original), thumb_url(site, picture)
    record: dict[str, Any] = {
        "adType": "0",
        "hasAspData": "0",
        "thumbURL": thumb,
        "middleURL": thumb,
        "hoverURL": thumb if picture.number % 6 else "",
        "largeTnImageUrl": "",
        "hasLarge": 0,
        "pageNum": rank,
        "objURL": object_url(picture, original),
        "fromURL": enciphered(picture.page_url),
        "fromURLHost": urlsplit(picture.page_url).hostname or "",
        "currentIndex": "",
        "width": picture.claimed[0],
        "height": picture.claimed[1],
        "type": urlsplit(original).path.rpartition(".")[2].lower(),
        "is_gif": int(picture.animated),
        "filesize": "",
        "bdSrcType": "0",
        "di": str(int(digest(f"di {picture.id}", 14), 16)),
        "pi": "0",
        "is": "0,0",
        "imgCollectionWord": "",
        "hasThumbData": "0",
        "bdSetImgNum": 0,
        "partnerId": 0,
        "spn": 0,
        "bdImgnewsDate": "1970-01-01 08:00" if picture.number % 3 else f"2019-0{1 + picture.number % 9}-12 09:30",
        **_titles(picture),
        "bdFromPageTitlePrefix": "",
        "isAspDianjing": 0,
        "token": "",
        "imgType": "",
        "cs": signature(picture),
        "os": f"{int(picture.id[16:24], 16)},{int(picture.id[24:32], 16)}",
        "simid": f"{int(picture.id[4:12], 16)},{picture.scene.number}",
        "personalized": "0",
        "simid_info": None,
        "face_info": None,
        "xiangshi_info": None,
        "adPicId": "0",
        "source_type": "",
    }
    if picture.number % 4:  # Some answers do without, some say [].
        copies = [{"ObjURL": site.link(dup), "FromURL": picture.page_url} for dup in picture.dups[:1]]
        record["replaceUrl"] = copies
    return record


def object_url(picture: Picture, original: str) -> str:
    """The original enciphered, plain, or wrapped.

    Only working originals are wrapped, so that nobody has a reason to try the proxy, which is no part of the gallery.
    """
    way = picture.number % 3
    if way == 2 and not picture.trouble:
        return wrapped(original, picture.page_url)
    return original if way == 1 else enciphered(original)


def advertisement(site: Site, picture: Picture, offset: int) -> dict[str, Any]:
    return item(site, picture, offset) | {"adType": "1", "di": f"99{offset:08d}", "adPicId": "7", "isAspDianjing": 1}


def _titles(picture: Picture) -> dict[str, str]:
    """The page's title with and without markup; now and then a name with an apostrophe, or a tab."""
    first, _, rest = html.escape(picture.title, quote=False).partition(" ")
    tab = "\t" if picture.number % 11 == 3 else " "
    return {
        "fromPageTitle": f"<strong>{first}</strong>{tab}{rest}",
        "fromPageTitleEnc": picture.title,
        "bdSourceName": "Traveller's notes" if picture.number % 5 == 1 else "",
    }


def spoken(payload: dict[str, Any]) -> str:
    """The answer as Baidu writes it: not quite JSON, with escaped apostrophes and raw tabs within strings."""
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return text.replace("'", "\\'").replace("\\t", "\t")
