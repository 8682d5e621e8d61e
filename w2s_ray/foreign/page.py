"""The page ``docs/limits.md``, whose table is made from the limits alone.

    python -m w2s_ray.foreign.page docs

A test holds that the page is current.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from w2s_ray.foreign.limits import LIMITS

PAGE = "limits.md"

_HEAD = """# Limits

The table of this page is written by `python -m w2s_ray.foreign.page docs`, from
`w2s_ray/foreign/limits.py`.

What comes from outside (specs, data, configurations, tokenizers, headers of weights) is bounded
before it is read, so that no file can take all memory or time, or steer a terminal. Each limit is
far above what studies use. What exceeds one is refused in one line that names the file, the amount
and the limit, with exit code 2 and before any work:

```
study.yaml:12: grid: given 3,000,000 cells (loss 3 × seed 1,000 × noise_ratio 1,000), expected at
most 200,000 (limit grid.cells)
```

The limits are constants. A study that needs more can be split, or the number changed in
`limits.py`; no key depends on them.

* **Files.** Only regular files are opened, links to them included. A FIFO, a socket, a device or a
  folder in a file's place is refused before it is opened; so a spec cannot come from a pipe.
* **Specs.** Aliases and merges of YAML count as often as they are used. Cells are counted before
  `exclude` removes some. Whole numbers have at most 128 bits. Of more than 100 mistakes the first
  are shown, and the others counted; a line of more than 4,000 characters is cut, which it says.
* **Data.** A file may have any size, a row may not. What a compressed or columnar file unpacks to
  is counted as it comes; one of less than 16 MiB is unpacked once before its first row is used. A
  file or folder that several links lead to is read once, and circles of links end.
* **Models.** Configurations, tokenizers and headers are checked before a library reads them. Of a
  safetensors file names are unique, sizes follow from shapes, and places cover the data; of a GGUF
  file weights do not overlap.
* **Chat templates** render the rows once in a process of their own that is ended when it takes too
  long or too much memory.
* **Regular expressions** (`target_modules`) are matched once with the names of a model's modules,
  in a process of their own that is ended when it takes too long.
* **Texts.** Controls, escape sequences, marks that turn the direction of text, and halves of
  surrogate pairs are written by number (`\\u001b`) wherever a foreign text is printed or written
  for people: on the terminal, in errors and notes on failures, in reports (HTML, Markdown, LaTeX)
  and in the cards of exported models. Files with data (CSV, Parquet) have the texts as they are.

| limit | at most | unit | of what |
|---|---|---|---|
"""


def page() -> str:
    """The text of ``docs/limits.md``."""
    rows = (
        f"| `{row.name}` | {row.value:,} | {row.unit} | {row.about} |" for row in LIMITS.values()
    )
    return _HEAD + "\n".join(rows) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Writes the page into the folder that is the one argument."""
    (folder,) = arguments
    (Path(folder) / PAGE).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
