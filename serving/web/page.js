// The page: which experiment is looked at (the address after #/), in which language, and how fresh.

import { listExperiments, readExperiment, readReport, readRoutes, token } from "./api.js";
import { el } from "./dom.js";
import { experimentView, part, showExperiment, showRoutes } from "./experiment.js";
import { time } from "./format.js";
import { listView } from "./list.js";
import { showBeforeReport, showNoReport, showReport } from "./report.js";
import { choose, language, meaning, t } from "./words.js";

const EVERY_MS = 4_000;
const REPORT_EVERY = 4; // a report costs more than a count, so every fourth time
const main = document.getElementById("main");

let place = { name: null, view: null, turns: 0 };
let turning = 0; // grows with every change of place, so that late answers are dropped

addEventListener("hashchange", () => go({ focus: true }));
document.addEventListener("visibilitychange", () => document.hidden || refreshNow());
document.getElementById("language").addEventListener("click", () => {
  choose(language() === "ko" ? "en" : "ko");
  go({ focus: false });
});
document.getElementById("forget").addEventListener("click", () => {
  token.forget();
  frame();
  notice(t("forgotten"));
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address after # says which experiment is shown
  main.focus();
});
setInterval(() => document.hidden || document.querySelector("dialog[open]") || refreshNow(), EVERY_MS);
go({ focus: false });

function go({ focus }) {
  const name = named(location.hash.replace(/^#\/?/, ""));
  turning += 1;
  place = { name, view: null, turns: 0 };
  frame();
  main.replaceChildren(el("p", { class: "empty", role: "status" }, t("loading")));
  refreshNow().then(() => focus && (main.querySelector("h1") ?? main).focus());
}

function named(address) {
  try {
    return decodeURIComponent(address);
  } catch {
    return address; // half an escape: no experiment is named so, and the API says it
  }
}

// What stands around every place, in the language of now.
function frame() {
  document.documentElement.lang = language();
  document.title = [place.name, t("title"), "matjip"].filter(Boolean).join(" · ");
  const said = { "brand-part": "brand", skip: "skip", api: "api", forget: "forget", language: "other_language" };
  for (const [id, key] of Object.entries(said)) document.getElementById(id).textContent = t(key);
  document.getElementById("language").lang = language() === "ko" ? "en" : "ko";
  document.getElementById("forget").hidden = token.get() === "";
}

async function refreshNow() {
  const now = turning;
  try {
    await (place.name ? showOne(now) : showList(now));
    if (now === turning) said("updated", t("updated", { time: time(new Date()) }));
  } catch (error) {
    if (now === turning) failed(error);
  }
}

async function showList(now) {
  const { experiments } = await listExperiments();
  if (now !== turning) return;
  const shown = JSON.stringify([language(), experiments]);
  if (place.view?.dataset.shown === shown) return;
  place.view = el(
    "div",
    {},
    el("h1", { tabindex: "-1" }, t("title")),
    el("p", { class: "lead" }, t("lead")),
    listView(experiments),
  );
  place.view.dataset.shown = shown;
  main.replaceChildren(place.view);
}

async function showOne(now) {
  const { name } = place;
  const [one, { routes }] = await Promise.all([readExperiment(name), readRoutes(name)]);
  if (now !== turning) return;
  if (place.view === null) {
    place.view = experimentView();
    main.replaceChildren(place.view);
  }
  const { view, turns } = place;
  showExperiment(view, one, acted);
  showRoutes(view, routes);
  place.turns += 1;
  if (one.phase === null) showBeforeReport(part(view, "report"));
  else if (turns % REPORT_EVERY === 0) reported(view, name, now);
}

// Not waited for: a report may take long, and the counts go on meanwhile.
async function reported(view, name, now) {
  try {
    const report = await readReport(name);
    if (now === turning) showReport(part(view, "report"), report);
  } catch (error) {
    if (now === turning) showNoReport(part(view, "report"), error);
  }
}

function acted(text, more, well) {
  frame();
  notice(text, more, well);
  place.turns = 0;
  refreshNow();
}

function failed(error) {
  if (place.view !== null) {
    said("updated", t("stale", { message: meaning(error) }));
    return;
  }
  const unknown = error.code === "unknown_experiment";
  main.replaceChildren(
    el(
      "div",
      { class: "empty", role: "alert" },
      el("h1", { tabindex: "-1" }, unknown ? t("no_such") : t("failed")),
      el("p", {}, unknown ? place.name : meaning(error)),
      el("p", {}, unknown ? el("a", { href: "#/" }, t("back")) : el("button", { type: "button", onclick: () => go({ focus: true }) }, t("retry"))),
    ),
  );
}

function notice(text, more = null, well = true) {
  const said = [el("p", {}, text), more && el("p", { class: "small" }, more)];
  document.getElementById("notices").replaceChildren(el("div", { class: well ? "notice" : "notice wait" }, said));
}

function said(id, text) {
  document.getElementById(id).textContent = text;
}
