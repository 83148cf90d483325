"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const number = (value) => value.toLocaleString("en-US");
  const entries = JSON.parse($("trajectories-index").textContent);
  const tasks = [...new Set(entries.map((entry) => entry.task))];
  const loaded = new Map();
  let chosen = 0, turn = 0;

  const load = (index) => {
    if (!loaded.has(index)) {
      const data = JSON.parse($(`trajectory-${index}`).textContent);
      let held = [];
      for (const item of data.turns) {
        held = held.slice(0, item.share).concat(item.lines);
        item.text = held;
      }
      loaded.set(index, data);
    }
    return loaded.get(index);
  };

  const options = (select, values, current) => {
    select.replaceChildren(...values.map(([value, label]) => {
      const option = make("option", { value }, label);
      option.selected = value === current;
      return option;
    }));
  };

  const choose = (index, atTurn) => {
    chosen = index;
    const entry = entries[index], data = load(index);
    options($("v-task"), tasks.map((task) => [task, task]), entry.task);
    const here = entries.map((other, place) => [place, other]).filter(([, other]) => other.task === entry.task);
    options($("v-arm"), here.map(([place, other]) => [place, `${other.arm} · seed ${other.seed} · ${other.outcome}`]), index);
    const ended = data.ended ? `Ended: ${data.ended}${data.reason ? ` (${data.reason})` : ""}.` : "The file has no end: the run was killed.";
    $("v-about").textContent = `${data.turns.length} turns. ${ended}${data.torn ? " Its last line is torn." : ""}`;
    strip(data);
    show(Math.min(atTurn ?? entry.edit ?? 0, data.turns.length - 1));
    const mark = $("v-input").querySelector("mark");
    if (atTurn === undefined && mark) $("v-input").scrollTop = Math.max(0, mark.offsetTop - $("v-input").offsetTop - 24);
  };

  const strip = (data) => {
    const most = Math.max(1, ...data.turns.map((item) => item.tokens[0]));
    $("v-strip").replaceChildren(...data.turns.map((item, place) => {
      const [prompt, cached, spliced, prefilled] = item.tokens;
      const bars = [[2, prefilled], [1, spliced], [0, cached]].map(([state, count]) =>
        make("i", { class: `p${state}`, style: `height:${(100 * count / most).toFixed(2)}%` }));
      const label = `turn ${place + 1}: ${number(prompt)} tokens, ${number(cached)} cached, ${number(spliced)} spliced, ` +
        `${number(prefilled)} prefilled, ${item.edits} edits`;
      return make("button", { type: "button", "aria-label": label, title: label, onclick: () => show(place) },
        make("span", { class: "mark" }, item.edits ? "▼" : ""), make("span", { class: "stack" }, ...bars),
        make("span", { class: "number" }, String(place + 1)));
    }));
  };

  const show = (place) => {
    const data = load(chosen);
    turn = place;
    $("v-prev").disabled = place <= 0;
    $("v-next").disabled = place >= data.turns.length - 1;
    [...$("v-strip").children].forEach((button, other) =>
      other === place ? button.setAttribute("aria-current", "step") : button.removeAttribute("aria-current"));
    if (place < 0) {
      $("v-turn").textContent = "no turn";
      for (const id of ["v-chips", "v-facts", "v-input", "v-after"]) $(id).replaceChildren();
      return;
    }
    const item = data.turns[place];
    $("v-turn").textContent = `turn ${place + 1} of ${data.turns.length}`;
    chips(item);
    facts(item);
    $("v-hint").textContent = item.exact
      ? "Exactly what the model read, token for token. An edit opens on a click and shows what it removed."
      : "The messages as they were sent. The server rendered them, or their tokenizer is not at hand, so only the sums of tokens are known, not their places.";
    $("v-input").replaceChildren(...input(item, data.lines));
    $("v-input").scrollTop = 0;
    after(item);
  };

  const input = (item, lines) => {
    const text = item.text.map((line) => lines[line]).join("\n");
    const nodes = [];
    let at = 0, tokensFrom = null;
    for (const [length, state, mark] of item.runs) {
      const piece = text.slice(at, at + length);
      at += length;
      if (mark < 0) {
        nodes.push(make("span", { class: `t${state}` }, piece));
        continue;
      }
      const last = nodes.at(-1);
      if (tokensFrom === mark && last?.tagName === "MARK") { last.append(piece); continue; }
      tokensFrom = mark;
      nodes.push(edit(item.marks[mark], piece));
    }
    return nodes;
  };

  const edit = ([made, mode, removed, text], piece) => {
    const what = `edit of turn ${made + 1}, ${mode}` + (removed ? `, ${number(removed)} tokens removed` : "");
    const node = make("mark", { tabindex: "0", role: "button", "aria-expanded": "false", title: what },
      piece || `⌫ ${number(removed)} tokens removed`);
    const toggle = () => {
      const open = node.getAttribute("aria-expanded") === "true";
      node.setAttribute("aria-expanded", String(!open));
      if (open) node.nextElementSibling.remove();
      else node.after(make("del", {}, `${what}${text ? ":\n" : "."}`, text));
    };
    node.addEventListener("click", toggle);
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
    });
    return node;
  };

  const chips = (item) => {
    const [, cached, spliced, prefilled] = item.tokens;
    const kinds = [["cached prefix", cached, ".t0", "swatch0"], ["spliced", spliced, ".t1", "swatch1"],
      ["prefilled", prefilled, ".t2", "swatch2"], ["edits in view", item.marks.length, "mark", "swatch3"]];
    $("v-chips").replaceChildren(...kinds.map(([name, count, selector, swatch]) => {
      const button = make("button", { type: "button", onclick: () => jump(selector) },
        make("i", { class: swatch }), `${name} ${number(count)}`);
      button.disabled = !count || (!item.exact && selector !== "mark");
      return button;
    }));
  };

  const jump = (selector) => {
    const box = $("v-input"), found = [...box.querySelectorAll(selector)].filter((node) => node.textContent);
    if (!found.length) return;
    const places = found.map((node) => node.offsetTop - box.offsetTop - 24);
    const next = Math.max(0, places.findIndex((top) => top > box.scrollTop + 4));
    box.scrollTop = places[next];
    box.querySelectorAll(".flash").forEach((node) => node.classList.remove("flash"));
    found[next].classList.add("flash");
  };

  const facts = (item) => {
    const [prompt, cached, spliced, prefilled] = item.tokens;
    const rows = [["prompt", `${number(prompt)} tokens = ${number(cached)} cached + ${number(spliced)} spliced + ${number(prefilled)} prefilled`],
      ["new edits", String(item.edits)]];
    if (item.approximate !== null) rows.push(["approximate", `from token ${number(item.approximate)} on: KV that a clean prefill would not give`]);
    if (item.fallback) rows.push(["fallback", `${item.fallback}${item.detail ? `: ${item.detail}` : ""}`]);
    if (item.ttft !== null) rows.push(["first token", `${(1000 * item.ttft).toFixed(0)} ms`]);
    $("v-facts").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  };

  const after = (item) => {
    const nodes = [make("h3", {}, "Answer"), make("pre", { tabindex: "0" }, item.answer || "(empty)")];
    for (const tool of item.tools) nodes.push(make("h3", {}, `Output of ${tool.name}`), make("pre", { tabindex: "0" }, tool.output || "(empty)"));
    $("v-after").replaceChildren(...nodes);
  };

  const follow = () => {
    const found = /^#view-(\d+)(?:-(\d+))?$/.exec(location.hash);
    if (!found || Number(found[1]) >= entries.length) return false;
    choose(Number(found[1]), found[2] ? Number(found[2]) - 1 : undefined);
    $("trajectories").scrollIntoView();
    return true;
  };

  $("v-task").addEventListener("change", (event) => {
    const same = entries.findIndex((entry) => entry.task === event.target.value && entry.arm === entries[chosen].arm);
    choose(same >= 0 ? same : entries.findIndex((entry) => entry.task === event.target.value));
  });
  $("v-arm").addEventListener("change", (event) => choose(Number(event.target.value), turn));
  $("v-prev").addEventListener("click", () => show(turn - 1));
  $("v-next").addEventListener("click", () => show(turn + 1));
  $("v-strip").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const target = turn + step;
    if (!step || target < 0 || target >= load(chosen).turns.length) return;
    event.preventDefault();
    show(target);
    $("v-strip").children[target].focus();
  });
  addEventListener("hashchange", follow);
  $("viewer").hidden = false;
  if (!follow()) choose(Math.max(0, entries.findIndex((entry) => entry.edit !== null)));
})();
