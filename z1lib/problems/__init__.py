"""Where problems come from, one module a source; each gives a list of `records.Problem`."""
