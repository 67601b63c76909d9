// The cycle viewer. The numbers come from the trace alone; what each PE does comes as the plane of states.
(() => {
  const MULTIPLYING = 3, OVERFLOWED = 4;
  const EDGE_ADDED = 1, EDGE_OVERFLOWED = 4, TREE_OVERFLOWED = 8;
  const ARRAYS = {
    int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array,
  };
  const FLOWS = {
    output_stationary: "Activations enter at the left and move right, weights enter at the top and move down; every PE keeps its sum.",
    weight_stationary: "Every PE keeps a weight; activations enter at the left and move right, partial sums move down into the accumulators below.",
    input_stationary: "Every PE keeps an activation; weights enter at the left and move right, partial sums move down into the accumulators below.",
    broadcast: "All PEs multiply at once: every row takes one output channel, every column one term of the sum; an adder tree adds up each row.",
  };
  // What the rows and columns of the grid hold, and what passes in time: docs/timing.md sections 1 and 2.
  const AXES = {
    output_stationary: ["p", "n", "k"], weight_stationary: ["k", "n", "p"],
    input_stationary: ["k", "p", "n"], broadcast: ["n", "p", "k"],
  };
  // What moves which way, for the corner of the grid.
  const MOVES = {
    output_stationary: "w↓ x→", weight_stationary: "x→ Σ↓", input_stationary: "w→ Σ↓", broadcast: "x↓ Σ→",
  };
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const drawn = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const grouped = (value) => value.toLocaleString("en-US");

  async function unpacked(plane) {
    const packed = Uint8Array.from(atob(plane.data), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new ARRAYS[plane.type](await new Response(stream).arrayBuffer());
  }

  class Traced {
    constructor(data, planes) {
      Object.assign(this, data);
      this.planes = planes;
      [this.firstCycle, this.endCycle] = data.window.cycles;
      [this.firstRow] = data.window.rows;
      [this.firstColumn] = data.window.columns;
      this.rows = data.window.rows[1] - this.firstRow;
      this.columns = data.window.columns[1] - this.firstColumn;
      this.length = this.endCycle - this.firstCycle;
      this.perCycle = this.rows * this.columns;
      const folds = data.folds.map(([index, first, length, r0, rows, c0, columns, lastRow]) =>
        ({ index, first, length, r0, rows, c0, columns, lastRow }));
      this.folds = folds;
      this.busy = new Int32Array(this.length);
      this.work = 0;
      this.overflows = [];
      const edges = planes.edge_states ? planes.edge_states.length / this.length : 0;
      for (let t = 0; t < this.length; t++) {
        let over = 0;
        for (let i = t * this.perCycle; i < (t + 1) * this.perCycle; i++) {
          this.busy[t] += (planes.states[i] & MULTIPLYING) === MULTIPLYING ? 1 : 0;
          over += planes.states[i] & OVERFLOWED ? 1 : 0;
        }
        for (let i = t * edges; i < (t + 1) * edges; i++) {
          over += planes.edge_states[i] & (EDGE_OVERFLOWED | TREE_OVERFLOWED) ? 1 : 0;
        }
        this.work += this.busy[t];
        if (over) this.overflows.push([t, over]);
      }
    }

    static async of(data) {
      const names = Object.keys(data.planes);
      const arrays = await Promise.all(names.map((name) => unpacked(data.planes[name])));
      return new Traced(data, Object.fromEntries(names.map((name, i) => [name, arrays[i]])));
    }

    foldAt(t) {
      const cycle = t + this.firstCycle;
      return this.folds.find((fold) => cycle < fold.first + fold.length);
    }

    at(t, i, j) {
      const index = t * this.perCycle + i * this.columns + j;
      const { weights, activations, registers, states, products } = this.planes;
      const weight = Number(weights[index]), activation = Number(activations[index]);
      return {
        weight, activation, state: states[index], register: registers[index],
        product: products ? products[index] : weight * activation,
      };
    }

    edgeAt(t, index) {
      const count = this.dataflow === "broadcast" ? this.rows : this.columns;
      return { value: this.planes.edge[t * count + index], state: this.planes.edge_states[t * count + index] };
    }

    // The index of what passes in time at a PE of the window, or -1: n, k or p by the dataflow.
    passing(t, i, j, fold) {
      const step = t + this.firstCycle - fold.first, column = this.firstColumn + j;
      const index = this.dataflow === "broadcast" ? step * this.grid[1] + column : step - (this.firstRow + i) - column;
      return index >= 0 && index < this.shape[AXES[this.dataflow][2]] ? index : -1;
    }
  }

  class Viewer {
    constructor(root) {
      this.root = root.querySelector(".viewer");
      this.find = (selector) => this.root.querySelector(selector);
      this.data = JSON.parse(root.querySelector("script.trace").textContent);
      this.slider = this.find(".cycle");
      this.grid = this.find(".grid");
      this.t = 0;
      this.chosen = [0, 0];
      this.loaded = new Map();
      const choice = this.find(".trace-choice");
      this.data.forEach((trace, index) => choice.append(element("option", { value: index, textContent: trace.name })));
      this.find(".which").classList.toggle("hidden", this.data.length < 2);
      choice.addEventListener("change", () => this.open(Number(choice.value)));
      this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
      for (const button of this.root.querySelectorAll("[data-go]")) {
        button.addEventListener("click", () => this.go(button.dataset.go));
      }
      const timeline = this.find(".timeline");
      const jump = (event) => {
        const box = timeline.getBoundingClientRect();
        this.show(Math.floor((event.clientX - box.left) / box.width * this.trace.length));
      };
      timeline.addEventListener("pointerdown", (event) => { timeline.setPointerCapture(event.pointerId); jump(event); });
      timeline.addEventListener("pointermove", (event) => { if (event.buttons) jump(event); });
      this.root.addEventListener("keydown", (event) => this.key(event));
      this.grid.addEventListener("click", (event) => this.choose(event.target.closest("[data-i]")));
      this.open(0);
    }

    async open(index) {
      this.stop();
      if (!this.loaded.has(index)) {
        try {
          this.loaded.set(index, await Traced.of(this.data[index]));
        } catch (problem) {
          this.find(".now").textContent = "This browser cannot unpack the trace: " + problem.message;
          throw problem;
        }
      }
      this.trace = this.loaded.get(index);
      this.chosen = [0, 0];
      this.slider.max = this.trace.length - 1;
      this.find(".only-latency").classList.toggle("hidden", this.trace.latency === 1);
      this.describe();
      this.build();
      this.drawTimeline();
      const widest = this.grid.parentElement.clientWidth;
      this.colours(widest / this.trace.columns < 56);
      this.show(0);
      this.root.dataset.ready = String(index);
    }

    describe() {
      const trace = this.trace, { n, k, p } = trace.shape;
      const part = trace.length < trace.num_cycles || trace.perCycle < trace.grid[0] * trace.grid[1];
      const bits = (register) => `${register.name} ${register.bits ? `${register.bits} bits` : "wide enough"}`;
      const registers = [trace.register, trace.edge].filter((register) => register && register.name !== "product").map(bits).join(", ");
      this.find(".flow").textContent =
        `${n} channels n, ${k} terms k, ${p} positions p on ${trace.grid[0]}x${trace.grid[1]} PEs, ` +
        `${trace.dataflow.replace("_", " ")}; ${registers}, overflow: ${trace.overflow}. ${FLOWS[trace.dataflow]}` +
        (part ? ` Shown: cycles ${trace.firstCycle + 1} to ${trace.endCycle} of ${grouped(trace.num_cycles)}, rows ` +
          `${trace.firstRow} to ${trace.firstRow + trace.rows - 1}, columns ${trace.firstColumn} to ` +
          `${trace.firstColumn + trace.columns - 1} of the grid.` : "");
      const share = (100 * trace.work / (trace.length * trace.perCycle)).toFixed(1);
      this.find(".flow").append(element("br"), `${grouped(trace.work)} products in ${grouped(trace.length)} cycles: ` +
        `on average ${(trace.work / trace.length).toFixed(1)} of ${trace.perCycle} PEs multiply (${share} %).`);
      const names = { "accumulator": "its accumulator", "partial sum": "its partial sum", "product": "what leaves it" };
      const own = trace.dataflow === "broadcast" && trace.latency === 1 ? "product" :
        `= product, ${names[trace.register.name]}`;
      this.find(".cell-key").textContent = `in a PE: weight × activation, ${own}` +
        (trace.register.bits ? "; the line below: how much of its range that takes" : "");
      this.grid.setAttribute("aria-label", `${trace.rows} by ${trace.columns} processing elements`);
    }

    // The cells are made once; a step fills them.
    build() {
      const trace = this.trace, broadcast = trace.dataflow === "broadcast";
      const extra = broadcast ? " minmax(0, 1.3fr)" : "";
      const roomy = this.grid.parentElement.clientWidth / (trace.columns + 1) >= 100;
      this.root.classList.toggle("roomy", roomy);
      this.widest = roomy ? `${160 * trace.columns + 280}px` : "";
      this.grid.style.gridTemplateColumns = `max-content repeat(${trace.columns}, minmax(0, 1fr))${extra}`;
      this.grid.replaceChildren();
      this.cells = [];
      this.rowHeads = [];
      this.edgeCells = [];
      this.columnHeads = Array.from({ length: trace.columns }, () => element("div", { className: "head" }));
      const top = element("div", { className: "head-row" }, element("div",
        { className: "head corner", textContent: MOVES[trace.dataflow] }), ...this.columnHeads);
      if (broadcast) top.append(element("div", { className: "head", textContent: "Σ → accumulator" }));
      top.style.display = "contents";
      top.setAttribute("role", "row");
      for (const head of this.columnHeads) head.setAttribute("role", "columnheader");
      this.grid.append(top);
      for (let i = 0; i < trace.rows; i++) {
        const head = element("div", { className: "head row" });
        head.setAttribute("role", "rowheader");
        this.rowHeads.push(head);
        const row = element("div", {}, head);
        row.setAttribute("role", "row");
        for (let j = 0; j < trace.columns; j++) row.append(this.cell(i, j));
        if (broadcast) row.append(this.edgeCell());
        this.grid.append(row);
      }
      if (trace.edge && !broadcast) {
        const row = element("div", {}, element("div", { className: "head row", textContent: "below" }));
        row.setAttribute("role", "row");
        for (let j = 0; j < trace.columns; j++) row.append(this.edgeCell());
        this.grid.append(row);
      }
    }

    cell(i, j) {
      const parts = ["o", "p", "r"].map((name) => element("span", { className: name }));
      const cell = element("div", { className: "cell", tabIndex: -1 }, ...parts, element("i"));
      cell.setAttribute("role", "gridcell");
      cell.dataset.i = i;
      cell.dataset.j = j;
      this.cells.push({ cell, parts });
      return cell;
    }

    edgeCell() {
      const parts = ["o", "r"].map((name) => element("span", { className: name }));
      const cell = element("div", { className: "cell edge" }, ...parts, element("i"));
      cell.setAttribute("role", "gridcell");
      this.edgeCells.push({ cell, parts });
      return cell;
    }

    drawTimeline() {
      const trace = this.trace, svg = this.find(".timeline");
      svg.setAttribute("viewBox", `0 0 ${trace.length} 100`);
      let path = "M0 100";
      for (let t = 0; t < trace.length; t++) {
        const y = 100 - 92 * trace.busy[t] / trace.perCycle;
        path += `L${t} ${y}L${t + 1} ${y}`;
      }
      this.cursor = drawn("line", { class: "cursor", y1: 0, y2: 100 });
      svg.replaceChildren(drawn("path", { class: "busy", d: `${path}L${trace.length} 100Z` }));
      if (trace.folds.length <= 400) {
        for (const fold of trace.folds.slice(1)) {
          const x = fold.first - trace.firstCycle;
          svg.append(drawn("line", { class: "edge-line", x1: x, x2: x, y1: 0, y2: 100 }));
        }
      }
      for (const [t] of trace.overflows.slice(0, 2000)) {
        svg.append(drawn("line", { class: "over-line", x1: t + 0.5, x2: t + 0.5, y1: 0, y2: 22 }));
      }
      svg.append(this.cursor);
      const none = trace.overflows.length === 0;
      this.find(".to-overflow").disabled = none;
      this.find(".to-overflow").textContent = none ? "No overflow" : `Next overflow (${trace.overflows.length} cycles)`;
    }

    show(t) {
      const trace = this.trace;
      this.t = Math.max(0, Math.min(trace.length - 1, t));
      const fold = trace.foldAt(this.t);
      this.slider.value = this.t;
      const cycle = this.t + trace.firstCycle;
      this.slider.setAttribute("aria-valuetext", `cycle ${cycle + 1} of ${trace.num_cycles}, fold ${fold.index + 1}`);
      this.cursor.setAttribute("x1", this.t + 0.5);
      this.cursor.setAttribute("x2", this.t + 0.5);
      this.showHeads(fold);
      const colours = this.root.classList.contains("colours");
      let zeros = 0, over = 0;
      this.cells.forEach(({ cell, parts }, index) => {
        const i = Math.floor(index / trace.columns), j = index % trace.columns, pe = trace.at(this.t, i, j);
        const work = pe.state & MULTIPLYING, overflowed = (pe.state & OVERFLOWED) !== 0;
        const zero = work === MULTIPLYING && (pe.weight === 0 || pe.activation === 0);
        zeros += zero ? 1 : 0;
        over += overflowed ? 1 : 0;
        const look = ["unused", "idle", "adding", "use"][work] + (zero ? " zero" : "") + (overflowed ? " over" : "");
        const chosen = i === this.chosen[0] && j === this.chosen[1] ? " chosen" : "";
        write(cell, "className", `cell ${look}${chosen}`);
        if (colours) return;  // what is not seen is not written
        this.words(pe).forEach((word, at) => write(parts[at], "textContent", word));
        cell.style.setProperty("--fill", work ? filled(pe.register, trace.register) : 0);
      });
      over += this.showEdge(fold);
      this.showNow(fold, zeros, over);
      this.showChosen();
    }

    words(pe) {
      const trace = this.trace, work = pe.state & MULTIPLYING;
      const kept = { weight_stationary: `${pe.weight}×·`, input_stationary: `·×${pe.activation}` }[trace.dataflow];
      if (work === 0) return ["", "", String(pe.register)];
      if (work !== MULTIPLYING) return [kept || "", "", String(pe.register)];
      // A broadcast PE without a pipeline hands on the product that it made: it is the register.
      const product = trace.dataflow === "broadcast" && trace.latency === 1 ? "" : `=${pe.product}`;
      return [`${pe.weight}×${pe.activation}`, product, String(pe.register)];
    }

    showHeads(fold) {
      const trace = this.trace, [rowLetter, columnLetter, timeLetter] = AXES[trace.dataflow];
      // With colours alone there is room for the number, not for what it counts.
      const short = this.root.classList.contains("colours");
      const sparse = short && Math.max(trace.rows, trace.columns) > 24;
      const named = (letter, index) => !short ? `${letter}=${index}` : sparse && index % 8 ? "" : String(index);
      const broadcast = trace.dataflow === "broadcast";
      this.rowHeads.forEach((head, i) => {
        const row = trace.firstRow + i;
        head.textContent = row < fold.rows ? named(rowLetter, fold.r0 + row) : "–";
        head.title = `row ${row} of the grid`;
      });
      this.columnHeads.forEach((head, j) => {
        const column = trace.firstColumn + j;
        if (broadcast) {
          const index = trace.passing(this.t, 0, j, fold);
          head.textContent = index < 0 ? "–" : named(timeLetter, index);
        } else {
          head.textContent = column < fold.columns ? named(columnLetter, fold.c0 + column) : "–";
        }
        head.title = `column ${column} of the grid`;
      });
    }

    showEdge(fold) {
      const trace = this.trace;
      let over = 0;
      this.edgeCells.forEach(({ cell, parts }, index) => {
        const { value, state } = trace.edgeAt(this.t, index);
        const added = state & EDGE_ADDED, overflowed = state & EDGE_OVERFLOWED, tree = state & TREE_OVERFLOWED;
        over += overflowed || tree ? 1 : 0;
        let source = "";
        if (trace.dataflow === "broadcast") {
          source = added ? (tree ? "tree overflowed" : this.treeSum(index)) : "";
        } else if (added) {
          const step = this.t + trace.firstCycle - fold.first - (trace.latency - 1);
          source = `${AXES[trace.dataflow][2]}=${step - fold.lastRow - trace.firstColumn - index}`;
        }
        parts[0].textContent = source;
        parts[1].textContent = added || trace.dataflow === "broadcast" ? String(value) : "";
        cell.className = "cell edge " + (added ? "use" : "idle") + (overflowed || tree ? " over" : "");
        cell.style.setProperty("--fill", added ? filled(value, trace.edge) : 0);
      });
      return over;
    }

    // What a row's tree gives, where the trace has all of the row.
    treeSum(i) {
      const trace = this.trace;
      if (trace.columns < trace.grid[1]) return "+ tree";
      let sum = 0n;
      for (let j = 0; j < trace.columns; j++) sum += BigInt(trace.at(this.t, i, j).register);
      return `+ (${sum})`.replace(/\((\d+)\)/, "$1");
    }

    showNow(fold, zeros, over) {
      const trace = this.trace, cycle = this.t + trace.firstCycle, busy = trace.busy[this.t];
      const strong = element("strong", { textContent: `Cycle ${grouped(cycle + 1)}` });
      const passing = trace.dataflow === "broadcast" ? ` (position p=${fold.c0})` : "";
      const text = ` of ${grouped(trace.num_cycles)} (index ${cycle}), fold ${fold.index + 1} of ` +
        `${grouped(trace.num_folds)}${passing}, step ${cycle - fold.first + 1} of ${fold.length}: ${busy} of ` +
        `${trace.perCycle} PEs multiply (${(100 * busy / trace.perCycle).toFixed(0)} %)` +
        (zeros ? `, ${zeros} by zero` : "");
      const now = this.find(".now");
      now.replaceChildren(strong, text);
      if (over) now.append(", ", element("span", { className: "over", textContent: `${over} overflowed` }));
    }

    choose(cell, focus = false) {
      if (!cell) return;
      this.chosen = [Number(cell.dataset.i), Number(cell.dataset.j)];
      this.showChosen();
      if (focus) cell.focus();
    }

    showChosen() {
      const trace = this.trace, [i, j] = this.chosen;
      const fold = trace.foldAt(this.t), pe = trace.at(this.t, i, j), work = pe.state & MULTIPLYING;
      const { cell } = this.cells[i * trace.columns + j];
      if (this.marked && this.marked !== cell) {
        this.marked.classList.remove("chosen");
        this.marked.tabIndex = -1;
      }
      this.marked = cell;
      cell.classList.add("chosen");
      cell.tabIndex = 0;
      const doing = ["unused", "idle", "adds", `${pe.weight} times ${pe.activation}`][work];
      cell.setAttribute("aria-label", `row ${trace.firstRow + i}, column ${trace.firstColumn + j}: ${doing}, ` +
        `${trace.register.name} ${pe.register}${pe.state & OVERFLOWED ? ", overflowed" : ""}`);
      const panel = this.find(".history");
      panel.replaceChildren(
        element("h3", { textContent: `PE in row ${trace.firstRow + i}, column ${trace.firstColumn + j}` }),
        element("p", { className: "what", textContent: this.task(i, j, fold) }),
        element("div", { className: "equation", textContent: this.equation(i, j, fold, pe) }),
        this.chart(i, j, fold),
        this.table(i, j, fold),
      );
    }

    task(i, j, fold) {
      const trace = this.trace, row = trace.firstRow + i, column = trace.firstColumn + j;
      const held = fold.r0 + row, other = fold.c0 + column;
      if (row >= fold.rows) return `Unused in fold ${fold.index + 1}.`;
      if (trace.dataflow === "broadcast") {
        return `In fold ${fold.index + 1}: a product of Y[n=${held}, p=${fold.c0}] in every cycle.`;
      }
      if (column >= fold.columns) return `Unused in fold ${fold.index + 1}.`;
      return `In fold ${fold.index + 1}: ` + {
        output_stationary: `keeps the sum of Y[n=${other}, p=${held}].`,
        weight_stationary: `keeps the weight W[n=${other}, k=${held}].`,
        input_stationary: `keeps the activation X[k=${held}, p=${other}].`,
      }[trace.dataflow];
    }

    // What was computed: the product, and what it was added to.
    equation(i, j, fold, pe) {
      const trace = this.trace, work = pe.state & MULTIPLYING, name = trace.register.name;
      const lines = [];
      if (work === MULTIPLYING) {
        const shifted = trace.planes.products ? `, rounded to ${pe.product}` : "";
        lines.push(`${AXES[trace.dataflow][2]}=${trace.passing(this.t, i, j, fold)}: ` +
          `${pe.weight} × ${pe.activation} = ${pe.weight * pe.activation}${shifted}`);
      } else {
        lines.push(["unused", "idle", "adds an earlier product"][work]);
      }
      const before = work === MULTIPLYING ? this.before(i, j, fold, pe) : undefined;
      if (before === undefined) {
        lines.push(trace.dataflow === "broadcast" ? this.rowSum(i) : `${name} ${pe.register}`);
      } else {
        const exact = before + BigInt(pe.product), what = pe.state & OVERFLOWED ? `, ${trace.overflow}` : "";
        const kept = exact === BigInt(pe.register) ? "" : ` → ${pe.register}${what}`;
        lines.push(`${name} ${before} + ${BigInt(pe.product) < 0n ? `(${pe.product})` : pe.product} = ${exact}${kept}`);
      }
      return lines.join("\n");
    }

    // Where a broadcast PE's product goes.
    rowSum(i) {
      const { value, state } = this.trace.edgeAt(this.t, i);
      const over = state & EDGE_OVERFLOWED ? `, ${this.trace.overflow}` : "";
      return state & EDGE_ADDED ? `row: ${this.treeSum(i)} → accumulator ${value}${over}` : `row: accumulator ${value}`;
    }

    // What the register's adder had from before this cycle, where the trace tells.
    before(i, j, fold, pe) {
      const trace = this.trace;
      if (trace.latency > 1 || trace.dataflow === "broadcast") return undefined;
      const first = this.t + trace.firstCycle === fold.first;
      if (trace.dataflow !== "output_stationary") {
        if (trace.firstRow + i === 0) return 0n;
        return i === 0 || this.t === 0 ? undefined : BigInt(trace.at(this.t - 1, i - 1, j).register);
      }
      if (!first) return this.t === 0 ? undefined : BigInt(trace.at(this.t - 1, i, j).register);
      return pe.state & OVERFLOWED ? undefined : BigInt(pe.register) - BigInt(pe.product);
    }

    chart(i, j, fold) {
      const trace = this.trace;
      const begin = Math.max(0, fold.first - trace.firstCycle);
      const end = Math.min(trace.length, fold.first + fold.length - trace.firstCycle);
      const values = [], overs = [];
      for (let t = begin; t < end; t++) {
        const pe = trace.at(t, i, j);
        values.push(Number(pe.register));
        if (pe.state & OVERFLOWED) overs.push(t - begin + 0.5);
      }
      let low = Math.min(0, ...values), high = Math.max(0, ...values);
      const limits = trace.register.bits ? [Number(trace.register.low), Number(trace.register.high)] : [];
      // Limits that are near belong into the picture; far ones would flatten it.
      const near = limits.filter((limit) => limit !== 0 && limit / (limit < 0 ? low || -1 : high || 1) < 3);
      low = Math.min(low, ...near);
      high = Math.max(high, ...near);
      const y = (value) => high === low ? 50 : 95 - 90 * (value - low) / (high - low);
      const svg = drawn("svg", { viewBox: `0 0 ${end - begin} 100`, preserveAspectRatio: "none", role: "img",
        "aria-label": `${trace.register.name} over the cycles of the fold, from ${low} to ${high}` });
      const across = { x1: 0, x2: end - begin };
      svg.append(drawn("line", { class: "null", ...across, y1: y(0), y2: y(0) }));
      for (const limit of near) svg.append(drawn("line", { class: "limit", ...across, y1: y(limit), y2: y(limit) }));
      for (const x of overs) svg.append(drawn("line", { class: "over-line", x1: x, x2: x, y1: 0, y2: 100 }));
      const d = values.map((value, t) => `${t ? "L" : "M"}${t} ${y(value)}L${t + 1} ${y(value)}`).join("");
      svg.append(drawn("path", { class: "line", d }));
      const x = this.t - begin + 0.5;
      svg.append(drawn("line", { class: "cursor", x1: x, x2: x, y1: 0, y2: 100 }));
      const label = (className, value) =>
        element("span", { className, textContent: grouped(value) + (near.includes(value) ? " limit" : "") });
      return element("div", { className: "chart" }, svg, label("high", high), label("low", low));
    }

    table(i, j, fold) {
      const trace = this.trace, reach = 7;
      const first = Math.max(0, fold.first - trace.firstCycle);
      const last = Math.min(trace.length, fold.first + fold.length - trace.firstCycle) - 1;
      const begin = Math.max(first, Math.min(this.t - reach, last - 2 * reach));
      const end = Math.min(last, Math.max(this.t + reach, first + 2 * reach));
      const head = ["cycle", AXES[trace.dataflow][2], "w × x", "product", trace.register.name];
      const twice = trace.dataflow === "broadcast" && trace.latency === 1;
      if (twice) head.splice(3, 1);
      const body = element("tbody");
      for (let t = begin; t <= end; t++) {
        const pe = trace.at(t, i, j), work = pe.state & MULTIPLYING, [operands, product, register] = this.words(pe);
        const index = trace.passing(t, i, j, fold);
        const over = pe.state & OVERFLOWED;
        const cells = [t + trace.firstCycle + 1, work === MULTIPLYING ? index : "", operands, product.slice(1),
          register + (over ? " !" : "")];
        if (twice) cells.splice(3, 1);
        const row = element("tr", {}, ...cells.map((textContent) => element("td", { textContent })));
        row.className = [t === this.t ? "now-row" : "", over ? "over-row" : "", work < 2 ? "no-work" : ""].join(" ");
        row.addEventListener("click", () => this.show(t));
        body.append(row);
      }
      const titles = element("tr", {}, ...head.map((textContent) => element("th", { textContent, scope: "col" })));
      const table = element("table", {}, element("thead", {}, titles), body);
      return element("div", { className: "rows" }, table);
    }

    colours(only) {
      this.root.classList.toggle("colours", only);
      const button = this.find('[data-go="mode"]');
      button.setAttribute("aria-pressed", String(!only));
      // With numbers a PE needs room; the grid scrolls where there is none.
      this.grid.style.maxWidth = only ? `${Math.max(620, 14 * this.trace.columns)}px` : this.widest;
      this.grid.style.minWidth = only ? "" : `${this.trace.columns * 62 + 60}px`;
      this.show(this.t);
    }

    stop() {
      clearInterval(this.playing);
      this.playing = undefined;
      const button = this.find('[data-go="play"]');
      button.textContent = "▶ Play";
      button.setAttribute("aria-label", "Play");
    }

    play() {
      if (this.playing) return this.stop();
      if (this.t === this.trace.length - 1) this.show(0);
      const button = this.find('[data-go="play"]');
      button.textContent = "❚❚ Pause";
      button.setAttribute("aria-label", "Pause");
      this.playing = setInterval(() => {
        this.show(this.t + 1);
        if (this.t === this.trace.length - 1) this.stop();
      }, 300);
    }

    go(where) {
      const trace = this.trace, start = (fold) => Math.max(0, fold.first - trace.firstCycle);
      const fold = trace.foldAt(this.t), number = trace.folds.indexOf(fold);
      switch (where) {
        case "back": return this.show(this.t - 1);
        case "forward": return this.show(this.t + 1);
        case "fold-back":
          return this.show(this.t > start(fold) || number === 0 ? start(fold) : start(trace.folds[number - 1]));
        case "fold-on":
          return this.show(number + 1 < trace.folds.length ? start(trace.folds[number + 1]) : trace.length - 1);
        case "overflow": {
          if (!trace.overflows.length) return undefined;
          const next = trace.overflows.find(([t]) => t > this.t) || trace.overflows[0];
          return this.show(next[0]);
        }
        case "mode": return this.colours(!this.root.classList.contains("colours"));
        default: return this.play();
      }
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
      const cell = event.target.closest("[data-i]");
      const steps = event.shiftKey ? 10 : 1;
      const keys = {
        ",": () => this.show(this.t - 1), ".": () => this.show(this.t + 1),
        "<": () => this.show(this.t - 10), ">": () => this.show(this.t + 10),
        PageUp: () => this.go("fold-back"), PageDown: () => this.go("fold-on"),
        Home: () => this.show(0), End: () => this.show(this.trace.length - 1),
        o: () => this.go("overflow"), v: () => this.go("mode"),
      };
      if (cell) {
        const move = (i, j) => () => this.choose(this.grid.querySelector(`[data-i="${i}"][data-j="${j}"]`), true);
        const [i, j] = this.chosen;
        Object.assign(keys, {
          ArrowLeft: move(i, j - 1), ArrowRight: move(i, j + 1), ArrowUp: move(i - 1, j), ArrowDown: move(i + 1, j),
          Enter: () => this.choose(cell),
        });
      } else {
        keys.ArrowLeft = () => this.show(this.t - steps);
        keys.ArrowRight = () => this.show(this.t + steps);
      }
      if (event.target.tagName !== "BUTTON") keys[" "] = () => this.play();
      const action = keys[event.key];
      if (action) {
        event.preventDefault();
        action();
      }
    }
  }

  // Set a property of an element where it changes: most cells of a grid look as they did a cycle before.
  function write(node, property, value) {
    if (node[property] !== value) node[property] = value;
  }

  // How much of a register's range a value takes, 0 to 1.
  function filled(value, register) {
    if (!register.bits) return 0;
    const limit = Number(value) < 0 ? Number(register.low) : Number(register.high);
    return Math.min(1, Number(value) / limit).toFixed(3);
  }

  for (const root of document.querySelectorAll(".cycles")) new Viewer(root);
})();
