"""One look per method in every figure, on light and dark pages, for colour-blind readers too."""

from itertools import combinations

import numpy
import pytest

from neuroada.report.palette import DARK, FAINT, INK, PAPER, SERIES_COLOURS, looks

DARK_COLOURS = [DARK[colour] for colour in SERIES_COLOURS]
# G. Machado et al., IEEE TVCG 15 (2009), table 1, severity 1.0: what is left of linear RGB.
SIMULATED = {
    "all cones": numpy.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
LEAST_DISTANCE = 12


def linear(colour: str) -> numpy.ndarray:
    """Linear sRGB, (3,)."""
    encoded = numpy.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return numpy.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio."""
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: numpy.ndarray) -> numpy.ndarray:
    """CIE 1976 L*a*b* of linear sRGB, (3,)."""
    to_xyz = numpy.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = numpy.cbrt(numpy.maximum(to_xyz @ numpy.clip(rgb, 0, 1) / [0.9505, 1, 1.089], 0.008856))
    return numpy.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("colours", "page"), [(SERIES_COLOURS, PAPER), (DARK_COLOURS, DARK[PAPER])])
def test_every_colour_stands_out_from_its_page(colours: list[str], page: str) -> None:
    """WCAG 2.2, 1.4.11: 3:1 for parts of a picture."""
    assert min(contrast(colour, page) for colour in colours) >= 3


@pytest.mark.parametrize("text", [INK, FAINT])
def test_text_is_legible_on_both_pages(text: str) -> None:
    assert contrast(text, PAPER) >= 4.5
    assert contrast(DARK[text], DARK[PAPER]) >= 4.5


@pytest.mark.parametrize("colours", [SERIES_COLOURS, DARK_COLOURS], ids=["light", "dark"])
@pytest.mark.parametrize("cones", SIMULATED)
def test_any_two_colours_differ_for_colour_blind_readers(colours: list[str], cones: str) -> None:
    seen = [lab(numpy.array(SIMULATED[cones]) @ linear(colour)) for colour in colours]
    assert min(float(numpy.linalg.norm(one - other)) for one, other in combinations(seen, 2)) >= LEAST_DISTANCE


def test_a_method_looks_the_same_whatever_stands_beside_it() -> None:
    assert looks(["neuroada", "lora"])["neuroada"] == looks(["neuroada", "bitfit", "my_own"])["neuroada"]


def test_an_unknown_method_gets_a_colour_that_is_free() -> None:
    found = looks(["neuroada", "lora", "my_own"])
    assert len({look.colour for look in found.values()}) == 3


def test_every_method_has_a_look_of_its_own() -> None:
    methods = [f"method{number:02}" for number in range(25)]
    found = looks(methods)
    assert list(found) == methods
    assert len(set(found.values())) == 25
    assert len({look.colour for look in found.values()}) == len(SERIES_COLOURS)
