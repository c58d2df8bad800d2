(() => {
  const list = $("#groups");
  if (!list) return;
  const data = JSON.parse($("#page-data").textContent);
  const groups = $$(".group", list).map((element) => ({ element, members: $$(".member", element) }));
  const visible = () => groups.filter((group) => !group.element.hidden);
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
  const showChoice = (member) => press($$(".choices button", member), choices.get(member.dataset.path));
  const count = () => {
    $("#save").disabled = choices.size === 0;
    $("#save").textContent = choices.size ? `Save ${choices.size} choice${choices.size > 1 ? "s" : ""}` : "Save choices";
  };
  const choose = (members, choice) => {
    const undo = members.every((member) => choices.get(member.dataset.path) === choice);
    for (const member of members) {
      if (undo) choices.delete(member.dataset.path);
      else choices.set(member.dataset.path, choice);
      showChoice(member);
    }
    try { localStorage.setItem(storageKey, JSON.stringify([...choices])); } catch { /* then until the page closes */ }
    count();
    if (pair) press($$("#large-choices button"), choices.get(pair.member.dataset.path));
  };
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
  });

  /* Filter and order. */
  const refresh = () => {
    const kind = $("#kind").value;
    const decision = $("#decision").value;
    let shown = 0;
    for (const { element, members } of groups) {
      const fits = members.some((member) =>
        (!kind || member.dataset.kind === kind) &&
        (!decision || (decision === "open" ? !choices.has(member.dataset.path) : member.dataset.decision === decision)));
      element.hidden = !fits;
      if (fits) shown += 1;
    }
    $("#shown").textContent = shown === groups.length ? `${shown} groups` : `${shown} of ${groups.length} groups`;
    $("#none").hidden = shown > 0;
  };
  const reorder = () => {
    const key = $("#order").value;
    const sign = key === "index" ? 1 : -1;
    const value = (group) => Number(group.element.dataset[key]);
    groups.sort((a, b) => sign * (value(a) - value(b)) || a.element.dataset.index - b.element.dataset.index);
    list.append(...groups.map((group) => group.element));
  };
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
    if (button.dataset.choice) choose([picture], button.dataset.choice);
    else open(group, picture.classList.contains("member") ? picture : group.members[0]);
  });
  list.addEventListener("focusin", (event) => { const group = groupOf(event.target); if (group) select(group, false); });
  $("#large-choices").addEventListener("click", (event) => {
    if (event.target.dataset.choice) choose([pair.member], event.target.dataset.choice);
  });
  const step = (by) => {
    const shown = visible();
    if (!shown.length) return;
    const next = current ? shown.indexOf(current) + by : 0;
    const group = shown[Math.min(shown.length - 1, Math.max(0, next))];
    if (dialog.open) open(group, group.members[0]);
    else select(group, true);
  };
  const marks = { r: "remove", v: "review", x: "keep" };
  document.addEventListener("keydown", (event) => {
    if (typing(event)) return;
    if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
    else if (marks[event.key]) {
      const focused = pair ? pair.member : document.activeElement.closest(".member");
      if (focused) choose([focused], marks[event.key]);
      else if (current && !current.element.hidden) choose(current.members, marks[event.key]);
    } else if (pair && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      const { group, member } = pair;
      const by = event.key === "ArrowRight" ? 1 : group.members.length - 1;
      open(group, group.members[(group.members.indexOf(member) + by) % group.members.length]);
    } else if (event.key === "Enter" && !pair && document.activeElement === current?.element) open(current, current.members[0]);
    else return;
    event.preventDefault();
  });

  for (const { members } of groups) members.forEach(showChoice);
  count();
  refresh();
})();
