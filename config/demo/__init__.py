"""A carrier's month, lived in a minute on a real trace: the program `make demo` runs."""
