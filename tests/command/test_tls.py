"""TLS of files: certificates that change under a running server, clients with certificates, bad pairs."""

import os
import shutil
import signal
import socket
import ssl
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import connect

from fastws import ConfigurationError
from fastws.command.settings import TopLevel
from fastws.command.tls import Certificates

from ..lib.certificates import Authority
from ..lib.command import TIMEOUT, run, serving
from ..lib.lines import Lines

pytestmark = pytest.mark.usefixtures("folder")

REFUSED = (OSError, EOFError, InvalidMessage, ConnectionClosed)  # of the first an SSLError is one


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def trusting(authority, certificate=None):
    context = ssl.create_default_context(cafile=authority.path)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


def served_name(port, authority):
    """The name in the certificate that a new connection gets."""
    with (
        socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock,
        trusting(authority).wrap_socket(sock, server_hostname="127.0.0.1") as secure,
    ):
        ((_, name),) = secure.getpeercert()["subject"][0]
        return name


@contextmanager
def secured(certificate, *arguments, **options):
    """A server on TLS: its process, its port, and the lines that it says."""
    flags = ("--ssl-certfile", certificate[0], "--ssl-keyfile", certificate[1])
    with serving("app:create", *flags, "--log-level", "info", *arguments, **options) as (process, line):
        yield process, int(line.split("https://127.0.0.1:")[1].split()[0]), Lines(process.stderr)


def echo(client):
    client.send("hi")
    assert client.recv(TIMEOUT) == "hi"


def test_a_signal_gives_new_connections_the_new_certificate_and_leaves_the_old_ones(authority):
    certificate = authority.issue("first", file="live")
    with secured(certificate) as (process, port, lines):
        with connect(f"wss://127.0.0.1:{port}/echo", ssl=trusting(authority)) as old:
            echo(old)
            assert served_name(port, authority) == "first"
            authority.issue("second", file="live")
            process.send_signal(signal.SIGHUP)
            lines.until("the configuration was read again")
            assert served_name(port, authority) == "second"
            with connect(f"wss://127.0.0.1:{port}/echo", ssl=trusting(authority)) as new:
                echo(new)
            echo(old)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_a_pair_that_does_not_match_is_a_line_in_the_log_and_the_old_one_stays(authority):
    certificate = authority.issue("first", file="live")
    other = authority.issue("other")
    with secured(certificate) as (process, port, lines):
        shutil.copy(other[0], certificate[0])
        process.send_signal(signal.SIGHUP)
        lines.until("ERROR fastws.command: the old settings stay: ssl_keyfile=")
        for _ in range(2):
            assert served_name(port, authority) == "first"


def test_a_changed_file_is_found_by_looking_at_it(authority, caplog):
    caplog.set_level("INFO", "fastws.command")
    certificate, key = authority.issue("first", file="live")
    certificates = Certificates(TopLevel(ssl_certfile=certificate, ssl_keyfile=key))
    context = certificates.context
    certificates.look()
    assert caplog.messages == []
    authority.issue("second", file="live")
    certificates.look()
    certificates.look()
    assert caplog.messages == [f"the certificate was read again: {certificate}"]
    assert certificates.context is context
    os.unlink(certificate)
    certificates.look()
    certificates.look()
    assert caplog.messages[1:] == [
        f"the old certificate stays: ssl_certfile={certificate!r} cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize("said", ["required", "optional"])
def test_clients_bring_certificates_of_their_own(authority, tmp_path, said):
    stranger = Authority(tmp_path, "stranger")
    arguments = ("--ssl-ca-certs", str(authority.path), "--ssl-client-cert", said)
    with secured(authority.issue("server"), *arguments) as (_, port, _):
        url = f"wss://127.0.0.1:{port}/echo"
        with connect(url, ssl=trusting(authority, authority.issue("client"))) as client:
            echo(client)
        with pytest.raises(REFUSED):
            connect(url, ssl=trusting(authority, stranger.issue("else")), open_timeout=TIMEOUT)
        if said == "required":
            with pytest.raises(REFUSED):
                connect(url, ssl=trusting(authority), open_timeout=TIMEOUT)
        else:
            with connect(url, ssl=trusting(authority)) as client:
                echo(client)


@pytest.mark.parametrize("how", ["flag", "file", "environment"])
def test_a_key_may_have_a_password(authority, tmp_path, monkeypatch, how):
    certificate = authority.issue("server", password="hush")
    tmp_path.joinpath("password").write_text("hush\n")
    arguments = {
        "flag": ("--ssl-keyfile-password", "hush"),
        "file": ("--ssl-keyfile-password-file", "password"),
        "environment": (),
    }[how]
    if how == "environment":
        monkeypatch.setenv("FASTWS_SSL_KEYFILE_PASSWORD", "hush")
    with secured(certificate, *arguments) as (_, port, _):
        assert served_name(port, authority) == "server"


def test_the_file_may_say_it_and_certificate_and_key_may_be_one_file(authority, tmp_path):
    certificate, key = authority.issue("server")
    tmp_path.joinpath("both.pem").write_text(Path(key).read_text() + Path(certificate).read_text())
    tmp_path.joinpath("fastws.toml").write_text('ssl_certfile = "both.pem"\ntarget = "app:create"\n')
    with serving() as (_, line):
        assert served_name(int(line.split("https://127.0.0.1:")[1].split()[0]), authority) == "server"


def test_the_demo_takes_a_certificate_too(authority):
    certificate, key = authority.issue("server")
    arguments = ("--port", "0", "--ssl-certfile", certificate, "--ssl-keyfile", key)
    with serving(*arguments, subcommand="demo") as (_, line):
        assert served_name(int(line.split("https://127.0.0.1:")[1].split()[0]), authority) == "server"


@pytest.fixture
def files(authority, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    authority.issue("a")
    authority.issue("b")
    authority.issue("locked", password="hush")
    tmp_path.joinpath("text").write_text("this is no PEM")


BAD = [
    ({"ssl_certfile": "none"}, "ssl_certfile='none' cannot be read: No such file or directory"),
    ({"ssl_certfile": "text"}, "ssl_certfile='text' holds no certificate: give a file of PEM"),
    (
        {"ssl_certfile": "a.pem"},
        "ssl_certfile='a.pem' holds no private key: give a file of PEM as ssl_keyfile",
    ),
    (
        {"ssl_certfile": "a.pem", "ssl_keyfile": "text"},
        "ssl_keyfile='text' holds no private key: give a file of PEM as ssl_keyfile",
    ),
    (
        {"ssl_certfile": "a.pem", "ssl_keyfile": "b.key"},
        "ssl_keyfile='b.key' is not the key of ssl_certfile='a.pem': give the two that belong together",
    ),
    (
        {"ssl_certfile": "locked.pem", "ssl_keyfile": "locked.key"},
        "ssl_keyfile='locked.key' cannot be decrypted: give the right ssl_keyfile_password",
    ),
    (
        {"ssl_certfile": "locked.pem", "ssl_keyfile": "locked.key", "ssl_keyfile_password": "wrong"},
        "ssl_keyfile='locked.key' cannot be decrypted: give the right ssl_keyfile_password",
    ),
    (
        {"ssl_certfile": "a.pem", "ssl_keyfile": "a.key", "ssl_client_cert": "required"},
        "ssl_client_cert needs ssl_ca_certs: name the file of their authorities, too",
    ),
    (
        {"ssl_certfile": "a.pem", "ssl_keyfile": "a.key", "ssl_ca_certs": "text"},
        "ssl_ca_certs='text' holds no certificate: give a file of PEM",
    ),
    ({"ssl_keyfile": "a.key"}, "ssl_keyfile needs ssl_certfile: name the certificate's file, too"),
]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("settings", "sentence"), BAD)
def test_a_bad_pair_is_one_sentence(settings, sentence):
    with pytest.raises(ConfigurationError) as failed:
        Certificates.of(TopLevel(**settings))
    assert str(failed.value) == sentence


@pytest.mark.usefixtures("files")
def test_a_bad_pair_ends_the_command_at_once():
    ended = run("serve", "app:create", "--ssl-certfile", "a.pem", "--ssl-keyfile", "b.key")
    assert (ended.returncode, ended.stderr) == (2, f"fastws: {BAD[4][1]}\n")
