// One experiment: what is asked, who answers now, what was done. What it has shown is in report.js.

import { actionBar } from "./actions.js";
import { ApiError, readLedger } from "./api.js";
import { el, refresh, table } from "./dom.js";
import { ago, percent, time, whole } from "./format.js";
import { shareBar, stateBadge } from "./list.js";
import { language, meaning, t } from "./words.js";

const SECTIONS = ["head", "actions", "arms", "report", "history", "routes", "ledger"];

/** The frame of the page; parts are filled by showExperiment, and again where they change. */
export function experimentView() {
  return el(
    "article",
    { class: "experiment" },
    el("nav", {}, el("a", { class: "back", href: "#/" }, `← ${t("back")}`)),
    ...SECTIONS.map((name) => el("section", { "data-part": name })),
  );
}

/** Puts what the API says into the frame. */
export function showExperiment(view, one, acted) {
  const shown = (name, of, make) => refresh(part(view, name), [language(), of], make);
  const { history, may, arms, events, state } = one;
  shown("head", [one.answered_by, state, one.phase, one.version], () => head(one));
  shown("actions", [may, events, one.writable, one.opens_phases], () => actionBar(one, acted));
  shown("arms", [arms, one.phase, one.answered_by, one.promoted], () => liveArms(one));
  shown("history", history, () => timeline(history));
  shown("ledger", arms.map((arm) => arm.model), () => ledger(arms));
}

/** Puts the log of routes into the frame. */
export function showRoutes(view, routes) {
  refresh(part(view, "routes"), [language(), routes], () => [
    el("h2", {}, t("routes")),
    routes.length === 0
      ? el("p", { class: "muted" }, t("no_routes"))
      : [
          el("p", { class: "muted small" }, t("routes_about")),
          table(
            t("routes"),
            [t("time"), t("arm"), t("who"), t("reason")],
            routes.map((route) => [time(route.at), route.arm ?? t("as_dealt"), route.by, route.reason]),
          ),
        ],
  ]);
}

export const part = (view, name) => view.querySelector(`[data-part="${name}"]`);

function head(one) {
  const { phase } = one;
  return [
    el("div", { class: "title-row" }, el("h1", { tabindex: "-1" }, one.name), stateBadge(one.state)),
    el("p", { class: "hypothesis large" }, el("span", { class: "unseen" }, `${t("hypothesis")}: `), one.hypothesis),
    one.answered_by && el("p", { class: "banner" }, t("forced", { arm: one.answered_by })),
    el(
      "dl",
      { class: "facts" },
      fact(t("phase"), phase ? `${phase.number} · ${t(`kind_${phase.kind}`)}` : t("no_phase")),
      phase && fact(t("opened"), time(phase.opened_at), ago(phase.opened_at)),
      typeof phase?.coverage === "number" && phase.coverage < 1 && fact(t("covered"), t("coverage", { share: percent(phase.coverage) })),
      phase?.mirrored > 0 && fact(t("mirrored"), t("mirroring", { share: percent(phase.mirrored) })),
      fact(t("unit"), t(`unit_${one.unit}`)),
      fact(t("owner"), one.owner),
      fact(t("version"), one.version, ago(one.agreed_at)),
    ),
  ];
}

const fact = (name, value, more) =>
  el("div", {}, el("dt", {}, name), el("dd", {}, value, more && el("span", { class: "muted" }, ` ${more}`)));

function liveArms({ arms, answered_by: forced, promoted, phase }) {
  const titles = ["arm", "model", "share", "units", "answers", "failures"];
  return [
    el("h2", {}, t("arms")),
    shareBar(arms),
    table(
      t("arms"),
      titles.map((title) => t(title)),
      arms.map((arm, place) => [
        el(
          "span",
          { class: "arm" },
          el("span", { class: `key arm-${place % 6}`, "aria-hidden": "true" }),
          arm.name,
          arm.control && el("span", { class: "tag" }, t("control")),
          promoted === arm.name && el("span", { class: "tag good" }, t("winner")),
          forced === arm.name && el("span", { class: "tag wait" }, t("answers_all")),
        ),
        modelCell(arm),
        percent(arm.share),
        whole(arm.units),
        whole(arm.answers),
        el("span", { class: arm.failed > 0 ? "bad" : "" }, whole(arm.failed)),
      ]),
      { numeric: [2, 3, 4, 5] },
    ),
    phase?.kind === "shadow" && el("p", { class: "muted small" }, t("copies")),
  ];
}

function modelCell({ model, resolved }) {
  const now = resolved ? `${resolved.name} v${resolved.version}` : null;
  return el("span", { class: "model" }, el("span", {}, now ?? model), el("span", { class: "muted small" }, now ? model : t("unresolved")));
}

function timeline(history) {
  return [
    el("h2", {}, t("history")),
    history.length === 0
      ? el("p", { class: "muted" }, t("no_history"))
      : el("ol", { class: "timeline", reversed: true }, ...history.toReversed().map(done)),
  ];
}

function done(event) {
  const shares = Object.entries(event.allocation ?? {}).map(([arm, share]) => `${arm} ${percent(share)}`);
  const what = [t(`action_${event.action}`), event.arm, shares.join(", ")].filter(Boolean).join(" · ");
  return el(
    "li",
    { class: event.action },
    el("strong", {}, what),
    el("p", {}, event.reason),
    el("p", { class: "muted small" }, el("time", { datetime: event.at }, time(event.at)), ` · ${t("by", { by: event.by })}`),
  );
}

// Read when it is asked for: the registry's client takes seconds to load.
function ledger(arms) {
  const models = [...new Set(arms.map((arm) => arm.model.replace(/^models:\//, "").split(/[/@]/)[0]))];
  return [el("h2", {}, t("ledger")), ...models.map(ledgerOf)];
}

function ledgerOf(model) {
  const place = el("div", { "aria-live": "polite" }, el("p", { class: "muted small" }, t("ledger_slow")));
  let asked = false;
  const details = el("details", {}, el("summary", {}, t("ledger_read", { model })), place);
  details.addEventListener("toggle", async () => {
    if (!details.open || asked) return;
    asked = true;
    place.replaceChildren(el("p", { class: "muted" }, t("loading")));
    try {
      place.replaceChildren(...moves(await readLedger(model)));
    } catch (error) {
      asked = !(error instanceof ApiError); // opened again, it is asked again
      place.replaceChildren(el("p", { class: "problem" }, meaning(error)));
    }
  });
  return details;
}

function moves({ aliases, entries }) {
  if (entries.length === 0) return [el("p", { class: "muted" }, t("ledger_none"))];
  const now = Object.entries(aliases).map(([alias, version]) => `${alias} → v${version}`);
  return [
    el("p", {}, t("aliases_now", { aliases: now.join(", ") || t("nothing") })),
    table(
      t("ledger"),
      [t("time"), t("alias"), t("from"), t("to"), t("step"), t("reason")],
      entries.map((entry) => [
        time(entry.at),
        entry.alias,
        entry.from_version ?? t("nothing"),
        entry.to_version ?? t("nothing"),
        t(entry.phase),
        entry.reason,
      ]),
    ),
  ];
}
