"""The place of weights, and building the models of other packages from local files only; nothing is fetched.

Weights lie in one folder of ours, or in the caches that other programs have filled already.

pyiqa, torch.hub, openai-clip and Hugging Face's hub all download what they miss, the last with 45 seconds of retries
where there is no network. While `no_downloads` is open each of them asks our `WeightsFolder` instead, which has the
file or says in one sentence which one is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lib.errors import GleanerError, UsageError, broken_installation

log = logging.getLogger("gleaner.models")

DEFAULT_FOLDER = Path("~/.cache/gleaner/models")
BELOW = ("", "hub/pyiqa", "hub/clip", "hub/checkpoints", "clip", "pyiqa", "checkpoints")
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # torch.hub's custom: the first digits of the file's SHA-256

INSTALL = "pip install -r requirements.txt"
OLDER_FORM = "pytorch_model.bin"
_PACKAGES = ("pyiqa", "clip", "timm", "torchvision")


class MissingWeights(UsageError):
    """A model's weights are not here. `name` is the file, `url` where it is published ('' where that is unknown)."""

    def __init__(self, name: str, url: str, folder: Path, instead: str = ""):
        source = f" from {url}" if url else ""
        end = f", or use {instead}" if instead else ""
        super().__init__(f"the weights {name} are not here; put that file{source} into {folder}{end}.")
        self.name, self.url = name, url


@dataclass(frozen=True)
class WeightsFolder:
    """The folder of `--models-dir`."""

    path: Path

    @property
    def hub(self) -> Path:
        """The folder for what comes from Hugging Face's hub, in the hub's own layout."""
        return self.path / "huggingface"

    def need(self, name: str, url: str = "", instead: str = "") -> Path:
        """The weights file of this name: ours first, then torch's cache. Raises MissingWeights where there is none."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser()
        for root in (self.path, torch_home, cache):
            for below in BELOW:
                if (path := root / below / name).is_file():
                    return path
        raise MissingWeights(name, url, self.path, instead)

    def need_address(self, url: str, instead: str = "") -> Path:
        """The file that is published at this address, by its name."""
        return self.need(unquote(urlsplit(url).path).rpartition("/")[2], url, instead)


def weights_folder(folder: Path | None) -> WeightsFolder:
    """The weights folder of `--models-dir`, the default folder without one."""
    return WeightsFolder((folder or DEFAULT_FOLDER).expanduser())


def need_early(packages: Sequence[str], need: Callable[[], object]) -> None:
    """Looks for a usual model's weights by `need` while torch is not imported, so that their absence is told at once.

    Where one of the packages is not installed nothing is done: its absence is what is to be told.
    """
    if all(map(find_spec, packages)):
        need()


def fingerprint(files: Iterable[Path]) -> str:
    """Twelve digits that tell these weights from others: scores of other weights are never taken for theirs.

    A file that does not have the digest that its name promises is told of: it may be cut short.
    """
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        promised = _DIGEST_IN_NAME.search(path.name)
        if promised and not digest.startswith(promised[1]):
            log.warning("%s has not the digest in its name: it was cut short, or is not the published file", path)
        whole.update(digest.encode())
    return whole.hexdigest()[:12]


def first_line(error: BaseException) -> str:
    """The first line of an error that loading a broken file has raised, short."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:160]


@contextlib.contextmanager
def no_downloads(folder: WeightsFolder, instead: str = "") -> Iterator[list[Path]]:
    """Gives the list of the files that the model asked for, filled while it is built.

    What the packages print goes nowhere, since stdout is a step's result. Raises MissingWeights.
    """
    asked: list[Path] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        _take_hub_offline(stack, folder)
        _replace(stack, _fetchers(folder, instead, asked))
        yield asked


def _fetchers(folder: WeightsFolder, instead: str, asked: list[Path]) -> dict[str, Callable[..., Any]]:
    """The functions that stand in for the packages' own, by the names that these have."""

    def find(url: Any, *_: Any, **options: Any) -> str:
        url = getattr(url, "full_url", url)
        name = options.get("file_name") or options.get("filename")
        path = folder.need(name, url, instead) if name else folder.need_address(url, instead)
        asked.append(path)
        return str(path)

    def load(url: str, *_: Any, **options: Any) -> Any:
        import torch

        return torch.load(find(url, **options), map_location="cpu", weights_only=True)

    def refuse(url: Any, *_: Any, **__: Any) -> None:
        raise GleanerError(f"a download of {find(url)} was asked for, which is here; its package cannot find it.")

    def from_hub(repo_id: str, filename: str, *_: Any, **__: Any) -> str:
        try:
            path = hub_file(folder, repo_id, (filename,), instead)
        except MissingWeights:
            hub_file(folder, repo_id, (filename, OLDER_FORM), instead)
            from huggingface_hub.errors import LocalEntryNotFoundError

            raise LocalEntryNotFoundError(filename) from None  # timm asks for the older form next
        asked.append(path)
        return str(path)

    return {
        "load_file_from_url": find,
        "_download": find,
        "load_state_dict_from_url": load,
        "download_url_to_file": refuse,
        "urlopen": refuse,
        "hf_hub_download": from_hub,
    }


def _replace(stack: contextlib.ExitStack, replaced: Mapping[str, Callable[..., Any]]) -> None:
    """Until the stack is left: in the modules that are there, and in those that are imported meanwhile.

    pyiqa imports a metric's module, and that the packages it needs, when the metric is asked for.
    """

    def replace_in(module: types.ModuleType) -> None:
        for name, function in replaced.items():
            if name in vars(module) and callable(vars(module)[name]):
                stack.enter_context(_swapped(module, name, function))

    for module in _modules():
        replace_in(module)
    watch = _Imports(replace_in)
    sys.meta_path.insert(0, watch)
    stack.callback(sys.meta_path.remove, watch)


class _Imports(MetaPathFinder):
    """Hands every module of the watched packages on right after it was imported."""

    def __init__(self, then: Callable[[types.ModuleType], None]):
        self.then = then

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.split(".")[0] not in _PACKAGES:
            return None
        others = (finder for finder in sys.meta_path if not isinstance(finder, _Imports))
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_tell(module: types.ModuleType) -> None:
                execute(module)
                self.then(module)

            spec.loader.exec_module = execute_and_tell  # type: ignore[method-assign]
        return spec


def require(package: str) -> Any:
    """The package, imported; GleanerError with one sentence where it is missing or cannot work here."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if package in ("pyiqa", "open_clip"):
        require("torchvision")
    if package == "pyiqa":
        _provide_pkg_resources()
    try:
        with _quiet():
            return __import__(package)
    except ModuleNotFoundError as error:
        raise GleanerError(f"{package} cannot be imported ({error}); {INSTALL}") from error
    except ImportError as error:  # it is there and broken
        raise GleanerError(broken_installation(error)) from error
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        raise GleanerError(
            "torch is a CPU-only build and torchvision is not; install both in one command:"
            " pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
        ) from error


def hub_file(folder: WeightsFolder, repository: str, names: tuple[str, ...], instead: str = "") -> Path:
    """A file from Hugging Face's hub: the first of the names that is in our folder or in the hub's own cache.

    A file that was put into the models folder as `<repository with / as -->/<name>` counts too.
    """
    from huggingface_hub import try_to_load_from_cache

    own = folder.path / repository.replace("/", "--")
    for name in names:
        if (path := own / name).is_file():
            return path
        for cache in (folder.hub, None):
            found = try_to_load_from_cache(repository, name, cache_dir=cache)
            if isinstance(found, str):
                return Path(found)
    raise MissingWeights(names[0], f"https://huggingface.co/{repository}/resolve/main/{names[0]}", own, instead)


def _modules() -> list[types.ModuleType]:
    found = [module for name, module in list(sys.modules.items()) if name.split(".")[0] in _PACKAGES and module]
    others = [sys.modules[name] for name in ("torch.hub", "urllib.request") if name in sys.modules]
    return [*found, *others]


@contextlib.contextmanager
def _swapped(module: types.ModuleType, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _take_hub_offline(stack: contextlib.ExitStack, folder: WeightsFolder) -> None:
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:
        return
    stack.enter_context(_swapped(constants, "HF_HUB_OFFLINE", True))
    if folder.hub.is_dir():
        stack.enter_context(_swapped(constants, "HF_HUB_CACHE", str(folder.hub)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences print, warnings and logs: other packages tell every step of loading, and what matters is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _provide_pkg_resources() -> None:
    """openai-clip imports `packaging` from pkg_resources, which setuptools 82 and newer no longer have."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pkg_resources  # noqa: F401
    except ModuleNotFoundError:
        import packaging
        import packaging.version

        stub: Any = types.ModuleType("pkg_resources")
        stub.packaging = packaging
        sys.modules["pkg_resources"] = stub
