"""TLS: certificates that are named, or one that signs itself; and the address as a QR code, for a phone's camera."""

from __future__ import annotations

import io
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from unalike.errors import RunError, SpecError
from unalike.spec.serve import Serve
from unalike.storage.atomic import atomic_write

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

CERTIFICATE_FILE, KEY_FILE = "self-signed.pem", "self-signed.key"
# Phones refuse longer ones.
VALIDITY = timedelta(days=397)
RENEWAL = timedelta(days=30)


def tls_files(settings: Serve, folder: Path) -> tuple[Path, Path] | None:
    """Certificate and key of a service; None without TLS. A self-signed one is kept in the service's folder.

    Raises:
        SpecError: one of the two files alone is named, or they do not fit together.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        missing = "tls_key" if settings.tls_key is None else "tls_cert"
        raise SpecError(f"serve.{missing} is not set", expected="both --tls-cert and --tls-key, or neither")
    if settings.tls_cert is not None and settings.tls_key is not None:
        if settings.tls != "off":
            raise SpecError("serve.tls self-signed with serve.tls_cert", expected="one of the two")
        files = Path(settings.tls_cert), Path(settings.tls_key)
        _check(*files)
        return files
    if settings.tls == "off":
        return None
    return self_signed(folder, own_names(settings.host))


def _check(certificate: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SpecError(f"serve.tls_cert {certificate} with serve.tls_key {key}: {error.strerror or error}",
                        expected="a certificate and its key, both PEM") from error  # fmt: skip


def own_names(host: str) -> list[str]:
    """Names and addresses under which this machine is reached."""
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), host, lan_address()]
    return list(dict.fromkeys(name for name in names if name and name not in ("0.0.0.0", "::")))


def lan_address() -> str:
    """The address of this machine in its network; empty where it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation (RFC 5737); UDP sends nothing on connect
            return str(probe.getsockname()[0])
        except OSError:
            return ""


def self_signed(folder: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """Certificate and key for these names, those in the folder where they still hold.

    Raises:
        RunError: they cannot be written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    certificate_file, key_file = folder / CERTIFICATE_FILE, folder / KEY_FILE
    if _still_holds(certificate_file, key_file, names):
        return certificate_file, key_file
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "unalike serve, self-signed")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectAlternativeName([_general_name(entry) for entry in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(key_file) as partial:
            partial.touch(0o600)
            os.chmod(partial, 0o600)
            partial.write_bytes(content)
        with atomic_write(certificate_file) as partial:
            partial.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise RunError(f"{folder}: {error.strerror or error}", expected="a folder that can be written") from error
    return certificate_file, key_file


def _general_name(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _still_holds(certificate_file: Path, key_file: Path, names: Sequence[str]) -> bool:
    """Whether the files exist, fit together, name all names, and are valid for a month."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        _check(certificate_file, key_file)
    except (OSError, ValueError, SpecError):
        return False
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    own = {*extension.get_values_for_type(x509.DNSName), *map(str, extension.get_values_for_type(x509.IPAddress))}
    return set(names) <= own and certificate.not_valid_after_utc - datetime.now(UTC) > RENEWAL


def qr_code(address: str) -> str:
    """An address as a QR code of characters, for a terminal."""
    import segno

    stream = io.StringIO()
    segno.make(address, error="l").terminal(stream, compact=True)
    return stream.getvalue()
