"use strict";
// Sorts, filters and pages the tables, and switches the theme. Without it the page reads the same,
// with the first rows of long tables. Texts are only ever set as textContent.
(() => {
  const make = (name, text = "", attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // What a cell is sorted by: the number that is read in it, or its text.
  const number = (text) => {
    const plain = text.replaceAll("−", "-").replace("∞", "Infinity");
    return parseFloat(plain);
  };
  const collator = new Intl.Collator("en", { numeric: true });
  const compare = (isNumeric) => (a, b) => {
    if (!isNumeric) return collator.compare(a, b);
    const [x, y] = [number(a), number(b)];
    return x < y ? -1 : x > y ? 1 : 0;
  };

  const columnsOf = (figure) => {
    const data = figure.querySelector("script");
    if (data) {
      return JSON.parse(data.textContent).map(({ values, rows }) =>
        rows ? rows.map((place) => values[place]) : values);
    }
    const rows = [...figure.querySelectorAll("tbody tr")];
    const width = figure.querySelectorAll("th").length;
    return Array.from({ length: width }, (_, index) =>
      rows.map((row) => row.cells[index].textContent));
  };

  const cellOf = (text, isNumeric) => {
    const cell = make("td", text);
    if (!isNumeric) return cell;
    cell.className = "n";
    const bracket = text.indexOf(" [");
    if (bracket > 0) {
      cell.textContent = text.slice(0, bracket + 1);
      cell.append(make("span", text.slice(bracket + 1)));
    }
    return cell;
  };

  const upgrade = (figure) => {
    const size = Number(figure.dataset.rows);
    const heads = [...figure.querySelectorAll("th")];
    const numeric = heads.map((head) => head.classList.contains("n"));
    const columns = columnsOf(figure);
    const count = columns.length ? columns[0].length : 0;
    const isLong = count > size;
    const body = figure.querySelector("tbody");
    const status = figure.querySelector(".status");
    const every = Array.from({ length: count }, (_, row) => row);
    let [sorted, shown, first] = [every, every, 0];
    let [query, texts] = ["", null];

    const previous = make("button", "Previous", { type: "button" });
    const next = make("button", "Next", { type: "button" });

    const show = () => {
      const rows = shown.slice(first, first + size).map((row) => {
        const line = make("tr");
        line.append(...columns.map((column, index) => cellOf(column[row], numeric[index])));
        return line;
      });
      body.replaceChildren(...rows);
      if (!isLong) return;
      const last = Math.min(first + size, shown.length);
      const of = `${shown.length.toLocaleString("en")} rows`;
      const all = shown.length < count ? ` (filtered from ${count.toLocaleString("en")})` : "";
      status.textContent = shown.length
        ? `Rows ${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${of}${all}`
        : `No row has this text${all}`;
      previous.disabled = first === 0;
      next.disabled = last >= shown.length;
    };

    const filter = () => {
      const words = query.toLowerCase().split(/\s+/).filter(Boolean);
      texts ??= every.map((row) => columns.map((column) => column[row]).join("\n").toLowerCase());
      shown = words.length
        ? sorted.filter((row) => words.every((word) => texts[row].includes(word)))
        : sorted;
      first = 0;
      show();
    };

    const sortBy = (index) => {
      const head = heads[index];
      const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const order = compare(numeric[index]);
      const column = columns[index];
      // A text among numbers, as a dash for a missing value, is last in both directions.
      const missing = (row) => numeric[index] && Number.isNaN(number(column[row]));
      sorted = [...every].sort((a, b) => missing(a) - missing(b)
        || (missing(a) ? 0 : sign * order(column[a], column[b])));
      filter();
    };

    heads.forEach((head, index) => {
      const button = make("button", head.textContent, { type: "button" });
      button.addEventListener("click", () => sortBy(index));
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
    });
    if (!isLong) return;
    const label = make("label", "Filter");
    const input = make("input", "", { type: "search", autocomplete: "off" });
    label.append(input);
    input.addEventListener("input", () => { query = input.value; filter(); });
    previous.addEventListener("click", () => { first = Math.max(0, first - size); show(); });
    next.addEventListener("click", () => { first += size; show(); });
    const controls = make("div", "", { class: "controls" });
    controls.append(label, previous, next);
    figure.querySelector(".box").before(controls);
    show();
  };

  const THEMES = ["automatic", "light", "dark"];
  const theme = document.getElementById("theme");
  const setTheme = (name) => {
    if (name === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
    theme.dataset.name = name;
  };
  // A page that is opened from a file may have no storage.
  const storage = (act) => { try { return act(window.localStorage); } catch { return null; } };
  const stored = storage((store) => store.getItem("w2s_ray theme"));
  setTheme(THEMES.includes(stored) ? stored : "automatic");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const name = THEMES[(THEMES.indexOf(theme.dataset.name) + 1) % THEMES.length];
    setTheme(name);
    storage((store) => store.setItem("w2s_ray theme", name));
  });
  document.querySelectorAll("figure.table").forEach(upgrade);
})();
