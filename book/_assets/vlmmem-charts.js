// Draws each chart from the specification beside its still picture, as wide as the page allows.
(() => {
  const composed = ["hconcat", "vconcat", "concat", "repeat", "facet"];

  function fitted(spec, figure) {
    const encoding = spec.encoding || {};
    const plain = !composed.some((key) => key in spec) && !encoding.row && !encoding.column && !encoding.facet;
    const stepped = spec.width && typeof spec.width === "object";
    // A figure that is not laid out yet (in a closed box) has no width to fill.
    return plain && !stepped && figure.clientWidth ? { ...spec, width: "container", autosize: { type: "fit-x", contains: "padding" } } : spec;
  }

  async function draw(figure) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const target = document.createElement("div");
    target.className = "vlmmem-chart-drawn";
    figure.append(target);
    try {
      await window.vegaEmbed(target, fitted(spec, figure), { actions: false, renderer: "svg", mode: "vega-lite" });
      figure.dataset.state = "drawn";
    } catch (error) {
      target.remove();
      figure.dataset.state = "failed";
      console.error(`chart ${figure.id}: ${error.message}`);
    }
  }

  function start() {
    document.querySelectorAll("figure.vlmmem-chart").forEach(draw);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
