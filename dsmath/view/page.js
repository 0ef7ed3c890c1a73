// The page of experiments.view. The server holds everything; what stands here is what a person has chosen to see, and the
// address keeps that too.

import { $, ago, call, count, el, figure, plural, replace } from "/parts.js";
import { drawGraph, headline } from "/graph.js";
import { COLOURS, drawPlots } from "/plots.js";

const FAST = 2_000, SLOW = 10_000, MOST_CHOSEN = 24, MORE = 200, SAMPLES = 20;
const TABS = ["lineage", "curves", "configs", "samples", "reports"];
const LIKED = ["loss", "reward", "accuracy", "kl", "entropy", "length", "grad_norm"];

const page = {
  stamp: "", runs: new Map(), graph: { nodes: [], edges: [] }, chosen: new Set(), slots: new Map(), tab: "lineage", shown: MORE,
  metrics: [], names: [], axis: "step", smoothing: 0, logarithmic: false, sample: { run: "", file: "", which: "all", offset: 0 }, tickets: {},
};

// The last question of a kind wins: an answer that was overtaken is dropped.
async function newest(kind, promise) {
  const ticket = page.tickets[kind] = (page.tickets[kind] ?? 0) + 1, answer = await promise;
  return ticket === page.tickets[kind] ? answer : null;
}

function complain(error) {
  $("notice").hidden = !error;
  $("notice").textContent = error ? error.message : "";
}
const attempt = action => Promise.resolve().then(action).then(() => complain(null), complain);

// ---------------------------------------------------------------------------------------------------- address
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  page.chosen = new Set(asked.getAll("run").slice(0, MOST_CHOSEN));
  page.metrics = asked.getAll("metric").slice(0, MOST_CHOSEN);
  page.tab = TABS.includes(asked.get("tab")) ? asked.get("tab") : "lineage";
  page.axis = ["step", "tokens", "time"].includes(asked.get("by")) ? asked.get("by") : "step";
  page.smoothing = Math.min(Math.max(Number(asked.get("smoothing")) || 0, 0), 0.99);
  page.logarithmic = asked.has("log");
}

function writeAddress() {
  const kept = new URLSearchParams({ tab: page.tab });
  for (const run of page.chosen) kept.append("run", run);
  for (const metric of page.metrics) kept.append("metric", metric);
  if (page.axis !== "step") kept.set("by", page.axis);
  if (page.smoothing) kept.set("smoothing", page.smoothing);
  if (page.logarithmic) kept.set("log", "");
  history.replaceState(null, "", `#${kept}`);
}

// ---------------------------------------------------------------------------------------------------- runs
async function refresh() {
  const answer = await call("runs", { stamp: page.stamp });
  if (answer.stamp === page.stamp) return renderLive();
  const before = page.runs, first = !page.stamp;
  Object.assign(page, { stamp: answer.stamp, graph: answer.graph, problems: answer.problems });
  page.runs = new Map(answer.runs.map(run => [run.name, run]));
  for (const name of page.chosen) if (!page.runs.has(name)) page.chosen.delete(name);
  renderRuns();
  renderLive();
  const grew = [...page.chosen].some(name => page.runs.get(name).seen !== before.get(name)?.seen);
  if (first || page.tab === "lineage" || grew) await renderTab();
}

function renderLive() {
  const by = {};
  for (const run of page.runs.values()) by[run.status] = (by[run.status] ?? 0) + 1;
  replace($("totals"), ["running", "stalled", "failed", "stopped", "finished"].filter(status => by[status]).map(status =>
    el("span", {}, el("i", { className: `dot ${status}` }), `${count(by[status])} ${status}`)));
  $("live").textContent = by.running ? "live" : "";
  $("live").classList.toggle("on", Boolean(by.running));
}

function shownRuns() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  return [...page.runs.values()].filter(run => words.every(word => `${run.name} ${run.stage} ${run.status}`.toLowerCase().includes(word)));
}

function renderRuns() {
  const found = shownRuns(), focused = document.activeElement?.dataset?.run;
  const rows = found.slice(0, page.shown).map(runRow);
  if (found.length > page.shown) rows.push(el("li", {}, el("button", { type: "button", id: "more-runs", onclick: () => { page.shown += MORE; renderRuns(); } }, `Show more of ${count(found.length)}`)));
  if (!page.runs.size) rows.push(el("li", { className: "empty" }, "No runs in this folder yet: a run is a folder with a config.json."));
  else if (!found.length) rows.push(el("li", { className: "empty" }, "No run matches."));
  if (page.problems?.length) rows.push(el("li", { className: "problem" }, ...page.problems.map(problem => el("div", {}, problem))));
  replace($("runs"), rows);
  if (focused) $("runs").querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
  $("chosen-count").textContent = page.chosen.size ? `${page.chosen.size} chosen` : "";
  replace($("chosen"), [...page.chosen].map(name => el("li", { ...ink(name), title: name }, el("i", { className: `swatch dash-${Math.floor(slot(name) / COLOURS) % 3}` }), labels().get(name),
    el("button", { type: "button", className: "plain", "aria-label": `Leave out ${name}`, "data-leave": name, onclick: () => choose([name], false) }, "×"))));
}

function runRow(run) {
  const chosen = page.chosen.has(run.name), [parent, last] = run.name.includes("/") ? [run.name.slice(0, run.name.lastIndexOf("/") + 1), run.name.slice(run.name.lastIndexOf("/") + 1)] : ["", run.name === "." ? "this folder" : run.name];
  const progress = run.status !== "finished" && run.step !== null && run.num_steps ? `step ${count(run.step)} of ${count(run.num_steps)}` : headline([run]);
  const box = el("input", { type: "checkbox", "data-run": run.name, onchange: event => choose([run.name], event.target.checked) });
  if (chosen) box.setAttribute("checked", "");
  return el("li", { className: chosen ? "on" : "", ...(chosen ? ink(run.name) : {}) }, el("label", {}, box,
    el("span", { className: "name" }, el("small", {}, parent), last),
    el("span", { className: "facts" }, el("i", { className: `dot ${run.status}` }), `${run.stage || "other"} · ${run.status}`, progress ? ` · ${progress}` : "",
      run.status === "running" || run.status === "stalled" ? ` · ${ago(run.seen)}` : ""),
    run.status !== "finished" && run.step !== null && run.num_steps ? el("progress", { max: run.num_steps, value: run.step, "aria-label": `progress of ${run.name}` }) : null),
    ...(run.detail && run.status === "failed" ? [el("p", { className: "problem" }, run.detail)] : []), ...run.problems.map(problem => el("p", { className: "problem" }, problem)));
}

// A run keeps its colour while it is chosen.
function slot(name) {
  if (!page.slots.has(name)) {
    const taken = new Set([...page.slots].filter(([other]) => page.chosen.has(other)).map(([, number]) => number));
    let free = 0;
    while (taken.has(free)) free += 1;
    page.slots.set(name, free);
  }
  return page.slots.get(name);
}
const ink = name => ({ "--ink-of-run": `var(--run-${slot(name) % COLOURS})` });

function labels() {
  const last = name => name.slice(name.lastIndexOf("/") + 1), seen = new Map();
  for (const name of page.chosen) seen.set(last(name), (seen.get(last(name)) ?? 0) + 1);
  return new Map([...page.chosen].map(name => [name, seen.get(last(name)) > 1 ? name : name === "." ? "this folder" : last(name)]));
}

function choose(names, whether) {
  let refused = 0;
  for (const name of names) {
    if (!whether) { page.chosen.delete(name); page.slots.delete(name); }
    else if (page.chosen.has(name) || page.chosen.size < MOST_CHOSEN) { page.chosen.add(name); slot(name); }
    else refused += 1;
  }
  writeAddress();
  renderRuns();
  attempt(async () => {
    await renderTab();
    if (refused) throw new Error(`at most ${MOST_CHOSEN} runs can be chosen at a time: ${refused} left out`);
  });
}

// ---------------------------------------------------------------------------------------------------- tabs
function openTab(tab) {
  page.tab = tab;
  writeAddress();
  attempt(renderTab);
}

async function renderTab() {
  const opened = $(page.tab).hidden;
  for (const tab of TABS) {
    $(tab).hidden = tab !== page.tab;
    $(`tab-${tab}`).setAttribute("aria-selected", String(tab === page.tab));
    $(`tab-${tab}`).tabIndex = tab === page.tab ? 0 : -1;
  }
  $("chosen").hidden = page.tab === "lineage" || !page.chosen.size;
  await { lineage: renderLineage, curves: renderCurves, configs: renderConfigs, samples: renderSamples, reports: renderReports }[page.tab](opened);
}

function renderLineage(opened = false) {
  const focused = document.activeElement?.dataset?.node, pane = $("lineage"), place = [pane.scrollLeft, pane.scrollTop];
  pane.replaceChildren(...drawGraph(page.graph, page.runs, page.chosen, choose, pane.clientWidth));
  [pane.scrollLeft, pane.scrollTop] = place;
  if (focused) pane.querySelector(`[data-node="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  if (opened) pane.querySelector("[aria-pressed=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

async function renderCurves() {
  $("axis").value = page.axis;
  $("smoothing").value = page.smoothing;
  $("smoothing-value").textContent = page.smoothing;
  $("logarithmic").checked = page.logarithmic;
  const runs = [...page.chosen], ask = () => call("curves", { run: runs, metric: page.metrics, axis: page.axis, smoothing: page.smoothing });
  let answer = await newest("curves", ask());
  if (!answer) return;
  if (!page.metrics.length && answer.names.length) {
    page.metrics = [...LIKED.filter(name => answer.names.includes(name)), ...answer.names].filter((name, place, all) => all.indexOf(name) === place).slice(0, 4);
    answer = await newest("curves", ask());
    if (!answer) return;
  }
  page.names = answer.names;
  renderMetrics();
  const notes = answer.notes.map(note => el("li", {}, note));
  if (!runs.length) notes.push(el("li", { className: "empty" }, "Choose runs on the left, or in the lineage."));
  else if (!answer.names.length) notes.push(el("li", { className: "empty" }, "The chosen runs have no metrics."));
  replace($("curve-notes"), notes);
  await import(document.body.dataset.plotly); // large, so not before it is needed; it names itself Plotly
  drawPlots(page.metrics.filter(metric => page.names.includes(metric)), answer.curves, { axis: page.axis, logarithmic: page.logarithmic, slots: page.slots, labels: labels() });
}

function renderMetrics() {
  const wanted = $("metric-filter").value.toLowerCase(), shown = page.metrics.filter(metric => page.names.includes(metric));
  $("metrics-count").textContent = `${shown.length} of ${page.names.length}`;
  replace($("metrics"), page.names.filter(name => name.toLowerCase().includes(wanted)).map(name => {
    const box = el("input", { type: "checkbox", "data-metric": name, onchange: event => {
      page.metrics = event.target.checked ? [...page.metrics, name].slice(-MOST_CHOSEN) : page.metrics.filter(one => one !== name);
      writeAddress();
      attempt(renderCurves);
    } });
    if (page.metrics.includes(name)) box.setAttribute("checked", "");
    return el("li", {}, el("label", {}, box, name));
  }));
}

async function renderConfigs() {
  const runs = [...page.chosen];
  if (!runs.length) return $("configs").replaceChildren(el("p", { className: "empty" }, "Choose two or more runs to see what differs between their configs, or one to see it whole."));
  const answer = await newest("configs", call("comparison", { run: runs })), short = labels();
  if (!answer) return;
  const told = runs.length === 1 ? plural(answer.rows.length, "field") : `${plural(answer.rows.length + answer.left_out, "field")} ${answer.rows.length === 1 ? "differs" : "differ"}, ${count(answer.same)} the same`;
  $("configs").replaceChildren(el("p", { className: "quiet" }, told, answer.left_out ? `; ${count(answer.left_out)} more are not shown` : ""),
    answer.rows.length ? el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Configs" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "field"), ...runs.map(name => el("th", { scope: "col", title: name, ...ink(name) }, el("i", { className: "swatch" }), short.get(name))))),
      el("tbody", {}, ...answer.rows.map(row => el("tr", {}, el("th", { scope: "row" }, row.field), ...row.values.map(value => el("td", { className: value === null ? "quiet" : "" }, value ?? "–"))))))) : "");
}

// ---------------------------------------------------------------------------------------------------- samples, reports
function options(select, values, value, text = one => one) {
  replace(select, values.map(one => el("option", { value: one }, text(one))));
  select.value = value;
}

async function renderSamples() {
  const asked = page.sample, runs = [...page.chosen].filter(name => page.runs.get(name)?.has_samples), short = labels();
  if (!runs.includes(asked.run)) Object.assign(asked, { run: runs[0] ?? "", file: "", offset: 0 });
  options($("samples-run"), runs, asked.run, name => short.get(name));
  const { files } = asked.run ? await call("sample_files", { run: asked.run }) : { files: [] };
  if (!files.includes(asked.file)) Object.assign(asked, { file: files[0] ?? "", offset: 0 });
  options($("samples-file"), files, asked.file);
  $("samples-which").value = asked.which;
  if (!asked.file) {
    $("samples-place").textContent = "";
    return $("samples-list").replaceChildren(el("p", { className: "empty" }, "Choose a run that has samples: one of rl, reward or evaluate."));
  }
  const answer = await newest("samples", call("samples", { ...asked }));
  if (!answer) return;
  const last = Math.min(asked.offset + SAMPLES, answer.number);
  $("samples-place").textContent = answer.number ? `${count(asked.offset + 1)}–${count(last)} of ${count(answer.number)}` : "none";
  $("samples-before").disabled = !asked.offset;
  $("samples-after").disabled = last >= answer.number;
  $("samples-list").replaceChildren(...answer.rows.map(({ texts, facts }, place) => el("article", { className: "sample" },
    texts.question === answer.rows[place - 1]?.texts.question ? null : el("p", { className: "question" }, texts.question), // said once a group
    el("pre", {}, texts.completion ?? ""),
    el("p", { className: "facts" }, "correct" in facts ? el("b", { className: facts.correct ? "right" : "wrong" }, facts.correct ? "✓ right" : "✕ wrong") : "",
      el("span", {}, `answer ${texts.answer ?? "none"}`), texts.gold === undefined ? "" : el("span", {}, `gold ${texts.gold}`),
      ...Object.entries(facts).filter(([name]) => name !== "correct").map(([name, value]) => el("span", {}, `${name} ${value}`))))));
}

function renderReports() {
  if (!page.chosen.size) return $("reports").replaceChildren(el("p", { className: "empty" }, "Choose runs to see their results, and to open their reports."));
  const cards = [...page.chosen].map(name => {
    const run = page.runs.get(name), address = file => `/files/${(name === "." ? file : `${name}/${file}`).split("/").map(encodeURIComponent).join("/")}`;
    const drawn = run.reports.find(file => /\.(svg|png)$/.test(file));
    return el("article", { className: "report", ...ink(name) },
      el("h2", {}, el("i", { className: "swatch" }), name === "." ? "this folder" : name),
      el("p", { className: "quiet" }, el("i", { className: `dot ${run.status}` }), `${run.stage || "other"} · ${run.status}`, run.step !== null ? ` · step ${count(run.step)}` : "", ` · ${ago(run.seen)}`, run.code ? ` · code ${run.code}` : ""),
      run.detail ? el("p", { className: "problem" }, run.detail) : null,
      run.reports.length ? el("p", { className: "links" }, ...run.reports.map(file => el("a", { href: address(file), target: "_blank", rel: "noopener" }, file))) : el("p", { className: "quiet" }, "no reports"),
      run.result.length ? el("dl", {}, ...run.result.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, figure(value))))) : null,
      drawn ? el("img", { src: address(drawn), alt: `${drawn} of ${name}`, loading: "lazy" }) : null);
  });
  replace($("reports"), cards);
}

// ---------------------------------------------------------------------------------------------------- start
function later(action, milliseconds) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(action, milliseconds); };
}

function listen() {
  for (const tab of TABS) $(`tab-${tab}`).onclick = () => openTab(tab);
  $("tabs").onkeydown = event => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    openTab(TABS[(TABS.indexOf(page.tab) + move + TABS.length) % TABS.length]);
    $(`tab-${page.tab}`).focus();
  };
  $("filter").oninput = () => { page.shown = MORE; renderRuns(); };
  $("choose-shown").onclick = () => choose(shownRuns().map(run => run.name), true);
  $("clear").onclick = () => choose([...page.chosen], false);
  $("metric-filter").oninput = renderMetrics;
  const redraw = later(() => { writeAddress(); attempt(renderCurves); }, 120);
  $("axis").onchange = () => { page.axis = $("axis").value; redraw(); };
  $("smoothing").oninput = () => { page.smoothing = Number($("smoothing").value); $("smoothing-value").textContent = page.smoothing; redraw(); };
  $("logarithmic").onchange = () => { page.logarithmic = $("logarithmic").checked; redraw(); };
  const sample = change => () => { Object.assign(page.sample, change()); attempt(renderSamples); };
  $("samples-run").onchange = sample(() => ({ run: $("samples-run").value, file: "", offset: 0 }));
  $("samples-file").onchange = sample(() => ({ file: $("samples-file").value, offset: 0 }));
  $("samples-which").onchange = sample(() => ({ which: $("samples-which").value, offset: 0 }));
  $("samples-before").onclick = sample(() => ({ offset: Math.max(page.sample.offset - SAMPLES, 0) }));
  $("samples-after").onclick = sample(() => ({ offset: page.sample.offset + SAMPLES }));
  matchMedia("(prefers-color-scheme: dark)").onchange = () => page.tab === "curves" && attempt(renderCurves);
  addEventListener("hashchange", () => { readAddress(); page.slots.clear(); renderRuns(); attempt(renderTab); });
  addEventListener("click", event => { if (!$("metrics-fold").contains(event.target)) $("metrics-fold").open = false; });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) attempt(refresh); });
  if (matchMedia("(max-width: 800px)").matches) $("runs-fold").open = false;
}

async function watch() {
  if (!document.hidden) await attempt(refresh);
  const goes = [...page.runs.values()].some(run => run.status === "running");
  setTimeout(watch, goes || page.runs.size < 500 ? FAST : SLOW);
}

readAddress();
listen();
watch();
