"""Step 6: finds pictures that repeat others, chooses which copy stays, and moves the others away.

run           the story of a run, from the files to the report
options       the flags, and the frozen value made of them
inputs        the files, decisions made by hand, the query pictures
fingerprints  every content's hash and buffers, from the cache or from one reduced decode
near          the search: contents whose hashes or embeddings lie near each other
compare       two pictures: tone, sharpness, colour, and what is left between them
judge         two files: the strongest relation that can be proved
keep          the order in which files are kept
grouping      keeper first: a file goes only if it directly repeats a file that stays
groups        from files to groups, by all of the above
plan          the moves, checked again right before each one; questions; deleting a quarantine for good
restore       pictures that come back one by one
report        the page, JSON, CSV and text
current       that page as things are now: with the quarantine, and without what has come back
"""
