// The page of dsmath.rl.page: sorts, filters and colours what stands in it. No text becomes markup: nodes are made one by one.
"use strict";
const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const LEAST = 10, FULL = 65; // per cent of its hue that a value has: signs show, and the text stays readable on it
const COMMON = 0.95; // share of the values up to the one that has full colour: a rare one must not bleach the rest

// ------------------------------------------------------------------------------------------------ quantities of tokens
const of = (values, place) => (Array.isArray(values) ? values[place] : values); // one number may stand for all tokens
const QUANTITIES = {
  advantages: { title: "advantage", of: (sample, place) => of(sample.advantages, place) },
  coefficients: { title: "gradient coefficient", of: (sample, place) => of(sample.coefficients, place) },
  ref_logprobs: {
    title: "log-ratio to the reference",
    of: (sample, place) => of(sample.logprobs, place) - of(sample.ref_logprobs, place),
  },
};
const known = Object.keys(QUANTITIES).filter(name => data.some(sample => name in sample));
for (const name of known) {
  const sizes = [];
  for (const sample of data.filter(each => name in each)) {
    const tool = new Set(sample.tool);
    for (let place = 0; place < sample.pieces.length; place++) {
      const size = Math.abs(QUANTITIES[name].of(sample, place));
      if (size > 0 && !tool.has(place)) sizes.push(size);
    }
  }
  QUANTITIES[name].scale = Float64Array.from(sizes).sort()[Math.floor(COMMON * (sizes.length - 1))] ?? 0;
}

const number = value => (Number.isFinite(value) ? value.toFixed(3).replace("-", "−") : "–");
const signed = value => (value > 0 ? "+" : "") + number(value);

function describe(sample, place) {
  if (sample.tool?.includes(place)) return "a tool's output: not trained";
  const parts = [`advantage ${signed(of(sample.advantages, place))}`];
  if ("coefficients" in sample) parts.push(`coefficient ${signed(of(sample.coefficients, place))}`);
  parts.push(`log-probability ${number(of(sample.logprobs, place))}`);
  if ("ref_logprobs" in sample) parts.push(`reference's ${number(of(sample.ref_logprobs, place))}`);
  return parts.join(" · ");
}

// ------------------------------------------------------------------------------------------------ a completion
function cut(text) { // its text into a span for each token
  const sample = data[text.dataset.sample], whole = text.textContent;
  const rewards = new Map((sample.step_ends ?? []).map((end, step) => [end, sample.step_rewards[step]]));
  let start = 0;
  text.replaceChildren();
  sample.pieces.forEach((length, place) => {
    const span = document.createElement("span");
    span.textContent = whole.slice(start, start + length);
    span.title = describe(sample, place);
    start += length;
    if (!length) span.classList.add("part-of-character");
    text.append(span);
    if (rewards.has(place)) {
      const mark = document.createElement("small");
      mark.className = "judged";
      mark.textContent = number(rewards.get(place));
      mark.title = "reward of the step that ends here";
      text.append(mark);
    }
  });
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", "Completion; the arrow keys read its tokens");
  text.spans = [...text.querySelectorAll("span")];
}

function colour(text) {
  const sample = data[text.dataset.sample], name = $("quantity").value, { of: valueOf, scale } = QUANTITIES[name];
  const tool = new Set(sample.tool);
  text.spans.forEach((span, place) => {
    const isTool = tool.has(place), value = name in sample && !isTool ? valueOf(sample, place) : 0;
    span.classList.toggle("tool", isTool);
    span.classList.toggle("up", value > 0);
    span.classList.toggle("down", value < 0);
    span.style.setProperty("--heat", `${LEAST + (FULL - LEAST) * Math.min(Math.abs(value) / scale, 1)}%`);
  });
}

function read(text, place) { // tells of one token
  document.querySelector(".at")?.classList.remove("at");
  const span = text.spans[place];
  text.dataset.at = place;
  span.classList.add("at");
  $("reading").textContent = `token ${place + 1} of ${text.spans.length}, “${span.textContent}”: ${span.title}`;
}

function paint(question) {
  for (const text of question.querySelectorAll(".text")) {
    if (!text.spans) cut(text);
    colour(text);
  }
}

$("questions")?.addEventListener("toggle", event => {
  if (event.target.matches(".question[open]")) paint(event.target);
}, true);
$("questions")?.addEventListener("click", event => {
  const span = event.target.closest(".text > span");
  if (span) read(span.parentNode, span.parentNode.spans.indexOf(span));
});
$("questions")?.addEventListener("keydown", event => {
  const text = event.target;
  if (!text.spans || event.ctrlKey || event.altKey || event.metaKey) return;
  const at = Number(text.dataset.at ?? -1), last = text.spans.length - 1;
  const to = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
  if (to === undefined || last < 0) return;
  event.preventDefault();
  read(text, to);
});

// ------------------------------------------------------------------------------------------------ sorting and filtering
const questions = [...document.querySelectorAll(".question")];

function filter() {
  const wanted = $("search").value.trim().toLowerCase(), kind = $("kind").value;
  let shown = 0;
  for (const question of questions) {
    const hits = !wanted || (question.words ??= `${question.dataset.gold}\n${question.textContent}`.toLowerCase()).includes(wanted);
    question.hidden = !(hits && (!kind || question.dataset.kinds.split(" ").includes(kind)));
    shown += !question.hidden;
  }
  $("count").textContent = `${shown} of ${questions.length} questions`;
}

function sort(button) {
  const { by, order } = button.dataset, next = order === "1" ? -1 : 1;
  for (const other of $("columns").children) other.removeAttribute("data-order");
  button.dataset.order = next;
  const keyOf = question => (by === "question" ? question.querySelector(".asked").textContent : question.dataset[by]);
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const isText = by === "question" || by === "gold";
  const sorted = [...questions].sort((a, b) =>
    next * (isText ? compare(keyOf(a), keyOf(b)) : Number(keyOf(a)) - Number(keyOf(b))));
  $("questions").append(...sorted);
}

function choose() { // the quantity that colours the tokens
  const { title, scale } = QUANTITIES[$("quantity").value];
  $("least").textContent = `≤ ${number(-scale)}`;
  $("most").textContent = `≥ +${number(scale)}`;
  $("key").setAttribute("aria-label", `${title}: orange below zero, blue above, full from ${number(scale)} on`);
  questions.filter(question => question.open).forEach(paint);
}

if (questions.length) {
  for (const name of known) $("quantity").add(new Option(QUANTITIES[name].title, name));
  $("controls").hidden = $("columns").hidden = false;
  $("search").addEventListener("input", filter);
  $("kind").addEventListener("change", filter);
  $("quantity").addEventListener("change", choose);
  for (const button of $("columns").children) button.addEventListener("click", () => sort(button));
  filter();
  choose();
}
