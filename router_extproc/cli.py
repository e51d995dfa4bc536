"""The command line: serve | check | envoy | explain | cost | simulate | report | metrics | schema | reference."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from router_extproc import __version__, flags
from router_extproc.app import SHIPPED_MODEL, ServeOptions, serve
from router_extproc.bookkeeping import BookOptions
from router_extproc.config.catalogue import check_catalogue
from router_extproc.config.cost_plan import load_plan
from router_extproc.config.envoy import EnvoyOptions, render
from router_extproc.config.envoy_tls import write_secrets
from router_extproc.config.loader import load
from router_extproc.config.model import Api
from router_extproc.cost import calculate
from router_extproc.decision_log import by_time, read_joined
from router_extproc.domain import Outcome
from router_extproc.errors import ConfigError, RouterError
from router_extproc.explanation import as_sent, figures, tried
from router_extproc.idle import idle
from router_extproc.inference import artifact
from router_extproc.reference import config_schema, configuration_reference
from router_extproc.report import make_report
from router_extproc.report_page import report_page
from router_extproc.runtime import compile_runtime
from router_extproc.signals.base import SHIPPED, Heads
from router_extproc.signals.own_heads import OwnHeads, load_guest, review
from router_extproc.simulation import simulate
from router_extproc.telemetry import logs
from router_extproc.telemetry.recorder import Decided
from router_extproc.telemetry.reference import metrics_reference
from router_extproc.tls import TlsFiles


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. 0 is success, 1 a file that cannot be used, 2 a wrong command line."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except (RouterError, OSError) as error:
        print(f"router-extproc: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="router-extproc", description="An Envoy external processor that picks the model."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("serve", help="run the sidecar")
    command.set_defaults(run=_serve)
    _add_config(command)
    _add_model(command)
    text = "HOST:PORT or unix:/PATH of ext_proc, access log service and health; what `envoy` gets as --sidecar"
    _flag(command, "listen", "127.0.0.1:50051", text, flags.address_or_socket)
    _flag(command, "tls-cert", "", "PEM file with the certificate of --listen, followed when it changes; empty: no TLS")
    _flag(command, "tls-key", "", "PEM file with its key")
    _flag(command, "tls-client-ca", "", "PEM file: whoever connects must show a certificate that this authority signed")
    text = "HOST:PORT of the page, /livez, /readyz, /metrics, /config, /savings"
    _flag(command, "admin", "127.0.0.1:9090", text, flags.address)
    _flag(command, "admin-token-file", "", "file with the bearer token that opens the admin port beyond loopback")
    text = "file with the secret that conversations are hashed with, the same for all replicas; empty: one of its own"
    _flag(command, "session-secret-file", "", text)
    _flag(command, "state-dir", "", "directory of the savings ledger and the decision log; empty: in memory only")
    _flag(command, "decision-log-mib", 256, "MiB that the decision log may take", flags.whole(1, 1024 * 1024))
    text = "show prompts in the decision log and on the page"
    command.add_argument("--record-prompts", action="store_true", help=text)
    _flag(command, "otlp-endpoint", "", "OpenTelemetry collector (OTLP over HTTP), such as http://localhost:4318")
    text = "part of the requests to trace, 0 to 1; a caller's sampled trace always goes on"
    _flag(command, "trace-ratio", 0.0, text, flags.number(0, 1))
    _flag(command, "log-level", "info", "debug, info, warning or error", flags.one_of(*LEVELS))
    text = "cores that one pass of the classifier uses on a CPU; 0: all"
    _flag(command, "threads", 0, text, flags.whole(0, 1024))
    text = "prompts that may wait for the classifier; more go to the default model at once"
    _flag(command, "max-queued", 512, text, flags.whole(1, 1_000_000))
    text = "requests held at once; more are refused, and Envoy fails open for them"
    _flag(command, "max-streams", 8192, text, flags.whole(1, 1_000_000))
    text = "seconds between NOT_SERVING and refusing streams; over Envoy's check interval"
    _flag(command, "drain-notice", 2.5, text, flags.number(0, DAY))
    _flag(command, "drain-grace", 30.0, "seconds for the streams in flight after that", flags.number(0, DAY))
    command.add_argument(
        "--live", action="store_true", help="print one line per routed request, with the prompt's start"
    )

    command = commands.add_parser("check", help="name every mistake in a router.yaml")
    command.set_defaults(run=_check)
    command.add_argument("file", type=Path, help="router.yaml or the directory of a mounted ConfigMap")
    _add_model(command, device=False)

    command = commands.add_parser("envoy", help="print a complete Envoy configuration for a router.yaml")
    command.set_defaults(run=_envoy)
    command.add_argument("file", type=Path, help="router.yaml")
    EnvoyOptions.add_arguments(command)

    command = commands.add_parser("explain", help="show where a prompt would go, and why")
    command.set_defaults(run=_explain)
    _add_config(command)
    _add_model(command)
    command.add_argument("--model", default="auto", help="the model that the client names")
    apis = [api.value for api in Api]
    command.add_argument("--api", choices=apis, default=apis[0], help="the API that the client calls")
    command.add_argument("--context", default="", help="an earlier turn of the conversation")
    command.add_argument(
        "--header", type=flags.header, action="append", default=[], metavar="NAME=VALUE", help="a request header"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("prompt", help="the newest turn")

    command = commands.add_parser("cost", help="work out what a mixture costs against a single model, step by step")
    command.set_defaults(run=_cost)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("plan", type=Path, help="the plan, for instance examples/cost/three-tiers.yaml")

    command = commands.add_parser("simulate", help="replay recorded decisions against another router.yaml")
    command.set_defaults(run=_simulate)
    _add_config(command)
    _add_model(command, device=False)
    text = "decision logs, each a file or a state directory; those of all sidecars that serve together"
    command.add_argument("--log", type=Path, required=True, nargs="+", help=text)
    command.add_argument("--json", action="store_true", help="print JSON")

    command = commands.add_parser("report", help="what was saved and how well requests were routed, from the records")
    command.set_defaults(run=_report)
    text = "state directories, with ledger and decision log; those of all sidecars that serve together"
    command.add_argument("states", type=Path, nargs="+", metavar="state", help=text)
    _flag(command, "config", "", "router.yaml with the models' `quality`, for the cost-quality frontier")
    command.add_argument("--feedback", type=Path, help='JSON lines: {"id": decision id, "good": true or false}')
    command.add_argument("--format", choices=("text", "json", "html"), default="text")

    command = commands.add_parser("metrics", help="print the metrics reference")
    command.set_defaults(run=lambda _: _print(metrics_reference()))
    command = commands.add_parser("schema", help="print the JSON Schema of router.yaml")
    command.set_defaults(run=lambda _: _print(json.dumps(config_schema(), indent=2)))
    command = commands.add_parser("reference", help="print the configuration reference")
    command.set_defaults(run=lambda _: _print(configuration_reference()))
    return parser


LEVELS = ("debug", "info", "warning", "error")
DAY = 86_400


def _flag(
    command: argparse.ArgumentParser,
    name: str,
    default: str | int | float,
    text: str,
    kind: Callable[[str], object] = str,
) -> None:
    """A flag whose default can be set by the environment: --log-level by ROUTER_EXTPROC_LOG_LEVEL.

    argparse converts what is text among the defaults, and only for the command that runs: a bad variable is told like
    a bad flag. An empty variable counts as unset.
    """
    variable = "ROUTER_EXTPROC_" + name.upper().replace("-", "_")
    command.add_argument(
        f"--{name}",
        type=flags.from_environment(variable, kind),
        default=os.environ.get(variable) or default,
        help=f"{text} [{variable}, {default}]",
    )


def _add_config(command: argparse.ArgumentParser) -> None:
    _flag(command, "config", "router.yaml", "the file, or the directory of a mounted ConfigMap")


def _add_model(command: argparse.ArgumentParser, *, device: bool = True) -> None:
    """`device`: whether the command runs the classifier where `serve` would."""
    _flag(
        command,
        "model-dir",
        str(SHIPPED_MODEL),
        "directory of the classifier: in a checkout the shipped one, else it must be given",
    )
    _flag(command, "model-digest", "", "SHA-256 that the classifier must have; empty: any")
    if device:
        _flag(command, "device", "auto", "cpu, cuda or auto", flags.device)


def _print(text: str) -> int:
    print(text)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    import uvloop

    logs.configure(arguments.log_level)
    host, port = flags.host_and_port(arguments.admin)
    options = ServeOptions(
        config=Path(arguments.config),
        listen=arguments.listen,
        admin_host=host,
        admin_port=port,
        model_dir=Path(arguments.model_dir),
        model_digest=arguments.model_digest or None,
        device=arguments.device,
        threads=arguments.threads,
        max_queued=arguments.max_queued,
        max_streams=arguments.max_streams,
        drain_notice=arguments.drain_notice,
        drain_grace=arguments.drain_grace,
        live=_live if arguments.live else None,
        session_secret=Path(arguments.session_secret_file) if arguments.session_secret_file else None,
        admin_token=_token(arguments.admin_token_file),
        tls=_tls(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca),
        books=BookOptions(
            state_dir=Path(arguments.state_dir) if arguments.state_dir else None,
            prompts=arguments.record_prompts,
            otlp_endpoint=_endpoint(arguments.otlp_endpoint),
            trace_ratio=arguments.trace_ratio,
            log_bytes=arguments.decision_log_mib * 1024 * 1024,
        ),
    )
    if arguments.live:
        logging.getLogger("router_extproc.exchange").setLevel(logging.WARNING)
    uvloop.run(serve(options))
    return 0


def _endpoint(url: str) -> str | None:
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError([f"--otlp-endpoint {url}: must begin with http:// or https://"])
    return url or None


def _token(path: str) -> str | None:
    if not path:
        return None
    token = Path(path).read_text(encoding="utf-8").strip()
    if not token:
        raise ConfigError([f"{path}: holds no token"])
    return token


def _tls(certificate: str, key: str, client_ca: str) -> TlsFiles | None:
    if not certificate and not key and not client_ca:
        return None
    if not certificate or not key:
        raise ConfigError(["TLS needs --tls-cert and --tls-key"])
    return TlsFiles(Path(certificate), Path(key), Path(client_ca) if client_ca else None)


def _live(outcome: Outcome, decided: Decided | None) -> None:
    """One line for a person: what was asked, what was seen, where it went, what came of it."""
    prompt, signals, plan = "-", "-", "-"
    if decided is not None:
        prompt = " ".join(decided.request.prompt.split())[:48] or "-"
        signals = " ".join(
            f"{name}={value.label}:{value.confidence:.2f}" for name, value in decided.signals.values.items()
        )
        plan = decided.decision.reason
    tokens = f"{outcome.usage.input}+{outcome.usage.output}" if outcome.usage else "?"
    print(
        f"{time.strftime('%H:%M:%S')} {prompt!r} | {signals} | {outcome.route or '-'}/{outcome.band or '-'} ({plan}) | "
        f"{outcome.model or '-'} {outcome.status} attempts={outcome.attempts} tokens={tokens} "
        f"{outcome.duration_seconds * 1000:.0f} ms",
        flush=True,
    )


def _check(arguments: argparse.Namespace) -> int:
    loaded = load(arguments.file)
    runtime = compile_runtime(loaded, _heads(arguments), {})
    print(
        f"{loaded.source}: ok, {len(runtime.config.models)} models, {len(runtime.config.signals)} signals, "
        f"{len(runtime.config.routes)} routes"
    )
    for warning in (*runtime.preferences.gaps(), *idle(runtime.config, runtime.policy.certain())):
        print(f"warning: {warning}")
    for note in review(loaded, Path(arguments.model_dir)):
        print(note)
    return 0


def _heads(arguments: argparse.Namespace) -> Heads:
    """What the classifier can say. Raises UnusableModel also where its digest is not the one that it must have."""
    return {SHIPPED: artifact.read(Path(arguments.model_dir), digest=arguments.model_digest or None).labels}


def _envoy(arguments: argparse.Namespace) -> int:
    options = EnvoyOptions.from_arguments(arguments)
    loaded = load(arguments.file)
    unusable = check_catalogue(loaded.config.models)
    if unusable:
        raise loaded.error(unusable)
    text = render(loaded.config, options)
    if options.sidecar_tls is not None and options.sidecar_tls.sds_directory is not None:
        write_secrets(options.sidecar_tls, Path(options.sidecar_tls.sds_directory))
    return _print(text)


def _cost(arguments: argparse.Namespace) -> int:
    """1 when a published figure does not follow from the plan."""
    report = calculate(load_plan(arguments.plan))
    _print(json.dumps(report.json(), indent=2) if arguments.json else report.text())
    return 0 if report.follows else 1


def _simulate(arguments: argparse.Namespace) -> int:
    loaded = load(Path(arguments.config))
    found = simulate(by_time(read_joined(arguments.log)), loaded, _heads(arguments))
    if not found.replayed:
        where = ", ".join(map(str, arguments.log))
        raise RouterError(f"no decisions in {where}: `serve --state-dir` records them")
    return _print(json.dumps(found.json(), indent=2) if arguments.json else found.text())


def _report(arguments: argparse.Namespace) -> int:
    config = load(Path(arguments.config)).config if arguments.config else None
    found = make_report(*arguments.states, config=config, feedback=arguments.feedback)
    match arguments.format:
        case "json":
            return _print(json.dumps(found.json(), indent=2))
        case "html":
            return _print(report_page(found))
        case _:
            return _print(found.text())


def _explain(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level="WARNING")
    explained = asyncio.run(_explained(arguments))
    if arguments.json:
        return _print(json.dumps(explained, indent=2))
    for name, signal in explained["signals"].items():
        value = f" value {signal['value']:g}" if signal["value"] else ""
        partly = " (read in part)" if signal["partial"] else ""
        print(f"signal  {name:18} {signal['label'] or '-':28} confidence {signal['confidence']:.3f}{value}{partly}")
    for name, reason in explained["absent"].items():
        print(f"signal  {name:18} absent: {reason}")
    for rule in explained["routes"]:
        print(f"route   {rule['route']:18} {rule['verdict']:12} {rule['why']}")
    for rule in explained["guard_rules"]:
        print(f"guard   {rule['guard']:18} {rule['verdict']:12} {rule['action']}: {rule['why']}")
    if refused := explained.get("refused"):
        print(f"refused {refused['status']} {refused['code']}: {refused['message']}")
        return 0
    for row in explained["considered"]:
        print(f"model   {row['model']:18} {figures(row)}".rstrip())
    print(f"band    {explained['band']}: {explained['reason']}")
    print(f"plan    {' -> '.join(explained['plan'])}")
    return 0


async def _explained(arguments: argparse.Namespace) -> dict[str, Any]:
    """Routes one prompt as the sidecar would, with a deadline that no machine misses."""
    from router_extproc.inference import encoder
    from router_extproc.inference.engine import Engine

    loaded = load(Path(arguments.config))
    model_dir = Path(arguments.model_dir)
    compile_runtime(loaded, _heads(arguments), {})
    model = encoder.load(model_dir, digest=arguments.model_digest or None, device=arguments.device)
    engine = Engine(model)
    await engine.start()
    try:
        await OwnHeads(model, load_guest).serve(engine, loaded)
        runtime = compile_runtime(loaded, {SHIPPED: engine.labels}, {SHIPPED: engine})
        request = as_sent(arguments.api, arguments.model, arguments.prompt, arguments.context)
        return await tried(runtime, request, dict(arguments.header), time.monotonic() + EXPLAIN_SECONDS)
    finally:
        await engine.aclose()


EXPLAIN_SECONDS = 30.0
