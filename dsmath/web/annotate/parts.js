// Small parts of the page: elements, numbers, questions to the server.
// What comes from the crawl is set as text. The one exception is a sample, which the server has escaped and typeset:
// `setTypeset` is the only door for HTML, and the security policy knows no other.

const policy = window.trustedTypes?.createPolicy("typeset", { createHTML: html => html }) ?? { createHTML: html => html };

export const $ = id => document.getElementById(id);

export function setTypeset(element, html) {
  element.innerHTML = policy.createHTML(html);
}

export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "width" || key === "level") element.style.setProperty(`--${key}`, value);
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

export const exact = new Intl.NumberFormat("en"), compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
export const count = value => (Math.abs(value) < 10000 ? exact.format(Math.round(value)) : compact.format(value));
export const gainOf = value => (Math.abs(value) < 9.95 ? value.toFixed(1) : count(value));
export const signed = value => (value > 0 ? `+${count(value)}` : value < 0 ? `−${count(-value)}` : "±0");
export const plural = (value, one) => `${count(value)} ${one}${value === 1 ? "" : "s"}`;
export const percent = share => `${(100 * share).toFixed(share && share < 0.1 ? 1 : 0)} %`;

export function ago(time) {
  const minutes = Math.round((Date.now() - Date.parse(time)) / 60000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min ago`;
  return minutes < 36 * 60 ? `${Math.round(minutes / 60)} h ago` : time.slice(0, 10);
}

export async function call(path, { query, body } = {}) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(`/api/${path}${query ? `?${new URLSearchParams(query)}` : ""}`, options);
  } catch {
    throw new Error("the server does not answer: start experiments.annotate again; every mark shown here is saved");
  }
  const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}
