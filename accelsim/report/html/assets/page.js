"use strict";

// The theme: as the system has it, or as chosen.
(() => {
  const button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  let theme = "auto";
  const show = () => {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = theme;
    button.textContent = "Theme: " + theme;
    button.setAttribute("aria-label", "Colour theme: " + (theme === "auto" ? "as the system" : theme));
  };
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    show();
  });
  show();
})();

// Tables: a click on a heading sorts, a second one turns the order round; words and column>number filter.
for (const box of document.querySelectorAll(".table")) {
  const headings = [...box.querySelectorAll("thead th")];
  const body = box.querySelector("tbody");
  const rows = [...body.rows];
  const valueOf = (row, index) => {
    const cell = row.cells[index];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.classList.contains("num") && cell.textContent === "" ? null : cell.textContent;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  headings.forEach((heading, index) => {
    heading.querySelector("button").addEventListener("click", () => {
      // Numbers are mostly looked at from the greatest down.
      const numeric = heading.classList.contains("num");
      const order = heading.getAttribute("aria-sort");
      const descending = order === "none" ? numeric : order === "ascending";
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const sorted = rows.map((row) => [valueOf(row, index), row]);
      sorted.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);  // empty cells last, either way
        return descending ? compare(b, a) : compare(a, b);
      });
      body.append(...sorted.map(([, row]) => row));
    });
  });

  const field = box.querySelector("input[type=search]");
  if (!field) continue;
  const count = box.querySelector("output");
  const titles = headings.map((heading) => heading.textContent.trim().toLowerCase());
  const relations = {
    ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "=": (a, b) => a === b,
  };
  const test = (word) => {
    const parts = /^(.+?)(>=|<=|>|<|=)(-?[\d.]+)(%?)$/.exec(word);
    const column = parts ? titles.findIndex((title) => title.replace(/\s/g, "").startsWith(parts[1])) : -1;
    if (column >= 0) {
      const bound = Number(parts[3]) / (parts[4] ? 100 : 1);
      return (row) => {
        const value = valueOf(row, column);
        return value !== null && relations[parts[2]](Number(value), bound);
      };
    }
    return (row) => row.textContent.toLowerCase().includes(word);
  };
  field.addEventListener("input", () => {
    const tests = field.value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    let left = 0;
    for (const row of rows) {
      row.hidden = !tests.every((passes) => passes(row));
      left += row.hidden ? 0 : 1;
    }
    count.textContent = tests.length ? `${left} of ${rows.length}` : "";
  });
}
