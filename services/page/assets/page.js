// The live view of a run. Whatever the server says becomes text nodes, never HTML.
import { Curve, number } from "./curves.js";
import { showGroups } from "./inspector.js";

const EVERY_MS = 1000;
const known = { revision: -1, columns: {} };
let evaluations = [];
let state = null;

export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((one) => one !== null && one !== undefined).map((one) => (one instanceof Node ? one : String(one))));
  return made;
}

export function table(caption, heads, rows, empty) {
  if (!rows.length) return make("p", { class: "dim" }, empty);
  const head = make("tr", {}, ...heads.map(([name, kind]) => make("th", { scope: "col", class: kind }, name)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell, index) => make("td", { class: heads[index][1] }, cell))));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...body)));
}

// Replaces what has changed only; the focus and the place in a scrolled table stay.
function swap(id, ...fresh) {
  const place = document.getElementById(id);
  if (place.children.length === fresh.length && fresh.every((one, index) => one.isEqualNode(place.children[index]))) return;
  const focused = place.contains(document.activeElement), scrolled = place.querySelector(".scroll")?.scrollTop;
  place.replaceChildren(...fresh);
  const inner = place.querySelector(".scroll");
  if (inner && scrolled) inner.scrollTop = scrolled;
  if (inner && focused) inner.focus();
}

const column = (name) => known.columns[name] || [];
const pairs = (name) => () => column("step").map((step, index) => [step, column(name)[index]]);
const rateOf = (name) => () => column("step").map((step, i) => {
  const at = column("at_unix_s"), from = Math.max(0, i - 5);
  const passed = at[i] - at[from];
  if (!(passed > 0)) return [step, null];
  if (name === "sampled_tokens") return [step, Math.max(0, column(name)[i] - column(name)[from]) / passed];
  return [step, column(name).slice(from + 1, i + 1).reduce((a, b) => a + (b || 0), 0) / passed];
});
const curves = [
  new Curve("Pass rate", [{ label: "train", points: pairs("pass_rate") }, { label: "held-out", points: () => evaluations, dots: true }], { min: 0, max: 1 }),
  new Curve("Mean reward", [{ label: "reward", points: pairs("mean_reward") }]),
  new Curve("Entropy, nats", [{ label: "entropy", points: pairs("entropy") }], { min: 0 }),
  new Curve("ESS ratio", [{ label: "ESS", points: pairs("ess_ratio") }, { label: "rate factor", points: pairs("lr_factor") }], { min: 0, max: 1 }),
  new Curve("Lag, steps", [{ label: "mean", points: pairs("mean_lag_steps") }, { label: "largest", points: pairs("max_lag_steps") }], { min: 0 }),
  new Curve("Response tokens", [{ label: "mean", points: pairs("mean_response_tokens") }], { min: 0 }),
  new Curve("Tokens a second", [{ label: "sampled", points: rateOf("sampled_tokens") }, { label: "trained", points: rateOf("tokens") }], { min: 0 }),
  new Curve("Cut, no variance", [{ label: "cut", points: pairs("cut_fraction") }, { label: "equal rewards", points: pairs("zero_variance_fraction") }], { min: 0, max: 1 }),
];
document.getElementById("curves").append(...curves.map((one) => one.element));

const OWN_WAITS = {
  learner: ["scored groups", "weight confirmations", "evaluation", "other ranks"],
  rollout: ["prompts", "weights", "a weight transfer"],
  verifier: ["trajectories"],
};

const isRunning = () => !state.run.finished && !state.redis;

function roomOf(kind) {
  const found = Object.entries(state.services).filter(([name]) => name.split("-")[0] === kind);
  const rates = found.map(([, one]) => one.rates || {}).filter((one) => Object.keys(one).length);
  const total = (name) => (rates.length && isRunning() ? rates.reduce((sum, one) => sum + (one[name] || 0), 0) : null);
  const waits = OWN_WAITS[kind].map((name) => [name, (total(`ratchet_wait_seconds_total/${name}`) || 0) / Math.max(1, rates.length)]);
  waits.sort((a, b) => b[1] - a[1]);
  return { found, total, known: rates.length > 0, wait: waits[0], silent: found.filter(([, one]) => one.fault).map(([name]) => name) };
}

function roomCard(title, kind, rate, facts) {
  const room = roomOf(kind);
  const share = Math.min(1, room.wait[1]);
  const words = !isRunning() ? "not running" : room.found.length === 0 ? "not there yet" : !room.known ? "waits: not known yet" : share < 0.01 ? "waits for nothing" : `waits ${Math.round(share * 100)} % for ${room.wait[0]}`;
  const bar = make("div", { class: "bar", "aria-hidden": "true" }, make("i"));
  bar.firstChild.style.width = `${share * 100}%`;
  return make("li", { class: "room" }, make("h3", {}, title), make("p", { class: "rate" }, rate(room)),
    make("p", { class: "dim" }, facts), bar, make("p", {}, words),
    room.silent.length && isRunning() ? make("p", { class: "warn" }, `no answer: ${room.silent.join(", ")}`) : null);
}

function queue(name) {
  const [waiting, claimed] = state.queues[name] || [null, null];
  return make("li", { class: "queue" }, make("span", { class: "arrow", "aria-hidden": "true" }, make("span", { class: "right" }, "→"), make("span", { class: "down" }, "↓")),
    make("b", {}, number(waiting, 0)), ` ${name}`, make("br"), claimed === null ? "" : `${number(claimed, 0)} claimed`);
}

function drawLoop() {
  const last = (name) => column(name)[column(name).length - 1];
  const tokens = (value) => `${number(value, 0)} tokens/s`;
  const newest = (name) => { const points = rateOf(name)(); return points.length ? points[points.length - 1][1] : null; };
  const ready = state.replicas.filter((one) => one.ready).length;
  swap("loop",
    roomCard("Learner", "learner", () => tokens(isRunning() ? newest("tokens") : null), last("step") ? `version ${last("step")}, the last step took ${number(last("seconds"), 2)} s` : "no step yet"),
    queue("prompts"),
    roomCard(`Rollout × ${state.replicas.length}`, "rollout", (room) => tokens(room.total("ratchet_rollout_sampled_tokens_total")), `${ready} ready`),
    queue("trajectories"),
    roomCard("Verifier", "verifier", (room) => `${number(room.total("ratchet_verifier_scores_total"), 1)} scores/s`, "grades each response"),
    queue("scored"),
  );
  const groups = state.groups;
  const facts = [];
  if (state.waiting) facts.push(`Step ${state.waiting.step} waits for groups: ${state.waiting.said}.`);
  if (groups) {
    const dropped = Object.values(groups.dropped).reduce((a, b) => a + b, 0);
    facts.push(`Groups: ${number(groups.trained, 0)} trained, ${number(dropped, 0)} dropped, ${number(groups.dead, 0)} dead, ${number(groups.outstanding, 0)} outstanding.`);
  }
  facts.push("Scored groups go back to the learner, which sends new weights to every replica after each step.");
  document.getElementById("waits").textContent = facts.join(" ");
}

function drawReplicas() {
  const version = column("step")[column("step").length - 1] || 0;
  const rows = state.replicas.map((one) => {
    const service = state.services[one.id] || {};
    const rate = (service.rates || {}).ratchet_rollout_sampled_tokens_total;
    const running = (service.figures || {}).ratchet_rollout_running_sequences;
    const behind = version - one.version;
    const status = one.ready ? make("span", { class: "good" }, "ready") : make("span", { class: "warn" }, "not ready");
    return [one.id, status, `${one.version}${behind > 0 ? ` (${behind} behind)` : ""}`, number(rate, 0), number(running, 0)];
  });
  swap("replicas", table(`${rows.length} ${rows.length === 1 ? "replica has" : "replicas have"} a lease`,
    [["replica"], ["state"], ["version", "n"], ["tokens/s", "n"], ["sequences", "n"]], rows, state.redis || "No replica has a lease."));
  const queues = Object.entries(state.queues).map(([name, [waiting, claimed]]) => [name.replace("_", " "), number(waiting, 0), number(claimed, 0)]);
  swap("queues", table("Groups on each stream; scored ones stay claimed until a checkpoint holds them",
    [["stream"], ["waiting", "n"], ["claimed", "n"]], queues, state.redis || "The streams are not known yet."));
}

function drawSources() {
  const found = Object.entries(state.sources || {});
  document.getElementById("sources-section").hidden = !found.length;
  const rows = found.map(([name, one]) => [name, number(one.share, 2), number(one.groups, 0), number(Object.values(one.dropped_groups).reduce((a, b) => a + b, 0), 0),
    one.sequences ? number(one.mean_reward) : "–", one.sequences ? number(one.pass_rate) : "–", number(one.held_out), number(one.tokens, 0)]);
  swap("sources", table("In the last step; the share is that of the next prompts",
    [["source"], ["share", "n"], ["groups", "n"], ["dropped", "n wide"], ["reward", "n"], ["pass rate", "n"], ["held-out", "n"], ["tokens", "n wide"]], rows, ""));
}

function drawTalks() {
  const talks = state.talks;
  document.getElementById("talks-section").hidden = !talks;
  if (!talks) return;
  const faults = Object.entries(talks.faults).map(([kind, count]) => `${kind} ${number(count, 0)}`).join(", ");
  document.getElementById("talks-words").textContent = [`${number(talks.held, 0)} held and ${number(talks.open, 0)} open, ${number(talks.mean_turns, 1)} turns each on average`,
    `${Math.round(talks.waiting_share * 100)} % of their time they wait for the environment`,
    talks.rewritten ? `${number(talks.rewritten, 0)} turns began their sequence again` : null,
    faults ? `the environment failed: ${faults}` : "the environment has not failed"].filter(Boolean).join("; ") + ".";
  const rows = talks.tools.map((one) => [one.name, one.calls ? number(one.calls, 0) : "–", number(one.mean_seconds, 3), number(one.errors, 0)]);
  swap("talks", table("Calls of tools since the replicas started", [["tool"], ["calls", "n"], ["seconds, mean", "n"], ["errors", "n"]], rows, "No tool has been called."));
}

let deadShown = "";
function drawDead() {
  const dead = state.dead;
  const now = JSON.stringify(dead);
  if (now === deadShown) return; // a button that has the focus keeps it
  deadShown = now;
  const rows = dead.newest.map((one) => {
    const button = make("button", { type: "button", "aria-label": `Requeue ${one.group}`, disabled: !one.can }, "Requeue");
    button.addEventListener("click", () => requeue(one.group, button));
    const action = one.requeued ? `requeued ${clock(one.requeued)}` : one.can ? button : make("span", { class: "dim" }, "cannot be sent again");
    return [clock(one.at), one.group, one.row ?? "–", one.stage, one.cause, action];
  });
  document.getElementById("dead").replaceChildren(table(`${number(dead.count, 0)} died; requeued ones are sampled again`,
    [["at", "wide"], ["group"], ["row", "n wide"], ["stream"], ["cause", "cause"], [""]], rows, "No group has died."));
}

const clock = (unix) => new Date(unix * 1000).toLocaleTimeString("en-GB");

async function requeue(group, button) {
  button.disabled = true;
  const answer = await fetch(`/api/requeue?group=${encodeURIComponent(group)}`, { method: "POST" });
  const words = answer.ok ? `${group} is sent round again.` : (await answer.text()).trim();
  say(words);
  if (!answer.ok) trouble(words);
}

function drawAlerts() {
  document.getElementById("alerts-section").hidden = !state.alerts;
  if (!state.alerts) return;
  const rows = state.alerts.firing.map((one) => [one.name, make("span", { class: one.state === "firing" ? "bad" : "warn" }, one.state), one.said]);
  swap("alerts", table("Alerts of Prometheus", [["alert"], ["state"], ["", "cause"]], rows, state.alerts.fault || "No alert is pending or firing."));
}

function drawHead() {
  const step = column("step")[column("step").length - 1] || 0;
  const run = state.run;
  document.title = `${step ? `step ${step} · ` : ""}${run.name} · Ratchet`;
  document.getElementById("name").textContent = run.name;
  const progress = document.getElementById("progress");
  progress.max = run.steps || 1;
  progress.value = step;
  const held = evaluations.length ? `, held-out ${number(evaluations[evaluations.length - 1][1])}` : "";
  const status = run.finished ? "finished" : isRunning() ? "running" : "not running";
  document.getElementById("where").textContent = `${status}: step ${step} of ${run.steps ?? "?"}${held}${run.objective ? `, objective ${run.objective}` : ""}`;
}

export function say(text) { document.getElementById("said").textContent = text; }
function trouble(text) {
  const shown = document.getElementById("trouble");
  if (shown.textContent !== text) shown.textContent = text;
  shown.hidden = !text;
}

function take(answer) {
  const fresh = answer.steps;
  if (fresh.reset) known.columns = fresh.columns;
  else for (const [name, values] of Object.entries(fresh.columns)) known.columns[name] = column(name).concat(values);
  known.revision = fresh.revision;
  evaluations = answer.evaluations || [];
  return fresh.reset || fresh.columns.step.length > 0;
}

async function poll() {
  const steps = column("step");
  const since = steps.length ? steps[steps.length - 1] : 0;
  try {
    const answer = await fetch(`/api/state?since=${since}&revision=${known.revision}`);
    if (!answer.ok) throw new Error((await answer.text()).trim());
    state = await answer.json();
    if (!state.run) return 100; // the first look is not over
    const before = evaluations.length;
    const moved = take(state);
    trouble(state.fault || "");
    drawHead();
    if (!document.getElementById("run").hidden) {
      drawLoop();
      if (moved || evaluations.length !== before) curves.forEach((one) => one.draw());
      drawReplicas();
      drawSources();
      drawTalks();
      drawDead();
      drawAlerts();
    }
  } catch (fault) {
    trouble(fault instanceof TypeError ? "The page's server does not answer; what is shown may be old." : fault.message);
  }
  return EVERY_MS;
}

function route() {
  const parameters = new URLSearchParams(location.search);
  const view = parameters.get("view") === "groups" ? "groups" : "run";
  for (const name of ["run", "groups"]) document.getElementById(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "groups") showGroups(document.getElementById("groups"), parameters);
  else curves.forEach((one) => one.draw());
}

export function go(parameters, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", `?${parameters}`);
  route();
}

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[href^='?']") : null;
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(new URLSearchParams(link.getAttribute("href").slice(1)));
});
addEventListener("popstate", route);
addEventListener("resize", () => curves.forEach((one) => one.draw()));

async function follow() {
  const next = document.hidden ? EVERY_MS : await poll();
  setTimeout(follow, next);
}
route();
follow();
