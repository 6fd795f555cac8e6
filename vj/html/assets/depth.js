// Maps of depths: a place is chosen with the mouse or the keys, and the deepest window there is followed through the cascade.
(function () {
  "use strict";
  var C = vjCharts;
  var FIRE = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

  function fire(share) {
    var at = Math.max(0, Math.min(1, share)) * (FIRE.length - 1), k = Math.min(Math.floor(at), FIRE.length - 2);
    return FIRE[k].map(function (low, c) { return Math.round(low + (FIRE[k + 1][c] - low) * (at - k)); });
  }
  function bytes(text) {
    return Uint8Array.from(atob(text), function (c) { return c.charCodeAt(0); });
  }

  // All that was evaluated on a window: for each weak classifier its stage, node, value, direction and the sum so far.
  function follow(cascade, window_) {
    var values = new Float32Array(bytes(window_.values).buffer), left = bytes(window_.left);
    var steps = [], at = 0, stage = 0, sum = 0;
    for (var tree = 0; at < window_.n; tree++) {
      if (tree === cascade.stage_starts[stage + 1]) { stage++; sum = 0; }
      var root = cascade.tree_starts[tree], node = root, child, nodes = [];
      do {
        var goesLeft = (left[at >> 3] >> (at & 7)) & 1;
        nodes.push({ node: node, value: values[at], left: !!goesLeft });
        child = cascade.children[node][goesLeft ? 0 : 1];
        at++;
        node = root + child;
      } while (child > 0);
      var vote = cascade.leaves[root + tree - child];
      sum += vote;
      steps.push({ stage: stage, tree: tree, nodes: nodes, vote: vote, sum: sum });
    }
    return steps;
  }

  function part(element) {
    var given = C.data(element), cascade = given.cascade, stages = cascade.limits.length;
    var which = element.querySelector(".which"), band = element.querySelector(".band");
    var overlay = element.querySelector(".overlay"), box = element.querySelector(".map .canvas");
    var canvas = box.querySelector("canvas"), close = element.querySelector(".close canvas");
    var told = element.querySelector(".told"), slider = element.querySelector(".step");
    var output = element.querySelector("output"), evaluated = element.querySelector(".evaluated");
    var image, photo = new Image(), layer, cell = 0, steps = [], chosen = null;

    given.images.forEach(function (one, k) { which.add(new Option(one.name, k)); });
    if (given.images.length < 2) which.parentNode.hidden = true;
    element.querySelector(".most").textContent = stages + " stages passed";
    var scale = element.querySelector(".scale canvas").getContext("2d");
    for (var x = 0; x < 256; x++) { scale.fillStyle = "rgb(" + fire(x / 255) + ")"; scale.fillRect(x, 0, 1, 1); }

    function bandNow() { return image.bands[+band.value]; }

    function setImage() {
      image = given.images[+which.value];
      band.replaceChildren();
      image.bands.forEach(function (one, k) { band.add(new Option(one.label, k)); });
      photo = new Image();
      photo.onload = function () {
        canvas.width = photo.naturalWidth;
        canvas.height = photo.naturalHeight;
        setBand(true);
      };
      photo.src = image.uri;
    }

    function setBand(deepestOne) {
      var map = bandNow().map, depths = bytes(map.depths);
      layer = document.createElement("canvas");
      layer.width = map.size[0];
      layer.height = map.size[1];
      var pixels = new ImageData(layer.width, layer.height);
      for (var k = 0; k < depths.length; k++) {
        var depth = depths[k] === 255 ? -1 : depths[k] - 1;
        if (depth < 1) continue;
        pixels.data.set(fire(depth / stages), 4 * k);
        // The deeper the more opaque: what is rejected early leaves the image to be seen.
        pixels.data[4 * k + 3] = Math.round(255 * Math.min(0.9, 0.12 + 0.75 * depth / stages));
      }
      layer.getContext("2d").putImageData(pixels, 0, 0);
      var cells = bandNow().cells;
      if (deepestOne) {
        var best = -2, margin = -1e9;
        cells.forEach(function (index, k) {
          var one = index < 0 ? null : image.windows[index];
          if (one && (one.depth > best || (one.depth === best && one.margin > margin))) { best = one.depth; margin = one.margin; cell = k; }
        });
      }
      choose(cell);
    }

    function choose(k) {
      cell = k;
      var index = bandNow().cells[k];
      chosen = index < 0 ? null : image.windows[index];
      steps = chosen ? follow(cascade, chosen) : [];
      slider.max = Math.max(0, steps.length - 1);
      slider.value = slider.max;
      slider.disabled = !steps.length;
      tell();
      step();
      sums.draw();
    }

    function tell() {
      if (!chosen) { told.textContent = "No window of these sizes is centred here."; return; }
      var b = chosen.box.map(Math.round), words = "Window of " + b[2] + "×" + b[3] + " px at (" + b[0] + ", " + b[1] + ") ";
      if (chosen.depth < 0) words += "is too flat to be scanned.";
      else if (chosen.depth === stages) words += "passes all " + stages + " stages, the last one by " + C.short(chosen.margin) + ".";
      else if (steps[steps.length - 1].tree + 1 < cascade.stage_starts[chosen.depth + 1]) {
        words += "passes " + chosen.depth + " of " + stages + " stages and misses a soft threshold inside stage " + (chosen.depth + 1) + " by " + C.short(-chosen.margin) + ".";
      } else words += "passes " + chosen.depth + " of " + stages + " stages and fails stage " + (chosen.depth + 1) + " by " + C.short(-chosen.margin) + ".";
      told.textContent = words;
      told.className = "told " + (chosen.depth === stages ? "passed" : "rejected");
    }

    function step() {
      var now = steps[+slider.value];
      if (!now) {
        output.textContent = "none";
        evaluated.textContent = chosen ? "No feature was evaluated." : "";
      } else {
        var first = cascade.stage_starts[now.stage], size = cascade.stage_starts[now.stage + 1] - first;
        output.textContent = (+slider.value + 1) + " of " + steps.length;
        var says = now.nodes.map(function (n) {
          if (cascade.kind === "lbp") return "code " + n.value + (n.left ? " is in the set" : " is not in the set");
          return C.short(n.value) + (n.left ? " < " : " ≥ ") + C.short(cascade.thresholds[n.node]);
        }).join(", then ");
        evaluated.textContent = "Stage " + (now.stage + 1) + ", weak classifier " + (+slider.value - first + 1) + " of " + size + ": " +
          says + ", vote " + C.short(now.vote) + ". Sum so far " + C.short(now.sum) + "; the stage asks for " + C.short(cascade.limits[now.stage]) +
          (now.tree in cascade.soft ? ", its soft threshold here for " + C.short(cascade.soft[now.tree]) + "." : ".");
        slider.setAttribute("aria-valuetext", output.textContent + ", stage " + (now.stage + 1));
      }
      paint();
      paintClose(now);
      if (sums.chart) sums.chart.setData(sumData());
    }

    function shapes(context, now, x, y, zoomX, zoomY, line) {
      if (!now) return;
      // Of a tree, the feature of its last node.
      cascade.shapes[now.nodes[now.nodes.length - 1].node].forEach(function (shape) {
        context.beginPath();
        for (var k = 1; k < shape.length; k += 2) context.lineTo(x + shape[k] * zoomX, y + shape[k + 1] * zoomY);
        context.closePath();
        context.fillStyle = { p: "rgba(255,255,255,.6)", m: "rgba(0,0,0,.6)", c: "rgba(0,0,0,0)" }[shape[0]];
        context.fill();
        context.strokeStyle = "#ff7a1a";
        context.lineWidth = line;
        context.stroke();
      });
    }

    function paint() {
      var context = canvas.getContext("2d"), zoom = canvas.width / image.size[0], shown = canvas.width / (canvas.clientWidth || canvas.width);
      context.drawImage(photo, 0, 0);
      if (overlay.checked) { context.imageSmoothingEnabled = false; context.drawImage(layer, 0, 0, canvas.width, canvas.height); }
      var columns = image.grid[0], wide = canvas.width / columns, high = canvas.height / image.grid[1];
      var left = (cell % columns) * wide, top = Math.floor(cell / columns) * high;
      if (chosen) {
        var b = chosen.box.map(function (v) { return v * zoom; });
        shapes(context, steps[+slider.value], b[0], b[1], b[2] / cascade.window[0], b[3] / cascade.window[1], 1.2 * shown);
        [[5, "#000"], [2.5, chosen.depth === stages ? "#3ddc84" : "#ff9c57"]].forEach(function (pen) {
          context.lineWidth = pen[0] * shown;
          context.strokeStyle = pen[1];
          context.strokeRect(b[0], b[1], b[2], b[3]);
        });
      }
      [[3.5, "#000"], [1.5, "#fff"]].forEach(function (pen) {
        context.lineWidth = pen[0] * shown;
        context.strokeStyle = pen[1];
        context.strokeRect(left, top, wide, high);
      });
    }

    function paintClose(now) {
      var ratio = cascade.window[1] / cascade.window[0];
      close.width = 264;
      close.height = Math.round(264 * ratio);
      var context = close.getContext("2d");
      if (!chosen) return;
      var zoom = photo.naturalWidth / image.size[0], b = chosen.box.map(function (v) { return v * zoom; });
      context.drawImage(photo, b[0], b[1], b[2], b[3], 0, 0, close.width, close.height);
      shapes(context, now, 0, 0, close.width / cascade.window[0], close.height / cascade.window[1], 2);
    }

    function sumData() {
      var x = steps.map(function (_, k) { return k + 1; });
      var y = steps.map(function (s) { return s.sum - cascade.limits[s.stage]; });
      var at = +slider.value;
      return [x, y, x.map(function () { return 0; }), y.map(function (v, k) { return k === at ? v : null; })];
    }
    var sums = C.draw(element.querySelector(".sums .plot"), function (width) {
      return {
        width: width, height: 200, legend: { show: false }, cursor: { y: false, drag: { x: false, y: false } },
        scales: { x: { time: false, range: function (u, low, high) { return low === high ? [0, 2] : [low, high]; } } },
        axes: [C.axis({ label: "weak classifier", labelSize: 18, labelFont: "12px system-ui, sans-serif", size: 34 }), C.axis({ size: 44 })],
        series: [{}, { stroke: C.color(0), width: 1.5, points: { show: false } },
          { stroke: C.color(2), width: 1.5, dash: [6, 4], points: { show: false } },
          { stroke: C.color(1), width: 0, points: { show: true, size: 11, fill: C.color(1) } }]
      };
    }, sumData);

    function byKeys(event) {
      var columns = image.grid[0], rows = image.grid[1], x = cell % columns, y = Math.floor(cell / columns);
      if (event.key === "ArrowLeft") x--;
      else if (event.key === "ArrowRight") x++;
      else if (event.key === "ArrowUp") y--;
      else if (event.key === "ArrowDown") y++;
      else if (event.key === "PageUp" || event.key === "PageDown") {
        var next = +band.value + (event.key === "PageUp" ? 1 : -1);
        if (next >= 0 && next < image.bands.length) { band.value = next; setBand(false); }
      } else return;
      event.preventDefault();
      choose(Math.max(0, Math.min(rows - 1, y)) * columns + Math.max(0, Math.min(columns - 1, x)));
    }
    function byMouse(event) {
      var area = canvas.getBoundingClientRect();
      var x = Math.floor((event.clientX - area.left) / area.width * image.grid[0]);
      var y = Math.floor((event.clientY - area.top) / area.height * image.grid[1]);
      if (x < 0 || y < 0 || x >= image.grid[0] || y >= image.grid[1]) return;
      choose(y * image.grid[0] + x);
    }
    box.addEventListener("keydown", byKeys);
    box.addEventListener("click", byMouse);
    which.addEventListener("change", setImage);
    band.addEventListener("change", function () { setBand(true); });
    overlay.addEventListener("change", paint);
    slider.addEventListener("input", step);
    addEventListener("resize", function () { if (layer) paint(); });
    setImage();
  }

  document.querySelectorAll("[data-part=depth]").forEach(part);
})();
