"""A folder of results is there completely or not at all."""

import pytest

from ude._checks import InputError
from ude.report.folder import check_target, fresh_folder


def write(folder, text, **options):
    with fresh_folder(folder, **options) as draft:
        (draft / "config.json").write_text(text)


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_appears_under_its_name_when_complete(tmp_path):
    with fresh_folder(tmp_path / "a" / "run") as draft:
        assert not (tmp_path / "a" / "run").exists()
        (draft / "config.json").write_text("{}")
    assert (tmp_path / "a" / "run" / "config.json").read_text() == "{}"
    assert not leftovers(tmp_path / "a")


def test_an_existing_folder_is_kept_unless_asked(tmp_path):
    write(tmp_path / "run", "old")
    with pytest.raises(InputError, match="--overwrite"):
        write(tmp_path / "run", "new")
    assert (tmp_path / "run" / "config.json").read_text() == "old"
    write(tmp_path / "run", "new", overwrite=True)
    assert (tmp_path / "run" / "config.json").read_text() == "new"
    assert not leftovers(tmp_path)


def test_a_failure_while_writing_keeps_the_old_folder(tmp_path):
    write(tmp_path / "run", "old")

    def fill_the_disk():
        with fresh_folder(tmp_path / "run", overwrite=True) as draft:
            (draft / "config.json").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill_the_disk()
    assert (tmp_path / "run" / "config.json").read_text() == "old"
    assert not leftovers(tmp_path)


def test_an_interruption_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), fresh_folder(tmp_path / "run"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("cat")
    with pytest.raises(InputError, match="not written by this program"):
        write(tmp_path / "photos", "new", overwrite=True)
    assert (tmp_path / "photos" / "cat.png").read_text() == "cat"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run", "new")
    assert (tmp_path / "run" / "config.json").read_text() == "new"


@pytest.mark.parametrize("name", ["file", "file/run", "a" * 300, "nul\0byte"])
def test_an_impossible_place_is_an_input_error(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Choose another"):
        check_target(tmp_path / name)
