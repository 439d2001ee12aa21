import psutil
import pytest

from data.errors import SettingsError
from serving.batching.memory import GpuMemory, HostMemory, free_bytes

MIB = 2**20


def container(folder, *, limit, used, cached):
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\nactive_file 5\n")
    return folder


def old_container(folder, *, limit, used, cached):
    (folder / "memory").mkdir(parents=True)
    (folder / "memory" / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory" / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory" / "memory.stat").write_text(
        f"cache 1\ninactive_file 3\ntotal_inactive_file {cached}\n"
    )
    return folder


@pytest.mark.parametrize("make", [container, old_container])
def test_a_containers_limit_counts_where_it_is_less(tmp_path, make):
    small = make(tmp_path / "small", limit=64 * MIB, used=40 * MIB, cached=10 * MIB)
    assert free_bytes(small) == 34 * MIB


@pytest.mark.parametrize("limit", ["max", str(2**60)])
def test_the_machine_counts_where_it_has_less(tmp_path, limit):
    folder = container(tmp_path / "large", limit=limit, used=0, cached=0)
    before = psutil.virtual_memory()
    assert 0 < free_bytes(folder) <= before.total
    assert abs(free_bytes(tmp_path / "absent") - before.available) < before.total / 4


def test_what_this_process_holds_is_read_too(tmp_path):
    memory = HostMemory(tmp_path)
    before = memory().own
    held = bytearray(64 * MIB)
    held[::4096] = b"x" * len(held[::4096])
    assert memory().own - before > 48 * MIB


def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do():
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - whatever NVML raises where there is no driver
        with pytest.raises(SettingsError, match="serve on the CPU"):
            GpuMemory()
    else:
        reading = GpuMemory()()
        assert reading.free > 0
        assert reading.own >= 0
