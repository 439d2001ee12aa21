// The confidence sequence of one arm as SVG: the interval that holds at every look, look by look.

import { el, svg, table } from "./dom.js";
import { difference, metricName, percent, whole } from "./format.js";
import { t } from "./words.js";

const NARROW = matchMedia("(max-width: 36rem)").matches;
const WIDE = NARROW ? 400 : 760;
const HIGH = NARROW ? 260 : 280;
const EDGE = { left: 78, right: 16, top: 14, bottom: 42 };
const MOST_ROWS = 12;

/** A figure with its title, description and a table of the same numbers. */
export function sequenceFigure({ metric, arm, place, control, points, margin, direction, level }) {
  const title = t("sequence", { metric: metricName(metric) });
  const about = t("sequence_about", { arm, control, level: percent(level, 2) });
  const seen = points.filter((point) => [point.n, point.estimate, point.low, point.high].every(Number.isFinite));
  if (seen.length === 0) return el("p", { class: "empty small" }, t("sequence_empty"));
  const readout = el("p", { class: "readout" }, described(metric, seen.at(-1)));
  return el(
    "figure",
    { class: `sequence arm-${Math.max(1, place) % 6}` },
    el("figcaption", {}, el("strong", {}, arm), " ", el("span", { class: "muted" }, about)),
    drawing(seen, { metric, title, about, margin: direction === "decrease" ? margin : -margin, readout }),
    readout,
    el("details", {}, el("summary", {}, t("as_table")), numbers(metric, title, seen)),
  );
}

function drawing(points, { metric, title, about, margin, readout }) {
  const across = scaleAcross(points);
  const [lowest, highest] = domain(points, margin);
  const up = (value) =>
    EDGE.top + ((highest - value) / (highest - lowest)) * (HIGH - EDGE.top - EDGE.bottom);
  const clamp = (value) => up(Math.min(highest, Math.max(lowest, value)));
  const marker = svg("line", { class: "marker", y1: EDGE.top, y2: HIGH - EDGE.bottom, hidden: true });
  const dot = svg("circle", { class: "dot", r: 4.5, cx: across(points.at(-1).n), cy: clamp(points.at(-1).estimate) });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${title}. ${about} ${readout.textContent}` },
    svg("title", {}, title),
    ...grid(metric, lowest, highest, up),
    ...ticksAcross(points, across),
    svg("path", { class: "band", d: band(points, across, clamp) }),
    svg("line", { class: "zero", x1: EDGE.left, x2: WIDE - EDGE.right, y1: clamp(0), y2: clamp(0) }),
    margin !== 0 && svg("line", { class: "margin", x1: EDGE.left, x2: WIDE - EDGE.right, y1: clamp(margin), y2: clamp(margin) }),
    margin !== 0 && svg("text", { class: "margin-name", x: WIDE - EDGE.right - 4, y: clamp(margin) + (margin < 0 ? 14 : -6), "text-anchor": "end" }, t("accepted_loss")),
    svg("path", { class: "line", d: path(points.map((point) => [across(point.n), clamp(point.estimate)])) }),
    marker,
    dot,
    svg("text", { class: "axis-name", x: (WIDE + EDGE.left) / 2, y: HIGH - 6, "text-anchor": "middle" }, t("units_axis")),
  );
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDE;
    const near = points.reduce((best, point) => (Math.abs(across(point.n) - x) < Math.abs(across(best.n) - x) ? point : best));
    marker.removeAttribute("hidden");
    for (const end of ["x1", "x2"]) marker.setAttribute(end, across(near.n));
    dot.setAttribute("cx", across(near.n));
    dot.setAttribute("cy", clamp(near.estimate));
    readout.textContent = described(metric, near);
  });
  return picture;
}

const described = (metric, point) =>
  t("after_units", {
    units: whole(point.n),
    estimate: difference(metric, point.estimate),
    low: difference(metric, point.low),
    high: difference(metric, point.high),
  });

// Looks are even on a logarithmic scale, and so is the axis.
function scaleAcross(points) {
  const [first, last] = [Math.log(Math.max(1, points[0].n)), Math.log(Math.max(2, points.at(-1).n))];
  const room = WIDE - EDGE.left - EDGE.right;
  return (n) => EDGE.left + (last > first ? ((Math.log(Math.max(1, n)) - first) / (last - first)) * room : room / 2);
}

// The first intervals are so wide that they would flatten the rest, so the second half sets the scale.
function domain(points, margin) {
  const later = points.slice(Math.floor(points.length / 2));
  const ends = [0, margin, ...later.flatMap((point) => [point.low, point.high])];
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const pad = (high - low || 0.01) * 0.12;
  return [low - pad, high + pad];
}

function grid(metric, lowest, highest, up) {
  const step = niceStep((highest - lowest) / 4);
  const lines = [];
  for (let value = Math.ceil(lowest / step) * step; value <= highest; value += step) {
    const shown = Math.abs(value) < step / 1000 ? 0 : value;
    lines.push(
      svg("line", { class: "grid", x1: EDGE.left, x2: WIDE - EDGE.right, y1: up(value), y2: up(value) }),
      svg("text", { class: "tick", x: EDGE.left - 8, y: up(value) + 4, "text-anchor": "end" }, difference(metric, shown)),
    );
  }
  return lines;
}

function ticksAcross(points, across) {
  const [first, last] = [points[0].n, points.at(-1).n];
  const marks = [];
  for (let ten = 1; ten <= last; ten *= 10) for (const times of [1, 2, 5]) if (ten * times >= first && ten * times <= last) marks.push(ten * times);
  if (marks.length < 2) marks.splice(0, marks.length, first, last);
  let free = -Infinity;
  return marks.flatMap((n) => {
    const x = across(n);
    if (x - free < 56) return [];
    free = x;
    return [svg("text", { class: "tick", x, y: HIGH - EDGE.bottom + 18, "text-anchor": "middle" }, whole(n))];
  });
}

function niceStep(rough) {
  const ten = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((times) => times * ten).find((step) => step >= rough);
}

const path = (places) => `M${places.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L")}`;

function band(points, across, clamp) {
  const above = points.map((point) => [across(point.n), clamp(point.high)]);
  const below = points.map((point) => [across(point.n), clamp(point.low)]).reverse();
  return `${path([...above, ...below])}Z`;
}

function numbers(metric, title, points) {
  const every = Math.max(1, Math.ceil(points.length / MOST_ROWS));
  const shown = points.filter((_, place) => (points.length - 1 - place) % every === 0);
  return table(
    title,
    [t("units"), t("estimate"), t("low"), t("high")],
    shown.map(({ n, ...ends }) => [whole(n), ...["estimate", "low", "high"].map((end) => difference(metric, ends[end]))]),
    { numeric: [0, 1, 2, 3] },
  );
}

/** A bar from low to high around zero; all of one metric table have a scale of their own. */
export function intervalBar({ low, high, difference: middle, margin, direction, reading }) {
  if (![low, high].every(Number.isFinite)) return null;
  const loss = direction === "decrease" ? margin : -margin;
  const reach = Math.max(Math.abs(low), Math.abs(high), Math.abs(loss)) * 1.15 || 1;
  const x = (value) => 80 + (value / reach) * 76;
  return svg(
    "svg",
    { class: `bar ${reading}`, viewBox: "0 0 160 22", "aria-hidden": "true" },
    svg("line", { class: "zero", x1: 80, x2: 80, y1: 2, y2: 20 }),
    loss !== 0 && svg("line", { class: "margin", x1: x(loss), x2: x(loss), y1: 2, y2: 20 }),
    svg("line", { class: "reach", x1: x(low), x2: x(high), y1: 11, y2: 11 }),
    Number.isFinite(middle) && svg("circle", { class: "point", cx: x(middle), cy: 11, r: 4 }),
  );
}
