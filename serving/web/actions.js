// What may be done to an experiment, and the question that is asked before it is done.

import { act, token } from "./api.js";
import { el } from "./dom.js";
import { meaning, t } from "./words.js";

const OPENING = ["start", "advance"];
const ACTIONS = [...OPENING, "pause", "resume", "promote", "roll_back", "abandon"];
const GRAVE = new Set(["roll_back", "abandon"]);
const PLAIN = new Set(["wrong_token", "writes_disabled", "acted_meanwhile", "unreachable"]);
const WHO = "matjip-by";

/** A button for each thing that may be done now; `acted` is called when it is done. */
export function actionBar(one, acted) {
  const possible = ACTIONS.filter(
    (action) => one.may.includes(action) && (one.opens_phases || !OPENING.includes(action)),
  );
  const note = noteOf(one);
  return [
    el("h2", { class: "unseen" }, t("actions")),
    possible.length > 0 &&
      el(
        "div",
        { class: "actions", role: "group", "aria-label": t("actions") },
        ...possible.map((action) =>
          el(
            "button",
            { type: "button", class: GRAVE.has(action) ? "grave" : action === "promote" ? "main" : "", disabled: !one.writable, onclick: () => ask(one, action, acted) },
            t(`do_${action}`),
          ),
        ),
      ),
    note && el("p", { class: "muted small" }, note),
  ];
}

function noteOf(one) {
  if (one.may.length === 0) return t("ended");
  if (!one.writable) return t("read_only");
  if (!one.opens_phases && OPENING.some((action) => one.may.includes(action))) return t("begin_by");
  return null;
}

function ask(one, action, acted) {
  const others = one.arms.filter((arm) => !arm.control);
  const control = one.arms.find((arm) => arm.control)?.name ?? "";
  const problem = el("p", { class: "problem", role: "alert" });
  const confirm = el("button", { type: "submit", class: GRAVE.has(action) ? "grave solid" : "main solid" }, t(`do_${action}`));
  const known = token.get();
  const form = el(
    "form",
    { autocomplete: "off" },
    el("h2", { id: "question" }, t(`ask_${action}`, { name: one.name })),
    el("p", { id: "effect" }, t(`effect_${action}`, { control })),
    action === "promote" && labelled("arm", t("which_arm"), el("select", { name: "arm" }, ...others.map((arm) => el("option", { value: arm.name }, arm.name)))),
    labelled("reason", t("why"), el("textarea", { name: "reason", rows: 3, required: true, maxlength: 2000 })),
    labelled("by", t("who_are_you"), el("input", { name: "by", required: true, maxlength: 200, value: sessionStorage.getItem(WHO) ?? "" })),
    labelled("token", t("token"), el("input", { name: "token", type: "password", autocomplete: "off", required: true, value: known, "aria-describedby": "token-about" })),
    el("p", { class: "muted small", id: "token-about" }, t("token_about")),
    problem,
    el("div", { class: "dialog-actions" }, el("button", { type: "button", onclick: () => dialog.close() }, t("cancel")), confirm),
  );
  const dialog = el("dialog", { "aria-labelledby": "question", "aria-describedby": "effect" }, form);
  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const said = Object.fromEntries(new FormData(form));
    confirm.disabled = true;
    problem.textContent = t("working");
    try {
      const { alias, is_champion: followed } = await decided(one, action, said);
      dialog.close();
      acted(t("did", { name: one.name, action: t(`action_${action}`) }), alias, followed !== false);
    } catch (error) {
      if (error.code === "wrong_token") token.forget();
      const short = meaning(error);
      const enough = short === error.message || PLAIN.has(error.code);
      problem.textContent = enough ? short : `${short} ${error.message}`;
      confirm.disabled = false;
    }
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  form.elements.reason.focus();
}

async function decided(one, action, said) {
  sessionStorage.setItem(WHO, said.by);
  const event = { action, reason: said.reason, by: said.by, after: one.events };
  if (action === "promote") event.arm = said.arm;
  const done = await act(one.name, event, said.token);
  token.keep(said.token); // only what was right is kept
  return done;
}

function labelled(name, text, control) {
  control.id = `say-${name}`;
  return el("div", { class: "field" }, el("label", { for: control.id }, text), control);
}
