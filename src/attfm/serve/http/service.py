"""What the service answers to each kind of request."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attfm.serve.http import page
from attfm.serve.http.access_log import AccessLog
from attfm.serve.http.answers import HTML, Answer, json_answer
from attfm.serve.http.batching import Batcher, score_rows
from attfm.serve.http.form import values_like
from attfm.serve.http.jobs import Jobs
from attfm.serve.http.loaded_run import LoadedRun
from attfm.serve.http.monitoring import Monitoring
from attfm.serve.http.refusals import Refused
from attfm.serve.http.reload import CurrentRun
from attfm.serve.http.settings import ServiceSettings


class Service:
    """Answers bodies of requests by the run that is served.

    Attributes
    ----------
    is_closing : bool, whether it takes no new requests soon: then it is not ready
    """

    def __init__(self, folder: str | Path, settings: ServiceSettings, log: AccessLog) -> None:
        self.settings, self.log = settings, log
        self.monitoring = Monitoring()
        self.current = CurrentRun(folder, settings, log, self.monitoring)
        self.batcher = Batcher(settings.queue, self.monitoring)
        self.jobs = Jobs(settings.jobs, self.monitoring)
        self.is_closing = False

    @property
    def run(self) -> LoadedRun:
        """The run that is served now."""
        return self.current.run

    async def predict(self, body: bytes) -> Answer:
        """Answer POST /predict."""
        self.batcher.check()  # before the body is read: to refuse must cost little
        run = self.run
        _, rows, is_single = run.requests.read_rows(run.requests.predict, body)
        if is_single:
            return json_answer(await self.batcher.score(run, rows[0]), rows=1)
        scores = await self.jobs.run(score_rows, run, rows)
        return json_answer({"predictions": scores}, rows=len(rows))

    async def explain(self, body: bytes) -> Answer:
        """Answer POST /explain: predictions with their accounts."""
        run = self.run
        content, rows, is_single = run.requests.read_rows(run.requests.explain, body)
        accounts = await self.jobs.run(_explained, run, rows, content.get("top"))
        if is_single:
            [account] = accounts.pop("rows")
            return json_answer({**accounts, **account}, rows=1)
        return json_answer(accounts, rows=len(rows))

    async def what_if(self, body: bytes) -> Answer:
        """Answer POST /what-if: the smallest changes that flip the decision."""
        run = self.run
        content = run.requests.read(run.requests.what_if, body)
        changes = await self.jobs.run(
            lambda: run.accounts.what_if(
                content["row"], immutable=content.get("immutable", ()), threshold=content.get("threshold")
            )
        )
        return json_answer(
            {"decision": changes.decision, "tried": changes.tried, "fields": changes.fields,
             "changes": [asdict(change) for change in changes]}, rows=1,
        )  # fmt: skip

    async def rank(self, body: bytes) -> Answer:
        """Answer POST /rank: the best candidates for a context, by the score of the joined rows."""
        run = self.run
        content = run.requests.read(run.requests.rank, body)
        context, candidates = content["context"], content.get("candidates")
        run.requests.checked_parts(context, candidates, run.items.columns)
        ranking = await self.jobs.run(
            lambda: run.items.rank(context, candidates, top=content.get("top", 20), of=content.get("of"))
        )
        told = [{"candidate": item["position"], "key": item["key"], "score": item["score"], "logit": item["logit"]}
                for item in ranking]  # fmt: skip
        return json_answer(
            {"ranking": told, "of": ranking.output, "candidates": ranking.candidates}, rows=ranking.candidates
        )

    async def page_account(self, body: bytes) -> Answer:
        """Answer the page: the prediction of a row and its account."""
        run = self.run
        content = run.requests.read(run.requests.page, body)
        part = await self.jobs.run(page.account, run, content["row"], content.get("output"))
        return Answer(200, part.encode(), HTML, rows=1)

    async def page_what_if(self, body: bytes) -> Answer:
        """Answer the page: what would change the decision about a row."""
        run = self.run
        content = run.requests.read(run.requests.page, body)
        part = await self.jobs.run(page.what_if_part, run, content["row"], content.get("threshold"))
        return Answer(200, part.encode(), HTML, rows=1)

    async def page_values(self, field: str, search: str) -> Answer:
        """Answer the page: known values of an input column, by its number, that hold some text."""
        run = self.run
        if not (field.isascii() and field.isdigit() and len(field) < 8 and int(field) < len(run.model.schema.inputs)):
            most = len(run.model.schema.inputs) - 1
            raise Refused(422, f"'field' is '{field:.20}': send the number of an input column, 0 to {most}.")
        return json_answer({"values": await self.jobs.run(values_like, run.model, int(field), search[:200])})

    def ready(self) -> Answer:
        """Answer GET /ready."""
        status = 503 if self.is_closing else 200
        return json_answer({"status": "closing" if self.is_closing else "ready", "version": self.run.version},
                           status=status)  # fmt: skip


def _explained(run: LoadedRun, rows: list[dict[str, Any]], top: int | None) -> dict[str, Any]:
    """Return the predictions of rows and their accounts, which are of the same logits."""
    scores = score_rows(run, rows)
    accounts = run.accounts.explain(rows).to_dict(top=top)
    told: list[Mapping[str, Any]] = accounts.pop("rows")
    both = [{**score, "accounts": account["accounts"]} for score, account in zip(scores, told, strict=True)]
    return {**accounts, "rows": both}
