// The curves, drawn by Plotly: one plot a metric, the chosen runs overlaid, each in its colour everywhere on the page.

import { $, el } from "/parts.js";

export const COLOURS = 8; // --run-0 … in page.css; then dashes tell the runs apart
const DASHES = ["solid", "dash", "dot"];
const AXES = { step: "step", tokens: "tokens", time: "hours of training" };
const CONFIG = { displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset" };

const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plain = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // Plotly knows some tags

// curves: of the server; slots: run -> number of its colour; labels: run -> short name.
export function drawPlots(metrics, curves, { axis, logarithmic, slots, labels }) {
  const holder = $("plots"), old = new Map([...holder.querySelectorAll("figure")].map(one => [one.dataset.metric, one]));
  const figures = metrics.map(metric => old.get(metric) ?? el("figure", { "data-metric": metric }, el("figcaption", {}, metric), el("div", { className: "plot" })));
  for (const [metric, one] of old) if (!metrics.includes(metric)) { Plotly.purge(one.lastElementChild); one.remove(); }
  if (figures.some((one, place) => holder.children[place] !== one)) holder.replaceChildren(...figures);
  metrics.forEach((metric, place) => {
    const here = curves.filter(curve => curve.metric === metric), figure = figures[place];
    const traces = here.map(curve => ({
      x: curve.x, y: curve.y, name: plain(labels.get(curve.run) ?? curve.run), mode: curve.x.length < 3 ? "lines+markers" : "lines", type: "scatter",
      line: { width: 1.7, color: ink(`--run-${slots.get(curve.run) % COLOURS}`), dash: DASHES[Math.floor(slots.get(curve.run) / COLOURS) % DASHES.length] },
    }));
    const lost = here.reduce((total, curve) => total + curve.not_finite, 0);
    figure.firstElementChild.replaceChildren(metric, lost ? el("span", { className: "quiet" }, ` ${lost} not finite, not drawn`) : "");
    figure.classList.toggle("empty-plot", !here.length);
    Plotly.react(figure.lastElementChild, traces, layout(axis, logarithmic), CONFIG);
  });
}

function layout(axis, logarithmic) {
  const line = { gridcolor: ink("--line"), zerolinecolor: ink("--line"), linecolor: ink("--line"), automargin: true };
  return {
    margin: { l: 48, r: 12, t: 6, b: 36 }, height: 250, showlegend: false, hovermode: "x", dragmode: "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink("--quiet"), size: 11, family: ink("--sans") },
    hoverlabel: { namelength: 32, font: { size: 11 } }, uirevision: `${axis} ${logarithmic}`, // a zoom stays while the run goes on
    xaxis: { ...line, title: { text: AXES[axis], standoff: 6 } }, yaxis: { ...line, type: logarithmic ? "log" : "linear" },
  };
}
