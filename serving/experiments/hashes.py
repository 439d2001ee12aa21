"""Hashes as raw bytes: 32 of a unit or a text (as hex digits numpy would keep 256), 16 of an event.

They are held as unstructured void ("V32"): it compares whole, and drops no trailing zero byte as
numpy's byte strings do.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError

Hashes = NDArray[np.void]
UNIT_BYTES: Final = 32
EVENT_BYTES: Final = 16
_WORD: Final = 8
_ROWS_AT_ONCE: Final = 1 << 20


def hashes_of(digits: Sequence[str], width: int, *, what: str) -> Hashes:
    """Hex digits to hashes (n,) of ``width`` bytes.

    Args:
        digits: lower-case hex, 2 * width digits each.
        width: bytes of a hash.
        what: names the values in an error.

    Raises:
        ExperimentError: one of them is something else. It is not shown: it may name a person.
    """
    joined = "".join(digits)
    try:
        raw = bytearray.fromhex(joined)
    except ValueError:
        raw = bytearray()
    # One comparison of the whole finds wrong digits, upper case and blanks; lengths are apart.
    if raw.hex() != joined or any(len(one) != 2 * width for one in digits):
        wrong = next(place for place, one in enumerate(digits) if not is_hash(one, width))
        raise ExperimentError(
            f"{what} {wrong!r} of {len(digits)!r} (from 0) is no hash of {2 * width!r} lower-case "
            "hex digits; it is not shown, as it may name a person. Write units by unit_hash, and "
            "mend that row"
        )
    return np.frombuffer(raw, dtype=f"V{width}")


def is_hash(digits: str, width: int) -> bool:
    """Whether it is 2 * width lower-case hex digits."""
    return len(digits) == 2 * width and set(digits) <= set("0123456789abcdef")


def hex_of(hashes: Hashes) -> list[str]:
    """Hashes (n,) to lower-case hex digits."""
    digits, step = hashes.tobytes().hex(), 2 * hashes.dtype.itemsize
    return [digits[start : start + step] for start in range(0, len(digits), step)]


def leading_words(hashes: Hashes) -> NDArray[np.uint64]:
    """The first 8 bytes of each hash (n,) as a number that sorts as they do."""
    return _words(hashes)[:, 0].astype(np.uint64)


def grouped(hashes: Hashes) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """What brings equal hashes together.

    Args:
        hashes: (n,) of a multiple of 8 bytes.

    Returns:
        The order (n,) that sorts them by their bytes, equal ones as they came; and, in that order,
        (n,) True where another hash begins.
    """
    leading = leading_words(hashes)
    order = np.argsort(leading, kind="stable")
    leading = leading[order]
    tied = np.flatnonzero(leading[1:] == leading[:-1]) + 1
    del leading
    equal = _same(hashes, order[tied], order[tied - 1])
    if not equal.all():
        # Hashes that differ after 8 equal bytes: rare, but they must not be taken for one.
        members = np.union1d(tied, tied - 1)
        words = _words(hashes[order[members]]).astype(np.uint64)
        order[members] = order[members][np.lexsort(words.T[::-1])]
        equal = _same(hashes, order[tied], order[tied - 1])
    begins = np.ones(len(hashes), dtype=np.bool_)
    begins[tied[equal]] = False
    return order, begins


def repeats(hashes: Hashes) -> int:
    """How many of the hashes (n,) stood before already; sorts half as much as ``grouped``."""
    leading = leading_words(hashes)
    ordered = np.sort(leading)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(twice):
        return 0
    _, begins = grouped(hashes[np.isin(leading, twice)])
    return int((~begins).sum())


def _words(hashes: Hashes) -> NDArray[np.uint64]:
    return hashes.view(">u8").reshape(len(hashes), hashes.dtype.itemsize // _WORD)


def _same(hashes: Hashes, left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether the hashes at two lists of places are equal; in parts, which take little memory."""
    same = np.empty(len(left), dtype=np.bool_)
    for start in range(0, len(left), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        same[part] = np.take(hashes, left[part]) == np.take(hashes, right[part])
    return same
