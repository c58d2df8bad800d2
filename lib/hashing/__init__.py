"""Perceptual hashes: what a picture looks like, in few bits, and which of them lie close together.

Nothing here knows the database or the network: pictures go in, arrays come out.
"""
