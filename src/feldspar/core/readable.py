"""Write numbers for readers: SI prefixes, durations, and digits that follow the interval."""

import math

PREFIXES = ("", "k", "M", "G", "T", "P")
SUPERSCRIPTS = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)
LEAST_PLAIN, MOST_PLAIN = 1e-4, 1e15
"""Numbers of an axis outside these bounds are written as powers of ten."""


def amount(value: float, digits: int = 3) -> str:
    """Write a count with an SI prefix and at most ``digits`` digits: 5100000 as ``5.1 M``."""
    if not math.isfinite(value):
        return "-"
    shown, prefix = float(f"{value:.{digits}g}"), 0
    while abs(shown) >= 1000 and prefix < len(PREFIXES) - 1:
        shown, prefix = shown / 1000, prefix + 1
    return f"{shown:.{digits}g} {PREFIXES[prefix]}".strip() if abs(shown) < 1e4 else f"{value:.3g}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, in the plural unless it is one: ``1 file``, ``1,200 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_text(count: float) -> str:
    """Write a number of bytes in decimal units."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def number(value: float, digits: int = 4) -> str:
    """Write a measured value with ``digits`` digits, without an exponent where it stays short."""
    if not math.isfinite(value):
        return "-"
    return amount(value) if abs(value) >= 1e4 else f"{value:.{digits}g}"


def precise(value: float, digits: int = 3) -> str:
    """Write a measured value with exactly ``digits`` digits, zeros at the end included."""
    return f"{value:#.{digits}g}".rstrip(".") if math.isfinite(value) else "-"


def duration(seconds: float) -> str:
    """Write a time in its two largest units: 293 seconds as ``4 min 53 s``."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 10:
        return f"{seconds:.2g} s"
    rest = round(seconds)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, parts[:2]))


def short_duration(seconds: float) -> str:
    """Write a time in a short form: 45s, 3m20s, 2h05m, 3d04h."""
    whole = round(seconds)
    for size, unit, smaller, name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02d}{name}"
    return f"{whole}s"


def decimals_of(half_width: float) -> int:
    """Return the decimals that an interval justifies.

    By the rule of the Particle Data Group an interval has two digits if these are 35 at most, else
    one.
    """
    if not math.isfinite(half_width) or half_width <= 0:
        return 0
    exponent = math.floor(math.log10(half_width))
    return max(0, (1 if half_width / 10**exponent < 3.55 else 0) - exponent)


def with_interval(value: float, half_width: float | None, *, sign: bool = False) -> str:
    """Write a value with no more digits than its interval justifies, and the interval."""
    plus = "+" if sign else ""
    if half_width is None or not math.isfinite(half_width) or half_width <= 0:
        return f"{value:{plus}.3g}"
    decimals = decimals_of(half_width)
    return f"{value:{plus}.{decimals}f} \u00b1 {half_width:.{decimals}f}"


def tick(value: float, decimals: int | None = None) -> str:
    """Write a number of an axis: plain, with an SI prefix, or as a power of ten.

    ``decimals`` are those of all numbers of the axis.
    """
    size = abs(value)
    if value == 0 or LEAST_PLAIN <= size < 1e4:
        return f"{value:.6g}" if decimals is None else f"{value:.{decimals}f}"
    if 1e4 <= size < MOST_PLAIN:
        return amount(value, 4)
    exponent = math.floor(math.log10(size) + 1e-9)
    mantissa = f"{value / 10**exponent:.3g}"
    power = f"10{str(exponent).translate(SUPERSCRIPTS)}"
    return power if mantissa == "1" else f"{mantissa}\u00b7{power}"
