// Small SVG charts. All text goes through textContent: nothing of the data is ever read as markup.
const SVG = "http://www.w3.org/2000/svg";
const LINE = 11; // px, the size of the letters
const ruler = document.createElement("canvas").getContext("2d");
ruler.font = `${LINE}px ${getComputedStyle(document.body).fontFamily}`;
const widthOf = (text) => ruler.measureText(text).width;
const widest = (texts) => texts.reduce((most, text) => Math.max(most, widthOf(text)), 0);

function draw(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// The middle goes: names that share a long beginning differ at their end.
function shorten(text, width) {
  const whole = widthOf(text);
  if (whole <= width) return text;
  for (let most = Math.floor((text.length * width) / whole); ; most--) {
    const tail = Math.floor(Math.max(most, 4) / 3), short = text.slice(0, Math.max(most, 4) - tail - 1) + "…" + text.slice(text.length - tail);
    if (most <= 4 || widthOf(short) <= width) return short;
  }
}

function say(x, digits = 3) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x), sign = x < 0 ? "−" : "";
  if (size >= 1e9 || (size > 0 && size < 1e-4)) return sign + size.toPrecision(digits);
  if (size >= 1000) return sign + Math.round(size).toLocaleString("en");
  return sign + String(Number(size.toPrecision(digits)));
}

// What is said for one field or the two of a pair, or for their values.
const joined = (texts) => texts.join(" × ");

// The same in little room: the long ones give way first, and each keeps its beginning and its end.
function shortenAll(texts, width) {
  const sizes = texts.map(widthOf).sort((a, b) => a - b);
  let room = width - widthOf(" × ") * (texts.length - 1), most = Infinity;
  if (sizes.reduce((a, b) => a + b, 0) > room) {
    sizes.some((size, i) => {
      most = room / (sizes.length - i);
      room -= size;
      return size > most;
    });
  }
  return joined(texts.map((text) => shorten(text, most)));
}

function signed(x) {
  const size = Math.abs(x), digits = size < 10 ? 3 : size < 100 ? 2 : 1;
  const text = size < 1000 ? size.toFixed(digits) : Math.round(size).toLocaleString("en");
  return (x < 0 ? "−" : "+") + text;
}

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(10)));
  return found;
}

// A tick's text: as many decimals as its step needs, millions in short.
function tickText(t, step) {
  if (Math.abs(t) >= 1e6) return t.toLocaleString("en", { notation: "compact", maximumFractionDigits: 2 }).replace("-", "−");
  const decimals = Math.min(12, Math.max(0, Math.ceil(-Math.log10(step)) + 1));
  return (t < 0 ? "−" : "") + Math.abs(Number(t.toFixed(decimals))).toLocaleString("en", { maximumFractionDigits: 12, useGrouping: Math.abs(t) >= 10000 });
}

function ticksAndTexts(low, high, count) {
  const found = ticks(low, high, count), step = found.length > 1 ? found[1] - found[0] : Math.abs(found[0]) || 1;
  return found.map((t) => [t, tickText(t, step)]);
}

function extent(values, pad = 0.05) {
  const known = values.filter((v) => v !== null && Number.isFinite(v));
  let low = Infinity, high = -Infinity;
  for (const v of known) { if (v < low) low = v; if (v > high) high = v; }
  if (!known.length) return [0, 1];
  if (low === high) { const room = Math.abs(low) || 1; return [low - room * 0.5, high + room * 0.5]; }
  return [low - pad * (high - low), high + pad * (high - low)];
}

function canvas(width, height, label) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  return svg;
}

// A frame with ticks and labels; returns the svg and the scales.
function frame(width, height, { x, y, xLabel, yLabel, label, bottom = 38, top = 10, xTicks = true }) {
  const yTicks = ticksAndTexts(y[0], y[1], 5), left = Math.max(50, 26 + widest(yTicks.map((t) => t[1])));
  const svg = canvas(width, height, label), right = 14;
  const px = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (width - left - right);
  const py = (v) => height - bottom - ((v - y[0]) / (y[1] - y[0])) * (height - bottom - top);
  for (const [t, text] of yTicks) {
    svg.append(draw("line", { x1: left, x2: width - right, y1: py(t), y2: py(t), class: "rule" }));
    svg.append(draw("text", { x: left - 6, y: py(t) + 4, "text-anchor": "end", class: "quiet" }, text));
  }
  if (xTicks) {
    const shown = ticksAndTexts(x[0], x[1], Math.max(2, Math.floor((width - left) / 60)));
    for (const [t, text] of shown) svg.append(draw("text", { x: px(t), y: height - bottom + 16, "text-anchor": px(t) > width - 24 ? "end" : "middle", class: "quiet" }, text));
  }
  if (xLabel) svg.append(draw("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, shorten(xLabel, width - left)));
  if (yLabel) svg.append(draw("text", { transform: `translate(11 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, shorten(yLabel, height - bottom - top)));
  return { svg, px, py, left, right, top, bottom };
}

function path(points, px, py) {
  let text = "", pen = false;
  for (const [x, y] of points) {
    if (y === null || x === null) { pen = false; continue; }
    text += `${pen ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`;
    pen = true;
  }
  return text;
}

const COLOURS = ["blue", "orange", "green", "quiet", "ink"], DASHES = ["", "7 4", "2 3", "9 3 2 3", "1 2"];

function lineChart(width, { series, x, y, xLabel, yLabel, label, diagonal, level, dots, height = 280 }) {
  const f = frame(width, height + 16 * Math.ceil((series.length > 1 ? series.length : 0) / 2), { x, y, xLabel, yLabel, label, top: 10 + (series.length > 1 ? 16 * Math.ceil(series.length / 2) : 0) });
  const rule = diagonal ? [[x[0], x[0]], [x[1], x[1]]] : level !== undefined ? [[x[0], level], [x[1], level]] : null;
  if (rule) f.svg.append(draw("path", { d: path(rule, f.px, f.py), class: "dash" }));
  for (const [a, b] of dots || []) f.svg.append(draw("circle", { cx: f.px(a), cy: f.py(b), r: 2, class: "f-quiet", "fill-opacity": 0.45 }));
  series.forEach((one, i) => {
    const colour = one.colour || COLOURS[i % COLOURS.length];
    f.svg.append(draw("path", { d: path(one.points, f.px, f.py), class: `line s-${colour}`, "stroke-dasharray": DASHES[i % DASHES.length] }));
    if (one.marks) for (const p of one.marks) {
      if (p.low !== undefined) f.svg.append(draw("line", { x1: f.px(p.x), x2: f.px(p.x), y1: f.py(p.low), y2: f.py(p.high), class: `s-${colour}` }));
      f.svg.append(draw("circle", { cx: f.px(p.x), cy: f.py(p.y), r: 3.5, class: `f-${colour}` }));
    }
    if (series.length > 1) {
      const half = (width - f.left) / 2, at = f.left + (i % 2) * half, line = 12 + 16 * Math.floor(i / 2);
      f.svg.append(draw("line", { x1: at, x2: at + 22, y1: line - 4, y2: line - 4, class: `line s-${colour}`, "stroke-dasharray": DASHES[i % DASHES.length] }));
      f.svg.append(draw("text", { x: at + 27, y: line }, shorten(one.name, half - 34)));
    }
  });
  return f.svg;
}

// Bars to the left and right of zero (or from the left edge), each with its name before it and its amount behind it.
function barChart(width, { bars, label, axisLabel, from = null }) {
  const line = 21, head = 4, names = Math.min(270, Math.max(110, width * 0.46), 14 + widest(bars.map((b) => `${b.name} ${b.note || ""}`)));
  const height = head + line * bars.length + (axisLabel ? 30 : 4), svg = canvas(width, height, label), room = 52;
  const ends = bars.flatMap((b) => [b.size - (b.spread || 0), b.size + (b.spread || 0)]);
  const x = extent([0, ...ends], 0);
  const left = names + (x[0] < 0 ? room : 6), right = width - (x[1] > 0 ? room : 8);
  const px = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left);
  bars.forEach((bar, i) => {
    const y = head + i * line, colour = bar.colour || (bar.size < 0 ? "blue" : "orange");
    const name = draw("text", { x: names - 4, y: y + 14, "text-anchor": "end" }, bar.note ? `${shorten(bar.name, names - 8 - widthOf(` ${bar.note}`))} ${bar.note}` : shortenAll(bar.fields, names - 8));
    name.append(draw("title", {}, `${bar.name} ${bar.note || ""}`));
    svg.append(name);
    svg.append(draw("rect", { x: Math.min(px(0), px(bar.size)), y: y + 3, width: Math.max(Math.abs(px(bar.size) - px(0)), 0.5), height: line - 6, class: `f-${colour}` }));
    if (bar.spread) svg.append(draw("path", { d: `M${px(bar.size - bar.spread)} ${y + line / 2}H${px(bar.size + bar.spread)}`, class: "s-ink" }));
    const behind = bar.size < 0 ? px(bar.size - (bar.spread || 0)) - 4 : px(bar.size + (bar.spread || 0)) + 4;
    svg.append(draw("text", { x: behind, y: y + 14, "text-anchor": bar.size < 0 ? "end" : "start", class: "quiet" }, from === null ? signed(bar.size) : say(bar.size)));
  });
  const foot = head + line * bars.length;
  svg.append(draw("line", { x1: px(0), x2: px(0), y1: head, y2: foot, class: "s-quiet" }));
  if (axisLabel) svg.append(draw("text", { x: width / 2, y: foot + 22, "text-anchor": "middle", class: "quiet" }, shorten(axisLabel, width)));
  return svg;
}

// 0, powers of ten, and their fivefold and double, as far as their texts have room.
function stretchedTicks(low, high, place) {
  const found = [];
  const add = (t) => {
    const text = tickText(t, Math.abs(t) || 1), at = place(t);
    if (t >= low && t <= high && found.every(([u, other]) => Math.abs(place(u) - at) > 10 + (widthOf(text) + widthOf(other)) / 2)) found.push([t, text]);
  };
  add(0);
  const most = Math.ceil(Math.log10(Math.max(Math.abs(low), Math.abs(high))));
  for (const times of [1, 5, 2]) for (let power = most; power > most - 12; power--) { add(times * 10 ** power); add(-times * 10 ** power); }
  return found;
}

// A numeric field's effect, bin by bin, above the density of its rows.
function stepChart(width, shape, number, { yLabel, label }) {
  const height = 290, effect = shape.effect[number], spread = shape.spread && shape.spread[number];
  const low = effect.map((v, i) => (v === null ? null : v - 2 * (spread ? spread[i] || 0 : 0)));
  const high = effect.map((v, i) => (v === null ? null : v + 2 * (spread ? spread[i] || 0 : 0)));
  const along = (v) => (shape.stretch ? Math.asinh(v / shape.stretch) : v);
  const x = extent([along(shape.edges[0]), along(shape.edges[shape.edges.length - 1])], 0.01);
  const y = extent([0, ...low, ...high, ...shape.special.map((s) => s.effect[number])], 0.06);
  const f = frame(width, height, { x, y, xLabel: shape.field, yLabel, label, bottom: 82, xTicks: false });
  const place = (v) => f.px(along(v));
  const steps = (values) => values.flatMap((v, i) => [[shape.edges[i], v], [shape.edges[i + 1], v]]);
  if (spread) effect.forEach((v, i) => {
    if (v !== null) f.svg.append(draw("rect", { x: place(shape.edges[i]), width: Math.max(place(shape.edges[i + 1]) - place(shape.edges[i]), 0.5), y: f.py(high[i]), height: f.py(low[i]) - f.py(high[i]), class: "f-blue", "fill-opacity": 0.2 }));
  });
  f.svg.append(draw("path", { d: path([[x[0], 0], [x[1], 0]], f.px, f.py), class: "s-quiet" }));
  shape.special.forEach((one, i) => {
    const v = one.effect[number];
    f.svg.append(draw("path", { d: path([[x[0], v], [x[1], v]], f.px, f.py), class: "line s-orange", "stroke-dasharray": i ? "8 4" : "2 4" }));
    f.svg.append(draw("text", { x: width - f.right - 2, y: f.py(v) - 4, "text-anchor": "end" }, one.name));
  });
  f.svg.append(draw("path", { d: path(steps(effect), place, f.py), class: "line s-blue" }));
  const most = Math.max(...shape.density, 1e-9), base = height - 38, tall = 36, [from, to] = shape.bounds;
  const wide = (place(to) - place(from)) / shape.density.length;
  shape.density.forEach((rows, i) => f.svg.append(draw("rect", { x: place(from) + i * wide, width: Math.max(wide - 0.5, 0.5), y: base - (tall * rows) / most, height: (tall * rows) / most, class: "f-quiet", "fill-opacity": 0.6 })));
  const shown = shape.stretch ? stretchedTicks(shape.edges[0], shape.edges[shape.edges.length - 1], place) : ticksAndTexts(x[0], x[1], Math.max(2, Math.floor((width - f.left) / 60)));
  for (const [t, text] of shown) f.svg.append(draw("text", { x: place(t), y: base + 16, "text-anchor": place(t) > width - 24 ? "end" : "middle", class: "quiet" }, text));
  f.svg.append(draw("text", { x: f.left - 6, y: base - 8, "text-anchor": "end", class: "quiet" }, "rows"));
  return f.svg;
}

const LEAST_CELL = 13; // px; narrower cells have no readable names, so the map is wider than its room and scrolls there

const LEAST_SIDE = 90; // px, so that there is room for the field's name beside few rows

// Cells coloured by sign and size (or by size alone), with names on both sides.
function heatMap(width, { rows, columns, value, counts, limit, label, xLabel, yLabel, few = 10, oneSided = false }) {
  const longest = (names) => widest(names) + 12;
  const left = Math.min(longest(rows), width * 0.34, 190) + (yLabel ? 18 : 0), under = Math.min(longest(columns), 120) + (xLabel ? 20 : 6);
  width = Math.max(width, Math.ceil(left + 8 + LEAST_CELL * columns.length));
  const wide = (width - left - 8) / columns.length, tall = Math.max(LEAST_CELL, Math.min(26, wide), yLabel ? LEAST_SIDE / rows.length : 0);
  const height = tall * rows.length + under + 4, svg = canvas(width, height, label), size = Math.min(LINE, wide - 1);
  rows.forEach((name, r) => {
    const text = draw("text", { x: left - 5, y: 2 + r * tall + tall / 2 + 4, "text-anchor": "end" }, shorten(name, left - (yLabel ? 26 : 8)));
    text.append(draw("title", {}, name));
    svg.append(text);
    columns.forEach((_, c) => {
      const v = value[r][c], x = left + c * wide, y = 2 + r * tall, box = { x, y, width: Math.max(wide - 1, 1), height: Math.max(tall - 1, 1) };
      const cell = draw("g", {}), told = oneSided ? `${say(v)}` : signed(v);
      if (v === null) return;
      cell.append(draw("rect", { ...box, class: "cell" }));
      cell.append(draw("rect", { ...box, class: oneSided || v < 0 ? "f-blue" : "f-orange", "fill-opacity": Math.min(1, Math.abs(v) / limit).toFixed(3) }));
      if (counts && counts[r][c] > 0 && counts[r][c] < few) cell.append(draw("circle", { cx: x + wide / 2, cy: y + tall / 2, r: 1.5, class: "thin" }));
      cell.append(draw("title", {}, `${name}, ${columns[c]}: ${told}${counts ? `, ${counts[r][c].toLocaleString("en")} rows` : ""}`));
      svg.append(cell);
    });
  });
  columns.forEach((name, c) => {
    const text = draw("text", { transform: `translate(${left + c * wide + wide / 2 + 4} ${tall * rows.length + 8}) rotate(-90)`, "text-anchor": "end", style: `font-size:${size}px` }, shorten(name, under - (xLabel ? 26 : 10)));
    text.append(draw("title", {}, name));
    svg.append(text);
  });
  if (xLabel) svg.append(draw("text", { x: left + (width - left) / 2, y: height - 4, "text-anchor": "middle" }, shorten(xLabel, width - left)));
  if (yLabel) svg.append(draw("text", { transform: `translate(11 ${(tall * rows.length) / 2}) rotate(-90)`, "text-anchor": "middle" }, shorten(yLabel, tall * rows.length)));
  return svg;
}

// One row's account: from the base value, effect by effect, to its total.
function waterfall(width, row, { start, end, label }) {
  const steps = row.effects.map(([fields, values, size]) => ({ fields, values, size }));
  if (row.others) steps.push({ fields: [`${row.others.toLocaleString("en")} others`], values: [], size: row.rest });
  const names = Math.min(420, width * 0.5), ends = [row.base], whole = (step) => [step.fields, step.values].filter((p) => p.length).map(joined).join(" = ");
  // What does not fit into one line is written in two, the fields above their values.
  const lines = steps.map((step) => (step.values.length && widthOf(whole(step)) > names - 6 ? 2 : 1));
  const tops = [26];
  lines.forEach((n, i) => tops.push(tops[i] + (n === 2 ? 34 : 22)));
  const height = tops[tops.length - 1] + 26, svg = canvas(width, height, label);
  for (const step of steps) ends.push(ends[ends.length - 1] + step.size);
  const x = extent(ends, 0.02), left = names + 56, right = width - 56;
  const px = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left);
  const name = (text, y, full) => {
    const node = draw("text", { x: names - 4, y, "text-anchor": "end" }, text);
    node.append(draw("title", {}, full));
    svg.append(node);
  };
  const point = (v, top, text) => {
    name(shorten(text, names - 6), top + 16, text);
    svg.append(draw("circle", { cx: px(v), cy: top + 12, r: 4.5, class: "f-ink" }));
    svg.append(draw("text", { x: px(v) + 9, y: top + 16 }, say(v)));
  };
  point(row.base, 0, start);
  steps.forEach((step, s) => {
    const a = px(ends[s]), b = px(ends[s + 1]), top = tops[s], tall = tops[s + 1] - top, middle = top + tall / 2;
    if (lines[s] === 2) {
      name(shortenAll(step.fields, names - 6), middle - 3, whole(step));
      name(`= ${shortenAll(step.values, names - 6 - widthOf("= "))}`, middle + 10, whole(step));
    } else name(whole(step), middle + 4, whole(step));
    svg.append(draw("line", { x1: a, x2: a, y1: top - 6, y2: middle + 7, class: "rule" }));
    svg.append(draw("rect", { x: Math.min(a, b), y: middle - 8, width: Math.max(Math.abs(b - a), 0.8), height: 15, class: step.size < 0 ? "f-blue" : "f-orange" }));
    svg.append(draw("text", { x: step.size < 0 ? b - 4 : b + 4, y: middle + 4, "text-anchor": step.size < 0 ? "end" : "start" }, signed(step.size)));
  });
  point(row.total, tops[steps.length], end);
  return svg;
}
