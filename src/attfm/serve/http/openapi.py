"""The OpenAPI document of a run, with its fields and usual values, and the page that shows it."""

import html
import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from attfm.serve.http.loaded_run import LoadedRun

_Operation = dict[str, Any]


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    said = {
        400: "The body is no JSON.", 401: "The API key is missing or wrong.", 408: "The body came too slowly.",
        413: "The body, or the number of rows, is too large.", 415: "The body is not said to be JSON.",
        421: "The service is asked for by another name than its own.",
        422: "Fields are lacking, unknown, or hold what they can't hold: each is named.",
        503: "The queue is full: ask again when Retry-After says.",
    }  # fmt: skip
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    return {status: {"description": said[status], "content": content} for status in statuses}


_OF_BODY = _refusals(400, 401, 408, 413, 415, 421, 422, 503)
_OF_NOTHING = _refusals(401, 421)
PREDICT: _Operation = {"summary": "Predict one row, or many", "operation_id": "predict", "responses": _OF_BODY}
EXPLAIN: _Operation = {
    "summary": "Predict, and say why: signed effects that add up to the logit", "operation_id": "explain",
    "responses": _OF_BODY,
}  # fmt: skip
WHAT_IF: _Operation = {
    "summary": "Find the smallest changes of one field that flip the decision", "operation_id": "what_if",
    "responses": _OF_BODY,
}  # fmt: skip
RANK: _Operation = {
    "summary": "Order candidates for a context, the best first",
    "operation_id": "rank",
    "responses": _OF_BODY,
}
SCHEMA: _Operation = {
    "summary": "The task and the fields of the model",
    "operation_id": "schema",
    "responses": _OF_NOTHING,
}
HEALTH: _Operation = {"summary": "Whether the service runs", "operation_id": "health", "responses": _refusals(421)}
READY: _Operation = {
    "summary": "Whether the service takes requests", "operation_id": "ready",
    "responses": {**_refusals(421), 503: {"description": "The service is closing."}},
}  # fmt: skip
METRICS: _Operation = {
    "summary": "Counts, times, unknown values and drift, for Prometheus", "operation_id": "metrics",
    "responses": _OF_NOTHING,
}  # fmt: skip
_REFUSAL = {
    "type": "object",
    "required": ["detail", "problems"],
    "properties": {
        "detail": {"type": "string", "description": "what is wrong, and what to do"},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": ["string", "null"]},
                    "row": {"type": ["integer", "null"]},
                    "message": {"type": "string"},
                },
            },
        },
    },
}


def document(app: FastAPI, run: LoadedRun) -> dict[str, Any]:
    """Return the document: the routes of the application, their bodies and examples from a run."""
    routes = get_openapi(title=app.title, version=run.version, description=_about(run), routes=app.routes)
    parts: dict[str, Any] = {"Refusal": _REFUSAL}
    split = max(len(run.usual) // 2, 1)
    names = list(run.usual)
    context = {name: run.usual[name] for name in names[:split]}
    candidate = {name: run.usual[name] for name in names[split:]}
    row, examples = dict(run.usual), run.scores.of(run.scorer.logits([run.usual])[0])
    bodies: tuple[tuple[str, TypeAdapter[Any], Any], ...] = (
        ("/predict", run.requests.predict, {"row": row}),
        ("/explain", run.requests.explain, {"row": row, "top": 5}),
        ("/what-if", run.requests.what_if, {"row": row}),
        ("/rank", run.requests.rank, {"context": context, "candidates": [candidate, candidate], "top": 1}),
    )
    for path, adapter, example in bodies:
        schema = adapter.json_schema(ref_template="#/components/schemas/{model}")
        parts |= schema.pop("$defs", {})
        if {"row", "rows"} <= set(schema["properties"]):
            schema["oneOf"] = [{"required": ["row"]}, {"required": ["rows"]}]
        content = {"application/json": {"schema": schema, "example": example}}
        routes["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
    answer = {"application/json": {"schema": {"type": "object"}, "example": examples[0]}}
    routes["paths"]["/predict"]["post"]["responses"]["200"]["content"] = answer
    routes["paths"]["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    components = routes.setdefault("components", {})
    components["schemas"] = {**components.get("schemas", {}), **parts}
    return dict(routes)


def _about(run: LoadedRun) -> str:
    task = run.model.task
    classes = f", one of {', '.join(task.class_names[:20])}" if task.is_classification else ""
    return f"Predicts {task.target} ({task.name}){classes}. Every field must be sent; null says that it is not known."


def page(document: Mapping[str, Any]) -> bytes:
    """Return the document as a page that loads nothing from elsewhere."""
    esc = html.escape
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{esc(document['info']['title'])}: requests</title><link rel=stylesheet href=page.css>"
        '<link rel=icon href="data:,"></head><body class=docs>',
        f"<header><h1>{esc(document['info']['title'])}</h1><p class=note>{esc(document['info']['description'])} ",
        'The same for programs: <a href="openapi.json">openapi.json</a>. The model: <a href="./">try it</a>.</p>',
        "</header><main>",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(path, method, operation))
    row = document["components"]["schemas"].get("Row", {})
    parts.append("<section class=panel><h2>Fields of a row</h2><div class=scroll><table><thead><tr><th>field<th>takes")
    parts.append("<th>example</thead><tbody>")
    for name, field in row.get("properties", {}).items():
        example = json.dumps(field.get("examples", [None])[0], ensure_ascii=False)
        parts.append(f"<tr><td>{esc(name)}<td>{esc(field.get('description', ''))}<td><code>{esc(example)}</code>")
    parts.append("</tbody></table></div></section></main></body></html>")
    return "".join(parts).encode()


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    esc = html.escape
    parts = [
        f"<section class=panel><h2><span class=method>{esc(method.upper())}</span> <code>{esc(path)}</code></h2>",
        f"<p>{esc(operation['summary'])}.</p>",
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" in body:
        parts.append(f"<h3>Send</h3><pre>{esc(json.dumps(body['example'], indent=1, ensure_ascii=False))}</pre>")
    answer = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
    if "example" in answer:
        parts.append(f"<h3>Get</h3><pre>{esc(json.dumps(answer['example'], indent=1, ensure_ascii=False))}</pre>")
    said = [f"<li><b>{esc(str(status))}</b> {esc(about['description'])}"
            for status, about in operation["responses"].items() if str(status) != "200"]  # fmt: skip
    if said:
        parts.append(f"<details><summary>Refusals</summary><ul>{''.join(said)}</ul></details>")
    return "".join([*parts, "</section>"])
