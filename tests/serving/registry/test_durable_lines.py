import pytest

from serving.registry.durable_lines import append_line, read_lines


def test_lines_come_back_in_order(tmp_path):
    for line in ("첫째", "둘째"):
        append_line(tmp_path / "lines", line)
    assert read_lines(tmp_path / "lines") == ["첫째", "둘째"]


def test_no_file_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "lines") == []


@pytest.mark.parametrize("torn", [b"half", "둘".encode()[:2]])
def test_a_line_that_was_cut_short_is_not_read_and_goes_with_the_next(tmp_path, torn):
    path = tmp_path / "lines"
    append_line(path, "첫째")
    with path.open("ab") as file:
        file.write(torn)
    assert read_lines(path) == ["첫째"]
    append_line(path, "셋째")
    assert read_lines(path) == ["첫째", "셋째"]


def test_a_first_line_that_was_cut_short_is_none(tmp_path):
    (tmp_path / "lines").write_bytes(b"half")
    assert read_lines(tmp_path / "lines") == []
    append_line(tmp_path / "lines", "첫째")
    assert read_lines(tmp_path / "lines") == ["첫째"]
