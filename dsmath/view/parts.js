// Small parts of the page: elements, numbers, questions to the server. What comes from files is set as text, never as HTML.

export const $ = id => document.getElementById(id);

export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  fill(element, properties);
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== ""));
  return element;
}

export function svg(name, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function fill(element, properties) {
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("--")) element.style.setProperty(key, value);
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
}

// Puts new children into an element only where they differ, so that what a person reads or holds is left alone.
export function replace(element, children) {
  const fresh = document.createElement(element.tagName);
  fresh.append(...children);
  if (fresh.isEqualNode(element)) return;
  const same = fresh.children.length === element.children.length && children.length === fresh.children.length;
  if (!same) return void element.replaceChildren(...fresh.childNodes);
  [...fresh.children].forEach((child, place) => {
    const old = element.children[place];
    if (old && !child.isEqualNode(old)) old.replaceWith(child);
  });
}

const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = value => exact.format(value);
export function figure(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return count(value);
  const size = Math.abs(value);
  return size >= 1000 ? count(value) : size < 0.001 && size > 0 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}
export const plural = (value, one) => `${count(value)} ${one}${value === 1 ? "" : "s"}`;

export function ago(seconds) {
  const minutes = Math.round((Date.now() / 1000 - seconds) / 60);
  if (minutes < 1) return "now";
  if (minutes < 90) return `${minutes} min ago`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h ago` : new Date(seconds * 1000).toISOString().slice(0, 10);
}

export async function call(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, values] of Object.entries(query)) for (const value of [values].flat()) search.append(name, value);
  let response;
  try {
    response = await fetch(`/api/${path}?${search}`);
  } catch {
    throw new Error("the server does not answer: start experiments.view again");
  }
  const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}
