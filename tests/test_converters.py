"""What the converters of options accept, what they make of it, and what they say of the rest."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

import pytest

from lib.arguments import at_least, between, number, positive, run_reference, share, whole
from lib.sort.export.options import megabytes
from lib.sort.options import above_zero, edges, epsilon, long_side


@pytest.mark.parametrize(
    ("convert", "text", "value"),
    [
        (whole, "0", 0),
        (whole, "9223372036854775807", 2**63 - 1),
        (positive, "1", 1),
        (at_least(2), "2", 2),
        (number, "-0.5", -0.5),
        (number, "1e3", 1000.0),
        (between(-1, 1), "-1", -1.0),
        (between(0, 100), "100", 100.0),
        (between(0.1, 3600), "0.1", 0.1),
        (share, "0.25", 0.25),
        (share, "25%", 0.25),
        (share, "100%", 1.0),
        (run_reference, "last", "last"),
        (run_reference, "7", "7"),
        (epsilon, "auto", None),
        (epsilon, "0.18", 0.18),
        (edges, "0.5,2,8", (0.5, 2.0, 8.0)),
        (above_zero, "0.01", 0.01),
        (long_side, "224", 224),
        (megabytes, "5", 5_000_000),
    ],
)
def test_what_is_accepted(convert: Callable[[str], Any], text: str, value: Any) -> None:
    assert convert(text) == value


@pytest.mark.parametrize(
    ("convert", "text", "said"),
    [
        (whole, "x", "not a whole number"),
        (whole, "1.5", "not a whole number"),
        (whole, "", "not a whole number"),
        (whole, "-1", "less than 0"),
        (whole, "9" * 30, "too large"),
        (positive, "0", "not 1 or more"),
        (at_least(2), "1", "not 2 or more"),
        (number, "x", "not a number"),
        (number, "nan", "not finite"),
        (number, "inf", "not finite"),
        (between(-1, 1), "1.01", "not between -1 and 1"),
        (between(0, 100), "nan", "not finite"),
        (between(0.1, 3600), "0", "not between 0.1 and 3600"),
        (share, "2", "not between 0 and 1"),
        (share, "nan", "no share"),
        (share, "%", "no share"),
        (run_reference, "first", "neither"),
        (epsilon, "0", "neither auto nor"),
        (epsilon, "x", "not a number"),
        (edges, "2,1", "does not ascend"),
        (edges, "1,,2", "not a number"),
        (above_zero, "0.001", "not 0.01 or more"),
        (long_side, "100", "no number of pixels"),
        (megabytes, "0", "not 1 or more"),
    ],
)
def test_what_is_refused_and_what_is_said(convert: Callable[[str], Any], text: str, said: str) -> None:
    with pytest.raises(ArgumentTypeError, match=said):
        convert(text)
