// The theme tells Bootstrap to follow the reader through a contents list of another name; Bootstrap then tries every
// link of the page as a selector, and an anchor with a point in it is an error.
(() => {
  const contents = "#pst-page-toc-nav";
  document.addEventListener("DOMContentLoaded", () => {
    if (document.querySelector(contents)) document.body.dataset.bsTarget = contents;
    else delete document.body.dataset.bsSpy;
  });
})();

// Searches, filters and sorts the ledger's table: one tbody a figure.
(() => {
  function start() {
    const table = document.querySelector("table.vlmmem-ledger");
    const form = document.querySelector("form.vlmmem-controls");
    if (!table || !form) return;
    const bodies = [...table.tBodies];
    const place = new Map(bodies.map((body, index) => [body, index]));
    const text = new Map(bodies.map((body) => [body, body.textContent.toLowerCase().replace(/\s+/g, " ")]));
    const search = form.querySelector("input");
    const selects = [...form.querySelectorAll("select")];
    const count = form.querySelector("output");

    function filter() {
      // Words may stand anywhere; what is in quotes must stand as it is.
      const wanted = [...search.value.toLowerCase().matchAll(/"([^"]+)"|(\S+)/g)].map((match) => match[1] || match[2]);
      let shown = 0;
      for (const body of bodies) {
        const fits =
          wanted.every((word) => text.get(body).includes(word)) &&
          selects.every((select) => !select.value || body.dataset[select.dataset.filter] === select.value);
        body.hidden = !fits;
        shown += fits;
      }
      count.textContent = `${shown} of ${bodies.length} figures`;
    }

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

    function follow() {
      const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!target || !table.contains(target)) return;
      if (target.hidden) {
        search.value = "";
        selects.forEach((select) => (select.value = ""));
        filter();
      }
      target.querySelectorAll("details").forEach((details) => (details.open = true));
      target.scrollIntoView({ behavior: "instant" });
    }

    for (const head of table.querySelectorAll("th[data-key]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(button));
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", filter);
    window.addEventListener("hashchange", follow);
    // Fonts and formulas that arrive late move the entry.
    window.addEventListener("load", follow);
    form.hidden = false;
    filter();
    follow();
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
