import pytest

from .supervised import APP


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with app.py in it."""
    tmp_path.joinpath("app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    return tmp_path
