// Operating points: sliders choose one, the figures and the command line follow. And the curves of several detectors.
(function () {
  "use strict";
  var C = vjCharts;
  var TICKS = [0, 0.01, 0.1, 1, 10, 100, 1000];

  function falseScale() {
    // Room for zero, and for four orders of magnitude.
    return { time: false, distr: 4, asinh: 0.01, range: function (u, low, high) { return [0, Math.max(high, 0.01)]; } };
  }
  function falseAxis() {
    return C.axis({
      label: "false positives per image", labelSize: 18, labelFont: "12px system-ui, sans-serif", size: 34,
      splits: function (u) { return TICKS.filter(function (t) { return t <= u.scales.x.max; }); },
      values: function (u, values) { return values.map(String); }
    });
  }
  function percentAxis() {
    return C.axis({ size: 52, values: function (u, values) { return values.map(function (v) { return v + " %"; }); } });
  }
  function withPercent(u, v) { return v == null ? "–" : v.toFixed(1) + " %"; }

  // Several lines, each with its own abscissae, on common ones.
  function joined(lines) {
    return uPlot.join(lines.map(function (line) {
      var x = [], y = [];
      line[0].forEach(function (value, k) {
        if (x.length && x[x.length - 1] === value) y[y.length - 1] = line[1][k];
        else { x.push(value); y.push(line[1][k]); }
      });
      return [x, y];
    }));
  }

  function operating(element) {
    var given = C.data(element), search = given.searches[0];
    var pick = element.querySelector("select"), ranges = element.querySelectorAll("input[type=range]");
    var outputs = element.querySelectorAll("output"), neighbors = ranges[0], level = ranges[1];
    var code = element.querySelector("code"), button = element.querySelector("button");
    given.searches.forEach(function (one, k) {
      pick.add(new Option(one.scale_factor + " (" + one.curves[0].milliseconds.toFixed(1) + " ms)", k));
    });
    if (given.searches.length < 2) element.querySelector(".search").hidden = true;

    function curve() { return search.curves[+neighbors.value]; }
    function lines() {
      var all = search.curves.map(function (one) {
        return [one.false.map(function (n) { return n / given.images; }),
          one.true.map(function (n) { return 100 * n / given.wanted; })];
      });
      var k = +level.value, now = all[+neighbors.value];
      all.push(now[0].length ? [[now[0][k]], [now[1][k]]] : [[0], [0]]);
      return joined(all);
    }
    var chart = C.draw(element.querySelector(".plot"), function (width) {
      return {
        width: width, height: 280, cursor: { y: false, drag: { x: false, y: false } }, legend: { show: false },
        scales: { x: falseScale(), y: { range: [0, 100] } },
        axes: [falseAxis(), percentAxis()],
        series: [{}].concat(search.curves.map(function (one, k) {
          var chosen = k === +neighbors.value;
          return {
            stroke: chosen ? C.color(0) : C.ink("--soft"), width: chosen ? 3 : 1, alpha: chosen ? 1 : 0.45,
            spanGaps: true, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false }
          };
        }), [{ stroke: C.color(1), fill: C.color(1), width: 0, points: { show: true, size: 13, fill: C.color(1), stroke: C.ink("--card"), width: 2 } }])
      };
    }, lines);

    function show() {
      var one = curve(), k = +level.value, n = one.true.length;
      var put = function (name, words) { element.querySelector("[data-is=" + name + "]").textContent = words; };
      outputs[0].textContent = one.min_neighbors + " (" + (one.min_neighbors ? "more than " + one.min_neighbors + " hits" : "any hit") + ")";
      var threshold = n ? one.threshold[k] : "";
      var words = threshold ? given.unit + " of at least " + threshold : "none";
      outputs[1].textContent = words;
      level.setAttribute("aria-valuetext", words);
      neighbors.setAttribute("aria-valuetext", outputs[0].textContent);
      var found = n ? one.true[k] : 0, wrong = n ? one.false[k] : 0;
      put("recall", (100 * found / given.wanted).toFixed(1) + " % (" + found + " of " + given.wanted + ")");
      put("false", wrong + " (" + (wrong / given.images).toFixed(wrong / given.images < 1 ? 3 : 1) + " per image)");
      put("precision", found + wrong ? (100 * found / (found + wrong)).toFixed(1) + " %" : "–");
      put("time", one.milliseconds.toFixed(1) + " ms");
      code.textContent = one.command[0] + (threshold ? " " + one.command[1] + " " + threshold : "") + one.command[2];
      element.dataset.point = [one.min_neighbors, threshold, found, wrong].join(" ");
    }
    // Keep the threshold where it was, as near as the other curve has it.
    function nearest(value) {
      var values = curve().lowest, best = values.length - 1;
      for (var k = 0; k < values.length; k++) if (values[k] <= value) { best = k; break; }
      return Math.max(best, 0);
    }
    function setCurve(value) {
      level.max = Math.max(0, curve().true.length - 1);
      level.value = value == null ? level.max : nearest(value);
      show();
      chart.draw();
    }
    function current() {
      var one = curve(), k = +level.value;
      return k === +level.max ? null : one.lowest[k];
    }
    var held = null;
    pick.addEventListener("change", function () { search = given.searches[+pick.value]; setCurve(held); });
    neighbors.max = search.curves.length - 1;
    neighbors.addEventListener("input", function () { setCurve(held); });
    level.addEventListener("input", function () { held = current(); show(); if (chart.chart) chart.chart.setData(lines()); });
    button.addEventListener("click", function () {
      var done = function () { button.textContent = "Copied"; setTimeout(function () { button.textContent = "Copy"; }, 1500); };
      var select = function () { getSelection().selectAllChildren(code); if (document.execCommand("copy")) done(); };
      if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, select); else select();
    });
    var usual = search.curves.findIndex(function (one) { return one.min_neighbors === 3; });
    neighbors.value = usual < 0 ? 0 : usual;
    setCurve(null);
  }

  function roc(element) {
    var given = C.data(element), plots = element.querySelectorAll(".plot");
    function series(stepped) {
      return given.detectors.map(function (one, k) {
        return {
          label: one.name, stroke: C.color(k), width: 2, spanGaps: true, points: { show: false }, value: withPercent,
          paths: stepped ? uPlot.paths.stepped({ align: 1 }) : undefined
        };
      });
    }
    [0, 1].forEach(function (which) {
      var one = C.draw(plots[which], function (width) {
        return {
          width: width, height: 280, cursor: { y: false, drag: { x: false, y: false } },
          scales: { x: which ? { time: false, range: [0, 100] } : falseScale(), y: { range: [0, 100] } },
          axes: [which ? C.axis({ label: "recall, %", labelSize: 18, labelFont: "12px system-ui, sans-serif", size: 34 }) : falseAxis(), percentAxis()],
          series: [{ label: which ? "recall" : "false positives per image", value: function (u, v) { return C.short(v); } }].concat(series(!which))
        };
      }, function () {
        return joined(given.detectors.map(function (one) {
          return which ? [one.recall, one.precision]
            : [one.false.map(function (n) { return n / given.images; }), one.recall];
        }));
      });
      plots[which].setAttribute("role", "group");
      plots[which].setAttribute("aria-label", (which ? "Precision against recall" : "Recall against false positives") + ". Left and right arrow keys read the values.");
      C.keys(plots[which], one);
    });
  }

  document.querySelectorAll("[data-part=operating]").forEach(operating);
  document.querySelectorAll("[data-part=roc]").forEach(roc);
})();
