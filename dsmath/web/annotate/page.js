// The page of experiments.annotate: domains, the tree of paths, one pattern, its samples, keys.
// The server holds everything; what stands here is what is to be seen.

import { $, ago, call, count, el, exact, gainOf, percent, plural, setTypeset, signed } from "/parts.js";

const POLL_SECONDS = 2, MORE_ROWS = 100, MORE_DOMAINS = 200, PAUSE = 220; // PAUSE: milliseconds before samples follow
const KINDS = { math: "math", "not math": "not", unsure: "unsure" }; // verdicts and their classes
const SIGNS = { math: "✓", "not math": "✕", unsure: "?" };

const page = {
  round: 0, last: 0, known: new Set(), user: "", domains: [], domain: "", shownDomains: MORE_DOMAINS,
  opened: {}, rows: [], marks: [], suggestions: [], row: "", pattern: "", node: null, samples: { list: [], left: 0 },
  seen: { rows: 0, node: 0, samples: 0 }, timer: 0,
};

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").className = bad ? "bad" : "";
}

// Runs an action of the person; what fails is said in the footer.
async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    say(error.message, true);
  }
}

// Actions of keys wait for each other: a key is meant for what the one before it brings.
let queue = Promise.resolve();
const enqueue = action => { queue = queue.then(() => attempt(action)); };

// The last call of a kind wins: an answer that was overtaken is dropped.
async function newest(kind, promise) {
  const ticket = ++page.seen[kind], answer = await promise;
  return ticket === page.seen[kind] ? answer : null;
}

function bar(parts, whole, label) {
  const pieces = Object.entries(KINDS).map(([verdict, kind]) =>
    el("i", { className: kind, width: percent(whole ? (parts?.[verdict]?.gain ?? 0) / whole : 0).replace(" ", "") }));
  return el("div", { className: "bar", role: "img", "aria-label": label }, ...pieces);
}

const decidedGain = decided => (decided ? decided.math.gain + decided["not math"].gain : 0);

// ---------------------------------------------------------------------------------------------------- domains
async function loadOverview() {
  const overview = await call("overview");
  Object.assign(page, { round: overview.round, last: Math.max(page.last, overview.last), domains: overview.domains });
  const sum = pick => page.domains.reduce((total, domain) => total + pick(domain), 0);
  const decided = {};
  for (const verdict of Object.keys(KINDS)) decided[verdict] = { gain: sum(domain => domain.decided?.[verdict].gain ?? 0) };
  const gain = sum(domain => domain.gain), share = gain ? decidedGain(decided) / gain : 0;
  const added = sum(domain => domain.decided?.math.pages ?? 0);
  $("round").textContent = `round ${overview.round}`;
  $("totals").replaceChildren(
    el("span", { id: "added" }, el("b", {}, `+${count(added)}`), ` pages added`),
    el("span", { className: "optional" }, el("b", {}, gainOf(decided.math.gain)), ` of ${gainOf(gain)} gain`),
    bar(decided, gain, `${percent(share)} of the gain is decided`), el("span", {}, `${percent(share)} decided`));
  $("export").textContent = { no: "Export", yes: "Exported ✓", outdated: "Export again" }[overview.exported];
  renderDomains();
}

function shownDomains() {
  const wanted = $("filter").value.trim().toLowerCase();
  return page.domains.filter(domain => domain.domain.includes(wanted));
}

function renderDomains() {
  const focused = $("domains").contains(document.activeElement), found = shownDomains();
  $("domains-count").textContent = count(found.length);
  const options = found.slice(0, page.shownDomains).map(domain => {
    const share = domain.gain ? decidedGain(domain.decided) / domain.gain : 0, chosen = domain.domain === page.domain;
    return el("div", { role: "option", "aria-selected": chosen, tabIndex: chosen ? 0 : -1, "data-domain": domain.domain },
      el("div", { className: "domain-line" }, el("span", { className: "name" }, domain.domain),
        el("span", { className: "number", title: `gain ${domain.gain.toFixed(1)}` }, gainOf(domain.gain))),
      bar(domain.decided, domain.gain, `${percent(share)} decided`),
      el("div", { className: "domain-line" },
        el("span", {}, `${percent(domain.share)} of ${count(domain.pages)} collected`), el("span", { className: "number" }, share ? percent(share) : "")));
  });
  if (found.length > page.shownDomains) {
    options.push(el("button", { type: "button", onclick: () => { page.shownDomains += MORE_DOMAINS; renderDomains(); } }, `Show more of ${count(found.length)}`));
  }
  if (!found.length) options.push(el("p", { className: "quiet" }, "No domain has this in its name."));
  $("domains").replaceChildren(...options);
  const chosen = $("domains").querySelector("[aria-selected=true]") ?? $("domains").querySelector("[role=option]");
  if (chosen) chosen.tabIndex = 0;
  if (focused) chosen?.focus();
}

const focusDomain = () => $("domains").querySelector("[aria-selected=true]")?.focus();

async function chooseDomain(name, focus = "") {
  let before = document.activeElement;
  if (name !== page.domain) {
    Object.assign(page, { domain: name, opened: {}, row: "", rows: [], marks: [], suggestions: [] });
    history.replaceState(null, "", `#${encodeURIComponent(name)}`);
    $("rows").replaceChildren();
    renderDomains();
    if (focus === "domains") focusDomain(); // the next key comes before the rows do
    before = document.activeElement;
    $("tree-title").textContent = name;
    $("domain-facts").textContent = "reading …";
    showPattern("");
    await loadRows({ descend: "" });
    if (name !== page.domain) return;
    chooseRow(page.rows[0]?.address ?? "");
  }
  if (document.activeElement !== before && document.activeElement !== document.body) return; // the person went on
  if (focus === "tree") focusRow();
  if (focus === "domains") focusDomain();
  $("domains").querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
}

// ---------------------------------------------------------------------------------------------------- tree
const rowName = row => row.address ?? `more ${row.parent}`;
const currentRow = () => page.rows.find(row => rowName(row) === page.row);

async function loadRows(way = {}) {
  const answer = await newest("rows", call("tree", { body: { domain: page.domain, opened: page.opened, ...way } }));
  if (!answer || answer.domain !== page.domain) return;
  const { rows, opened, marks, suggestions } = answer;
  Object.assign(page, { rows, opened, marks, suggestions });
  renderRows();
  renderMarks();
  const domain = page.domains.find(one => one.domain === page.domain);
  $("domain-facts").textContent = rows.length
    ? `${plural(domain.pages, "page")}, ${count(domain.collected)} collected, gain ${gainOf(domain.gain)}` : "no pages are offered";
  $("next-suggestion").hidden = !suggestions.length;
  $("next-suggestion").replaceChildren(plural(suggestions.length, "suggestion"), " ", el("kbd", {}, "s"));
}

function renderRows() {
  const focused = $("rows").contains(document.activeElement);
  if (!currentRow()) page.row = page.rows.length ? rowName(page.rows[0]) : "";
  $("rows").replaceChildren(...page.rows.map(row => (row.more ? moreRow(row) : pathRow(row))));
  if (focused) focusRow();
}

function pathRow(row) {
  const chosen = row.address === page.row, twist = row.leaf ? "" : row.open ? "▾" : "▸";
  const properties = {
    role: "row", "aria-level": row.level, "aria-selected": chosen, tabIndex: chosen ? 0 : -1, "data-row": row.address,
    className: `under-${KINDS[row.verdict ?? row.inherited] ?? "none"}`,
  };
  if (!row.leaf) properties["aria-expanded"] = row.open;
  return el("div", properties,
    el("span", { role: "gridcell", className: "label", level: row.level },
      el("button", { type: "button", className: "twist", tabIndex: -1, "aria-hidden": true, disabled: row.leaf }, twist),
      el("span", { className: "path", title: row.address }, row.label), ...badges(row)),
    cell(row.pages), cell(row.pages - row.uncollected), cell(row.uncollected),
    el("span", { role: "gridcell", className: "number heat", width: `${Math.round(100 * (row.score ?? 0))}%` }, row.score === null ? "–" : row.score.toFixed(2)),
    el("span", { role: "gridcell", className: "number" }, row.uncollected ? gainOf(row.gain) : "–"));
}

const cell = value => el("span", { role: "gridcell", className: "number", title: exact.format(value) }, count(value));

function badges(row) {
  const found = [];
  if (row.added) found.push(el("span", { className: "badge added", title: "uncollected pages below that are added" }, `+${count(row.added)}`));
  if (row.verdict) {
    const others = row.others.map(other => `${other.user}: ${other.verdict}`).join(", ");
    found.push(el("span", { className: `badge ${KINDS[row.verdict]}`, title: `${row.user}: ${row.verdict}${others && `; ${others}`}` },
      `${SIGNS[row.verdict]} ${row.verdict}${row.others.length ? ` · ${row.user} ≠ ${row.others.map(other => other.user).join(", ")}` : ""}`));
  } else if (row.suggested) found.push(el("span", { className: "badge suggested" }, "math?"));
  else if (row.inherited && !row.added) found.push(el("span", { className: `badge inherited ${KINDS[row.inherited]}` }, row.inherited));
  return found;
}

function moreRow(row) {
  const chosen = rowName(row) === page.row;
  return el("div", { role: "row", "aria-level": row.level, "aria-selected": chosen, tabIndex: chosen ? 0 : -1, className: "more-row", "data-row": rowName(row) },
    el("span", { role: "gridcell", className: "label", level: row.level }, `show ${Math.min(MORE_ROWS, row.more)} more of ${exact.format(row.more)}`));
}

function renderMarks() {
  $("marks").hidden = !page.marks.length;
  $("marks-count").textContent = count(page.marks.length);
  $("marks-list").replaceChildren(...page.marks.map(mark => el("li", {}, el("button", { type: "button", onclick: () => attempt(() => reveal(mark.pattern)) },
    el("span", { className: `badge ${KINDS[mark.verdict]}` }, `${SIGNS[mark.verdict]} ${mark.verdict}`), el("span", { className: "path" }, mark.pattern),
    el("span", { className: "quiet" }, mark.user), el("span", { className: "number", title: "uncollected pages on which this mark decides" }, count(mark.pages))))));
}

function chooseRow(name, focus = false) {
  page.row = name;
  for (const row of $("rows").children) {
    const chosen = row.dataset.row === name;
    row.setAttribute("aria-selected", chosen);
    row.tabIndex = chosen ? 0 : -1;
    if (chosen) row.scrollIntoView({ block: "nearest" });
  }
  if (focus) focusRow();
  showPattern(currentRow()?.address ?? "");
}

const focusRow = () => $("rows").querySelector("[aria-selected=true]")?.focus();

async function open(row) {
  page.opened[row.address] ??= 50;
  await loadRows({ descend: row.address });
}

async function close(row) {
  delete page.opened[row.address];
  await loadRows();
}

async function showMoreRows(row) {
  page.opened[row.parent] = row.shown + MORE_ROWS;
  const place = page.rows.indexOf(row);
  await loadRows();
  chooseRow(rowName(page.rows[place]), true);
}

async function reveal(address) {
  await loadRows({ reveal: address });
  if (page.rows.some(row => row.address === address)) chooseRow(address, true);
  else showPattern(address);
}

function nextSuggestion() {
  if (!page.suggestions.length) return say("no suggestions here");
  return reveal(page.suggestions[(page.suggestions.indexOf(page.row) + 1) % page.suggestions.length]);
}

// ---------------------------------------------------------------------------------------------------- one pattern
function showPattern(pattern) {
  Object.assign(page, { pattern, node: null, samples: { list: [], left: 0 } });
  $("pattern").value = pattern;
  clearTimeout(page.timer);
  for (const id of ["detail", "reading"]) $(id).hidden = !pattern;
  $("empty").hidden = Boolean(pattern);
  renderSamples();
  page.seen.samples++;
  if (!pattern) return;
  attempt(loadNode);
  page.timer = setTimeout(() => attempt(() => loadSamples()), PAUSE);
}

function editPattern() {
  page.pattern = $("pattern").value.trim();
  clearTimeout(page.timer);
  page.timer = setTimeout(async () => {
    await attempt(loadNode);
    if (page.node) attempt(() => loadSamples());
  }, PAUSE);
}

async function loadNode() {
  const answer = await newest("node", call("node", { query: { domain: page.domain, pattern: page.pattern } }));
  if (!answer) return;
  page.node = answer.problem ? null : answer;
  $("pattern-error").hidden = !answer.problem;
  $("pattern-error").textContent = answer.problem ?? "";
  $("pattern").setAttribute("aria-invalid", Boolean(answer.problem));
  renderNode();
}

function renderNode() {
  const node = page.node;
  for (const button of $("verdicts").children) {
    const change = node?.changes[button.dataset.verdict];
    button.disabled = !node;
    button.setAttribute("aria-pressed", node?.verdict === button.dataset.verdict);
    button.lastElementChild.textContent = !node ? "" : change.pages ? `${signed(change.pages)} page${Math.abs(change.pages) === 1 ? "" : "s"}, gain ${change.gain < 0 ? "−" : "+"}${gainOf(Math.abs(change.gain))}` : "no change";
  }
  if (!node) return $("facts").replaceChildren(), $("standing").replaceChildren(), $("history").replaceChildren();
  const facts = { pages: count(node.pages), collected: count(node.collected), uncollected: count(node.uncollected), "mean score": node.score === null ? "–" : node.score.toFixed(2), gain: gainOf(node.gain) };
  $("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  $("standing").replaceChildren(...standing(node));
  $("history").replaceChildren(...node.history.filter(event => !event.undoes).map(historyLine));
}

function standing(node) {
  const badge = verdict => el("span", { className: `badge ${KINDS[verdict]}` }, `${SIGNS[verdict]} ${verdict}`);
  if (node.verdict) {
    const last = node.history.find(event => !event.undoes && !event.undone_by);
    return [badge(node.verdict), ` by ${last.user}, ${ago(last.time)}`, ...node.others.map(other => `; ${other.user} said “${other.verdict}”`)];
  }
  if (node.suggested) {
    return [el("span", { className: "badge suggested" }, "math?"), ` suggested by the scores of ${plural(node.uncollected, "uncollected page")} `,
      el("button", { type: "button", onclick: () => attempt(accept) }, "Accept ", el("kbd", {}, "a"))];
  }
  if (node.inherited) return ["falls under ", badge(node.inherited.verdict), " of ", el("span", { className: "path" }, node.inherited.address)];
  return [el("span", { className: "quiet" }, node.readable === node.address ? "not marked" : node.readable)];
}

function historyLine(event) {
  const undo = () => attempt(() => undoMark(event.id));
  return el("li", {},
    el("span", { className: event.undone_by ? "undone" : "" }, `${event.user}: ${event.verdict}${event.suggested ? ", as suggested" : ""}${event.note ? `, “${event.note}”` : ""}`),
    el("span", { className: "quiet", title: event.time }, ` ${ago(event.time)}${event.undone_by ? `, undone by ${event.undone_by}` : ""}`),
    event.undone_by ? null : el("button", { type: "button", className: "plain", onclick: undo, "aria-label": `Undo ${event.verdict} by ${event.user}` }, "undo"));
}

async function mark(verdict, suggested = false) {
  if (!page.pattern || currentRow()?.more) return;
  if ($("pattern").getAttribute("aria-invalid") === "true") throw new Error($("pattern-error").textContent);
  await askName();
  const body = { domain: page.domain, pattern: page.pattern, verdict, user: page.user, note: $("note").value.trim(), suggested, round: page.round };
  const answer = await call("mark", { body });
  page.known.add(answer.id);
  $("note").value = "";
  say(`saved: ${verdict}, ${answer.address}`);
  await refresh();
}

function accept() {
  if (page.node?.address === page.pattern && page.node.suggested) return mark("math", true);
  say("no suggestion stands on this path; s goes to the next one");
}

async function undoMark(id = null) {
  await askName();
  const undone = await call("undo", { body: { user: page.user, id, round: page.round } });
  say(`undone: ${undone.verdict}, ${undone.pattern}`);
  await refresh();
  if (id === null && undone.domain === page.domain) await reveal(undone.pattern);
}

async function refresh() {
  await Promise.all([loadOverview(), page.domain && loadRows(), page.pattern && loadNode()]);
}

// ---------------------------------------------------------------------------------------------------- samples
async function loadSamples(more = false) {
  clearTimeout(page.timer);
  if (!page.pattern) return;
  const offset = more ? page.samples.list.length : 0;
  const answer = await newest("samples", call("samples", { query: { domain: page.domain, pattern: page.pattern, offset } }));
  if (!answer) return;
  page.samples = { list: more ? [...page.samples.list, ...answer.samples] : answer.samples, left: answer.left };
  renderSamples(offset);
}

function renderSamples(from = 0) {
  const { list, left } = page.samples;
  $("samples-count").textContent = list.length ? `${count(list.length)} of ${count(list[0].of)}` : "";
  $("more-samples").hidden = left <= 0;
  if (!from) $("samples").replaceChildren(), ($("reading").scrollTop = 0);
  $("samples").append(...list.slice(from).map(sampleCard));
}

function sampleCard(sample) {
  const text = el("div", { className: "text", lang: "", dir: "auto" });
  if (sample.problem) text.classList.add("missing"), (text.textContent = sample.problem);
  else setTypeset(text, sample.html);
  const whole = el("button", { type: "button", className: "whole", hidden: !sample.cut, onclick: () => attempt(async () => {
    const answer = await call("text", { query: { domain: page.domain, place: sample.place } });
    setTypeset(text, answer.html);
    whole.hidden = true;
  }) }, `Read on (${plural(sample.characters, "character")})`);
  const rank = sample.rank === 1 ? "highest score" : sample.rank === sample.of ? "lowest score" : `rank ${exact.format(sample.rank)} of ${exact.format(sample.of)}`;
  const copy = () => attempt(async () => (await navigator.clipboard.writeText(sample.url), say("address copied")));
  return el("article", { className: "sample", "aria-label": `Sample with score ${sample.score.toFixed(2)}` },
    el("div", { className: "sample-head" },
      el("span", { className: "score", width: percent(sample.score).replace(" ", "") }, sample.score.toFixed(2)),
      el("span", { className: "quiet" }, `${rank}, ${sample.collected ? "collected" : "not collected"}`),
      el("button", { type: "button", className: "plain", onclick: copy }, "copy address"),
      el("span", { className: "path" }, sample.url)),
    text, whole);
}

// ---------------------------------------------------------------------------------------------------- people
function askName(again = false) {
  if (page.user && !again) return Promise.resolve();
  const dialog = $("user-dialog");
  $("user").value = page.user;
  dialog.showModal();
  return new Promise((resolve, reject) => dialog.addEventListener("close", () => {
    const name = $("user").value.trim();
    if (dialog.returnValue !== "ok" || !name) return page.user ? resolve() : reject(new Error("nothing was marked: give a name first"));
    localStorage.setItem("user", name);
    setName(name);
    resolve();
  }, { once: true }));
}

function setName(name) {
  page.user = name;
  $("who").textContent = name || "Who are you?";
}

async function poll() {
  try {
    const answer = await call("changes", { query: { since: page.last } });
    page.last = Math.max(page.last, answer.last);
    const others = answer.events.filter(event => !page.known.has(event.id));
    if (answer.round !== page.round) newRound(answer.round);
    else if (others.length) {
      await refresh();
      const event = others.findLast(one => one.user !== page.user);
      if (event) say(`${event.user}: ${event.verdict}, ${event.pattern}${others.length > 1 ? ` and ${others.length - 1} more` : ""}`);
    }
    if ($("status").dataset.lost) delete $("status").dataset.lost, say("the server answers again");
  } catch (error) {
    $("status").dataset.lost = "yes";
    say(error.message, true);
  }
  setTimeout(poll, 1000 * POLL_SECONDS);
}

function newRound(round) {
  $("notice").hidden = false;
  $("notice").replaceChildren(`Round ${round} of mining is out.`, el("button", { type: "button", onclick: () => location.reload() }, "Show it"));
}

async function exportMarks() {
  const answer = await call("export", { body: { round: page.round } });
  $("export-facts").textContent = `${plural(answer.including, "pattern")} of mathematics, ${plural(answer.excluding, "exclusion")}.` +
    (answer.including ? "" : " Nothing is marked math: mining would go on with the seed as it is.");
  $("export-files").replaceChildren(...answer.files.map(file => el("li", { className: "path" }, file)));
  $("export-command").textContent = answer.command;
  $("export-dialog").showModal();
  await loadOverview();
}

// ---------------------------------------------------------------------------------------------------- keys and mouse
function moveDomain(step) {
  const names = shownDomains().slice(0, page.shownDomains).map(domain => domain.domain);
  const place = Math.min(Math.max(names.indexOf(page.domain) + step, 0), names.length - 1);
  if (names.length) return chooseDomain(names[place], "domains");
}

function moveRow(step) {
  const place = page.rows.findIndex(row => rowName(row) === page.row) + step;
  if (page.rows[place]) chooseRow(rowName(page.rows[place]), true);
}

function goRight(row) {
  if (row?.more) return showMoreRows(row);
  if (row && !row.leaf && !row.open) return open(row);
  moveRow(row?.open ? 1 : 0);
}

function goLeft(row) {
  if (row?.open) return close(row);
  const parent = page.rows.slice(0, page.rows.indexOf(row)).findLast(one => one.level < row.level);
  if (parent) chooseRow(rowName(parent), true);
  else focusDomain();
}

function read() {
  const row = currentRow();
  if (row?.more) return showMoreRows(row);
  $("reading").focus();
  if (!page.samples.list.length) return loadSamples();
}

const everywhere = {
  m: () => mark("math"), n: () => mark("not math"), u: () => mark("unsure"), a: accept, z: () => undoMark(), s: nextSuggestion,
  e: () => !$("more-samples").hidden && loadSamples(true), p: () => $("pattern").select(), w: () => $("note").focus(),
  "/": () => $("filter").select(), "?": () => $("help-dialog").showModal(), Escape: focusRow, j: () => moveRow(1), k: () => moveRow(-1),
};
const inTree = { ArrowDown: () => moveRow(1), ArrowUp: () => moveRow(-1), ArrowRight: () => goRight(currentRow()), ArrowLeft: () => goLeft(currentRow()), Enter: read };
const inDomains = { ArrowDown: () => moveDomain(1), ArrowUp: () => moveDomain(-1), j: () => moveDomain(1), k: () => moveDomain(-1), ArrowRight: focusRow, Enter: focusRow };

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const target = event.target, isOn = name => target.closest(name) !== null;
  let action;
  if (target.matches("input")) {
    if (event.key === "Escape" && target.id === "pattern") showPattern(currentRow()?.address ?? "");
    if (event.key === "Escape" || (event.key === "Enter" && target.id === "note")) action = focusRow;
    else if (target.id === "filter" && ["Enter", "ArrowDown"].includes(event.key)) action = () => chooseDomain(shownDomains()[0]?.domain ?? page.domain, "domains");
    else if (target.id === "pattern" && event.key === "Enter") action = () => $("verdicts").firstElementChild.focus();
  } else if (isOn("button, summary") && ["Enter", " "].includes(event.key)) return;
  else action = (isOn("#domains") && inDomains[event.key]) || (!isOn("#reading") && inTree[event.key]) || everywhere[event.key];
  if (!action) return;
  event.preventDefault();
  if (event.repeat && "mnuaz".includes(event.key)) return; // a key held down marks once
  enqueue(action);
});

$("rows").addEventListener("click", event => {
  const row = page.rows.find(one => rowName(one) === event.target.closest("[data-row]")?.dataset.row);
  if (!row) return;
  if (row.more) return attempt(() => showMoreRows(row));
  chooseRow(row.address, true);
  if (event.target.closest(".twist") && !row.leaf) attempt(() => (row.open ? close(row) : open(row)));
});
$("rows").addEventListener("dblclick", event => {
  const row = currentRow();
  if (row && !row.more && !row.leaf && !event.target.closest(".twist")) attempt(() => (row.open ? close(row) : open(row)));
});
$("domains").addEventListener("click", event => {
  const name = event.target.closest("[data-domain]")?.dataset.domain;
  if (name) attempt(() => chooseDomain(name, "domains"));
});
for (const button of $("verdicts").children) button.addEventListener("click", () => attempt(() => mark(button.dataset.verdict)));
$("filter").addEventListener("input", () => ((page.shownDomains = MORE_DOMAINS), renderDomains()));
$("pattern").addEventListener("input", editPattern);
$("next-suggestion").addEventListener("click", () => attempt(nextSuggestion));
$("more-samples").addEventListener("click", () => attempt(() => loadSamples(true)));
$("export").addEventListener("click", () => attempt(exportMarks));
$("who").addEventListener("click", () => attempt(() => askName(true)));
$("help").addEventListener("click", () => $("help-dialog").showModal());
$("copy-command").addEventListener("click", () => attempt(async () => (await navigator.clipboard.writeText($("export-command").textContent), say("command copied"))));

setName(localStorage.getItem("user") || document.body.dataset.user);
enqueue(async () => {
  await loadOverview();
  const wanted = decodeURIComponent(location.hash.slice(1)), known = page.domains.some(domain => domain.domain === wanted);
  if (page.domains.length) await chooseDomain(known ? wanted : page.domains[0].domain, "tree");
  setTimeout(poll, 1000 * POLL_SECONDS);
  if (!page.user) await askName();
});
