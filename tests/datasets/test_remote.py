"""Downloads from a server in a thread: whole, cut off and resumed, wrong, missing; nothing unchecked stays behind."""

import contextlib
import hashlib
import http.server
import os
import re
import shutil
import socket
import threading
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
from click.testing import CliRunner

from ude._checks import InputError
from ude.cli import main
from ude.datasets import REMOTE_FILES, DownloadError, RemoteFile, data_folder, download, remote

CONTENT = bytes(range(256)) * 1000


@dataclass
class Server:
    """How the next answers are to be, and what was asked."""

    content: bytes = CONTENT
    knows_ranges: bool = True
    cut_after: int | None = None
    states_length: bool = True
    shift: int = 0
    silent: threading.Event | None = None
    ranges: list = field(default_factory=list)
    sent: int = 0
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, server, *arguments):
        self.plan = server
        super().__init__(*arguments)

    def do_GET(self):
        plan = self.plan
        plan.ranges.append(self.headers.get("Range"))
        if self.path != "/set/numbers.bin":
            self.send_error(404)
            return
        start = 0
        if plan.knows_ranges and plan.ranges[-1]:
            start = int(re.fullmatch(r"bytes=(\d+)-", plan.ranges[-1])[1]) + plan.shift
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(plan.content) - 1}/{len(plan.content)}")
        else:
            self.send_response(200)
        body = plan.content[start:]
        if plan.states_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: plan.cut_after]
        plan.sent += len(body)
        with contextlib.suppress(ConnectionError):  # the other side may have heard enough
            self.wfile.write(body)
        if plan.silent is not None:
            plan.silent.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    plan = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, plan)) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        plan.url = f"http://127.0.0.1:{running.server_port}/set/numbers.bin"
        yield plan
        running.shutdown()


@pytest.fixture
def file(server):
    return RemoteFile(
        url=server.url, path="set/numbers.bin", sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT)
    )


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("states_length", [True, False])
def test_a_whole_file_is_fetched_once(server, file, tmp_path, states_length):
    server.states_length = states_length
    folder = tmp_path / "new" / "data"
    assert download(file, folder) == folder / "set/numbers.bin"
    assert (folder / "set/numbers.bin").read_bytes() == CONTENT
    assert names(folder) == ["set/numbers.bin"]
    download(file, folder)
    assert server.ranges == [None]


def test_a_progress_bar_is_shown_on_request(file, tmp_path, capsys):
    download(file, tmp_path / "a")
    assert capsys.readouterr().err == ""
    download(file, tmp_path / "b", progress=True)
    assert "numbers.bin: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("states_length", [True, False])
def test_a_download_that_was_cut_off_goes_on_where_it_ended(server, file, tmp_path, states_length):
    server.cut_after, server.states_length = 100_000, states_length
    with pytest.raises(DownloadError, match=r"ended after 100000 of 256000 bytes .* Run the same command again"):
        download(file, tmp_path)
    assert names(tmp_path) == ["set/numbers.bin.part"]
    server.cut_after = None
    assert download(file, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert server.sent == len(CONTENT)  # no byte came twice
    assert names(tmp_path) == ["set/numbers.bin"]


def test_a_server_without_ranges_sends_it_anew(server, file, tmp_path):
    server.cut_after, server.knows_ranges = 100_000, False
    with pytest.raises(DownloadError, match="ended after"):
        download(file, tmp_path)
    server.cut_after = None
    assert download(file, tmp_path).read_bytes() == CONTENT
    assert server.sent == 100_000 + len(CONTENT)


def test_a_part_that_is_whole_needs_no_server(server, file, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/numbers.bin.part").write_bytes(CONTENT)
    assert download(file, tmp_path).read_bytes() == CONTENT
    assert server.ranges == []


def test_a_part_that_is_too_long_is_none(server, file, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/numbers.bin.part").write_bytes(CONTENT + b"x")
    assert download(file, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_wrong_checksum_leaves_nothing_behind(server, file, tmp_path):
    server.content = b"!" + CONTENT[1:]
    with pytest.raises(DownloadError, match=f"expected 256000 bytes with SHA-256 {file.sha256}, got 256000 bytes with"):
        download(file, tmp_path)
    assert names(tmp_path) == []


def test_a_part_of_another_file_is_given_up(server, file, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/numbers.bin.part").write_bytes(b"!" * 1000)
    with pytest.raises(DownloadError, match="What was received is deleted"):
        download(file, tmp_path)
    assert download(file, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1], b"<html>Please sign in</html>", CONTENT * 20])
def test_a_file_of_another_length_is_refused(server, file, tmp_path, content):
    server.content = content
    with pytest.raises(DownloadError, match=f"expected 256000 bytes, got {len(content)}"):
        download(file, tmp_path)
    assert server.ranges == [None]
    assert names(tmp_path) == []


def test_a_file_that_does_not_end_is_not_followed(server, file, tmp_path):
    server.content, server.states_length = CONTENT * 20, False
    with pytest.raises(DownloadError, match="What was received is deleted") as caught:
        download(file, tmp_path)
    received = int(re.search(r"got (\d+) bytes", str(caught.value))[1])
    assert file.size < received < 2 * file.size  # of 20 times as many
    assert names(tmp_path) == []


def test_another_range_than_asked_for_is_refused(server, file, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/numbers.bin.part").write_bytes(CONTENT[:1000])
    server.shift = 1
    with pytest.raises(DownloadError, match=r"from 1000 on but answered with bytes 1001-255999/256000\. Delete"):
        download(file, tmp_path)
    assert (tmp_path / "set/numbers.bin.part").read_bytes() == CONTENT[:1000]


def test_a_missing_file_is_said_with_the_answer(server, file, tmp_path):
    gone = replace(file, url=server.url.replace("numbers", "letters"))
    with pytest.raises(DownloadError, match=r"letters\.bin answered 404 \(Not Found\)\. Try again later, or fetch it"):
        download(gone, tmp_path)
    assert names(tmp_path) == []


def closed_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def test_no_connection_is_said_so(file, tmp_path):
    away = replace(file, url=f"http://127.0.0.1:{closed_port()}/numbers.bin")
    with pytest.raises(DownloadError, match=r"cannot be reached: .*refused.* Check the network"):
        download(away, tmp_path)


def test_a_silent_server_is_given_up_and_what_came_is_kept(server, file, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_SILENCE", 0.2)
    server.silent, server.cut_after = threading.Event(), 65536
    with pytest.raises(DownloadError, match="cannot be reached: timed out"):
        download(file, tmp_path)
    server.silent.set()
    assert (tmp_path / "set/numbers.bin.part").read_bytes() == CONTENT[:65536]


def test_too_small_a_disk_is_noticed_before(server, file, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DownloadError, match=r"no room for 'set/numbers\.bin': expected 256000 bytes, got 1000\. Free"):
        download(file, tmp_path)
    assert server.ranges == []


def test_a_folder_that_cannot_be_made_is_said_so(file, tmp_path):
    (tmp_path / "set").write_text("a file")
    with pytest.raises(DownloadError, match=r"set/numbers\.bin' cannot be written: .* choose another folder"):
        download(file, tmp_path)


def test_a_file_of_the_same_name_is_left_as_it_is(server, file, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/numbers.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match=f"expected SHA-256 {file.sha256}, got {hashlib.sha256(b'mine').hexdigest()}"):
        download(file, tmp_path)
    assert (tmp_path / "set/numbers.bin").read_bytes() == b"mine"
    assert server.ranges == []


def test_a_remote_file_is_on_the_web_and_has_a_checksum(file):
    with pytest.raises(ValueError, match="must start with https"):
        replace(file, url="file:///etc/hosts")
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        replace(file, sha256="abc")


def test_known_files_come_by_https_and_belong_to_one_place_each():
    files = [file for known in REMOTE_FILES.values() for file in known]
    assert all(file.url.startswith("https://") and file.size > 0 for file in files)
    assert len({file.path for file in files}) == len({file.sha256 for file in files}) == len(files)


@pytest.fixture
def known(file, monkeypatch):
    monkeypatch.setattr("ude.datasets.REMOTE_FILES", {"numbers": (file,)})


@pytest.mark.usefixtures("known")
def test_the_command_fetches_and_names_the_files(server, tmp_path, monkeypatch):
    for _ in range(2):
        result = CliRunner().invoke(main, ["download", "numbers", "--data", str(tmp_path / "data")])
        assert result.exit_code == 0, result.stderr
        assert result.stdout.strip() == str(tmp_path / "data/set/numbers.bin")
        assert result.stderr == ""
    assert server.ranges == [None]
    monkeypatch.setenv("UDE_DATA", str(tmp_path / "other"))
    assert CliRunner().invoke(main, ["download", "numbers"]).exit_code == 0
    assert names(tmp_path) == ["data/set/numbers.bin", "other/set/numbers.bin"]


@pytest.mark.usefixtures("known")
def test_the_command_ends_with_one_sentence(server, tmp_path):
    server.cut_after = 1000
    result = CliRunner().invoke(main, ["download", "numbers", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert re.fullmatch(r"Error: The connection ended after 1000 of 256000 bytes of .*\n", result.stderr)


@pytest.mark.skipif(not os.environ.get("UDE_DATA"), reason="needs the folder of real data sets in UDE_DATA")
def test_the_real_digits_have_the_checksums_that_are_expected():
    for file in REMOTE_FILES["mnist"]:
        assert download(file, data_folder()).stat().st_size == file.size
