"""The inverse error function as XLA computes it on a CPU, in torch.

Giles 2012, "Approximating the erfinv function", with Cephes's log(1 + x) and fused steps.
"""

import importlib.metadata
import math
from collections.abc import Sequence

import torch


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


def _mended() -> bool:
    """Whether the installed XLA has Cephes's own range for log(1 + x) in float64."""
    try:
        number = importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return True  # there is none to agree with
    return tuple(map(int, number.split(".")[:2])) >= (0, 11)


# Giles's polynomials of w = -log(1 - x^2), highest power first: (below this w, what is
# subtracted from w or, from the second on, from its root, coefficients).
ERFINV = {
    torch.float32: (
        (
            5.0,
            2.5,
            _numbers(
                "2.81022636e-08 3.43273939e-07 -3.5233877e-06 -4.39150654e-06 0.00021858087 "
                "-0.00125372503 -0.00417768164 0.246640727 1.50140941"
            ),
        ),
        (
            math.inf,
            3.0,
            _numbers(
                "-0.000200214257 0.000100950558 0.00134934322 -0.00367342844 0.00573950773 "
                "-0.0076224613 0.00943887047 1.00167406 2.83297682"
            ),
        ),
    ),
    torch.float64: (
        (
            6.25,
            3.125,
            _numbers(
                "-3.6444120640178196996e-21 -1.685059138182016589e-19 1.2858480715256400167e-18 "
                "1.115787767802518096e-17 -1.333171662854620906e-16 2.0972767875968561637e-17 "
                "6.6376381343583238325e-15 -4.0545662729752068639e-14 -8.1519341976054721522e-14 "
                "2.6335093153082322977e-12 -1.2975133253453532498e-11 -5.4154120542946279317e-11 "
                "1.051212273321532285e-09 -4.1126339803469836976e-09 -2.9070369957882005086e-08 "
                "4.2347877827932403518e-07 -1.3654692000834678645e-06 -1.3882523362786468719e-05 "
                "0.0001867342080340571352 -0.00074070253416626697512 -0.0060336708714301490533 "
                "0.24015818242558961693 1.6536545626831027356"
            ),
        ),
        (
            16.0,
            3.25,
            _numbers(
                "2.2137376921775787e-09 9.075656193888539e-08 -2.7517406297064545e-07 "
                "1.8239629214389228e-08 1.5027403968909828e-06 -4.013867526981546e-06 "
                "2.9234449089955446e-06 1.2475304481671779e-05 -4.7318229009055734e-05 "
                "6.828485145957318e-05 2.4031110387097894e-05 -0.0003550375203628475 "
                "0.0009532893797373805 -0.0016882755560235047 0.002491442096107851 "
                "-0.003751208507569241 0.005370914553590064 1.0052589676941592 3.0838856104922208"
            ),
        ),
        (
            math.inf,
            5.0,
            _numbers(
                "-2.7109920616438573e-11 -2.555641816996525e-10 1.5076572693500548e-09 "
                "-3.789465440126737e-09 7.61570120807834e-09 -1.496002662714924e-08 "
                "2.914795345090108e-08 -6.771199775845234e-08 2.2900482228026655e-07 "
                "-9.9298272942317e-07 4.526062597223154e-06 -1.968177810553167e-05 "
                "7.599527703001776e-05 -0.00021503011930044477 -0.00013871931833623122 "
                "1.0103004648645344 4.849906401408584"
            ),
        ),
    ),
}
# Cephes's rational function for log(1 + x) (Moshier, unity.c), highest power first.
LOG1P_BELOW = 2**0.5 - 1
# Where it begins. Below Cephes's own bound it is up to 30 ulp off.
LOG1P_ABOVE = {
    torch.float32: -LOG1P_BELOW,
    torch.float64: 0.5**0.5 - 1 if _mended() else -LOG1P_BELOW,
}
LOG1P_OVER = _numbers(
    "4.5270000862445199635215e-5 4.9854102823193375972212e-1 6.5787325942061044846969e0 "
    "2.9911919328553073277375e1 6.0949667980987787057556e1 5.7112963590585538103336e1 "
    "2.0039553499201281259648e1"
)
LOG1P_UNDER = _numbers(
    "1.0 1.5062909083469192043167e1 8.3047565967967209469434e1 2.2176239823732856465394e2 "
    "3.0909872225312059774938e2 2.1642788614495947685003e2 6.0118660497603843919306e1"
)
# Cephes's logf (Moshier): the polynomial of log(1 + t) behind t - t^2 / 2, highest power first,
# and log(2) in two parts.
LOGF = _numbers(
    "7.0376836292e-2 -1.1514610310e-1 1.1676998740e-1 -1.2420140846e-1 1.4249322787e-1 "
    "-1.6668057665e-1 2.0000714765e-1 -2.4999993993e-1 3.3333331174e-1"
)
LOG2_LOW, LOG2_HIGH = -2.12194440e-4, 0.693359375


def erfinv(x: torch.Tensor) -> torch.Tensor:
    """The inverse error function as XLA computes it, inside (-1, 1).

    >>> erfinv(torch.tensor(0.5))
    tensor(0.4769)
    """
    w = -_log1p(-x * x)
    result = torch.zeros_like(x)
    for index, (below, shift, coefficients) in reversed(list(enumerate(ERFINV[x.dtype]))):
        t = (w.sqrt() if index else w) - shift
        result = torch.where(w < below, _polynomial(t, coefficients), result)
    return result * x


def _log1p(x: torch.Tensor) -> torch.Tensor:
    """XLA's log1p on a CPU."""
    ratio = _polynomial(x, LOG1P_OVER) / _polynomial(x, LOG1P_UNDER)
    square = x * x
    small = x + (-0.5 * square + x * square * ratio)
    near = (x > LOG1P_ABOVE[x.dtype]) & (x < LOG1P_BELOW)
    return torch.where(near, small, _log(1 + x))


def _log(x: torch.Tensor) -> torch.Tensor:
    """XLA's log on a CPU of normal numbers; in float64 torch's is within one unit of it."""
    if x.dtype != torch.float32:
        return torch.log(x)
    mantissa, exponent = torch.frexp(x)
    low = mantissa < torch.tensor(0.5**0.5)
    t = torch.where(low, 2 * mantissa, mantissa) - 1
    exponent = (exponent - low.int()).float()
    cube = t * t * t
    first, second, third = (_polynomial(t, LOGF[start : start + 3]) for start in (0, 3, 6))
    y = _fused(_fused(first, cube, second), cube, third)
    y = _fused(y, cube, LOG2_LOW * exponent)
    return _fused(torch.full_like(t, LOG2_HIGH), exponent, (t - 0.5 * (t * t)) + y)


def _polynomial(x: torch.Tensor, coefficients: Sequence[float]) -> torch.Tensor:
    """Horner's rule with fused steps, as XLA compiles it where the processor has them."""
    result = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = _fused(result, x, torch.tensor(coefficient, dtype=x.dtype))
    return result


def _fused(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The sum a b + c, rounded once."""
    if a.dtype == torch.float32:
        return (a.double() * b.double() + c.double()).float()
    product, total = a * b, a * b + c
    # What the two roundings lost, exactly: Dekker 1971 and Knuth's two-sum.
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    lost = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    back = total - product
    return total + (lost + ((product - (total - back)) + (c - back)))


def _halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = x * (2.0**27 + 1)
    high = scaled - (scaled - x)
    return high, x - high
