import psutil
import pytest

from data.errors import SettingsError
from training.memory import check_memory, free_bytes

GIB = 2**30


def container(folder, *, limit, used, cached):
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\nactive_file 5\n")
    return folder


def test_a_containers_limit_counts_where_it_is_less(tmp_path):
    small = container(tmp_path / "small", limit=64 * 2**20, used=40 * 2**20, cached=10 * 2**20)
    assert free_bytes(small) == 34 * 2**20


@pytest.mark.parametrize("limit", ["max", str(2**60)])
def test_the_machine_counts_where_it_has_less(tmp_path, limit):
    folder = container(tmp_path / "large", limit=limit, used=0, cached=0)
    before = psutil.virtual_memory()
    assert 0 < free_bytes(folder) <= before.total
    assert abs(free_bytes(tmp_path / "absent") - before.available) < before.total / 4


def test_too_little_is_refused_with_need_and_free():
    check_memory(GIB, GIB, what="a trial")
    with pytest.raises(SettingsError, match=r"a trial needs 3\.0 GiB of memory, 2\.0 GiB are free"):
        check_memory(3 * GIB, 2 * GIB, what="a trial")
