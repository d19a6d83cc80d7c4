"""The calls from Python: compare, train and evaluate, with names or objects."""
