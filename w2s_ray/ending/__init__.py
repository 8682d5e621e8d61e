"""How a command ends: its exit codes, one line for every way out, signals, outputs that fail."""
