"""Commands that serve, or tell of serving: run, check, schema, version."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from turnsvr import __version__, config
from turnsvr.cli.common import FILE, config_option, operator_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from turnsvr.config.advice import Advice
    from turnsvr.config.settings import Settings


@click.command()
@click.argument("file", type=FILE, required=False)
@config_option
@click.option(
    "--web", "with_web", is_flag=True, help="Serve the test page on ports 8080 and 8443, to all who can reach them."
)
@click.option("--environment", is_flag=True, help="Make the settings file of TURNSVR_… variables, as in a container.")
@click.option(
    "--take-over",
    metavar="SOCKET",
    help="Go on in the place of the server at this admin socket, with its sessions; without a server there, do not "
    "start.",
)
@operator_errors
def run(file: Path | None, config_file: Path | None, with_web: bool, environment: bool, take_over: str | None) -> None:
    """Serve until SIGTERM.

    The settings file is named as FILE or with -c. Without one: UDP and TCP on port 3478 and TLS on 5349 of every
    address, with a certificate and a shared secret made for this run, and an iceServers list to paste into a browser.
    SIGHUP reads the file again, SIGUSR1 lets sessions end and takes no new ones.

    With --web, unless the file has a section web: the test page on http port 8080 and, where there is TLS, https
    port 8443 of every address; it gives credentials for ten minutes to everyone who can open it.

    With --environment TURNSVR_REALM, TURNSVR_SECRET or TURNSVR_SECRET_FILE, TURNSVR_EXTERNAL and a few more stand in
    for a file; docs/container.md has them.

    \b
    Example:
      turnsvr run -c /etc/turnsvr/turnsvr.yaml
    """
    if file is not None and config_file is not None:
        raise click.UsageError("name the settings file once, as FILE or with -c")
    config_file = file or config_file
    if environment and config_file is not None:
        raise click.UsageError("take the settings from a file or with --environment")
    if environment:
        config_file = _file_of_environment()
    from turnsvr import app
    from turnsvr.config.settings import Settings

    settings = config.load(config_file) if config_file else Settings()
    if with_web and settings.web is None:
        from turnsvr.config.websettings import for_trying_out

        tls = config_file is None or settings.tls is not None
        settings = settings.model_copy(update={"web": for_trying_out(tls=tls)})
    arguments = [] if config_file is None else ["-c", str(config_file.absolute())]
    if with_web:
        arguments.append("--web")
    sys.exit(app.run(settings, path=config_file, arguments=arguments, take_over=take_over))


def _file_of_environment() -> Path:
    """Written where the admin socket is as well; it holds no secret. SIGHUP reads it, and what it names, again."""
    from turnsvr.admin.places import places
    from turnsvr.config.environment import settings_text

    text = settings_text(os.environ)
    file = places()[0].with_name("turnsvr.yaml")
    file.write_text(text)
    return file


@click.command()
@click.argument("file", type=FILE)
@click.option("--strict", is_flag=True, help="Warnings are failures, too.")
@operator_errors
def check(file: Path, strict: bool) -> None:
    """Validate a settings FILE and show what it means.

    The settings in effect go to standard output with their secrets masked, and as comments how `run` would
    share out the files that may be open here; mistakes, and warnings of what is unsafe or cannot work, to
    standard error. Exit status 1 on a mistake and on what would keep `turnsvr run`
    from starting here (a certificate, a package, an address), with --strict on a warning as well.

    \b
    Example:
      turnsvr check --strict /etc/turnsvr/turnsvr.yaml
    """
    settings = config.load(file)
    click.echo(_effective(settings), nl=False)
    for line in _open_files(settings):
        click.echo(f"# {line}")
    advice = _advice(settings, file)
    for item in advice:
        click.echo(f"{file}: {item}", err=True)
    failures = {"error", "warning"} if strict else {"error"}
    if any(item.severity in failures for item in advice):
        sys.exit(1)


def _effective(settings: Settings) -> str:
    import yaml

    values = settings.model_dump(mode="json")
    values["listen"] = [str(address) for address in settings.listeners()]
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100))


def _open_files(settings: Settings) -> Iterator[str]:
    """How `run` would share them out, started as this command is, and what they are too few for."""
    from turnsvr.app import assemble, descriptors

    host = assemble.host_here()
    wanted = descriptors.share_out(settings, None, threads=settings.pump.thread_count(host.cores)).total
    budget = descriptors.share_out_on(host, settings, descriptors.would_grant(wanted))
    yield f"open files: {budget.describe()}"
    for setting, room, asked in budget.reduced(settings):
        yield f"open files: so {setting} is {room}, not {asked} (LimitNOFILE, ulimit -n)"


def _advice(settings: Settings, file: Path) -> list[Advice]:
    from turnsvr.app import trial
    from turnsvr.app.assemble import own_hosts_here
    from turnsvr.config import hostfacts
    from turnsvr.config.advice import advise

    obstacles = trial.obstacles(settings)
    issued = settings.tls is not None and (settings.tls.acme is None or settings.tls.certificate.exists())
    readable = settings.tls is not None and not any(each.setting == "tls" for each in obstacles)
    found = advise(
        settings,
        time.time(),
        relays=trial.relays(settings),
        host_addresses=hostfacts.addresses_here(hostfacts.addresses_in(settings)),
        lowest_port=hostfacts.lowest_port(),
        certificate=hostfacts.read_certificate(settings.tls) if settings.tls and issued and readable else None,
        file_is_public=hostfacts.is_public(file) and hostfacts.holds_secret(file, settings),
        own=own_hosts_here(settings),
    )
    return [*obstacles, *found]


@click.command()
def schema() -> None:
    """Print the settings file's JSON Schema, for editors.

    \b
    Example:
      turnsvr schema > turnsvr.schema.json
    and then as the first line of turnsvr.yaml:
      # yaml-language-server: $schema=turnsvr.schema.json
    """
    from turnsvr.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@click.command()
def version() -> None:
    """Print versions, and what runs compiled and why.

    \b
    Example:
      turnsvr version
    """
    from turnsvr import compiled_modules, relay
    from turnsvr.relay.compiled import tls

    click.echo(f"turnsvr {__version__}")
    click.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    click.echo(f"pump {relay.describe()}")
    click.echo(f"offload {relay.describe_offload()}")
    click.echo(f"rules {compiled_modules.describe()}")
    click.echo(f"TLS {tls.describe()}")
