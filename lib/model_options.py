"""Step 7's flags for models, which several criteria share: where weights lie, what they run on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from lib.models.place import DEFAULT_FOLDER

if TYPE_CHECKING:
    from lib.models.place import Place

DEVICES = ("auto", "cpu", "cuda", "mps")


def add_model_options(to: ArgumentParser) -> None:
    """The flags of everything that runs a model."""
    group = to.add_argument_group("models (nothing is downloaded; what is missing is named)")
    group.add_argument(
        "--models-dir",
        type=Path,
        metavar="DIR",
        help=f"where weights lie, besides the caches of torch and Hugging Face (default: {DEFAULT_FOLDER})",
    )
    group.add_argument(
        "--device", choices=DEVICES, default="auto", help="what models run on (default: auto, the fastest there is)"
    )


def place_of(args: Namespace) -> Place:
    """Where the weights of this run are looked for."""
    from lib.models.place import place_at

    return place_at(args.models_dir)
