"""Make ``operations.json`` from the public specification: the API's eight operations as JSON Schemas.

``python tests/contract/operations.py SPECIFICATION`` writes it again. It leaves out descriptions, examples and the
gateway's own settings. It also leaves out the ``Authorization`` header, which the specification declares as a UUID.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

COMMITTED = Path(__file__).with_name("operations.json")
OPERATIONS = {
    "createBackup": ("post", "/installs/{install_id}/backups"),
    "listBackups": ("get", "/installs/{install_id}/backups"),
    "showBackup": ("get", "/installs/{install_id}/backups/{backup_id}"),
    "listInstalls": ("get", "/installs"),
    "getInstall": ("get", "/installs/{install_id}"),
    "listAccounts": ("get", "/accounts"),
    "getCurrentUser": ("get", "/user"),
    "status": ("get", "/status"),
}
LEFT_OUT = {"description", "example", "x-example", "x-nullable", "name", "in", "schema"}


def from_specification(document: dict[str, Any]) -> dict[str, Any]:
    """Return the operations of a Swagger 2.0 ``document``."""
    return {name: _operation(document, *place) for name, place in OPERATIONS.items()}


def committed() -> dict[str, Any]:
    """Read the operations from ``operations.json``."""
    operations: dict[str, Any] = json.loads(COMMITTED.read_text())
    return operations


def _operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    described = document["paths"][path][method]
    parameters = [_resolved(document, each) for each in described.get("parameters", [])]
    body = next((each["schema"] for each in parameters if each["in"] == "body"), None)
    return {
        "operation_id": described["operationId"],
        "method": method,
        "consumes": described.get("consumes", []),
        "path": path,
        "parameters": {
            each["name"]: {"in": each["in"]} | _schema(document, each)
            for each in parameters
            if each["in"] in {"path", "query"}
        },
        "body": None if body is None else _schema(document, body),
        "answers": {
            status: _schema(document, _resolved(document, answer).get("schema", {}))
            for status, answer in described["responses"].items()
        },
    }


def _resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    here: Any = document
    for step in value["$ref"].removeprefix("#/").split("/"):
        here = here[step]
    found: dict[str, Any] = here
    return found


def _schema(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    value = _resolved(document, value)
    schema = {key: each for key, each in value.items() if key not in LEFT_OUT and not isinstance(each, dict)}
    if "properties" in value:
        schema["properties"] = {name: _schema(document, each) for name, each in value["properties"].items()}
    if "items" in value:
        schema["items"] = _schema(document, value["items"])
    if value.get("x-nullable"):
        schema["type"] = [schema["type"], "null"]
    return schema


if __name__ == "__main__":
    made = from_specification(json.loads(Path(sys.argv[1]).read_text()))
    COMMITTED.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
