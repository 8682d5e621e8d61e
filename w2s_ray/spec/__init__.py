"""What a researcher writes: the schema of a spec, its loading, and the expansion of its grid.

A spec is validated here, once, and every message names a line of the file; the rest of the code
trusts the types. This package imports no code of ours but ``errors`` and the names of the losses.
"""
