"use strict";
// Shows the data that metric_vae/explorer.py wrote into the page: maps, distances, edits and samples of held-out faces.
// No library: the scatter plots need the marks of the figures, a picture under the pointer, rings that all plots share
// and arrow keys, which would all have to be added to a plotting library.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const count = data.rows.length;
const first = data.models[0]?.edited?.[0] ?? 0;      // where only some faces have edits, one of them
const state = {
  face: first,                      // the chosen one
  kept: data.labels.findIndex((label) => label !== data.labels[first]),     // the one that it is compared with
  over: [],                         // the faces under the pointer
  pair: -1,                         // the place in data.pairs of the pair that was opened last
  off: new Set(),                   // labels that are switched off
};
if (state.kept < 0) state.kept = count - 1;         // all have one class
const compared = data.models.length > 0 && count > 1;
const plots = [];                   // all scatter plots, to be drawn again

// --- numbers

function bytes(text) {
  const binary = atob(text), found = new Uint8Array(binary.length);
  for (let k = 0; k < found.length; k++) found[k] = binary.charCodeAt(k);
  return found.buffer;
}

function unpack({bits, columns, scale, values}) {
  const whole = new (bits === 8 ? Int8Array : Int16Array)(bytes(values)), scales = new Float32Array(bytes(scale));
  const found = new Float32Array(whole.length), least = -(2 ** (bits - 1));
  for (let k = 0; k < found.length; k++) {
    found[k] = whole[k] === least ? NaN : whole[k] * scales[Math.floor(k / columns)];
  }
  return found;
}

const row = (matrix, r, columns) => matrix.subarray(r * columns, (r + 1) * columns);

// --- the decoder: layers as torch has them, weight (outputs, inputs) or (inputs, outputs, kernel, kernel)

const layers = {
  Linear(x, {weight, bias}) {
    return Float32Array.from({length: weight.length / x.length}, (_, o) => {
      let sum = bias[o % bias.length];
      for (let i = 0, at = o * x.length; i < x.length; i++) sum += weight[at + i] * x[i];
      return sum;
    });
  },
  Joined(x, {dims, metric, rest}) {     // the metric part, the first dims, passes a network, the rest a layer
    const part = run(metric, x.slice(0, dims));
    return layers.Linear(x.slice(dims), rest).map((v, k) => v + part[k]);
  },
  ConvTranspose2d(x, {weight, bias, inputs, outputs, kernel, stride, padding}) {
    const side = Math.sqrt(x.length / inputs), whole = (side - 1) * stride + kernel, cut = whole - 2 * padding;
    const plane = side * side, next = outputs * kernel * kernel, y = new Float32Array(outputs * whole * whole);
    for (let c = 0; c < inputs; c += 4) {           // four at once are more than twice as fast
      for (let o = 0, w = c * next; o < outputs; o++) {
        for (let k = 0; k < kernel * kernel; k++, w++) {
          const [w0, w1, w2, w3] = [weight[w], weight[w + next], weight[w + 2 * next], weight[w + 3 * next]];
          const start = (o * whole + Math.floor(k / kernel)) * whole + k % kernel;
          for (let r = 0; r < side; r++) {
            let from = c * plane + r * side, to = start + r * stride * whole;
            for (const end = from + side; from < end; from++, to += stride) {
              y[to] += w0 * x[from] + w1 * x[from + plane] + w2 * x[from + 2 * plane] + w3 * x[from + 3 * plane];
            }
          }
        }
      }
    }
    const found = new Float32Array(outputs * cut * cut);
    for (let o = 0, k = 0; o < outputs; o++) {
      for (let r = 0; r < cut; r++) {
        const from = (o * whole + r + padding) * whole + padding;
        for (let q = 0; q < cut; q++, k++) found[k] = y[from + q] + bias[o % bias.length];
      }
    }
    return found;
  },
  SiLU: (x) => x.map((v) => v / (1 + Math.exp(-v))),
  ReLU: (x) => x.map((v) => Math.max(v, 0)),
  Unflatten: (x) => x,
  MeanFace: (x, {bias}) => x.map((v, k) => v + bias[k]),
};

function run(network, x) {
  return network.reduce((y, layer) => layers[layer.kind](y, layer), x);
}

function decode(model, z) {         // pixels in about 0..1, a channel after the other
  return run(model.decoder, z);
}

for (const model of data.models) {
  model.mu = unpack(model.mu);
  model.z = model.mu.length / count;
  model.means = model.means && unpack(model.means);
  for (const layer of (model.decoder ?? []).flatMap((of) => of.kind === "Joined" ? [...of.metric, of.rest] : [of])) {
    if (layer.weight) layer.weight = unpack(layer.weight);
    if (layer.bias) layer.bias = unpack(layer.bias);
  }
  model.distance = (i, j) => {      // in units of the given distances
    let sum = 0;
    for (let k = 0; k < model.dims; k++) sum += (model.mu[i * model.z + k] - model.mu[j * model.z + k]) ** 2;
    return model.scale * Math.sqrt(sum);
  };
}
for (const map of data.maps) map.points = unpack(map.points);
const given = data.given && unpack(data.given);
const measures = [...(given ? [{name: "given", distance: (i, j) => given[i * count + j]}] : []), ...data.models];

const edited = (model, k, target, amount) => {      // z + amount (mean of the target - mean of its own class)
  const z = row(model.mu, k, model.z).slice();
  const [from, to] = [data.labels[k], target].map((label) => row(model.means, model.known.indexOf(label), model.z));
  for (let d = model.edit_dims[0]; d < model.edit_dims[1]; d++) z[d] += amount * (to[d] - from[d]);
  return z;
};
const between = (model, i, j, t) => {
  const end = row(model.mu, j, model.z);
  return row(model.mu, i, model.z).map((v, d) => (1 - t) * v + t * end[d]);
};

// --- elements and pictures

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const nameOf = (k) => data.labels[k] < 0 ? "unlabelled" : data.names[data.labels[k]];

function describe(k) {
  const parts = [`Face ${k + 1} of ${count}: ${nameOf(k)}`];
  if (data.people[k] >= 0) parts.push(`person ${data.people[k]}`);
  if (data.predicted) parts.push(`classified as ${data.names[data.predicted[k]]}`);
  return parts.join(", ");
}

function blank(label, side = data.size) {           // a canvas for a face
  return make("canvas", {className: "face", width: side, height: side, role: "img", "aria-label": label});
}

function tile(sheet, k, label) {                    // one face of a sheet
  const canvas = blank(label, sheet.side), at = sheet.side;
  canvas.getContext("2d").drawImage(sheet.image, k % sheet.across * at, Math.floor(k / sheet.across) * at, at, at,
                                    0, 0, at, at);
  return canvas;
}

const photo = (k, label = describe(k)) => tile(data.faces, k, label);
const titled = (picture, caption, className = "") => make("figure", {className}, picture,
                                                          make("figcaption", {}, caption));

const waiting = new Map();          // canvases and what they are to show; a slider moves faster than faces are decoded

function paint(canvas, model, z) {
  if (!waiting.size) requestAnimationFrame(work);
  waiting.set(canvas, [model, z]);
}

function work() {
  const end = performance.now() + 14;
  for (const [canvas, [model, z]] of waiting) {
    waiting.delete(canvas);
    if (!canvas.isConnected) continue;              // another face was chosen
    const x = decode(model, z), pixels = new ImageData(data.size, data.size), plane = data.size ** 2;
    for (let k = 0; k < plane; k++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * k + c] = 255 * x[k + (data.channels === 3 ? c * plane : 0)] + .5;
      pixels.data[4 * k + 3] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    if (performance.now() > end) break;
  }
  if (waiting.size) requestAnimationFrame(work);
}

function reconstruction(model, k) {
  const label = `Reconstruction ${model.name}`;
  if (!model.decoder) return tile(model.reconstructions, k, label);
  const canvas = blank(label);
  paint(canvas, model, row(model.mu, k, model.z));
  return canvas;
}

// --- scatter plots

const colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["accent", "same", "other", "soft", "line", "panel", "text"]) {
    colours[name] = style.getPropertyValue(`--${name}`);
  }
}

const marks = new Map(data.classes.map((one) => [one.label, {...one, path: new Path2D(one.outline)}]));

function drawMark(context, label) {
  const mark = marks.get(label);
  context.fillStyle = mark ? (dark.matches ? mark.dark : mark.colour) : colours.soft;
  if (mark) context.fill(mark.path); else context.fillRect(-2, -2, 4, 4);
}

const visible = (k) => !state.off.has(marks.has(data.labels[k]) ? data.labels[k] : -1);

// view: count, x(k) and y(k) in 0..1, faces(k) of a point, draw(context, k), ringed() points, current() point,
// choose(k, event), text(k) for the pointer, enter(), ground(context, place) below the points, margin in pixels
function scatter(canvas, view) {
  const margin = view.margin ?? 14;
  const place = (x, y) => [margin + x * (canvas.clientWidth - margin - 14),
                           canvas.clientHeight - margin - y * (canvas.clientHeight - margin - 14)];
  const seen = (k) => view.faces(k).every(visible);

  const base = document.createElement("canvas");    // without the rings, which change with every face
  const at = (context, k, paint) => {
    context.save();
    context.translate(...place(view.x(k), view.y(k)));
    paint(context);
    context.restore();
  };

  function drawBase() {
    for (const one of [canvas, base]) {
      one.width = canvas.clientWidth * devicePixelRatio;
      one.height = canvas.clientHeight * devicePixelRatio;
      one.getContext("2d").scale(devicePixelRatio, devicePixelRatio);
    }
    if (!base.width) return;                        // on a phone one of the maps is not shown
    const context = base.getContext("2d");
    view.ground?.(context, place);
    for (let k = 0; k < view.count; k++) if (seen(k)) at(context, k, () => view.draw(context, k));
    draw();
  }

  function draw() {
    if (!base.width) return;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    context.drawImage(base, 0, 0, canvas.clientWidth, canvas.clientHeight);
    for (const [k, name] of view.ringed()) {
      at(context, k, () => {
        view.draw(context, k);
        context.globalAlpha = 1;
        context.beginPath();
        context.arc(0, 0, 12, 0, 7);
        for (const [width, stroke] of [[6, "panel"], [3, name]]) {
          context.lineWidth = width;
          context.strokeStyle = colours[stroke];
          context.stroke();
        }
      });
    }
  }

  function nearest(event) {
    let best = 24 ** 2, found = -1;                 // pixels
    for (let k = 0; k < view.count; k++) {
      const [x, y] = place(view.x(k), view.y(k)), distance = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
      if (distance < best && seen(k)) [best, found] = [distance, k];
    }
    return found;
  }

  canvas.addEventListener("pointermove", (event) => {
    const k = nearest(event);
    point(k < 0 ? [] : view.faces(k), k < 0 ? "" : view.text(k), event);
  });
  canvas.addEventListener("pointerleave", () => point([]));
  canvas.addEventListener("click", (event) => {
    const k = nearest(event);
    if (k >= 0) view.choose(k, event);
  });
  canvas.addEventListener("keydown", (event) => {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (event.key === "Enter") view.enter?.();
    if (!way) return;
    event.preventDefault();
    const from = Math.max(view.current(), 0), [x, y] = place(view.x(from), view.y(from));
    let best = Infinity, found = -1;                // the nearest in this direction; sideways counts twice
    for (let k = 0; k < view.count; k++) {
      const [dx, dy] = place(view.x(k), view.y(k)).map((v, axis) => v - [x, y][axis]);
      const along = dx * way[0] + dy * way[1], cost = along + 2 * Math.abs(dx * way[1] + dy * way[0]);
      if (k !== from && along > 0 && cost < best && seen(k)) [best, found] = [cost, k];
    }
    if (found >= 0) view.choose(found, event);
  });
  new ResizeObserver(drawBase).observe(canvas);
  plots.push({draw, drawBase});
}

let planned = false;

function redrawRings() {
  if (!planned) requestAnimationFrame(() => { planned = false; plots.forEach(({draw}) => draw()); });
  planned = true;
}

function redraw() {
  readColours();
  plots.forEach(({drawBase}) => drawBase());
}

function point(faces, text, event) {                // shows the faces under the pointer
  const tip = $("tip"), changed = String(faces) !== String(state.over);
  state.over = faces;
  tip.hidden = !faces.length;
  if (changed) {
    redrawRings();
    tip.className = faces.length > 1 ? "two" : "one";
    tip.replaceChildren(...faces.map((k) => photo(k)), make("p", {}, text ?? ""));
  }
  if (!faces.length) return;
  const put = (at, size, room) => `${Math.max(4, at + 18 + size > room ? at - size - 18 : at + 18)}px`;
  tip.style.left = put(event.clientX, tip.offsetWidth, innerWidth);
  tip.style.top = put(event.clientY, tip.offsetHeight, innerHeight);
}

// --- the map

function choose(face, kept = state.kept) {
  Object.assign(state, {face, kept});
  showFace();
  showPair();
  redrawRings();
}

function addMap(number) {
  const canvas = $(`map-${number}`), which = $(`which-${number}`);
  which.append(...data.maps.map(({title}, k) => make("option", {value: k}, title)));
  which.value = Math.min(number - 1, data.maps.length - 1);
  const points = () => data.maps[which.value].points;
  const name = () => canvas.setAttribute("aria-label", `t-SNE map of ${count} faces, ${data.maps[which.value].title}`);
  which.addEventListener("change", () => { name(); redraw(); });
  name();
  scatter(canvas, {
    count, x: (k) => points()[k], y: (k) => points()[count + k], faces: (k) => [k],
    draw(context, k) {
      if ($("as-faces").checked) {
        const {image, across, side} = data.faces, half = 12;
        context.drawImage(image, k % across * side, Math.floor(k / across) * side, side, side, -half, -half, 2 * half,
                          2 * half);
      } else {
        context.globalAlpha = .85;
        drawMark(context, data.labels[k]);
      }
    },
    ringed: () => [...state.over.map((k) => [k, "text"]), ...(compared ? [[state.kept, "same"]] : []),
                   [state.face, "accent"]],
    current: () => state.face,
    choose: (k, {shiftKey}) => shiftKey ? choose(state.face, k) : choose(k),
    enter: () => choose(state.face, state.face),
    text: describe,
  });
}

function addLegend() {
  const counts = new Map();
  data.labels.forEach((label) => {
    const group = marks.has(label) ? label : -1;
    counts.set(group, (counts.get(group) ?? 0) + 1);
  });
  const others = data.labels.some((label) => label >= 0 && !marks.has(label)) ? "unlabelled or other" : "unlabelled";
  for (const label of [...marks.keys(), -1].filter((label) => counts.has(label))) {
    const canvas = make("canvas", {width: 32, height: 32, "aria-hidden": "true"}), context = canvas.getContext("2d");
    const draw = () => {
      context.setTransform(2, 0, 0, 2, 16, 16);
      context.clearRect(-8, -8, 16, 16);
      drawMark(context, label);
    };
    const button = make("button", {type: "button", "aria-pressed": "true"}, canvas,
                        `${marks.get(label)?.name ?? others} (${counts.get(label)})`);
    button.addEventListener("click", () => {
      if (!state.off.delete(label)) state.off.add(label);
      button.setAttribute("aria-pressed", String(!state.off.has(label)));
      redraw();
    });
    plots.push({draw, drawBase: draw});
    $("legend").append(button);
  }
}

// --- the chosen face

function showFace() {
  const k = state.face;
  $("said").textContent = describe(k);
  $("pictures").replaceChildren(titled(photo(k), `input, row ${data.rows[k]} of the data`, "chosen"),
    ...data.models.map((model) => titled(reconstruction(model, k), `reconstruction ${model.name}`)));
  $("keep").hidden = !compared;
  showEdits();
  const others = [...data.rows.keys()].filter((other) => other !== k);
  const nearest = measures.map(({distance}) => others.map((other) => [distance(k, other), other])
    .filter(([far]) => !Number.isNaN(far)).sort((a, b) => a[0] - b[0]).slice(0, 7));
  $("nearest").replaceChildren(...nearest.flatMap((near, m) => {
    const same = near.filter(([, other]) => nearest[0].some(([, of]) => of === other)).length;
    const title = measures[m].name === "given" ? "by given distance"
      : `in z, ${measures[m].name}${given ? ` (${same} shared)` : ""}`;
    return [make("h4", {}, `Nearest ${title}`),
            make("div", {className: "thumbs"}, ...near.map(([far, other]) => faceButton(other, nameOf(other), far)))];
  }));
}

function faceButton(k, text, far) {
  return make("button", {type: "button", title: `${describe(k)}, distance ${far.toPrecision(3)}`,
                         onclick: () => choose(k)}, photo(k, ""), make("span", {}, text));
}

function showEdits() {
  const k = state.face, able = data.models.filter((model) => model.known.includes(data.labels[k])
    && model.known.length > 1 && (model.decoder || model.edited.includes(k)));
  $("edits").hidden = !data.models.length;
  $("amount").disabled = !able.length;
  const rows = able.map((model) => make("div", {}, make("h4", {}, model.name), make("div", {className: "thumbs"},
    ...model.known.filter((target) => target !== data.labels[k]).map((target) => {
      const label = `Edited to ${data.names[target]}, ${model.name}`;
      const canvas = model.decoder ? blank(label) : make("div", {});
      canvas.show = (amount) => {
        if (model.decoder) paint(canvas, model, edited(model, k, target, amount));
        else canvas.replaceChildren(amount < 1 ? reconstruction(model, k)
          : tile(model.edits, model.edited.indexOf(k) * model.known.length + model.known.indexOf(target), label));
      };
      return titled(canvas, data.names[target]);
    }))));
  const why = data.labels[k] < 0 ? "No edits: this face has no label."
    : data.models.some((model) => model.edited) ? `No edits: rendered for ${data.models[0].edited.length} faces only.`
      : "No edits: too few classes have training faces.";
  $("edited").replaceChildren(...(rows.length ? rows : [why]));
  moveAmount();
}

function moveAmount() {
  const amount = Number($("amount").value);
  $("amount-is").textContent = amount.toFixed(2);
  $("edited").querySelectorAll("figure > :first-child").forEach((canvas) => canvas.show(amount));
}

// --- distances

function addShepard() {
  const swatch = (name) => make("span", {className: "swatch", style: `background: var(${name})`});
  $("shepard-help").append(`Each point is a pair of faces (${data.pairs.length} drawn at random): `, swatch("--same"),
    "same class, ", swatch("--other"), `different classes. x: given distance, ${data.metric}; y: latent distance times `
    + "the best scale. On the line, distances are kept exactly. Click a point, or use the arrow keys, to open its pair.");
  const same = ([i, j]) => data.labels[i] === data.labels[j] && data.labels[i] >= 0;
  data.pairs.sort((a, b) => same(a) - same(b));     // these are fewer and drawn last
  const high = Math.max(...measures.map(({distance}) => data.pairs.reduce(
    (most, [i, j]) => Math.max(most, distance(i, j)), 1e-9)));
  for (const model of data.models) {
    const canvas = make("canvas", {className: "plot", tabIndex: 0, role: "application",
                                   "aria-roledescription": "diagram", "aria-describedby": "shepard-help",
                                   "aria-label": `Shepard diagram, ${model.name}`});
    const far = data.pairs.map(([i, j]) => [given[i * count + j] / high, model.distance(i, j) / high]);
    const scores = ["Spearman", "stress"].filter((score) => score.toLowerCase() in model).map(
      (score) => `${score} ${model[score.toLowerCase()].toFixed(3)}`).join(", ");
    const worst = make("ul", {className: "worst"}, ...model.worst.map(([i, j]) => make("li", {}, make("button", {
      type: "button", onclick: () => openPair(i, j),
      "aria-label": `${nameOf(i)} and ${nameOf(j)}, given ${text(given[i * count + j])}, `
        + `latent ${text(model.distance(i, j))}`,
    }, make("div", {className: "two"}, photo(i, ""), photo(j, "")),
    `${text(given[i * count + j])} → ${text(model.distance(i, j))}`))));
    $("shepard").append(make("div", {}, make("h3", {}, model.name), make("p", {className: "soft"}, scores), canvas,
      make("h4", {}, "Worst pairs: given → latent distance (each face once)"), worst));
    scatter(canvas, {
      count: far.length, margin: 44, x: (k) => far[k][0], y: (k) => far[k][1], faces: (k) => data.pairs[k],
      draw(context, k) {
        context.fillStyle = same(data.pairs[k]) ? colours.same : colours.other;
        context.globalAlpha = .6;
        context.fillRect(-1.5, -1.5, 3, 3);
      },
      ringed: () => state.pair < 0 ? [] : [[state.pair, "accent"]],
      current: () => state.pair,
      choose: (k, {type}) => openPair(...data.pairs[k], k, type === "click"),
      text: (k) => `${data.pairs[k].map(nameOf).join(" and ")}: given ${text(far[k][0] * high)}, `
        + `latent ${text(far[k][1] * high)}`,
      ground: (context, place) => drawAxes(context, place, high),
    });
  }
}

const text = (distance) => Number.isNaN(distance) ? "not given" : distance.toPrecision(3);

function drawAxes(context, place, high) {
  const power = 10 ** Math.floor(Math.log10(high));
  const step = [.2, .5, 1, 2].map((k) => k * power).find((k) => high / k <= 6);
  context.strokeStyle = colours.line;
  context.fillStyle = colours.soft;
  context.font = "12px system-ui, sans-serif";
  const line = (from, to) => { context.beginPath(); context.moveTo(...from); context.lineTo(...to); context.stroke(); };
  for (let value = 0; value <= high; value += step) {
    const [x, y] = place(value / high, value / high), [left, bottom] = place(0, 0), [right, top] = place(1, 1);
    const label = String(Number(value.toPrecision(3)));
    line([x, top], [x, bottom]);
    line([left, y], [right, y]);
    context.textAlign = "center";
    context.fillText(label, x, bottom + 16);
    context.textAlign = "right";
    context.fillText(label, left - 6, y + 4);
  }
  const [x, bottom] = place(.5, 0), [left, y] = place(0, .5);
  context.textAlign = "center";
  context.fillText("given distance", x, bottom + 34);
  context.save();
  context.translate(left - 32, y);
  context.rotate(-Math.PI / 2);
  context.fillText("latent distance, scaled", 0, 0);
  context.restore();
  context.strokeStyle = colours.accent;
  line(place(0, 0), place(1, 1));
}

function openPair(i, j, pair = -1, scroll = true) {
  state.pair = pair;
  choose(i, j);
  if (scroll) $("two").scrollIntoView({block: "nearest"});
}

function showPair() {
  const {face: i, kept: j} = state;
  if (!compared) return;
  $("pair-said").textContent = i === j ? `${nameOf(i)}: choose another face for comparison`
    : `${nameOf(i)} and ${nameOf(j)}`;
  $("pair").replaceChildren(titled(photo(i), "chosen", "chosen"),
                            titled(photo(j), "kept for comparison", "kept"));
  $("pair-distances").replaceChildren(...measures.flatMap(({name, distance}) => [
    make("dt", {}, name === "given" ? "given distance" : `latent distance ${name}${given ? ", scaled" : ""}`),
    make("dd", {}, text(distance(i, j)))]));
  const able = data.models.filter((model) => model.decoder);
  $("interpolation").hidden = !able.length;
  $("between").replaceChildren(...able.map((model) => {
    const canvas = blank(`Interpolation ${model.name}`);
    canvas.show = (t) => paint(canvas, model, between(model, i, j, t));
    return titled(canvas, model.name);
  }));
  moveWay();
}

function moveWay() {
  const t = Number($("way").value);
  $("way-is").textContent = `${Math.round(100 * t)} %`;
  $("between").querySelectorAll("canvas").forEach((canvas) => canvas.show(t));
}

// --- samples

function addSamples() {
  $("samples-help").textContent = `Decoded samples from ${data.source}.`;
  for (const {name, samples: {faces, count: each, of}} of data.models) {
    const rows = Array.from({length: of ? of.length : 7}, (_, r) => [of && make("span", {}, of[r]), make("div",
      {className: "strip", role: "img", "aria-label": `${each} samples${of ? ` of ${of[r]}` : ""}, ${name}`},
      ...Array.from({length: each}, (_, k) => tile(faces, r * each + k, "")))]);
    $("sampled").append(make("div", {}, make("h3", {}, name), make("div", {className: of ? "samples" : "strips"},
                                                                ...rows.flat())));
  }
}

// --- the whole page

async function start() {
  const sheets = [data.faces, ...data.models.flatMap(({samples, reconstructions, edits}) =>
    [samples.faces, reconstructions, edits])].filter(Boolean);
  await Promise.all(sheets.map((sheet) => {
    sheet.image = new Image();
    sheet.image.src = sheet.uri;
    return sheet.image.decode();
  }));
  document.title = data.title;
  $("title").textContent = data.title;
  $("about").textContent = `${count} held-out faces` + (given ? `. Given distance: ${data.metric}` : "");
  addLegend();
  $("second-map").hidden = data.maps.length < 2;
  $("first-map").classList.toggle("spare", data.maps.length > 1);   // where there is room for one only
  [1, 2].forEach(addMap);
  $("distances").hidden = !compared;
  $("samples").hidden = !data.models.length;
  if (given) addShepard();
  addSamples();
  $("as-faces").addEventListener("change", redraw);
  $("amount").addEventListener("input", moveAmount);
  $("way").addEventListener("input", moveWay);
  $("keep").addEventListener("click", () => choose(state.face, state.face));
  dark.addEventListener("change", redraw);
  if (data.models.some((model) => !model.decoder)) Object.assign($("amount"), {max: 1, step: 1});
  choose(state.face);
  redraw();
  document.documentElement.dataset.ready = "yes";
}

start();
