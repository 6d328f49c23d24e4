"""The page of the benchmarks, with its scripts beside it."""

import base64
import hashlib
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "benchmarks" / "offline.py"
spec = spec_from_file_location("offline_page", SOURCE)
offline = module_from_spec(spec)
spec.loader.exec_module(offline)

FILES = {
    "https://code.example.com/jquery-3.3.1.min.js": b"var jquery;",
    "https://cdn.example.com/npm/bootstrap@3.1.1/dist/css/bootstrap.min.css": b"body {}",
}


def page(folder):
    script, style = (
        f"sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}"
        for content in FILES.values()
    )
    first, second = FILES
    text = (
        f'<script src="{first}" integrity="{script}" crossorigin="anonymous" '
        f'referrerpolicy="no-referrer" onerror="failed()"></script>\n'
        f'<link rel="stylesheet" href="{second}" integrity="{style}" crossorigin="anonymous">\n'
        '<a href="https://example.com/">more</a>'
    )
    (folder / "index.html").write_text(text)
    return text


def test_nothing_is_left_to_the_network(tmp_path):
    page(tmp_path)
    names = offline.make_offline(tmp_path, FILES.__getitem__)
    text = (tmp_path / "index.html").read_text()
    assert [(tmp_path / name).read_bytes() for name in names] == list(FILES.values())
    assert all(f'"{name}"' in text for name in names)
    assert re.findall('https://[^"]+', text) == ["https://example.com/"]
    assert 'onerror="failed()"' in text
    assert "integrity" not in text


def test_another_file_than_the_pages_is_refused(tmp_path):
    text = page(tmp_path)
    with pytest.raises(ValueError, match="expected sha256"):
        offline.make_offline(tmp_path, lambda url: b"something else")
    assert (tmp_path / "index.html").read_text() == text
    with pytest.raises(ValueError, match="expected the pages"):
        offline.make_offline(tmp_path / "none", FILES.__getitem__)


def test_the_page_of_asv_as_it_is(tmp_path):
    asv = pytest.importorskip("asv")
    own = Path(asv.__file__).parent / "www" / "index.html"
    assert len(offline._TAG.findall(own.read_text())) == own.read_text().count("integrity=")
