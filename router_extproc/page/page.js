// The page of the admin port. Everything that came from outside is set as text, never as markup.
"use strict";

const ROWS = 100;
const RETRY_MS = 2000;
const BANDS = ["recommended", "fallback", "default", "named"];
let token = sessionStorage.getItem("token") || "";
let paused = false;
let generation = null;

const byId = (id) => document.getElementById(id);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (className) made.className = className;
  return made;
}

function money(text, signed) {
  const value = Number(text);
  const places = value !== 0 && Math.abs(value) < 1 ? 6 : 2;
  const shown = "$" + Math.abs(value).toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: places });
  return value < 0 ? "\u2212" + shown : signed && value > 0 ? "+" + shown : shown;
}

const whole = (value) => Number(value).toLocaleString("en");
const millis = (value) => (value === null || value === undefined ? "\u2013" : value < 1000 ? value.toFixed(value < 10 ? 1 : 0) + " ms" : (value / 1000).toFixed(2) + " s");

async function ask(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (token) headers.authorization = "Bearer " + token;
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    byId("login").hidden = false;
    byId("main").hidden = true;
    byId("token").focus();
    throw new Error("a bearer token is needed");
  }
  return answer;
}

function problem(text) {
  byId("problem").textContent = text || "";
  byId("problem").hidden = !text;
}

// --- plots -------------------------------------------------------------------------------------------------------

function bars(target, counts) {
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  target.replaceChildren(...counts.map(([name, count]) => {
    const share = total ? count / total : 0;
    const bar = element("div", null, "bar");
    bar.setAttribute("role", "listitem");
    const label = element("span", name, "name");
    label.title = name;
    const track = element("span", null, "track");
    const fill = element("span", null, "fill");
    fill.style.width = (share * 100).toFixed(2) + "%";
    if (count) track.append(fill);
    bar.append(label, track, element("span", `${whole(count)} \u00b7 ${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`, "count"));
    return bar;
  }));
  if (!counts.length) target.append(element("p", "Nothing yet.", "note"));
}

function columns(target, bounds, counts) {
  const highest = Math.max(1, ...counts);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const names = [...bounds.map((bound) => (bound * 1000 < 1 ? (bound * 1000).toFixed(1) : Math.round(bound * 1000))), ">"];
  target.replaceChildren(...counts.map((count, index) => {
    const column = element("span", null, "column");
    const fill = element("span", null, "fill");
    fill.style.height = (count / highest * 85).toFixed(1) + "%";
    column.title = `${index < bounds.length ? "up to " + names[index] : "over " + names[index - 1]} ms: ${whole(count)}`;
    column.append(fill, element("span", names[index]));
    return column;
  }));
  let seen = 0;
  const at = counts.findIndex((count) => (seen += count) >= total / 2 && total);
  byId("latency-note").textContent = total ? `(ms, half of ${whole(total)} within ${names[at]})` : "(ms)";
}

// --- state -------------------------------------------------------------------------------------------------------

function showState(state) {
  const total = state.savings.total;
  byId("saved").textContent = money(total.saved);
  byId("saved-note").textContent = "since " + state.savings.since.slice(0, 16).replace("T", " ") + " UTC";
  byId("percent").textContent = total.saved_percent === null ? "\u2013" : total.saved_percent.toFixed(1) + " %";
  byId("baseline").textContent = `had ${state.savings.baseline} answered everything: ${money(total.baseline)}`;
  byId("spent").textContent = money(Number(total.cost) + Number(total.router));
  byId("spent-note").textContent = total.estimated ? `${whole(total.estimated)} with estimated tokens` : "tokens as providers counted them";
  byId("count").textContent = whole(total.requests);
  byId("count-note").textContent = `${whole(total.requests - total.answered)} not answered with success`;
  bars(byId("share"), Object.entries(state.savings.models).map(([name, sum]) => [name, sum.requests]).sort((a, b) => b[1] - a[1]));
  const known = Object.keys(state.bands);
  bars(byId("bands"), BANDS.filter((band) => known.includes(band)).map((band) => [band, state.bands[band]]));
  columns(byId("latency"), state.latency.bounds, state.latency.counts);
  showModels(state);
  showServing(state);
}

function showServing(state) {
  const parts = [`generation ${state.generation}`, `classifier ${state.classifier || "none"}`, `${state.queued} queued`];
  byId("serving").textContent = (state.ready ? "serving, " : "not ready, ") + parts.join(", ");
  problem(state.rejected ? "The newest configuration was refused, the last good one serves on:\n" + state.rejected : "");
  if (state.generation === generation) return;
  generation = state.generation;
  const select = byId("model");
  const chosen = select.value;
  select.replaceChildren(...[...state.virtual, ...state.catalogue].map((name) => element("option", name)));
  if (chosen) select.value = chosen;
  byId("config-note").textContent = `generation ${state.generation}, ${state.source}${state.envoy ? "; " + state.envoy : ""}`;
  ask("config").then((answer) => answer.json()).then((found) => {
    byId("config-text").textContent = JSON.stringify(found.config, null, 2);
  }).catch(() => {});
}

function ended(status, broken) {
  if (broken) return ["broke off", true];
  return [status || "left", status >= 400 || !status];
}

function showModels(state) {
  const names = [...new Set([...state.catalogue, ...Object.keys(state.models)])];
  byId("models").replaceChildren(...names.map((name) => {
    const health = state.models[name];
    const row = element("tr");
    row.append(element("td", name));
    for (const value of health ? [health.answers, health.failures, health.retried, millis(health.first_byte_ms)] : ["0", "0", "0", "\u2013"]) {
      row.append(element("td", value, "number"));
    }
    const [last, wrong] = health ? ended(health.last_status, health.last_broken) : ["\u2013", false];
    row.append(element("td", last, wrong ? "bad" : ""));
    return row;
  }));
}

// --- requests ----------------------------------------------------------------------------------------------------

function list(pairs) {
  const made = element("dl");
  for (const [name, value, className] of pairs) {
    if (value === undefined || value === null || value === "") continue;
    made.append(element("dt", name), element("dd", value, className));
  }
  return made;
}

function figures(row) {
  const shown = ["quality", "cost", "latency", "load"].filter((name) => name in row).map((name) => `${name} ${row[name]}`);
  if (row.by && row.score !== undefined && !(row.by in row)) shown.unshift(`${row.by} ${row.score}`);
  if (row.favourite) shown.push("favourite");
  if (row.out) shown.push("left out: " + row.out);
  return shown.join(", ") || "in the order of the file";
}

function explanation(found) {
  const pairs = [];
  if (found.request && found.request.prompt) pairs.push(["prompt", found.request.prompt]);
  for (const [name, signal] of Object.entries(found.signals || {})) {
    const value = signal.value ? `, value ${Number(signal.value).toFixed(3)}` : "";
    const partly = signal.partial ? " (read in part)" : "";
    pairs.push([`signal ${name}`, `${signal.label || "\u2013"}, confidence ${Number(signal.confidence).toFixed(3)}${value}${partly}`]);
  }
  for (const [name, why] of Object.entries(found.absent || {})) pairs.push([`signal ${name}`, "absent: " + why, "warn"]);
  for (const rule of found.routes || []) pairs.push([`route ${rule.route}`, `${rule.verdict}: ${rule.why}`, rule.verdict === "matched" ? "matched" : ""]);
  if (found.routes === null) pairs.push(["routes", "judged by an earlier configuration"]);
  for (const rule of found.guard_rules || []) pairs.push([`guard ${rule.guard}`, `${rule.verdict}: ${rule.action}: ${rule.why}`, rule.verdict === "matched" ? "warn" : ""]);
  if (found.refused) pairs.push(["refused", [found.refused.status, found.refused.code, found.refused.message].filter(Boolean).join(", "), "bad"]);
  pairs.push(["band", found.band ? `${found.band}: ${found.reason || ""}` : ""]);
  for (const row of found.considered || []) pairs.push([`model ${row.model}`, figures(row), row.out ? "warn" : ""]);
  pairs.push(["guards", (found.guards || []).join(", "), "warn"]);
  pairs.push(["plan", (found.plan || []).join(" \u2192 ")]);
  pairs.push(["time", Object.entries(found.ms || {}).map(([stage, ms]) => `${stage} ${Number(ms).toFixed(2)} ms`).join(", ")]);
  const outcome = found.outcome;
  if (outcome) {
    const first = outcome.first_byte_ms === null ? "" : `, first byte ${millis(outcome.first_byte_ms)}`;
    pairs.push(["answer", `${outcome.model || "no model"}, status ${outcome.status}${outcome.broken ? ", broke off" : ""}, ${outcome.attempts} attempt(s), ${millis(outcome.ms)}${first}`]);
    pairs.push(["flags", [outcome.flags, outcome.details].filter(Boolean).join(", ")]);
    if (outcome.tokens) {
      const estimated = outcome.tokens.estimated ? ", estimated" : "";
      pairs.push(["tokens", `${whole(outcome.tokens.input)} in (${whole(outcome.tokens.cached)} cached), ${whole(outcome.tokens.output)} out${estimated}`]);
    }
    pairs.push(["cost", `${money(found.cost)}; the baseline would have cost ${money(found.baseline)}`]);
  }
  pairs.push(["conversation", [found.session, found.affinity].filter(Boolean).join(", ")]);
  pairs.push(["tenant", found.tenant], ["decision", found.id]);
  return list(pairs);
}

const VERDICTS = [["good", "Good"], ["bad", "Bad route"], ["false_alarm", "False alarm"], ["missed", "Missed"]];

function verdicts(id) {
  const made = element("p", null, "verdicts");
  const said = element("span", "", "note");
  said.setAttribute("role", "status");
  for (const [verdict, label] of VERDICTS) {
    const button = element("button", label);
    button.type = "button";
    button.addEventListener("click", async () => {
      const body = JSON.stringify({ decision_id: id, verdict });
      try {
        const answer = await ask("feedback", { method: "POST", headers: { "content-type": "application/json" }, body });
        const found = await answer.json();
        said.textContent = answer.ok ? (found.new ? `noted: ${label}` : "was noted before") : found.error;
      } catch (error) {
        said.textContent = error.message;
      }
    });
    made.append(button, " ");
  }
  made.append(said);
  return made;
}

async function toggle(row, button, id) {
  const next = row.nextElementSibling;
  if (next && next.classList.contains("why")) {
    next.remove();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  const why = element("tr", null, "why");
  const cell = element("td");
  cell.colSpan = 9;
  why.append(cell);
  row.after(why);
  button.setAttribute("aria-expanded", "true");
  try {
    const answer = await ask("decisions/" + encodeURIComponent(id));
    const found = await answer.json();
    cell.append(answer.ok ? explanation(found) : element("p", found.error, "note"));
    if (answer.ok) cell.append(verdicts(found.id));
  } catch (error) {
    cell.append(element("p", error.message, "bad"));
  }
}

function showExchange(found) {
  if (paused) return;
  const outcome = found.outcome || {};
  const row = element("tr");
  const button = element("button", new Date(found.time).toLocaleTimeString("en", { hour12: false }), "open");
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => toggle(row, button, found.id));
  const time = element("td");
  time.append(button);
  const prompt = found.request && found.request.prompt;
  if (prompt) document.body.classList.remove("no-prompts");
  const band = element("td");
  band.append(element("span", found.band || "\u2013", "band " + (BANDS.includes(found.band) ? found.band : "")));
  const tokens = outcome.tokens ? `${outcome.tokens.estimated ? "~" : ""}${whole(outcome.tokens.input)} + ${whole(outcome.tokens.output)}` : "\u2013";
  const model = (outcome.model || "\u2013") + (outcome.attempts > 1 ? ` (${outcome.attempts} attempts)` : "");
  const [last, wrong] = ended(outcome.status, outcome.broken);
  row.append(
    time, element("td", prompt || "", "prompt"), element("td", found.route || "\u2013"), band, element("td", model),
    element("td", last, "number" + (wrong ? " bad" : "")),
    element("td", tokens, "number"), element("td", millis(outcome.ms), "number"), element("td", money(found.saved, true), "number"),
  );
  const rows = byId("rows");
  rows.prepend(row);
  byId("empty").hidden = true;
  while (rows.children.length > ROWS) rows.lastElementChild.remove();
}

// --- events: read by fetch, because an EventSource cannot send the token ---------------------------------------------

async function watch() {
  for (;;) {
    try {
      const answer = await ask("events");
      if (!answer.ok) throw new Error((await answer.json()).error || answer.statusText);
      byId("rows").replaceChildren();
      await read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
      throw new Error("the sidecar closed the connection");
    } catch (error) {
      byId("serving").textContent = "not connected: " + error.message;
      if (!byId("login").hidden) return;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

async function read(reader) {
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const fields = Object.fromEntries(text.slice(0, end).split("\n").map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]));
      text = text.slice(end + 2);
      const data = JSON.parse(fields.data);
      if (fields.event === "state") showState(data);
      else showExchange(data);
    }
  }
}

// --- forms -------------------------------------------------------------------------------------------------------

byId("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const target = byId("tried");
  const box = element("div");
  try {
    const body = JSON.stringify({ prompt: byId("prompt").value, model: byId("model").value });
    const answer = await ask("try", { method: "POST", headers: { "content-type": "application/json" }, body });
    const found = await answer.json();
    box.append(answer.ok ? explanation(found) : element("p", found.error, "bad"));
  } catch (error) {
    box.append(element("p", error.message, "bad"));
  }
  target.replaceChildren(box);
});

byId("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("try").requestSubmit();
});

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
});

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  sessionStorage.setItem("token", token);
  byId("token").value = "";
  byId("login").hidden = true;
  byId("main").hidden = false;
  watch();
});

document.body.classList.add("no-prompts");
watch();
