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

  function grid(table, read) {
    const head = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    return [head, ...[...table.tBodies[0].rows].map((row) => [...row.cells].map(read))];
  }

  // A leading = + - @ would be a formula to a spreadsheet, unless the whole cell is a number.
  const safe = (text) => (/^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text)) ? "'" + text : text);
  const csv = (table) => grid(table, (cell) => safe(value(cell)))
    .map((row) => row.map((text) => '"' + text.replaceAll('"', '""') + '"').join(",")).join("\n");

  function markdown(table) {
    const shown = (cell) => [...cell.querySelectorAll(".value, .small")].map((part) => part.textContent.trim()).join("; ");
    const plain = (text) => text.replace(/[\\|<>`*_[\]]/g, "\\$&").replace(/\s+/g, " ");
    const [head, ...rows] = grid(table, shown).map((row) => "| " + row.map(plain).join(" | ") + " |");
    const rule = [...table.tHead.rows[0].cells].map((cell) => (cell.classList.contains("num") ? "---:" : "---"));
    return [head, "| " + rule.join(" | ") + " |", ...rows].join("\n");
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
