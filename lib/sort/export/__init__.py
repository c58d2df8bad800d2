"""The kept pictures as a dataset that others can load.

run        chooses pictures, splits them, writes the dataset beside its place and puts it there whole
formats    the record of a picture; Hugging Face's imagefolder, WebDataset's tar shards, Parquet
readable   what can be read, what not and why, and what is converted
card       README.md and the attribution file
"""
