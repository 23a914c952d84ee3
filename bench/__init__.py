"""Measures coatcheck side by side with what a user would take instead: `make bench`.

Each pair of ends, proxies and figures stands once: `load` and `upstream` are the two ends,
`contenders` the proxies between them, `cases` what is asked of each, `figures` the arithmetic and
`report` the tables. `soak*.py` are another program, which shares `common` alone.
"""
