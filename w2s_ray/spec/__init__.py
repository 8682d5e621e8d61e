"""What a researcher writes: the spec's schema, its loading, and the expansion of its grid to cells.

Everything is checked here, once, with the line of the file in every message; the rooms behind it
trust the types. It imports the leaves and the list of loss names, nothing that computes.
"""
