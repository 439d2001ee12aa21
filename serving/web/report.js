// What an experiment has shown: verdict, confidence sequence, metrics, guardrails, sample ratio.

import { reportAddress } from "./api.js";
import { intervalBar, sequenceFigure } from "./chart.js";
import { el, refresh, table } from "./dom.js";
import { difference, inUnit, interval, metricName, percent, probability, whole } from "./format.js";
import { WORDS, language, meaning, t } from "./words.js";

/** Puts a report into its place. */
export function showReport(place, report) {
  refresh(place, [language(), { ...report, made_at_us: 0 }], () => [
    ...verdict(report),
    ...sequences(report),
    ...metrics(report),
    ...guardrails(report),
    ...ratio(report),
    ...disagreements(report),
  ]);
}

/** Says why there is none. */
export function showNoReport(place, error) {
  refresh(place, [language(), error.code, error.message], () => [
    el("h2", {}, t("verdict")),
    el("p", { class: "muted" }, error.code === "no_report" ? error.message : `${t("no_report")}. ${meaning(error)}`),
  ]);
}

/** Before the first phase nothing is asked. */
export function showBeforeReport(place) {
  refresh(place, [language(), "before"], () => [
    el("h2", {}, t("verdict")),
    el("p", { class: "muted" }, t("no_phase_report")),
  ]);
}

function verdict(report) {
  const reason = language() === "ko" ? report.reason_ko : report.reason;
  const advance = { true: t("may_advance"), false: t("may_not_advance") }[String(report.advance)];
  return [
    el("h2", {}, t("verdict")),
    el(
      "div",
      { class: `verdict ${report.decision}` },
      el("p", { class: "decision" }, t(`decision_${report.decision}`), report.arm && el("span", { class: "tag" }, report.arm)),
      el("p", {}, reason ?? report.reason),
      advance && el("p", { class: "small" }, advance),
      el("p", {}, el("a", { href: reportAddress(report.experiment, language()) }, t("full_report"))),
    ),
  ];
}

function sequences(report) {
  const primary = (report.metrics ?? []).find((row) => row.role === "primary");
  const metric = primary?.metric ?? "";
  const control = report.arms?.[0]?.name ?? t("control");
  const drawn = (report.timeline ?? []).filter((each) => each.points.length > 0);
  return [
    el("h2", {}, t("sequence", { metric: metricName(metric) || t("role_primary") })),
    ...(drawn.length === 0
      ? [el("p", { class: "muted" }, t("sequence_empty"))]
      : drawn.map(({ arm, points }) =>
          sequenceFigure({
            metric,
            arm,
            place: (report.arms ?? []).findIndex((each) => each.name === arm),
            control,
            points,
            margin: report.margin ?? 0,
            direction: primary?.direction ?? "increase",
            level: primary?.level ?? 1 - (report.alpha ?? 0.05),
          }),
        )),
  ];
}

function metrics(report) {
  const rows = [...(report.metrics ?? []), ...(report.paired ?? [])];
  if (rows.length === 0) return [el("h2", {}, t("metrics")), el("p", { class: "muted" }, t("no_metrics"))];
  return [
    el("h2", {}, t("metrics")),
    table(
      t("metrics"),
      [t("metric"), t("arm"), t("control_value"), t("value"), t("difference"), t("interval"), t("adjusted_p"), t("reading")],
      rows.map((row) => [
        metricCell(row),
        row.arm,
        inUnit(row.metric, row.control_value),
        inUnit(row.metric, row.value),
        difference(row.metric, row.difference),
        el("span", { class: "interval" }, interval(row.metric, row.low, row.high), intervalBar(row)),
        probability(row.adjusted_p),
        el("span", { class: `reading ${row.reading}` }, t(`reading_${row.reading}`)),
      ]),
      { numeric: [2, 3, 4, 5, 6] },
    ),
  ];
}

function metricCell(row) {
  const facts = [
    t(`role_${row.role}`),
    t(row.direction),
    row.margin > 0 && t("margin", { margin: inUnit(row.metric, row.margin) }),
  ].filter(Boolean);
  return el("span", { class: "model" }, el("span", {}, metricName(row.metric, row.quantile)), el("span", { class: "muted small" }, facts.join(" · ")));
}

function guardrails(report) {
  const rows = (report.metrics ?? []).filter((row) => row.role === "guardrail" || row.role === "signal");
  return [
    el("h2", {}, t("guardrails")),
    rows.length === 0
      ? el("p", { class: "muted" }, t("no_guardrails"))
      : el("ul", { class: "guards" }, ...rows.map(guard)),
  ];
}

function guard(row) {
  const state = { worse: "broken", better: "ok", not_worse: "ok" }[row.reading] ?? "watch";
  return el(
    "li",
    { class: `guard ${state}` },
    el("span", { class: "guard-state" }, t(`guard_${state}`)),
    el("span", {}, el("strong", {}, metricName(row.metric, row.quantile)), ` · ${row.arm}`),
    el("span", { class: "muted small" }, guardFacts(row).join(" · ")),
  );
}

function guardFacts(row) {
  const shown = Number.isFinite(row.difference)
    ? `${t("difference")} ${difference(row.metric, row.difference)} (${interval(row.metric, row.low, row.high)})`
    : t("no_data");
  return [t(`role_${row.role}`), shown, t("margin", { margin: inUnit(row.metric, row.margin) })];
}

function ratio(report) {
  const rows = (report.sample_ratio ?? []).filter((row) => Object.values(row.counts).some((count) => count > 0));
  return [
    el("h2", {}, t("ratio")),
    rows.length === 0
      ? el("p", { class: "muted" }, t("ratio_none"))
      : el("ul", { class: "guards" }, ...rows.map(ratioRow)),
  ];
}

function ratioRow(row) {
  const state = { ok: "ok", alarm: "broken" }[row.reading] ?? "watch";
  const total = Object.values(row.counts).reduce((sum, count) => sum + count, 0);
  const counts = Object.entries(row.counts).map(([arm, count]) => `${arm} ${whole(count)} (${total ? percent(count / total) : "–"})`);
  return el(
    "li",
    { class: `guard ${state}` },
    el("span", { class: "guard-state" }, t(`guard_${state}`)),
    el("span", {}, el("strong", {}, ratioName(row.name)), ` · ${counts.join(", ")}`),
    el("span", { class: "muted small" }, `p = ${probability(row.adjusted_p)}`),
  );
}

// The texts themselves are not stored; the full report has the predictions side by side.
function disagreements(report) {
  const rows = (report.disagreements ?? []).filter((row) => row.pairs > 0);
  if (rows.length === 0) return [];
  const said = ({ agreed, pairs }) =>
    t("agreed_on", { agreed: whole(agreed), pairs: whole(pairs), share: percent(agreed / pairs) });
  return [
    el("h2", {}, t("disagreements")),
    el("ul", { class: "guards" }, ...rows.map((row) => el("li", {}, el("strong", {}, row.arm), ` · ${said(row)}`))),
  ];
}

// "phase 2", or "weekday: monday": words that the page knows are said in its language.
const ratioName = (name) =>
  name.replace(/[a-z_]+/g, (word) => (`named_${word}` in WORDS.en ? t(`named_${word}`) : word)).replaceAll("_", " ");
