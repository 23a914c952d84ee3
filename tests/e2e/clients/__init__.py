"""The clients of the matrix: their programs, and the tables that say how each is used."""
