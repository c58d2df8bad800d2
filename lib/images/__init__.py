"""Decoding pictures and telling formats from their bytes."""
