// The page asks the service whenever the row changes, and puts in what it gets: HTML that the service has escaped.
"use strict";

const form = document.getElementById("form"), alertBox = document.getElementById("alert");
const DELAY = 80; // ms without a change before the service is asked
let asked = null, timer = null;

const controlOf = (box) => document.getElementById(box.dataset.control);
const boxes = () => [...form.querySelectorAll("[data-name]")];
const sliderOf = (control) => form.querySelector(`[data-of="${control.id}"]`);

function valueOf(control) {
  const text = control.value;
  if (control.dataset.kind === "choice") return control.selectedOptions[0].hasAttribute("data-missing") ? null : text;
  if (text.trim() === "") return null;
  if (control.dataset.kind === "number") return Number(text);
  const members = () => text.split(";").map((member) => member.trim()).filter((member) => member !== "");
  if (control.dataset.kind === "list") return members();
  if (control.dataset.kind === "map") return { map: members() };
  return text;
}

// By hand: a column may have any name, "__proto__" too.
function jsonOf(value) {
  if (value === null || !value.map || Array.isArray(value)) return JSON.stringify(value);
  return objectOf(value.map.map((member) => [member, 1]));
}
const objectOf = (entries) => "{" + entries.map(([name, value]) => JSON.stringify(name) + ":" + jsonOf(value)).join() + "}";
const rowOf = () => objectOf(boxes().map((box) => [box.dataset.name, valueOf(controlOf(box))]));

async function ask(path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", body, signal, headers: { "content-type": "application/json" } });
  } catch (error) {
    if (error.name !== "AbortError") tell("The service does not answer. Is it still running?");
    return null;
  }
  const text = await answer.text();
  if (answer.ok) return new DOMParser().parseFromString(text, "text/html").body;
  let refusal = { detail: `The service answered ${answer.status}.`, problems: [] };
  try { refusal = JSON.parse(text); } catch { /* not from the service itself */ }
  tell(refusal.detail, refusal.problems || []);
  return null;
}

function tell(detail, problems = []) {
  for (const box of boxes()) {
    const found = problems.find((problem) => problem.field === box.dataset.name);
    const fault = document.getElementById(box.dataset.control + "f");
    box.classList.toggle("wrong", Boolean(found));
    controlOf(box).setAttribute("aria-invalid", String(Boolean(found)));
    fault.hidden = !found;
    fault.textContent = found ? found.message : "";
  }
  const atField = problems.some((problem) => boxes().some((box) => box.dataset.name === problem.field));
  alertBox.hidden = !detail || atField;
  alertBox.textContent = detail || "";
}

async function update(output) {
  if (asked) asked.abort();
  asked = new AbortController();
  const parts = document.querySelectorAll("#prediction, #account");
  parts.forEach((part) => part.classList.add("stale"));
  const chosen = output ? `,"output":${JSON.stringify(output)}` : "";
  const answer = await ask("page/account", `{"row":${rowOf()}${chosen}}`, asked.signal);
  if (!answer) return;
  tell("");
  for (const id of ["prediction", "account"]) document.getElementById(id).replaceWith(answer.querySelector(`#${id}`));
  document.getElementById("changes").replaceChildren();
}

function changed(control) {
  const slider = sliderOf(control);
  if (slider && control.value !== "") slider.value = control.value;
  clearTimeout(timer);
  timer = setTimeout(() => update(), DELAY);
}

form.addEventListener("input", (event) => {
  if (event.target.dataset.of) {
    const control = document.getElementById(event.target.dataset.of);
    control.value = event.target.value;
    changed(control);
  } else if (event.target.dataset.kind) changed(event.target);
});
form.addEventListener("submit", (event) => { event.preventDefault(); update(); });
document.getElementById("answer").addEventListener("change", (event) => {
  if (event.target.id === "output") update(event.target.value);
});
document.getElementById("again").addEventListener("click", () => {
  form.reset();
  boxes().forEach((box) => { const slider = sliderOf(controlOf(box)); if (slider) slider.value = controlOf(box).value; });
  update();
});
// What would change the decision.
const asking = document.getElementById("ask"), threshold = document.getElementById("threshold");
asking.addEventListener("click", async () => {
  asking.disabled = true;
  const limit = threshold && threshold.value !== "" ? `,"threshold":${Number(threshold.value)}` : "";
  const answer = await ask("page/what-if", `{"row":${rowOf()}${limit}}`);
  if (answer) document.getElementById("changes").replaceWith(answer.querySelector("#changes"));
  asking.disabled = false;
});
document.getElementById("flip").addEventListener("click", (event) => {
  const button = event.target.closest("button.try");
  if (!button) return;
  const control = document.getElementById(button.dataset.control);
  control.value = JSON.parse(button.dataset.value);
  changed(control);
  control.focus();
});

// A long list of values, searched as one types: https://www.w3.org/WAI/ARIA/apg/patterns/combobox/
for (const box of form.querySelectorAll("[role=combobox]")) {
  const list = document.getElementById(box.getAttribute("aria-controls"));
  let active = -1, search = null;
  const options = () => [...list.querySelectorAll("[role=option]")];
  const close = () => {
    list.hidden = true;
    active = -1;
    box.setAttribute("aria-expanded", "false");
    box.removeAttribute("aria-activedescendant");
  };
  const mark = (place) => {
    const all = options();
    if (!all.length) return;
    active = (place + all.length) % all.length;
    all.forEach((option, n) => option.setAttribute("aria-selected", String(n === active)));
    box.setAttribute("aria-activedescendant", all[active].id);
    all[active].scrollIntoView({ block: "nearest" });
  };
  const choose = (option) => {
    box.value = option.textContent;
    close();
    changed(box);
  };
  const open = async (text) => {
    if (search) search.abort();
    search = new AbortController();
    let found;
    try {
      const answer = await fetch(`page/values?field=${box.dataset.field}&search=${encodeURIComponent(text)}`, { signal: search.signal });
      found = answer.ok ? (await answer.json()).values : [];
    } catch { return; }
    if (document.activeElement !== box) return;
    list.replaceChildren(...found.map((name, n) => {
      const option = document.createElement("li");
      option.id = `${list.id}${n}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.textContent = name;
      return option;
    }));
    if (!found.length) {
      const none = document.createElement("li");
      none.className = "none";
      none.textContent = text ? "Not seen in training" : "No values are listed";
      list.append(none);
    }
    list.hidden = false;
    active = -1;
    box.setAttribute("aria-expanded", "true");
  };
  box.addEventListener("input", () => open(box.value));
  box.addEventListener("click", () => open(""));
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) open("");
      else mark(event.key === "ArrowDown" ? active + 1 : active < 0 ? -1 : active - 1);
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      choose(options()[active]);
    } else if (event.key === "Escape") close();
  });
  list.addEventListener("mousedown", (event) => {
    event.preventDefault(); // the box keeps the focus
    const option = event.target.closest("[role=option]");
    if (option) choose(option);
  });
}
