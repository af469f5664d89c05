"""Lints and renders a chart with Helm's own library, without a cluster.

Reads from standard input {"chart": DIR, "namespace": NAME, "values": {...}} and writes
{"findings": [...], "files": {...}}, or {"refused": REASON} where the values are not allowed.
"""

import json
import sys

import helm_python as helm

asked = json.load(sys.stdin)
values = asked["values"]
answer = {}
try:
    with helm.Chart.load(asked["chart"]) as chart:
        chart.validate_schema(values)
        answer["files"] = chart.render(values, name="undermesh", namespace=asked["namespace"])
    report = helm.lint(
        asked["chart"], values, strict=True, namespace=asked["namespace"], kube_version="v1.32.0"
    )
    # 1 is information.
    found = [it for it in report["messages"] if it["severity"] > 1]
    answer["findings"] = [f"{it['path']}: {it['error']}" for it in found] + report["errors"]
    answer["version"] = helm.helm_sdk_version()
except helm.HelmError as error:
    answer = {"refused": str(error)}
json.dump(answer, sys.stdout)
