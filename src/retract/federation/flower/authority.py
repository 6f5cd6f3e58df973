"""Keys of a federation: an authority of its own, the server's certificate, and a key for every node.

```
KEYS/ca.crt, ca.key                 the authority; nodes get ca.crt
KEYS/server.crt, server.key         the SuperLink's
KEYS/runs.key                       who has it may start rounds: it stays beside the SuperLink
KEYS/nodes/NAME.pub                 the nodes that are let in
KEYS/nodes/NAME.key                 goes to the node with ca.crt, and is then deleted here
```
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from retract.atomic import write_atomically
from retract.errors import ConfigError, FolderError

AUTHORITY, AUTHORITY_KEY, SERVER, SERVER_KEY, RUNS_KEY, NODES = (
    "ca.crt",
    "ca.key",
    "server.crt",
    "server.key",
    "runs.key",
    "nodes",
)
YEARS = 2
"""How long a certificate is valid."""


def make_keys(root: Path, hosts: Sequence[str], nodes: Sequence[str]) -> list[str]:
    """Make what is missing of a federation's keys; nothing that is there is changed.

    Parameters
    ----------
    hosts
        Names and addresses under which nodes reach the server.
    nodes
        Names of nodes.

    Returns
    -------
    list of str
        What was made, by path within `root`.

    Raises
    ------
    ConfigError
        If a node's name is no plain file name, or no host is given.
    FolderError
        If the authority is there in part alone.
    """
    if not hosts:
        raise ConfigError("give at least one host: the name or address under which nodes reach the server")
    for name in nodes:
        if not name or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"node name {name!r}: take letters, digits, - and _")
    made = []
    if not (root / AUTHORITY).exists() or not (root / AUTHORITY_KEY).exists():
        if (root / AUTHORITY).exists() or (root / AUTHORITY_KEY).exists() or (root / SERVER).exists():
            raise FolderError(f"{root} holds a part of an authority: restore {AUTHORITY} and {AUTHORITY_KEY}")
        key = ec.generate_private_key(ec.SECP384R1())
        _write(root / AUTHORITY_KEY, _private(key))
        _write(root / AUTHORITY, _authority(key).public_bytes(serialization.Encoding.PEM), 0o644)
        made += [AUTHORITY, AUTHORITY_KEY]
    if not (root / SERVER).exists():
        key = ec.generate_private_key(ec.SECP384R1())
        _write(root / SERVER_KEY, _private(key))
        _write(root / SERVER, _server(root, key, hosts).public_bytes(serialization.Encoding.PEM), 0o644)
        made += [SERVER, SERVER_KEY]
    if not (root / RUNS_KEY).exists():
        _write(root / RUNS_KEY, secrets.token_bytes(32))
        made.append(RUNS_KEY)
    for name in nodes:
        if not (root / NODES / f"{name}.pub").exists():
            made += _make_node(root / NODES, name)
    return made


def public_keys(root: Path) -> dict[str, bytes]:
    """The public keys of the nodes that are let in, by name.

    Raises
    ------
    FolderError
        If a file holds no key of the kind that Flower takes.
    """
    found = {}
    for path in sorted((root / NODES).glob("*.pub")):
        try:
            key = serialization.load_ssh_public_key(path.read_bytes())
        except (ValueError, TypeError):
            raise FolderError(f"{path} holds no public key: make it by `retract federate keys`") from None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise FolderError(f"{path} holds another kind of key: make it by `retract federate keys`")
        found[path.stem] = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return found


def _make_node(room: Path, name: str) -> list[str]:
    key = ec.generate_private_key(ec.SECP384R1())
    ssh = serialization.PrivateFormat.OpenSSH
    _write(room / f"{name}.key", key.private_bytes(serialization.Encoding.PEM, ssh, serialization.NoEncryption()))
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(room / f"{name}.pub", public + b"\n", 0o644)
    return [f"{NODES}/{name}.key", f"{NODES}/{name}.pub"]


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    pkcs8 = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())


def _builder(subject: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]), datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * YEARS))
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder("retract federation", None, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )


def _server(root: Path, key: ec.EllipticCurvePrivateKey, hosts: Sequence[str]) -> x509.Certificate:
    authority = x509.load_pem_x509_certificate((root / AUTHORITY).read_bytes())
    signer = serialization.load_pem_private_key((root / AUTHORITY_KEY).read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    names = [_alternative(host) for host in dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"])]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        _builder(hosts[0], authority.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer, critical=False)
        .sign(signer, hashes.SHA384())
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that its owner alone may read, unless `mode` says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.umask(0o777 & ~mode)
    try:
        write_atomically(path, content)
    finally:
        os.umask(before)
    path.chmod(mode)
