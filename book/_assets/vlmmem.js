// The theme tells Bootstrap to follow the reader through a contents list of another name; Bootstrap then tries every
// link of the page as a selector, and an anchor with a point in it is an error.
(() => {
  const contents = "#pst-page-toc-nav";
  document.addEventListener("DOMContentLoaded", () => {
    if (document.querySelector(contents)) document.body.dataset.bsTarget = contents;
    else delete document.body.dataset.bsSpy;
  });
})();

// Searches and filters what a form of controls names, with its state in the address, so that a choice can be linked to;
// sorts the ledger's table: one tbody a figure.
(() => {
  function start() {
    const form = document.querySelector("form.vlmmem-controls");
    if (!form) return;
    const items = [...document.querySelectorAll(form.dataset.items)];
    const texts = new Map();
    const search = form.elements.words;
    const selects = [...form.querySelectorAll("select")];
    const count = form.querySelector("output");

    // Only when somebody searches: reading the text of every entry takes time.
    function text(item) {
      if (!texts.has(item)) texts.set(item, item.textContent.toLowerCase().replace(/\s+/g, " "));
      return texts.get(item);
    }

    function filter() {
      // Words may stand anywhere; what is in quotes must stand as it is.
      const wanted = [...search.value.toLowerCase().matchAll(/"([^"]+)"|(\S+)/g)].map((match) => match[1] || match[2]);
      let shown = 0;
      for (const item of items) {
        const fits =
          selects.every(
            (select) => !select.value || (item.dataset[select.name] || "").split(",").includes(select.value),
          ) && wanted.every((word) => text(item).includes(word));
        item.hidden = !fits;
        shown += fits;
      }
      count.textContent = `${shown} of ${items.length} ${form.dataset.what}`;
    }

    function write() {
      const chosen = new URLSearchParams();
      for (const field of [search, ...selects]) if (field.value) chosen.set(field.name, field.value);
      const query = chosen.toString();
      history.replaceState(null, "", location.pathname + (query && `?${query}`) + location.hash);
    }

    function read() {
      const chosen = new URLSearchParams(location.search);
      for (const field of [search, ...selects]) {
        field.value = chosen.get(field.name) || "";
        // A choice that does not exist is none.
        if (field.selectedIndex === -1) field.value = "";
      }
    }

    function follow() {
      const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      const item = target && items.find((each) => each.contains(target));
      if (!item) return;
      if (item.hidden) {
        [search, ...selects].forEach((field) => (field.value = ""));
        filter();
      }
      if (target === item && item.tagName === "TBODY")
        target.querySelectorAll("details").forEach((details) => (details.open = true));
      if (target.closest("details")) target.closest("details").open = true;
      target.scrollIntoView({ behavior: "instant" });
    }

    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      filter();
      write();
    });
    window.addEventListener("hashchange", follow);
    window.addEventListener("popstate", () => {
      read();
      filter();
    });
    // Fonts and formulas that arrive late move the entry.
    window.addEventListener("load", follow);
    form.hidden = false;
    read();
    filter();
    follow();
  }

  function sortable() {
    const table = document.querySelector("table.vlmmem-ledger");
    if (!table) return;
    const bodies = [...table.tBodies];
    const place = new Map(bodies.map((body, index) => [body, index]));

    function sort(button) {
      const head = button.closest("th");
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th[data-key]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = head.dataset.key;
      const value = (body) => (key === "verdict" ? body.dataset[key] : Number(body.dataset[key]));
      bodies.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        return (x < y ? -1 : x > y ? 1 : 0) * (ascending ? 1 : -1) || place.get(a) - place.get(b);
      });
      table.append(...bodies);
    }

    for (const head of table.querySelectorAll("th[data-key]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(button));
    }
  }

  function ready() {
    sortable();
    start();
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else ready();
})();

// On the search page a figure is named by what it prints and by its id, the exact one first.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Scorer === "undefined" || typeof Search === "undefined") return;
  const plain = (text) => text.toLowerCase().replace(/^[~≈]/, "").trim();
  const query = plain(new URLSearchParams(location.search).get("q") || "");
  const ledger = /(^|\/)ledger$/;

  // Called for every result: page, title, anchor, description, score, file.
  Scorer.score = (item) => {
    if (!ledger.test(item[0]) || !item[2]) return item[4];
    const id = item[2].slice(1).replace("-", ":");
    // What was found by its id comes from the index, and has no description.
    if (item[3] === null) item[1] = id;
    item[3] = item[1] === id ? "in the ledger" : `${id}, in the ledger`;
    const named = plain(item[1]);
    if (named === query) return item[4] + 200;
    return item[4] + (` ${named} `.includes(` ${query} `) ? 100 : 0);
  };
});
