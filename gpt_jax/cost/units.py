"""Numbers for people: counts, FLOPs, bytes and durations in three digits. Must not import jax."""


def compact(value: float | None) -> str:
    """Counts: 1.23M; from 1e15 on, and below a thousandth, with an exponent."""
    if value is None:
        return "-"
    for unit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if unit * 0.9995 <= value < 1e15:
            return f"{three_digits(value / unit)}{suffix}"
    return f"{value:.3g}".replace("e+", "e")


def three_digits(value: float) -> str:
    """0.998, 1.23, 12.3, 123: three digits, the largest below a thousand."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def scientific(value: float | None) -> str:
    """FLOPs: 4.5e15."""
    if value is None:
        return "-"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def size(value: float | None) -> str:
    """Bytes, in decimal units: 1.23 GB."""
    if value is None:
        return "-"
    for unit, suffix in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= unit * 0.9995:
            return f"{three_digits(value / unit)} {suffix}"
    return f"{three_digits(value / 1e3)} kB"


def duration(seconds: float | None) -> str:
    """45 s, 12.5 min, 3.4 h, 5.1 d, 2.3 years."""
    if seconds is None:
        return "-"
    year = 365.25 * 24
    for unit, suffix, least in ((year, "years", year), (24.0, "d", 48.0), (1.0, "h", 2.0)):
        if seconds >= least * 3600:
            return f"{three_digits(seconds / 3600 / unit)} {suffix}"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    if seconds >= 10:
        return f"{seconds:.0f} s"
    return f"{seconds:.1f} s" if seconds >= 0.1 or seconds == 0 else "< 0.1 s"
