(() => {
  "use strict";
  const section = document.getElementById("answers");
  if (!section) return;
  const ROW = 46, PAGE = 10000, AROUND = 8;
  const element = (id) => document.getElementById(id);
  const form = element("answers-form"), list = element("answers-list"), sizer = element("answers-sizer");
  const detail = element("answers-detail"), status = element("answers-status"), pager = element("answers-pager");
  const KINDS = ["right → wrong", "wrong → right", "right", "wrong", "not scored"];
  const LOST = 0, GAINED = 1, RIGHT = 2, WRONG = 3, UNSCORED = 4;

  // Text of models and users only ever becomes text: no markup, no links, controls and bidi overrides made visible.
  const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]/g;
  const harmless = (text) => String(text).replace(CONTROLS, (one) => "⟨U+" + one.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0") + "⟩");
  function make(tag, text, name) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = harmless(text);
    if (name) made.className = name;
    return made;
  }
  function quoted(tag, text, name) {
    const made = make(tag, text, name);
    made.dir = "auto";
    return made;
  }

  function bytes(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const raw = atob(base64), made = new Uint8Array(raw.length);
    for (let at = 0; at < raw.length; at++) made[at] = raw.charCodeAt(at);
    return made;
  }
  const unpack = (base64) => new Response(new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("gzip"))).json();

  // Blocks of texts: inside the page, or in script files beside it. The few last ones are kept unpacked.
  const waiting = new Map(), opened = new Map();
  window.effortbenchBlock = (number, base64) => waiting.get(number)?.(base64);
  function packed(number) {
    const inside = element("answers-block-" + number);
    if (inside) return Promise.resolve(inside.textContent.trim());
    return new Promise((found, lost) => {
      const script = document.createElement("script");
      const done = () => { waiting.delete(number); script.remove(); };
      waiting.set(number, (base64) => { done(); found(base64); });
      script.onerror = () => { done(); lost(new Error("answers/" + String(number).padStart(4, "0") + ".js is missing: keep the folder answers/ beside this page")); };
      script.src = "answers/" + String(number).padStart(4, "0") + ".js";
      document.head.append(script);
    });
  }
  function block(number) {
    let found = opened.get(number);
    if (!found) {
      found = packed(number).then(unpack);
      found.catch(() => opened.delete(number));
      if (opened.size >= 8) opened.delete(opened.keys().next().value);
      opened.set(number, found);
    }
    return found;
  }

  let data, samples, questions, mates, kinds, rows = [], page = 0, active = -1, matches = null, turn = 0, looked = 0;

  function blockOf(sample) {
    let low = 0, high = data.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (data.starts[middle] <= sample) low = middle; else high = middle - 1;
    }
    return low;
  }

  function pair() {
    const count = samples.question.length;
    mates = new Int32Array(count).fill(-1);
    kinds = new Uint8Array(count);
    const base = new Int32Array(questions.item.length).fill(-1);
    for (let at = 0; at < count; at++) if (samples.arm[at] === data.reference) base[samples.question[at]] = at;
    const isRight = (at) => samples.score[at] >= 1;
    for (let at = 0; at < count; at++) {
      const mate = samples.arm[at] === data.reference ? -1 : base[samples.question[at]];
      mates[at] = mate;
      if (samples.score[at] === null) kinds[at] = UNSCORED;
      else if (mate < 0 || samples.score[mate] === null || isRight(mate) === isRight(at)) kinds[at] = isRight(at) ? RIGHT : WRONG;
      else kinds[at] = isRight(at) ? GAINED : LOST;
    }
  }

  function choices(name, texts, all, chosen) {
    const select = form.elements[name];
    if (all) select.append(new Option(all, ""));
    texts.forEach((text, value) => select.append(new Option(harmless(text), String(value), value === chosen, value === chosen)));
    if (texts.length < 2) select.closest("label").hidden = true;
  }

  function wanted(name) {
    const value = form.elements[name].value;
    return value === "" ? -1 : Number(value);
  }

  function filter() {
    const arm = wanted("arm"), place = wanted("place"), effort = wanted("effort"), language = wanted("language");
    const outcome = wanted("outcome"), change = form.elements.change.value;
    const buckets = [[], [], []];
    for (let at = 0; at < samples.question.length; at++) {
      const question = samples.question[at], kind = kinds[at];
      if (arm >= 0 && samples.arm[at] !== arm) continue;
      if (place >= 0 && questions.place[question] !== place) continue;
      if (effort >= 0 && questions.effort[question] !== effort) continue;
      if (language >= 0 && questions.language[question] !== language) continue;
      if (outcome >= 0 && samples.outcome[at] !== outcome) continue;
      if (change === "changed" ? kind > GAINED : change !== "" && kind !== Number(change)) continue;
      if (matches && !matches[at]) continue;
      buckets[Math.min(kind, 2)].push(at);
    }
    rows = buckets[0].concat(buckets[1], buckets[2]);
    page = 0;
    active = -1;
    list.scrollTop = 0;
    const lost = buckets[0].length, gained = buckets[1].length;
    status.textContent = rows.length.toLocaleString("en") + " of " + samples.question.length.toLocaleString("en") + " answers: "
      + lost.toLocaleString("en") + " right → wrong, " + gained.toLocaleString("en") + " wrong → right" + (lost + gained ? ", these first" : "");
    draw();
    if (rows.length) show(0); else clear("No answer fits.");
  }

  const shown = () => Math.min(PAGE, rows.length - page * PAGE);

  function label(sample) {
    const question = samples.question[sample], names = data.names;
    return [names.language[questions.language[question]], names.effort[questions.effort[question]], names.item[questions.item[question]]];
  }
  const answer = (sample) => (samples.answer[sample] < 0 ? "–" : data.answers[samples.answer[sample]]);

  function option(place) {
    const sample = rows[page * PAGE + place], question = samples.question[sample], mate = mates[sample];
    const made = make("div", undefined, "answer k" + kinds[sample] + (place === active ? " active" : ""));
    made.id = "answer-" + place;
    made.setAttribute("role", "option");
    made.setAttribute("aria-selected", String(place === active));
    made.setAttribute("aria-posinset", String(page * PAGE + place + 1));
    made.setAttribute("aria-setsize", String(rows.length));
    made.style.top = place * ROW + "px";
    const top = make("span", undefined, "line"), [language, effort, item] = label(sample);
    top.append(make("span", KINDS[kinds[sample]], "kind"), make("span", language + " · " + effort + " · ", "tag-text"), quoted("span", item, "item"));
    if (wanted("arm") < 0) top.append(make("span", " " + data.names.arm[samples.arm[sample]], "item"));
    const below = make("span", undefined, "line small-line");
    if (mate >= 0) below.append(quoted("span", answer(mate)), " → ");
    below.append(quoted("span", answer(sample)), ", expected ", quoted("b", data.targets[questions.target[question]] ?? "–"), ", " + data.outcomes[samples.outcome[sample]]);
    made.append(top, below);
    return made;
  }

  function draw() {
    sizer.style.height = shown() * ROW + "px";
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - AROUND);
    const last = Math.min(shown(), Math.ceil((list.scrollTop + list.clientHeight) / ROW) + AROUND);
    const made = [];
    for (let place = first; place < last; place++) made.push(option(place));
    sizer.replaceChildren(...made);
    if (active >= first && active < last) list.setAttribute("aria-activedescendant", "answer-" + active);
    else list.removeAttribute("aria-activedescendant");
    const pages = Math.ceil(rows.length / PAGE);
    pager.hidden = pages < 2;
    element("answers-page").textContent = "Page " + (page + 1) + " of " + pages;
    element("answers-back").disabled = page === 0;
    element("answers-on").disabled = page >= pages - 1;
  }

  const PART = /<\|channel\|>([a-z]+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>([^]*?)(?=<\|(?:end|return|call|start)\|>|$)/g;
  function channels(text) {
    const parts = [...text.matchAll(PART)].map((one) => [one[1], one[2].trim()]).filter((one) => one[1]);
    return parts.length ? parts : [["raw", text || "(nothing was generated)"]];
  }
  function question(prompt) {
    const asked = [...prompt.matchAll(/<\|start\|>user<\|message\|>([^]*?)(?:<\|end\|>|$)/g)].pop();
    return asked ? asked[1].trim() : prompt;
  }

  function reply(sample, text) {
    const made = make("div", undefined, "reply"), who = make("p", undefined, "who");
    const count = (value, what) => (value === null ? "unknown " + what : value.toLocaleString("en") + " " + what);
    const outcome = data.outcomes[samples.outcome[sample]];
    who.append(make("b", data.names.arm[samples.arm[sample]]), " ", make("span", outcome, "outcome" + (outcome === "correct" ? " correct" : "")),
      " answered ", quoted("b", answer(sample)));
    const tongue = samples.tongue[sample] < 0 ? "" : "; reasons in " + data.tongues[samples.tongue[sample]];
    made.append(who, make("p", count(samples.reasoning[sample], "reasoning tokens") + ", " + count(samples.output[sample], "in all") + tongue, "channel"));
    for (const [channel, words] of channels(text)) made.append(make("p", channel, "channel"), quoted("pre", words));
    return made;
  }

  function clear(text) {
    looked++;
    detail.replaceChildren(make("p", text, "note"));
  }

  async function show(place) {
    active = place;
    const ours = ++looked, sample = rows[page * PAGE + place], mate = mates[sample];
    let text, other, prompt;
    try {
      const number = blockOf(sample), found = await block(number), at = sample - data.starts[number];
      text = found.texts[at];
      prompt = found.prompts[found.prompt[at]];
      other = mate < 0 ? null : found.texts[mate - data.starts[number]];
    } catch (problem) {
      if (ours === looked) clear("The text cannot be shown: " + problem.message);
      return;
    }
    if (ours !== looked) return;
    const asked = samples.question[sample], head = make("p", undefined, "who"), [language, effort, item] = label(sample);
    head.append(make("span", KINDS[kinds[sample]], "kind k" + kinds[sample]), " " + data.names.place[questions.place[asked]] + " · " + language + " · " + effort + " effort · ",
      quoted("span", item, "item"), questions.sample[asked] ? " · sample " + questions.sample[asked] : "", " · expected ", quoted("b", data.targets[questions.target[asked]] ?? "–"));
    const made = [head];
    if (prompt) {
      const short = question(prompt);
      made.push(quoted("p", short, "question"));
      if (short !== prompt) {
        const whole = make("details");
        whole.append(make("summary", "Whole prompt"), quoted("pre", prompt));
        made.push(whole);
      }
    } else made.push(make("p", "The prompt's text is not on record.", "note"));
    const replies = make("div", undefined, "replies");
    if (mate >= 0) replies.append(reply(mate, other));
    replies.append(reply(sample, text));
    detail.replaceChildren(...made, replies);
    detail.scrollTop = 0;
  }

  function go(place) {
    if (!rows.length) return;
    place = Math.max(0, Math.min(shown() - 1, place));
    const top = place * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    show(place);
    draw();
  }
  function turnTo(next) {
    page = next;
    list.scrollTop = 0;
    go(0);
  }

  // Search: names, answers and targets at once; prompts and replies block by block, as they are unpacked.
  async function search() {
    const ours = ++turn, sought = form.elements.search.value.trim().toLowerCase();
    if (!sought) { matches = null; filter(); return; }
    const has = (text) => String(text).toLowerCase().includes(sought);
    const [items, answers, targets] = [data.names.item, data.answers, data.targets].map((texts) => texts.map(has));
    const found = new Uint8Array(samples.question.length);
    for (let at = 0; at < found.length; at++) {
      const asked = samples.question[at];
      if (items[questions.item[asked]] || answers[samples.answer[at]] || targets[questions.target[asked]]) found[at] = 1;
    }
    if (form.elements.texts.checked) {
      for (let number = 0; number < data.starts.length; number++) {
        let part;
        try { part = await packed(number).then(unpack); } catch (problem) { clear("The texts cannot be searched: " + problem.message); break; }
        if (ours !== turn) return;
        status.textContent = "Searching texts: " + Math.round((100 * number) / data.starts.length) + " %";
        const asked = part.prompts.map((prompt) => prompt && has(prompt));
        part.texts.forEach((text, at) => { if (asked[part.prompt[at]] || has(text)) found[data.starts[number] + at] = 1; });
      }
    }
    matches = found;
    filter();
  }

  let timer = 0, frame = 0;
  form.addEventListener("input", (event) => {
    const isSearch = event.target.name === "search" || event.target.name === "texts";
    clearTimeout(timer);
    timer = setTimeout(isSearch ? search : filter, isSearch ? 250 : 0);
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); search(); });
  form.addEventListener("reset", () => { clearTimeout(timer); timer = setTimeout(search, 0); });
  list.addEventListener("scroll", () => { cancelAnimationFrame(frame); frame = requestAnimationFrame(draw); });
  list.addEventListener("click", (event) => {
    const clicked = event.target.closest(".answer");
    if (clicked) { go(Number(clicked.id.slice("answer-".length))); list.focus({ preventScroll: true }); }
  });
  list.addEventListener("keydown", (event) => {
    const many = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const steps = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + many, PageUp: active - many, Home: 0, End: Infinity };
    if (event.key in steps) { event.preventDefault(); go(steps[event.key]); }
    else if (event.key === "Enter") { event.preventDefault(); detail.focus(); }
  });
  element("answers-back").addEventListener("click", () => turnTo(page - 1));
  element("answers-on").addEventListener("click", () => turnTo(page + 1));
  new ResizeObserver(() => { if (data) draw(); }).observe(list);

  async function start() {
    data = await unpack(element("answers-index").textContent.trim());
    ({ samples, questions } = data);
    pair();
    choices("arm", data.names.arm, "all arms", data.chosen >= 0 ? data.chosen : data.reference);
    choices("place", data.names.place, "all data", 0);
    choices("effort", data.names.effort, "all efforts", -1);
    choices("language", data.names.language, "all languages", -1);
    choices("outcome", data.outcomes, "all outcomes", -1);
    choices("change", KINDS, "all", -1);
    form.elements.change.add(new Option("changed, either way", "changed"), 1);
    filter();
    section.dataset.ready = "yes";
  }
  start().catch((problem) => { status.textContent = "The answers cannot be shown: " + problem.message; });
})();
