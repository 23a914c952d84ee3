"""What no input may do: a table of targets, run over a corpus by `make test`, and by `make fuzz`
over what a coverage-guided engine makes of it (docs/decisions/0013)."""
