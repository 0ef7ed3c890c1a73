// The page of dsmath.evaluation.page: filters and shows the solutions. No text becomes markup: nodes are made one by one.
"use strict";
const $ = id => document.getElementById(id);
const { formulas, questions, titles, modes, reasons } = JSON.parse($("data").textContent);
const PER_PAGE = 25;
const MATHML = "http://www.w3.org/1998/Math/MathML";

// ------------------------------------------------------------------------------------------------ nodes
function make(name, content = "", className = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...(Array.isArray(content) ? content : [content]));
  return node;
}

function makeFormula([name, attributes, ...children]) {
  const node = document.createElementNS(MATHML, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.map(child => (typeof child === "string" ? child : makeFormula(child))));
  return node;
}

function makePart(part) { // of a text: plain, code, or the number of a formula
  if (typeof part === "string") return part;
  if (typeof part === "object") {
    const code = make("pre", make("code", part.code));
    if (part.language) code.dataset.language = part.language;
    return code;
  }
  return makeFormula(formulas[part][1]);
}

function makeText(name, parts, className, language) {
  const node = make(name, parts.map(makePart), className);
  if (language) node.lang = language;
  return node;
}

const plain = parts =>
  parts.map(part => (typeof part === "string" ? part : typeof part === "object" ? part.code : formulas[part][0])).join("");

const number = value => value.toLocaleString("en");
const titleOf = benchmark => titles[benchmark] ?? benchmark;
const modeOf = mode => modes[mode] ?? mode;
const verdict = solution => `${solution.correct ? "✓" : "✗"} ${reasons[solution.reason] ?? solution.reason}`;
const colour = solution => (solution.correct ? "right" : "wrong");

// ------------------------------------------------------------------------------------------------ a question
function makeQuestion(question) {
  const [first] = question.solutions;
  const answer = first.answer ? first.answer.map(makePart) : ["–"];
  const summary = make("summary", [
    make("span", verdict(first), `outcome ${colour(first)}`),
    make("span", `${titleOf(question.benchmark)}, ${modeOf(question.mode)}`, "about"),
    makeText("span", question.question.map(part => part.code ?? part), "asked", question.language),
    ...(question.runs ? [] : [labelled(question.gold.map(makePart), "gold"), labelled(answer, "answer")]),
  ]);
  const node = make("details", summary, "question");
  node.addEventListener("toggle", () => node.open && node.childElementCount === 1 && node.append(makeOpened(question)));
  return node;
}

function labelled(content, label) {
  const node = make("span", content, `short ${label}`);
  node.dataset.label = label;
  return node;
}

function makeOpened(question) {
  const facts = make("dl");
  const add = (name, content) => facts.append(make("dt", name), make("dd", content));
  if (!question.runs) add("gold", question.gold.length ? question.gold.map(makePart) : "–");
  const place = [question.subject, question.level].filter(Boolean).join(", ");
  if (place) add("subject", place);
  add("problem", [titleOf(question.benchmark), " ", make("code", question.id), `, ${modeOf(question.mode)}`]);
  if (question.samples) {
    add("samples", `${number(question.right)} of ${number(question.samples)} right`);
    const votes = question.votes.map(([answer, count, right]) =>
      make("span", [make("span", right ? "✓ " : "✗ ", right ? "right" : "wrong"), ...answer.map(makePart), ` × ${count}`], "vote"));
    if (question.others) votes.push(make("span", `${question.others} other answers`, "vote"));
    if (question.silent) votes.push(make("span", `no answer × ${question.silent}`, "vote"));
    if (!question.runs) add("answers", votes);
  }
  const texts = question.solutions.map(solution => makeSolution(solution, question));
  return make("div", [makeText("div", question.question, "text", question.language), facts, ...texts], "opened");
}

function makeSolution(solution, { language, runs }) {
  const cells = [
    make("b", solution.sample === null ? "greedy" : `sample ${solution.sample}`),
    make("b", verdict(solution), colour(solution)),
  ];
  if (!runs) cells.push(make("span", ["answer ", ...(solution.answer ? solution.answer.map(makePart) : ["–"])]));
  if (solution.paper) {
    const { correct, answer } = solution.paper;
    const differs = correct !== solution.correct;
    cells.push(make("span", [
      "paper’s grader: ", differs ? make("b", correct ? "✓ right" : "✗ not right", correct ? "right" : "wrong") : "the same",
      ...(answer && differs ? [", answer ", ...answer.map(makePart)] : []),
    ]));
  }
  cells.push(make("span", `${number(solution.tokens)} tokens${solution.truncated ? ", truncated" : ""}`));
  if (solution.seconds >= 0.5) cells.push(make("span", `judged in ${solution.seconds} s`));
  const parts = [make("h4", cells), makeText("div", solution.text, "text", language)];
  if (solution.detail) parts.push(make("p", solution.detail, "detail"));
  return make("article", parts, solution.correct ? "" : "not");
}

// ------------------------------------------------------------------------------------------------ search and pages
let found = questions, start = 0;

const words = question => (question.words ??= [
  question.id, question.subject, question.level, plain(question.question), plain(question.gold),
  ...question.solutions.flatMap(each => [plain(each.text), plain(each.answer ?? []), each.detail]),
].join("\n").toLowerCase());

function filter() {
  const wanted = $("search").value.trim().toLowerCase();
  const [benchmark, mode, mark] = ["benchmark", "mode", "mark"].map(id => $(id).value);
  found = questions.filter(question =>
    (!benchmark || question.benchmark === benchmark) && (!mode || question.mode === mode) &&
    (!mark || question.marks.includes(mark)) && (!wanted || words(question).includes(wanted)));
  show(0);
}

function show(from) {
  start = from;
  const end = Math.min(start + PER_PAGE, found.length);
  $("list").replaceChildren(...found.slice(start, end).map(makeQuestion));
  $("count").textContent = found.length
    ? `${number(found.length)} of ${number(questions.length)} questions` : "No question is like that: widen the search.";
  $("pager").hidden = found.length <= PER_PAGE;
  $("place").textContent = `${number(start + 1)}–${number(end)} of ${number(found.length)}`;
  $("earlier").disabled = start === 0;
  $("later").disabled = end === found.length;
}

function turn(by) {
  show(start + by);
  $("solutions").scrollIntoView();
  $("list").querySelector("summary")?.focus({ preventScroll: true });
}

if (questions.length) {
  for (const [id, field, nameOf] of [["benchmark", "benchmark", titleOf], ["mode", "mode", modeOf]]) {
    for (const value of new Set(questions.map(question => question[field]))) $(id).add(new Option(nameOf(value), value));
    $(id).addEventListener("change", filter);
  }
  $("mark").addEventListener("change", filter);
  $("search").addEventListener("input", filter);
  $("controls").addEventListener("submit", event => event.preventDefault());
  $("earlier").addEventListener("click", () => turn(-PER_PAGE));
  $("later").addEventListener("click", () => turn(PER_PAGE));
  $("controls").hidden = false;
  filter();
}
