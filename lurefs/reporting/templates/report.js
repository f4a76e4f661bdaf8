"use strict";
// Sorting and filtering of tables, and hover texts of charts. The page is complete without this script.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const announce = (text) => { const status = document.getElementById("status"); if (status) status.textContent = text; };

  // ---- sorting: every table with one row per run
  const worth = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null;
    const text = (cell.dataset.value ?? cell.textContent).trim();
    const number = Number.parseFloat(text.replaceAll("−", "-").replaceAll(",", "").replace(/^[+<]\s*/, ""));
    return Number.isNaN(number) || column === 0 ? (column === 0 ? text : null) : number;
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  };
  const sort = (table, header) => {
    const column = header.cellIndex;
    const first = column === 0 ? "ascending" : header.dataset.first ?? "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = header.getAttribute("aria-sort") === first ? other : first;
    all("thead tr:last-child th", table).forEach((th) => th.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", order);
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => row.dataset.group !== undefined);
      const rest = [...body.rows].filter((row) => row.dataset.group === undefined && row.classList.contains("control"));
      rows.sort((a, b) => compare(worth(a, column), worth(b, column), order === "ascending" ? 1 : -1));
      body.append(...rows, ...rest);
    }
    announce(`Sorted by ${header.innerText.replace(/\s+/g, " ").trim()}, ${order}.`);
  };
  for (const table of all("table")) {
    if (!all("tbody tr[data-group] + tr[data-group]", table).length) continue;
    for (const header of all("thead tr:last-child th", table)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, header));
    }
  }

  // ---- filtering: rows by name and probe, columns and sections by benchmark
  const controls = document.getElementById("controls");
  const chosen = (name) => document.getElementById(name)?.value ?? "";
  const filter = () => {
    const words = chosen("filter-run").toLowerCase().split(/\s+/).filter(Boolean);
    const probe = chosen("filter-probe");
    const benchmark = chosen("filter-benchmark");
    const out = new Set();
    for (const row of all(".board tbody tr[data-group]")) {
      const name = row.cells[0].textContent.toLowerCase();
      if (!words.every((word) => name.includes(word))) out.add(row.dataset.group);
    }
    all("tr[data-group]").forEach((row) => { row.hidden = out.has(row.dataset.group); });
    all("svg [data-group]").forEach((thing) => thing.classList.toggle("out", out.has(thing.dataset.group)));
    all("tbody[data-probe]").forEach((body) => { body.hidden = probe !== "" && body.dataset.probe !== probe; });
    all("[data-benchmark]").forEach((part) => { part.hidden = benchmark !== "" && part.dataset.benchmark !== benchmark; });
    const rows = all(".board tbody:not([hidden]) tr[data-group]");
    announce(`${rows.filter((row) => !row.hidden).length} of ${rows.length} rows are shown.`);
  };
  if (controls) {
    controls.hidden = false;
    controls.addEventListener("input", filter);
    filter();
  }

  // ---- charts: texts of marks, by pointer and arrow keys; a run is highlighted everywhere on the page
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  const hideTip = () => { tip.hidden = true; };
  const showTip = (mark) => {
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const at = mark.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(room, at.left + at.width / 2 - tip.offsetWidth / 2))}px`;
    const above = at.top - tip.offsetHeight - 8;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  };
  const highlight = (group) => {
    const found = group === undefined ? [] : all(`[data-group="${group}"]`);
    all(".on").forEach((thing) => thing.classList.remove("on"));
    found.forEach((thing) => thing.classList.add("on"));
    document.documentElement.classList.toggle("highlighting", found.length > 0);
  };
  const point = (target) => {
    const mark = target.closest?.(".mark");
    if (mark) showTip(mark); else hideTip();
    highlight(target.closest?.("[data-group]")?.dataset.group);
  };
  document.addEventListener("pointerover", (event) => point(event.target));
  document.addEventListener("focusin", (event) => point(event.target));
  document.addEventListener("scroll", hideTip, { passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { hideTip(); highlight(); }
    const mark = document.activeElement?.closest?.(".mark");
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!mark || !step) return;
    event.preventDefault();
    const marks = all(".mark:not(.out)", mark.ownerSVGElement);
    const next = marks[(marks.indexOf(mark) + step + marks.length) % marks.length];
    if (!next) return;
    mark.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  for (const chart of all("svg.chart")) {
    const marks = all(".mark", chart);
    if (!marks.length) continue;
    chart.setAttribute("role", "group");
    marks.forEach((mark, place) => {
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", mark.querySelector("title").textContent);
      mark.querySelector("title").remove();
      mark.setAttribute("tabindex", place ? "-1" : "0");
    });
  }
})();
