import stat

from lotcal_tf.config import signature

CONTENT = {"a": "1", "b": "2"}


def test_only_the_same_content_and_key_are_recognised(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "one"))
    assert not signature.is_signed(CONTENT, "0" * 64)  # and no key is made by reading
    assert not (tmp_path / "one").exists()
    found = signature.signature(CONTENT)
    assert signature.is_signed(dict(reversed(CONTENT.items())), found)
    assert not signature.is_signed(CONTENT | {"a": "3"}, found)
    for other in (None, "", 3, "é", found[:-1]):
        assert not signature.is_signed(CONTENT, other)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "two"))
    assert signature.signature(CONTENT) != found
    assert not signature.is_signed(CONTENT, found)


def test_the_key_is_for_this_user_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    signature.signature(CONTENT)
    assert stat.S_IMODE((tmp_path / "lotcal_tf").stat().st_mode) & 0o077 == 0
    assert len((tmp_path / "lotcal_tf" / "key").read_bytes()) == 32


def test_without_a_place_for_the_key_nothing_is_signed(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert signature.signature(CONTENT) is None
    assert not signature.is_signed(CONTENT, None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "lotcal_tf").mkdir()
    (tmp_path / "lotcal_tf" / "key").write_bytes(b"short")
    assert signature.signature(CONTENT) is None
