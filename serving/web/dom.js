// Elements from plain values. Whatever a person or a model wrote becomes a text node, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: functions become listeners (onclick), false and null leave a thing out. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element, likewise. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A table from a caption, column titles and rows of cells; the first cell of a row names it. */
export function table(caption, titles, rows, { numeric = [] } = {}) {
  const side = (place) => (numeric.includes(place) ? { class: "number" } : {});
  return el(
    "div",
    { class: "table-frame", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, ...titles.map((title, place) => el("th", { scope: "col", ...side(place) }, title)))),
      el(
        "tbody",
        {},
        ...rows.map((cells) =>
          el(
            "tr",
            {},
            ...cells.map((cell, place) =>
              place === 0
                ? el("th", { scope: "row", ...side(0) }, cell)
                : el("td", { "data-title": titles[place], ...side(place) }, cell),
            ),
          ),
        ),
      ),
    ),
  );
}

/** Puts children in a container, but only where what they show has changed. */
export function refresh(container, shown, make) {
  const mark = JSON.stringify(shown);
  if (container.dataset.shown === mark) return;
  container.replaceChildren(...[make()].flat(Infinity).filter((child) => child));
  container.dataset.shown = mark;
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}
