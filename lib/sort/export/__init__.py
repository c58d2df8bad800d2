"""The kept pictures as a dataset that others can load.

run        chooses pictures, splits them, writes the dataset beside its place and puts it there whole
split      train, val and test: stable over runs, repeats on one side
records    what is known of a picture, as one flat record
writers    Hugging Face's imagefolder, WebDataset's tar shards, Parquet
card       README.md and the attribution file
"""
