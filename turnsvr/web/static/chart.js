// A line chart of the last values, on a canvas, in the page's colours.

const POINTS = 120;

export class Chart {
  /** least: the top of the scale is never below it, so that noise near zero looks small. */
  constructor(canvas, least) {
    this.canvas = canvas;
    this.least = least;
    this.values = [];
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  clear() {
    this.values = [];
    this.draw();
  }

  /** One more value; null leaves a gap. */
  add(value) {
    this.values.push(value);
    if (this.values.length > POINTS) this.values.shift();
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const style = getComputedStyle(document.documentElement);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const top = nice(Math.max(this.least, ...this.values.filter((value) => value !== null)));
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = style.getPropertyValue("--muted");
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.lineWidth = 1;
    for (const share of [0, 0.5, 1]) {
      const y = 8 + (height - 16) * (1 - share);
      pen.beginPath();
      pen.moveTo(34, y);
      pen.lineTo(width, y);
      pen.stroke();
      pen.fillText(String(+(top * share).toPrecision(3)), 0, y + 4);
    }
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    pen.beginPath();
    let drawing = false;
    this.values.forEach((value, index) => {
      if (value === null) { drawing = false; return; }
      const x = 34 + (width - 36) * (index / (POINTS - 1));
      const y = 8 + (height - 16) * (1 - value / top);
      if (drawing) pen.lineTo(x, y); else pen.moveTo(x, y);
      drawing = true;
    });
    pen.stroke();
  }
}

/** The next of 1, 2, 5, 10, 20 … that is not below value. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}
