"""Placeholders are refused wherever a secret is to stand, and no secret made by chance is taken for one."""

from __future__ import annotations

import base64
import secrets
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from turnsvr import config
from turnsvr.cli import main
from turnsvr.config.placeholders import is_placeholder

PLACEHOLDERS = [
    "<from: turnsvr secret>",
    "<SECRET>",
    "[your secret key here]",
    "CHANGE_ME",
    "change-me",
    "ChangeMe!",
    "changeme123",
    "change this please",
    "must be changed in production",
    "replace-me-with-a-long-random-string",
    "REPLACE_WITH_YOUR_SECRET",
    "${TURN_SECRET}",
    "${TURN_SECRET:-default}",
    "prefix-${SECRET}",
    "$TURN_SECRET",
    "$(cat secret)",
    "%TURN_SECRET%",
    "%(secret)s",
    "@SECRET@",
    "__turnSecret__",
    "{secret}",
    "{{ secret }}",
    "{{secret}}",
    "{% secret %}",
    "#{secret}",
    "<%= secret %>",
    "ENC[AES256_GCM,data:Tr7o,type:str]",
    "!env TURN_SECRET",
    "your-secret-here",
    "yoursecrethere",
    "your_turn_secret",
    "put your secret here",
    "mysecretkey",
    "super-secret-password",
    "a long random string secret",
    "the output of turnsvr secret",
    "static-auth-secret",
    "example",
    "example.org",
    "secret",
    "s3cr3t",
    "secret1",
    "Password123",
    "p@ssw0rd",
    "TODO",
    "test",
    "north",
    "n0t4ctuAllymatr1Xd0TorgSshar3d5ecret4obvIousreAsons",
    "your-256-bit-secret",
    "xxxxxxxxxxxxxxxx",
    "0000000000000000",
    "aaaa-aaaa-aaaa-aaaa",
    "****************",
    "................",
    "…",
    "12345678",
    "1234567890123456",
    "abcdefghijklmnop",
    "qwertyuiop",
    "  CHANGE_ME  ",
]
PLACES = [
    "credentials: {{secret: {}}}",
    "credentials: {{secrets: [{}]}}",
    "credentials: {{secrets: [u3Hd9sKfLq0ZrVx7, {}]}}",
    "credentials: {{users: {{alice: {}}}}}",
    "credentials: {{hook: {{url: 'https://app.example.org/', secret: {}}}}}",
    "realms: {{a: {{origins: https://a.example, credentials: {{secret: {}}}}}}}",
    "admin: {{listen: 'http://127.0.0.1:0', token: {}}}",
]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_what_is_a_placeholder(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", ["<from: turnsvr secret>", "CHANGE_ME", "${TURN_SECRET}", "{{ secret }}", "north"])
def test_it_is_refused_wherever_a_secret_stands(place: str, text: str) -> None:
    with pytest.raises(config.ConfigError, match="is a placeholder") as caught:
        config.loads(place.format(f"'{text}'"), "t.yaml")
    assert text not in str(caught.value)


def test_it_is_refused_as_a_web_key() -> None:
    with pytest.raises(config.ConfigError, match="is a placeholder"):
        config.loads("web: {keys: [{name: a, key: your-secret-api-key-here}]}\nstun_only: true", "t.yaml")


@pytest.mark.parametrize("place", PLACES)
def test_it_is_refused_from_the_environment_and_from_a_file(place: str, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("CHANGE_ME\n")
    for value in ("!env TURN_SECRET", "!file value"):
        file = tmp_path / "turnsvr.yaml"
        file.write_text(place.format(value))
        with pytest.raises(config.ConfigError, match="is a placeholder") as caught:
            config.load(file, environ={"TURN_SECRET": "CHANGE_ME"})
        assert "CHANGE_ME" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "north of the wall",
        "wonderland",
        "hush-hush",
        "correct horse battery staple",
        "turn secret of xmpp.example.org",
        "u3Hd9sKfLq0ZrVx7NwBt5cYpEm1Gj6Ta",
        "x{y}z",
        "<b>old & n<e>w",
        "100% sure that @night is __dark",
        "pässwörd",
        "🔥🦄",
    ],
)
def test_what_is_none(text: str) -> None:
    assert not is_placeholder(text)


@pytest.mark.parametrize("text", ["00000000000000004CG$(g100T*lG)", "Xy7$(abc1*2)q", "9k${abC%T*lG", "$aB3xY9kQ2mZ7"])
def test_marks_by_chance_are_none(text: str) -> None:
    assert not is_placeholder(text)


def test_the_secrets_that_we_make_are_none() -> None:
    for _ in range(200):
        made = CliRunner().invoke(main, ["secret"]).output.strip()
        assert made
        assert not is_placeholder(made)


@given(st.binary(min_size=9, max_size=64).filter(lambda data: len(set(data)) > 3))
def test_no_random_bytes_are_one_however_they_are_written(data: bytes) -> None:
    encoders = (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode, base64.b85encode, base64.a85encode)
    for text in (data.hex(), data.hex().upper(), *(encode(data).decode() for encode in encoders)):
        assert not is_placeholder(text)


def test_no_uuid_or_token_is_one() -> None:
    for _ in range(2_000):
        assert not is_placeholder(str(uuid.uuid4()))
        assert not is_placeholder(secrets.token_urlsafe(16))


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    assert is_placeholder(text) in (True, False)
