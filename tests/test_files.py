"""Files are written whole or not at all."""

from pathlib import Path

from hamgan.files import write_atomically


def test_a_text_file_is_replaced_whole(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "old")
    write_atomically(tmp_path / "a.txt", "new")
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("a.txt", "new")]
