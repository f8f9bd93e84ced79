"""What the service answers: predictions, explanations, rankings and descriptions, as the model itself says."""

import json
from pathlib import Path

import numpy as np
import pytest

from attfm.errors import ConfigError
from attfm.model.run_folder import load_model
from tests.serve.client import Client
from tests.serve.conftest import ROW, Opened

ROWS = [ROW, {**ROW, "age": None}, {**ROW, "job": "never seen", "town": None}, {**ROW, "age": 79.5, "job": "pilot"}]


def test_single_rows_and_many_are_what_the_model_says(client: Client, run: str) -> None:
    model = load_model(run)
    expected, decided = model.predict_proba(ROWS)[:, 1], model.predict(ROWS).tolist()
    many = client.post("/predict", {"rows": ROWS}).json()["predictions"]
    single = [client.post("/predict", {"row": row}).json() for row in ROWS]
    for answers in (many, single):
        np.testing.assert_allclose([answer["probability"] for answer in answers], expected, atol=1e-6)
        assert [answer["prediction"] for answer in answers] == decided
    assert len({round(p, 4) for p in expected}) == len(ROWS)  # else the comparison shows nothing


def test_rows_that_come_together_are_scored_together_and_each_gets_its_own(client: Client) -> None:
    before = _count(client, "attfm_batch_rows_count")
    bodies = [json.dumps({"row": {**ROW, "age": age}}).encode() for age in range(20, 60)]
    replies = client.all(*(("POST", "/predict", body, {}) for body in bodies))
    alone = [client.post("/predict", json.loads(body)).json() for body in bodies]
    assert [reply.json() for reply in replies] == alone
    assert _count(client, "attfm_batch_rows_count") - before <= len(bodies) + 5  # 40 together: a few batches at most


def test_a_bad_row_among_others_fails_alone(client: Client) -> None:
    good, bad = json.dumps({"row": ROW}).encode(), json.dumps({"row": {**ROW, "age": "old"}}).encode()
    replies = client.all(*(("POST", "/predict", body, {}) for body in (good, bad, good)))
    assert [reply.status for reply in replies] == [200, 422, 200]
    assert replies[1].fields == {"age"}


def test_explanations_add_up_to_the_logit(client: Client) -> None:
    answer = client.post("/explain", {"row": ROW}).json()
    [account] = answer["accounts"]
    total = answer["base"]["yes"] + sum(effect["effect"] for effect in account["effects"])
    assert total == pytest.approx(answer["logit"], abs=1e-5)
    assert answer["prediction"] == client.post("/predict", {"row": ROW}).json()["prediction"]
    assert len(client.post("/explain", {"row": ROW, "top": 2}).json()["accounts"][0]["effects"]) == 2
    assert len(client.post("/explain", {"rows": ROWS}).json()["rows"]) == len(ROWS)


def test_unknown_values_are_no_warning_which_would_show_them(client: Client) -> None:
    rows = [{"age": 41, "job": f"secret {number}", "town": "nowhere"} for number in range(20)]
    for path in ("/explain", "/predict"):  # a warning is an error here
        assert client.post(path, {"rows": rows}).status == 200


def test_what_if_names_changes_that_flip_the_decision(client: Client) -> None:
    answer = client.post("/what-if", {"row": ROW, "immutable": ["town"]}).json()
    assert answer["changes"]
    change = next(change for change in answer["changes"] if change["field"] == "job")
    changed = client.post("/predict", {"row": {**ROW, "job": change["after"]}}).json()
    assert changed["prediction"] == change["decision_after"] != answer["decision"]
    assert "town" not in {change["field"] for change in answer["changes"]}


def test_ranking_is_the_order_of_the_joined_rows(client: Client) -> None:
    candidates = [{"job": job} for job in ("clerk", "cook", "nurse", "pilot", "never seen")]
    context = {"age": 40, "town": "town 0"}
    ranking = client.post("/rank", {"context": context, "candidates": candidates, "top": 3}).json()["ranking"]
    scores = [client.post("/predict", {"row": {**context, **item}}).json()["probability"] for item in candidates]
    order = np.argsort(scores)[::-1][:3].tolist()
    assert [item["candidate"] for item in ranking] == order
    assert [item["score"] for item in ranking] == pytest.approx([scores[n] for n in order], abs=1e-5)


def test_the_services_own_items_are_ranked_by_key(opened: Opened, run: str, tmp_path: Path) -> None:
    table = tmp_path / "jobs.csv"
    table.write_text("name,job\n" + "".join(f"{job[:2]},{job}\n" for job in ("clerk", "cook", "nurse", "pilot")))
    client, context = opened(run, items=str(table), item_key="name"), {"age": 40, "town": "town 0"}
    answer = client.post("/rank", {"context": context, "top": 2}).json()
    scores = {job[:2]: client.post("/predict", {"row": {**context, "job": job}}).json()["probability"]
              for job in ("clerk", "cook", "nurse", "pilot")}  # fmt: skip
    assert [item["key"] for item in answer["ranking"]] == sorted(scores, key=lambda key: -scores[key])[:2]
    assert answer["candidates"] == 4
    assert client.post("/rank", {"context": {**context, "job": "cook"}}).fields == {"job"}
    with pytest.raises(ConfigError, match="has none of the model's input columns"):
        opened(run, items=_csv(tmp_path, "colour"))
    with pytest.raises(ConfigError, match="--item-key name names a column of --items"):
        opened(run, item_key="name")


def _csv(folder: Path, column: str) -> str:
    (folder / "other.csv").write_text(f"{column}\nred\nblue\n")
    return str(folder / "other.csv")


def test_without_items_candidates_are_asked_for(client: Client) -> None:
    reply = client.post("/rank", {"context": {"age": 1, "job": "cook", "town": None}})
    assert reply.status == 422
    assert "send 'candidates', or start it with --items TABLE" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"context": {"age": 1}, "candidates": [{"job": "cook"}]}, "town"),
        ({"context": {"age": 1, "town": "a"}, "candidates": [{"job": "cook", "town": "b"}]}, "town"),
        ({"context": {"age": 1}, "candidates": [{"job": "a", "town": "b"}, {"job": "a"}]}, "town"),
        ({"context": {"age": "x", "town": "a"}, "candidates": [{"job": "cook"}]}, "age"),
    ],
)
def test_a_ranking_needs_each_field_once(client: Client, body: object, field: str) -> None:
    reply = client.post("/rank", body)
    assert reply.status == 422
    assert field in reply.fields


def test_descriptions_have_the_fields_and_usual_values(client: Client) -> None:
    schema = client.get("/schema").json()
    assert [field["name"] for field in schema["fields"]] == list(ROW)
    assert (
        schema["fields"][1]["values"] == ["clerk", "cook", "nurse", "pilot"] or len(schema["fields"][1]["values"]) == 4
    )
    document = client.get("/openapi.json").json()
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert set(document["components"]["schemas"]["Row"]["properties"]) == set(ROW)
    assert client.post("/predict", body["example"]).status == 200
    for path in ("/explain", "/what-if", "/rank"):
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert client.post(path, example).status == 200, path
    assert b"/predict" in client.get("/docs").body
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").status == 200


def test_metrics_count_requests_and_unknown_values(client: Client) -> None:
    before = _count(client, 'attfm_unknown_values_total{field="job"}')
    rows = _count(client, "attfm_rows_total")
    client.post("/predict", {"rows": [{**ROW, "job": "nobody"}] * 3 + [ROW]})
    assert _count(client, 'attfm_unknown_values_total{field="job"}') - before == 3
    assert _count(client, "attfm_rows_total") - rows == 4
    assert _count(client, 'attfm_requests_total{path="/predict",status="200"}') > 0


def test_the_run_folder_is_not_touched(client: Client, run: str) -> None:
    assert not list(Path(run).parent.glob(".*.part"))


def _count(client: Client, name: str) -> float:
    lines = client.get("/metrics").body.decode().splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " ")), 0.0)


def test_rankings_are_counted_once_a_context_and_once_a_candidate(opened: Opened, run: str) -> None:
    client = opened(run)
    context, candidates = {"age": 41, "town": "nowhere"}, [{"job": job} for job in ("cook", "pilot", "king")]
    assert client.post("/rank", {"context": context, "candidates": candidates}).status == 200
    metrics = client.get("/metrics").body.decode()
    for name, values, unknown in (("age", 1, 0), ("town", 1, 1), ("job", 3, 1)):
        assert f'attfm_values_total{{field="{name}"}} {values}.0' in metrics
        assert f'attfm_unknown_values_total{{field="{name}"}} {unknown}.0' in metrics
