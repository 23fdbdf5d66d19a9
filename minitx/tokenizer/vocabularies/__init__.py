"""The older vocabulary files of each family: which files, how they are read, what frames a text."""
