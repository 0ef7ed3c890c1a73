// The lineage: columns of runs, from the corpus to the evaluations, and lines from parents to children.

import { el, figure, plural, svg } from "/parts.js";

const WIDTH = 164, HEIGHT = 46, ACROSS = 190, DOWN = 56, MARGIN = 12; // pixels, as in page.css

// runs: by name; chosen: a Set of names; choose: (names, whether) is called when a person chooses a node; room: pixels
// across, to which a graph that is a little wider is shrunk.
export function drawGraph(graph, runs, chosen, choose, room) {
  if (!graph.nodes.length) return [el("p", { className: "empty" }, "No run here has a lineage yet.")];
  const places = new Map(graph.nodes.map(node => [node.id, { x: MARGIN + ACROSS * node.column, y: MARGIN + DOWN * node.row, column: node.column }]));
  const width = MARGIN * 2 + WIDTH + ACROSS * Math.max(...graph.nodes.map(node => node.column));
  const height = MARGIN * 2 + HEIGHT + DOWN * (Math.max(...graph.nodes.map(node => node.row)) + 0.4);
  const near = relatives(graph, chosen);
  const lines = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  for (const edge of graph.edges) {
    const from = places.get(edge.from), to = places.get(edge.to);
    const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2], bend = Math.max((x2 - x1) / 2, 12);
    const sag = to.column - from.column > 1 && from.y === to.y ? 50 : 0; // below the nodes between them
    const line = svg("path", { d: `M${x1},${y1} C${x1 + bend},${y1 + sag} ${x2 - bend},${y2 + sag} ${x2},${y2}`, class: near && !(near.has(edge.from) && near.has(edge.to)) ? "far" : "" });
    line.append(svg("title", {}, `${edge.roles.join(", ")}${edge.step === null ? "" : `, step ${edge.step}`}`));
    lines.append(line);
  }
  const nodes = graph.nodes.map(node => drawNode(node, places.get(node.id), runs, chosen, choose, near && !near.has(node.id)));
  return [el("div", { className: "graph", "--zoom": Math.min(Math.max(room / width, 0.78), 1), "--width": `${width}px`, "--height": `${height}px` }, lines, ...nodes)];
}

function drawNode(node, place, runs, chosen, choose, far) {
  const there = node.runs.map(name => runs.get(name)).filter(Boolean), first = there[0], where = { "--x": `${place.x}px`, "--y": `${place.y}px` };
  if (!first) {
    return el("div", { className: `node elsewhere${far ? " far" : ""}`, title: node.id, ...where },
      el("b", {}, node.label || node.id), el("span", {}, "not in this folder"));
  }
  const pressed = there.every(run => chosen.has(run.name));
  const label = there.length > 1 ? plural(there.length, node.stage === "evaluate" ? "evaluation" : `${node.stage || "other"} run`) : node.label === "." ? "this folder" : node.label;
  const worst = ["failed", "stalled", "running", "stopped", "finished"].find(status => there.some(run => run.status === status));
  return el("button", {
    type: "button", className: `node${far ? " far" : ""}`, "aria-pressed": String(pressed), "data-node": node.id, title: there.map(run => run.name).join("\n"),
    onclick: () => choose(there.map(run => run.name), !pressed), ...where,
  }, el("b", {}, label), el("span", {}, el("i", { className: `dot ${worst}` }), `${node.stage || "other"}${worst === "finished" ? "" : ` · ${worst}`}`, el("em", {}, headline(there))));
}

// The one figure that tells most of a stage's result.
export function headline(there) {
  if (there.length > 1) return "";
  const result = new Map(there[0].result);
  for (const name of ["accuracy", "reward", "loss"]) {
    if (result.has(name)) return `${name} ${figure(result.get(name))}`;
  }
  return "";
}

// What stands before and after the chosen runs; null where none is chosen.
function relatives(graph, chosen) {
  const start = graph.nodes.filter(node => node.runs.some(name => chosen.has(name))).map(node => node.id);
  if (!start.length) return null;
  const found = new Set(start);
  for (const [here, there] of [["from", "to"], ["to", "from"]]) {
    const next = new Map();
    for (const edge of graph.edges) next.set(edge[here], [...(next.get(edge[here]) ?? []), edge[there]]);
    const reached = new Set(start), waiting = [...start];
    while (waiting.length) {
      for (const id of next.get(waiting.pop()) ?? []) {
        if (!reached.has(id)) { reached.add(id); found.add(id); waiting.push(id); }
      }
    }
  }
  return found;
}
