(() => {
  const list = $("#groups");
  if (!list) return;
  const data = JSON.parse($("#page-data").textContent);
  const groups = $$(".group", list).map((element) => ({ element, members: $$(".member", element) }));
  const all = groups.flatMap((group) => group.members.map((member) => ({ group, member })));
  let fitting = groups; /* the groups that the filters let through, of which one page is seen */
  let page = 0;
  const pages = () => Math.max(1, Math.ceil(fitting.length / data.page_size));
  const visible = () => fitting.slice(page * data.page_size, (page + 1) * data.page_size);
  let current = null;

  /* Choices: kept in this browser until they are saved, so that a closed tab loses none. */
  const storageKey = `gleaner-choices ${location.pathname} ${data.key}`;
  const choices = new Map();
  try {
    for (const [path, choice] of JSON.parse(localStorage.getItem(storageKey) || "[]")) choices.set(path, choice);
  } catch { /* storage is closed or holds something else: start with no choices */ }

  const press = (buttons, choice) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.choice === choice));
  };
  const showChoices = ({ element, members }) => {
    for (const member of members) press($$(".choices button", member), choices.get(member.dataset.path));
    const goes = members.some((member) => choices.get(member.dataset.path) === "keeper");
    const keeper = $(".keeper", element);
    keeper.classList.toggle("leaving", goes);
    $(".goes", keeper).hidden = !goes;
  };
  const count = () => {
    $("#save").disabled = choices.size === 0;
    $("#save").textContent = choices.size ? `Save ${choices.size} choice${choices.size > 1 ? "s" : ""}` : "Save choices";
  };
  /* What lies in the quarantine can only come back. */
  const may = (member, choice) => !member.classList.contains("moved") || choice === "keep" || choice === "keeper";
  const set = (group, member, choice) => {
    if (choice && !may(member, choice)) return;
    if (choice === "keeper") /* there is one */
      for (const other of group.members) if (choices.get(other.dataset.path) === "keeper") choices.delete(other.dataset.path);
    if (choice) choices.set(member.dataset.path, choice);
    else choices.delete(member.dataset.path);
  };
  const choose = (group, members, choice) => {
    const undo = members.every((member) => choices.get(member.dataset.path) === choice);
    for (const member of members) set(group, member, undo ? "" : choice);
    showChoices(group);
    keep();
  };
  const keep = () => {
    try { localStorage.setItem(storageKey, JSON.stringify([...choices])); } catch { /* then until the page closes */ }
    count();
    if (pair) press($$("#large-choices button"), choices.get(pair.member.dataset.path));
    commands();
  };

  /* The commands that carry the choices out: typed into a shell, so each word is quoted where it has to be. */
  const quoted = (word) => {
    if (/^[A-Za-z0-9_@%+=:,./-]+$/.test(word) || (data.windows && /^[A-Za-z0-9_@+=:,.\\/-]+$/.test(word))) return word;
    if (data.windows) return `"${word}"`;
    const home = word.startsWith("~/") ? "~/" : ""; /* which the shell replaces only outside of quotes */
    return `${home}'${word.slice(home.length).replaceAll("'", `'"'"'`)}'`;
  };
  const typed = (words) => words.map(quoted).join(" ");
  const commands = () => {
    const back = all.map(({ member }) => member)
      .filter((member) => member.classList.contains("moved") && choices.get(member.dataset.path) === "keep");
    const file = $("#saved-file").value.trim() || "decisions.json";
    $("#command").textContent = typed([...data.again, "--decisions", file]);
    $("#restoring").hidden = !back.length;
    $("#restore-command").textContent =
      typed([...data.restore, ...back.flatMap((member) => ["--restore", member.dataset.path])]);
  };
  $("#saved-file").addEventListener("input", commands);
  for (const button of $$("[data-copy]")) button.addEventListener("click", async () => {
    const command = $(`#${button.dataset.copy}`);
    try {
      await navigator.clipboard.writeText(command.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    } catch { getSelection().selectAllChildren(command); } /* then the person copies what is marked */
  });
  $("#save").addEventListener("click", () => {
    const decisions = groups.flatMap(({ element, members }) =>
      members.filter((member) => choices.has(member.dataset.path)).map((member) => ({
        group: element.dataset.id,
        keeper: $(".keeper", element).dataset.path,
        path: member.dataset.path,
        decision: choices.get(member.dataset.path),
      })));
    const text = JSON.stringify({ version: 1, run: data.run, decisions }, null, 2);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "decisions.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    if (!data.again.length) return;
    commands();
    $("#saved").hidden = false;
    $("#saved").scrollIntoView({ block: "center" });
    $("#saved").focus({ preventScroll: true });
  });

  /* Filter, order and pages. */
  const fits = (member) => {
    const kind = $("#kind").value;
    const decision = $("#decision").value;
    return (!kind || member.dataset.kind === kind) &&
      (!decision || (decision === "open" ? !choices.has(member.dataset.path) : member.dataset.decision === decision));
  };
  const counted = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const turn = (to) => {
    page = Math.min(pages() - 1, Math.max(0, to));
    const shown = new Set(visible());
    for (const group of groups) group.element.hidden = !shown.has(group);
    for (const pager of $$(".pager")) {
      pager.hidden = pages() < 2;
      $("[data-turn='-1']", pager).disabled = page === 0;
      $("[data-turn='1']", pager).disabled = page === pages() - 1;
    }
    $("#page").value = String(page);
    $(".where").textContent = `Page ${page + 1} of ${pages()}`;
  };
  const refresh = () => {
    fitting = groups.filter((group) => group.members.some(fits));
    $("#page").replaceChildren(...Array.from({ length: pages() }, (_, at) => new Option(`${at + 1} of ${pages()}`, at)));
    const shown = fitting.length;
    $("#shown").textContent =
      shown === groups.length ? counted(shown, "group") : `${shown} of ${counted(groups.length, "group")}`;
    $("#none").hidden = shown > 0;
    const shownMembers = all.map(({ member }) => member).filter(fits);
    const meant = shownMembers.length;
    $("#bulk-title").textContent = meant === 1 ? "The 1 picture that this filter shows:" : `All ${meant} pictures that this filter shows, on every page:`;
    /* Of what lies in the quarantine nothing can be accepted or removed. */
    const there = shownMembers.filter((member) => may(member, "remove")).length;
    for (const button of $$("[data-bulk]"))
      button.disabled = !(["accept", "remove"].includes(button.dataset.bulk) ? there : meant);
    $("[data-bulk=keep]").textContent = there === meant ? "Keep both" : there ? "Keep both or restore" : "Restore";
    turn(0);
  };
  const reorder = () => {
    const key = $("#order").value;
    const sign = key === "index" ? 1 : -1;
    const value = (group) => Number(group.element.dataset[key]);
    groups.sort((a, b) => sign * (value(a) - value(b)) || a.element.dataset.index - b.element.dataset.index);
    list.append(...groups.map((group) => group.element));
    refresh();
  };
  /* What was chosen one by one stays; only a choice for all that is cleared takes it away. */
  const bulk = (what) => {
    for (const { group, member } of all.filter(({ member }) => fits(member))) {
      if (what === "clear") choices.delete(member.dataset.path);
      else if (!choices.has(member.dataset.path)) set(group, member, what === "accept" ? member.dataset.decision : what);
    }
    groups.forEach(showChoices);
    keep();
  };
  for (const button of $$("[data-bulk]")) button.addEventListener("click", () => bulk(button.dataset.bulk));
  const leaf = (to) => {
    turn(to);
    const first = visible()[0];
    if (first) select(first, true);
  };
  $("#page").addEventListener("change", (event) => turn(Number(event.target.value)));
  for (const button of $$("[data-turn]")) button.addEventListener("click", () => leaf(page + Number(button.dataset.turn)));
  $("#kind").addEventListener("change", refresh);
  $("#decision").addEventListener("change", refresh);
  $("#order").addEventListener("change", reorder);

  /* The large view. */
  const dialog = $("#compare");
  const stage = $("#stage");
  let pair = null;
  const large = (image, text, picture) => {
    const button = $(".thumb", picture);
    const small = $("img", button);
    image.onerror = () => { image.onerror = null; if (small) image.src = small.src; };
    image.src = button.dataset.large || (small ? small.src : "");
    image.alt = picture.dataset.path;
    text.textContent = `${$(".name", picture).textContent}  ${$(".num-line", picture).textContent}`;
  };
  const open = (group, member) => {
    pair = { group, member };
    select(group, false);
    large($("#left"), $("#left-text"), $(".keeper", group.element));
    large($("#right"), $("#right-text"), member);
    const place = group.members.length > 1 ? `, ${group.members.indexOf(member) + 1} of ${group.members.length}` : "";
    $("#compare-title").textContent = `Group ${group.element.dataset.index}${place}`;
    press($$("#large-choices button"), choices.get(member.dataset.path));
    for (const button of $$("#large-choices button")) button.hidden = !may(member, button.dataset.choice);
    $("#large-choices [data-choice=keep]").textContent = $(".choices [data-choice=keep]", member).textContent;
    if (!dialog.open) dialog.showModal();
  };
  const mode = (name) => {
    stage.className = `stage ${name}${name === "side" ? "" : " over"}`;
    stage.classList.toggle("amplified", name === "difference" && $("#amplify").getAttribute("aria-pressed") === "true");
    for (const button of $$("[data-mode]", dialog)) button.setAttribute("aria-pressed", String(button.dataset.mode === name));
    $("#cut-label").hidden = name !== "slider";
    $("#amplify").hidden = $("#difference-note").hidden = name !== "difference";
  };
  for (const button of $$("[data-mode]", dialog)) button.addEventListener("click", () => mode(button.dataset.mode));
  $("#amplify").addEventListener("click", () => {
    const pressed = $("#amplify").getAttribute("aria-pressed") !== "true";
    $("#amplify").setAttribute("aria-pressed", String(pressed));
    mode("difference");
  });
  $("#cut").addEventListener("input", (event) => stage.style.setProperty("--cut", `${event.target.value}%`));
  $("#close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { $(".thumb", pair.member).focus(); pair = null; });

  /* Clicks and keys. */
  const select = (group, scroll) => {
    if (current) current.element.classList.remove("current");
    current = group;
    group.element.classList.add("current");
    if (!scroll) return;
    group.element.scrollIntoView({ block: "start" });
    group.element.focus({ preventScroll: true });
  };
  const groupOf = (node) => groups.find((group) => group.element === node.closest(".group"));
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const group = groupOf(event.target);
    if (!button || !group) return;
    const picture = button.closest(".picture");
    if (button.dataset.choice) choose(group, [picture], button.dataset.choice);
    else open(group, picture.classList.contains("member") ? picture : group.members[0]);
  });
  list.addEventListener("focusin", (event) => { const group = groupOf(event.target); if (group) select(group, false); });
  $("#large-choices").addEventListener("click", (event) => {
    if (event.target.dataset.choice) choose(pair.group, [pair.member], event.target.dataset.choice);
  });
  const step = (by) => {
    if (!fitting.length) return;
    const here = fitting.indexOf(current);
    const next = here < 0 ? page * data.page_size : Math.min(fitting.length - 1, Math.max(0, here + by));
    const group = fitting[next];
    turn(Math.floor(next / data.page_size));
    if (dialog.open) open(group, group.members[0]);
    else select(group, true);
  };
  const marks = { r: "remove", v: "review", x: "keep", m: "keeper" };
  document.addEventListener("keydown", (event) => {
    if (typing(event)) return;
    if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
    else if (!pair && (event.key === "n" || event.key === "p")) leaf(page + (event.key === "n" ? 1 : -1));
    else if (marks[event.key]) {
      const focused = pair ? pair.member : document.activeElement.closest(".member");
      const members = focused ? [focused] : current && !current.element.hidden ? current.members : [];
      /* Of several pictures nobody has said which is to be the keeper. */
      if (members.length === 1 || marks[event.key] !== "keeper")
        if (members.length) choose(pair ? pair.group : groupOf(members[0]), members, marks[event.key]);
    } else if (pair && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      const { group, member } = pair;
      const by = event.key === "ArrowRight" ? 1 : group.members.length - 1;
      open(group, group.members[(group.members.indexOf(member) + by) % group.members.length]);
    } else if (event.key === "Enter" && !pair && document.activeElement === current?.element) open(current, current.members[0]);
    else return;
    event.preventDefault();
  });

  groups.forEach(showChoices);
  count();
  commands();
  refresh();
})();
