"""Where weights lie. One folder of ours, and the caches that other programs have filled already; nothing is fetched."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lib.errors import UsageError

log = logging.getLogger("gleaner.models")

DEFAULT_FOLDER = Path("~/.cache/gleaner/models")
BELOW = ("", "hub/pyiqa", "hub/clip", "hub/checkpoints", "clip", "pyiqa", "checkpoints")
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # torch.hub's custom: the first digits of the file's SHA-256


class MissingWeights(UsageError):
    """A model's weights are not here. `name` is the file, `url` where it is published ('' where that is unknown)."""

    def __init__(self, name: str, url: str, folder: Path, instead: str = ""):
        source = f" from {url}" if url else ""
        end = f", or use {instead}" if instead else ""
        super().__init__(f"the weights {name} are not here; put that file{source} into {folder}{end}.")
        self.name, self.url = name, url


@dataclass(frozen=True)
class Place:
    """The folder of `--models-dir`."""

    folder: Path

    @property
    def hub(self) -> Path:
        """The folder for what comes from Hugging Face's hub, in the hub's own layout."""
        return self.folder / "huggingface"

    def find(self, name: str) -> Path | None:
        """The weights file of this name: ours first, then torch's cache; None where there is none."""
        for folder in self._folders():
            if (path := folder / name).is_file():
                return path
        return None

    def need(self, name: str, url: str = "", instead: str = "") -> Path:
        """The same; raises MissingWeights where there is none."""
        path = self.find(name)
        if path is None:
            raise MissingWeights(name, url, self.folder, instead)
        return path

    def need_address(self, url: str, instead: str = "") -> Path:
        """The file that is published at this address, by its name."""
        return self.need(file_of(url), url, instead)

    def _folders(self) -> Iterator[Path]:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser()
        for root in (self.folder, torch_home, cache):
            yield from (root / below for below in BELOW)


def place_at(folder: Path | None) -> Place:
    """The place of `--models-dir`, the default folder without one."""
    return Place((folder or DEFAULT_FOLDER).expanduser())


def file_of(url: str) -> str:
    """The name of the file at an address."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def fingerprint(files: Iterable[Path]) -> str:
    """Twelve digits that tell these weights from others: scores of other weights are never taken for theirs.

    A file that does not have the digest that its name promises is told of: it may be cut short.
    """
    whole = hashlib.sha256()
    for path in files:
        digest = _digest(path)
        promised = _DIGEST_IN_NAME.search(path.name)
        if promised and not digest.startswith(promised[1]):
            log.warning("%s has not the digest in its name: it was cut short, or is not the published file", path)
        whole.update(digest.encode())
    return whole.hexdigest()[:12]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
