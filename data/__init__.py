import training  # noqa: F401  first: see there
