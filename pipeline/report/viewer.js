"use strict";
// Rows reach the page as text nodes only: nothing in them can become markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const NAMES = ["kept", "inserted", "substituted", "deleted"];
  const ITEM = 58; // pixels of a list item
  let rows = [], chosen = null, focused = -1;

  const element = (tag, kind, text) => {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // Invisible characters, shown as signs.
  const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\u{e0100}-\u{e01ef}]/u;
  const NO_BREAK = /[\u00a0\u202f\u2007]/;
  const sign = (c, outer) => {
    if (c === "\n") return "⏎";
    if (c === "\t") return "⇥";
    if (NO_BREAK.test(c)) return "⍽";
    if (INVISIBLE.test(c)) return `⟨${c.codePointAt(0).toString(16).padStart(4, "0")}⟩`;
    return c === " " && outer ? "·" : "";
  };
  // Appends text with signs; `whole` also marks spaces at the ends.
  const show = (into, text, whole) => {
    const head = whole ? text.length - text.trimStart().length : 0, tail = whole ? text.trimEnd().length : text.length;
    let plain = "", n = 0;
    const flush = () => { if (plain) into.append(plain); plain = ""; };
    for (const c of text) {
      const mark = sign(c, n < head || n >= tail);
      if (mark) {
        flush();
        into.append(element("span", "mark", mark));
        if (c === "\n") into.append("\n");
      } else plain += c;
      n += c.length;
    }
    flush();
    return into;
  };
  const visible = (text) => show(element("span"), text, true).textContent;

  // Answers as tokens, with their operation, id and weight.
  const unpack = (side) => {
    const tokens = [];
    for (const [count, op, weight] of side.r)
      for (let k = 0; k < count; k++) {
        const n = tokens.length, [id, text] = data.vocabulary[side.t[n]];
        tokens.push({ id, text, op, weight, n, last: n === side.t.length - 1 });
      }
    return tokens;
  };
  const describe = (t) => `token ${t.n}  id ${t.id}  weight ${t.weight}`;
  // The mark says where a token is: only in the initial answer, or only in the revised one. The colour is the sign of its weight.
  const token = (t, mark, signed) => {
    const weight = t.weight ?? { del: -1, ins: 1, kept: 0 }[mark];
    const tint = weight ? `${weight > 0 ? "up" : "down"} w${Math.min(4, Math.ceil(4 * Math.abs(weight)))}` : "w0";
    const node = element("span", `tok ${mark} ${tint}`);
    if (signed) node.append(element("span", "sign", mark === "ins" ? "+" : "−"));
    if (t.id !== null && t.text === "") node.append(element("span", "mark", t.last ? "∅" : "‥"));
    else show(node, t.text, false);
    const facts = t.id === null ? "a word, not a token" : describe(t);
    node.dataset.facts = `${facts}  ${NAMES[t.op]}  “${visible(t.text)}”`;
    return node;
  };
  // Appends tokens, all with one mark, or each with its operation's. The later tokens of one character have no text: where
  // nothing else differs, the first one describes them too.
  const append = (into, tokens, mark) => tokens.forEach((t, n) => {
    const before = tokens[n - 1];
    if (before && t.id !== null && t.text === "" && !t.last && before.op === t.op && before.weight === t.weight)
      into.lastChild.dataset.facts += `  and ${describe(t)}`;
    else {
      const own = mark(t);
      into.append(token(t, own, own !== "kept" && (!before || mark(before) !== own)));
    }
  });
  const answer = (kind, tokens) => {
    const node = element("p", `text answer ${kind}`);
    append(node, tokens, (t) => !t.op ? "kept" : kind === "initial" ? "del" : "ins");
    return node;
  };
  // Both answers as one text: kept runs, and edits as what was removed, then what was added. A short kept run between two edits
  // joins them, in both texts and without a tint, so that phrases can be read.
  const SHORT = 2; // words
  const joined = (a, b) => {
    const steps = [];
    for (let i = 0, j = 0; i < a.length || j < b.length;) {
      const from = [i, j];
      while (i < a.length && a[i].op) i++;
      while (j < b.length && b[j].op) j++;
      if (i > from[0] || j > from[1]) steps.push({ del: a.slice(from[0], i), ins: b.slice(from[1], j), edit: true });
      else {
        const kept = steps[steps.length - 1];
        if (!kept || kept.edit) steps.push({ del: [], ins: [] });
        const run = steps[steps.length - 1];
        if (i < a.length) run.del.push(a[i++]);
        if (j < b.length) run.ins.push(b[j++]);
      }
    }
    const words = (tokens) => tokens.map((t) => t.text).join("").split(/\s+/u).filter(Boolean).length;
    return steps.reduce((all, step) => {
      const kept = all[all.length - 1], edit = all[all.length - 2];
      const together = edit && step.edit && kept.ins.length && words(kept.ins) <= SHORT && !kept.ins.some((t) => t.text.includes("\n"))
        && (edit.del.length || step.del.length) && (edit.ins.length || step.ins.length);
      if (!together) return [...all, step];
      return [...all.slice(0, -2), { edit: true, del: [...edit.del, ...kept.del, ...step.del], ins: [...edit.ins, ...kept.ins, ...step.ins] }];
    }, []);
  };
  const inline = (a, b) => {
    const node = element("p", "text answer inline");
    for (const step of joined(a, b)) {
      if (step.edit) for (const mark of ["del", "ins"]) append(node, step[mark], () => mark);
      else if (step.ins.every((t) => !t.weight && (t.text || t.last))) {
        const run = element("span", "tok kept w0");
        for (const t of step.ins) if (t.text || t.id === null) show(run, t.text, false); else run.append(element("span", "mark", "∅"));
        run.dataset.facts = `${step.ins.length} kept tokens, weight 0; side by side shows each`;
        node.append(run);
      } else append(node, step.ins.length ? step.ins : step.del, () => "kept");
    }
    return node;
  };

  const part = (into, title, text, whole = true) => {
    if (text === null || text === undefined || text === "") return;
    into.append(element("h3", "", title), show(element("p", "text"), text, whole));
  };
  const number = (value, signed) => {
    if (value === null || value === undefined) return "–";
    return (signed && value >= 0 ? "+" : "") + value.toFixed(2);
  };
  const figures = (row) => {
    const node = element("div", "scores");
    const values = [
      ["reference", number(row.reward_reference)], ["initial", number(row.reward_initial)], ["revised", number(row.reward_revised)],
      ["gain", number(row.reward_gain, true)], ["distance", number(row.edit_distance)],
      ["diagnosis", row.diagnosis ?? "–"], ["source", row.source ?? "–"],
    ];
    for (const [name, value] of values) {
      const one = element("span", "", `${name} `);
      one.append(element("b", "", visible(value)));
      node.append(one);
    }
    return node;
  };
  const messages = (into, row) => {
    into.append(element("h3", "", "Prompt"));
    for (const message of row.messages) {
      const p = element("p", "text");
      p.append(element("span", "role", visible(message.role)));
      into.append(show(p, message.content, true));
    }
  };
  const plain = (tokens) => tokens.map((t) => t.text).join("");
  const answers = (into, row) => {
    const a = unpack(row.initial), b = unpack(row.revised), layout = at("layout").value;
    if (layout === "inline") {
      into.append(element("h3", "", "Initial to revised answer"), inline(a, b));
      return;
    }
    const sides = element("div", "sides");
    for (const [name, title, tokens] of [["initial", "Initial answer", a], ["revised", "Revised answer", b]]) {
      const side = element("div");
      side.append(element("h3", "", title), layout === "clean" ? show(element("p", "text"), plain(tokens), false) : answer(name, tokens));
      sides.append(side);
    }
    into.append(sides);
  };
  const draw = () => {
    const into = at("row"), row = rows[chosen];
    into.replaceChildren();
    focused = -1;
    at("token").textContent = "";
    count();
    if (!row) {
      into.append(element("p", "quiet", "No row matches."));
      return;
    }
    into.append(element("h2", "", visible(row.id ?? "(no id)")), figures(row));
    if (row.stage) into.append(element("p", "note", `rejected at ${visible(row.stage)}: ${visible(row.reason)}`));
    part(into, "What is wrong with the initial answer", row.critique);
    messages(into, row);
    if (row.initial && row.initial.t) answers(into, row);
    else {
      part(into, "Initial answer", row.initial);
      part(into, "Revised answer", row.revised);
    }
    editor(into, row);
    part(into, "Reference", row.reference);
    part(into, "Evidence", row.evidence, false);
  };

  // Review: decisions by id, in this browser's storage until they are saved as a file.
  const STORE = `figa-review ${data.run}`;
  const stored = (() => { try { return JSON.parse(localStorage.getItem(STORE)) ?? {}; } catch { return {}; } })();
  const decisions = new Map(Object.entries(stored.decisions ?? {}));
  at("reviewer").value = stored.reviewer ?? "";
  const keep = () => {
    const value = { reviewer: at("reviewer").value, decisions: Object.fromEntries(decisions) };
    try { localStorage.setItem(STORE, JSON.stringify(value)); } catch { /* no storage: the file is all there is */ }
  };
  const count = () => {
    const kinds = [...decisions.values()].map((one) => one.decision), row = rows[chosen];
    const each = ["keep", "drop", "edit"].map((kind) => `${kinds.filter((one) => one === kind).length} ${kind}`).join(", ");
    at("counter").textContent = `${kinds.length} of ${data.pairs.length} decided: ${each}`;
    for (const button of document.querySelectorAll("[data-decide]")) {
      const pair = row && !row.stage;
      button.disabled = !pair || (button.dataset.decide === "edit" && row.cut);
      button.setAttribute("aria-pressed", String(Boolean(pair && decisions.get(row.id)?.decision === button.dataset.decide)));
    }
  };
  const editor = (into, row) => {
    if (row.stage || decisions.get(row.id)?.decision !== "edit") return;
    const area = element("textarea");
    area.id = "edited";
    area.setAttribute("aria-label", "Your revision");
    area.value = decisions.get(row.id).revised;
    area.addEventListener("input", () => { decisions.set(row.id, { decision: "edit", revised: area.value }); keep(); });
    into.append(element("h3", "", "Your revision"), area);
  };
  const decide = (kind) => {
    const row = rows[chosen];
    if (!row || row.stage || (kind === "edit" && row.cut)) return;
    const same = decisions.get(row.id)?.decision === kind;
    if (same && kind !== "edit") decisions.delete(row.id);
    else if (!same) decisions.set(row.id, kind === "edit" ? { decision: kind, revised: plain(unpack(row.revised)) } : { decision: kind });
    keep();
    if (kind !== "edit" && !same && chosen < rows.length - 1) choose(chosen + 1);
    else { paint(); draw(); }
    if (kind === "edit") at("edited").focus();
  };
  const save = () => {
    const listed = [...decisions].map(([id, decision]) => ({ id, ...decision }));
    const file = { format: "figa-review", run_digest: data.run, reviewer: at("reviewer").value.trim() || "anonymous", decisions: listed };
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
    link.download = "decisions.json";
    link.click();
    URL.revokeObjectURL(link.href);
  };

  // The list holds only the items in sight, some dozen, however many rows there are.
  const list = at("list");
  const padding = (count) => {
    const node = element("li", "pad");
    node.setAttribute("role", "presentation");
    node.style.height = `${count * ITEM}px`;
    return node;
  };
  const item = (row, n) => {
    const node = element("li"), query = row.messages.length ? row.messages[row.messages.length - 1].content : "";
    node.id = `item-${n}`;
    node.dataset.n = n;
    const attributes = { role: "option", "aria-selected": n === chosen, "aria-posinset": n + 1, "aria-setsize": rows.length };
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
    const summary = row.stage ? `${visible(row.stage)}: ${visible(row.reason)}`
      : `${visible(row.diagnosis ?? "")} · gain ${number(row.reward_gain, true)} · distance ${number(row.edit_distance)}`;
    const decided = row.stage ? undefined : decisions.get(row.id)?.decision;
    if (decided) node.append(element("span", "decided", decided));
    node.append(element("span", "what", visible(query.slice(0, 120)) || "(no prompt)"), element("span", "how", summary));
    return node;
  };
  const paint = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ITEM) - 3);
    const last = Math.min(rows.length, first + Math.ceil(list.clientHeight / ITEM) + 6);
    const items = rows.slice(first, last).map((row, k) => item(row, first + k));
    list.replaceChildren(padding(first), ...items, padding(rows.length - last));
    const active = at(`item-${chosen}`);
    if (active) list.setAttribute("aria-activedescendant", active.id); else list.removeAttribute("aria-activedescendant");
  };
  const choose = (n, link = true) => {
    chosen = rows.length ? Math.max(0, Math.min(rows.length - 1, n)) : null;
    if (chosen !== null) {
      const top = chosen * ITEM;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ITEM > list.scrollTop + list.clientHeight) list.scrollTop = top + ITEM - list.clientHeight;
      if (link) history.replaceState(null, "", `#row=${encodeURIComponent(rows[chosen].id ?? "")}`);
    }
    paint();
    draw();
  };

  // Search, filters and order.
  const searched = (row) => {
    const texts = [row.id, row.source, row.reference, row.diagnosis, row.critique, row.reason, row.stage, row.evidence, ...row.messages.map((m) => m.content)];
    for (const side of [row.initial, row.revised]) texts.push(side && side.t ? side.t.map((n) => data.vocabulary[n][1]).join("") : side);
    return texts.filter((t) => typeof t === "string").join("\n").toLowerCase();
  };
  const length = (row) => row.initial && row.initial.t ? row.initial.t.length + row.revised.t.length : (row.initial ?? "").length;
  for (const row of [...data.pairs, ...data.rejects]) Object.assign(row, { searched: searched(row), length: length(row) });
  const kind = () => data[at("kind").value];
  const reasonOf = (row) => row.stage ? `${row.stage}: ${row.reason}` : row.diagnosis;
  const options = (id, values) => {
    const distinct = [...new Set(values)].sort();
    at(id).replaceChildren(new Option("all", ""), ...distinct.map((v) => new Option(visible(String(v)), String(v))));
  };
  const fillOptions = () => {
    options("reason", kind().map(reasonOf));
    options("source", kind().map((row) => row.source));
  };
  const within = (value, name) => {
    const low = at(`${name}-min`).value, high = at(`${name}-max`).value;
    if (low === "" && high === "") return true;
    return value !== null && value !== undefined && (low === "" || value >= Number(low)) && (high === "" || value <= Number(high));
  };
  const filter = () => {
    const started = performance.now();
    const text = at("search").value.toLowerCase(), reason = at("reason").value, source = at("source").value, decided = at("decided").value;
    rows = kind().filter((row) => (!reason || reasonOf(row) === reason) && (!source || row.source === source) && (!text || row.searched.includes(text)) && (!decided || (decisions.get(row.id)?.decision ?? "none") === decided)
      && within(row.reward_gain, "gain") && within(row.edit_distance, "distance"));
    const [name, way] = at("sort").value.split(":");
    // Rows without the number come last, whichever way.
    if (name) rows.sort((a, b) => (a[name] == null) - (b[name] == null) || way * (a[name] - b[name]));
    list.style.setProperty("--rows", `${Math.max(1, rows.length) * ITEM + 2}px`);
    list.scrollTop = 0;
    choose(0, false);
    at("status").textContent = `${rows.length} of ${kind().length} ${at("kind").value === "pairs" ? "pairs" : "rejected rows"}`;
    document.body.dataset.filterMs = (performance.now() - started).toFixed(1);
  };
  const FILTERS = ["search", "reason", "source", "gain-min", "gain-max", "distance-min", "distance-max", "sort", "decided"];
  const clear = () => { for (const id of FILTERS) at(id).value = ""; };

  // A link to a row: #row=ID.
  const open = () => {
    const wanted = /^#row=(.+)$/.exec(location.hash);
    if (!wanted) return;
    let id;
    try { id = decodeURIComponent(wanted[1]); } catch { return; }
    const name = ["pairs", "rejects"].find((name) => data[name].some((row) => row.id === id));
    if (!name) {
      at("status").textContent = `The row ${visible(id)} is not among those shown here.`;
      return;
    }
    clear();
    at("kind").value = name;
    fillOptions();
    filter();
    choose(rows.findIndex((row) => row.id === id));
    at("viewer").scrollIntoView();
  };

  const point = (node) => {
    document.querySelector(".tok.at")?.classList.remove("at");
    if (!node) return;
    node.classList.add("at");
    at("token").textContent = node.dataset.facts;
  };
  const pressed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
    const tokens = [...document.querySelectorAll("#row .answer .tok")], key = event.key, inList = event.target === list;
    const turn = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (key === "t") { focused = focused < 0 && tokens.length ? 0 : -1; if (focused < 0) point(null); }
    else if (key === "Escape") { focused = -1; point(null); }
    else if ({ k: 1, d: 1, e: 1 }[key]) decide({ k: "keep", d: "drop", e: "edit" }[key]);
    else if (key === "/") at("search").focus();
    else if (focused >= 0 && turn) focused = Math.max(0, Math.min(tokens.length - 1, focused + turn));
    else if (key === "j" || key === "ArrowRight" || (key === "ArrowDown" && inList)) choose((chosen ?? -1) + 1);
    else if (key === "p" || key === "ArrowLeft" || (key === "ArrowUp" && inList)) choose((chosen ?? 1) - 1);
    else if (inList && (key === "Home" || key === "End")) choose(key === "Home" ? 0 : rows.length - 1);
    else return;
    event.preventDefault();
    if (focused >= 0 && tokens[focused]) { point(tokens[focused]); tokens[focused].scrollIntoView({ block: "nearest" }); }
  };
  at("row").addEventListener("pointerover", (event) => { const node = event.target.closest(".answer .tok"); if (node) point(node); });
  at("row").addEventListener("click", (event) => point(event.target.closest(".answer .tok")));
  list.addEventListener("scroll", paint);
  list.addEventListener("click", (event) => { const node = event.target.closest("li[data-n]"); if (node) choose(Number(node.dataset.n)); });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("filters").addEventListener("reset", (event) => { event.preventDefault(); clear(); filter(); });
  for (const id of FILTERS) at(id).addEventListener("input", filter);
  at("kind").addEventListener("input", () => { fillOptions(); filter(); });
  at("layout").addEventListener("input", draw);
  for (const button of document.querySelectorAll("[data-decide]")) button.addEventListener("click", () => decide(button.dataset.decide));
  at("reviewer").addEventListener("input", keep);
  at("save").addEventListener("click", save);
  window.addEventListener("hashchange", open);
  window.addEventListener("resize", paint);
  document.addEventListener("keydown", pressed);
  at("theme").addEventListener("click", () => {
    const root = document.documentElement.dataset;
    const dark = root.theme ? root.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.theme = dark ? "light" : "dark";
  });
  // The first screen: the best pair that is read in a minute.
  const hero = () => {
    const into = at("hero"), row = data.pairs.find((row) => row.length < 260 && row.edit_distance > 0.1 && row.edit_distance < 0.5) ?? data.pairs[0];
    if (!row) {
      into.append(element("p", "", "No pair survived. The rejected rows are below, with their reasons."));
      return;
    }
    part(into, "What is wrong with the initial answer", row.critique);
    messages(into, row);
    into.append(element("h3", "", "Initial to revised answer"), inline(unpack(row.initial), unpack(row.revised)), figures(row));
    const link = element("a", "", "Open this pair");
    link.href = `#row=${encodeURIComponent(row.id ?? "")}`;
    into.append(link);
  };
  if (!data.pairs.length && data.rejects.length) at("kind").value = "rejects";
  hero(); fillOptions(); filter(); open();
})();
