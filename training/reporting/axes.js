// Axes of the figures of a report: scales, ticks and their labels. Joined in front of report.js.
"use strict";

const FONT = 11; // pixels, as in report.css

function scaleOf(low, high, from, to, isLog) {
  const f = isLog ? Math.log10 : (v) => v;
  const [a, b] = [f(low), f(high)];
  const scale = (value) => from + ((f(value) - a) / (b - a || 1)) * (to - from);
  scale.invert = (pixel) => {
    const t = a + ((pixel - from) / (to - from)) * (b - a);
    return isLog ? 10 ** t : t;
  };
  return Object.assign(scale, { low, high, isLog });
}

function linearTicks(low, high, most) {
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  return ticks;
}

function logTicks(low, high, most) {
  const [a, b] = [Math.log10(low), Math.log10(high)];
  if (b - a < 1.5) {
    const ticks = [];
    for (let e = Math.floor(a); e <= b; e++)
      for (const m of [1, 2, 5]) if (m * 10 ** e >= low && m * 10 ** e <= high) ticks.push(m * 10 ** e);
    return ticks.length > 1 ? ticks : linearTicks(low, high, most);
  }
  const every = Math.max(1, Math.ceil((b - a) / most));
  const ticks = [];
  for (let e = Math.ceil(a / every) * every; e <= b; e += every) ticks.push(10 ** e);
  return ticks;
}

function superscript(number) {
  return String(number).replace(/[-0-9]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
}

function format(value, axis = {}) {
  if (axis.percent) return `${+(100 * value).toPrecision(4)} %`;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (axis.log && size > 0 && Math.abs(Math.log10(size) % 1) < 1e-9 && (size >= 1e4 || size < 1e-2))
    return `10${superscript(Math.round(Math.log10(size)))}`;
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
  if (size < 1e-3) {
    const e = Math.floor(Math.log10(size));
    return `${+(value / 10 ** e).toPrecision(3)}·10${superscript(e)}`;
  }
  return String(+value.toPrecision(4));
}

// Labels that would touch the one before them are left out.
function sparse(ticks, scale, width) {
  let end = -Infinity;
  return ticks.filter((tick) => {
    const [at, half] = [scale(tick), width(tick) / 2 + 4];
    if (at - half < end) return false;
    end = at + half;
    return true;
  });
}

const textWidth = (() => {
  const context = document.createElement("canvas").getContext("2d");
  return (text) => {
    context.font = `${FONT}px system-ui, sans-serif`;
    return context.measureText(text).width;
  };
})();
