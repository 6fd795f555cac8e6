// Operating points: sliders choose one, the figures and the command line follow. And the curves of several detectors.
(function () {
  "use strict";
  var C = vjCharts;

  // Logarithmic down to one false positive in the whole set, with room for none.
  function falseScale(images, most) {
    return { time: false, distr: 4, asinh: 1 / images, range: [0, most] };
  }
  function falseAxis(images) {
    return C.axis({
      label: "false positives per image", labelSize: 18, labelFont: "12px system-ui, sans-serif", size: 34,
      splits: function (u) {
        var found = [0], room = u.bbox.width / devicePixelRatio > 420 ? [1, 2, 5] : [1];
        for (var k = -5; k < 5; k++) room.forEach(function (f) {
          var t = +(f * Math.pow(10, k)).toPrecision(1);
          if (t >= 1 / images && t <= u.scales.x.max) found.push(t);
        });
        return found;
      },
      filter: function (u, splits) { return splits; },
      values: function (u, values) { return values.map(String); }
    });
  }
  function percentAxis() {
    return C.axis({ size: 52, values: function (u, values) { return values.map(function (v) { return v + " %"; }); } });
  }
  function withPercent(u, v) { return v == null ? "–" : v.toFixed(1) + " %"; }

  // A curve over false positives per image, from nothing at zero to the end of the axis.
  function rising(falses, founds, images, wanted, most) {
    var x = falses.map(function (n) { return n / images; }), y = founds.map(function (n) { return 100 * n / wanted; });
    if (!x.length || x[0] > 0) { x.unshift(0); y.unshift(0); }
    if (x[x.length - 1] < most) { x.push(most); y.push(y[y.length - 1]); }
    return [x, y];
  }
  function mostOf(lists, images) {
    return 1.05 * Math.max.apply(null, [10 / images].concat(lists.map(function (one) { return one.length ? one[one.length - 1] / images : 0; })));
  }

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
    var usual = search.curves.findIndex(function (one) { return one.min_neighbors === search.usual; });
    neighbors.max = search.curves.length - 1;
    neighbors.value = usual < 0 ? 0 : usual;
    level.max = level.value = Math.max(0, search.curves[+neighbors.value].true.length - 1);
    given.searches.forEach(function (one, k) {
      pick.add(new Option(one.label + " (" + one.curves[0].milliseconds.toFixed(1) + " ms)", k));
    });
    if (given.searches.length < 2) element.querySelector(".search").hidden = true;

    function most() { return mostOf(search.curves.map(function (one) { return one.false; }), given.images); }
    function curve() { return search.curves[+neighbors.value]; }
    function lines() {
      var all = search.curves.map(function (one) {
        return rising(one.false, one.true, given.images, given.wanted, most());
      });
      var k = +level.value, now = curve();
      all.push(now.true.length ? [[now.false[k] / given.images], [100 * now.true[k] / given.wanted]] : [[0], [0]]);
      return joined(all);
    }
    var chart = C.draw(element.querySelector(".plot"), function (width) {
      return {
        width: width, height: 280, cursor: { y: false, drag: { x: false, y: false } }, legend: { show: false },
        scales: { x: falseScale(given.images, most()), y: { range: [0, 100] } },
        axes: [falseAxis(given.images), percentAxis()],
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
      var words = threshold ? one.kind[k] + " of at least " + threshold : "none";
      outputs[1].textContent = words;
      level.setAttribute("aria-valuetext", words);
      neighbors.setAttribute("aria-valuetext", outputs[0].textContent);
      var found = n ? one.true[k] : 0, wrong = n ? one.false[k] : 0;
      put("recall", (100 * found / given.wanted).toFixed(1) + " % (" + found + " of " + given.wanted + ")");
      put("false", wrong + " (" + (wrong / given.images).toFixed(wrong / given.images < 1 ? 3 : 1) + " per image)");
      put("precision", found + wrong ? (100 * found / (found + wrong)).toFixed(1) + " %" : "–");
      put("time", one.milliseconds.toFixed(1) + " ms");
      code.textContent = one.command[0] + (threshold ? " " + given.options[one.kind[k]] + " " + threshold : "") + one.command[1];
      element.dataset.point = [one.min_neighbors, threshold, found, wrong].join(" ");
    }
    // Keep the threshold where it was, as near as the other curve has it.
    function nearest(value) {
      var values = curve().lowest, best = values.length - 1;
      for (var k = 0; k < values.length; k++) if (values[k] <= value) { best = k; break; }
      return Math.max(best, 0);
    }
    function setCurve(value) {
      neighbors.max = search.curves.length - 1;
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
    pick.addEventListener("change", function () {
      // Other rules have other values of min_neighbors.
      var n = curve().min_neighbors;
      search = given.searches[+pick.value];
      neighbors.max = search.curves.length - 1;
      var same = search.curves.findIndex(function (one) { return one.min_neighbors >= n; });
      neighbors.value = same < 0 ? neighbors.max : same;
      setCurve(held);
    });
    neighbors.addEventListener("input", function () { setCurve(held); });
    level.addEventListener("input", function () { held = current(); show(); if (chart.chart) chart.chart.setData(lines()); });
    button.addEventListener("click", function () {
      var done = function () { button.textContent = "Copied"; setTimeout(function () { button.textContent = "Copy"; }, 1500); };
      var select = function () { getSelection().selectAllChildren(code); if (document.execCommand("copy")) done(); };
      if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, select); else select();
    });
    setCurve(null);
  }

  function roc(element) {
    var given = C.data(element), plots = element.querySelectorAll(".plot");
    var most = mostOf(given.detectors.map(function (one) { return one.false; }), given.images);
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
          scales: { x: which ? { time: false, range: [0, 100] } : falseScale(given.images, most), y: { range: [0, 100] } },
          axes: [which ? C.axis({ label: "recall, %", labelSize: 18, labelFont: "12px system-ui, sans-serif", size: 34 }) : falseAxis(given.images), percentAxis()],
          series: [{ label: which ? "recall" : "false positives per image", value: function (u, v) { return C.short(v); } }].concat(series(!which))
        };
      }, function () {
        return joined(given.detectors.map(function (one) {
          return which ? [one.recall, one.precision]
            : rising(one.false, one.recall, given.images, 100, most);
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
