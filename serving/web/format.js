// Numbers and times as people of the chosen language write them.

import { WORDS, language, t } from "./words.js";

const NONE = "–";
const minus = (text) => text.replace("-", "−"); // as wide as a plus
const known = (value) => typeof value === "number" && Number.isFinite(value);

export const whole = (value) =>
  known(value) ? new Intl.NumberFormat(language()).format(value) : NONE;

export const percent = (share, digits = 1) =>
  known(share)
    ? new Intl.NumberFormat(language(), { style: "percent", maximumFractionDigits: digits }).format(share)
    : NONE;

/** Four figures that matter, so that shares, milliseconds and costs all read well. */
export const figure = (value) =>
  known(value)
    ? minus(new Intl.NumberFormat(language(), { maximumSignificantDigits: 4 }).format(value))
    : NONE;

/** A probability; what is too small to matter is not spelled out. */
export const probability = (value) =>
  known(value) && value < 0.0001 ? "< 0.0001" : known(value) ? figure(Number(value.toFixed(4))) : NONE;

const SHARES = new Set(["sentiment_accuracy", "error_rate", "degraded_rate"]);

/** A metric's name for people; one that is fed back is called as its owner calls it. */
export function metricName(name, quantile = null) {
  const key = `metric_${name}`;
  const said = key in WORDS.en ? t(key) : name;
  return quantile === null ? said : `${said} p${figure(quantile * 100)}`;
}

/** A metric's value in its own unit: shares in percent, latency in milliseconds. */
export function inUnit(metric, value) {
  if (!known(value)) return NONE;
  if (SHARES.has(metric)) return percent(value, 2);
  return metric === "latency_ms" ? `${figure(value)} ms` : figure(value);
}

/** A difference of values, with its sign: of shares in points. */
export function difference(metric, value) {
  if (!known(value)) return NONE;
  const [times, unit] = SHARES.has(metric) ? [100, " %p"] : [1, metric === "latency_ms" ? " ms" : ""];
  const number = new Intl.NumberFormat(language(), { signDisplay: "exceptZero", maximumSignificantDigits: 3 });
  return minus(number.format(value * times)) + unit;
}

export const interval = (metric, low, high) =>
  known(low) && known(high) ? `${difference(metric, low)} … ${difference(metric, high)}` : NONE;

export const time = (text) => {
  const at = new Date(text);
  return Number.isNaN(at.getTime())
    ? NONE
    : new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "short" }).format(at);
};

const STEPS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

/** How long ago, roughly. */
export const ago = (text, now = Date.now()) => {
  const seconds = (new Date(text).getTime() - now) / 1000;
  if (!Number.isFinite(seconds)) return NONE;
  const [unit, length] = STEPS.find(([, each]) => Math.abs(seconds) >= each) ?? STEPS.at(-1);
  const relative = new Intl.RelativeTimeFormat(language(), { numeric: "auto" });
  return relative.format(Math.round(seconds / length), unit);
};
