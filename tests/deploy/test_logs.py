import os
import stat

from tasks.deploy import logs


def test_a_large_log_is_moved_while_its_service_goes_on_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 100)
    log = tmp_path / "api-server.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab", buffering=0) as service:
        for start in ("first", "second", "third"):
            service.write(f"{start}\n".encode() + b"x" * 100)
            logs.keep_small([log])
            assert log.read_bytes() == b""
            assert (tmp_path / "api-server.log.1").read_bytes().startswith(start.encode())
        service.write(b"goes on\n")
        logs.keep_small([log])
    assert log.read_bytes() == b"goes on\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api-server.log", "api-server.log.1"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_log_that_cannot_be_copied_is_kept_and_the_next_one_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 100)
    broken, good = tmp_path / "broken.log", tmp_path / "good.log"
    for log in (broken, good):
        log.write_bytes(b"x" * 200)
    (tmp_path / "broken.log.1").mkdir()
    logs.keep_small([tmp_path / "missing.log", broken, good])
    assert broken.read_bytes() == b"x" * 200
    assert (good.read_bytes(), (tmp_path / "good.log.1").read_bytes()) == (b"", b"x" * 200)
    assert not (tmp_path / "broken.log.2").exists()
