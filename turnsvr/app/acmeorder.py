"""One order of a certificate from an ACME authority (RFC 8555 section 7.4), by the package acme. It blocks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import josepy
import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from turnsvr import __version__
from turnsvr.app.certificates import write_private
from turnsvr.config.acmesettings import AcmeSettings
from turnsvr.net.proofs import Proofs

_ACCOUNT = "account.pem"
_REQUEST_SECONDS = 20
_ORDER_SECONDS = 180
"""Seconds for one answer of the authority, and for a whole order."""

logging.getLogger("acme").setLevel(logging.WARNING)


class OrderFailed(Exception):
    """There is no certificate; the text says why and holds no key."""


def order(settings: AcmeSettings, proofs: Proofs) -> None:
    """Have a certificate issued and put it with a new key into the file of the settings. Raises OrderFailed."""
    place = settings.certificate.parent
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        account = _account_key(place / _ACCOUNT)
        key = _private_pem(ec.generate_private_key(ec.SECP256R1()))
        with _failures(settings):
            chain = _order(settings, proofs, account, key)
        write_private(settings.certificate, key + chain)
    except OSError as error:
        raise OrderFailed(f"{error.filename or place}: {error.strerror}") from None


def _order(settings: AcmeSettings, proofs: Proofs, account: Any, key: bytes) -> bytes:
    """The chain in PEM."""
    network = client.ClientNetwork(
        account,
        alg=josepy.ES256,
        verify_ssl=str(settings.ca) if settings.ca is not None else True,
        user_agent=f"turnsvr/{__version__}",
        timeout=_REQUEST_SECONDS,
    )
    network.session.trust_env = False
    directory = client.ClientV2.get_directory(settings.authority, network)
    authority = client.ClientV2(directory, network)
    _register(authority, settings.email)
    deadline = datetime.now() + timedelta(seconds=_ORDER_SECONDS)
    pending = authority.new_order(crypto_util.make_csr(key, list(settings.domains)))
    try:
        for authorization in pending.authorizations:
            if authorization.body.status != messages.STATUS_VALID:
                _prove(authority, authorization.body, settings.challenge, proofs, account)
        done = authority.poll_authorizations(pending, deadline)
    finally:
        proofs.clear()
    chain: str = authority.finalize_order(done, deadline).fullchain_pem
    return chain.encode()


def _register(authority: Any, email: str | None) -> None:
    """Make the account, or find it where the key has one."""
    wanted = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        authority.new_account(wanted)
    except errors.ConflictError as known:
        authority.net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())


def _prove(authority: Any, wanted: Any, kind: str, proofs: Proofs, account: Any) -> None:
    """Be ready to prove one name, and say so."""
    name = wanted.identifier.value
    for each in wanted.challenges:
        stated = each.chall.to_partial_json()
        if stated.get("type") == kind:
            break
    else:
        raise OrderFailed(f"the authority does not take {kind} for {name}")
    token = stated["token"]
    thumbprint = josepy.b64encode(account.public_key().thumbprint()).decode()
    if kind == "http-01":
        proofs.prove_by_http(token, f"{token}.{thumbprint}")
    else:
        proofs.prove_by_tls(name.lower(), f"{token}.{thumbprint}")
    authority.answer_challenge(each, challenges.HTTP01Response(key_authorization=""))


def _account_key(path: Path) -> Any:
    if not path.exists():
        write_private(path, _private_pem(ec.generate_private_key(ec.SECP256R1())))
    try:
        return josepy.JWKEC(key=load_pem_private_key(path.read_bytes(), None))
    except (ValueError, TypeError):
        raise OrderFailed(f"{path} holds no private key; remove it to have a new account made") from None


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@contextlib.contextmanager
def _failures(settings: AcmeSettings) -> Iterator[None]:
    """Says in one line what went wrong."""
    place = urlsplit(settings.authority).hostname
    try:
        yield
    except errors.ValidationError as error:
        raise OrderFailed("; ".join(_reasons(error)) or "a name could not be proven") from None
    except errors.TimeoutError:
        raise OrderFailed(f"{place} has not decided in {_ORDER_SECONDS} s") from None
    except messages.Error as error:
        raise OrderFailed(_line(f"{place}: {error.detail or error.typ}")) from None
    except errors.IssuanceError as error:
        raise OrderFailed(_line(f"{place}: {error.error.detail or error.error.typ}")) from None
    except requests.exceptions.SSLError:
        raise OrderFailed(f"{place}: its certificate is not trusted") from None
    except requests.exceptions.RequestException as error:
        raise OrderFailed(f"{place} does not answer ({type(error).__name__})") from None
    except (errors.Error, josepy.errors.Error, ValueError, KeyError) as error:
        raise OrderFailed(_line(f"{place}: {type(error).__name__} {error}")) from None


def _reasons(error: Any) -> Iterator[str]:
    for authorization in error.failed_authzrs:
        for each in authorization.body.challenges:
            if each.error is not None:
                yield _line(f"{authorization.body.identifier.value}: {each.error.detail or each.error.typ}")


def _line(text: str) -> str:
    """What a stranger wrote, as one line of the log."""
    return "".join(each if each.isprintable() else " " for each in text)[:300]
