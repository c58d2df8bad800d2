(() => {
  const table = $("#hits");
  if (!table) return;
  const size = Number(table.dataset.groups);
  const number = (text, sign) => (text === "" ? Infinity : sign * Number(text));
  /* What a row is ordered by: smaller comes first, and what is not known comes last either way. A year alone is taken
     for its end where the oldest is looked for: 2019-05-01 is known to be older than 2019. */
  const late = (date) => (date + "-12-31".slice(date.length - 4)).replaceAll("-", "");
  const keys = {
    rank: (row) => Number(row.dataset.rank),
    likeness: (row) => number(row.dataset.likeness, 1),
    size: (row) => number(row.dataset.size, -1),
    date: (row) => (row.dataset.date ? Number(late(row.dataset.date)) : Infinity),
    newest: (row) => (row.dataset.date ? -Number(late(row.dataset.date)) : Infinity),
  };
  const groups = $$("tbody", table).map((body) => ({
    body,
    head: $(".group-row", body),
    rows: $$(".hit", body).map((row) => ({ row, text: row.textContent.toLowerCase() })),
  }));
  const total = groups.reduce((sum, group) => sum + group.rows.length, 0);
  let matching = groups;
  let part = 0;

  const turn = (to) => {
    const parts = Math.max(1, Math.ceil(matching.length / size));
    part = Math.min(Math.max(to, 0), parts - 1);
    const here = new Set(matching.slice(part * size, (part + 1) * size));
    for (const group of groups) group.body.hidden = !here.has(group);
    $(".pager").hidden = parts === 1;
    $("#part").textContent = `Page ${part + 1} of ${parts}`;
    $("#earlier").disabled = part === 0;
    $("#later").disabled = part === parts - 1;
  };
  const refresh = () => {
    const wanted = $("#text").value.trim().toLowerCase();
    let shown = 0;
    for (const group of groups) {
      for (const entry of group.rows) {
        entry.row.hidden = !entry.text.includes(wanted);
        if (!entry.row.hidden) shown += 1;
      }
    }
    matching = groups.filter((group) => group.rows.some((entry) => !entry.row.hidden));
    $("#none").hidden = matching.length > 0;
    const noun = total === 1 ? "hit" : "hits";
    const [some, all] = [shown, total].map((count) => count.toLocaleString("en"));
    $("#shown").textContent = shown === total ? `${all} ${noun}` : `${some} of ${all} ${noun}`;
    turn(0);
  };
  const reorder = (order) => {
    const key = keys[order];
    /* Without a date of publication, what was first seen earlier comes first. */
    const seen = (a, b) => (order === "date" ? a.row.dataset.seen.localeCompare(b.row.dataset.seen) : 0);
    const by = (a, b) => (a.key === b.key ? seen(a, b) || keys.rank(a.row) - keys.rank(b.row) : a.key - b.key);
    for (const group of groups) {
      for (const entry of group.rows) entry.key = key(entry.row);
      group.rows.sort(by);
      group.body.append(...group.rows.map((entry) => entry.row));
    }
    groups.sort((a, b) => by(a.rows[0], b.rows[0]));
    table.append(...groups.map((group) => group.body));
    for (const header of $$("th[aria-sort]", table)) {
      const own = $("button", header).dataset.order;
      const state = own === order ? (order === "size" ? "descending" : "ascending") : own === "date" && order === "newest" ? "descending" : "none";
      header.setAttribute("aria-sort", state);
    }
    $("#order").value = order;
    refresh();
  };
  const jump = (order) => {
    $("#text").value = "";
    reorder(order);
    $(".found", table)?.classList.remove("found");
    const { row, key } = groups[0].rows[0];
    row.classList.add("found");
    row.scrollIntoView({ block: "center" });
    const said = { likeness: ".likeness", date: ".date", size: ".size" }[order];
    const value = $(said, row).firstChild.textContent.trim();
    const where = $(".domain", row).textContent || `hit ${row.dataset.rank}`;
    const unknown = order === "date" ? `No hit has a date of publication; first seen of all: ${where}` : "Not known of any hit";
    $("#jumped").textContent = key === Infinity ? unknown : `${value}: ${where}`;
    ($(".page a", row) || $("button", row))?.focus({ preventScroll: true });
  };

  $("#text").addEventListener("input", refresh);
  $("#order").addEventListener("change", () => reorder($("#order").value));
  for (const button of $$("[data-jump]")) button.addEventListener("click", () => jump(button.dataset.jump));
  for (const button of $$("[data-order]", table)) {
    button.addEventListener("click", () => reorder(button.dataset.order === "date" && $("#order").value === "date" ? "newest" : button.dataset.order));
  }
  const leaf = (by) => { turn(part + by); $("#hits-title").scrollIntoView(); };
  $("#earlier").addEventListener("click", () => leaf(-1));
  $("#later").addEventListener("click", () => leaf(1));

  const dialog = $("#large");
  let current = null;
  const fill = (image, source, fallback) => {
    image.onerror = () => { image.onerror = null; image.src = fallback; };
    image.src = source || fallback;
  };
  const spaced = (node) => node && [...node.childNodes].map((child) => child.textContent.trim()).filter(Boolean).join(", ");
  const show = (button) => {
    current = button;
    const row = button.closest("tr");
    fill($("#large-hit"), button.dataset.large, $("img", button).src);
    const query = $("#query");
    if (query) fill($("#large-query"), query.dataset.large, $("img", query).src);
    $("#large-title").textContent = `Hit ${row.dataset.rank}`;
    const facts = [".page > a, .page > bdi", ".domain", ".date", ".size", ".likeness"].map((part) => spaced($(part, row)));
    $("#large-hit").alt = facts[0] || `Hit ${row.dataset.rank}`;
    $("#large-text").textContent = facts.filter(Boolean).join(" · ");
    if (!dialog.open) dialog.showModal();
  };
  const move = (by) => {
    const shown = $$("button.thumb", table).filter((button) => button.checkVisibility());
    const next = shown[shown.indexOf(current) + by];
    if (next) show(next);
  };
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button.thumb");
    if (button) show(button);
  });
  $("#previous").addEventListener("click", () => move(-1));
  $("#next").addEventListener("click", () => move(1));
  $("#close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => current?.focus());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") move(event.key === "ArrowLeft" ? -1 : 1);
  });
  reorder($("#order").value);
})();
