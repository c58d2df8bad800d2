(() => {
  const sections = $$(".bucket").map((element) => ({
    element,
    grid: $(".grid", element),
    tiles: $$(".tile", element).map((tile) => ({
      tile,
      score: tile.dataset.score === "" ? NaN : Number(tile.dataset.score),
      date: tile.dataset.published || tile.dataset.seen,
      text: ["label", "name", "reason", "creator", "license", "found"].map((name) => tile.dataset[name]).join("\n").toLowerCase(),
    })),
  }));
  if (!sections.length) return;
  const total = sections.reduce((sum, section) => sum + section.tiles.length, 0);
  const bound = (id, otherwise) => { const input = $(id); return input && input.value !== "" ? Number(input.value) : otherwise; };

  const refresh = () => {
    const wanted = $("#text").value.trim().toLowerCase();
    const low = bound("#low", -Infinity);
    const high = bound("#high", Infinity);
    const scored = low !== -Infinity || high !== Infinity;
    let shown = 0;
    for (const { element, tiles } of sections) {
      let here = 0;
      for (const { tile, score, text } of tiles) {
        tile.hidden = !(text.includes(wanted) && (!scored || (score >= low && score <= high)));
        if (!tile.hidden) here += 1;
      }
      if (tiles.length) $(".none-match", element).hidden = here > 0;
      if (!element.hidden) shown += here;
    }
    const noun = total === 1 ? "picture" : "pictures";
    $("#shown").textContent = shown === total ? `${total} ${noun}` : `${shown} of ${total} ${noun}`;
  };
  const orders = {
    given: (a, b) => a.tile.dataset.index - b.tile.dataset.index,
    name: (a, b) => a.tile.dataset.label.localeCompare(b.tile.dataset.label, undefined, { numeric: true }),
    /* Pictures without a date go last either way. */
    oldest: (a, b) => !a.date - !b.date || (a.date < b.date ? -1 : a.date > b.date ? 1 : 0),
    newest: (a, b) => !a.date - !b.date || (a.date > b.date ? -1 : a.date < b.date ? 1 : 0),
    /* Pictures without a score go last either way. */
    best: (a, b) => isNaN(a.score) - isNaN(b.score) || b.score - a.score || 0,
    worst: (a, b) => isNaN(a.score) - isNaN(b.score) || a.score - b.score || 0,
  };
  const reorder = () => {
    for (const { grid, tiles } of sections) {
      tiles.sort(orders[$("#order").value]);
      grid.append(...tiles.map((entry) => entry.tile));
    }
  };
  for (const id of ["#text", "#low", "#high"]) $(id)?.addEventListener("input", refresh);
  $("#order").addEventListener("change", reorder);
  for (const button of $$(".legend button")) {
    button.addEventListener("click", () => {
      const pressed = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(pressed));
      sections.find(({ element }) => element.dataset.bucket === button.dataset.bucket).element.hidden = !pressed;
      refresh();
    });
  }

  const fact = ([name, text, url]) => {
    const [line, term, told] = ["div", "dt", "dd"].map((kind) => document.createElement(kind));
    const place = url ? document.createElement("a") : told;
    if (url) {
      Object.assign(place, { href: url, target: "_blank", rel: "noopener noreferrer" });
      told.append(place);
    }
    term.textContent = name;
    place.textContent = text;
    line.append(term, told);
    return line;
  };
  const dialog = $("#large");
  let current = null;
  const show = (tile) => {
    current = tile;
    const button = $(".thumb", tile);
    const small = $("img", button);
    const image = $("#large-picture");
    image.onerror = () => { image.onerror = null; image.src = small.src; };
    image.src = button.dataset.large || small.src;
    const about = tile.dataset;
    image.alt = about.label;
    $("#large-title").textContent = about.label;
    const score = $(".score", tile);
    const facts = [$("h2", tile.closest(".bucket")).textContent, score && `score ${score.textContent}`, about.reason, about.pixels];
    $("#large-text").textContent = [facts.filter(Boolean).join(" · "), about.detail].filter(Boolean).join("\n");
    $("#large-facts").replaceChildren(...[
      ["File", about.label === about.name ? "" : about.name],
      ["Page", about.page, about.page],
      ["Creator", about.creator],
      ["Licence", about.license || about.licenseUrl, about.licenseUrl],
      ["Published", about.published],
      ["First seen", about.seen],
      ["Found by", about.found],
    ].filter(([, text]) => text).map(fact));
    if (!dialog.open) dialog.showModal();
  };
  const move = (by) => {
    const shown = $$("button.thumb").filter((button) => button.checkVisibility({ contentVisibilityAuto: false }));
    const place = shown.indexOf($(".thumb", current)) + by;
    if (shown[place]) show(shown[place].closest(".tile"));
  };
  for (const { grid } of sections) {
    grid.addEventListener("click", (event) => {
      const button = event.target.closest("button.thumb");
      if (button) show(button.closest(".tile"));
    });
  }
  $("#previous").addEventListener("click", () => move(-1));
  $("#next").addEventListener("click", () => move(1));
  $("#close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => $(".thumb", current).focus());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") move(event.key === "ArrowLeft" ? -1 : 1);
  });
  refresh();
})();
