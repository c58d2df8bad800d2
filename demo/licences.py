"""Who made a picture and what may be done with it, as the open collections say. Names and pages are invented."""

from __future__ import annotations

from dataclasses import dataclass

from demo.catalog import Picture

SITE = "https://creativecommons.org"


@dataclass(frozen=True)
class Licence:
    """A licence by its code (`by-sa`), version, the name people use, and the address of its deed."""

    code: str
    version: str
    name: str
    url: str

    @property
    def attribution_required(self) -> bool:
        return self.code.startswith("by")


LICENCES = (
    Licence("by", "4.0", "CC BY 4.0", f"{SITE}/licenses/by/4.0/"),
    Licence("cc0", "1.0", "CC0", f"{SITE}/publicdomain/zero/1.0/"),
    Licence("by-sa", "4.0", "CC BY-SA 4.0", f"{SITE}/licenses/by-sa/4.0/"),
    Licence("pdm", "1.0", "Public domain", f"{SITE}/publicdomain/mark/1.0/"),
    Licence("by-sa", "3.0", "CC BY-SA 3.0", f"{SITE}/licenses/by-sa/3.0/"),
    Licence("by", "2.0", "CC BY 2.0", f"{SITE}/licenses/by/2.0/"),
)
CREATORS = ("Ada Lindqvist", "Юрий Соколов", "M. Okafor", "김서연", "Paulo & Rita Neves", "Städtisches Archiv", "")


def licence_of(picture: Picture) -> Licence:
    return LICENCES[picture.scene.number % len(LICENCES)]


def creator_of(picture: Picture) -> str:
    """The creator's name; '' where nobody knows it."""
    return CREATORS[picture.scene.number % len(CREATORS)]


def creator_page(picture: Picture) -> str:
    number = picture.scene.number % len(CREATORS)
    return f"https://people.harbour.example/{number}" if CREATORS[number] else ""


def attribution(picture: Picture) -> str:
    """The line to print beside the picture."""
    licence, creator = licence_of(picture), creator_of(picture)
    by = f" by {creator}" if creator else ""
    verb = "is licensed under" if licence.attribution_required else "is marked with"
    return f'"{picture.title}"{by} {verb} {licence.name}. To view the terms, visit {licence.url}.'
