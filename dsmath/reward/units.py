"""Units of measure behind a number: an equal value with and without its unit is the same answer."""

import re
from fractions import Fraction

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


_MEASURES = {  # unit -> dimension and size, for units that convert into each other
    **{unit: ("length", size) for unit, size in (("m", "1"), ("cm", "0.01"), ("mm", "0.001"), ("km", "1000"))},
    **{unit: ("length", size) for unit, size in (("dm", "0.1"), ("in", "0.0254"), ("ft", "0.3048"))},
    **{unit: ("length", size) for unit, size in (("yd", "0.9144"), ("mi", "1609.344"))},
    **{unit: ("mass", size) for unit, size in (("g", "1"), ("kg", "1000"), ("mg", "0.001"))},
    **{unit: ("weight", size) for unit, size in (("lb", "16"), ("oz", "1"))},
    **{unit: ("volume", size) for unit, size in (("L", "1"), ("mL", "0.001"))},
    **{unit: ("time", size) for unit, size in (("s", "1"), ("min", "60"), ("h", "3600"), ("day", "86400"))},
    "week": ("time", "604800"),
    **{unit: ("money", size) for unit, size in (("dollar", "100"), ("cent", "1"))},
}
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_UNIT = rf"(?:\\text\s*\{{\s*~?[A-Za-z]{{1,12}}\s*\}}|[A-Za-z]{{1,12}}){_POWER}"
_COMPOUND = re.compile(rf"(.*(?:[\d)}}]|\\pi))\s*({_UNIT}(?:[\s*/·]+{_UNIT}){{0,5}})\s*", re.S)


def split_unit(text: str) -> tuple[str, str]:
    """Takes a trailing unit off: \\text{…}, words after a number, or a known abbreviation.

    Args:
      text: cleaned text (`dsmath.reward.notation.clean`).
    Returns:
      The text before the unit, and the unit's name with its power, such as "cm^2"; "" where there is no unit or it is
      none of the usual measures.
    """
    found = re.fullmatch(rf"(.*?[^\s\\{{(^_*/+-])\s*\\text\s*\{{([^{{}}]*)\}}\s*({_POWER})(.*)", text, re.S)
    if found and not re.search(r"[\d=]", re.sub(_POWER, "", found[4])):
        return found[1], _unit_name(found[2] + found[3] + found[4])
    found = re.fullmatch(
        r"(.*(?:[\d)}!%]|\\pi))(\s*)((?:square |cubic |sq\.? |cu\.? )?[A-Za-z]+\.?(?:[\s/-]+[A-Za-z.]+)*"
        r"\s*(?:\^\s*\{?[23]\}?)?)",
        text,
        re.S,
    )
    if found:
        first = re.split(r"[\s/.^-]", found[3].strip())[0]
        known = first in _ABBREVIATIONS or first.lower() in _UNITS
        long_word = len(first) >= 3 and bool(found[2]) and first not in FUNCTIONS and first not in ("pi", "infinity")
        if (
            (known and len(first) > 1)
            or (known and found[2] and re.fullmatch(r"[-+\d.,/ *^{}]+", found[1]))
            or long_word
        ):
            return found[1], _unit_name(found[3])
    return text, ""


def split_compound(text: str) -> str | None:
    """The text before what may be a unit of letters and powers: of "9 m s^{-1}" and "9.8m" the number, else None."""
    found = _COMPOUND.fullmatch(text)
    if not found or len(found[2]) > 60:
        return None
    names = re.findall(r"[A-Za-z]+", re.sub(r"\\text", "", found[2]))
    is_unit = all(name in _ABBREVIATIONS or name.lower() in _UNITS for name in names)
    return found[1] if is_unit else None


def ratio(left: str, right: str) -> Fraction | None:
    """How many of the right unit one of the left unit is: 100 for "m" and "cm"; None where they do not convert."""
    (base, power), (other, other_power) = (_base_and_power(unit) for unit in (left, right))
    if base == other:
        return Fraction(1)
    first, second = _MEASURES.get(base), _MEASURES.get(other)
    if first is None or second is None or first[0] != second[0] or power != other_power:
        return None
    return (Fraction(first[1]) / Fraction(second[1])) ** power


def _base_and_power(unit: str) -> tuple[str, int]:
    base, _, power = unit.partition("^")
    return base, int(power or 1)


def _unit_name(text: str) -> str:
    if "/" in text or "per" in text or "*" in text:
        return ""
    power = re.search(r"\^\s*\{?\s*(\d)", text)
    power = power[1] if power else "2" if re.match(r"\s*sq", text) else "3" if re.match(r"\s*cu", text) else ""
    first = re.split(r"[\s/.^~]+", re.sub(r"^(?:square|sq\.?|cubic|cu\.?)\s+", "", text.strip(" ~.")))[0]
    name = _UNITS.get(first, _UNITS.get(first.lower(), ""))
    return f"{name}^{power}" if name and power else name
