"""TLS files."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from unalike.errors import SpecError
from unalike.serve.certificates import own_names, qr_code, self_signed, tls_files
from unalike.spec.serve import Serve


def test_a_self_signed_certificate_is_kept_while_it_names_all(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, ["localhost", "127.0.0.1"])
    content = certificate.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    assert self_signed(tmp_path, ["127.0.0.1"])[0].read_bytes() == content
    assert self_signed(tmp_path, ["127.0.0.1", "line-7.local"])[0].read_bytes() != content
    key.write_text("damaged")
    self_signed(tmp_path, ["127.0.0.1"])
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)


def test_options_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    assert tls_files(Serve(), tmp_path) is None
    with pytest.raises(SpecError, match="tls_key is not set"):
        tls_files(Serve(tls_cert="c.pem"), tmp_path)
    with pytest.raises(SpecError, match="PEM"):
        tls_files(Serve(tls_cert="c.pem", tls_key="k.pem"), tmp_path)
    certificate, key = map(str, self_signed(tmp_path, ["localhost"]))
    assert tls_files(Serve(tls_cert=certificate, tls_key=key), tmp_path) == (Path(certificate), Path(key))
    with pytest.raises(SpecError, match="one of the two"):
        tls_files(Serve(tls_cert=certificate, tls_key=key, tls="self-signed"), tmp_path)


def test_names_are_those_of_this_machine() -> None:
    names = own_names("0.0.0.0")
    assert {"localhost", "127.0.0.1", "::1"} <= set(names) and "0.0.0.0" not in names and len(set(names)) == len(names)


def test_a_qr_code_is_drawn_with_characters() -> None:
    lines = qr_code("https://192.168.0.7:8000").splitlines()
    assert len(lines) > 10 and any("█" in line or "▀" in line or "▄" in line for line in lines)
