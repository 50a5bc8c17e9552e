"""`turnsvr probe -c FILE turn:HOST`: what the file serves, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.conftest import ServerProcess, free_port
from turnsvr.app import firstrun

SECRET = "north of the wall and then some"


def tried(result_text: str) -> list[str]:
    return [f"{leg['transport']} {leg['server']}" for leg in json.loads(result_text)["legs"]]


@pytest.mark.parametrize("transports", [("udp",), ("tcp",), ("udp", "tcp"), ("tls",), ("udp", "tcp", "tls")])
def test_what_the_file_serves_is_tried_and_nothing_else(
    run: Run, server_process: Callable[..., ServerProcess], tmp_path: Path, transports: tuple[str, ...]
) -> None:
    firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    port = free_port()
    ports = {"udp": port, "tcp": port, "tls": free_port()}
    listen = [f"{each}://127.0.0.1:{ports[each]}" for each in transports]
    served = server_process(
        f"listen: {json.dumps(listen)}\ntls: {{certificate: certificate.pem, key: key.pem}}\n"
        f"relay: {{addresses: 127.0.0.1}}\ncredentials: {{secret: {SECRET}}}\n"
    )
    result = run("probe", "-c", served.file, "--insecure", "--json", "turn:127.0.0.1")
    assert result.exit_code == 0, result.output
    assert tried(result.stdout) == [f"{each} 127.0.0.1:{ports[each]}" for each in transports]


@pytest.mark.parametrize("limit", [1, 2, 12])
def test_the_limit_of_one_user_stops_no_probe(
    run: Run, server_process: Callable[..., ServerProcess], limit: int
) -> None:
    port = free_port()
    served = server_process(
        f"listen: ['udp://127.0.0.1:{port}']\nrelay: {{addresses: 127.0.0.1}}\n"
        f"credentials: {{secret: {SECRET}}}\nlimits: {{allocations_per_user: {limit}}}\n"
    )
    result = run("probe", "-c", served.file, "turn:127.0.0.1")
    assert result.exit_code == 0, result.output


def test_static_users_of_the_file_will_do(run: Run, server_process: Callable[..., ServerProcess]) -> None:
    port = free_port()
    served = server_process(
        f"listen: ['udp://127.0.0.1:{port}']\nrelay: {{addresses: 127.0.0.1}}\n"
        "credentials: {users: {bob: '0x0123456789abcdef0123456789abcdef', alice: wonderland}}\n"
    )
    result = run("probe", "-c", served.file, "turn:127.0.0.1")
    assert result.exit_code == 0, result.output


def test_each_listener_is_tried_with_its_own_realm(run: Run, server_process: Callable[..., ServerProcess]) -> None:
    one, other = free_port(), free_port()
    served = server_process(
        f"listen: ['udp://127.0.0.1:{one}', 'udp://127.0.0.1:{other}']\nrelay: {{addresses: 127.0.0.1}}\n"
        f"credentials: {{secret: {SECRET}}}\n"
        f"realms: {{shop: {{listen: ['udp://127.0.0.1:{other}'], credentials: {{users: {{carol: marigold}}}}}}}}\n"
    )
    result = run("probe", "-c", served.file, "--json", "turn:127.0.0.1")
    assert result.exit_code == 0, result.output
    assert tried(result.stdout) == [f"udp 127.0.0.1:{one}", f"udp 127.0.0.1:{other}"]


def test_stun_only_is_tried_without_credentials(run: Run, server_process: Callable[..., ServerProcess]) -> None:
    port = free_port()
    served = server_process(f"listen: ['udp://127.0.0.1:{port}', 'tcp://127.0.0.1:{port}']\nstun_only: true\n")
    for scheme in ("turn", "stun"):
        result = run("probe", "-c", served.file, f"{scheme}:127.0.0.1")
        assert result.exit_code == 0, result.output
        assert "Binding" in result.output
        assert "Allocate" not in result.output


def test_what_the_url_names_is_tried_alone(run: Run, server_process: Callable[..., ServerProcess]) -> None:
    one, other = free_port(), free_port()
    served = server_process(
        f"listen: ['udp://127.0.0.1:{one}', 'tcp://127.0.0.1:{one}', 'udp://127.0.0.1:{other}']\n"
        f"relay: {{addresses: 127.0.0.1}}\ncredentials: {{secret: {SECRET}}}\n"
    )
    for url, legs in ((f":{one}", ["udp", "tcp"]), (f":{one}?transport=tcp", ["tcp"]), (f":{other}", ["udp"])):
        result = run("probe", "-c", served.file, "--json", f"turn:127.0.0.1{url}")
        assert result.exit_code == 0, result.output
        assert [each.split()[0] for each in tried(result.stdout)] == legs


def test_a_listener_that_does_not_answer_fails(run: Run, settings_file: Path) -> None:
    settings_file.write_text(f"listen: ['udp://127.0.0.1:{free_port()}']\ncredentials: {{secret: {SECRET}}}\n")
    result = run("probe", "-c", settings_file, "--timeout", "1s", "turn:127.0.0.1")
    assert result.exit_code == 1
    assert "nothing listens" in result.output


def test_a_file_without_anybody_to_try_as_says_so(run: Run, settings_file: Path) -> None:
    settings_file.write_text(f"credentials: {{users: {{alice: '0x{'ab' * 16}'}}}}\n")
    result = run("probe", "-c", settings_file, "turn:127.0.0.1")
    assert result.exit_code == 1
    assert "--password-file" in result.output
    assert "abab" not in result.output
