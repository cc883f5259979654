"""A run's folder is emptied only where runs have made it."""

from pathlib import Path

import pytest

from pipeline.dev.folder import MARKER, claimed
from pipeline.errors import ConfigError


def test_a_new_folder_is_made(tmp_path: Path) -> None:
    """It is there, and empty but for its marker."""
    with claimed(tmp_path / "a" / "b") as folder:
        assert [path.name for path in folder.iterdir()] == [MARKER]


def test_what_a_former_run_left_is_removed(tmp_path: Path) -> None:
    """Files and folders of the last run are gone at the start of the next."""
    with claimed(tmp_path / "run") as folder:
        (folder / "kafka").mkdir()
        (folder / "kafka" / "data").write_text("old")
        (folder / "file").write_text("old")
    with claimed(folder):
        assert [path.name for path in folder.iterdir()] == [MARKER]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    """Nothing of somebody else's is removed."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files"), claimed(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    """A second run is refused, and the first keeps its files."""
    with claimed(tmp_path) as folder:
        (folder / "kafka").mkdir()
        with pytest.raises(ConfigError, match="in use by another run"), claimed(tmp_path):
            pass
        assert (folder / "kafka").exists()


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    """The problem names the folder and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used: Not a directory"), claimed(tmp_path / "file"):
        pass
