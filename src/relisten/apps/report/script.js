"use strict";
// The utterances of the page: filtered, sorted, a page at a time; their lists are read when opened.
// Texts only ever enter as text nodes, never as HTML.

const PAGE = 25;
const { keys, values, components, pairs, rows } = JSON.parse(document.getElementById("data").textContent);
let lists = null; // one JSON line an utterance, split when the first is opened

const byId = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString("en");
const shown = (x, digits) => x?.toFixed(digits).replace("-", "−"); // of nothing, nothing

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const utterances = rows.map(([id, labels, columns, best, confidence], place) => {
  const words = columns.map((column) => (Array.isArray(column) ? column : [column, column, column]));
  const text = (row) => words.map((column) => column[row]).filter((word) => word !== null).join(" ");
  const errors = (row) => words.filter((column) => column[row] !== column[0]).length;
  const texts = [text(0), text(1), text(2)];
  const before = errors(1), now = errors(2);
  let effect = now < before ? "improved" : now > before ? "worsened" : "changed";
  if (texts[1] === texts[2]) effect = now ? "wrong" : "correct";
  const haystack = [id, ...texts].join("\n").toLowerCase();
  return { place, id, labels, words, texts, before, now, best, confidence, effect, haystack };
});

const filters = {
  all: ["all", () => true],
  improved: ["improved", (u) => u.effect === "improved"],
  worsened: ["worse", (u) => u.effect === "worsened"],
  changed: ["changed, as many errors", (u) => u.effect === "changed"],
  unchanged: ["unchanged", (u) => u.effect === "correct" || u.effect === "wrong"],
  incorrect: ["errors left", (u) => u.now > 0],
  missed: ["better one on the list", (u) => u.best < u.now],
};
const compare = (a, b) => a.localeCompare(b, "en", { numeric: true });
const orders = {
  file: ["file order", () => 0],
  gain: ["errors avoided, most first", (a, b) => b.before - b.now - (a.before - a.now)],
  loss: ["errors introduced, most first", (a, b) => a.before - a.now - (b.before - b.now)],
  errors: ["errors left, most first", (a, b) => b.now - a.now],
  missed: ["errors that the list could avoid", (a, b) => b.now - b.best - (a.now - a.best)],
  unsure: ["confidence, lowest first", (a, b) => (a.confidence ?? 2) - (b.confidence ?? 2)],
  id: ["id", (a, b) => compare(a.id, b.id)],
};
keys.forEach((key, k) => { orders["key" + k] = [key, (a, b) => compare(a.labels[k], b.labels[k])]; });

const state = { filter: "all", order: "file", search: "", pair: null, label: null, page: 0 };
let found = utterances;

function isPair(u, [reference, hypothesis]) {
  return u.words.some((w) => w[0] === reference && (w[1] === hypothesis || w[2] === hypothesis));
}

function find() {
  const terms = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const keeps = state.filter in filters ? filters[state.filter][1] : (u) => u.effect === state.filter;
  found = utterances.filter((u) =>
    keeps(u) &&
    terms.every((term) => u.haystack.includes(term)) &&
    (state.pair === null || isPair(u, pairs[state.pair])) &&
    (state.label === null || u.labels[state.label[0]] === state.label[1]));
  found.sort((a, b) => orders[state.order][1](a, b) || a.place - b.place);
  state.page = 0;
  show();
}

function show() {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  const start = state.page * PAGE;
  byId("list").replaceChildren(...found.slice(start, start + PAGE).map(card));
  byId("found").textContent = found.length === utterances.length
    ? `${number(found.length)} utterances`
    : `${number(found.length)} of ${number(utterances.length)} utterances`;
  showChips();
  const turn = (label, by, off) =>
    element("button", { type: "button", disabled: off, onclick: () => turnPage(by) }, label);
  byId("pager").replaceChildren(
    turn("← Back", -1, state.page === 0),
    element("span", {}, `page ${number(state.page + 1)} of ${number(pages)}`),
    turn("Next →", 1, state.page === pages - 1));
}

function turnPage(by) {
  state.page += by;
  show();
  byId("list").scrollIntoView();
  const first = byId("list").querySelector("button");
  if (first) first.focus({ preventScroll: true });
}

function showChips() {
  const chip = (label, clear) => element("button",
    { type: "button", class: "chip", "aria-label": `remove ${label}`, onclick: () => { clear(); find(); } }, label, " ×");
  const chips = [];
  if (!(state.filter in filters)) chips.push(chip(`unchanged, ${state.filter}`, () => choose("all")));
  if (state.pair !== null) {
    const [reference, hypothesis] = pairs[state.pair].map((word) => word ?? "∅");
    chips.push(chip(`${reference} → ${hypothesis}`, () => { state.pair = null; }));
  }
  if (state.label !== null) {
    chips.push(chip(`${keys[state.label[0]]}: ${state.label[1]}`, () => { state.label = null; }));
  }
  byId("chips").replaceChildren(...chips);
}

function card(u) {
  const sign = { improved: "✓ improved", worsened: "✗ worse", changed: "≈ changed", wrong: "unchanged", correct: "unchanged" }[u.effect];
  const counts = u.before === u.now ? `${u.now}` : `${u.before} → ${u.now}`;
  const errors = `${counts} error${counts === "1" ? "" : "s"}`;
  const facts = [
    element("span", { class: "id" }, u.id),
    element("span", { class: `badge ${u.effect}` }, `${sign}, ${errors}`),
    ...(u.best < u.now ? [element("span", {}, `best of the list: ${u.best}`)] : []),
    ...keys.map((key, k) => element("span", {}, `${key} ${u.labels[k]}`)),
    ...(u.confidence === null ? [] : [element("span", {}, `first-pass confidence ${Math.round(100 * u.confidence)} %`)]),
  ];
  const body = element("div", { class: "hypotheses", hidden: true });
  const open = element("button", { type: "button", class: "open", "aria-expanded": "false" }, "List");
  open.addEventListener("click", () => {
    if (!body.firstChild) body.append(listTable(u));
    body.hidden = !body.hidden;
    open.setAttribute("aria-expanded", String(!body.hidden));
  });
  return element("li", { class: u.effect },
    element("div", { class: "head" }, element("div", { class: "facts" }, ...facts), open),
    sentences(u), aligned(u), body);
}

// For screen readers: three sentences in place of the columns.
function sentences(u) {
  const [reference, first, now] = u.texts.map((text) => text || "no words");
  return element("p", { class: "hidden" }, `Reference: ${reference}. First pass: ${first}. Rescored: ${now}.`);
}

function aligned(u) {
  const isRight = u.words.every((w) => w[0] === w[1] && w[0] === w[2]);
  const names = element("span", { class: isRight ? "col names same" : "col names" },
    element("span", {}, "reference"), element("span", { class: "below" }, "first pass"), element("span", { class: "below" }, "rescored"));
  return element("div", { class: "words", dir: "auto", "aria-hidden": "true" },
    ...(u.words.length ? [names] : [element("span", { class: "none" }, "no words in the reference, none recognised")]),
    ...u.words.map(column));
}

function column(words) {
  const [reference, first, now] = words;
  const isSame = reference === first && reference === now;
  const below = (word) => {
    const kind = isSame ? "" : word === reference ? " good" : " bad";
    return element("span", { class: `below${kind}${word === null ? " nothing" : ""}` }, word ?? "∅");
  };
  return element("span", { class: isSame ? "col same" : "col differs" },
    element("span", { class: reference === null ? "none" : "" }, reference ?? "∅"), below(first), below(now));
}

function listTable(u) {
  lists ??= byId("lists").textContent.trim().split("\n");
  const list = JSON.parse(lists[u.place]);
  const columns = [
    ["errors", ([, errors]) => errors],
    ["first-pass rank", ([, , rank]) => (rank === null ? null : rank + 1)],
    ["posterior", (h) => shown(h[5], 3)],
    ["combined", (h) => shown(h[4], 2)],
    ...components.map((name, c) => [name, (h) => shown(h[3][c], 2)]),
  ].filter(([, of]) => list.some((h) => of(h) != null));
  const head = element("tr", {}, ...["hypothesis", ...columns.map(([name]) => name)]
    .map((name) => element("th", { scope: "col" }, name)));
  const body = list.map((h, place) => element("tr", {},
    element("th", { scope: "row", dir: "auto", class: h[1] === u.best ? "best" : "" },
      `${place + 1}. `, ...surface(h[0], h[6])),
    ...columns.map(([, of]) => element("td", {}, String(of(h) ?? "")))));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Hypotheses of ${u.id}` },
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

// A hypothesis as it was written; behind each word, in per cent, its confidence, where that is known.
function surface(text, confidence) {
  if (!confidence) return [text || "(empty)"];
  return text.split(/\s+/).filter(Boolean).flatMap((word, w) => [
    element("span", { class: confidence[w] < 0.5 ? "unsure" : "" }, word),
    element("sub", {}, `${Math.round(100 * confidence[w])}`), " "]);
}

function choose(filter) {
  state.filter = filter;
  for (const radio of byId("filters").querySelectorAll("input")) radio.checked = radio.value === filter;
}

function setUpControls() {
  for (const [name, [label, keeps]] of Object.entries(filters)) {
    const radio = element("input", { type: "radio", name: "filter", value: name, checked: name === "all" });
    radio.addEventListener("change", () => { choose(name); find(); });
    byId("filters").append(element("label", {}, radio, `${label} ${number(utterances.filter(keeps).length)}`));
  }
  byId("sort").append(...Object.entries(orders).map(([name, [label]]) => element("option", { value: name }, label)));
  byId("sort").addEventListener("change", (event) => { state.order = event.target.value; find(); });
  let wait = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(wait);
    wait = setTimeout(() => { state.search = event.target.value; find(); }, 120);
  });
  byId("full").addEventListener("change", (event) => byId("list").classList.toggle("full", event.target.checked));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
}

// Buttons in tables and charts that show the utterances they are about.
document.addEventListener("click", (event) => {
  const go = event.target.closest(".go");
  if (!go) return;
  Object.assign(state, { pair: null, label: null });
  choose(go.dataset.filter ?? "all");
  if (go.dataset.pair) state.pair = Number(go.dataset.pair);
  if (go.dataset.key) state.label = [Number(go.dataset.key), values[go.dataset.key][go.dataset.value]];
  find();
  byId("utterances").scrollIntoView();
});

function sortable(table) {
  const body = table.tBodies[0];
  const value = (row, c) => {
    const cell = row.cells[c];
    return "v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent.trim();
  };
  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === "number" ? -1 : typeof b === "number" ? 1 : compare(a, b);
  [...table.tHead.rows[0].cells].forEach((cell, c) => {
    const button = element("button", { type: "button" }, ...cell.childNodes);
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const isNumber = "v" in body.rows[0].cells[c].dataset;
      const down = cell.ariaSort ? cell.ariaSort === "ascending" : isNumber;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = [...body.rows].sort((a, b) => order(value(a, c), value(b, c)) * (down ? -1 : 1));
      body.append(...sorted);
    });
  });
}

function foldable(table) {
  const n = table.tBodies[0].rows.length;
  if (n <= 12) return;
  table.classList.add("folded");
  const more = element("button", { type: "button", class: "more", "aria-expanded": "false" }, `Show all ${number(n)}`);
  more.addEventListener("click", () => {
    const isFolded = table.classList.toggle("folded");
    more.textContent = isFolded ? `Show all ${number(n)}` : "Show fewer";
    more.setAttribute("aria-expanded", String(!isFolded));
  });
  table.parentElement.after(more);
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("table.long").forEach(foldable);
setUpControls();
find();
