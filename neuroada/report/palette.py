"""The colours of every figure, on a light and on a dark page.

A method has the same colour and marker in every figure and in every report. The nine colours differ for colour-blind
readers too: simulated by G. Machado, M. Oliveira and L. Fernandes, IEEE TVCG 15 (2009), any two are at least 12 apart
(CIE 1976) without red or green cones. Each has a contrast of 3:1 or more with its page.
"""

from collections.abc import Iterable
from dataclasses import dataclass

INK = "#1f2328"
FAINT = "#6e7781"
PAPER = "#ffffff"
SERIES_COLOURS = (
    *("#25639c", "#cb7448", "#1d5c4e", "#e61abf", "#614f00"),
    *("#590fa3", "#699e04", "#5a1010", "#8888ee"),
)
_DARK_SERIES_COLOURS = (
    *("#35bbf5", "#ec5a1c", "#d0f5ec", "#c8329a", "#f5d90f"),
    *("#9150fa", "#c9f58a", "#c0545e", "#f7b3d6"),
)
DARK = {
    INK: "#e6edf3",
    FAINT: "#9198a1",
    PAPER: "#14171c",
    **dict(zip(SERIES_COLOURS, _DARK_SERIES_COLOURS, strict=True)),
}
"""Colour on a light page -> colour on a dark one."""
BASE_COLOUR = FAINT
_METHODS = (
    *("neuroada", "lora", "dora", "full", "bitfit", "ia3", "shira", "masked", "supertuning"),
    *("pissa", "rslora", "vera", "oft", "miss", "road", "layernorm", "head"),
)
"""Their places decide their looks; others get what these leave free."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*")
"""Not a multiple of the number of colours, so that a repeated colour has another marker."""
_NUM_LOOKS = len(SERIES_COLOURS) * len(_MARKERS)


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: str
    marker: str


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Method -> its look; ``methods`` are those of the whole comparison, so that all figures agree."""
    known = {name: _look(place) for place, name in enumerate(_METHODS)}
    found = {name: known[name] for name in dict.fromkeys(methods) if name in known}
    for name in sorted(set(methods) - set(known)):
        taken = [look.colour for look in found.values()]
        free = (look for place in range(_NUM_LOOKS) if (look := _look(place)) not in found.values())
        found[name] = min(free, key=lambda look: taken.count(look.colour))
    return found


def _look(place: int) -> Look:
    return Look(SERIES_COLOURS[place % len(SERIES_COLOURS)], _MARKERS[place % len(_MARKERS)])


def dark_rules() -> str:
    """CSS that recolours an SVG on a dark page.

    It selects matplotlib's inline colours and does not replace them, so programs without CSS show the light figure.
    """
    rules = [
        f'[style*="{name}: {light}"]{{{name}:{dark}!important}}'
        for light, dark in DARK.items()
        for name in ("fill", "stroke")
    ]
    return f"@media screen and (prefers-color-scheme: dark){{{''.join(rules)}}}"
