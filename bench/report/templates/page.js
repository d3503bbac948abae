(() => {
  "use strict";
  const value = (cell) => cell.dataset.raw ?? cell.querySelector(".value").textContent.trim();
  const collator = new Intl.Collator("en", { numeric: true });

  function compare(a, b) {
    const x = value(a), y = value(b);
    const p = x === "" ? NaN : Number(x), q = y === "" ? NaN : Number(y);
    if (Number.isFinite(p) && Number.isFinite(q)) return p - q;
    if (Number.isFinite(p) !== Number.isFinite(q)) return Number.isFinite(p) ? -1 : 1;
    return collator.compare(x, y);
  }

  function sort(button) {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => compare(a.cells[head.cellIndex], b.cells[head.cellIndex]));
    body.append(...(descending ? rows.reverse() : rows));
  }

  // A number's interval and what it rests on are copied in columns of their own, wherever a cell of the column has them.
  function grid(table, read, interval) {
    const rows = [...table.tBodies[0].rows];
    const columns = [...table.tHead.rows[0].cells].flatMap((head, at) => {
      const title = head.textContent.trim(), cells = rows.map((row) => row.cells[at]);
      const units = new Set(cells.flatMap(({ dataset }) => dataset.of ?? []));
      const number = units.size === 1 ? [[...units][0], ({ dataset }) => dataset.n] : ["n", ({ dataset }) => dataset.n && dataset.n + " " + dataset.of];
      const more = [...interval, number].map(([name, part]) => [title + ", " + name, cells.map((cell) => part(cell) ?? "")]);
      return [[title, cells.map(read), head], ...more.filter(([, texts]) => texts.some(Boolean)).map((column) => [...column, head])];
    });
    const kinds = columns.map(([, , head]) => (head.classList.contains("num") ? "---:" : "---"));
    return [kinds, columns.map(([title]) => title), ...rows.map((_, at) => columns.map(([, texts]) => texts[at]))];
  }

  // A leading = + - @ would be a formula to a spreadsheet, unless the whole cell is a number.
  const safe = (text) => (/^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text)) ? "'" + text : text);
  const ends = [["95 % from", ({ dataset }) => dataset.low], ["95 % to", ({ dataset }) => dataset.high]];
  const csv = (table) => grid(table, (cell) => safe(value(cell)), ends).slice(1)
    .map((row) => row.map((text) => '"' + text.replaceAll('"', '""') + '"').join(",")).join("\n");

  function markdown(table) {
    const shown = (cell) => [...cell.querySelectorAll(".value, .small:not(.interval, .n)")].map((part) => part.textContent.trim()).join("; ");
    const plain = (text) => text.replace(/[\\|<>`*_[\]]/g, "\\$&").replace(/\s+/g, " ");
    const [kinds, head, ...rows] = grid(table, shown, [["95 % interval", (cell) => cell.querySelector(".interval")?.textContent]]);
    const [first, ...others] = [head, ...rows].map((row) => "| " + row.map(plain).join(" | ") + " |");
    return [first, "| " + kinds.join(" | ") + " |", ...others].join("\n");
  }

  async function copy(button) {
    const kind = button.dataset.copy, table = document.getElementById(button.dataset.table);
    const text = kind === "csv" ? csv(table) : kind === "md" ? markdown(table) : document.getElementById(button.dataset.from).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const label = button.textContent;
    button.textContent = "Copied";
    document.getElementById("said").textContent = "Copied";
    setTimeout(() => { button.textContent = label; document.getElementById("said").textContent = ""; }, 1200);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("sort")) sort(button);
    else if (button.dataset.copy) copy(button);
  });
  const open = [];
  addEventListener("beforeprint", () => document.querySelectorAll("details.flip:not([open])").forEach((one) => { one.open = true; open.push(one); }));
  addEventListener("afterprint", () => open.splice(0).forEach((one) => { one.open = false; }));
})();
