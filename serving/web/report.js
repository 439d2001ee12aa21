// What an experiment has shown: verdict, confidence sequence, metrics, guardrails, sample ratio.

import { reportAddress } from "./api.js";
import { intervalBar, sequenceFigure } from "./chart.js";
import { el, refresh, table } from "./dom.js";
import { figure, interval, percent, signed, whole } from "./format.js";
import { language, meaning, t } from "./words.js";

/** Puts a report into its place. */
export function showReport(place, report) {
  refresh(place, [language(), { ...report, made_at_us: 0 }], () => [
    ...verdict(report),
    ...sequences(report),
    ...metrics(report),
    ...guardrails(report),
    ...ratio(report),
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
  const metric = primary?.metric ?? t("role_primary");
  const control = report.arms?.[0]?.name ?? t("control");
  const drawn = (report.timeline ?? []).filter((each) => each.points.length > 0);
  return [
    el("h2", {}, t("sequence", { metric })),
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
        metricName(row),
        row.arm,
        figure(row.control_value),
        figure(row.value),
        signed(row.difference),
        el("span", { class: "interval" }, interval(row.low, row.high), intervalBar(row)),
        row.adjusted_p === null ? "–" : figure(row.adjusted_p),
        el("span", { class: `reading ${row.reading}` }, t(`reading_${row.reading}`)),
      ]),
      { numeric: [2, 3, 4, 5, 6] },
    ),
  ];
}

function metricName(row) {
  const facts = [
    t(`role_${row.role}`),
    row.quantile && t("quantile", { quantile: figure(row.quantile) }),
    t(row.direction),
    row.margin > 0 && t("margin", { margin: figure(row.margin) }),
  ].filter(Boolean);
  return el("span", { class: "model" }, el("span", {}, row.metric), el("span", { class: "muted small" }, facts.join(" · ")));
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
    el("span", {}, el("strong", {}, row.metric), ` · ${row.arm}`),
    el("span", { class: "muted small" }, `${t(`role_${row.role}`)} · ${t("difference")} ${signed(row.difference)} (${interval(row.low, row.high)}) · ${t("margin", { margin: figure(row.margin) })}`),
  );
}

function ratio(report) {
  const rows = report.sample_ratio ?? [];
  return [
    el("h2", {}, t("ratio")),
    rows.length === 0
      ? el("p", { class: "muted" }, t("ratio_none"))
      : el("ul", { class: "guards" }, ...rows.slice(0, 12).map(ratioRow)),
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
    el("span", {}, el("strong", {}, row.name), ` · ${counts.join(", ")}`),
    el("span", { class: "muted small" }, `p = ${figure(row.adjusted_p)}`),
  );
}
