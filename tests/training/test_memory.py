import pytest

from data.errors import SettingsError
from training.memory import check_memory

GIB = 2**30


def test_too_little_is_refused_with_need_and_free():
    check_memory(GIB, GIB, what="a trial")
    with pytest.raises(SettingsError, match=r"a trial needs 3\.0 GiB of memory, 2\.0 GiB are free"):
        check_memory(3 * GIB, 2 * GIB, what="a trial")
