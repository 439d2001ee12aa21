// All experiments: what each asks, where it stands, and what its arms have answered.

import { el } from "./dom.js";
import { ago, percent, whole } from "./format.js";
import { t } from "./words.js";

/** The list, or how to make the first one. */
export function listView(experiments) {
  if (experiments.length === 0) {
    return el("div", { class: "empty" }, el("h2", {}, t("none")), el("p", {}, t("none_how")));
  }
  return el("ul", { class: "cards" }, ...experiments.map(card));
}

/** A state in a word and a colour. */
export const stateBadge = (state) => el("span", { class: `badge ${state}` }, t(`state_${state}`));

/** Who has which share, as one bar; the legend says the same in words. */
export function shareBar(arms) {
  const dealt = arms.filter((arm) => arm.share > 0);
  if (dealt.length === 0) return null;
  const bar = el("div", { class: "shares", "aria-hidden": "true" });
  for (const arm of dealt) {
    const part = el("span", { class: `part arm-${arms.indexOf(arm) % 6}` });
    part.style.flexGrow = arm.share; // set as a property: the page's policy forbids style attributes
    bar.append(part);
  }
  return bar;
}

function card(experiment) {
  const { name, state, hypothesis, phase, arms, answered_by: forced } = experiment;
  return el(
    "li",
    { class: "card" },
    el(
      "div",
      { class: "card-head" },
      el("h2", {}, el("a", { href: `#/${encodeURIComponent(name)}` }, name)),
      stateBadge(state),
    ),
    el("p", { class: "hypothesis" }, hypothesis),
    shareBar(arms),
    el("ul", { class: "legend" }, ...arms.map(legendItem)),
    forced && el("p", { class: "small" }, t("forced", { arm: forced })),
    el(
      "p",
      { class: "muted small" },
      [phase ? t(`kind_${phase.kind}`) : t("no_phase"), experiment.owner, lastOf(experiment)].join(" · "),
    ),
  );
}

function legendItem(arm, place) {
  return el(
    "li",
    {},
    el("span", { class: `key arm-${place % 6}`, "aria-hidden": "true" }),
    el("span", {}, arm.name),
    el("span", { class: "muted" }, arm.share === null ? "" : percent(arm.share)),
    el("span", { class: "muted" }, arm.share === null ? "" : `${t("units")} ${whole(arm.units)}`),
  );
}

function lastOf({ last_event: last }) {
  return last ? t("last", { action: t(`action_${last.action}`), ago: ago(last.at) }) : t("nothing_done");
}
