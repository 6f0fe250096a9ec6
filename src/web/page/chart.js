// Line charts, drawn as SVG: time to the right, from zero up.

import { duration } from "/page/words.js";

const SPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 112;
const BASE = 96;
const TOP = 12;

function shape(name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The next round number of its unit above, so that the scale does not jump at every sample. */
function ceiling(value, base) {
  if (value <= 1) return 1;
  const unit = base ** Math.floor(Math.log(value) / Math.log(base));
  const power = unit * 10 ** Math.floor(Math.log10(value / unit));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/** In whole minutes, if it is one. */
const whole = (ms) => (ms < 60000 ? ms : Math.round(ms / 60000) * 60000);

/**
 * Draws `series` (arrays of numbers or null, all as long as `times`) into `svg`. `show` writes a value.
 * A null is a break in the line. A unit is `base` times the one below it.
 */
export function draw(svg, times, series, show, base = 10) {
  const values = series.flat().filter((value) => value !== null);
  const width = svg.clientWidth || 400;
  const top = ceiling(Math.max(0, ...values), base);
  const [first, last] = [times[0] ?? 0, times.at(-1) ?? 1];
  const x = (time) => (last === first ? width : ((time - first) / (last - first)) * width);
  const y = (value) => BASE - (value / top) * (BASE - TOP);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const parts = [
    shape("line", { class: "axis", x1: 0, x2: width, y1: BASE, y2: BASE }),
    shape("line", { class: "axis", x1: 0, x2: width, y1: TOP, y2: TOP }),
    shape("text", { x: 0, y: TOP - 3 }, show(top)),
    shape("text", { x: 0, y: HEIGHT - 3 }, times.length > 1 ? `${duration(whole(last - first))} ago` : ""),
    shape("text", { x: width, y: HEIGHT - 3, "text-anchor": "end" }, "now"),
  ];
  series.forEach((line, number) => {
    let path = "";
    let open = false;
    line.forEach((value, at) => {
      // A line of no length, so that a value between two breaks is a dot.
      const [start, end] = open ? ["L", ""] : ["M", "h0"];
      if (value !== null) path += `${start}${x(times[at]).toFixed(1)} ${y(value).toFixed(1)}${end}`;
      open = value !== null;
    });
    if (path) parts.push(shape("path", { class: number === 0 ? "line" : "line second", d: path }));
  });
  svg.replaceChildren(...parts);
}
