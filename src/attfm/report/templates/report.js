const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const pictures = []; // each is drawn again when its room changes

function node(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function section(id, title, note) {
  const part = node("section", { id });
  const heading = node("h2", { textContent: title, id: `${id}-title` });
  part.setAttribute("aria-labelledby", heading.id);
  part.append(heading);
  if (note) part.append(node("p", { className: "note", textContent: note }));
  main.append(part);
  const link = node("a", { textContent: title });
  link.href = `#${id}`;
  document.getElementById("contents").append(node("li", {}, link));
  return part;
}

function plainTable(header, rows, numeric = []) {
  const table = node("table");
  table.append(node("thead", {}, node("tr", {}, ...header.map((name, i) => node("th", { textContent: name, scope: "col", className: numeric.includes(i) ? "number" : "" })))));
  const cell = (text, i) => node("td", { textContent: text === null || text === undefined ? "–" : text, className: numeric.includes(i) ? "number" : "text" });
  table.append(node("tbody", {}, ...rows.map((row) => node("tr", {}, ...row.map(cell)))));
  const box = node("div", { className: "scroll", tabIndex: 0, role: "group" });
  box.setAttribute("aria-label", `table: ${header.join(", ")}`);
  box.append(table);
  return box;
}

// A figure with its caption, and its numbers as a table that is made when it is opened.
function picture(parent, { title, caption, paint, table, only }) {
  const figure = node("figure", { className: only ? "only" : "" }, node("h3", { textContent: title }));
  if (caption) figure.append(node("figcaption", { textContent: caption }));
  const room = node("div", { className: "room" });
  figure.append(room);
  if (table) {
    const more = node("details", {}, node("summary", { textContent: "Numbers" }));
    more.addEventListener("toggle", () => { if (more.open && more.childElementCount === 1) more.append(table()); });
    figure.append(more);
  }
  parent.append(figure);
  pictures.push({ room, paint, width: 0 });
}

function paintAll(force) {
  // All rooms are measured before any is drawn in: a drawing can't change another's room then.
  const widths = pictures.map((one) => Math.floor(one.room.clientWidth));
  pictures.forEach((one, i) => {
    if (!widths[i] || (!force && one.width === widths[i])) return;
    one.width = widths[i];
    const made = one.paint(widths[i]);
    one.room.replaceChildren(made);
    // A drawing wider than its room scrolls there, so the room takes the focus and the arrow keys.
    if (made.getAttribute("width") > widths[i]) one.room.tabIndex = 0;
    else one.room.removeAttribute("tabindex");
  });
}

const percent = (x, digits = 1) => (x === null || x === undefined ? "–" : `${(100 * x).toFixed(digits)} %`);
const count = (x) => (x === null || x === undefined ? "–" : x.toLocaleString("en"));
const chance = (p) => (p > 0 && p < 0.00005 ? "<0.0001" : p < 1 && p > 0.99995 ? ">0.9999" : p.toFixed(4));
const METRICS = { auc: "AUC", f1: "F1", rmse: "RMSE", mae: "MAE", r2: "R²", brier: "Brier score", log_loss: "log loss", calibration_error: "calibration error (ECE)", average_precision: "average precision" };
const metricName = (name) => METRICS[name] || name.replace(/_/g, " ");
const figure4 = (x) => (x === null || x === undefined ? "–" : Math.abs(x) < 1000 ? x.toFixed(4) : say(x, 6));
const effectOf = (number) => (data.task !== "regression" ? `effect on the ${data.unit} of ${data.outputs[number]}` : `effect on ${data.unit}`);

function tile(title, text, more) {
  return node("div", { className: "tile" }, node("span", { textContent: title }), node("b", { textContent: text }), more ? node("span", { textContent: more }) : null);
}

function whatRows() {
  if (!data.data) return "Made from the run folder alone. It lacks what only rows can show: metrics with intervals, ROC, precision-recall and calibration curves, a search for leaks and unknown values, and rows with their accounts. This adds them: attfm report RUN --data test.csv";
  const rows = `${count(data.data.rows)} rows of ${data.data.name}${data.data.rows < data.data.total ? `, a random part of its ${count(data.data.total)}` : ""}`;
  return data.data.labelled ? `Measured and shown on ${rows}.` : `Shown on ${rows}. The target '${data.target}' is not in it, so nothing is measured and no leak is looked for: a table with it adds both.`;
}

function summaryPart() {
  const part = section("summary", "Data", whatRows());
  document.getElementById("subtitle").textContent = `${data.task} task${data.classes && data.classes.length <= 6 ? ` (${data.classes.join(", ")})` : ""}, preset ${data.preset}; trained on ${count(data.training.training_rows ? Number(data.training.training_rows) : null)} rows${data.training.table ? ` of ${data.training.table}` : ""}${data.training.trainings ? `, after ${Number(data.training.trainings) - 1} earlier training${data.training.trainings === "2" ? "" : "s"} on other rows` : ""}`;
  if (data.note) part.append(node("p", { className: "note", textContent: data.note }));
  const t = data.training, number = (x) => (x === undefined || x === null ? null : count(Number(x)));
  const tiles = node("div", { className: "tiles" });
  for (const [title, text, more] of [
    ["training rows", number(t.training_rows), t.validation_rows && Number(t.validation_rows) ? `${number(t.validation_rows)} ${t.refit_epochs ? "of them for validation at first" : "more for validation"}` : ""],
    ["fields", number(t.fields), t.features ? `with ${number(t.features)} features` : ""],
    ["rows here", data.data ? count(data.data.rows) : null, data.data && data.data.labelled ? "" : "without the target"],
  ]) if (text !== null) tiles.append(tile(title, text, more));
  if (data.targets) for (const one of data.targets) tiles.append(tile(one.name, one.text === undefined ? percent(one.share) : say(one.text, 4), one.more || `${count(one.rows)} of these rows`));
  part.append(tiles);
  if (t.calibration) part.append(node("p", { className: "note", id: "calibrated", textContent: `Probabilities are calibrated; ${t.calibration}.` }));
  const list = node("ul", { className: "warnings", id: "warnings" });
  for (const one of data.warnings) {
    const item = node("li");
    item.dataset.kind = one.kind;
    if (one.field) item.append(node("strong", { textContent: one.field }), " ");
    item.append(one.text);
    list.append(item);
  }
  if (data.warnings.length) part.append(node("h3", { textContent: "Warnings" }), list);
  else part.append(node("p", { className: "note", id: "no-warnings", textContent: data.data ? `No warnings: no constant column,${data.data.labelled ? " no field that predicts the target alone," : ""} few unknown and missing values.` : "No warnings: no constant column." }));
  const more = node("details", {}, node("summary", { textContent: `The ${data.columns.length} columns` }));
  more.append(plainTable(["column", "kind", "type", "values", "missing", "why"], data.columns.map((c) => [c.name, c.kind, c.type, count(c.values), percent(c.missing), c.why]), [3, 4]));
  part.append(more);
  if (data.fields.length) {
    const alone = data.task === "regression" ? "R² alone" : "AUC alone";
    const found = node("details", {}, node("summary", { textContent: "The fields in these rows" }));
    found.append(plainTable(["field", "values", "unknown", "missing", alone], data.fields.map((f) => [f.name, count(f.values), percent(f.unknown), percent(f.missing), figure4(f.alone)]), [1, 2, 3, 4]));
    part.append(found);
  }
}

function metricsPart() {
  const parts = Object.keys(data.stored);
  if (!data.metrics.length && !parts.length) return;
  const part = section("metrics", "Metrics", data.metrics.length
    ? `Each with its 95 % interval: where the figure of 95 % of bootstrap resamples of these rows falls. It tells how far other rows like these may differ, not how another training would.${data.metrics.some((m) => m[0] === "calibration_error") ? " The calibration error is made larger by chance alone, so its interval is corrected: it begins at the smallest true error with which this figure would be no surprise, and at 0 where perfect calibration would be none." : ""}${parts.length ? " Beside them what was measured at training." : ""}`
    : "As measured at training, without intervals: attfm report RUN --data test.csv adds them.");
  const names = data.metrics.length ? data.metrics.map((m) => m[0]) : Object.keys(data.stored[parts[0]]);
  if (data.metrics.length) {
    const tiles = node("div", { className: "tiles" });
    for (const name of ["auc", "log_loss", "accuracy", "brier", "calibration_error", "rmse", "mae", "r2"]) {
      const found = data.metrics.find((m) => m[0] === name);
      if (found) tiles.append(tile(metricName(name), figure4(found[1]), `${figure4(found[2])} to ${figure4(found[3])}`));
    }
    part.append(tiles);
  }
  const rows = names.map((name) => {
    const found = data.metrics.find((m) => m[0] === name);
    return [metricName(name), ...(data.metrics.length ? [figure4(found[1]), `${figure4(found[2])} to ${figure4(found[3])}`] : []), ...parts.map((p) => figure4(data.stored[p][name]))];
  });
  const header = ["metric", ...(data.metrics.length ? ["these rows", "95 % interval"] : []), ...parts.map((p) => `${p}, at training`)];
  part.append(plainTable(header, rows, header.map((_, i) => i).slice(1)));
}

// Whose parameters the model has, from the facts of its training, which are texts.
function whatWasKept({ best_epoch: best, refit_epochs: again, seeds, models }) {
  if (best === undefined) return "";
  if (models > 1) return `the mean of ${models} models, over the epochs that all of them ran`;
  if (!again && !seeds) return `the parameters of epoch ${best} were kept`;
  const length = `${best} epoch${Number(best) === 1 ? "" : "s"} on ${again ? "all rows, those for validation among them" : "the training rows"}`;
  return `epoch ${best} was the best; the model is ${seeds ? `the mean of ${seeds} seeds` : "one"} trained for ${length}`;
}

function curvesPart() {
  const c = data.curves;
  const history = data.history.filter((h) => h.train_loss !== null);
  if (!history.length && !Object.keys(c).length) return;
  const part = section("curves", "Curves"), grid = node("div", { className: "grid" });
  part.append(grid);
  const metric = (name) => { const found = data.metrics.find((m) => m[0] === name); return found ? figure4(found[1]) : "–"; };
  if (c.roc && c.roc.length) {
    picture(grid, { title: "ROC curve", caption: `area ${metric("auc")}`, paint: (w) => lineChart(w, { series: c.roc, x: [0, 1], y: [0, 1.02], xLabel: "false positive rate", yLabel: "true positive rate", diagonal: true, label: `ROC curve, area ${metric("auc")}` }) });
    picture(grid, { title: "Precision and recall", caption: `average precision ${metric("average_precision")}`, paint: (w) => lineChart(w, { series: c.pr, x: [0, 1], y: [0, 1.02], xLabel: "recall", yLabel: "precision", level: c.pr.length === 1 ? c.pr[0].share : undefined, label: `precision-recall curve, average precision ${metric("average_precision")}` }) });
  }
  if (c.calibration) picture(grid, {
    title: "Calibration", caption: `Brier score ${metric("brier")}, calibration error (ECE) ${metric("calibration_error")}`,
    paint: (w) => lineChart(w, { series: [{ name: "observed", points: c.calibration.map((p) => [p.x, p.y]), marks: c.calibration }], x: [0, 1], y: [0, 1.02], xLabel: "predicted probability", yLabel: "observed share", diagonal: true, label: `calibration curve, Brier score ${metric("brier")}, calibration error ${metric("calibration_error")}` }),
    table: () => plainTable(["predicted", "observed", "95 % interval", "rows"], c.calibration.map((p) => [figure4(p.x), figure4(p.y), `${figure4(p.low)} to ${figure4(p.high)}`, count(p.rows)]), [0, 1, 2, 3]),
  });
  if (c.scatter) {
    const reach = extent(c.scatter.flat());
    picture(grid, { title: "Predicted and actual", caption: `R² ${metric("r2")}; line: mean of tenths of the rows`, paint: (w) => lineChart(w, { series: [{ name: "mean", points: c.means, marks: c.means.map(([x, y]) => ({ x, y })) }], dots: c.scatter, x: reach, y: reach, xLabel: "predicted", yLabel: "actual", diagonal: true, label: `predicted against actual values, R² ${metric("r2")}` }) });
  }
  if (history.length) {
    const series = [{ name: "training rows", points: history.map((h) => [h.epoch, h.train_loss]) }];
    if (history.every((h) => h.valid_loss !== null)) series.push({ name: "validation rows", points: history.map((h) => [h.epoch, h.valid_loss]) });
    picture(grid, {
      title: "Learning curve", caption: whatWasKept(data.training),
      paint: (w) => lineChart(w, { series, x: extent(history.map((h) => h.epoch), 0.02), y: extent(series.flatMap((s) => s.points.map((p) => p[1]))), xLabel: "epoch", yLabel: "loss", label: `learning curve over ${history.length} epochs` }),
      table: () => plainTable(["epoch", "training loss", "validation loss"], history.map((h) => [h.epoch, figure4(h.train_loss), figure4(h.valid_loss)]), [0, 1, 2]),
    });
  }
}

function importancePart() {
  if (!data.importance) return;
  const unit = data.task !== "regression" ? `${data.unit}s` : data.unit;
  const part = section("importance", "Importance", `How much each field and pair moves the prediction: its mean |effect| over ${count(data.summaryRows)} training rows, in ${unit}.`);
  const spread = data.importance.some((i) => i.spread !== null);
  picture(part, {
    title: `The ${data.importance.length} most important fields (blue) and pairs (green)`, only: true, caption: spread ? `whiskers: ${data.spreadOf}` : "",
    paint: (w) => barChart(w, { from: 0, bars: data.importance.map((i) => ({ name: i.name, fields: i.fields, size: i.size, spread: i.spread, colour: i.kind === "pair" ? "green" : "blue" })), label: `importance: ${data.importance.slice(0, 5).map((i) => `${i.name} ${say(i.size)}`).join(", ")}` }),
    table: () => plainTable(["effect", "kind", "mean |effect|", "share", "attention"], data.importance.map((i) => [i.name, i.kind, figure4(i.size), percent(i.share), figure4(i.attention)]), [2, 3, 4]),
  });
}

function attentionPart() {
  const a = data.attention;
  if (!a) return;
  const part = section("attention", "Attention", `Mean attention of each pair, in multiples of equal attention. It has no sign and no size: importance above is what a pair does.${a.left ? ` The ${count(a.fields.length)} most important of ${count(a.fields.length + a.left)} fields.` : ""}`);
  const most = Math.max(...a.cells.flat().filter((v) => v !== null));
  const pairs = () => a.fields.flatMap((f, i) => a.fields.slice(i + 1).map((g, j) => [joined([f, g]), a.cells[i][i + 1 + j]])).filter((p) => p[1] !== null).sort((p, q) => q[1] - p[1]);
  picture(part, {
    title: "Attention matrix", only: true, caption: `strongest colour: ${say(most)} times equal attention`,
    paint: (w) => heatMap(w, { rows: a.fields, columns: a.fields, value: a.cells, limit: most, oneSided: true, label: `attention matrix; most: ${pairs().slice(0, 3).map((p) => `${p[0]} ${say(p[1])}`).join(", ")}` }),
    table: () => plainTable(["pair", "attention"], pairs().slice(0, 200).map((p) => [p[0], say(p[1])]), [1]),
  });
}

let output = 0; // the class whose shapes and pair maps are shown

function outputChoice(part, changed) {
  if (data.outputs.length < 2) return;
  const choice = node("select");
  data.outputs.forEach((name, i) => choice.append(node("option", { textContent: name, value: i })));
  choice.addEventListener("change", () => changed(Number(choice.value)));
  part.append(node("div", { className: "controls" }, node("label", {}, "Class: ", choice)));
}

function shapesPart() {
  if (!data.shapes) return;
  const part = section("shapes", "Shapes", `The main effect of each field's values against the average training row, the most important field first. Grey: where the rows are.${data.shapes.some((s) => s.spread) ? ` Bands and whiskers: twice the ${data.spreadOf}.` : ""}`);
  let grid = node("div", { className: "grid" });
  outputChoice(part, (number) => {
    output = number;
    // Tables that are open hold another class's numbers: they are made anew when opened again.
    for (const more of document.querySelectorAll("#shapes details, #maps details")) {
      more.open = false;
      more.replaceChildren(more.firstElementChild);
    }
    paintAll(true);
  });
  part.append(grid);
  for (const shape of data.shapes) {
    const special = (shape.special || []).map((s) => `${s.name} in ${count(s.rows)} rows`).join(", ");
    const left = shape.left ? `; ${count(shape.left)} rarer values not shown` : "";
    if (shape.edges) picture(grid, {
      title: shape.field, caption: [special ? `dotted: ${special}` : "", shape.stretch ? "axis logarithmic away from 0" : ""].filter(Boolean).join("; "),
      paint: (w) => stepChart(w, shape, output, { yLabel: effectOf(output), label: `shape of ${shape.field}: ${effectOf(output)} from ${say(Math.min(...shape.effect[output].filter((v) => v !== null)))} to ${say(Math.max(...shape.effect[output].filter((v) => v !== null)))}` }),
      table: () => plainTable(["from", "to", "effect", "rows"], shape.counts.map((n, i) => [say(shape.edges[i], 6), say(shape.edges[i + 1], 6), shape.effect[output][i] === null ? "–" : signed(shape.effect[output][i]), count(n)]), [0, 1, 2, 3]),
    });
    else if (shape.labels.length) picture(grid, {
      title: shape.field, caption: `(rows)${left}`,
      paint: (w) => barChart(w, { bars: shape.labels.map((name, i) => ({ name, note: `(${count(shape.counts[i])})`, size: shape.effect[output][i] || 0, spread: shape.spread ? 2 * shape.spread[output][i] : 0 })), axisLabel: effectOf(output), label: `shape of ${shape.field}: ${shape.labels.slice(0, 4).map((name, i) => `${name} ${signed(shape.effect[output][i] || 0)}`).join(", ")}` }),
      table: () => plainTable(["value", "effect", "rows"], shape.labels.map((name, i) => [name, signed(shape.effect[output][i] || 0), count(shape.counts[i])]), [1, 2]),
    });
  }
}

function mapsPart() {
  if (!data.maps || !data.maps.length) return;
  const part = section("maps", "Pairs", "What two fields do together beyond their main effects: orange raises, blue lowers. Dots: fewer than 10 rows; blank: none.");
  const grid = node("div", { className: "grid wide" });
  part.append(grid);
  const pairs = data.maps.filter((m) => m.output === 0);
  pairs.forEach((first) => {
    const shown = () => data.maps.find((m) => m.output === output && m.fields.join("\n") === first.fields.join("\n")) || first;
    picture(grid, {
      title: joined(first.fields), caption: data.outputs.length > 1 ? "the class chosen under Shapes" : `strongest colour: ±${say(first.limit)}`,
      paint: (w) => { const m = shown(); return heatMap(w, { rows: m.labels[0], columns: m.labels[1], value: m.mean, counts: m.counts, limit: m.limit, yLabel: m.fields[0], xLabel: m.fields[1], label: `pair map of ${m.fields.join(" and ")}: ${effectOf(output)}, at most ${say(m.limit)}` }); },
      table: () => { const m = shown(); return plainTable([m.fields[0], m.fields[1], "effect", "rows"], m.labels[0].flatMap((u, r) => m.labels[1].map((v, k) => [u, v, m.mean[r][k], m.counts[r][k]])).filter((c) => c[2] !== null).map((c) => [c[0], c[1], signed(c[2]), count(c[3])]), [2, 3]); },
    });
  });
}

const named = ([fields, values]) => `${joined(fields)} = ${joined(values)}`;

function rowsPart() {
  const t = data.table;
  if (!t) return;
  const labelled = data.data.labelled, classes = data.task !== "regression";
  const part = section("rows", "Rows", `${t.rows.length} rows: ${t.groups.join(", ")}. Open one to see what made its prediction: by a click, or by Enter.`);
  const search = node("input", { type: "search", id: "search" }), told = node("span", { id: "found" });
  told.setAttribute("aria-live", "polite");
  part.append(node("div", { className: "controls" }, node("label", {}, "Search ", search), told));
  const columns = [
    { name: "row", get: (r) => r.n, text: (r) => count(r.n), number: true },
    { name: "shown as", get: (r) => r.why, text: (r) => r.why },
    { name: "predicted", get: (r) => r.predicted, text: (r) => (classes ? r.predicted : say(r.predicted, 5)), number: !classes },
    ...(classes ? [{ name: "probability", get: (r) => r.p, text: (r) => (data.task === "binary" ? `${chance(r.p)} of ${r.of}` : chance(r.p)), number: true }] : []),
    ...(labelled ? [{ name: "actual", get: (r) => r.actual, text: (r) => (classes ? r.actual : say(r.actual, 5)), number: !classes, mark: true }] : []),
    { name: "largest effect", get: (r) => (r.effects[0] ? Math.abs(r.effects[0][2]) : 0), text: (r) => (r.effects[0] ? `${named(r.effects[0])} (${signed(r.effects[0][2])})` : "–"), wide: true },
  ];
  const entries = t.rows.map((row, i) => ({ row, values: t.values[i], text: [...columns.map((c) => c.text(row)), ...t.values[i]].join("\n").toLowerCase() }));
  const body = node("tbody"), table = node("table", { id: "row-table" }), box = node("div", { className: "scroll" });
  let sorted = null, falling = false;
  const heads = columns.map((column) => {
    const button = node("button", { type: "button", textContent: column.name });
    const head = node("th", { scope: "col", className: column.number ? "number" : "" }, button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      falling = sorted === column ? !falling : false;
      sorted = column;
      const order = (a, b) => { const u = column.get(a.row), v = column.get(b.row); return typeof u === "number" ? u - v : String(u).localeCompare(String(v)); };
      entries.sort((a, b) => (falling ? order(b, a) : order(a, b)));
      heads.forEach((h) => h.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      fill();
    });
    return head;
  });
  table.append(node("caption", { className: "note", hidden: true, textContent: "Rows with their predictions" }), node("thead", {}, node("tr", {}, ...heads)), body);
  box.append(table);
  part.append(box);

  function account(entry) {
    const { row, values } = entry, inner = node("div", { className: "inner" });
    inner.style.width = `${box.clientWidth}px`;
    inner.append(node("h3", { textContent: `Row ${count(row.n)}: ${classes ? `${row.predicted}, probability of ${row.of} ${chance(row.p)}` : say(row.predicted, 5)}${labelled ? `; actual ${classes ? row.actual : say(row.actual, 5)}` : ""}` }));
    const unit = data.task !== "regression" ? `${data.unit} of ${row.output}` : data.unit;
    const what = `${unit}: from ${say(row.base)}, the mean of the training rows, to ${say(row.total)}`;
    const width = Math.min(box.clientWidth - 28, 900);
    inner.append(waterfall(width, row, { start: "mean of training rows", end: unit, label: `waterfall of row ${row.n}; ${what}; ${row.effects.slice(0, 5).map((e) => `${named(e)} ${signed(e[2])}`).join(", ")}` }));
    const spread = row.effects.some((e) => e[3] !== null), remembered = row.effects.some((e) => e[4]);
    if (spread || remembered) {
      const head = ["effect", data.unit, ...(spread ? ["±"] : []), ...(remembered ? ["of it remembered"] : [])];
      const lines = row.effects.filter((e) => spread || e[4]).map((e) => [named(e), signed(e[2]), ...(spread ? [e[3] === null ? "–" : say(e[3])] : []), ...(remembered ? [e[4]] : [])]);
      inner.append(node("details", { className: "more", open: true }, node("summary", { textContent: [spread ? "standard errors" : "", remembered ? "what is remembered of value pairs" : ""].filter(Boolean).join(", ") }), plainTable(head, lines, spread ? [1, 2] : [1])));
    }
    const list = node("dl", { className: "values" });
    t.fields.forEach((field, f) => list.append(node("div", {}, node("dt", { textContent: field }), node("dd", { textContent: values[f] }))));
    inner.append(list);
    return inner;
  }

  function line(entry) {
    const button = node("button", { type: "button", className: "open", textContent: columns[0].text(entry.row) });
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", `row ${entry.row.n}: show its account`);
    const made = node("tr", { className: `row${entry.row.right === false ? " wrong" : ""}` });
    columns.forEach((column, i) => made.append(node("td", { className: `${column.number ? "number" : "text"}${column.mark ? " mark" : ""}` }, i ? column.text(entry.row) : button)));
    made.addEventListener("click", () => {
      const next = made.nextElementSibling;
      if (next && next.classList.contains("account")) { next.remove(); button.setAttribute("aria-expanded", "false"); return; }
      const cell = node("td", {}, account(entry));
      cell.colSpan = columns.length;
      made.after(node("tr", { className: "account" }, cell));
      button.setAttribute("aria-expanded", "true");
    });
    return made;
  }

  function fill() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = entries.filter((entry) => words.every((word) => entry.text.includes(word)));
    body.replaceChildren(...kept.map(line));
    told.textContent = `${kept.length} of ${entries.length} rows`;
  }
  search.addEventListener("input", fill);
  fill();
}

for (const part of [summaryPart, metricsPart, curvesPart, importancePart, attentionPart, shapesPart, mapsPart, rowsPart]) part();
paintAll(true);
let waiting = 0;
window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => paintAll(false), 120); });
// Paper can't be opened: the tables of columns and fields are printed.
window.addEventListener("beforeprint", () => { for (const more of document.querySelectorAll("#summary details")) more.open = true; });
