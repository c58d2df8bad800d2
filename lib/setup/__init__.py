"""Step 0, `0_setup.py`: the standard library only, because nothing else is installed yet."""
