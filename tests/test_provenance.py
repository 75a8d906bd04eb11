"""The hash of code is of what runs: comments, docstrings and layout do not count, everything imported does."""

import pytest

from z1lib import provenance
from z1lib.provenance import hash_code

SOURCE = 'from z1lib.one import f\n\ndef g(x):\n    """Adds."""\n    return f(x) + 1  # one more\n'


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "z1lib"
    folder.mkdir()
    (folder / "one.py").write_text("from z1lib.two import N\n\n\ndef f(x):\n    return x + N\n")
    (folder / "two.py").write_text("N = 2\n")
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    return folder


def test_comments_docstrings_and_layout_do_not_count(package):
    other = "from z1lib.one import f\ndef g(x):\n  return (f(x)\n     + 1)\n"
    assert hash_code(SOURCE) == hash_code(other)


def test_what_runs_counts_and_so_does_all_that_is_imported_by_way_of_others(package):
    first = hash_code(SOURCE)
    assert hash_code(SOURCE.replace("+ 1", "+ 3")) != first
    assert hash_code(SOURCE.replace("g(x)", "h(x)")) != first
    (package / "two.py").write_text("N = 3\n")
    assert hash_code(SOURCE) != first
    (package / "two.py").write_text("N = 2  # as before\n")
    assert hash_code(SOURCE) == first


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("y = x[:n]", "y = x[n:]"),
        ("y = x[a:b]", "y = x[a::b]"),
        ("if a: f(); g()", "if a: f()\nelse: g()"),
        ("f = lambda a, b=1: a", "f = lambda a, *, b=1: a"),
        ("y = a - b - c", "y = a - (b - c)"),
        ("f(a, *b)", "f(*a, b)"),
    ],
)
def test_what_stands_in_another_place_counts(package, one, other):
    assert hash_code(one) != hash_code(other)


def test_a_folder_counts_as_a_whole_and_pages_not_at_all(package):
    for name in ("room/__init__.py", "room/base.py", "pages/__init__.py", "pages/demo.py"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("A = 1\n")
    source = "from z1lib.room.base import A\nfrom z1lib.pages import demo\n"
    first = hash_code(source)
    (package / "pages/demo.py").write_text("A = 2\n")
    assert hash_code(source) == first
    (package / "room/loaded_by_name.py").write_text("A = 3\n")
    assert hash_code(source) != first


def test_files_that_import_each_other_end(package):
    (package / "two.py").write_text("from z1lib import one\nN = 2\n")
    assert hash_code(SOURCE)
