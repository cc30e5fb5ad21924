"""Every file of a run has a place of its own in its folder."""

from pathlib import Path

from services.run.folder import RunFolder


def test_every_place_is_inside_the_folder_and_no_two_are_the_same(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    names = [name for name, value in vars(RunFolder).items() if isinstance(value, property)]
    places = [getattr(folder, name) for name in names]
    assert len(places) > 10
    assert all(place.parent == tmp_path for place in places)
    assert len(set(places)) == len(places)
