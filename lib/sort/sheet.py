"""The contact sheet of a criterion: what lies in its buckets, or in a dry run what will."""

from __future__ import annotations

@dataclass
class SortTotals:
    """The numbers of a page's cards, of all pictures; eight bytes a picture and number."""

    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    scores: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[float] = field(default_factory=lambda: array("d"))
    criterion: str = ""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> SortTotals:
        found = cls()
        for row in rows:
            found.labels[row["label"]] += 1
            found.criterion = row["criterion"]
            if row["score"] is not None:
                found.scores.append(row["score"])
            if row["width"]:
                found.sizes.append(row["width"] * row["height"] / 1e6)
            if row["reason"] in found.reasons or len(found.reasons) < REASONS:
                found.reasons[row["reason"]] += 1
        return found

    def cards(self) -> list[Card]:
        total = self.labels.total()
        cards = [Card("Pictures", total, f"in {counted(len(self.labels), 'bucket')}")]
        if self.sizes:
            cards.append(Card("Median size", f"{median(self.sizes):.2g} MP", "upright, real pixels"))
        if self.criterion == "quality" and self.scores:
            cards.append(Card("Median score", round(median(self.scores), 1), "of 0 to 100"))
        common = [(reason, count) for reason, count in self.reasons.most_common() if reason not in NO_DEFECTS]
        defects = [(reason, count) for reason, count in common if reason.replace(" ", "").isalpha()]  # no "musiq 71.2"
        if len(self.reasons) < REASONS and self.criterion == "quality" and defects:
            reason, count = defects[0]
            cards.append(Card("Named most", reason, f"in {counted(count, 'picture')}"))
        return cards


def _page(page: Path, workspace: Workspace, head: Mapping[str, Any], rows: Any, workers: int) -> str:
    unreadable = head["unreadable"]
    totals = SortTotals.of(rows())
    counts, cards = totals.labels, totals.cards()
    if head["left_out"]:
        cards.append(Card("Left out", len(head["left_out"]), "by the criterion"))
    if unreadable:
        cards.append(Card("Unreadable", len(unreadable), "left where they are"))
    notes = [f"{entry['path']} was not sorted: {entry['reason']}." for entry in unreadable[:20]]
    if len(unreadable) > 20:
        notes.append(f"{len(unreadable) - 20} more could not be read; the JSON file beside this page has them all.")
    notes += head.get("notes", [])
    ruled = {entry["name"]: entry["rule"] for entry in head["buckets"]}
    named = ruled | {name: "" for name in sorted(counts) if name not in ruled}
    buckets = [Bucket(name, counts[name], rule) for name, rule in named.items()]
    heading = Heading(f"Sorted by {head['criterion']}", head["settings"], cards=cards, notes=notes)
    chosen = sorted(_shown(rows(), counts), key=lambda row: (-(row["score"] or 0.0), row["path"]))
    items = [_item(workspace, row) for row in chosen]
    return render_contact_sheet(page, heading, buckets, items, workers=workers)


def _shown(rows: Iterable[dict[str, Any]], counts: Counter[str]) -> list[dict[str, Any]]:
    """All rows where a page can hold them; else of each bucket so many, evenly over its files."""
    if sum(counts.values()) <= ITEM_LIMIT:
        return list(rows)
    room = max(1, ITEM_LIMIT // len(counts))
    steps = {name: -(-count // room) for name, count in counts.items()}
    seen: Counter[str] = Counter()
    chosen = []
    for row in rows:
        if seen[row["label"]] % steps[row["label"]] == 0:
            chosen.append(row)
        seen[row["label"]] += 1
    return chosen


def _item(workspace: Workspace, row: Mapping[str, Any]) -> SheetItem:
    known = (row.get(name, "") for name in ("title", "query", "engine", "license", "attribution"))
    return SheetItem(
        file=workspace.to_path(row["path"]),
        name=row["file_name"],
        bucket=row["label"],
        score=row["score"],
        reason=row["reason"],
        width=row["width"] or None,
        height=row["height"] or None,
        detail=" · ".join(text for text in known if text),
    )


