"use strict";
// One recording at a time: sent to /v1/audio/transcriptions, which streams its segments with their
// hypotheses; ranking again by other weights happens here. Texts enter as text nodes, never as HTML.

const byId = (id) => document.getElementById(id);
const audio = byId("audio");
const WHAT = {
  asr: "the recogniser", text: "the language model on the text", ctc: "the CTC head on the speech",
  text_given_speech: "the language model on text, hearing speech",
  speech_given_text: "the language model on speech, reading the text",
  length: "a bonus for each word", context: "expected names and terms",
  first_pass: "a margin for the first pass's choice",
};
const state = { file: null, segments: [], moved: {}, request: null, duration: 0, stopAt: Infinity, peaks: null };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
const clock = (s) => {
  const [minutes, seconds] = [Math.floor(s / 60), Math.floor(s % 60)];
  const hours = Math.floor(minutes / 60);
  const two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes % 60)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
};
const shown = (x, digits = 2) => x.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");

function say(text) { byId("status").textContent = text; }
function fail(message) {
  byId("error").textContent = message;
  byId("error").hidden = !message;
}

// The request

function headers() {
  const token = sessionStorage.getItem("relisten-token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function modelName() {
  const answer = await fetch("/v1/models", { headers: headers() });
  if (answer.status === 401) throw new Error("token");
  return (await answer.json()).data[0].id;
}

async function transcribe(file) {
  stop();
  fail("");
  Object.assign(state, { file, segments: [], moved: {}, duration: 0 });
  for (const id of ["result", "weighing"]) byId(id).hidden = true;
  byId("segments").replaceChildren();
  byId("drop").querySelector("strong").textContent = file.name;
  byId("drop").querySelector("span").textContent = "choose or drop another one";
  load(file);
  let model;
  try { model = await modelName(); } catch (error) {
    if (error.message === "token") return askToken();
    return fail("The server does not answer. Is it still running?");
  }
  const form = new FormData();
  form.append("model", model);
  form.append("stream", "true");
  form.append("include[]", "nbest");
  for (const line of byId("phrases").value.split("\n")) if (line.trim()) form.append("keywords[]", line.trim());
  form.append("file", file, file.name);
  send(form);
}

function send(form) {
  const request = new XMLHttpRequest(); // fetch does not tell how far an upload has come
  state.request = request;
  let read = 0, isDone = false;
  const take = () => {
    if (request.status !== 200) return;
    const blocks = request.responseText.slice(read).split("\n\n");
    read = request.responseText.length - blocks.pop().length; // the last one is not whole yet
    for (const block of blocks) {
      if (!block.startsWith("data: ") || block === "data: [DONE]") continue;
      const event = JSON.parse(block.slice(6));
      if (event.error) fail(event.error.message);
      else if (event.segment) add(event.segment, event.duration);
      else isDone = true;
    }
  };
  request.upload.onprogress = (event) => {
    if (event.lengthComputable) progress(event.loaded / event.total, "Sending the recording");
  };
  request.upload.onload = () => progress(null, "Waiting for the first words …");
  request.onprogress = take;
  request.onload = () => {
    take();
    if (request.status === 401) askToken();
    else if (request.status !== 200) fail(messageOf(request));
    finish(isDone);
  };
  request.onerror = () => { fail("The connection was lost. Is the server still running?"); finish(false); };
  request.onabort = () => { say("Cancelled."); finish(null); };
  request.open("POST", "/v1/audio/transcriptions");
  for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
  byId("work").hidden = false;
  progress(0, "Sending the recording");
  request.send(form);
}

function messageOf(request) {
  try {
    const { message } = JSON.parse(request.responseText).error;
    return message[0].toUpperCase() + message.slice(1) + ".";
  } catch { return `The server answered ${request.status}.`; }
}

function progress(share, text) {
  const bar = byId("progress");
  if (share === null) bar.removeAttribute("value"); else bar.value = share;
  say(text);
}

function finish(isDone) {
  state.request = null;
  byId("work").hidden = true;
  byId("again").disabled = !state.file;
  if (isDone === null) return;
  const words = state.segments.reduce((n, one) => n + one.words.length, 0);
  say(!isDone ? "" : words ? `Done: ${words} words in ${clock(state.duration)}.` : "No speech was found.");
}

function stop() { if (state.request) state.request.abort(); }

function askToken() {
  finish(null);
  byId("login").hidden = false;
  byId("token").focus();
}

// The transcript

function add(segment, duration) {
  state.duration = duration;
  state.segments.push(segment);
  progress(segment.end_s / duration, `${clock(segment.end_s)} of ${clock(duration)}`);
  if (!segment.hypotheses.length) return;
  for (const id of ["result", "weighing"]) byId(id).hidden = false;
  segment.item = element("li", { class: "new" });
  byId("segments").append(segment.item);
  draw(segment);
  addSliders(segment);
}

const weightOf = (segment, name) => state.moved[name] ?? segment.components[name];

function ranked(segment) {
  const rows = segment.hypotheses.map((hypothesis) => {
    const parts = {};
    let sum = 0;
    for (const [name, score] of Object.entries(hypothesis.scores)) sum += parts[name] = weightOf(segment, name) * score;
    return { hypothesis, parts, sum };
  });
  if (Object.keys(state.moved).length) rows.sort((a, b) => b.sum - a.sum); // else as the server decided
  const top = Math.max(...rows.map((row) => row.sum));
  const odds = rows.map((row) => Math.exp((row.sum - top) / segment.temperature));
  const total = odds.reduce((a, b) => a + b, 0);
  rows.forEach((row, n) => { row.posterior = odds[n] / total; });
  return rows;
}

const chosenText = (segment) =>
  Object.keys(state.moved).length && segment.hypotheses.length ? ranked(segment)[0].hypothesis.text : segment.text;

function wordsOf(segment) {
  const text = chosenText(segment);
  return text === segment.text ? segment.words : text.split(/\s+/).filter(Boolean).map((word) => ({ text: word }));
}

function draw(segment) {
  const words = wordsOf(segment), text = chosenText(segment);
  const time = element("span", { class: "time" }, `${clock(segment.start_s)} – ${clock(segment.end_s)}`);
  const head = element("div", {}, time);
  if (text !== segment.text) head.append(element("span", { class: "time badge yours" }, "changed by your weights"));
  else if (text !== segment.first_pass_text) head.append(element("span", { class: "time badge" }, "changed by the second pass"));
  const line = element("p", { class: "words" });
  for (const part of difference(segment.first_pass_text.split(/\s+/).filter(Boolean), words)) {
    const made = part.kind === "del"
      ? [element("del", {}, part.words.join(" "))]
      : part.words.map((word) => wordButton(segment, word));
    const box = part.kind === "ins" ? [element("ins", {}, ...spaced(made))] : made;
    line.append(...spaced(box), " ");
  }
  if (!words.length) line.append(element("span", { class: "empty" }, "no words"));
  const isOpen = segment.item.querySelector("details")?.open ?? false;
  segment.item.replaceChildren(head, line, lists(segment, isOpen));
}

const spaced = (nodes) => nodes.flatMap((node, n) => (n ? [" ", node] : [node]));

function wordButton(segment, word) {
  const sure = word.confidence;
  const level = sure === undefined ? "c2" : sure < 0.5 ? "c0" : sure < 0.8 ? "c1" : "c2";
  const title = sure === undefined ? undefined : `${Math.round(100 * sure)} % sure`;
  const made = element("button", { type: "button", class: level, title, tabindex: "-1", onclick: () => hear(segment, word) }, word.text);
  if (!document.querySelector(".words button[tabindex='0']")) made.tabIndex = 0;
  word.button = made;
  return made;
}

/** What became of the old words: parts that stay, went (del) and came (ins), longest common subsequence. */
function difference(before, after) {
  const key = (word) => word.toLowerCase().replace(/[^\p{L}\p{N}']/gu, "") || word;
  const [a, b] = [before.map(key), after.map((word) => key(word.text))];
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const parts = [];
  const put = (kind, word) => {
    if (parts.at(-1)?.kind !== kind) parts.push({ kind, words: [] });
    parts.at(-1).words.push(word);
  };
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { put("same", after[j]); i++; j++; }
    else if (i < a.length && (j >= b.length || best[i + 1][j] >= best[i][j + 1])) put("del", before[i++]);
    else put("ins", after[j++]);
  }
  return parts;
}

function lists(segment, isOpen) {
  const names = Object.keys(segment.components).filter((name) => segment.hypotheses.some((one) => one.scores[name]));
  const details = element("details", {}, element("summary", {}, `${segment.hypotheses.length} hypotheses`));
  const fill = () => {
    if (!details.open || details.children.length > 1) return;
    const rows = ranked(segment);
    const headings = ["text", ...names, "sum", "posterior"].map((name) => element("th", { scope: "col" }, name));
    const body = rows.map(({ hypothesis, parts, sum, posterior }, place) =>
      element("tr", { class: place ? "" : "best" },
        element("th", { scope: "row" }, hypothesis.text || "(no words)", hypothesis.first_pass_rank === 0 ? element("small", {}, " first pass") : ""),
        ...names.map((name) => element("td", {}, shown(parts[name]))),
        element("td", {}, shown(sum)),
        element("td", {}, `${shown(100 * posterior, 1)} %`)));
    const table = element("table", {}, element("caption", { class: "hidden" }, "Weight times score of each hypothesis, in nats"),
      element("thead", {}, element("tr", {}, ...headings)), element("tbody", {}, ...body));
    details.append(element("p", { class: "why" }, why(rows, names)), element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Hypotheses" }, table));
  };
  details.addEventListener("toggle", fill);
  details.open = isOpen;
  if (isOpen) fill();
  return details;
}

function why(rows, names) {
  const [best] = rows, first = rows.find((row) => row.hypothesis.first_pass_rank === 0);
  if (!first) return "The first pass's own choice fell out early: its scores were far below.";
  if (first === best) return "The first pass's choice stays.";
  const gains = names.map((name) => [name, best.parts[name] - first.parts[name]]).filter(([, gain]) => Math.abs(gain) >= 0.005);
  gains.sort((a, b) => b[1] - a[1]);
  const told = gains.map(([name, gain]) => `${name} ${gain > 0 ? "+" : ""}${shown(gain)}`).join(", ");
  return `Against the first pass's choice: ${told}; in sum ${best.sum > first.sum ? "+" : ""}${shown(best.sum - first.sum)} nats.`;
}

// Weights

function addSliders(segment) {
  for (const [name, weight] of Object.entries(segment.components)) {
    if (byId(`weight-${name}`) || !segment.hypotheses.some((one) => one.scores[name])) continue;
    const most = Math.max(1, 2 * Math.abs(weight));
    const value = element("output", { for: `weight-${name}` }, shown(weight));
    const input = element("input", {
      type: "range", id: `weight-${name}`, min: Math.min(0, -2 * -Math.min(weight, 0)), max: most, step: "0.01", value: weight,
      oninput: () => { state.moved[name] = Number(input.value); value.textContent = shown(state.moved[name]); rank(); },
    });
    input.dataset.weight = weight;
    byId("sliders").append(element("div", { class: "slider" },
      element("label", { for: `weight-${name}` }, name, " ", element("small", {}, WHAT[name] ?? "")), value, input));
  }
}

function rank() {
  let changed = 0;
  for (const segment of state.segments) {
    if (!segment.item) continue;
    draw(segment);
    changed += chosenText(segment) !== segment.text;
  }
  const isMoved = Object.keys(state.moved).length > 0;
  byId("reset").disabled = !isMoved;
  byId("moved").textContent = isMoved ? `${changed} of ${state.segments.length} segments change.` : "";
}

byId("reset").addEventListener("click", () => {
  state.moved = {};
  for (const input of byId("sliders").querySelectorAll("input")) {
    input.value = input.dataset.weight;
    input.parentElement.querySelector("output").textContent = shown(Number(input.dataset.weight));
  }
  rank();
});

// The player

async function load(file) {
  if (audio.src) URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(file);
  state.peaks = null;
  byId("player").hidden = false;
  if (file.size > 200e6) return drawWave();
  const context = new (window.OfflineAudioContext)(1, 1, 16000);
  try {
    const samples = (await context.decodeAudioData(await file.arrayBuffer())).getChannelData(0);
    const n = 600, step = Math.max(1, samples.length / n);
    state.peaks = Array.from({ length: n }, (_, k) => {
      let most = 0;
      for (let i = Math.floor(k * step); i < Math.min((k + 1) * step, samples.length); i++) most = Math.max(most, Math.abs(samples[i]));
      return most;
    });
  } catch { byId("player").hidden = !audio.duration; } // this browser cannot read it; the server may
  drawWave();
}

function drawWave() {
  const canvas = byId("wave"), scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width) return;
  canvas.hidden = !state.peaks;
  if (!state.peaks) return;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const [accent, line] = ["--accent", "--soft"].map((name) => style.getPropertyValue(name));
  const bars = Math.min(state.peaks.length, Math.floor(width / 3)), top = Math.max(...state.peaks, 1e-3);
  const at = audio.duration ? audio.currentTime / audio.duration : 0;
  for (let k = 0; k < bars; k++) {
    const from = Math.floor(k * state.peaks.length / bars), to = Math.floor((k + 1) * state.peaks.length / bars);
    const tall = Math.max(2, height * Math.max(...state.peaks.slice(from, to)) / top);
    pen.globalAlpha = k / bars < at ? 1 : 0.55;
    pen.fillStyle = k / bars < at ? accent : line;
    pen.fillRect(k * width / bars, (height - tall) / 2, Math.max(1, width / bars - 1), tall);
  }
}

function hear(segment, word) {
  focusWord(word.button);
  const start = word.start_s ?? segment.start_s;
  state.stopAt = word.end_s === undefined ? Infinity : Math.max(word.end_s, start + 0.4) + 0.08;
  audio.currentTime = Math.max(0, start - 0.05);
  audio.play().catch(() => say("This browser cannot play this recording."));
}

function showTime() {
  const now = audio.currentTime;
  if (now >= state.stopAt) { audio.pause(); state.stopAt = Infinity; }
  byId("seek").max = audio.duration || 1;
  byId("seek").value = now;
  byId("seek").setAttribute("aria-valuetext", clock(now));
  byId("clock").textContent = `${clock(now)} / ${clock(audio.duration || 0)}`;
  for (const old of document.querySelectorAll(".words .now")) old.classList.remove("now");
  const segment = state.segments.find((one) => one.start_s <= now && now < one.end_s);
  if (segment && !audio.paused)
    wordsOf(segment).find((word) => word.start_s <= now && now < word.end_s)?.button?.classList.add("now");
  drawWave();
}
function follow() { showTime(); if (!audio.paused) requestAnimationFrame(follow); }

audio.addEventListener("play", () => { byId("play").textContent = "Pause"; follow(); });
audio.addEventListener("pause", () => { byId("play").textContent = "Play"; showTime(); });
for (const event of ["loadedmetadata", "seeked"]) audio.addEventListener(event, showTime);
byId("play").addEventListener("click", () => { state.stopAt = Infinity; if (audio.paused) audio.play(); else audio.pause(); });
byId("seek").addEventListener("input", () => { state.stopAt = Infinity; audio.currentTime = byId("seek").value; });
byId("wave").addEventListener("click", (event) => {
  state.stopAt = Infinity;
  audio.currentTime = (event.offsetX / byId("wave").clientWidth) * (audio.duration || 0);
});
window.addEventListener("resize", drawWave);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawWave);

function focusWord(button) {
  for (const old of document.querySelectorAll(".words button[tabindex='0']")) old.tabIndex = -1;
  button.tabIndex = 0;
  button.focus();
}
byId("segments").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const buttons = [...document.querySelectorAll(".words button")];
  const at = buttons.indexOf(document.activeElement);
  if (!step || at < 0) return;
  event.preventDefault();
  focusWord(buttons[Math.min(buttons.length - 1, Math.max(0, at + step))]);
});
byId("changes").addEventListener("change", (event) => byId("segments").classList.toggle("plain", !event.target.checked));

// Downloads

function cues() {
  return state.segments.flatMap((segment) => {
    const text = chosenText(segment);
    if (text === segment.text) return segment.cues;
    return text ? [{ start_s: segment.start_s, end_s: segment.end_s, text }] : [];
  });
}
function stamp(s, comma) {
  const ms = Math.round(s * 1000), pad = (n, width = 2) => String(n).padStart(width, "0");
  return `${pad(Math.floor(ms / 3600000))}:${pad(Math.floor(ms / 60000) % 60)}:${pad(Math.floor(ms / 1000) % 60)}${comma}${pad(ms % 1000, 3)}`;
}
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const forms = {
  txt: () => state.segments.map(chosenText).filter(Boolean).join(" ") + "\n",
  srt: () => cues().map((c, n) => `${n + 1}\n${stamp(c.start_s, ",")} --> ${stamp(c.end_s, ",")}\n${c.text.replace(/--+>/g, "->")}\n`).join("\n"),
  vtt: () => ["WEBVTT\n", ...cues().map((c) => `${stamp(c.start_s, ".")} --> ${stamp(c.end_s, ".")}\n${escaped(c.text)}\n`)].join("\n"),
  json: () => JSON.stringify({
    audio: state.file.name, duration_s: state.duration, text: forms.txt().trim(), moved_weights: state.moved,
    segments: state.segments.map(({ item, words, ...one }) => ({ ...one, words: words.map(({ button, ...word }) => word), text: chosenText(one) })),
  }, null, 1) + "\n",
};
for (const button of document.querySelectorAll("[data-format]"))
  button.addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([forms[button.dataset.format]()], { type: "text/plain" }));
    element("a", { href: url, download: `${state.file.name.replace(/\.\w+$/, "")}.${button.dataset.format}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  });

// What is asked

byId("file").addEventListener("change", (event) => { if (event.target.files[0]) transcribe(event.target.files[0]); event.target.value = ""; });
for (const kind of ["dragover", "dragleave", "drop"])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) transcribe(event.dataTransfer.files[0]);
  });
byId("again").addEventListener("click", () => transcribe(state.file));
byId("cancel").addEventListener("click", stop);
byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("relisten-token", byId("token").value.trim());
  byId("login").hidden = true;
  if (state.file) transcribe(state.file);
});

let recorder = null;
byId("record").addEventListener("click", async () => {
  if (recorder) return recorder.stop();
  fail("");
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia({ audio: true }); } catch {
    return fail("The browser gives this page no microphone. Allow it, or choose a file.");
  }
  const chunks = [], button = byId("record");
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = (event) => chunks.push(event.data);
  recorder.onstop = () => {
    for (const track of stream.getTracks()) track.stop();
    const type = recorder.mimeType;
    recorder = null;
    button.textContent = "Record";
    button.setAttribute("aria-pressed", "false");
    transcribe(new File(chunks, `recording.${type.includes("mp4") ? "m4a" : "webm"}`, { type }));
  };
  recorder.start();
  button.textContent = "Stop and transcribe";
  button.setAttribute("aria-pressed", "true");
  say("Recording …");
});
