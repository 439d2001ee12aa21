// The gateway's API: JSON in and out, and refusals as errors that a person can read.

const KEY = "matjip-admin-token";

/** A refusal of the API, or no answer at all (code "unreachable"). */
export class ApiError extends Error {
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

// The token lives as long as the tab, and is sent with changes alone.
export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  keep: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export const listExperiments = () => ask("/v1/experiments");
export const readExperiment = (name) => ask(`/v1/experiments/${encodeURIComponent(name)}`);
export const readReport = (name) => ask(`/v1/experiments/${encodeURIComponent(name)}/report`);
export const readRoutes = (name) => ask(`/v1/routes?experiment=${encodeURIComponent(name)}`);
export const readLedger = (model) => ask(`/v1/ledger?model=${encodeURIComponent(model)}`);
export const reportAddress = (name, language) =>
  `/v1/experiments/${encodeURIComponent(name)}/report?lang=${language}`;

/** Does something to an experiment; the token goes in a header, so no other site can do it. */
export function act(name, event, secret) {
  return ask(`/v1/experiments/${encodeURIComponent(name)}/events`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${secret}` },
    body: JSON.stringify(event),
  });
}

async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, {
      cache: "no-store",
      credentials: "omit",
      ...options,
      headers: { Accept: "application/json", ...options.headers },
    });
  } catch (error) {
    throw new ApiError("unreachable", String(error.message ?? error), 0);
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok && body !== null) return body;
  const said = body?.error;
  throw new ApiError(said?.code ?? "unreadable", said?.message ?? `HTTP ${answer.status}`, answer.status);
}
