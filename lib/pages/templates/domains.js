(() => {
  const table = $("#domains");
  if (!table) return;
  const body = table.tBodies[0];
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  const sortBy = (header, kind) => {
    const column = header.cellIndex;
    const first = kind === "number" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = header.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.value;
    const compare = kind === "number" ? (a, b) => value(a) - value(b) : (a, b) => collator.compare(value(a), value(b));
    for (const cell of table.tHead.rows[0].cells) {
      if (cell.hasAttribute("aria-sort")) cell.setAttribute("aria-sort", cell === header ? order : "none");
    }
    body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
  };
  for (const button of $$("button[data-sort]", table)) {
    button.addEventListener("click", () => sortBy(button.closest("th"), button.dataset.sort));
  }

  const filter = $("#filter");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      const service = $(".service", row);
      const text = `${row.cells[0].dataset.value}\n${service ? service.dataset.value : ""}`.toLowerCase();
      row.hidden = !text.includes(wanted);
      if (!row.hidden) shown += 1;
    }
    $("#matches").textContent = wanted ? `${shown} of ${body.rows.length}` : "";
  });
})();
