"""Recipes: a run described by a TOML file, from the data to the trained model.

`tables.py` has the keys of the file, and `file.py` reads it. `text.py` and `records.py` build the data,
`parts.py` tokenizer and model, `objectives.py` the objective; `prepare.py` puts them together. `run.py` runs
them, and `plan.py` measures what a run takes.
"""
