"""Step 6: which pictures repeat which, which one of them stays, and what is done about the others.

fingerprints   every content's hash and buffers, from the cache or from one reduced decode
neighbours     the search: hashes near each other, as they are or under a view, remembered
pairs          which contents are near enough to be looked at together
semantic       which contents show the same subject, by embedding
queries        what is too near to a query picture, or too far from all of them
judge          what two files are to each other: confirm (pixels, tone, colour) and filenames
traits          what makes one file better than another: the keep key
grouping       keeper first: a file goes only if it directly repeats a file that stays
plan           the moves, checked again right before each one
undo, purge    taking a run back, deleting its quarantine for good
page           the report, JSON and CSV
"""
