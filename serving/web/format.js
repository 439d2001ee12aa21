// Numbers and times as people of the chosen language write them.

import { language } from "./words.js";

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

export const signed = (value, digits = 3) =>
  known(value)
    ? minus(
        new Intl.NumberFormat(language(), {
          signDisplay: "exceptZero",
          maximumSignificantDigits: digits,
        }).format(value),
      )
    : NONE;

export const interval = (low, high) =>
  known(low) && known(high) ? `${signed(low)} … ${signed(high)}` : NONE;

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
