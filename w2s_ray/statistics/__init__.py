"""Statistics of a study: intervals over test rows and seeds, comparisons, verdicts, power.

Pure functions of arrays; ``report`` makes the arrays of a study's tables.
"""
