"""Plain texts as LaTeX, for any engine."""

import unicodedata

from w2s_ray.report.shown import MINUS, plain

_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\texttt{\char34}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # a row that begins with one would be the argument of the line break before it
    "]": "{]}",
    "*": "{*}",
    MINUS: "$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "½": r"$\frac{1}{2}$",
    "²": r"$^2$",
    "·": r"$\cdot$",
    "°": r"$^\circ$",
    "‖": r"$\Vert$",
    "∑": r"$\Sigma$",
    "↵": r"$\hookleftarrow$",
    "\u200c": "",
    "\u200d": "",
    "\u00a0": "~",
    "\u202f": r"\,",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
}
_GREEK = {
    chr(code): f"${letter}$"
    for code, letter in {
        0x3B1: r"\alpha",
        0x3B2: r"\beta",
        0x3B3: r"\gamma",
        0x3B4: r"\delta",
        0x3B5: r"\varepsilon",
        0x3B7: r"\eta",
        0x3B8: r"\theta",
        0x3BA: r"\kappa",
        0x3BB: r"\lambda",
        0x3BC: r"\mu",
        0x3C0: r"\pi",
        0x3C1: r"\rho",
        0x3C3: r"\sigma",
        0x3C4: r"\tau",
        0x3C6: r"\varphi",
        0x3C7: r"\chi",
        0x394: r"\Delta",
        0x3A3: r"\Sigma",
    }.items()
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u0327": "c",
    "\u030c": "v",
}


def escaped(text: str) -> str:
    """A text for any LaTeX engine; characters that pdfLaTeX lacks are written by number."""
    characters = plain(text)
    # Two hyphens would become a dash.
    return "".join(
        "{}-" if pair == ("-", "-") else _character(pair[1])
        for pair in zip(" " + characters, characters, strict=False)
    )


def _character(character: str) -> str:
    if known := _CHARACTERS.get(character) or _GREEK.get(character):
        return known
    if character in _CHARACTERS:
        return ""
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return rf"\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"
