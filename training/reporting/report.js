// Draws the figures of a report: SVG from the data in #figures. Hover reads a point, a drag zooms
// into a box, a double click or "reset" zooms out, the names below a figure hide its curves.

const SVG = "http://www.w3.org/2000/svg";

function element(parent, tag, attributes = {}, text = null) {
  const isSvg = parent instanceof SVGElement || tag === "svg";
  const made = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  parent.appendChild(made);
  return made;
}

// --- one panel ----------------------------------------------------------------------------------

class Panel {
  constructor(parent, spec, hidden) {
    Object.assign(this, { spec, hidden, view: null });
    this.box = element(parent, "div", { class: "panel" });
    const head = element(this.box, "div", { class: "panel-head" });
    element(head, "h3", {}, spec.title);
    this.reset = element(head, "button", { class: "reset", type: "button", hidden: "" }, "reset");
    this.reset.addEventListener("click", () => this.zoom(null));
    this.place = element(this.box, "div", { class: "plot" });
    this.tip = element(this.place, "div", { class: "tip", hidden: "" });
    new ResizeObserver(() => this.draw()).observe(this.place);
  }

  zoom(view) {
    this.view = view;
    this.reset.hidden = view === null;
    this.draw();
  }

  visible() {
    return this.spec.series.filter((series) => !this.hidden.has(series.name));
  }

  limits() {
    if (this.view) return this.view;
    const { spec } = this;
    let [xs, ys] = [[], []];
    for (const { x, y } of this.visible())
      y.forEach((value, i) => {
        if (value !== null && (!spec.y.log || value > 0)) {
          xs.push(x[i]);
          ys.push(value);
        }
      });
    for (const level of spec.levels) if (!this.hidden.has(level.name)) ys.push(level.y);
    if (!ys.length) [xs, ys] = [[0, 1], spec.y.log ? [0.1, 1] : [0, 1]];
    const fold = (values, pick) => values.reduce((a, b) => pick(a, b));
    let [x0, x1] = [spec.x.low ?? fold(xs, Math.min), spec.x.high ?? fold(xs, Math.max)];
    let [y0, y1] = [fold(ys, Math.min), fold(ys, Math.max)];
    if (spec.y.log) [y0, y1] = [y0 / 1.5, y1 * 1.5];
    else {
      const air = 0.06 * (y1 - y0 || Math.abs(y1) || 1);
      [y0, y1] = [spec.y.low ?? y0 - air, y1 + air];
    }
    if (x1 <= x0) x1 = x0 + 1;
    return { x0, x1, y0, y1 };
  }

  draw() {
    const width = this.place.clientWidth;
    if (!width) return;
    const { spec } = this;
    const height = Math.round(Math.min(300, Math.max(210, 0.62 * width)));
    const { x0, x1, y0, y1 } = this.limits();
    const [top, bottom, right] = [8, height - 40, width - 14];
    const most = Math.floor((bottom - top) / 34);
    const yTicks = spec.y.log ? logTicks(y0, y1, most) : linearTicks(y0, y1, most);
    const left = 26 + Math.max(...yTicks.map((tick) => textWidth(format(tick, spec.y))), 8);
    this.sx = scaleOf(x0, x1, left, right, spec.x.log);
    this.sy = scaleOf(y0, y1, bottom, top, spec.y.log);
    this.area = { left, right, top, bottom };
    this.svg?.remove();
    this.svg = element(this.place, "svg", { width, height, role: "img", "aria-label": spec.title });
    this.drawAxes(yTicks, height);
    this.drawSeries();
    this.listen();
  }

  drawAxes(yTicks, height) {
    const { spec, svg, sx, sy } = this;
    const { left, right, top, bottom } = this.area;
    for (const tick of yTicks) {
      const y = sy(tick);
      element(svg, "line", { class: "grid", x1: left, x2: right, y1: y, y2: y });
      element(svg, "text", { x: left - 6, y: y + 4, "text-anchor": "end" }, format(tick, spec.y));
    }
    const wide = (tick) => textWidth(format(tick, spec.x));
    const xTicks = linearTicks(sx.low, sx.high, Math.max(2, Math.floor((right - left) / 80)));
    const place = (tick) => Math.min(sx(tick), right + 13 - wide(tick) / 2);
    for (const tick of sparse(xTicks, place, wide)) {
      const [x, at] = [sx(tick), place(tick)];
      element(svg, "line", { class: "tick", x1: x, x2: x, y1: bottom, y2: bottom + 4 });
      element(svg, "text", { x: at, y: bottom + 16, "text-anchor": "middle" }, format(tick, spec.x));
    }
    element(svg, "line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom });
    const middle = (left + right) / 2;
    const text = { class: "label", "text-anchor": "middle" };
    element(svg, "text", { ...text, x: middle, y: height - 5 }, spec.x.label);
    const turn = `translate(11 ${(top + bottom) / 2}) rotate(-90)`;
    element(svg, "text", { ...text, transform: turn }, spec.y.label);
  }

  drawSeries() {
    const { spec, svg, sx, sy } = this;
    const { left, right, top, bottom } = this.area;
    const id = `clip${Panel.count++}`;
    const clip = element(svg, "clipPath", { id });
    element(clip, "rect", { x: left, y: top - 4, width: right - left + 6, height: bottom - top + 4 });
    const inside = element(svg, "g", { "clip-path": `url(#${id})` });
    for (const x of spec.marks)
      element(inside, "line", { class: "mark", x1: sx(x), x2: sx(x), y1: top - 4, y2: bottom });
    for (const { name, y, dash } of spec.levels)
      if (!this.hidden.has(name))
        element(inside, "line", {
          class: "level", x1: left, x2: right, y1: sy(y), y2: sy(y), "stroke-dasharray": dash,
        });
    for (const series of this.visible()) {
      const points = series.x.map((x, i) => [x, series.y[i]]);
      const style = `--color: ${series.color}`;
      const shows = (y) => y !== null && (!spec.y.log || y > 0);
      if (series.kind === "points" || points.length === 1)
        for (const [x, y] of points.filter((p) => shows(p[1])))
          element(inside, "circle", { class: "point", cx: sx(x), cy: sy(y), r: series.size, style });
      else {
        let [d, before] = ["", null];
        for (const [x, y] of points) {
          if (!shows(y)) before = null;
          else {
            const to = `${sx(x).toFixed(1)} ${sy(y).toFixed(1)}`;
            if (before === null) d += `M${to}`;
            else d += series.kind === "step" ? `H${sx(x).toFixed(1)}V${sy(y).toFixed(1)}` : `L${to}`;
            before = y;
          }
        }
        element(inside, "path", { class: "curve", d, style, "stroke-dasharray": series.dash });
      }
    }
    this.cursor = element(svg, "circle", { class: "cursor", r: 4.5, visibility: "hidden" });
    this.drag = element(svg, "rect", { class: "drag", visibility: "hidden" });
  }

  // The point nearest to a place on the screen, at most 40 pixels away.
  nearest(px, py) {
    let [best, found] = [1600, null];
    for (const series of this.visible())
      series.x.forEach((x, i) => {
        const y = series.y[i];
        if (y === null || (this.spec.y.log && y <= 0)) return;
        const [dx, dy] = [this.sx(x) - px, this.sy(y) - py];
        if (dx * dx + dy * dy < best) [best, found] = [dx * dx + dy * dy, { series, x, y }];
      });
    return found;
  }

  read(px, py) {
    const found = this.nearest(px, py);
    this.tip.hidden = found === null;
    this.cursor.setAttribute("visibility", found ? "visible" : "hidden");
    if (!found) return;
    const { series, x, y } = found;
    const { spec } = this;
    this.cursor.setAttribute("cx", this.sx(x));
    this.cursor.setAttribute("cy", this.sy(y));
    this.cursor.style.setProperty("--color", series.color);
    const about = series.note ? `${series.name}, ${series.note}` : series.name;
    this.tip.replaceChildren();
    element(this.tip, "b", {}, about);
    element(this.tip, "span", {}, `${spec.x.label} ${+x.toPrecision(6)}`);
    element(this.tip, "span", {}, `${spec.y.label} ${format(y, spec.y)}`);
    const { offsetWidth: w, offsetHeight: h } = this.tip;
    const at = Math.min(Math.max(this.sx(x) - w / 2, 0), this.place.clientWidth - w);
    const above = this.sy(y) - h - 10;
    this.tip.style.left = `${at}px`;
    this.tip.style.top = `${above < 0 ? this.sy(y) + 12 : above}px`;
  }

  listen() {
    const { svg, drag } = this;
    const { left, right, top, bottom } = this.area;
    let start = null;
    const at = (event) => {
      const box = svg.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const inside = ([x, y]) => [
      Math.min(Math.max(x, left), right),
      Math.min(Math.max(y, top), bottom),
    ];
    svg.addEventListener("pointerdown", (event) => {
      this.read(...at(event));
      if (event.pointerType === "mouse") start = inside(at(event));
    });
    svg.addEventListener("pointermove", (event) => {
      if (!start) return this.read(...at(event));
      const [[a, b], [x, y]] = [start, inside(at(event))];
      const box = { x: Math.min(a, x), y: Math.min(b, y) };
      const size = { width: Math.abs(a - x), height: Math.abs(b - y) };
      for (const [name, value] of Object.entries({ ...box, ...size })) drag.setAttribute(name, value);
      drag.setAttribute("visibility", "visible");
    });
    svg.addEventListener("pointerup", (event) => {
      if (!start) return;
      const [[a, b], [x, y]] = [start, inside(at(event))];
      start = null;
      drag.setAttribute("visibility", "hidden");
      if (Math.abs(a - x) < 6 || Math.abs(b - y) < 6) return;
      const [xs, ys] = [[a, x].map(this.sx.invert), [b, y].map(this.sy.invert)];
      this.zoom({
        x0: Math.min(...xs), x1: Math.max(...xs), y0: Math.min(...ys), y1: Math.max(...ys),
      });
    });
    svg.addEventListener("pointerleave", () => {
      this.tip.hidden = true;
      start = null;
      drag.setAttribute("visibility", "hidden");
      this.cursor.setAttribute("visibility", "hidden");
    });
    svg.addEventListener("dblclick", () => this.zoom(null));
  }
}
Panel.count = 0;

// --- the page -----------------------------------------------------------------------------------

function drawPlate(place, plate) {
  const hidden = new Set();
  const grid = element(place, "div", { class: "panels" });
  const panels = plate.panels.map((spec) => new Panel(grid, spec, hidden));
  const legend = element(place, "div", { class: "legend" });
  for (const { name, color, kind, dash } of plate.legend) {
    const button = element(legend, "button", { type: "button", "aria-pressed": "true" });
    const key = element(button, "svg", { width: 24, height: 10, "aria-hidden": "true" });
    const style = `--color: ${color}`;
    if (kind === "points") element(key, "circle", { class: "point", cx: 12, cy: 5, r: 4, style });
    else element(key, "path", { class: "curve", d: "M1 5H23", style, "stroke-dasharray": dash });
    element(button, "span", {}, name);
    button.addEventListener("click", () => {
      if (!hidden.delete(name)) hidden.add(name);
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      panels.forEach((panel) => panel.draw());
    });
  }
  if (plate.ramp) {
    const ramp = element(legend, "span", { class: "ramp" });
    element(ramp, "span", {}, plate.ramp[0]);
    element(ramp, "i");
    element(ramp, "span", {}, plate.ramp[1]);
  }
}

function offerCommands() {
  const isFile = location.protocol === "file:";
  const folder = isFile ? decodeURI(location.pathname).replace(/\/[^/]*$/, "") : null;
  for (const code of document.querySelectorAll("code.command")) {
    if (folder) code.textContent = code.textContent.replaceAll("RUN", quoted(folder));
    const button = element(code.parentElement, "button", { type: "button", class: "copy" }, "copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "selected";
      }
      setTimeout(() => (button.textContent = "copy"), 1500);
    });
  }
}

function quoted(path) {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}

const plates = JSON.parse(document.getElementById("figures").textContent);
for (const [name, plate] of Object.entries(plates)) drawPlate(document.getElementById(name), plate);
offerCommands();
