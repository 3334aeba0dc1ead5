"use strict";
// What a reader does with the page. Texts of runs are only ever set as text.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (selector) => document.querySelector(selector);
const say = (text) => { one("#said").textContent = text; };

// sorting: by the number of a cell where it has one, else by its text; rows without a number stand last
const value = (row, place) => {
  const cell = row.cells[place], number = Number(cell.dataset.value); // NaN of what is none
  return Number.isNaN(number) ? cell.textContent.trim() : number;
};
const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : typeof a === "number" ? -1
  : typeof b === "number" ? 1 : a.localeCompare(b, undefined, { numeric: true });
for (const table of all("table.sortable")) {
  const heads = all("thead th", table), body = table.tBodies[0];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numbers = !head.classList.contains("text");
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numbers;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => [value(row, place), row]);
      keyed.sort(([a], [b]) => down && typeof a === typeof b ? compare(b, a) : compare(a, b));
      body.append(...keyed.map(([, row]) => row));
      say(`sorted by ${button.textContent}, ${down ? "descending" : "ascending"}`);
    });
  });
}

// filtering
const filters = one("#filters");
if (filters) {
  const rows = all("#board tbody tr"), runs = all("#each tbody tr");
  const chosen = (name) => one(`#by-${name}`).value;
  const show = () => {
    const detector = chosen("detector"), data = chosen("data"), kind = chosen("kind");
    const wanted = (row) => (!detector || row.dataset.detector === detector) && (!data || row.dataset.data === data);
    rows.forEach((row) => { row.hidden = !(wanted(row) && row.dataset.kind === kind); });
    runs.forEach((row) => { row.hidden = !wanted(row); });
    const left = rows.filter((row) => !row.hidden).length;
    one("#count").textContent = `${left} row${left === 1 ? "" : "s"} shown.`;
  };
  filters.addEventListener("change", show);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(show));
  show();
}

// following a detector
let followed = null;
const follow = (name) => {
  followed = name === followed ? null : name;
  all("svg [data-follow]").forEach((part) =>
    part.classList.toggle("faint", followed !== null && part.dataset.follow !== followed));
  all("#board tbody tr").forEach((row) => {
    const is = row.dataset.follow === followed;
    row.classList.toggle("followed", is);
    row.querySelector("button.follow").setAttribute("aria-pressed", String(is));
  });
  one("#unfollow")?.toggleAttribute("hidden", followed === null);
  say(followed === null ? "no detector is followed" : `following ${followed}`);
};
all("button.follow").forEach((button) =>
  button.addEventListener("click", () => follow(button.closest("tr").dataset.follow)));
one("#unfollow")?.addEventListener("click", () => follow(followed));
document.addEventListener("click", (event) => {
  const part = event.target.closest?.("svg [data-follow]");
  if (part) follow(part.dataset.follow);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  hide();
  if (followed !== null) follow(followed);
});

// what is pointed at
const card = one("#card");
const hide = () => { card.hidden = true; };
const runOf = new Map(all("#each tbody tr").map((row) => [row.dataset.run, row]));
const heads = all("#each thead th").map((head) => head.textContent);
const told = (part) => {
  const lines = [["detector", part.dataset.detector], ["data set", part.dataset.data], ["kind", part.dataset.kind]]
    .filter(([, text]) => text).map(([name, text]) => `${name}: ${text}`);
  const row = runOf.get(part.dataset.run);
  if (row) return [...row.cells].map((cell, i) => [heads[i], (cell.querySelector("code") ?? cell).textContent.trim()])
    .filter(([, text]) => text).map(([name, text]) => `${name}: ${text}`).join("\n");
  const ranked = all("#board tbody tr").find((r) => r.dataset.detector === part.dataset.detector
    && r.dataset.data === part.dataset.data && r.dataset.kind === (part.dataset.kind ?? ""));
  if (ranked) lines.push(`AUROC: ${ranked.cells[3].textContent.trim()}`);
  const own = [...runOf.values()].filter((r) => r.dataset.detector === part.dataset.detector
    && (!part.dataset.data || r.dataset.data === part.dataset.data));
  if (own.length) {
    lines.push(`${own.length} run${own.length === 1 ? "" : "s"}, such as ${own[0].dataset.run}`);
    lines.push(own[0].querySelector("code")?.textContent ?? "");
  }
  return lines.join("\n");
};
document.addEventListener("pointermove", (event) => {
  const part = event.target.closest?.("svg [data-run]") ?? event.target.closest?.("svg [data-detector], svg [data-kind]");
  if (!part) return hide();
  if (card.hidden || card.shown !== part) card.textContent = told(part);
  card.shown = part;
  card.hidden = false;
  const room = document.documentElement.clientWidth - card.offsetWidth - 8;
  card.style.left = `${Math.max(4, Math.min(event.pageX + 14, room))}px`;
  card.style.top = `${event.pageY + 16}px`;
});

// copying
all("button.copy").forEach((button) => button.addEventListener("click", async () => {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code); // to be copied by hand
    button.textContent = "Selected";
  }
  say("the command was " + button.textContent.toLowerCase());
}));

// any threshold of a run
const dial = one("#dial-data") && JSON.parse(one("#dial-data").textContent);
if (dial) {
  const place = one("#place"), shown = (number) => Number(number.toPrecision(5)).toLocaleString("en");
  const counts = all("#flags .flagged-count"), shares = all("#flags .flagged-share");
  const listed = all("#listed table tbody tr");
  const drawing = one("#figure-scores svg");
  const lines = !drawing ? [] : dial.lines.map(({ top, bottom }) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    for (const [name, value] of Object.entries({ y1: top, y2: bottom, stroke: "currentColor", "stroke-width": 2 }))
      line.setAttribute(name, value);
    drawing.append(line);
    return line;
  });
  const set = () => {
    const at = Number(place.value), threshold = dial.thresholds[at];
    const text = shown(threshold);
    one("#threshold").textContent = text;
    place.setAttribute("aria-valuetext", text);
    let flagged = 0, found = 0, anomalies = 0, known = 0;
    dial.kinds.forEach((kind, i) => {
      const n = kind.flagged[at];
      counts[i].textContent = shown(n);
      shares[i].textContent = kind.total ? (n / kind.total).toPrecision(3) : "";
      flagged += n;
      if (kind.label >= 0) known += n;
      if (kind.label > 0) { found += n; anomalies += kind.total; }
    });
    const told = [`${shown(flagged)} events are flagged`];
    if (anomalies) {
      const precision = known ? found / known : NaN, recall = found / anomalies;
      told.push(`precision ${known ? precision.toFixed(4) : "none"}`, `recall ${recall.toFixed(4)}`);
      if (known && found) told.push(`F1 ${(2 * precision * recall / (precision + recall)).toFixed(4)}`);
    }
    one("#decided").textContent = `${told.join(", ")}.`;
    dial.lines.forEach(({ across }, i) => {
      lines[i]?.setAttribute("x1", across[at]);
      lines[i]?.setAttribute("x2", across[at]);
    });
    listed.forEach((row, i) => row.classList.toggle("flagged", dial.strangest[i] > threshold));
  };
  place.addEventListener("input", set);
  all("button.rule").forEach((button) => button.addEventListener("click", () => {
    place.value = button.dataset.place;
    set();
  }));
  one("#dial").hidden = false;
  one("#flagged-note")?.removeAttribute("hidden");
  set();
}
