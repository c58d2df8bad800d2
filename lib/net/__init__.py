"""Fetching addresses that strangers wrote down: guarded, bounded, polite.

Nothing here knows the database or what a picture is.
"""
