"""A dataset on the Hugging Face hub, by its own client: a private repository unless told otherwise.

The token is the client's affair: `HF_TOKEN` or its login. It is neither asked for nor passed on here. Files that the
hub has already are not sent again, so that the same command continues after an interruption.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

from lib.errors import GleanerError, UsageError
from lib.text import counted

log = logging.getLogger("gleaner.export")


def load_client() -> Any:
    """Returns the hub's client. Raises UsageError where it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise UsageError(
            "--push needs the client of the Hugging Face hub; install it: pip install huggingface_hub"
        ) from error
    return huggingface_hub


def would_push(place: Path, repository: str, *, public: bool, count: int) -> str:
    """Returns a sentence on what would be pushed."""
    return f"would push {counted(count, 'picture')} from {place} to {_shown(repository, public)}"


def push(place: Path, repository: str, *, public: bool) -> str:
    """Makes the repository where there is none, and sends the dataset; gives a sentence with its address.

    Raises GleanerError with the reason where that fails; what has been sent stays, and so does the dataset.
    """
    client = load_client()
    errors = client.errors
    if not sys.stderr.isatty():
        client.utils.disable_progress_bars()
    try:
        api = client.HfApi(library_name="gleaner")
        made = api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        info = api.repo_info(repository, repo_type="dataset")
        if not public and info.private is False:
            raise GleanerError(
                f"{repository} is there and public; nothing was pushed. Give --public, or another name. {_stays(place)}"
            )
        api.upload_folder(
            repo_id=repository, repo_type="dataset", folder_path=str(place), commit_message="Dataset by Gleaner",
            ignore_patterns=[".*", "**/.*"],
        )  # fmt: skip
    except errors.LocalTokenNotFoundError as error:
        raise GleanerError(
            f"the hub wants to know who you are: set HF_TOKEN, or run hf auth login. {_stays(place)}"
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError, RuntimeError) as error:
        raise GleanerError(f"{repository} could not be pushed: {_reason(error)}. {_stays(place)}") from error
    except Exception as error:  # of the client's transport, whose classes change with its releases
        if not _is_of_network(error):
            raise
        raise GleanerError(f"{repository} could not be pushed: {_reason(error)}. {_stays(place)}") from error
    return f"pushed to {made} ({'public' if public else 'private'})"


def _stays(place: Path) -> str:
    return f"The dataset stays in {place}; run the same command again to continue."


def _shown(repository: str, public: bool) -> str:
    return f"{repository} on the Hugging Face hub ({'public' if public else 'private'})"


def _is_of_network(error: Exception) -> bool:
    return type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3", "hf_xet"))


def _reason(error: Exception) -> str:
    """Returns what went wrong in one line, without addresses that may carry a signature."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    known = {
        401: "the token is missing or not valid (HF_TOKEN, or hf auth login)",
        403: "the token may not write there",
        404: "there is no such user or organisation, or the token may not see it",
        413: "a file is too large",
        429: "the hub asks for a pause; try again later",
    }
    if status is not None:
        return known.get(int(status), f"the hub answered {int(status)}")
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"\?\S+", "", re.sub(r"hf_[A-Za-z0-9]+", "hf_...", text))[:200].rstrip(".")
