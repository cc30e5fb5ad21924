// The trajectory inspector: a filtered list of groups, and one group token by token. The address holds the filter and the group.
import { go, make, say, table } from "./page.js";
import { number } from "./curves.js";

const FIELDS = [
  ["step_from", "Step from", { type: "number", min: 1 }], ["step_to", "to", { type: "number", min: 1 }],
  ["reward_from", "Mean reward from", { type: "number", step: "any" }], ["reward_to", "to", { type: "number", step: "any" }],
  ["verdict", "Verdict", ["", "correct", "incorrect", "mixed"]], ["outcome", "Outcome", ["", "trained", "dropped"]],
  ["length_from", "Tokens from", { type: "number", min: 0 }], ["lag_from", "Lag from", { type: "number", min: 0 }],
];
const MODES = { version: "policy version", gap: "log-prob gap", weight: "one-way weight" };
const MOST_TOKENS = 3000;
const BLUE = "45, 125, 210", ORANGE = "225, 120, 20";

const filterOf = (parameters) => new URLSearchParams(FIELDS.map(([name]) => [name, parameters.get(name) || ""]).filter(([, value]) => value !== ""));
let turn = 0;

export async function showGroups(place, parameters) {
  const mine = ++turn;
  const step = parameters.get("step"), group = parameters.get("group");
  const url = group ? `/api/group?${new URLSearchParams({ step, group })}` : `/api/groups?${filterOf(parameters)}`;
  let content;
  try {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const found = await answer.json();
    content = group ? oneGroup(found, parameters) : listed(found, parameters);
  } catch (fault) {
    content = [make("p", { role: "alert" }, fault.message), make("p", {}, make("a", { href: "?view=groups" }, "All groups"))];
  }
  if (mine !== turn) return; // a later request was faster
  const hadFocus = place.contains(document.activeElement) ? document.activeElement.getAttribute("name") : null;
  place.replaceChildren(...content);
  if (hadFocus) place.querySelector(`[name="${CSS.escape(hadFocus)}"]`)?.focus();
}

function listed(found, parameters) {
  const form = make("form", { class: "filter", "aria-label": "Filter groups" });
  for (const [name, label, kind] of FIELDS) {
    const input = Array.isArray(kind) ? make("select", { name }, ...kind.map((one) => make("option", { value: one }, one || "any"))) : make("input", { name, ...kind });
    input.value = parameters.get(name) || "";
    form.append(make("label", {}, label, input));
  }
  form.append(make("button", { type: "submit" }, "Filter"), make("a", { href: "?view=groups" }, "Clear"));
  const apply = (event) => {
    event.preventDefault();
    const wanted = filterOf(new Map(new FormData(form)));
    go(new URLSearchParams([["view", "groups"], ...wanted]), { replace: true });
  };
  form.addEventListener("submit", apply);
  form.addEventListener("change", apply);
  const rows = found.rows.map((row) => {
    const link = new URLSearchParams([["view", "groups"], ...filterOf(parameters), ["step", row.step], ["group", row.group]]);
    const verdicts = Object.entries(row.verdicts).map(([name, count]) => `${number(count, 0)} ${name}`).join(", ");
    return [row.step, make("a", { href: `?${link}` }, row.group), number(row.reward), verdicts, number(row.longest, 0), number(row.lag, 0), row.dropped ?? "trained", row.prompt];
  });
  const words = `${number(found.found, 0)} groups of the ${number(found.steps, 0)} steps that are kept${found.found > rows.length ? `; the newest ${number(rows.length, 0)} are shown` : ""}`;
  say(words);
  return [make("h2", {}, "Groups"), form, table(words,
    [["step", "n"], ["group"], ["reward", "n"], ["verdicts"], ["tokens", "n wide"], ["lag", "n"], ["outcome", "wide"], ["prompt ends", "prompt wide"]], rows,
    found.steps ? "No group that is kept fits the filter." : "No group is kept yet: the learner writes them after its first step (learner.kept_groups_mib).")];
}

function oneGroup(group, parameters) {
  const mode = parameters.get("color") in MODES ? parameters.get("color") : "version";
  const back = new URLSearchParams([["view", "groups"], ...filterOf(parameters)]);
  const set = (name, value) => {
    const changed = new URLSearchParams(parameters);
    changed.set(name, value);
    go(changed, { replace: true });
  };
  const choice = make("fieldset", {}, make("legend", {}, "Color tokens by"));
  for (const [name, label] of Object.entries(MODES)) {
    const radio = make("input", { type: "radio", name: `color-${name}`, value: name, checked: name === mode });
    radio.addEventListener("change", () => set("color", name));
    choice.append(make("label", {}, radio, ` ${label}`));
  }
  const copy = make("button", { type: "button" }, "Copy link");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    copy.textContent = "Copied";
    say("The link is copied.");
  });
  const reference = typeof group.reference === "string" ? group.reference : JSON.stringify(group.reference);
  const facts = [["outcome", group.dropped === null ? `trained in step ${group.step}` : `dropped before step ${group.step}: ${group.dropped}`],
    ["dataset row", group.row], ["reference answer", reference], ["grader", `${group.grader}, by ${group.verifier_id}`],
    ["sampled by", `${group.replica_id}, temperature ${group.temperature}`]];
  const wanted = Number(parameters.get("sample") ?? 0);
  const samples = group.responses.map((one, index) => sample(one, index, group, mode, index === wanted, (now) => {
    if (now && Number(new URLSearchParams(location.search).get("sample") ?? 0) !== index) {
      const changed = new URLSearchParams(location.search);
      changed.set("sample", index);
      history.replaceState(null, "", `?${changed}`);
      parameters.set("sample", index);
    }
  }));
  return [make("p", {}, make("a", { href: `?${back}` }, "← All groups"), " ", copy),
    make("article", { class: "group" }, make("h2", {}, `Group ${group.group_id} of step ${group.step}`),
      make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      make("h3", {}, `Prompt, ${number(group.prompt_tokens, 0)} tokens`), make("pre", { tabindex: "0" }, group.prompt),
      make("h3", {}, `${group.responses.length} responses`), choice, legend(mode, group), ...samples)];
}

function sample(one, index, group, mode, isOpen, onToggle) {
  const reward = one.reward === null ? "no reward" : `reward ${number(one.reward)}`;
  const head = make("summary", {}, `${index + 1}. `, make("b", { class: one.verdict === "correct" ? "good" : "bad" }, one.verdict), ` · ${reward} · ${number(one.token_ids.length, 0)} tokens${one.words.length ? ` in ${one.words.length} turns` : ""}${one.finish_reason === "stop" ? "" : ", cut"} · `, make("span", { class: "dim" }, one.text.slice(0, 80)));
  const shown = make("details", { open: isOpen }, head);
  const fill = () => {
    if (shown.childElementCount > 1) return;
    const rewards = one.words.map((words) => (words.reward === null ? "–" : number(words.reward)));
    if (rewards.some((reward) => reward !== "–")) shown.append(make("p", {}, `Rewards by turn: ${rewards.join(", ")}`));
    shown.append(make("p", {}, `Why: ${one.detail || "the verifier gave no reason"} (graded in ${number(one.grading_s * 1000, 3)} ms)`), ...tokens(one, group, mode),
      make("details", {}, make("summary", {}, "As the verifier read it"), make("pre", { tabindex: "0" }, one.text)));
  };
  shown.addEventListener("toggle", () => { if (shown.open) fill(); onToggle(shown.open); });
  if (isOpen) fill();
  return shown;
}

function tokens(one, group, mode) {
  const versions = [];
  for (const [version, from, to] of one.spans) for (let i = from; i < to; i++) versions[i] = version;
  const gap = (i) => (one.current_logp && one.current_logp[i] !== null && one.behavior_logp[i] !== null ? one.current_logp[i] - one.behavior_logp[i] : null);
  const weight = (i) => (one.one_way_weight ? one.one_way_weight[i] : null);
  const figure = make("p", { class: "figure", "aria-live": "polite" }, "Point at a token, or use the arrow keys in the text.");
  const box = make("div", { class: "tokens", tabindex: "0", role: "group", "aria-label": `Tokens colored by ${MODES[mode]}; arrow keys move` });
  const marks = []; // one for each token; an environment's words stand between them
  const said = new Map(one.words.map((words, turn) => [words.before, { ...words, turn }]));
  let at = -1, until = 0;
  const show = (i) => {
    if (i < 0 || i >= until) return;
    marks[at]?.classList.remove("on");
    at = i;
    marks[i].classList.add("on");
    const parts = [`token ${number(i + 1, 0)} of ${number(one.token_ids.length, 0)} ${JSON.stringify(one.pieces[i])} (id ${one.token_ids[i]})`, `version ${versions[i]}, lag ${group.step - 1 - versions[i]}`,
      `log-prob ${number(one.behavior_logp[i], 4)} behavior, ${number(one.current_logp?.[i], 4)} current`, `gap ${number(gap(i), 4)}`, `one-way weight ${number(weight(i), 4)}`];
    figure.textContent = parts.join(" · ");
  };
  const more = make("button", { type: "button" }, "Show more tokens");
  const fill = () => {
    const end = Math.min(one.token_ids.length, until + MOST_TOKENS);
    for (let i = until; i < end; i++) {
      const words = said.get(i);
      if (words && words.text) box.append(make("span", { class: words.restarts ? "read again" : "read", title: `the environment, before turn ${words.turn + 1}${words.restarts ? ": the sequence begins again" : ""}` }, words.text));
      const made = make("span", { class: weight(i) === 0 ? "out" : null }, one.pieces[i]);
      const color = colorOf(mode, mode === "version" ? group.step - 1 - versions[i] : mode === "gap" ? gap(i) : weight(i));
      if (color) made.style.backgroundColor = color;
      made.dataset.at = i;
      marks[i] = made;
      box.append(made);
    }
    until = end;
    more.hidden = until === one.token_ids.length;
  };
  fill();
  more.addEventListener("click", fill);
  box.addEventListener("pointerover", (event) => { if (event.target.dataset?.at) show(Number(event.target.dataset.at)); });
  box.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: Math.max(0, at - 1), Home: 0, End: until - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
    marks[at]?.scrollIntoView({ block: "nearest" });
  });
  return [box, more, figure];
}

function colorOf(mode, value) {
  if (value === null || value === undefined) return "";
  if (mode === "version") return value > 0 ? `rgba(${BLUE}, ${Math.min(0.7, 0.14 * value + 0.1)})` : value < 0 ? `rgba(${ORANGE}, .5)` : "";
  if (mode === "gap") return Math.abs(value) < 0.01 ? "" : `rgba(${value > 0 ? BLUE : ORANGE}, ${Math.min(0.75, 0.1 + Math.abs(value) * 0.65)})`;
  if (value === 0 || Math.abs(value - 1) < 0.005) return "";
  const away = Math.abs(Math.log2(value));
  return `rgba(${value > 1 ? BLUE : ORANGE}, ${Math.min(0.75, 0.1 + away * 0.6)})`;
}

function legend(mode, group) {
  const marks = {
    version: [[0, `lag 0: version ${group.step - 1}`], [1, "1 step older"], [2, "2 steps older"], [4, "4 or more older"], [-1, "of a version that a restart took back"]],
    gap: [[-1, "current less likely by 1 nat or more"], [-0.2, "by 0.2"], [0, "equal"], [0.2, "more likely by 0.2"], [1, "by 1 or more"]],
    weight: [[0.5, "weight 0.5: gain locked"], [0.8, "0.8"], [1, "1"], [1.25, "1.25"], [2, "2: alignment accelerated"]],
  }[mode];
  const made = make("p", { class: "legend" });
  for (const [value, label] of marks) {
    const swatch = make("i", { "aria-hidden": "true" });
    swatch.style.backgroundColor = colorOf(mode, value);
    made.append(make("span", {}, swatch, label));
  }
  if (group.responses.some((one) => one.words.length)) made.append(make("span", {}, make("span", { class: "read" }, "text"), " of the environment: read, not trained on"));
  if (mode === "weight") made.append(make("span", {}, make("s", {}, "text"), " does not count"));
  return made;
}
