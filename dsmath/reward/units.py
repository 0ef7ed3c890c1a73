"""Units of measure behind a number: an equal value with and without its unit is the same answer."""

import re

from dsmath.reward.expressions import FUNCTIONS

_UNITS = {  # spelling -> unit
    spelling: names.split()[0]
    for names in (
        "m meter meters metre metres",
        "cm centimeter centimeters centimetre centimetres",
        "mm millimeter millimeters millimetre millimetres",
        "km kilometer kilometers kilometre kilometres",
        "dm decimeter decimeters",
        "in inch inches",
        "ft foot feet",
        "yd yard yards",
        "mi mile miles",
        "g gram grams",
        "kg kilogram kilograms",
        "mg milligram milligrams",
        "lb lbs pound pounds",
        "oz ounce ounces",
        "L l liter liters litre litres",
        "mL ml milliliter milliliters",
        "s sec second seconds",
        "min minute minutes mins",
        "h hr hour hours hrs",
        "day days",
        "week weeks",
        "month months",
        "year years",
        "dollar dollars USD usd",
        "cent cents",
        "mph",
        "kph",
    )
    for spelling in names.split()
}
_ABBREVIATIONS = frozenset(_UNITS) | set(
    "nm pm um Hz kHz MHz kW kWh eV keV MeV GeV Pa kPa mol rad deg ms ns AU A V W J N K C".split()  # noqa: SIM905
)


def split_unit(text: str) -> tuple[str, str]:
    """Takes a trailing unit off: \\text{…}, words after a number, or a known abbreviation.

    Args:
      text: cleaned text (`dsmath.reward.notation.clean`).
    Returns:
      The text before the unit, and the unit's name; "" where there is no unit or it is none of the usual measures.
    """
    found = re.fullmatch(r"(.*?[^\s\\{(^_*/+-])\s*\\text\s*\{([^{}]*)\}\s*(?:\^\s*\{?-?\d\}?)?(.*)", text, re.S)
    if found and not re.search(r"[\d=]", re.sub(r"\^\{?-?\d\}?", "", found[3])):
        return found[1], _unit_name(found[2])
    found = re.fullmatch(
        r"(.*[\d)}!%])(\s*)((?:square |cubic |sq\.? |cu\.? )?[A-Za-z]+\.?(?:[\s/-]+[A-Za-z.]+)*)"
        r"\s*(?:\^\s*\{?[23]\}?)?",
        text,
        re.S,
    )
    if found:
        first = re.split(r"[\s/.-]", found[3].strip())[0]
        known = first in _ABBREVIATIONS or first.lower() in _UNITS
        long_word = len(first) >= 3 and bool(found[2]) and first not in FUNCTIONS and first not in ("pi", "infinity")
        if (
            (known and len(first) > 1)
            or (known and found[2] and re.fullmatch(r"[-+\d.,/ *^{}]+", found[1]))
            or long_word
        ):
            return found[1], _unit_name(found[3])
    return text, ""


def _unit_name(text: str) -> str:
    first = re.split(r"[\s/.]+", text.strip(" ~.").replace("square ", "").replace("sq ", ""))[0]
    return _UNITS.get(first, _UNITS.get(first.lower(), "")) if "/" not in text and "per" not in text else ""
