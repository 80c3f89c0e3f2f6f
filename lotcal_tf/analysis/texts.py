"""Numbers of a report as text. A minus is the sign, not the hyphen, and `–` stands for a value that is missing."""

from lotcal_tf.analysis.statistics import Summary
from lotcal_tf.metrics import Estimate

MISSING = "–"


def number(value: float | None, form: str, factor: float = 1.0) -> str:
    """A value times a factor, by a format specification."""
    if value is None:
        return MISSING
    return format(factor * value, form).replace("-", "−").replace("%", " %")


def deviated(found: Summary | None, form: str = ".3f", factor: float = 1.0) -> str:
    """A mean with its standard deviation, if there is one."""
    if found is None:
        return MISSING
    mean = number(found.mean, form, factor)
    return mean if found.sd is None else f"{mean} ± {number(found.sd, form, factor)}"


def with_interval(found: Summary | Estimate | None, form: str = ".3f", factor: float = 1.0) -> str:
    """A mean over seeds, or the value of one network, with its 95 % interval, if there is one."""
    if found is None:
        return MISSING
    value = found.value if isinstance(found, Estimate) else found.mean
    text = number(value, form, factor)
    if found.low is None or found.high is None:
        return text
    ends = (number(end, form, factor) for end in (found.low, found.high))
    return f"{text} [{', '.join(ends)}]"


def counted(text: str, found: Summary | None) -> str:
    """A text with the number of values behind it."""
    return text if found is None else f"{text} ({found.n})"
