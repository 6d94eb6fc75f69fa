"use strict";
// Rows reach the page as text nodes only: nothing in them can become markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const KINDS = ["kept", "ins", "sub", "del"], NAMES = ["kept", "inserted", "substituted", "deleted"];
  const ITEM = 58;
  let rows = [], chosen = null, focused = -1;

  const element = (tag, kind, text) => {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const code = (c) => `⟨${c.codePointAt(0).toString(16).padStart(4, "0")}⟩`;
  const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\u{e0100}-\u{e01ef}]/u;
  const NO_BREAK = /[\u00a0\u202f\u2007]/;

  // Text with what can't be seen put beside it as signs; `whole` also marks spaces at the ends.
  const show = (into, text, whole) => {
    const head = whole ? text.length - text.trimStart().length : 0, tail = whole ? text.trimEnd().length : text.length;
    let plain = "", n = 0;
    const flush = () => { if (plain) into.append(plain); plain = ""; };
    for (const c of text) {
      let sign = "";
      if (c === "\n") sign = "⏎"; else if (c === "\t") sign = "⇥"; else if (NO_BREAK.test(c)) sign = "⍽";
      else if (INVISIBLE.test(c)) sign = code(c); else if (c === " " && (n < head || n >= tail)) sign = "·";
      if (sign) { flush(); into.append(element("span", "mark", sign)); if (c === "\n") into.append("\n"); } else plain += c;
      n += c.length;
    }
    flush();
    return into;
  };
  const visible = (text) => show(element("span"), text, true).textContent;

  const unpack = (side) => {
    const made = [];
    let n = 0;
    for (const [count, op, weight] of side.r)
      for (let k = 0; k < count; k++) { const [id, text] = data.vocabulary[side.t[n++]]; made.push({ id, text, op, weight, n: n - 1, last: n === side.t.length }); }
    return made;
  };
  const token = (t, signed) => {
    const strength = t.weight === null ? 3 : Math.min(4, Math.ceil(4 * Math.abs(t.weight)));
    const made = element("span", `tok ${KINDS[t.op]} w${strength}`);
    if (t.op && signed) made.append(element("span", "sign", "·+±−"[t.op]));
    if (t.id !== null && t.text === "") made.append(element("span", "mark", t.last ? "∅" : "‥")); else show(made, t.text, false);
    const facts = t.id === null ? "a word, not a token" : told(t);
    made.dataset.facts = `${facts}  ${NAMES[t.op]}  “${visible(t.text)}”`;
    return made;
  };
  const told = (t) => `token ${t.n}  id ${t.id}  weight ${t.weight}`;
  const answer = (kind, tokens) => {
    const made = element("p", `text answer ${kind}`);
    tokens.forEach((t, n) => {
      const before = tokens[n - 1];
      // The later tokens of one character have no text of their own: where nothing else differs, they are told with the first.
      if (before && t.id !== null && t.text === "" && !t.last && before.op === t.op && before.weight === t.weight)
        made.lastChild.dataset.facts += `  and ${told(t)}`;
      else made.append(token(t, !before || before.op !== t.op));
    });
    return made;
  };
  const inline = (a, b) => {
    const joined = [];
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      const from = joined.length;
      while (i < a.length && a[i].op) joined.push(a[i++].op === 2 ? { ...a[i - 1], op: 3 } : a[i - 1]);
      while (j < b.length && b[j].op) joined.push(b[j++].op === 2 ? { ...b[j - 1], op: 1 } : b[j - 1]);
      if (joined.length === from) { if (j < b.length) joined.push(b[j]); else joined.push(a[i]); i++; j++; }
    }
    return answer("inline", joined);
  };

  const part = (into, title, text, whole = true) => {
    if (text === null || text === undefined || text === "") return;
    into.append(element("h3", "", title));
    into.append(show(element("p", "text"), text, whole));
  };
  const number = (value, signed) => value === null || value === undefined ? "–" : (signed && value >= 0 ? "+" : "") + value.toFixed(2);
  const scores = (row) => {
    const made = element("div", "scores");
    const told = [["reference", number(row.reward_reference)], ["initial", number(row.reward_initial)], ["revised", number(row.reward_revised)],
      ["gain", number(row.reward_gain, true)], ["distance", number(row.edit_distance)], ["diagnosis", row.diagnosis ?? "–"], ["source", row.source ?? "–"]];
    for (const [name, value] of told) { const one = element("span", "", `${name} `); one.append(element("b", "", visible(value))); made.append(one); }
    return made;
  };
  const messages = (into, row) => {
    into.append(element("h3", "", "Prompt"));
    for (const m of row.messages) { const p = element("p", "text"); p.append(element("span", "role", visible(m.role))); into.append(show(p, m.content, true)); }
  };

  const draw = () => {
    const into = at("row"), row = rows[chosen];
    into.replaceChildren();
    focused = -1; at("token").textContent = "";
    if (!row) { into.append(element("p", "quiet", "No row matches.")); return; }
    into.append(element("h2", "", visible(row.id ?? "(no id)")));
    into.append(scores(row));
    if (row.stage) into.append(element("p", "note", `rejected at ${visible(row.stage)}: ${visible(row.reason)}`));
    messages(into, row);
    if (row.initial && row.initial.t) {
      const a = unpack(row.initial), b = unpack(row.revised);
      if (at("layout").value === "inline") { into.append(element("h3", "", "Initial to revised")); into.append(inline(a, b)); }
      else {
        const sides = element("div", "sides");
        for (const [name, tokens] of [["initial", a], ["revised", b]]) { const one = element("div"); one.append(element("h3", "", name === "initial" ? "Initial answer" : "Revised answer")); one.append(answer(name, tokens)); sides.append(one); }
        into.append(sides);
      }
    } else { part(into, "Initial answer", row.initial); part(into, "Revised answer", row.revised); }
    part(into, "Reference", row.reference);
    part(into, "Evidence", row.evidence, false);
  };

  // The list draws only what is in sight: some dozen items, however many rows.
  const list = at("list");
  const paint = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ITEM) - 3), last = Math.min(rows.length, first + Math.ceil(list.clientHeight / ITEM) + 6);
    const pad = (count) => { const made = element("li", "pad"); made.setAttribute("role", "presentation"); made.style.height = `${count * ITEM}px`; return made; };
    const made = [pad(first)];
    for (let n = first; n < last; n++) {
      const row = rows[n], item = element("li");
      item.id = `item-${n}`; item.setAttribute("role", "option"); item.setAttribute("aria-selected", String(n === chosen)); item.dataset.n = n;
      item.setAttribute("aria-posinset", n + 1); item.setAttribute("aria-setsize", rows.length);
      const last_ = row.messages.length ? row.messages[row.messages.length - 1].content : "";
      item.append(element("span", "what", visible(last_.slice(0, 120)) || "(no prompt)"));
      item.append(element("span", "how", row.stage ? `${visible(row.stage)}: ${visible(row.reason)}` : `${visible(row.diagnosis ?? "")} · gain ${number(row.reward_gain, true)} · distance ${number(row.edit_distance)}`));
      made.push(item);
    }
    made.push(pad(rows.length - last));
    list.replaceChildren(...made);
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
    paint(); draw();
  };

  const searched = (row) => {
    const texts = [row.id, row.source, row.reference, row.diagnosis, row.reason, row.stage, row.evidence, ...row.messages.map((m) => m.content)];
    for (const side of [row.initial, row.revised]) texts.push(side && side.t ? side.t.map((n) => data.vocabulary[n][1]).join("") : side);
    return texts.filter((t) => typeof t === "string").join("\n").toLowerCase();
  };
  const length = (row) => row.initial && row.initial.t ? row.initial.t.length + row.revised.t.length : (row.initial ?? "").length;
  for (const row of [...data.pairs, ...data.rejects]) { row.searched = searched(row); row.length = length(row); }

  const kind = () => data[at("kind").value];
  const reasonOf = (row) => row.stage ? `${row.stage}: ${row.reason}` : row.diagnosis;
  const options = (id, values) => {
    at(id).replaceChildren(new Option("all", ""), ...[...new Set(values)].sort().map((v) => new Option(visible(String(v)), String(v))));
  };
  const fillOptions = () => { options("reason", kind().map(reasonOf)); options("source", kind().map((row) => row.source)); };
  const within = (value, name) => {
    const low = at(`${name}-min`).value, high = at(`${name}-max`).value;
    if (low === "" && high === "") return true;
    return value !== null && value !== undefined && (low === "" || value >= Number(low)) && (high === "" || value <= Number(high));
  };
  const filter = () => {
    const started = performance.now();
    const text = at("search").value.toLowerCase(), reason = at("reason").value, source = at("source").value;
    rows = kind().filter((row) => (!reason || reasonOf(row) === reason) && (!source || row.source === source) && (!text || row.searched.includes(text))
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

  const FILTERS = ["search", "reason", "source", "gain-min", "gain-max", "distance-min", "distance-max", "sort"];
  const clear = () => { for (const id of FILTERS) at(id).value = ""; };
  const open = () => {
    const wanted = /^#row=(.+)$/.exec(location.hash);
    if (!wanted) return;
    let id;
    try { id = decodeURIComponent(wanted[1]); } catch { return; }
    for (const name of ["pairs", "rejects"]) {
      const place = data[name].findIndex((row) => row.id === id);
      if (place < 0) continue;
      clear(); at("kind").value = name; fillOptions(); filter(); choose(rows.findIndex((row) => row.id === id));
      at("viewer").scrollIntoView(); return;
    }
    at("status").textContent = `The row ${visible(id)} is not among those shown here.`;
  };

  const tell = (made) => {
    document.querySelector(".tok.at")?.classList.remove("at");
    if (made) { made.classList.add("at"); at("token").textContent = made.dataset.facts; }
  };
  at("row").addEventListener("pointerover", (event) => { const made = event.target.closest(".answer .tok"); if (made) tell(made); });
  at("row").addEventListener("click", (event) => tell(event.target.closest(".answer .tok")));
  list.addEventListener("scroll", paint);
  list.addEventListener("click", (event) => { const item = event.target.closest("li[data-n]"); if (item) choose(Number(item.dataset.n)); });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("filters").addEventListener("reset", (event) => { event.preventDefault(); clear(); filter(); });
  for (const id of FILTERS) at(id).addEventListener("input", filter);
  at("kind").addEventListener("input", () => { fillOptions(); filter(); });
  at("layout").addEventListener("input", draw);
  window.addEventListener("hashchange", open);
  window.addEventListener("resize", paint);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
    const tokens = [...document.querySelectorAll(".answer .tok")];
    if (event.key === "t") { focused = focused < 0 && tokens.length ? 0 : -1; if (focused < 0) tell(null); }
    else if (event.key === "Escape") { focused = -1; tell(null); }
    else if (event.key === "/") at("search").focus();
    else if (focused >= 0 && (event.key === "ArrowRight" || event.key === "ArrowLeft")) focused = Math.max(0, Math.min(tokens.length - 1, focused + (event.key === "ArrowRight" ? 1 : -1)));
    else if (event.key === "j" || event.key === "ArrowRight" || (event.key === "ArrowDown" && event.target === list)) { choose((chosen ?? -1) + 1); event.preventDefault(); return; }
    else if (event.key === "k" || event.key === "ArrowLeft" || (event.key === "ArrowUp" && event.target === list)) { choose((chosen ?? 1) - 1); event.preventDefault(); return; }
    else if (event.target === list && (event.key === "Home" || event.key === "End")) choose(event.key === "Home" ? 0 : rows.length - 1);
    else return;
    event.preventDefault();
    if (focused >= 0 && tokens[focused]) { tell(tokens[focused]); tokens[focused].scrollIntoView({ block: "nearest" }); }
  });
  at("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  });
  fillOptions(); filter(); open();
})();
