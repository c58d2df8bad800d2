"""Closed-form measures of a picture's technical quality, and the score made of them. No weights, no download."""

from __future__ import annotations

# Part of the cache's key: raise it whenever a signal, an anchor or a weight changes.
TECHNICAL_VERSION = "technical-2"
