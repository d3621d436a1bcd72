// Draws each chart from the specification beside its still picture, as wide as the page allows.
(() => {
  const composed = ["hconcat", "vconcat", "concat", "repeat", "facet"];

  function fitted(spec, figure) {
    const encoding = spec.encoding || {};
    const plain = !composed.some((key) => key in spec) && !encoding.row && !encoding.column && !encoding.facet;
    const stepped = spec.width && typeof spec.width === "object";
    // A figure that is not laid out yet (in a closed box) has no width to fill.
    if (!plain || stepped || !figure.clientWidth) return spec;
    const config = spec.config || {};
    // A legend wider than the plot would be cut off.
    const legend = { ...config.legend, columns: Math.max(1, Math.min(3, Math.floor(figure.clientWidth / 200))) };
    const autosize = { type: "fit-x", contains: "padding" };
    // On a narrow axis the last label, which ends with the axis, would touch its neighbour.
    const axis = { labelSeparation: 8, ...config.axis };
    return { ...spec, width: figure.clientWidth, autosize, config: { ...config, axis, legend } };
  }

  async function draw(figure) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const target = figure.querySelector(".vlmmem-chart-drawn") || document.createElement("div");
    target.className = "vlmmem-chart-drawn";
    figure.append(target);
    figure.drawnWidth = figure.clientWidth;
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
    // A turned phone or a resized window changes the width.
    const observer = new ResizeObserver((entries) => {
      for (const { target } of entries) if (target.drawnWidth !== target.clientWidth) draw(target);
    });
    document.querySelectorAll("figure.vlmmem-chart").forEach((figure) => {
      draw(figure);
      observer.observe(figure);
    });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
