"""Where secrets are kept: the home folder, sealing, and the stores that hold sealed values."""
