"""Writes what is generated in the chart: the schema of `router` in values.schema.json, access-log.json and README.md.

    python helm/generate.py           writes both
    python helm/generate.py --check   says what is not in step; exit 1

The table of the README comes from the `@param` and `@section` comments of values.yaml.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from router_extproc.config.access_log import GATEWAY_LINE
from router_extproc.reference import config_schema

CHART = Path(__file__).resolve().parent / "router-extproc"
ENVOY = CHART.parents[1] / "envoy"

_INTRODUCTION = """\
# router-extproc

{description}

```bash
helm install router-extproc ./helm/router-extproc --namespace mom --create-namespace -f values.yaml
```

A `values.yaml` to begin with: everything goes to the first model of `default`, the second takes over when it fails.

```yaml
image: {{registry: registry.example.com}} # where you pushed the image to
router:
  models:
    small: {{url: "http://vllm-small.models.svc:8000", provider: vllm, price: {{input: 0.1, output: 0.3}}}}
    large: {{url: "http://vllm-large.models.svc:8000", provider: vllm, price: {{input: 0.6, output: 1.8}}}}
  default: [small, large]
attach: {{provider: envoy}} # or istio, or envoy-gateway: into the gateway that runs already
```

What goes into `values.yaml` for each gateway, upgrade, sizing, security and troubleshooting:
[docs/kubernetes.md](../../docs/kubernetes.md). The content of `router`:
[docs/configuration.md](../../docs/configuration.md). Needs Kubernetes {kubernetes}.

Generated from values.yaml by `python helm/generate.py`: change that file, not this one.
"""


def schema() -> str:
    """values.schema.json with the router.yaml schema of the code beside it."""
    path = CHART / "values.schema.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    router = config_schema()
    definitions = router.pop("$defs")
    router.pop("$schema", None)
    document["$defs"] = _for_helm({**definitions, "RouterConfig": router})
    return json.dumps(document, indent=2) + "\n"


def _for_helm(node: Any) -> Any:
    """Helm compiles patterns with Go's regular expressions, which know no lookaround; such patterns are left out.

    Titles and defaults go too: nothing reads them here, and they are half of the text.
    """
    if isinstance(node, list):
        return [_for_helm(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        if key == "pattern" and isinstance(value, str) and "(?" in value:
            continue
        if (key == "title" and isinstance(value, str)) or (key == "default" and not isinstance(value, dict)):
            continue
        kept[key] = _for_helm(value)
    return kept


def access_log() -> str:
    """The access log's line for gateways, as the templates put it in."""
    return json.dumps(GATEWAY_LINE, indent=2) + "\n"


def readme() -> str:
    """README.md from Chart.yaml and the comments of values.yaml."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    kubernetes = chart["kubeVersion"].removeprefix(">=").removesuffix("-0") + " or newer"
    lines = [_INTRODUCTION.format(description=chart["description"], kubernetes=kubernetes)]
    for kind, name, description in comments(text):
        if kind == "section":
            lines += [f"\n## {name}\n", "| value | what | default |", "|---|---|---|"]
        else:
            default = json.dumps(_at(values, name), separators=(", ", ": "))
            lines.append(f"| `{name}` | {description.replace('|', chr(92) + '|')} | `{default}` |")
    return "\n".join(lines) + "\n"


def comments(text: str) -> Iterator[tuple[str, str, str]]:
    """The `@section` and `@param` comments: kind, name, description."""
    for line in text.splitlines():
        if match := re.match(r"\s*## @section (.+)", line):
            yield "section", match[1], ""
        elif match := re.match(r"\s*## @param (\S+) (.+)", line):
            yield "param", match[1], match[2]


def _at(values: Any, name: str) -> Any:
    for key in name.split("."):
        values = values[key]
    return values


def main(arguments: list[str]) -> int:
    """0 when everything is written, or in step."""
    stale = []
    written = {"values.schema.json": schema(), "files/access-log.json": access_log(), "README.md": readme()}
    paths = {CHART / name: text for name, text in written.items()} | {ENVOY / "access-log.json": access_log()}
    for path, text in paths.items():
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"not in step: {', '.join(stale)}: run `python helm/generate.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
