(() => {
  const number = (value) => value.toLocaleString("en");
  const rules = $$(".rule").map((element) => ({
    element,
    atOnce: Number(element.dataset.atOnce),
    rows: $$(".row", element).map((row) => ({ row, text: row.dataset.text.toLowerCase() })),
    turn: $(".turn", element),
    first: 0,
  }));
  if (!rules.length) return;
  const total = rules.reduce((sum, rule) => sum + rule.rows.length, 0);
  let wanted = "";

  /* Shows one screenful of the rows of a rule that match; gives how many match. */
  const draw = (rule) => {
    const matching = rule.rows.filter(({ text }) => text.includes(wanted));
    const seen = new Set(matching.slice(rule.first, rule.first + rule.atOnce));
    for (const entry of rule.rows) entry.row.hidden = !seen.has(entry);
    rule.element.hidden = matching.length === 0;
    rule.turn.hidden = matching.length <= rule.atOnce;
    $("output", rule.turn).textContent =
      `${number(rule.first + 1)} to ${number(rule.first + seen.size)} of ${number(matching.length)}`;
    $(".back", rule.turn).disabled = rule.first === 0;
    $(".on", rule.turn).disabled = rule.first + rule.atOnce >= matching.length;
    return matching.length;
  };
  const refresh = () => {
    wanted = $("#text").value.trim().toLowerCase();
    let shown = 0;
    for (const rule of rules) {
      rule.first = 0;
      shown += draw(rule);
    }
    const noun = total === 1 ? "row" : "rows";
    $("#shown").textContent = shown === total ? `${number(total)} ${noun}` : `${number(shown)} of ${number(total)} ${noun}`;
    $("#none").hidden = shown > 0;
  };
  for (const rule of rules) {
    const by = (step) => {
      rule.first += step * rule.atOnce;
      draw(rule);
      rule.element.scrollIntoView({ block: "start" });
    };
    $(".back", rule.turn).addEventListener("click", () => by(-1));
    $(".on", rule.turn).addEventListener("click", () => by(1));
  }
  $("#text").addEventListener("input", refresh);
  refresh();
})();
