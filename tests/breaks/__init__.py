"""Security checks, each broken by hand, one at a time: each has to turn a named test red.

A test that cannot fail holds nothing. `table.py` lists the breaks, `runner.py` makes them in a copy
of the tree and runs the tests; ``make breaks`` does so for all of them.
"""
