// Curves as SVG: one figure for each chart, with a crosshair for the mouse, a finger and the arrow keys.
const NS = "http://www.w3.org/2000/svg";
const H = 136, LEFT = 34, RIGHT = 6, TOP = 6, BOTTOM = 16;

// At the axis there is room for five characters.
function tick(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return size >= 1e4 ? `${Math.round(value / 1e3)} k` : number(value, 2);
}

// Every number on the page but names: steps, versions, rows. As services/numbers.py writes them: commas between thousands.
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e3) return Math.round(value).toLocaleString("en");
  if (size !== 0 && size < 10 ** -digits) return value.toExponential(1);
  return String(Number(value.toFixed(size >= 100 ? Math.min(1, digits) : digits)));
}

function svg(tag, attributes) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export class Curve {
  // series: [{label, points: () => [[x, y], ...], dots}]
  constructor(title, series, bounds = {}) {
    this.series = series;
    this.bounds = bounds;
    this.title = title;
    this.at = null;
    this.element = document.createElement("figure");
    this.element.className = "curve";
    const caption = document.createElement("figcaption");
    const name = document.createElement("b");
    name.textContent = title;
    caption.append(name);
    this.values = series.map((one, index) => {
      const shown = document.createElement("span");
      shown.className = `k${index}`;
      caption.append(shown);
      return shown;
    });
    this.svg = svg("svg", { tabindex: "0", role: "img" });
    this.element.append(caption, this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => { this.at = null; this.draw(); });
    this.svg.addEventListener("blur", () => { this.at = null; this.draw(); });
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const place = event.clientX - box.left;
    this.at = this.x0 + ((place - LEFT) / (box.width - LEFT - RIGHT)) * (this.x1 - this.x0);
    this.draw();
  }

  key(event) {
    const points = this.series[0].points();
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
    if (!by || !points.length) return;
    event.preventDefault();
    const now = this.at === null ? points.length - 1 : nearest(points, this.at);
    this.at = points[Math.max(0, Math.min(points.length - 1, now + by))][0];
    this.draw();
    document.getElementById("said").textContent = this.svg.getAttribute("aria-label");
  }

  draw() {
    const drawn = this.series.map((one) => one.points().filter((p) => p[1] !== null));
    const all = drawn.flat();
    const W = this.svg.clientWidth || 320; // drawn in pixels, so that letters keep their shape
    this.svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
    this.svg.replaceChildren();
    if (!all.length) {
      this.svg.setAttribute("aria-label", `${this.title}: nothing measured yet`);
      this.values.forEach((shown, index) => { shown.textContent = index ? "" : "–"; });
      return;
    }
    this.x0 = Math.min(...all.map((p) => p[0]));
    this.x1 = Math.max(...all.map((p) => p[0]), this.x0 + 1);
    let low = this.bounds.min ?? Math.min(...all.map((p) => p[1]));
    let high = this.bounds.max ?? Math.max(...all.map((p) => p[1]));
    if (high - low < 1e-9) { high += Math.abs(high) * 0.1 || 1; }
    const x = (v) => LEFT + ((v - this.x0) / (this.x1 - this.x0)) * (W - LEFT - RIGHT);
    const y = (v) => TOP + (1 - (v - low) / (high - low)) * (H - TOP - BOTTOM);
    for (const part of [0, 0.5, 1]) {
      const value = low + part * (high - low);
      this.svg.append(svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(value), y2: y(value) }));
      this.label(LEFT - 4, y(value) + 3, tick(value), "end");
    }
    this.label(LEFT, H - 3, number(this.x0, 0), "start");
    this.label(W - RIGHT, H - 3, `step ${number(this.x1, 0)}`, "end");
    drawn.forEach((points, index) => {
      if (this.series[index].dots) {
        for (const p of points) this.svg.append(svg("circle", { class: `s${index}`, cx: x(p[0]), cy: y(p[1]), r: 2.6 }));
      } else if (points.length) {
        const d = points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
        this.svg.append(svg("path", { class: `s${index}`, d }));
      }
    });
    const said = drawn.map((points, index) => {
      if (!points.length) return "";
      const p = points[this.at === null ? points.length - 1 : nearest(points, this.at)];
      return `${this.series[index].label} ${number(p[1])}` + (this.at === null && !this.series[index].dots ? "" : ` @${p[0]}`);
    });
    if (this.at !== null) this.svg.append(svg("line", { class: "cross", x1: x(this.at), x2: x(this.at), y1: TOP, y2: H - BOTTOM }));
    this.values.forEach((shown, index) => { shown.textContent = said[index]; });
    this.svg.setAttribute("aria-label", `${this.title}, steps ${this.x0} to ${this.x1}: ${said.filter(Boolean).join(", ")}`);
  }

  label(x, y, text, anchor) {
    const made = svg("text", { x, y, "text-anchor": anchor });
    made.textContent = text;
    this.svg.append(made);
  }
}

function nearest(points, x) {
  let best = 0;
  points.forEach((p, index) => { if (Math.abs(p[0] - x) < Math.abs(points[best][0] - x)) best = index; });
  return best;
}
