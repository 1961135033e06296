"use strict";

// --- images: embedded once, shown when they come near the viewport
const embedded = JSON.parse(document.getElementById("images")?.textContent ?? "[]");
const show = (image) => { if (!image.getAttribute("src")) image.src = embedded[image.dataset.image]; };
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { show(entry.target); near.unobserve(entry.target); }
}, { rootMargin: "400px" });
const watchImages = (root) => root.querySelectorAll("img[data-image]").forEach((image) => near.observe(image));
watchImages(document);
addEventListener("beforeprint", () => document.querySelectorAll("img[data-image]").forEach(show));

// --- tables: a click on a header sorts, a second one turns the order round; empty cells stay last
const collator = new Intl.Collator(undefined, { numeric: true });
const cellValue = (row, place, number) => {
  const cell = row.cells[place];
  if (!number) return cell.textContent.trim();
  return cell.dataset.value === undefined ? "" : Number(cell.dataset.value);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, place) => header.querySelector("button").addEventListener("click", () => {
    const number = header.classList.contains("number");
    const before = header.getAttribute("aria-sort");
    const order = before ? (before === "ascending" ? "descending" : "ascending") : number ? "descending" : "ascending";
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [cellValue(row, place, number), row]);
    rows.sort(([a], [b]) => (a === "") - (b === "") || (a === "" ? 0 : sign * (number ? a - b : collator.compare(a, b))));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

// --- tabs: arrows, Home and End move as usual
for (const list of document.querySelectorAll('[role="tablist"]')) {
  const tabs = [...list.querySelectorAll('[role="tab"]')];
  const choose = (chosen, focus) => {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
    if (focus) chosen.focus();
  };
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab, false));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      choose(tabs.at(to % tabs.length), true);
    });
  });
}

// --- copy buttons
const notify = (text) => {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(notify.timer);
  notify.timer = setTimeout(() => { status.textContent = ""; }, 2500);
};
const copyText = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
};
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  notify((await copyText(button.dataset.copy)) ? `Copied: ${button.dataset.copy}` : "The browser does not allow copying.");
});
