"""Step 6: which pictures repeat which, which one of them stays, and what is done about the others.

fingerprints   every content's hash and buffers, from the cache or from one reduced decode
pairs          which contents are near enough to be looked at together
judge          what two files are to each other: confirm (pixels, tone, colour) and filenames
facts          what makes one file better than another: the keep key
grouping       keeper first: a file goes only if it directly repeats a file that stays
plan           the moves, checked again right before each one
page           the report, JSON and CSV
"""
